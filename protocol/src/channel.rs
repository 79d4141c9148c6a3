//! The stream of a data channel as a state machine without I/O: sequence numbers, acknowledgements, an
//! out-of-order buffer, retransmission with an RTT estimate, pause/start, handshake, `channel_closed`
//! (agent-wire §8.2-8.3, client-wire §4).
//!
//! The rule of use (after str0m): one mutation, then drain [`DataChannel::poll`] until it returns `None`, then
//! sleep until [`DataChannel::next_timeout`] or the next input. The driver dials, sends the open message and moves
//! frames; everything else is decided here, the same for agent, CLI and tests.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    message::{AgentSessionState, ChannelClosed, FrameError, PayloadType, StartPublication},
    time::Now,
};

/// Which end of the data channel this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends `output_stream_data`, receives `input_stream_data`.
    Agent,
    /// The reverse.
    Client,
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
    /// The handshake failed or timed out (15 s, agent role); the text is for the user.
    HandshakeFailed(String),
    /// Stop reading the source; anything the peer sends, or a start, ends the pause.
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

/// One end of a data channel.
#[derive(Debug)]
pub struct DataChannel {
    _todo: Role,
}

impl DataChannel {
    /// `seed` makes the message ids: they are SHA-256 of it and a counter, so one seed must not be used twice.
    /// `window_bytes` bounds what is sent and not yet acknowledged, and what is buffered out of order.
    pub fn new(role: Role, seed: [u8; 32], window_bytes: usize) -> Self {
        let _ = (seed, window_bytes);
        Self { _todo: role }
    }

    /// A new websocket stands and the open message was sent on it. After a loss, everything unacknowledged is sent
    /// again in order at once.
    pub fn connected(&mut self, now: Now) {
        let _ = now;
        todo!()
    }

    /// The websocket is gone. Nothing is transmitted until [`Self::connected`].
    pub fn disconnected(&mut self) {
        todo!()
    }

    /// One BINARY (or, from old clients, TEXT) message of the peer.
    pub fn receive(&mut self, now: Now, frame: &Bytes) {
        let _ = (now, frame);
        todo!()
    }

    /// The time of [`Self::next_timeout`] has come.
    pub fn timeout(&mut self, now: Now) {
        let _ = now;
        todo!()
    }

    /// Queues stream data, cut into payloads of at most the agreed size (Output and StdErr only; other types go as
    /// one message).
    ///
    /// # Errors
    /// Nothing was taken: the window is full.
    pub fn send(&mut self, now: Now, payload_type: PayloadType, data: &[u8]) -> Result<(), WindowFull> {
        let _ = (now, payload_type, data);
        todo!()
    }

    /// Bytes that [`Self::send`] would take now. Zero while paused, or while a handshake is under way.
    pub fn writable(&self) -> usize {
        todo!()
    }

    /// Agent role: `agent_session_state`, outside the numbered stream.
    pub fn send_session_state(&mut self, now: Now, state: &AgentSessionState) {
        let _ = (now, state);
        todo!()
    }

    /// Agent role: ask the client to take part in a handshake (Port, NonInteractiveCommands, or KMS).
    pub fn start_handshake(
        &mut self,
        now: Now,
        agent_version: &str,
        session_type: &str,
        properties: serde_json::Value,
    ) {
        let _ = (now, agent_version, session_type, properties);
        todo!()
    }

    /// While not ready, data that is due is neither handed out nor acknowledged, so that the peer sends it again:
    /// the way to refuse input that has no room (agent-wire §8.2). A machine starts ready.
    pub fn set_ready(&mut self, ready: bool) {
        let _ = ready;
        todo!()
    }

    /// Largest payload to send, in bytes; 1024 until the peer is known to take more.
    pub fn set_max_payload(&mut self, bytes: usize) {
        let _ = bytes;
        todo!()
    }

    /// The next thing to do, until `None`.
    pub fn poll(&mut self) -> Option<Output> {
        todo!()
    }

    /// When [`Self::timeout`] is due, on the monotonic clock.
    pub fn next_timeout(&self) -> Option<Duration> {
        todo!()
    }

    /// Bytes sent or queued that the peer has not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        todo!()
    }
}
