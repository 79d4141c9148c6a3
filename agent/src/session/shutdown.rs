//! The node wants its sessions to end: its machine goes down, or its administrator wants them gone. A worker is told
//! by SIGTERM; and since a signal carries no text, `end-sessions` leaves the reason beside the registration.
//!
//! The text counts for as long as the process that left it lives, so one that was killed leaves no reason for later ends.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::unistd::getpid;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::runtime::ProcessKey;

const FILE: &str = "shutdown-reason.json";
/// It ends up on a terminal, in one line.
const MAX_REASON_CHARS: usize = 500;
const MAX_FILE_BYTES: u64 = 8 * 1024;

/// What a plain SIGTERM means, as far as its receiver can know.
const NO_REASON: &str = "the node is shutting down, or its administrator ended the session";

/// A worker's ear.
#[derive(Debug)]
pub(super) struct Shutdown {
    terminate: Signal,
    state_dir: PathBuf,
}

impl Shutdown {
    /// # Errors
    /// The operating system refused a handler.
    pub(super) fn listen(state_dir: PathBuf) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            state_dir,
        })
    }

    /// Waits until the end is wanted, and returns why. Nothing is lost when the future is dropped.
    pub(super) async fn wanted(&mut self) -> String {
        self.terminate.recv().await;
        find(&self.state_dir).unwrap_or_else(|| NO_REASON.to_owned())
    }
}

#[derive(Serialize, Deserialize)]
struct Content {
    by: ProcessKey,
    reason: String,
}

/// The text while it is there for workers to find; dropped, it is withdrawn.
#[derive(Debug)]
pub(super) struct ShutdownReason(PathBuf);

impl ShutdownReason {
    /// Leaves the text.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn leave(state_dir: &Path, reason: &str) -> io::Result<Self> {
        let by = ProcessKey::of(getpid().as_raw())
            .ok_or_else(|| io::Error::other("/proc does not show this process"))?;
        let content = serde_json::to_vec(&Content {
            by,
            reason: plain(reason),
        })?;
        let path = state_dir.join(FILE);
        let unfinished = state_dir.join(format!("{FILE}.new"));
        let left = Self(path);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(&content)?;
        fs::rename(&unfinished, &left.0)?;
        Ok(left)
    }
}

impl Drop for ShutdownReason {
    fn drop(&mut self) {
        // it means nothing any more once we are gone
        let _left_behind = fs::remove_file(&self.0);
    }
}

/// The text that a living process has left.
fn find(state_dir: &Path) -> Option<String> {
    let mut content = Vec::new();
    let file = fs::File::open(state_dir.join(FILE)).ok()?;
    file.take(MAX_FILE_BYTES).read_to_end(&mut content).ok()?;
    let content: Content = serde_json::from_slice(&content).ok()?;
    Some(plain(&content.reason)).filter(|reason| content.by.is_alive() && !reason.is_empty())
}

/// One line that does nothing to a terminal.
fn plain(reason: &str) -> String {
    let reason = reason.trim().chars().take(MAX_REASON_CHARS);
    reason.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_while_it_is_left_and_not_after() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find(dir.path()), None);
        let left = ShutdownReason::leave(dir.path(), "new disks\r\nat \x1b[2Jnoon ").unwrap();
        assert_eq!(find(dir.path()).as_deref(), Some("new disks  at  [2Jnoon"));
        drop(left);
        assert_eq!(find(dir.path()), None);
    }

    #[test]
    fn a_reason_of_a_process_that_is_gone_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let left = ShutdownReason::leave(dir.path(), "x").unwrap();
        let mut content: Content = serde_json::from_slice(&fs::read(&left.0).unwrap()).unwrap();
        content.by.start_ticks += 1;
        fs::write(&left.0, serde_json::to_vec(&content).unwrap()).unwrap();
        assert_eq!(find(dir.path()), None);
        for malformed in ["", "{", "{\"by\":1,\"reason\":\"x\"}"] {
            fs::write(&left.0, malformed).unwrap();
            assert_eq!(find(dir.path()), None, "{malformed}");
        }
    }

    #[test]
    fn a_reason_is_cut() {
        assert_eq!(plain(&"é".repeat(9000)).chars().count(), MAX_REASON_CHARS);
    }
}
