//! Another client takes the session over: it gets a stream of its own, which begins with what was shown last.

use moorline_protocol::message::StartPublication;

use super::{ShellSession, WINDOW_BYTES};
use crate::session::worker::new_channel;

/// Why a session must end at which a client cannot be changed.
const NO_RANDOMNESS: &str = "the operating system gives no randomness for another client's stream";

impl ShellSession {
    /// The endpoint names the client that is served from now on.
    pub(super) fn serve_client(&mut self, start: &StartPublication) {
        let Some(client_id) = &start.moorline_client_id else {
            return;
        };
        if self.client_id == *client_id {
            return;
        }
        let is_first = self.client_id.is_empty() && !start.moorline_take_over;
        self.client_id.clone_from(client_id);
        if !is_first {
            tracing::info!(client_id, "another client takes the session over");
            self.begin_stream();
        }
    }

    /// What the client before has typed and no program has taken is dropped with its stream.
    fn begin_stream(&mut self) {
        let Ok(channel) = new_channel(WINDOW_BYTES) else {
            return self.end(super::Order::Failed(NO_RANDOMNESS.to_owned()));
        };
        let now = self.now();
        self.parts.channel = channel;
        self.parts.channel.connected(now);
        self.typed.clear();
        self.decryption = None;
        self.unacknowledged = 0;
        self.progress_at = now.monotonic;
        self.repaints = true;
        self.replays = true;
        self.send_state("Connected", None);
        if let Some(offer) = self.parts.handshake.clone() {
            self.is_handshaking = true;
            self.parts.channel.start_handshake(now, offer);
        }
    }

    /// Once the new client can read it, and before anything else.
    pub(super) fn replay_if_due(&mut self) {
        if !self.replays || self.is_handshaking {
            return;
        }
        self.replays = false;
        if self.order.is_some() {
            return;
        }
        let replay = self.scrollback.replay(self.parts.channel.writable());
        self.send_output(moorline_protocol::message::PayloadType::Output, &replay);
    }
}
