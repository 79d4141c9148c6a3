//! The side of a session that faces its peer, whatever the session's type: connection and stream, where the peer is,
//! and by whose order the session ends.

use moorline_protocol::{
    channel::{DataChannel, Event, HandshakeOffer, Output},
    message::{AgentSessionState, PayloadType, StartPublication},
    time::Now,
    types::SessionId,
};
use moorline_transport::unix_millis;
use tokio::time::{Duration, Instant};

use super::{
    channel_opening::MAX_PAYLOAD_BYTES,
    data_key::SealedKey,
    ending::Peer,
    link::{Link, LinkEvent},
};

/// The smallest payload that every peer takes.
const LEAST_PAYLOAD_BYTES: u32 = 1024;
/// `Flag` payload by which a client ends the session (agent-wire §5).
const FLAG_TERMINATE_SESSION: [u8; 4] = 2_u32.to_be_bytes();

/// Characters of what the endpoint says of a session's end that are recorded.
const LONGEST_WORD: usize = 256;

/// Why a session ends that did not end by itself.
pub(super) enum Order {
    /// By its client, or by the daemon: no failure.
    Closed,
    /// The endpoint wants it, or has said that it is over; what the recording says.
    ClosedByEndpoint(String),
    Failed(String),
    /// The node's machine, or its administrator; the reason.
    Shutdown(String),
}

impl Order {
    /// What the user is told.
    pub(super) fn reason(&self) -> Option<&str> {
        match self {
            Self::Closed | Self::ClosedByEndpoint(_) => None,
            Self::Failed(reason) | Self::Shutdown(reason) => Some(reason),
        }
    }

    /// What the recording says.
    pub(super) fn recorded(&self) -> &str {
        match self {
            Self::Closed => "its client, or an operator, ended the session",
            Self::ClosedByEndpoint(reason) | Self::Failed(reason) | Self::Shutdown(reason) => reason,
        }
    }

    /// The endpoint's word is its own, which the node seals as such.
    fn closed_by_endpoint(said: &str) -> Self {
        let mut recorded = "the endpoint ended the session".to_owned();
        if !said.is_empty() {
            recorded.push_str(": ");
            recorded.extend(said.chars().take(LONGEST_WORD));
        }
        Self::ClosedByEndpoint(recorded)
    }

    /// Whether there may soon be no network to tell it by.
    pub(super) fn is_urgent(&self) -> bool {
        matches!(self, Self::Shutdown(_))
    }
}

/// What only the session itself can answer.
pub(super) enum Heard {
    Data {
        payload_type: PayloadType,
        payload: bytes::Bytes,
    },
    /// The peer takes data, and has said who it is.
    Started(StartPublication),
    HandshakeComplete,
    DecryptionWanted(SealedKey),
    /// The stream is of no use any more, and the end is ordered.
    Broken,
}

/// What a peer is attached by.
pub(super) struct Attachment {
    pub(super) session_id: SessionId,
    /// Our extensions go to our endpoint only.
    pub(super) is_moorline: bool,
    pub(super) channel: DataChannel,
    pub(super) link: Link,
    /// What each client is asked before anything else, if anything is.
    handshake: Option<HandshakeOffer>,
    handshake_begun: bool,
    /// The client that the stream is for, in sessions that can change hands; empty until the endpoint names one.
    client_id: Option<String>,
    started: Instant,
    order: Option<Order>,
    paused: bool,
    connected_before: bool,
    unacknowledged: usize,
    progress_at: Duration,
}

impl Attachment {
    pub(super) fn new(
        session_id: SessionId,
        is_moorline: bool,
        channel: DataChannel,
        link: Link,
        handshake: Option<HandshakeOffer>,
    ) -> Self {
        Self {
            session_id,
            is_moorline,
            channel,
            link,
            handshake,
            handshake_begun: false,
            client_id: None,
            started: Instant::now(),
            order: None,
            paused: false,
            connected_before: false,
            unacknowledged: 0,
            progress_at: Duration::ZERO,
        }
    }

    /// Time of the session.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn now(&self) -> Now {
        Now {
            monotonic: self.elapsed(),
            unix_millis: unix_millis(),
        }
    }

    /// The instant of a time of the session.
    pub(super) fn instant(&self, time: Duration) -> Instant {
        self.started + time
    }

    /// Orders the end. The first order counts.
    pub(super) fn end(&mut self, order: Order) {
        if self.order.is_none() {
            self.order = Some(order);
        }
    }

    pub(super) fn order(&self) -> Option<&Order> {
        self.order.as_ref()
    }

    pub(super) fn into_order(self) -> Option<Order> {
        self.order
    }

    pub(super) fn has_handshake(&self) -> bool {
        self.handshake.is_some()
    }

    /// The same, of a session that another client may take over.
    #[must_use]
    pub(super) fn changing_hands(mut self) -> Self {
        self.client_id = self.is_moorline.then(String::new);
        self
    }

    /// The client that the stream is for; empty before the endpoint names one.
    pub(super) fn client_id(&self) -> &str {
        self.client_id.as_deref().unwrap_or_default()
    }

    pub(super) fn set_client_id(&mut self, client_id: &str) {
        self.client_id = Some(client_id.to_owned());
    }

    /// Where the peer is.
    pub(super) fn peer(&self) -> Peer {
        match (self.link.is_open(), self.paused) {
            (false, _) => Peer::Away,
            (true, true) => Peer::Paused,
            (true, false) => Peer::Attached,
        }
    }

    /// What was sent and not acknowledged when the stream was last looked at, in bytes.
    pub(super) fn unacknowledged(&self) -> usize {
        self.unacknowledged
    }

    /// When an acknowledgement last came, or the session last made [`Self::note_progress`].
    pub(super) fn progress_at(&self) -> Duration {
        self.progress_at
    }

    pub(super) fn note_progress(&mut self) {
        self.progress_at = self.elapsed();
    }

    /// When the stream wants to send again. Not while the first copy still waits for the network.
    pub(super) fn resend_at(&self) -> Option<Duration> {
        self.channel.next_timeout().filter(|_| !self.link.is_congested())
    }

    /// Sends again what is due to be.
    pub(super) fn resend(&mut self) {
        let now = self.now();
        if self.resend_at().is_some_and(|due| due <= now.monotonic) {
            self.channel.timeout(now);
        }
    }

    pub(super) fn on_link(&mut self, event: LinkEvent) {
        let now = self.now();
        match event {
            LinkEvent::Opened => {
                self.channel.connected(now);
                self.paused = false;
                // The stock agent says this once; ours may have been restarted and repeats cost nothing.
                if !self.connected_before || self.is_moorline {
                    self.say_connected();
                }
                self.connected_before = true;
                if !self.handshake_begun {
                    self.handshake_begun = true;
                    self.start_handshake();
                }
            }
            LinkEvent::Frame(frame) => {
                self.paused = false;
                self.channel.receive(now, &frame);
            }
            LinkEvent::Lost => self.channel.disconnected(),
            LinkEvent::Ended => {
                tracing::info!("the endpoint ended the session while it was not connected");
                self.channel.disconnected();
                self.end(Order::closed_by_endpoint(""));
            }
            LinkEvent::GivenUp(reason) => {
                self.channel.disconnected();
                self.end(Order::Failed(reason));
            }
        }
    }

    fn start_handshake(&mut self) {
        if let Some(offer) = self.handshake.clone() {
            let now = self.now();
            self.channel.start_handshake(now, offer);
        }
    }

    /// Begins a stream for another client, on the same connection.
    pub(super) fn begin_stream(&mut self, channel: DataChannel) {
        self.channel = channel;
        self.channel.connected(self.now());
        self.unacknowledged = 0;
        self.note_progress();
        self.say_connected();
        self.start_handshake();
    }

    fn say_connected(&mut self) {
        self.send_state(AgentSessionState {
            moorline_client_id: self.client_id.clone(),
            ..self.state("Connected")
        });
    }

    /// Says that the session ends, with its exit code where it has one. The reason is that of the order.
    pub(super) fn say_terminating(&mut self, exit_code: Option<i32>) {
        let reason = self.order.as_ref().and_then(Order::reason).map(str::to_owned);
        self.send_state(AgentSessionState {
            moorline_exit_code: exit_code.filter(|_| self.is_moorline),
            moorline_reason: reason.filter(|_| self.is_moorline),
            ..self.state("Terminating")
        });
    }

    fn state(&self, session_state: &str) -> AgentSessionState {
        AgentSessionState {
            schema_version: 1,
            session_state: session_state.to_owned(),
            session_id: self.session_id.to_string(),
            moorline_exit_code: None,
            moorline_reason: None,
            moorline_client_id: None,
        }
    }

    fn send_state(&mut self, state: AgentSessionState) {
        let now = self.now();
        self.channel.send_session_state(now, &state);
    }

    /// Sends what the stream wants sent, and returns the next thing for the session to answer, until there is none.
    pub(super) fn poll(&mut self) -> Option<Heard> {
        while let Some(output) = self.channel.poll() {
            let heard = match output {
                Output::Transmit(frame) => {
                    self.link.send(frame);
                    None
                }
                Output::Event(event) => self.on_event(event),
            };
            if heard.is_some() {
                return heard;
            }
        }
        let unacknowledged = self.channel.unacknowledged();
        if unacknowledged < self.unacknowledged {
            self.note_progress();
        }
        self.unacknowledged = unacknowledged;
        None
    }

    fn on_event(&mut self, event: Event) -> Option<Heard> {
        match event {
            Event::Data {
                payload_type: PayloadType::Flag,
                payload,
            } if payload == FLAG_TERMINATE_SESSION.as_slice() => self.end(Order::Closed),
            Event::Data {
                payload_type,
                payload,
            } => {
                return Some(Heard::Data {
                    payload_type,
                    payload,
                });
            }
            Event::Paused => self.paused = true,
            Event::Started(start) => {
                self.paused = false;
                return Some(Heard::Started(start));
            }
            Event::Closed(closed) => {
                tracing::info!(reason = closed.output, "the endpoint ended the session");
                self.end(Order::closed_by_endpoint(&closed.output));
            }
            Event::HandshakeComplete { .. } => return Some(Heard::HandshakeComplete),
            Event::DecryptionWanted {
                key_id,
                ciphertext,
                challenge,
            } => {
                return Some(Heard::DecryptionWanted(SealedKey {
                    key_id,
                    ciphertext,
                    challenge,
                }));
            }
            Event::HandshakeFailed(reason) | Event::EncryptionBroken(reason) => {
                self.end(Order::Failed(reason));
                return Some(Heard::Broken);
            }
            Event::PeerMisbehaved(error) => tracing::debug!(%error, "frame dropped"),
            // Not in this role.
            Event::DataKeyWanted { .. } | Event::SessionState(_) => {}
        }
        None
    }

    /// Sends payloads as large as the client and the endpoint take, where they say it.
    pub(super) fn agree_on_payload(&mut self, start: &StartPublication) {
        if let Some(bytes) = start.moorline_max_payload_bytes {
            let bytes = bytes.clamp(LEAST_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES);
            self.channel.set_max_payload(bytes as usize);
        }
    }

    /// Closes the connection behind what still waits to be sent, and opens no other.
    pub(super) async fn close(&mut self) {
        // whatever is heard now comes too late
        while self.poll().is_some() {}
        self.link.close().await;
        self.channel.disconnected();
    }
}
