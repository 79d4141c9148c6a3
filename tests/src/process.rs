//! Child processes: those that serve until they are killed, and those that are run to their end.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    time::timeout,
};

use crate::wait::PATIENCE;

/// What of a log is shown when a test fails.
const LOG_TAIL_BYTES: usize = 6000;

/// A program that serves: its output goes to a log file, it ends when it is killed or dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pid: i32,
    log: PathBuf,
}

impl Process {
    /// Starts it in a process group of its own. The log is appended to: a restart goes on in the same file.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("failed to open {}", log.display()))?;
        let program = command.as_std().get_program().to_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("failed to start {}", program.display()))?;
        let pid = i32::try_from(child.id().context("the process ended at once")?)?;
        Ok(Self {
            child,
            pid,
            log: log.to_owned(),
        })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// `kill -9` of this one process, and waits until it is gone.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.context("failed to kill a process")
    }

    /// Asks this one process to end, and waits until it is gone.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        kill(Pid::from_raw(self.pid), Signal::SIGTERM)?;
        timeout(PATIENCE, self.child.wait())
            .await
            .context("a process does not end")??;
        Ok(())
    }

    /// Fails when the process has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the process ended with {status}; its log:\n{}", self.log_text());
        }
        Ok(())
    }

    pub(crate) fn log_text(&self) -> String {
        fs::read(&self.log).map_or_else(
            |error| error.to_string(),
            |log| String::from_utf8_lossy(&log).into_owned(),
        )
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "the test runner shows it when the test fails")]
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            // an error means that nothing is left to kill
            let _gone = killpg(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
        let log = self.log_text();
        let start = log.ceil_char_boundary(log.len().saturating_sub(LOG_TAIL_BYTES));
        eprintln!(
            "--- {} ---\n{}",
            self.log.display(),
            log.get(start..).unwrap_or_default()
        );
    }
}

/// A program that has ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Exit code; 128 plus the signal when one ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    command_line: String,
}

impl Finished {
    /// Fails, with everything the program said, unless it ended with 0.
    ///
    /// # Errors
    /// It did not.
    pub fn success(self) -> Result<Self> {
        self.with_code(0)
    }

    /// Fails, with everything the program said, unless it ended with `code`.
    ///
    /// # Errors
    /// It did not.
    pub fn with_code(self, code: i32) -> Result<Self> {
        ensure!(
            self.code == code,
            "`{}` ended with {} instead of {code}\n{}\n{}",
            self.command_line,
            self.code,
            self.stdout,
            self.stderr
        );
        Ok(self)
    }

    /// Its standard output as JSON.
    ///
    /// # Errors
    /// It is not JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout).with_context(|| {
            format!(
                "`{}` did not write JSON: {:?} {}",
                self.command_line, self.stdout, self.stderr
            )
        })
    }
}

/// Runs a program to its end, in exactly the given environment.
///
/// # Errors
/// It cannot be started, or does not end within `limit` (then it is killed).
pub async fn run(
    program: impl AsRef<OsStr>,
    arguments: &[&str],
    environment: &BTreeMap<String, String>,
    input: Option<&[u8]>,
    limit: Duration,
) -> Result<Finished> {
    let program = program.as_ref();
    let command_line = format!("{} {}", program.display(), arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment)
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("failed to start {command_line}"))?;
    let group = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(input).await?;
        stdin.shutdown().await?;
    }
    let Ok(output) = timeout(limit, child.wait_with_output()).await else {
        if let Some(group) = group {
            let _gone = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        bail!("`{command_line}` did not end within {limit:?}");
    };
    let output = output?;
    let signalled = output.status.signal().map_or(-1, |signal| 128 + signal);
    Ok(Finished {
        code: output.status.code().unwrap_or(signalled),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        command_line,
    })
}

/// The surroundings every client runs in: none of the developer's own settings, and a home of its own.
pub(crate) fn bare_environment(home: &Path) -> BTreeMap<String, String> {
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
    [
        ("HOME", home.display().to_string()),
        ("LANG", "C.UTF-8".to_owned()),
        ("PATH", path),
        ("TERM", "xterm-256color".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// The processes whose environment holds `mark` (`NAME=value`): a daemon hands it down to all that it starts.
pub(crate) fn marked_processes(mark: &str) -> Vec<i32> {
    processes_whose("environ", mark)
}

/// The processes that were started with this as one of their arguments.
pub(crate) fn processes_with_argument(argument: &str) -> Vec<i32> {
    processes_whose("cmdline", argument)
}

/// The processes that have this text in a list that the kernel keeps of them.
fn processes_whose(list: &str, text: &str) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/{list}"))
                .is_ok_and(|texts| texts.split(|byte| *byte == 0).any(|one| one == text.as_bytes()))
        })
        .collect()
}

/// The processes whose parent this is, as the kernel lists them: of what asks for a process's memory, whoever holds that
/// last gives it back, and waits for the disk of those who had a file in it.
pub(crate) fn children_of(parent: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten();
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|children| {
            let pids = children.split_whitespace().map(str::parse);
            pids.flatten().collect::<Vec<i32>>()
        })
        .collect()
}

/// The arguments of a living process.
pub(crate) fn arguments_of(pid: i32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .filter(|argument| !argument.is_empty())
        .collect()
}

/// `kill -9`; one that is already gone is no error.
pub fn kill_process(pid: i32) {
    let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
}

/// Says why a test did nothing: a machine that lacks what it needs must not look as if it had passed.
#[expect(clippy::print_stderr, reason = "the only place where a test can say it")]
pub fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// Whether the tests run as root, as a few must.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
