//! What a session with ports tells the user: the plugin in the stock plugin's words, which scripts wait for, on
//! standard output; `moorline` on standard error.

use std::time::Duration;

use tokio::time::Instant;

use super::listener::Listener;
use crate::console;

/// Between two notes on connections.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// Who speaks.
#[derive(Debug)]
pub(crate) enum Voice {
    Plugin {
        session_id: String,
        has_accepted: bool,
    },
    Own {
        /// What is forwarded to, for the user.
        target: String,
        notes: Limited,
    },
}

/// Notes on connections, of which there may be very many.
#[derive(Debug, Default)]
pub(crate) struct Limited {
    last: Option<Instant>,
    left_out: u64,
}

impl Voice {
    pub(crate) fn plugin(session_id: &str) -> Self {
        Self::Plugin {
            session_id: session_id.to_owned(),
            has_accepted: false,
        }
    }

    pub(crate) fn own(target: String) -> Self {
        Self::Own {
            target,
            notes: Limited::default(),
        }
    }

    /// Connections are taken from now on.
    pub(super) fn opened(&self, listener: &Listener) {
        if let Self::Plugin { session_id, .. } = self {
            let what = match listener.port() {
                Some(port) => format!("Port {port}"),
                None => format!("Unix socket {}", console::one_line(&listener.address())),
            };
            say(&format!(
                "{what} opened for sessionId {session_id}.\nWaiting for connections...\n"
            ));
        }
    }

    pub(super) fn accepted(&mut self, is_multiplexed: bool) {
        if let Self::Plugin {
            session_id,
            has_accepted,
        } = self
            && !std::mem::replace(has_accepted, true)
        {
            say(&if is_multiplexed {
                format!("\nConnection accepted for session [{session_id}]\n")
            } else {
                format!("Connection accepted for session {session_id}.\n")
            });
        }
    }

    /// The node could not connect.
    pub(super) fn refused(&mut self) {
        match self {
            Self::Plugin { .. } => {
                say("\nConnection to destination port failed, check SSM Agent logs.\n");
            }
            Self::Own { target, notes } => {
                notes.note(&format!("the node cannot connect to {target}"));
            }
        }
    }

    /// A local program could not be served.
    pub(super) fn not_accepted(&mut self, why: &str) {
        let text = format!("a connection was not accepted: {why}");
        match self {
            Self::Plugin { .. } => console::note(&text),
            Self::Own { notes, .. } => notes.note(&text),
        }
    }

    pub(super) fn leaving(&self) {
        if let Self::Plugin { .. } = self {
            say("Terminate signal received, exiting.\n");
        }
    }
}

impl Limited {
    fn note(&mut self, text: &str) {
        let now = Instant::now();
        if self.last.is_some_and(|last| now < last + NOTE_INTERVAL) {
            self.left_out += 1;
            return;
        }
        self.last = Some(now);
        match std::mem::take(&mut self.left_out) {
            0 => console::note(text),
            count => console::note(&format!("{text} (and {count} more like this)")),
        }
    }
}

/// The session does not depend on who reads it.
fn say(text: &str) {
    let _unread = console::print(text);
}
