//! The lock of a state directory: one daemon per registration, and no new registration under a running daemon.

use std::{fs, os::unix::fs::OpenOptionsExt, path::Path};

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};

/// Held locked by a running daemon, in the state directory.
const LOCK_FILE: &str = "agent.lock";

/// Takes the lock. The kernel frees it when the process ends, however it ends.
pub(crate) fn lock_state_dir(state_dir: &Path) -> anyhow::Result<Flock<fs::File>> {
    let path = state_dir.join(LOCK_FILE);
    // Not truncated, not written: this must work on a full disk, where the file is there since the registration.
    let opened = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    let file = match opened {
        // It can be locked where it cannot be written.
        Err(error) if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem => fs::File::open(&path),
        other => other,
    };
    if matches!(&file, Err(error) if error.kind() == std::io::ErrorKind::NotFound) {
        bail!(
            "this node is not registered: {} does not exist; run `moorline-agent register` first",
            state_dir.display()
        );
    }
    let file = file.with_context(|| format!("failed to open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            bail!("another moorline-agent is running with {}", state_dir.display())
        }
        Err((_, errno)) => Err(errno).with_context(|| format!("failed to lock {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_state_directory_it_is_said_what_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let refused = lock_state_dir(&dir.path().join("none")).unwrap_err().to_string();
        assert!(
            refused.ends_with("run `moorline-agent register` first"),
            "{refused}"
        );
    }

    #[test]
    fn a_state_directory_has_one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock_state_dir(dir.path()).unwrap();
        let refused = lock_state_dir(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("another moorline-agent is running"), "{refused}");
        drop(held);
        lock_state_dir(dir.path()).unwrap();
    }
}
