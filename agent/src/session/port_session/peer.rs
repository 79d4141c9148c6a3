//! The side of a session that faces its peer: connection, stream, and what the client says.

use std::sync::Arc;

use moorline_protocol::{
    channel::{Event, Output},
    message::{AgentSessionState, PayloadType},
};
use tokio::time::Instant;

use super::{KEEP_ALIVE_INTERVAL, Order, PortSession, forward::Forward};
use crate::session::{channel_opening::MAX_PAYLOAD_BYTES, link::LinkEvent};

/// `Flag` payloads (client-wire §5.3-5.4): the client's program has closed its connection,
const DISCONNECT_TO_PORT: [u8; 4] = 1_u32.to_be_bytes();
/// the client ends the session,
const TERMINATE_SESSION: [u8; 4] = 2_u32.to_be_bytes();
/// and, of the agent, a stream was not connected.
pub(super) const CONNECT_TO_PORT_ERROR: [u8; 4] = 3_u32.to_be_bytes();

impl PortSession {
    pub(super) fn on_link(&mut self, event: LinkEvent) {
        let now = self.now();
        let channel = &mut self.parts.channel;
        match event {
            LinkEvent::Opened => {
                channel.connected(now);
                self.paused = false;
                // The stock agent says this once; ours may have been restarted and repeats cost nothing.
                if !self.connected_before || self.parts.is_moorline {
                    self.send_state("Connected");
                }
                self.connected_before = true;
                if let Some(offer) = self.parts.handshake.take() {
                    self.parts.channel.start_handshake(now, offer);
                }
            }
            LinkEvent::Frame(frame) => {
                self.paused = false;
                channel.receive(now, &frame);
            }
            LinkEvent::Lost => channel.disconnected(),
            LinkEvent::Ended => {
                tracing::info!("the endpoint ended the session while it was not connected");
                channel.disconnected();
                self.end(Order::ClosedByEndpoint);
            }
            LinkEvent::GivenUp(reason) => {
                channel.disconnected();
                self.end(Order::Failed(reason));
            }
        }
    }

    pub(super) fn send_state(&mut self, state: &str) {
        let state = AgentSessionState {
            schema_version: 1,
            session_state: state.to_owned(),
            session_id: self.parts.session_id.to_string(),
            moorline_exit_code: None,
            moorline_reason: self
                .order
                .as_ref()
                .and_then(Order::reason)
                .filter(|_| self.parts.is_moorline)
                .map(str::to_owned),
            moorline_client_id: None,
        };
        self.parts.channel.send_session_state(self.now(), &state);
    }

    /// Does what the state machine of the stream wants done, until it wants nothing.
    pub(super) fn drain_channel(&mut self) {
        while let Some(output) = self.parts.channel.poll() {
            match output {
                Output::Transmit(frame) => self.parts.link.send(frame),
                Output::Event(event) => self.on_event(event),
            }
        }
        let unacknowledged = self.parts.channel.unacknowledged();
        if unacknowledged < self.unacknowledged {
            self.progress_at = self.started.elapsed();
        }
        self.unacknowledged = unacknowledged;
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Data {
                payload_type,
                payload,
            } => self.on_input(payload_type, &payload),
            Event::Paused => self.paused = true,
            Event::Started(start) => {
                self.paused = false;
                if let Some(bytes) = start.moorline_max_payload_bytes {
                    let bytes = bytes.clamp(1024, MAX_PAYLOAD_BYTES);
                    self.parts.channel.set_max_payload(bytes as usize);
                }
            }
            Event::Closed(closed) => {
                tracing::info!(reason = closed.output, "the endpoint ended the session");
                self.end(Order::ClosedByEndpoint);
            }
            Event::HandshakeComplete { .. } => self.begin(),
            Event::HandshakeFailed(reason) | Event::EncryptionBroken(reason) => {
                self.end(Order::Failed(reason));
            }
            Event::PeerMisbehaved(error) => tracing::debug!(%error, "frame dropped"),
            // Port sessions are never encrypted; and the last is not in this role.
            Event::DataKeyWanted { .. } | Event::DecryptionWanted { .. } | Event::SessionState(_) => {}
        }
    }

    /// It is known what the client can do.
    fn begin(&mut self) {
        let client = self.parts.channel.peer_version().unwrap_or_default();
        let mux_version = self.parts.channel.mux_version();
        let target = Arc::clone(&self.parts.target);
        self.forward = Forward::new(&target, client, mux_version, self.parts.connections);
        if self.forward.is_kept_alive(client, mux_version) {
            self.keep_alive_at = Some(Instant::now() + KEEP_ALIVE_INTERVAL);
        }
        tracing::info!(client, mux_version, "the client is ready");
        self.set_intake();
    }

    fn on_input(&mut self, payload_type: PayloadType, payload: &[u8]) {
        match payload_type {
            PayloadType::Output => {
                if let Err(error) = self.forward.input(payload) {
                    self.end(Order::Failed(error.to_string()));
                }
                // at once: there may be more that is due
                self.parts.channel.set_ready(self.forward.takes_input());
            }
            PayloadType::Flag if payload == DISCONNECT_TO_PORT => self.forward.disconnect(),
            PayloadType::Flag if payload == TERMINATE_SESSION => self.end(Order::Closed),
            other => tracing::debug!(payload_type = ?other, "input of this type means nothing to a port"),
        }
    }
}
