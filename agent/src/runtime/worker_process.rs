//! Worker processes: this binary, executed again, one for each command and each session.
//!
//! A worker gets its task as JSON on its standard input (never in argv, which everyone can read), leads a session and
//! a process group of its own, works in `/`, and outlives the daemon.

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use nix::unistd::setsid;
use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStdout, Command},
    time::{Duration, Instant, sleep},
};

use super::closed_memory::give_back_core_limit;

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkerKind {
    Command,
    Session,
}

impl WorkerKind {
    /// Its name on the command line of `moorline-agent worker`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Session => "session",
        }
    }
}

/// Why no worker runs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerSpawnError {
    #[error("failed to start a {kind} worker")]
    Spawn {
        kind: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("failed to hand the task to a {kind} worker")]
    Task {
        kind: &'static str,
        #[source]
        source: std::io::Error,
    },
}

/// A process that cannot be mistaken for a later one with the same number: pid and start time
/// (field 22 of /proc/PID/stat).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessKey {
    pub(crate) pid: i32,
    pub(crate) start_ticks: u64,
}

impl ProcessKey {
    /// The key of a living process.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses and may itself hold both blanks and parentheses.
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut fields = fields.split(' ');
        if fields.next()? == "Z" {
            return None;
        }
        Some(Self {
            pid,
            start_ticks: fields.nth(18)?.parse().ok()?,
        })
    }

    /// Whether exactly this process still lives.
    pub(crate) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// A worker that this daemon started.
#[derive(Debug)]
pub(crate) struct WorkerProcess {
    child: Child,
}

impl WorkerProcess {
    /// Starts `moorline-agent worker KIND STATE_DIR` and writes `task` to its standard input. The directory says whose
    /// worker it is, to `ps` and to those who look for workers.
    ///
    /// # Errors
    /// The process could not be started, or did not take its task.
    pub(crate) async fn spawn(
        kind: WorkerKind,
        state_dir: &Path,
        task: &[u8],
    ) -> Result<Self, WorkerSpawnError> {
        let spawn = |source| WorkerSpawnError::Spawn {
            kind: kind.as_str(),
            source,
        };
        let mut command = Command::new(own_program());
        command
            .arg0("moorline-agent")
            .args(["worker", kind.as_str()])
            .arg(state_dir)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(false);
        lead_session(&mut command);
        let mut child = spawn_patiently(&mut command).await.map_err(spawn)?;
        let hand_over = async {
            let mut stdin = child
                .stdin
                .take()
                .ok_or_else(|| std::io::Error::other("no standard input"))?;
            stdin.write_all(task).await?;
            stdin.shutdown().await
        };
        hand_over.await.map_err(|source| WorkerSpawnError::Task {
            kind: kind.as_str(),
            source,
        })?;
        Ok(Self { child })
    }

    /// The process, while it has not been waited for.
    pub(crate) fn key(&self) -> Option<ProcessKey> {
        ProcessKey::of(i32::try_from(self.child.id()?).ok()?)
    }

    /// What the worker says to the daemon: nudges, or a last line.
    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits for its end.
    pub(crate) async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }
}

/// What to execute to have this very program again: also when its file was replaced by an upgrade. Where `/proc` is not
/// mounted it is what we were started as.
pub(crate) fn own_program() -> PathBuf {
    let running = Path::new("/proc/self/exe");
    if running.is_symlink() {
        return running.to_owned();
    }
    let name = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    match name.parent().is_some_and(|folder| !folder.as_os_str().is_empty()) {
        true => std::path::absolute(&name).unwrap_or(name),
        // sought in PATH when it is executed
        false => name,
    }
}

/// How long a machine at its limit of processes, or without memory, is asked again for one.
pub(crate) const PROCESS_PATIENCE: Duration = Duration::from_secs(5);
/// Between two of these attempts.
pub(crate) const PROCESS_PAUSE: Duration = Duration::from_millis(100);

/// Whether the machine has no process or memory to give now.
pub(crate) fn is_refused(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::OutOfMemory
    )
}

async fn spawn_patiently(command: &mut Command) -> std::io::Result<Child> {
    let deadline = Instant::now() + PROCESS_PATIENCE;
    loop {
        match command.spawn() {
            Err(error) if is_refused(&error) && Instant::now() < deadline => sleep(PROCESS_PAUSE).await,
            other => return other,
        }
    }
}

/// Makes the process the leader of a new session, so that nothing a terminal does to the daemon reaches it: a daemon
/// that is run by hand has one. It is started with the limit of core files that we were started with.
fn lead_session(command: &mut Command) {
    #[expect(unsafe_code, reason = "only the child can leave its starter's session")]
    // SAFETY: between fork and exec there are system calls only, and their errors are numbers.
    unsafe {
        command.pre_exec(|| {
            give_back_core_limit();
            setsid().map(drop).map_err(std::io::Error::from)
        });
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::{Pid, getpgid, getsid};

    use super::*;

    #[tokio::test]
    async fn a_worker_leads_a_session_and_a_process_group_of_its_own() {
        let mut command = Command::new("sleep");
        command.arg("300").kill_on_drop(true);
        lead_session(&mut command);
        let worker = command.spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(worker.id().unwrap()).unwrap());
        assert_eq!((getsid(Some(pid)), getpgid(Some(pid))), (Ok(pid), Ok(pid)));
    }
}
