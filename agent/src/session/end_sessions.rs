//! The end of all sessions of a node, as before its machine goes down: their workers are found, told, and waited for.
//!
//! The daemon is not needed for it: it may be gone, and the workers of an earlier one are not its own.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use tokio::time::{Instant, sleep};

use super::shutdown::ShutdownReason;
use crate::runtime::{ProcessKey, WorkerKind};

/// The end of a process that is not our child is seen by looking.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why no session was ended.
#[derive(Debug, thiserror::Error)]
#[error("the processes of this machine cannot be listed in /proc")]
pub(crate) struct ProcessesUnknown(#[source] io::Error);

/// What came of it.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Sessions that have ended.
    pub(crate) ended: usize,
    /// Sessions whose end was not waited for any longer.
    pub(crate) left: usize,
    /// Why their users were not told the reason that was given, but a general one.
    pub(crate) untold: Option<io::Error>,
}

/// Ends all sessions that daemons of `state_dir` have started as this user, also those that start meanwhile, and
/// waits for at most `wait`.
///
/// # Errors
/// The machine's processes cannot be listed.
pub(crate) async fn end_sessions(
    state_dir: &Path,
    reason: &str,
    wait: Duration,
) -> Result<Ended, ProcessesUnknown> {
    let deadline = Instant::now() + wait;
    let (_left, untold) = match ShutdownReason::leave(state_dir, reason) {
        Ok(left) => (Some(left), None),
        Err(error) => (None, Some(error)),
    };
    let state_dir = canonical(state_dir);
    let mut told = BTreeSet::new();
    loop {
        let workers = workers(&state_dir).map_err(ProcessesUnknown)?;
        for worker in &workers {
            // a second time would say nothing new
            if told.insert((worker.pid, worker.start_ticks)) {
                // it may have ended meanwhile
                let _gone = kill(Pid::from_raw(worker.pid), Signal::SIGTERM);
            }
        }
        if workers.is_empty() || Instant::now() >= deadline {
            return Ok(Ended {
                ended: told.len() - workers.len(),
                left: workers.len(),
                untold,
            });
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// The living session workers of a state directory.
fn workers(state_dir: &Path) -> io::Result<Vec<ProcessKey>> {
    let uid = geteuid().as_raw();
    let is_worker = |directory: &Path| {
        // only the owner of a process, and root, may call it anything; nobody else's is signalled
        let is_ours = fs::metadata(directory).is_ok_and(|metadata| metadata.uid() == uid);
        is_ours
            && fs::read(directory.join("cmdline")).is_ok_and(|arguments| {
                worker_directory(&arguments).is_some_and(|directory| canonical(&directory) == state_dir)
            })
    };
    let workers = fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .filter(|(_, directory)| is_worker(directory))
        .filter_map(|(pid, _)| ProcessKey::of(pid));
    Ok(workers.collect())
}

/// The state directory among the arguments of a session worker; `None` for another process.
fn worker_directory(arguments: &[u8]) -> Option<PathBuf> {
    let mut words = arguments.split(|byte| *byte == 0);
    let kind = WorkerKind::Session.as_str().as_bytes();
    let is_worker = [b"moorline-agent".as_slice(), b"worker", kind]
        .iter()
        .all(|expected| words.next() == Some(expected));
    let directory = words.next().filter(|word| is_worker && !word.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(directory)))
}

/// However it was written. One that is gone is what it was called.
fn canonical(directory: &Path) -> PathBuf {
    fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_worker_is_told_from_other_processes() {
        let directory = |arguments: &str| worker_directory(arguments.as_bytes());
        assert_eq!(
            directory("moorline-agent\0worker\0session\0/var/lib/moorline\0"),
            Some(PathBuf::from("/var/lib/moorline"))
        );
        for other in [
            "",
            "moorline-agent\0worker\0session\0",
            "moorline-agent\0worker\0session\0\0",
            "moorline-agent\0worker\0command\0/var/lib/moorline\0",
            "moorline-agent\0run\0--state-dir\0/var/lib/moorline\0",
            "sh\0moorline-agent\0worker\0session\0/var/lib/moorline\0",
        ] {
            assert_eq!(directory(other), None, "{other:?}");
        }
    }
}
