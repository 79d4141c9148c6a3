//! The control channel, held for as long as the daemon runs (agent-wire §4). This task does no work: it reads a
//! frame, hands it to a mailbox, and sends what others made.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use moorline_protocol::{
    error_chain,
    message::{AgentJob, AgentJobAck, AgentMessage, JobAckCode, MessageType, OpenControlChannel},
    sigv4::Credentials,
    time::Now,
};
use moorline_transport::{
    ChannelError, ChannelRequest, Service, WebSocket, WebSocketError, open_channel, unix_millis,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use uuid::Uuid;

use super::{
    status::{Channel, StatusWriter},
    transcript_key,
};
use crate::{
    command::CommandService,
    identity::note,
    runtime::{AGENT_VERSION, Backoff, NodeContext, random_u32, shrink},
    session::SessionService,
};

/// First pause after a loss; later ones double, with full jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// A node is back within this time after its endpoint is.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// Between pings. The stock agent pings every 54 s, which notices a dead path too late.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// A daemon with nothing to do for this long gives back the memory that it does not need at rest.
const REST_AFTER: Duration = Duration::from_secs(3);
/// Nothing heard for this long, though pings were sent: the path is dead.
const DEAD_AFTER: Duration = Duration::from_secs(40);
/// Malformed frames before the channel is given up: a peer that sends only nonsense is not ours.
const MAX_MALFORMED: u32 = 100;

/// Connects, serves, and connects again, for ever.
pub(super) async fn keep_connected(
    context: Arc<NodeContext>,
    commands: CommandService,
    sessions: SessionService,
    mut to_send: mpsc::Receiver<AgentMessage>,
    status: StatusWriter,
) {
    let process_id = Uuid::new_v4().to_string();
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut credentials = context.credentials.clone();
    status.write(Channel::Connecting { last_error: None });
    loop {
        let Ok(current) = credentials
            .wait_for(Option::is_some)
            .await
            .map(|guard| guard.clone())
        else {
            return;
        };
        let Some(role) = current else { continue };
        transcript_key::register(&context, &role.credentials).await;
        let ended = match connect(&context, &role.credentials, &process_id).await {
            Ok(socket) => {
                tracing::info!("control channel connected");
                note(&context.registration, &context.state_dir);
                status.write(Channel::Connected {
                    since_unix_millis: unix_millis(),
                });
                let stood_since = Instant::now();
                commands.connected();
                let mut line = Line {
                    socket,
                    commands: &commands,
                    sessions: &sessions,
                    heard: Instant::now(),
                    ping_at: Instant::now() + PING_INTERVAL,
                    malformed: 0,
                    rested: false,
                };
                let error = line.serve(&mut to_send).await;
                commands.disconnected();
                // Only a channel that stood for a while proves that the endpoint takes us.
                if stood_since.elapsed() > PING_INTERVAL {
                    backoff.reset();
                }
                error
            }
            Err(error) => {
                if is_rejection(&error) {
                    context.credentials_rejected.notify_one();
                }
                error
            }
        };
        let pause = backoff.next(random_u32());
        let ended = error_chain(&*ended);
        tracing::warn!("control channel lost, next attempt in {pause:.1?}: {ended}");
        status.write(Channel::Connecting {
            last_error: Some(ended),
        });
        sleep(pause).await;
    }
}

/// The endpoint answered, and did not take the credentials.
fn is_rejection(error: &anyhow::Error) -> bool {
    let status = match error.downcast_ref::<ChannelError>() {
        Some(
            ChannelError::Refused { status, .. }
            | ChannelError::WebSocket(WebSocketError::Refused { status, .. }),
        ) => *status,
        Some(ChannelError::Http(_) | ChannelError::NoToken { .. } | ChannelError::WebSocket(_)) | None => {
            return false;
        }
    };
    matches!(status, 400 | 401 | 403)
}

async fn connect(
    context: &NodeContext,
    credentials: &Credentials,
    process_id: &str,
) -> anyhow::Result<WebSocket> {
    let registration = &context.registration;
    let path = format!("/v1/control-channel/{}", registration.instance_id);
    let request = ChannelRequest {
        endpoint: registration.services.endpoint(Service::SsmMessages),
        trust: &registration.trust,
        credentials,
        region: &registration.region,
        path: &path,
        query: "role=subscribe&stream=input",
        client_id: None,
    };
    let (token_value, mut socket) = open_channel(&request).await?;
    let open = OpenControlChannel {
        cookie: None,
        message_schema_version: "1.0".to_owned(),
        request_id: Uuid::new_v4().to_string(),
        token_value,
        agent_version: AGENT_VERSION.to_owned(),
        platform_type: "linux".to_owned(),
        moorline_process_id: registration.is_moorline.then(|| process_id.to_owned()),
        moorline_answers_policy: registration.is_moorline.then_some(true),
    };
    let text = serde_json::to_string(&open).context("failed to write the open message")?;
    socket
        .send(Message::Text(text.into()))
        .await
        .context("failed to send the open message")?;
    Ok(socket)
}

/// One standing control channel.
struct Line<'a> {
    socket: WebSocket,
    commands: &'a CommandService,
    sessions: &'a SessionService,
    heard: Instant,
    ping_at: Instant,
    malformed: u32,
    /// Nothing has happened since the memory of the last burst was given back.
    rested: bool,
}

impl Line<'_> {
    /// Serves until the channel is lost, and says why.
    async fn serve(&mut self, to_send: &mut mpsc::Receiver<AgentMessage>) -> anyhow::Error {
        loop {
            let served = tokio::select! {
                biased;
                // What was heard comes first: it may be a cancel.
                frame = self.socket.next() => match frame {
                    Some(Ok(frame)) => self.take(frame).await,
                    Some(Err(error)) => Err(anyhow::Error::from(error).context("the connection broke")),
                    None => Err(anyhow!("the endpoint closed the connection")),
                },
                message = to_send.recv() => match message {
                    Some(message) => self.transmit(&message).await,
                    None => Err(anyhow!("nothing is left that sends")),
                },
                () = sleep_until(self.heard + DEAD_AFTER) => {
                    Err(anyhow!("nothing was heard for {} s", DEAD_AFTER.as_secs()))
                }
                () = sleep_until(self.ping_at) => self.ping().await,
                () = sleep(REST_AFTER), if !self.rested => {
                    self.rested = true;
                    shrink();
                    Ok(())
                }
            };
            if let Err(error) = served {
                return error;
            }
        }
    }

    async fn ping(&mut self) -> anyhow::Result<()> {
        self.ping_at = Instant::now() + PING_INTERVAL;
        let ping = Message::Ping(Bytes::from_static(b"keepalive"));
        self.socket.send(ping).await.context("failed to ping")
    }

    async fn transmit(&mut self, message: &AgentMessage) -> anyhow::Result<()> {
        self.socket
            .send(Message::Binary(message.encode()))
            .await
            .context("failed to send")
    }

    async fn take(&mut self, frame: Message) -> anyhow::Result<()> {
        self.heard = Instant::now();
        // A pong is no work: it must not wake what rests.
        self.rested &= matches!(frame, Message::Pong(_) | Message::Ping(_));
        match frame {
            Message::Binary(bytes) => match AgentMessage::decode(&bytes) {
                Ok(message) => self.dispatch(message).await,
                Err(error) => self.count_malformed(&error.into()),
            },
            Message::Close(Some(close)) => {
                bail!(
                    "the endpoint closed the channel: {} ({})",
                    text_or(&close.reason, "no reason"),
                    u16::from(close.code)
                )
            }
            Message::Close(None) => bail!("the endpoint closed the channel"),
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
        }
    }

    fn count_malformed(&mut self, error: &anyhow::Error) -> anyhow::Result<()> {
        self.malformed += 1;
        let told = error_chain(&**error);
        tracing::warn!("dropped a malformed message of the control channel: {told}");
        if self.malformed > MAX_MALFORMED {
            bail!("the endpoint sent {MAX_MALFORMED} malformed messages");
        }
        Ok(())
    }

    async fn dispatch(&mut self, message: AgentMessage) -> anyhow::Result<()> {
        let refused = match message.message_type {
            MessageType::AgentJob | MessageType::AgentJobReplyAck | MessageType::MoorlinePolicyQuestion => {
                self.commands.try_deliver(message)
            }
            MessageType::InteractiveShell
            | MessageType::ChannelClosed
            | MessageType::AgentTaskAcknowledge => self.sessions.try_deliver(message),
            other => {
                tracing::debug!(?other, "ignored a message of the control channel");
                Ok(())
            }
        };
        match refused {
            Ok(()) => Ok(()),
            Err(message) if message.message_type == MessageType::AgentJob => match busy_ack(&message) {
                Ok(busy) => self.transmit(&busy).await,
                Err(error) => self.count_malformed(&error),
            },
            Err(message) => {
                tracing::warn!(message_type = ?message.message_type, "a mailbox is full, message dropped");
                Ok(())
            }
        }
    }
}

/// The mailbox is full: the endpoint delivers the job again later.
fn busy_ack(job: &AgentMessage) -> anyhow::Result<AgentMessage> {
    let parsed: AgentJob = serde_json::from_slice(&job.payload).context("an agent_job could not be read")?;
    let (status_code, error_message) = JobAckCode::ProcessorBufferFull.wire();
    let created = i64::try_from(job.created_date)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let ack = AgentJobAck {
        job_id: parsed.job_id,
        acknowledged_message_id: job.message_id.to_string(),
        created_date: created.map_or_else(String::new, |created| format!("{created:.3}")),
        status_code: status_code.to_owned(),
        error_message: error_message.to_owned(),
    };
    let now = Now {
        monotonic: Duration::ZERO,
        unix_millis: unix_millis(),
    };
    let payload = Bytes::from(serde_json::to_vec(&ack)?);
    Ok(AgentMessage::control(
        MessageType::AgentJobAck,
        Uuid::new_v4(),
        now,
        0,
        payload,
    ))
}

fn text_or<'a>(text: &'a Utf8Bytes, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text.as_str() }
}
