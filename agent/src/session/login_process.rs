//! `moorline-agent worker login`: the process that becomes the shell, by way of a PAM session.
//!
//! PAM's modules act on the process that calls them (limits above all), and they may hang or crash. So it is neither
//! the worker that calls them nor a copy of it, with the worker's keys in its memory, but this binary executed anew.
//! It opens the session, leaves a keeper behind that closes it when the worker says so or is gone, and becomes the
//! shell: the shell stays the worker's own child. Until then the worker waits, not for ever, and starts the shell
//! without PAM if this does not come to its end.
//!
//! Standard input brings the task, in one line, and its end is the sign to close; standard output is the terminal;
//! standard error goes to the worker: how far it came.

use std::{
    convert::Infallible,
    ffi::OsString,
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    os::{fd::AsFd, unix::process::CommandExt},
    path::PathBuf,
    process::{Command, ExitCode},
};

use moorline_protocol::error_chain;
use nix::{
    libc,
    sys::{
        signal::{SigHandler, Signal, signal},
        stat::umask,
        wait::{WaitStatus, waitpid},
    },
    unistd::{
        ForkResult, Gid, Uid, alarm, dup2_stderr, dup2_stdin, dup2_stdout, fork, getgroups, getpid, setgid,
        setgroups, setsid,
    },
};
use serde::{Deserialize, Serialize};

use super::{
    environment::Environment,
    login::LoginUser,
    pam::PamSession,
    program::Program,
    pty::{self, Identity},
};
use crate::runtime::{give_back_core_limit, memory_file};

/// The largest task: the commands of a session document.
const MAX_TASK_BYTES: u64 = 16 * 1024 * 1024;
/// Seconds that modules have to close a session; the keeper ends with it or without.
const CLOSE_LIMIT: u32 = 30;
/// What is told of a failure.
const MAX_REASON_CHARS: usize = 500;

/// What PAM is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Request {
    /// The file of `/etc/pam.d`.
    pub(super) service: String,
    pub(super) user: String,
    pub(super) terminal: String,
    pub(super) operator: String,
}

/// A program to become, and whose.
#[derive(Serialize, Deserialize)]
pub(super) struct LoginTask {
    request: Request,
    uid: u32,
    gid: u32,
    /// `None`: the process is this user already.
    groups: Option<Vec<u32>>,
    home: PathBuf,
    path: PathBuf,
    name: OsString,
    arguments: Vec<OsString>,
    input: Option<String>,
    environment: Vec<(OsString, OsString)>,
}

/// What the process says on its way, a line each.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Progress {
    /// Somebody closes the session at its end.
    Keeper(i32),
    /// The next thing is the shell.
    Ready,
    Failed(String),
}

impl LoginTask {
    pub(super) fn new(request: Request, program: &Program, user: &LoginUser) -> Self {
        let groups = user.groups.as_ref();
        Self {
            request,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: groups.map(|groups| groups.iter().map(|gid| gid.as_raw()).collect()),
            home: user.home.clone(),
            path: program.path.clone(),
            name: program.name.clone(),
            arguments: program.arguments.clone(),
            input: program.input.clone(),
            environment: program
                .environment
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        }
    }

    fn program(self, variables: Vec<(OsString, OsString)>) -> Program {
        let mut environment = Environment::from_iter(self.environment);
        environment.add(variables);
        Program {
            path: self.path,
            name: self.name,
            arguments: self.arguments,
            input: self.input,
            environment,
        }
    }
}

/// Becomes the shell, or says why not.
pub(super) fn main() -> ExitCode {
    let Ok(mut progress) = std::io::stderr().as_fd().try_clone_to_owned().map(File::from) else {
        return ExitCode::FAILURE;
    };
    let reason = match become_shell(&mut progress) {
        Ok(never) => match never {},
        Err(error) => error_chain(&*error).chars().take(MAX_REASON_CHARS).collect(),
    };
    tell(&mut progress, &Progress::Failed(reason));
    ExitCode::FAILURE
}

/// A worker that is gone needs to know nothing.
fn tell(progress: &mut File, what: &Progress) {
    let mut line = serde_json::to_string(what).expect("texts and numbers are JSON");
    line.push('\n');
    let _told = progress.write_all(line.as_bytes());
}

fn become_shell(progress: &mut File) -> anyhow::Result<Infallible> {
    let mut line = Vec::new();
    BufReader::new(File::from(std::io::stdin().as_fd().try_clone_to_owned()?))
        .take(MAX_TASK_BYTES)
        .read_until(b'\n', &mut line)?;
    let task: LoginTask = serde_json::from_slice(&line)?;
    drop(line);
    // Whatever hangs on the way can be killed with all that it started.
    setsid()?;
    let (uid, gid) = (Uid::from_raw(task.uid), Gid::from_raw(task.gid));
    pty::attribute_to(uid);
    // pam_umask has the last word
    let _agents = umask(pty::usual_umask());
    // before modules that set limits
    give_back_core_limit();
    // Modules may add groups to what is there.
    if let Some(groups) = &task.groups {
        let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups)?;
        setgid(gid)?;
    }
    let mut variables = Vec::new();
    if let Some(session) = PamSession::open(&task.request)? {
        variables = session.variables();
        leave_keeper(session, progress)?;
    }
    let identity = match task.groups {
        Some(_) => Some(Identity {
            uid,
            gid,
            groups: getgroups()?,
        }),
        None => None,
    };
    let home = pty::c_path(&task.home)?;
    let program = task.program(variables);
    match &program.input {
        None => dup2_stdin(std::io::stdout())?,
        Some(input) => dup2_stdin(memory_file(c"session", input.as_bytes())?)?,
    }
    dup2_stderr(std::io::stdout())?;
    tell(progress, &Progress::Ready);
    pty::become_shell(&home, identity.as_ref(), true)?;
    let mut command = Command::new(&program.path);
    pty::describe(&mut command, &program);
    Err(command.exec().into())
}

/// Forks the process that closes the session, and sees to it that it is the worker's to reap, not the shell's.
fn leave_keeper(session: PamSession, progress: &mut File) -> anyhow::Result<()> {
    match fork_once()? {
        ForkResult::Child => {
            let forked = fork_once();
            if let Ok(ForkResult::Child) = forked {
                keep(session, progress);
            }
            leave(i32::from(forked.is_err()));
        }
        ForkResult::Parent { child } => {
            let left = waitpid(child, None);
            if left == Ok(WaitStatus::Exited(child, 0)) {
                // The keeper's copy is the one that counts.
                std::mem::forget(session);
                return Ok(());
            }
            session.close();
            anyhow::bail!("failed to start the process that closes the PAM session")
        }
    }
}

fn fork_once() -> nix::Result<ForkResult> {
    #[expect(unsafe_code, reason = "only a copy of this process has the open PAM session")]
    // SAFETY: this process has one thread, so the copy may do what the original may. A module that starts threads
    // of its own breaks PAM's rules.
    unsafe {
        fork()
    }
}

/// Without the work that a process has registered for its end: that is the original's.
fn leave(code: i32) -> ! {
    #[expect(
        unsafe_code,
        reason = "std has only the exit that runs what was registered for it"
    )]
    // SAFETY: it takes a number and does not return.
    unsafe {
        libc::_exit(code)
    }
}

/// Waits for the end of standard input, which the worker holds open, and closes the session.
fn keep(session: PamSession, progress: &mut File) -> ! {
    tell(progress, &Progress::Keeper(getpid().as_raw()));
    // The terminal and the worker must not wait for us, nor its signals reach us.
    let detached = setsid().map_err(Into::into).and_then(|_| detach(progress));
    for ignored in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGPIPE] {
        #[expect(unsafe_code, reason = "these are the shell's signals")]
        // SAFETY: to ignore a signal runs no code of ours.
        let _set = unsafe { signal(ignored, SigHandler::SigIgn) };
    }
    if detached.is_ok() {
        let mut rest = [0; 64];
        let mut input = std::io::stdin().lock();
        while !matches!(input.read(&mut rest), Ok(0) | Err(_)) {}
    }
    alarm::set(CLOSE_LIMIT);
    session.close();
    leave(0)
}

fn detach(progress: &mut File) -> std::io::Result<()> {
    *progress = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdout(&*progress)?;
    dup2_stderr(&*progress)?;
    Ok(())
}
