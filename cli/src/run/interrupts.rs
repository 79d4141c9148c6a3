//! Ctrl-C of `moorline run`.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::CliError;

/// Presses of Ctrl-C since it was made: from then on none ends the program.
#[derive(Debug)]
pub(super) struct Interrupts(Signal);

impl Interrupts {
    /// # Errors
    /// Ctrl-C cannot be watched.
    pub(super) fn watch() -> Result<Self, CliError> {
        let interrupts = signal(SignalKind::interrupt());
        Ok(Self(
            interrupts.map_err(|source| CliError::io("watch for Ctrl-C", source))?,
        ))
    }

    /// The next time; never, when it cannot be watched any more.
    pub(super) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
