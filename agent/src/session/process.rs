//! The process of a session, from before its start to after its end.
//!
//! A shell is started while its data channel is being opened. A program without a terminal is started when its client
//! has answered the handshake, as by the stock agent: what nobody can follow is not run. So is the program of a session
//! that is to be encrypted, when the key is agreed.

use std::io;

use futures_util::future::BoxFuture;
use moorline_protocol::error_chain;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::{
    login::LoginUser,
    pipes::WriteEnds,
    program::Program,
    pty::{PtyError, Shell, start_piped},
    shell_start::{OnTerminal, ShellStart},
};

/// Exit codes that shells give to a program that is not there, and to one that cannot be executed.
const EXIT_NOT_FOUND: i32 = 127;
const EXIT_NOT_EXECUTED: i32 = 126;

/// A program that waits for its client. Its arguments may hold secrets, so it has no `Debug`.
pub(super) struct Launch {
    pub(super) program: Program,
    pub(super) user: LoginUser,
    pub(super) write_ends: WriteEnds,
}

/// A program that waits for its client to have a terminal.
pub(super) struct TerminalLaunch {
    pub(super) start: ShellStart,
    /// Shown before its output.
    pub(super) notices: Vec<String>,
}

/// The start of a program on a terminal.
pub(super) type Starting = BoxFuture<'static, Result<OnTerminal, PtyError>>;

/// See the module.
pub(super) enum Process {
    Waiting(Box<Launch>),
    WaitingForTerminal(Box<TerminalLaunch>),
    /// Whoever launched it will say what came of it.
    Starting,
    Running(Shell),
    NotStarted(NotStarted),
}

/// A program that could not be started, in the words and with the exit code of its end.
#[derive(Debug, Clone, Default)]
pub(super) struct NotStarted {
    pub(super) reason: String,
    exit_code: i32,
}

impl Process {
    /// Starts what waits. On a terminal that takes a while: what is returned is to be awaited, and its outcome to be
    /// handed to [`Self::started`].
    pub(super) fn launch(&mut self) -> Option<Starting> {
        match std::mem::replace(self, Self::Starting) {
            Self::Waiting(launch) => *self = launch.start(),
            Self::WaitingForTerminal(launch) => {
                return Some(Box::pin(async move { launch.start.start(launch.notices).await }));
            }
            other => *self = other,
        }
        None
    }

    /// What came of the start.
    pub(super) fn started(&mut self, outcome: Result<Shell, PtyError>) {
        *self = match outcome {
            Ok(shell) => {
                tracing::info!(pid = shell.pid().as_raw(), "program started");
                Self::Running(shell)
            }
            Err(error) => Self::NotStarted(NotStarted {
                exit_code: exit_code_of(&error),
                reason: error_chain(&error),
            }),
        };
    }

    pub(super) fn not_started(&self) -> Option<&NotStarted> {
        match self {
            Self::NotStarted(not_started) => Some(not_started),
            Self::Waiting(_) | Self::WaitingForTerminal(_) | Self::Starting | Self::Running(_) => None,
        }
    }

    /// Its process number, while it has one.
    pub(super) fn pid(&self) -> Option<Pid> {
        match self {
            Self::Running(shell) => Some(shell.pid()),
            Self::Waiting(_) | Self::WaitingForTerminal(_) | Self::Starting | Self::NotStarted(_) => None,
        }
    }

    /// The process that closes its PAM session, which is none of its programs.
    pub(super) fn keeper(&self) -> Option<Pid> {
        match self {
            Self::Running(shell) => shell.keeper(),
            Self::Waiting(_) | Self::WaitingForTerminal(_) | Self::Starting | Self::NotStarted(_) => None,
        }
    }

    /// Ends its PAM session.
    pub(super) fn log_out(&mut self) {
        if let Self::Running(shell) = self {
            shell.log_out();
        }
    }

    /// The exit code once it has ended, 128 + signal when a signal ended it.
    pub(super) fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Waiting(_) | Self::WaitingForTerminal(_) | Self::Starting => None,
            Self::Running(shell) => shell.exit_code(),
            Self::NotStarted(not_started) => Some(not_started.exit_code),
        }
    }

    /// Sends a signal to the program and to what it started in its process group, as a terminal does.
    pub(super) fn interrupt(&self, signal: Signal) {
        // The number stays the program's until it is reaped, so the group can be no other's.
        if let Some(pid) = self.pid()
            && let Err(error) = killpg(pid, signal)
        {
            tracing::debug!(%pid, %signal, %error, "program not signalled");
        }
    }

    /// Frees its process number, if it has ended.
    pub(super) fn reap(self) {
        if let Self::Running(shell) = self {
            shell.reap();
        }
    }
}

impl Launch {
    fn start(self) -> Process {
        let WriteEnds { output, error } = self.write_ends;
        let mut process = Process::Starting;
        process.started(start_piped(&self.program, &self.user, output, error));
        process
    }
}

fn exit_code_of(error: &PtyError) -> i32 {
    match error {
        PtyError::Start { source, .. } if source.kind() == io::ErrorKind::NotFound => EXIT_NOT_FOUND,
        _ => EXIT_NOT_EXECUTED,
    }
}

#[cfg(test)]
mod tests;
