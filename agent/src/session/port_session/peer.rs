//! What the peer of a port session says, and what is made of it.

use std::sync::Arc;

use moorline_protocol::message::PayloadType;
use tokio::time::Instant;

use super::{KEEP_ALIVE_INTERVAL, Order, PortSession, forward::Forward};
use crate::session::attachment::Heard;

/// `Flag` payloads (client-wire §5.3-5.4): the client's program has closed its connection,
const DISCONNECT_TO_PORT: [u8; 4] = 1_u32.to_be_bytes();
/// and, of the agent, a stream was not connected.
pub(super) const CONNECT_TO_PORT_ERROR: [u8; 4] = 3_u32.to_be_bytes();

impl PortSession {
    /// Does what the state machine of the stream wants done, until it wants nothing.
    pub(super) fn drain_channel(&mut self) {
        while let Some(heard) = self.attachment.poll() {
            match heard {
                Heard::Data {
                    payload_type,
                    payload,
                } => self.on_input(payload_type, &payload),
                Heard::Started(start) => self.attachment.agree_on_payload(&start),
                Heard::HandshakeComplete => self.begin(),
                // port sessions are never encrypted
                Heard::DecryptionWanted(_) | Heard::Broken => {}
            }
        }
    }

    /// It is known what the client can do.
    fn begin(&mut self) {
        let client = self.attachment.channel.peer_version().unwrap_or_default();
        let mux_version = self.attachment.channel.mux_version();
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
                    self.attachment.end(Order::Failed(error.to_string()));
                }
                // at once: there may be more that is due
                self.attachment.channel.set_ready(self.forward.takes_input());
            }
            PayloadType::Flag if payload == DISCONNECT_TO_PORT => self.forward.disconnect(),
            other => tracing::debug!(payload_type = ?other, "input of this type means nothing to a port"),
        }
    }
}
