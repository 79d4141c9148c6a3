//! The stream of a data channel as a state machine without I/O: sequence numbers, acknowledgements, an
//! out-of-order buffer, retransmission with an RTT estimate, pause/start, handshake, `channel_closed`
//! (agent-wire §8.2-8.3, client-wire §4).
//!
//! The rule of use (after str0m): one mutation, then drain [`DataChannel::poll`] until it returns `None`, then
//! sleep until [`DataChannel::next_timeout`] or the next input. The driver dials, sends the open message and moves
//! frames; everything else is decided here, the same for agent, CLI and tests.
//!
//! Where the rules come from: sequence numbers from 0 in each direction, one acknowledgement per message, what to do
//! with a number that is early, due or late, and the retransmission timer are those of the stock agent and plugin,
//! so that either may be the peer. Ours are the bounds (a window in bytes and a count of messages in each
//! direction; the stock peers have only counts), the sending of everything unacknowledged as soon as a lost
//! connection is back (theirs waits for the timer, one message per 100 ms), the repeated acknowledgement of
//! duplicates in both roles, and how a message that was sent twice is sampled for the round-trip time.
//!
//! A due message that cannot be handed out yet is kept, once, without an acknowledgement. So its repetitions cost
//! nothing, and it is there at once when the machine is ready again.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod encryption;
mod handshake;
mod inbound;
mod key_exchange;
mod outbound;
mod receive_window;
mod rtt;
mod send_window;

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use serde_json::Value;

use self::{
    encryption::{Encryption, OVERHEAD_BYTES},
    handshake::{Handshake, WantedKey},
    outbound::{MAX_CONTINUATION_BYTES, MessageIds, cut, json},
    receive_window::ReceiveWindow,
    rtt::Rtt,
    send_window::{MAX_UNACKNOWLEDGED, SendWindow},
};
use crate::{
    message::{
        AgentMessage, AgentSessionState, ChannelClosed, FRAME_HEADER_BYTES, FrameError, MAX_FRAME_BYTES,
        MessageType, PayloadType, StartPublication,
    },
    time::Now,
};

pub use self::{
    encryption::{DataKey, encryption_context},
    handshake::{CLIENT_VERSION, HandshakeOffer, NEWEST_MUX_VERSION},
};

/// Which end of the data channel this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends `output_stream_data`, receives `input_stream_data`.
    Agent,
    /// The reverse.
    Client,
}

impl Role {
    fn other(self) -> Self {
        match self {
            Self::Agent => Self::Client,
            Self::Client => Self::Agent,
        }
    }
}

/// Payload size that every peer takes, in bytes (client-wire §6.2 rule 3).
pub const STANDARD_PAYLOAD_BYTES: usize = 1024;

/// What the driver must do or know.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send this as one BINARY websocket message.
    Transmit(Bytes),
    Event(Event),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// In order, each byte exactly once. Handshake payloads are consumed by the machine.
    Data {
        payload_type: PayloadType,
        payload: Bytes,
    },
    /// Client role: the agent's handshake request was answered; or agent role: it was completed by the client.
    HandshakeComplete {
        session_type: String,
        customer_message: String,
    },
    /// The handshake failed, or a wait in it took longer than 15 s; the text is for the user.
    HandshakeFailed(String),
    /// Client role: the session is to be encrypted. Have this key of KMS make a data key of [`DataKey::BYTES`] for the
    /// [`encryption_context`] of the session and this challenge, and give it to [`DataChannel::provide_data_key`]; or
    /// say why there is none, with [`DataChannel::refuse_data_key`]. There are 15 s for it.
    DataKeyWanted {
        key_id: String,
        challenge: Option<String>,
    },
    /// Agent role: have KMS decrypt the client's data key for the [`encryption_context`] of the session and this
    /// challenge, and give it to [`DataChannel::provide_decrypted_key`]; or say why there is none, with
    /// [`DataChannel::refuse_data_key`]. There are 15 s for it.
    DecryptionWanted {
        key_id: String,
        ciphertext: Vec<u8>,
        challenge: Option<String>,
    },
    /// A message cannot be decrypted. Nothing is handed out or sent any more: the session must end. The text is for
    /// the user.
    EncryptionBroken(String),
    /// Stop reading the source; anything the peer sends, or a start, ends the pause. Only a start has an event:
    /// the rest shows in [`DataChannel::writable`].
    Paused,
    Started(StartPublication),
    Closed(ChannelClosed),
    /// Only a relay or a test sees this one: an agent says where its session stands.
    SessionState(AgentSessionState),
    /// A frame that breaks the protocol; counted and dropped.
    PeerMisbehaved(FrameError),
}

/// The window is full: the source must wait until [`DataChannel::writable`] is above zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the send window is full")]
pub struct WindowFull;

/// Whether the session still lives.
#[derive(Debug)]
enum Life {
    Open,
    /// The end is known; the data before it is handed out first.
    Closing(ChannelClosed),
    Closed,
}

/// One end of a data channel.
#[derive(Debug)]
pub struct DataChannel {
    role: Role,
    ids: MessageIds,
    window_bytes: usize,
    max_payload: usize,
    /// The last time any call brought.
    now: Now,
    connected: bool,
    paused: bool,
    ready: bool,
    life: Life,
    handshake: Handshake,
    peer_version: Option<String>,
    mux_version: u32,
    session_properties: Value,
    encryption: Encryption,
    rtt: Rtt,
    send: SendWindow,
    receive: ReceiveWindow,
    control: VecDeque<Bytes>,
    events: VecDeque<Event>,
    /// Whether `events` holds data: at most one such event waits, the rest stays in the receive window.
    data_waits: bool,
}

impl DataChannel {
    /// `seed` makes the message ids, the challenges of encryption and its first nonce: they are SHA-256 of it and a
    /// counter. So it must be random, and must not be used twice.
    /// `window_bytes` bounds what is sent and not yet acknowledged, and what is buffered out of order; in both
    /// directions there are also at most 10,000 messages. What is sent is counted from the oldest unacknowledged
    /// message on, so that a peer with the same window never has to drop anything.
    pub fn new(role: Role, seed: [u8; 32], window_bytes: usize) -> Self {
        Self {
            role,
            ids: MessageIds::new(seed),
            window_bytes,
            max_payload: STANDARD_PAYLOAD_BYTES,
            now: Now {
                monotonic: Duration::ZERO,
                unix_millis: 0,
            },
            connected: false,
            paused: false,
            ready: true,
            life: Life::Open,
            handshake: Handshake::Idle,
            peer_version: None,
            mux_version: handshake::mux_version(None),
            session_properties: Value::Null,
            encryption: Encryption::Off,
            rtt: Rtt::new(),
            send: SendWindow::default(),
            receive: ReceiveWindow::new(window_bytes),
            control: VecDeque::new(),
            events: VecDeque::new(),
            data_waits: false,
        }
    }

    /// A new websocket stands and the open message was sent on it. After a loss, everything unacknowledged is sent
    /// again in order at once. A pause does not outlive its connection.
    pub fn connected(&mut self, now: Now) {
        self.now = now;
        self.connected = true;
        self.paused = false;
        self.send.rewind();
    }

    /// The websocket is gone. Nothing is transmitted until [`Self::connected`].
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.control.clear();
    }

    /// One BINARY (or, from old clients, TEXT) message of the peer.
    pub fn receive(&mut self, now: Now, frame: &Bytes) {
        self.now = now;
        if !matches!(self.life, Life::Open) {
            return;
        }
        let message = match AgentMessage::decode(frame) {
            Ok(message) => message,
            Err(error) => return self.report(Event::PeerMisbehaved(error)),
        };
        match (&message.message_type, self.role) {
            (MessageType::Acknowledge, _) => self.on_acknowledge(&message.payload),
            (MessageType::InputStreamData, Role::Agent) | (MessageType::OutputStreamData, Role::Client) => {
                self.on_stream(&message);
            }
            (MessageType::PausePublication, _) if self.paused => {}
            (MessageType::PausePublication, _) => {
                self.paused = true;
                self.report(Event::Paused);
            }
            (MessageType::StartPublication, _) => {
                self.paused = false;
                // stock endpoints send the name of the message, or nothing
                let start = serde_json::from_slice(&message.payload).unwrap_or_default();
                self.report(Event::Started(start));
            }
            (MessageType::ChannelClosed, _) => self.on_closed(&message.payload),
            (MessageType::AgentSessionState, _) => {
                let state = serde_json::from_slice(&message.payload);
                self.report(state.map_or(
                    Event::PeerMisbehaved(FrameError::Payload("agent_session_state")),
                    Event::SessionState,
                ));
            }
            _ => {} // not for this side, or of a later version
        }
    }

    /// The time of [`Self::next_timeout`] has come.
    pub fn timeout(&mut self, now: Now) {
        self.now = now;
        if !matches!(self.life, Life::Open) {
            return;
        }
        if self
            .handshake
            .deadline()
            .is_some_and(|deadline| deadline <= now.monotonic)
        {
            self.handshake_overdue();
        }
        if self.connected && !self.paused {
            self.send.timeout(now.monotonic, &self.rtt);
        }
    }

    /// Queues stream data, cut into payloads of at most the agreed size (Output and StdErr only; other types go as
    /// one message). Cuts fall between the characters of UTF-8 text. Nothing is sent for empty data: a stock agent
    /// cannot read it.
    ///
    /// Returns the payloads, in clear: who keeps them too takes no memory of its own for them, since they lie in the
    /// frames that wait for their acknowledgement (unless those are encrypted).
    ///
    /// # Errors
    /// Nothing was taken: the window is full, or [`Self::writable`] is zero for another reason.
    pub fn send(
        &mut self,
        now: Now,
        payload_type: PayloadType,
        data: &[u8],
    ) -> Result<Vec<Bytes>, WindowFull> {
        self.now = now;
        if data.is_empty() {
            return Ok(Vec::new());
        }
        if data.len() > self.writable() {
            return Err(WindowFull);
        }
        let largest = match payload_type {
            PayloadType::Output | PayloadType::StdErr => self.max_payload,
            _ => data.len(),
        };
        let mut sent = Vec::with_capacity(data.len().div_ceil(largest));
        let mut rest = data;
        while !rest.is_empty() {
            let (payload, after) = cut(rest, largest);
            sent.push(self.push(payload_type, Bytes::copy_from_slice(payload)));
            rest = after;
        }
        Ok(sent)
    }

    /// Bytes that [`Self::send`] would take now. Zero while paused, while a handshake is under way or has failed,
    /// and after the end.
    pub fn writable(&self) -> usize {
        if self.paused || self.handshake.holds_data() || !matches!(self.life, Life::Open) {
            return 0;
        }
        // a payload that ends at a character's border may be shorter than the largest
        let smallest_full = self.max_payload - MAX_CONTINUATION_BYTES;
        let messages = MAX_UNACKNOWLEDGED.saturating_sub(self.send.span());
        let free = self.window_bytes.saturating_sub(self.send.span_bytes());
        let overhead = self.encryption.overhead(self.role, PayloadType::Output);
        let full_on_wire = smallest_full + overhead;
        let (full_pieces, rest) = (free / full_on_wire, free % full_on_wire);
        (full_pieces * smallest_full + rest.saturating_sub(overhead)).min(messages * smallest_full)
    }

    /// Agent role: `agent_session_state`, outside the numbered stream.
    pub fn send_session_state(&mut self, now: Now, state: &AgentSessionState) {
        self.now = now;
        let payload = json(state);
        self.push_control(MessageType::AgentSessionState, payload);
    }

    /// Agent role: ask the client to take part in a handshake (Port, NonInteractiveCommands, or KMS). The client has
    /// 15 s for its answer, from now.
    pub fn start_handshake(&mut self, now: Now, offer: HandshakeOffer) {
        self.now = now;
        let key = offer
            .kms_key_id
            .clone()
            .map(|key_id| WantedKey::new(key_id, &self.ids.draw::<16>()));
        let request = handshake::request(&offer, key.as_ref());
        self.session_properties = offer.properties;
        self.handshake = Handshake::Requested {
            since: now.monotonic,
            session_type: offer.session_type,
            key,
        };
        self.push(PayloadType::HandshakeRequest, json(&request));
    }

    /// While not ready, data that is due is neither handed out nor acknowledged, so that the peer sends it again:
    /// the way to refuse input that has no room (agent-wire §8.2). A machine starts ready.
    ///
    /// This is for a sink that does not exist yet. Stock peers go on sending, so for one that is merely slow the
    /// driver rather stops reading the websocket.
    pub fn set_ready(&mut self, ready: bool) {
        self.ready = ready;
        self.advance();
    }

    /// Largest payload to send, in bytes; 1024 until the peer is known to take more. Encryption comes on top of it,
    /// with 28 bytes a payload: stock peers do the same.
    pub fn set_max_payload(&mut self, bytes: usize) {
        let largest = MAX_FRAME_BYTES - FRAME_HEADER_BYTES - OVERHEAD_BYTES;
        self.max_payload = bytes.clamp(MAX_CONTINUATION_BYTES + 1, largest);
    }

    /// The next thing to do, until `None`: acknowledgements and control messages, then data, then events.
    pub fn poll(&mut self) -> Option<Output> {
        if let Some(frame) = self.poll_transmit() {
            return Some(Output::Transmit(frame));
        }
        if self.events.is_empty() {
            self.advance();
            if let Some(frame) = self.poll_transmit() {
                return Some(Output::Transmit(frame));
            }
        }
        if let Some(event) = self.events.pop_front() {
            if matches!(event, Event::Data { .. }) {
                self.data_waits = false;
            }
            return Some(Output::Event(event));
        }
        if (self.receive.due().is_none() || self.encryption.is_broken())
            && let Life::Closing(closed) = &self.life
        {
            let closed = closed.clone();
            self.life = Life::Closed;
            return Some(Output::Event(Event::Closed(closed)));
        }
        None
    }

    fn poll_transmit(&mut self) -> Option<Bytes> {
        if !self.connected {
            return None;
        }
        if let Some(frame) = self.control.pop_front() {
            return Some(frame);
        }
        if self.paused {
            None
        } else {
            self.send.transmit(self.now.monotonic)
        }
    }

    /// When [`Self::timeout`] is due, on the monotonic clock.
    pub fn next_timeout(&self) -> Option<Duration> {
        if !matches!(self.life, Life::Open) {
            return None;
        }
        let resend = (self.connected && !self.paused).then(|| self.send.due(&self.rtt));
        let times = [resend.flatten(), self.handshake.deadline()];
        times.into_iter().flatten().min()
    }

    /// Bytes sent or queued that the peer has not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.send.unacknowledged_bytes()
    }

    /// Whether data is encrypted between the two ends.
    pub fn is_encrypted(&self) -> bool {
        self.encryption.is_on()
    }

    /// What the peer said its version is, in the handshake: an agent chooses features by the client's.
    pub fn peer_version(&self) -> Option<&str> {
        self.peer_version.as_deref()
    }

    /// The version of multiplexing that both sides agreed on in the handshake: 1 with every stock peer, else 2.
    pub fn mux_version(&self) -> u32 {
        self.mux_version
    }

    /// The session's properties in the handshake: the port and its like for Port, otherwise null.
    pub fn session_properties(&self) -> &Value {
        &self.session_properties
    }
}

#[cfg(test)]
mod tests;
