//! The log of a worker.

use std::io::{self, IsTerminal as _};

/// To standard error, which may go away with the daemon: neither that nor anything else about the log ends what the
/// worker does.
pub(crate) fn start_worker_log() {
    let level = std::env::var("MOORLINE_LOG")
        .ok()
        .and_then(|level| level.parse().ok())
        .unwrap_or(tracing::Level::INFO);
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .log_internal_errors(false)
        .init();
}
