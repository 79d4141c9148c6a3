//! Another client takes the session over: it gets a stream of its own, which begins with what was shown last.

use moorline_protocol::message::{PayloadType, StartPublication};

use super::{Order, ShellSession, WINDOW_BYTES};
use crate::session::worker::new_channel;

/// Why a session must end at which a client cannot be changed.
const NO_RANDOMNESS: &str = "the operating system gives no randomness for another client's stream";

impl ShellSession {
    /// The endpoint names the client that is served from now on.
    pub(super) fn serve_client(&mut self, start: &StartPublication) {
        let Some(client_id) = &start.moorline_client_id else {
            return;
        };
        if self.attachment.client_id() == client_id {
            return;
        }
        let is_first = self.attachment.client_id().is_empty() && !start.moorline_take_over;
        self.attachment.set_client_id(client_id);
        if !is_first {
            tracing::info!(client_id, "another client takes the session over");
            self.begin_stream();
        }
    }

    /// What the client before has typed and no program has taken is dropped with its stream.
    fn begin_stream(&mut self) {
        let Ok(channel) = new_channel(WINDOW_BYTES) else {
            return self.attachment.end(Order::Failed(NO_RANDOMNESS.to_owned()));
        };
        self.typed.clear();
        self.decryption = None;
        self.repaints = true;
        self.replays = true;
        self.is_handshaking = self.attachment.has_handshake();
        self.attachment.begin_stream(channel);
    }

    /// Once the new client can read it, and before anything else.
    pub(super) fn replay_if_due(&mut self) {
        if !self.replays || self.is_handshaking {
            return;
        }
        self.replays = false;
        if self.attachment.order().is_some() {
            return;
        }
        let replay = self.scrollback.replay(self.attachment.channel.writable());
        self.send_output(PayloadType::Output, &replay); // which is among what is shown last already
    }
}
