//! One node's control channel: a task that sends what is due and takes what comes.
//!
//! Many nodes idle here, so the task is small: rare work is boxed, one timer serves pings and the look into the
//! store.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use moorline_protocol::{
    error_chain,
    message::{
        AgentJobReply, AgentJobReplyAck, AgentMessage, MessageType, OpenControlChannel, PolicyQuestion,
    },
    time::Now,
    types::InstanceId,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::{
    Gateway, command_delivery,
    hub::{ControlChannel, CopiedKey, Orders},
    reports::Reports,
    session_delivery::SessionDelivery,
    socket::{self, CLOSE_COPIED_KEY, CLOSE_FAILURE, CLOSE_POLICY, Socket},
};
use crate::{app::App, auth::ChannelGrant, store::StoreError};

const PING_INTERVAL: Duration = Duration::from_secs(30);
/// After this long without any frame the node is lost.
const SILENCE: Duration = Duration::from_secs(90);
/// A frame that the node does not take within this time means that it is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Frames that cannot be read, after which the channel is closed.
const MOST_VIOLATIONS: u32 = 100;

pub(super) async fn serve(
    app: Arc<App>,
    gateway: Arc<Gateway>,
    node: InstanceId,
    mut socket: Socket,
    peer: IpAddr,
) {
    let opened = Box::pin(open(&app, &gateway, &node, &mut socket)).await;
    let channel = match opened {
        Ok(channel) => channel,
        Err(NotOpened { code, reason }) => {
            tracing::info!(%node, %peer, code, reason, "control channel refused");
            let path = format!("/v1/control-channel/{node}");
            app.audit
                .channel_refused(peer, &path, None, "AccessDeniedException", &reason);
            socket::close(socket, code, &reason).await;
            return;
        }
    };
    tracing::info!(%node, %peer, "control channel open");
    let standing = app.metrics.gauge("moorline_control_channels", &[]).hold();
    let mut task = Task {
        app: Arc::clone(&app),
        gateway: Arc::clone(&gateway),
        node: node.clone(),
        channel: Arc::clone(&channel),
        socket,
        sessions: SessionDelivery::default(),
        reports: Reports::start(),
        violations: 0,
    };
    let end = task.run().await;
    gateway.hub.leave(&node, &channel);
    drop(standing);
    match end {
        End::Lost(why) => tracing::info!(%node, %peer, why, "control channel lost"),
        End::Close(code, reason) => {
            tracing::info!(%node, %peer, code, reason, "control channel closed");
            Box::pin(socket::close(task.socket, code, &reason)).await;
        }
    }
}

struct NotOpened {
    code: u16,
    reason: String,
}

impl NotOpened {
    fn policy(reason: impl ToString) -> Self {
        Self {
            code: CLOSE_POLICY,
            reason: reason.to_string(),
        }
    }

    fn failure(error: &StoreError) -> Self {
        tracing::error!(
            error = %error_chain(error),
            "the store failed while a control channel opened"
        );
        Self {
            code: CLOSE_FAILURE,
            reason: "internal failure".to_owned(),
        }
    }
}

async fn open(
    app: &App,
    gateway: &Gateway,
    node: &InstanceId,
    socket: &mut Socket,
) -> Result<Arc<ControlChannel>, NotOpened> {
    let open: OpenControlChannel = socket::read_open(socket).await.map_err(NotOpened::policy)?;
    let own = ChannelGrant::ControlChannel { node: node.clone() };
    gateway
        .used_tokens
        .redeem(app, &open.token_value, |grant| *grant == own)
        .map_err(NotOpened::policy)?;
    socket::trust(socket);
    let known = app
        .store
        .node(node)
        .await
        .map_err(|error| NotOpened::failure(&error))?;
    if known.is_none() {
        return Err(NotOpened::policy("this node is not registered here"));
    }
    let admitted = gateway.hub.admit(
        node,
        open.moorline_process_id,
        open.moorline_answers_policy.unwrap_or_default(),
    );
    let admitted = admitted.await;
    if admitted.is_err() {
        let now = app.clock.unix_millis();
        tracing::warn!(%node, "a second machine uses this node's registration; it was refused");
        app.metrics.counter("moorline_copied_keys_total", &[]).increment();
        app.store
            .record_copied_key(node, now)
            .await
            .map_err(|error| NotOpened::failure(&error))?;
    }
    let channel = admitted.map_err(|refused: CopiedKey| NotOpened {
        code: CLOSE_COPIED_KEY,
        reason: refused.to_string(),
    })?;
    // a node that was deregistered before its channel was in the hub was not disconnected
    match app.store.is_registered(node).await {
        Ok(true) => Ok(channel),
        still => {
            gateway.hub.leave(node, &channel);
            Err(match still {
                Err(error) => NotOpened::failure(&error),
                Ok(_) => NotOpened::policy("this node is not registered here"),
            })
        }
    }
}

/// How a control channel ends.
enum End {
    Lost(&'static str),
    Close(u16, String),
}

struct Task {
    app: Arc<App>,
    gateway: Arc<Gateway>,
    node: InstanceId,
    channel: Arc<ControlChannel>,
    socket: Socket,
    sessions: SessionDelivery,
    reports: Reports,
    violations: u32,
}

impl Task {
    async fn run(&mut self) -> End {
        match self.run_until_end().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn run_until_end(&mut self) -> Result<std::convert::Infallible, End> {
        let channel = Arc::clone(&self.channel);
        let mut last_heard = Instant::now();
        let timer = tokio::time::sleep(PING_INTERVAL);
        tokio::pin!(timer);
        let connected = Box::pin(command_delivery::on_connected(&self.app, &self.node)).await;
        self.outlive(connected);
        Box::pin(self.deliver()).await?;
        loop {
            tokio::select! {
                received = self.socket.next(), if self.reports.has_room() => {
                    last_heard = Instant::now();
                    match received {
                        Some(Ok(Message::Binary(frame))) => Box::pin(self.receive(frame)).await?,
                        Some(Ok(Message::Pong(_))) => channel.was_answered(),
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => return Err(End::Lost("the connection ended")),
                    }
                }
                stored = self.reports.next() => {
                    let stored = stored.ok_or(End::Lost("a report of the node could not be handled"))?;
                    // without its answer the node says it again
                    if let Some(frame) = self.outlive(stored).flatten() {
                        Box::pin(self.send(Message::Binary(frame))).await?;
                    }
                }
                orders = channel.orders() => Box::pin(self.obey(orders)).await?,
                () = &mut timer => {
                    if last_heard.elapsed() > SILENCE {
                        return Err(End::Lost("nothing was heard for 90 seconds"));
                    }
                    Box::pin(self.send(Message::Ping(Bytes::new()))).await?;
                    // orders are only a hint; what is due stands in the store
                    Box::pin(self.deliver()).await?;
                    timer.as_mut().reset(Instant::now() + PING_INTERVAL);
                }
            }
        }
    }

    async fn obey(&mut self, orders: Orders) -> Result<(), End> {
        if let Some((code, reason)) = orders.close {
            return Err(End::Close(code, reason));
        }
        if orders.ping {
            self.send(Message::Ping(Bytes::new())).await?;
        }
        if orders.ask {
            self.ask().await?;
        }
        if orders.look {
            self.deliver().await?;
        }
        Ok(())
    }

    /// Sends the questions about the policy of the node's owner that wait.
    async fn ask(&mut self) -> Result<(), End> {
        loop {
            let next = self.channel.questions().take();
            let Some((question_id, content)) = next else {
                return Ok(());
            };
            let payload = json(&PolicyQuestion {
                question_id,
                content: content.to_string(),
            });
            let kind = MessageType::MoorlinePolicyQuestion;
            let message = AgentMessage::control(kind, Uuid::new_v4(), self.now(), 0, payload);
            self.send(Message::Binary(message.encode())).await?;
        }
    }

    /// Sends what the store has for this node: sessions first, a person waits for them.
    async fn deliver(&mut self) -> Result<(), End> {
        let now = self.now();
        let frames = self.sessions.due(&self.app, &self.node, now).await;
        for frame in self.outlive(frames).unwrap_or_default() {
            self.send(Message::Binary(frame)).await?;
        }
        let jobs = {
            // so that the first nodes of a fleet have reported before the last ones are looked for
            let _turn = self.gateway.looks.acquire().await;
            command_delivery::due(&self.app, &self.node).await
        };
        for job in self.outlive(jobs).unwrap_or_default() {
            let payload = json(&job.payload);
            let message =
                AgentMessage::control(MessageType::AgentJob, job.message_id, self.now(), 0, payload);
            self.send(Message::Binary(message.encode())).await?;
        }
        Ok(())
    }

    async fn receive(&mut self, frame: Bytes) -> Result<(), End> {
        let Ok(message) = AgentMessage::decode(&frame) else {
            return self.violated("frame");
        };
        match &message.message_type {
            MessageType::AgentJobAck => {
                let Some(ack) = read(&message) else {
                    return self.violated("agent_job_ack");
                };
                // an answer that is lost here comes again: the job does
                let (app, node) = (Arc::clone(&self.app), self.node.clone());
                self.reports.push(Box::pin(async move {
                    command_delivery::acked(&app, &node, &ack).await?;
                    Ok(None)
                }));
            }
            MessageType::AgentJobReply => {
                let Some(reply) = read::<AgentJobReply>(&message) else {
                    return self.violated("agent_job_reply");
                };
                let report = replied(
                    Arc::clone(&self.app),
                    self.node.clone(),
                    message.message_id,
                    reply,
                );
                self.reports.push(Box::pin(report));
            }
            MessageType::AgentTaskComplete => {
                let Some(complete) = read(&message) else {
                    return self.violated("agent_task_complete");
                };
                let now = self.now();
                let completed =
                    self.sessions
                        .completed(&self.app, &self.gateway, &self.node, now, (&message, &complete));
                let completed = completed.await;
                // without the acknowledgement the node says it again
                if let Some(acknowledge) = self.outlive(completed) {
                    self.send(Message::Binary(acknowledge)).await?;
                }
            }
            MessageType::MoorlinePolicyAnswer => match read(&message) {
                Some(answer) => self.channel.questions().answered(answer),
                None => return self.violated("moorline_policy_answer"),
            },
            // telemetry is of no use here, and what a newer agent knows is no fault
            _ => {}
        }
        Ok(())
    }

    /// A store that fails, as on a full disk, takes no channel down: every node would come back at once and fail
    /// again. What was not done is done at a later look, or asked for again by the node.
    fn outlive<T>(&self, done: Result<T, StoreError>) -> Option<T> {
        done.inspect_err(|error| {
            tracing::error!(
                node = %self.node,
                error = %error_chain(error),
                "the store failed a control channel; it stays open"
            );
            let failures = "moorline_control_channel_store_failures_total";
            self.app.metrics.counter(failures, &[]).increment();
        })
        .ok()
    }

    fn violated(&mut self, what: &'static str) -> Result<(), End> {
        self.violations += 1;
        self.app
            .metrics
            .counter("moorline_malformed_frames_total", &[("channel", "control")])
            .increment();
        tracing::debug!(node = %self.node, what, "a frame of the node cannot be read");
        if self.violations < MOST_VIOLATIONS {
            return Ok(());
        }
        Err(End::Close(
            CLOSE_POLICY,
            "too many frames that cannot be read".to_owned(),
        ))
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        match tokio::time::timeout(SEND_TIMEOUT, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Lost("the connection ended")),
            Err(_) => Err(End::Lost("the node took no frame for 30 seconds")),
        }
    }

    fn now(&self) -> Now {
        now(&self.app)
    }
}

/// Stores a reply; its acknowledgement, without which the node sends it again.
async fn replied(
    app: Arc<App>,
    node: InstanceId,
    message_id: Uuid,
    reply: AgentJobReply,
) -> Result<Option<Bytes>, StoreError> {
    command_delivery::replied(&app, &node, message_id, &reply).await?;
    let payload = json(&AgentJobReplyAck {
        job_id: reply.job_id,
        acknowledged_message_id: message_id.to_string(),
    });
    let ack = AgentMessage::control(
        MessageType::AgentJobReplyAck,
        Uuid::new_v4(),
        now(&app),
        0,
        payload,
    );
    Ok(Some(ack.encode()))
}

/// Control messages have no timers of their own, so only the wall clock matters.
fn now(app: &App) -> Now {
    Now {
        monotonic: Duration::ZERO,
        unix_millis: app.clock.unix_millis(),
    }
}

fn read<T: DeserializeOwned>(message: &AgentMessage) -> Option<T> {
    serde_json::from_slice(&message.payload).ok()
}

/// Plain structures with text keys: serializing them cannot fail.
pub(super) fn json(payload: &impl Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(payload).unwrap_or_default())
}
