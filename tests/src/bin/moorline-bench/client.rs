//! The smallest client of a session: the protocol's own state machine on a websocket.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use moorline_protocol::{
    channel::{DataChannel, Event, Output, Role},
    message::{OpenDataChannel, PayloadType, TerminalSize},
    time::Now,
};
use moorline_ssm::session::{StartSession, StartSessionRequest, TerminateSession, TerminateSessionRequest};
use moorline_tests::Endpoint;
use moorline_transport::{ApiClient, Endpoint as Host, HttpClient, WebSocket, open_websocket};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

/// Nothing measured here takes longer.
const LIMIT: Duration = Duration::from_secs(20);

/// A client of the API that keeps its connection, as a program would.
pub(crate) fn api(endpoint: &Endpoint) -> ApiClient {
    let api = endpoint.api();
    let http = HttpClient::new(api.host().clone(), api.trust().clone());
    ApiClient::new(http, api.region().to_owned(), "moorline-bench".to_owned())
}

/// One open session.
pub(crate) struct Session {
    id: String,
    socket: WebSocket,
    channel: DataChannel,
    origin: Instant,
}

impl Session {
    /// Starts a program on a terminal of the node and opens the data channel. It is a session with a command rather
    /// than a login shell, because a login shell reads its owner's start files for as long as they take.
    pub(crate) async fn start(
        client: &ApiClient,
        endpoint: &Endpoint,
        node: &str,
        program: &str,
    ) -> Result<Self> {
        let input = StartSessionRequest {
            target: Some(node.to_owned()),
            document_name: Some("AWS-StartInteractiveCommand".to_owned()),
            parameters: Some([("command".to_owned(), vec![program.to_owned()])].into()),
            ..Default::default()
        };
        let started = client
            .call::<StartSession>(Some(endpoint.api().credentials()), &input)
            .await?;
        let url = started.stream_url.context("no stream URL")?;
        let (host, path) = Host::parse_stream_url(&url)?;
        let mut socket = open_websocket(&host, endpoint.api().trust(), &path, None).await?;
        let open = OpenDataChannel {
            message_schema_version: "1.0".into(),
            request_id: uuid::Uuid::new_v4().to_string(),
            token_value: started.token_value.context("no token")?,
            client_id: uuid::Uuid::new_v4().to_string(),
            client_version: Some("1.2.896.0".to_owned()),
            client_instance_id: None,
            moorline_max_payload_bytes: Some(32 * 1024),
            moorline_take_over: None,
        };
        socket
            .send(Message::Text(serde_json::to_string(&open)?.into()))
            .await?;
        let mut seed = [0; 32];
        seed.iter_mut()
            .zip(uuid::Uuid::new_v4().as_bytes().iter().cycle())
            .for_each(|(to, from)| *to = *from);
        let mut session = Self {
            id: started.session_id.context("no session id")?,
            socket,
            channel: DataChannel::new(Role::Client, seed, 1024 * 1024),
            origin: Instant::now(),
        };
        session.channel.connected(session.now());
        let size = serde_json::to_vec(&TerminalSize { cols: 80, rows: 24 })?;
        session.channel.send(session.now(), PayloadType::Size, &size)?;
        Ok(session)
    }

    fn now(&self) -> Now {
        Now {
            monotonic: self.origin.elapsed(),
            unix_millis: moorline_tests::epoch(),
        }
    }

    pub(crate) async fn type_text(&mut self, text: &[u8]) -> Result<()> {
        self.channel.send(self.now(), PayloadType::Output, text)?;
        self.transmit().await.map(|_| ())
    }

    /// Sends what is due and returns the output that came with it.
    async fn transmit(&mut self) -> Result<Vec<Bytes>> {
        let mut output = Vec::new();
        while let Some(next) = self.channel.poll() {
            match next {
                Output::Transmit(frame) => self.socket.feed(Message::Binary(frame)).await?,
                Output::Event(Event::Data {
                    payload_type: PayloadType::Output,
                    payload,
                }) => output.push(payload),
                Output::Event(Event::Closed(closed)) => bail!("the session ended: {}", closed.output),
                Output::Event(_) => {}
            }
        }
        self.socket.flush().await?;
        Ok(output)
    }

    /// Waits for the next output.
    pub(crate) async fn output(&mut self) -> Result<Vec<u8>> {
        let wait = async {
            loop {
                let output = self.transmit().await?;
                if !output.is_empty() {
                    return Ok(output.concat());
                }
                let due = self
                    .channel
                    .next_timeout()
                    .map_or(LIMIT, |due| due.saturating_sub(self.origin.elapsed()));
                tokio::select! {
                    frame = self.socket.next() => match frame.context("the endpoint closed the data channel")?? {
                        Message::Binary(frame) => self.channel.receive(self.now(), &frame),
                        Message::Close(close) => bail!("the endpoint closed the data channel: {close:?}"),
                        _ => {}
                    },
                    () = sleep(due) => self.channel.timeout(self.now()),
                }
            }
        };
        timeout(LIMIT, wait).await.context("no output came")?
    }

    /// Reads until `text` came.
    pub(crate) async fn until(&mut self, text: &[u8]) -> Result<()> {
        let mut seen = Vec::new();
        while !seen.windows(text.len()).any(|window| window == text) {
            seen.extend(self.output().await?);
        }
        Ok(())
    }

    pub(crate) async fn end(self, client: &ApiClient, endpoint: &Endpoint) -> Result<()> {
        let input = TerminateSessionRequest {
            session_id: Some(self.id),
        };
        client
            .call::<TerminateSession>(Some(endpoint.api().credentials()), &input)
            .await?;
        Ok(())
    }
}
