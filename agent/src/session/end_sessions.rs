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
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid, geteuid},
};
use tokio::time::{Instant, sleep};

use super::shutdown::ShutdownReason;
use crate::runtime::{ProcessKey, WorkerKind};

/// The end of a process that is not our child is seen by looking.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why no session was ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndSessionsError {
    #[error("the processes of this machine cannot be listed in /proc")]
    ProcessesUnknown(#[source] io::Error),
    #[error(
        "you may not end the sessions of {}: run this as root, or as the user that its agent runs as",
        state_dir.display()
    )]
    NotYours { state_dir: PathBuf },
    #[error(
        "{} is no directory, and no session of an agent of such a directory runs: give --state-dir as the agent has it",
        state_dir.display()
    )]
    NoStateDirectory { state_dir: PathBuf },
}

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

/// Ends all sessions that daemons of `state_dir` have started, also those that start meanwhile, and waits for at most
/// `wait`.
///
/// # Errors
/// The machine's processes cannot be listed, the sessions are not this user's to end, or there is neither the directory nor
/// a session of it.
pub(crate) async fn end_sessions(
    state_dir: &Path,
    reason: &str,
    wait: Duration,
) -> Result<Ended, EndSessionsError> {
    let deadline = Instant::now() + wait;
    let not_yours = || EndSessionsError::NotYours {
        state_dir: state_dir.to_owned(),
    };
    let owner = owner_for_us(state_dir).ok_or_else(not_yours)?;
    let (_left, untold) = match ShutdownReason::leave(state_dir, reason) {
        Ok(left) => (Some(left), None),
        Err(error) => (None, Some(error)),
    };
    let state_dir = canonical(state_dir);
    let mut told = BTreeSet::new();
    loop {
        let workers = workers(&state_dir, owner).map_err(EndSessionsError::ProcessesUnknown)?;
        for worker in &workers {
            // a second time would say nothing new
            if told.insert((worker.pid, worker.start_ticks)) {
                // it may have ended meanwhile; of root's agent in a directory of ours it is refused
                if kill(Pid::from_raw(worker.pid), Signal::SIGTERM) == Err(Errno::EPERM) {
                    return Err(not_yours());
                }
            }
        }
        if told.is_empty() && !state_dir.is_dir() {
            return Err(EndSessionsError::NoStateDirectory { state_dir });
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

/// Whose the state directory is; `None` where this user is a stranger to it. Of one that is gone, or on a disk that does
/// not answer, it is assumed that it was ours.
fn owner_for_us(state_dir: &Path) -> Option<Uid> {
    let us = geteuid();
    match fs::metadata(state_dir) {
        Ok(metadata) => Some(Uid::from_raw(metadata.uid())).filter(|owner| us.is_root() || *owner == us),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
        Err(_) => Some(us),
    }
}

/// The living session workers of a state directory.
fn workers(state_dir: &Path, owner: Uid) -> io::Result<Vec<ProcessKey>> {
    let is_worker = |directory: &Path| {
        // whoever starts a process may call it anything; that it serves this directory is root's and the owner's to say
        let is_believed = fs::metadata(directory).is_ok_and(|metadata| {
            let user = Uid::from_raw(metadata.uid());
            user.is_root() || user == owner
        });
        is_believed
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
    use std::{
        os::unix::{
            fs::{PermissionsExt, chown},
            process::CommandExt,
        },
        process::{Command, Stdio},
    };

    use super::*;

    const NOBODY: u32 = 65_534;

    #[tokio::test]
    async fn root_ends_the_sessions_of_another_users_agent_and_nothing_that_only_calls_itself_one() {
        if !geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("worker"), "read line\n").unwrap();
        let state_dir = dir.path().join("agent");
        fs::create_dir(&state_dir).unwrap();
        let mut children = [NOBODY, NOBODY - 1].map(|user| {
            let mut command = Command::new("/bin/sh");
            command
                .arg0("moorline-agent")
                .args(["worker", "session"])
                .arg(&state_dir);
            command
                .current_dir(&dir)
                .stdin(Stdio::piped())
                .uid(user)
                .gid(user);
            command.spawn().unwrap()
        });
        chown(&state_dir, Some(NOBODY), Some(NOBODY)).unwrap();
        let ended = end_sessions(&state_dir, "x", Duration::from_secs(10)).await;
        let states = children.each_mut().map(|child| child.try_wait().unwrap());
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let ended = ended.unwrap();
        assert_eq!((ended.ended, ended.left), (1, 0), "{states:?}");
        assert!(states[1].is_none(), "{states:?}");
    }

    #[tokio::test]
    async fn a_state_directory_that_is_none_is_named_and_not_told_to_have_no_session() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file, dir.path().join("none")] {
            let refused = end_sessions(&path, "x", Duration::from_secs(10)).await;
            let told = refused.unwrap_err().to_string();
            assert!(
                told.starts_with(&format!("{} is no directory", path.display())),
                "{told}"
            );
        }
        assert_eq!(
            end_sessions(dir.path(), "x", Duration::from_secs(10))
                .await
                .unwrap()
                .ended,
            0
        );
    }

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
