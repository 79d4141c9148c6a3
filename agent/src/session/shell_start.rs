//! The start of a shell on a terminal of its own: by way of PAM where the machine wants that, and without when it
//! does not come to its end.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
};

use moorline_protocol::error_chain;
use moorline_transport::unix_millis;
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::{Pid, Uid},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    time::{Duration, Instant, sleep, timeout},
};

use super::{
    login::LoginUser,
    login_process::{LoginTask, Progress, Request},
    login_record::LoginRecord,
    program::Program,
    pty::{PamLogin, Pty, PtyError, Shell, open_for, start_on},
};
use crate::{
    config::SessionConfig,
    recording::Size,
    runtime::{PROCESS_PATIENCE, PROCESS_PAUSE, give_back_core_limit, is_refused, own_program},
};

const PAM_FOLDER: &str = "/etc/pam.d";
/// What PAM may take. A module may ask a directory service that does not answer.
const PAM_LIMIT: Duration = Duration::from_secs(10);
/// What is read of a login process.
const MAX_SAID_BYTES: u64 = 64 * 1024;
/// What is shown of a notice on a terminal that nobody reads yet.
const MAX_NOTICE_CHARS: usize = 1000;

/// Why a shell has no PAM session.
#[derive(Debug, thiserror::Error)]
enum PamStartError {
    #[error("the task of the login process cannot be written down")]
    Task(#[source] serde_json::Error),
    #[error("failed to start the login process")]
    Start(#[source] io::Error),
    #[error("it was not done after {} seconds", PAM_LIMIT.as_secs())]
    TimedOut,
    #[error("the login process ended before its time")]
    Ended,
    #[error("{0}")]
    Failed(String),
}

/// A shell that runs.
pub(super) struct OnTerminal {
    pub(super) pty: Pty,
    pub(super) shell: Shell,
    /// In utmp and wtmp, where it is.
    pub(super) record: Option<LoginRecord>,
}

/// A shell to start.
pub(super) struct ShellStart {
    pub(super) program: Program,
    pub(super) user: LoginUser,
    pub(super) settings: SessionConfig,
    pub(super) operator: String,
    /// Nothing but the shell: PAM takes processes that may not be there, and may ask who does not answer.
    pub(super) is_bare: bool,
}

impl ShellStart {
    /// Opens a terminal, shows the notices on it, starts the shell and records it.
    ///
    /// # Errors
    /// There is no terminal, or the program could not be executed as this user.
    pub(super) async fn start(&self, notices: Vec<String>) -> Result<OnTerminal, PtyError> {
        let (pty, shell) = self.start_somehow(notices).await?;
        let record = match Uid::effective().is_root() {
            true => {
                let (user, operator) = (&self.user.name, &self.operator);
                LoginRecord::begin(pty.name(), user, operator, shell.pid(), unix_millis())
            }
            false => None,
        };
        Ok(OnTerminal { pty, shell, record })
    }

    async fn start_somehow(&self, mut notices: Vec<String>) -> Result<(Pty, Shell), PtyError> {
        let size = Size::default();
        if self.wants_pam() {
            let (pty, slave) = open_for(&self.user, size)?;
            show(&slave, &notices);
            match self.start_with_pam(pty.name(), slave).await {
                Ok(shell) => return Ok((pty, shell)),
                Err(error) => {
                    let reason = error_chain(&error);
                    tracing::warn!(reason, user = self.user.name, "no PAM session");
                    notices.push(format!("this shell has no PAM session: {reason}"));
                }
            }
        }
        // A new one, since the old one may have been hung up with the login process.
        let (pty, slave) = open_for(&self.user, size)?;
        show(&slave, &notices);
        Ok((pty, self.start_patiently(slave).await?))
    }

    /// A machine at its limit of processes may have one a moment later.
    async fn start_patiently(&self, slave: OwnedFd) -> Result<Shell, PtyError> {
        let deadline = Instant::now() + PROCESS_PATIENCE;
        loop {
            let end = slave.try_clone().map_err(PtyError::Watch)?;
            match start_on(end, &self.program, &self.user) {
                Err(PtyError::Start { source, .. }) if is_refused(&source) && Instant::now() < deadline => {
                    sleep(PROCESS_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    fn wants_pam(&self) -> bool {
        let SessionConfig { pam, pam_service, .. } = &self.settings;
        *pam && !self.is_bare
            && Uid::effective().is_root()
            && Path::new(PAM_FOLDER).join(pam_service).is_file()
    }

    async fn start_with_pam(&self, terminal: &str, slave: OwnedFd) -> Result<Shell, PamStartError> {
        let request = Request {
            service: self.settings.pam_service.clone(),
            user: self.user.name.clone(),
            terminal: terminal.to_owned(),
            operator: self.operator.clone(),
        };
        let mut task = serde_json::to_vec(&LoginTask::new(request, &self.program, &self.user))
            .map_err(PamStartError::Task)?;
        task.push(b'\n');
        let mut process = LoginProcess::spawn(slave).map_err(PamStartError::Start)?;
        match timeout(PAM_LIMIT, process.hear(&task)).await {
            Ok(Ok(keeper)) => process.into_shell(keeper).map_err(PamStartError::Start),
            Ok(Err(error)) => {
                process.kill();
                Err(error)
            }
            Err(_) => {
                process.kill();
                Err(PamStartError::TimedOut)
            }
        }
    }
}

/// `moorline-agent worker login`, on its way to become a shell.
struct LoginProcess {
    child: Child,
    lifeline: pipe::Sender,
    progress: pipe::Receiver,
}

impl LoginProcess {
    fn spawn(slave: OwnedFd) -> io::Result<Self> {
        let (task, lifeline) = io::pipe()?;
        let (progress, said) = io::pipe()?;
        let mut command = Command::new(own_program());
        command
            .arg0("moorline-agent")
            .args(["worker", "login"])
            .env_clear()
            .current_dir("/")
            .stdin(task)
            .stdout(Stdio::from(slave))
            .stderr(said);
        #[expect(
            unsafe_code,
            reason = "the child is to find the limit that we were started with"
        )]
        // SAFETY: between fork and exec there is one system call, and nothing is allocated.
        unsafe {
            command.pre_exec(|| {
                give_back_core_limit();
                Ok(())
            });
        }
        let child = command.spawn()?;
        Ok(Self {
            child,
            lifeline: pipe::Sender::from_owned_fd(lifeline.into())?,
            progress: pipe::Receiver::from_owned_fd(progress.into())?,
        })
    }

    /// Hands the task over and hears to the end, which is the shell's beginning. Returns the keeper.
    async fn hear(&mut self, task: &[u8]) -> Result<Option<Pid>, PamStartError> {
        self.lifeline
            .write_all(task)
            .await
            .map_err(|_| PamStartError::Ended)?;
        let mut said = Vec::new();
        (&mut self.progress)
            .take(MAX_SAID_BYTES)
            .read_to_end(&mut said)
            .await
            .map_err(PamStartError::Start)?;
        progress_in(&said)
    }

    fn into_shell(self, keeper: Option<Pid>) -> io::Result<Shell> {
        let login = match keeper {
            Some(keeper) => Some(PamLogin {
                keeper,
                _lifeline: self.lifeline.into_nonblocking_fd()?,
            }),
            None => None,
        };
        Ok(Shell::new(self.child, login))
    }

    /// With all that its modules started. It is reaped as the orphans of a session are.
    fn kill(self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX));
        for killed in [killpg(pid, Signal::SIGKILL), kill(pid, Signal::SIGKILL)] {
            if let Err(error) = killed {
                tracing::debug!(%error, "login process not killed");
            }
        }
    }
}

/// What the login process said; modules may write to standard error, too.
fn progress_in(said: &[u8]) -> Result<Option<Pid>, PamStartError> {
    let (mut keeper, mut is_ready, mut failure) = (None, false, None);
    for line in said.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(Progress::Keeper(pid)) => keeper = Some(Pid::from_raw(pid)),
            Ok(Progress::Ready) => is_ready = true,
            Ok(Progress::Failed(reason)) => failure = Some(reason),
            Err(_) => tracing::debug!(line = %String::from_utf8_lossy(line), "a PAM module says"),
        }
    }
    match failure {
        Some(reason) => Err(PamStartError::Failed(reason)),
        None if !is_ready => Err(PamStartError::Ended),
        None => Ok(keeper),
    }
}

/// What the operator should know, as the first lines of the terminal. The terminal takes more than that unread.
fn show(slave: &OwnedFd, notices: &[String]) {
    for notice in notices {
        let plain: String = notice
            .chars()
            .take(MAX_NOTICE_CHARS)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        if let Err(error) = nix::unistd::write(slave, format!("moorline: {plain}\n").as_bytes()) {
            tracing::debug!(%error, "notice not shown");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_good_when_it_was_ready_and_nothing_failed() {
        let keeper = |said: &str| progress_in(said.as_bytes()).map(|keeper| keeper.map(Pid::as_raw));
        assert_eq!(keeper("\"Ready\"\n{\"Keeper\":7}\n").unwrap(), Some(7));
        assert_eq!(keeper("a module's chatter\n\"Ready\"\n").unwrap(), None);
        assert!(matches!(keeper("{\"Keeper\":7}\n"), Err(PamStartError::Ended)));
        let failed = keeper("\"Ready\"\n{\"Failed\":\"no such file\"}\n").unwrap_err();
        assert_eq!(failed.to_string(), "no such file");
    }
}
