//! The pseudo-terminal, and the process of a session: on it, or on pipes.

mod read_ahead;

use std::{
    ffi::CString,
    io::{self, Write},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    libc,
    pty::{grantpt, posix_openpt, ptsname_r, unlockpt},
    sys::{
        signal::{SigHandler, Signal, killpg, signal},
        stat::{Mode, fchmod, umask},
        termios::{InputFlags, LocalFlags, SetArg, tcgetattr, tcsetattr},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::{Gid, Pid, Uid, chdir, fchown, setgid, setgroups, setsid, setuid},
};
use tokio::io::{Interest, unix::AsyncFd};

use self::read_ahead::ReadAhead;
use super::{
    login::{LoginUser, tty_group},
    program::Program,
};
use crate::{
    recording::Size,
    runtime::{give_back_core_limit, memory_file, set_own},
};

mod control {
    //! The two terminal controls that have no safe wrapper.
    use nix::libc;
    nix::ioctl_write_ptr_bad!(set_size, libc::TIOCSWINSZ, libc::winsize);
    nix::ioctl_write_int_bad!(take_terminal, libc::TIOCSCTTY);
}

/// Why no shell runs.
#[derive(Debug, thiserror::Error)]
pub(super) enum PtyError {
    #[error("failed to open a terminal")]
    Open(#[source] Errno),
    #[error(
        "this node has no terminals: devpts is not mounted on /dev/pts; commands without a terminal still run there, \
         also one that mounts it"
    )]
    NoTerminals(#[source] Errno),
    #[error("failed to hand the terminal to {user}")]
    HandOver { user: String, source: Errno },
    #[error("failed to start {program} as {user}")]
    Start {
        program: PathBuf,
        user: String,
        source: io::Error,
    },
    #[error("failed to watch the terminal")]
    Watch(#[source] io::Error),
}

/// The master side of a terminal.
#[derive(Debug)]
pub(super) struct Pty {
    master: AsyncFd<OwnedFd>,
    /// Of a session that prints much.
    ahead: Option<ReadAhead>,
    name: String,
}

/// The process of a session: leader of its session, and not reaped before [`Shell::reap`], so that neither its
/// number nor that of its session can be taken by others meanwhile.
#[derive(Debug)]
pub(super) struct Shell {
    child: Child,
    pid: Pid,
    /// Closed when the session ends, if PAM has a session of it.
    login: Option<PamLogin>,
}

/// The process that closes a PAM session, and what it waits for.
#[derive(Debug)]
pub(super) struct PamLogin {
    pub(super) keeper: Pid,
    /// Closed: the keeper closes the session.
    pub(super) _lifeline: OwnedFd,
}

/// Whom a process becomes.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) groups: Vec<Gid>,
}

/// Opens a terminal for the user. The second is the side of its programs.
///
/// # Errors
/// There is none, or it cannot be the user's.
pub(super) fn open_for(user: &LoginUser, size: Size) -> Result<(Pty, OwnedFd), PtyError> {
    let (master, slave, name) = open_terminal(size).map_err(|errno| match errno {
        Errno::ENOENT | Errno::ENODEV | Errno::ENXIO | Errno::EIO => PtyError::NoTerminals(errno),
        other => PtyError::Open(other),
    })?;
    if user.groups.is_some() {
        hand_over(&slave, user).map_err(|source| PtyError::HandOver {
            user: user.name.clone(),
            source,
        })?;
    }
    let master = watch(master, Interest::READABLE | Interest::WRITABLE).map_err(PtyError::Watch)?;
    Ok((
        Pty {
            master,
            ahead: None,
            name,
        },
        slave,
    ))
}

/// Starts the program on the terminal as the user.
///
/// # Errors
/// The program could not be executed as this user.
pub(super) fn start_on(slave: OwnedFd, program: &Program, user: &LoginUser) -> Result<Shell, PtyError> {
    Streams::terminal(slave, program.input.as_deref())
        .and_then(|streams| spawn(program, user, streams))
        .map_err(|source| not_started(program, user, source))
}

/// Starts the program as the user without a terminal: it has nothing to read, and writes into the two pipes.
///
/// # Errors
/// The program could not be executed as this user.
pub(super) fn start_piped(
    program: &Program,
    user: &LoginUser,
    output: OwnedFd,
    error: OwnedFd,
) -> Result<Shell, PtyError> {
    let streams = Streams {
        input: Stdio::null(),
        output: output.into(),
        error: error.into(),
        is_terminal: false,
    };
    spawn(program, user, streams).map_err(|source| not_started(program, user, source))
}

fn not_started(program: &Program, user: &LoginUser, source: io::Error) -> PtyError {
    PtyError::Start {
        program: program.path.clone(),
        user: user.name.clone(),
        source,
    }
}

fn watch(master: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(unsafe_code, reason = "the safe constructor is deprecated")]
    // SAFETY: the descriptor is owned by the `OwnedFd` that is moved in, and nothing replaces it there.
    let watched = unsafe { AsyncFd::register_with_interest(master, interest) };
    Ok(watched?)
}

/// Both sides are closed on exec, else the shell would hold its own master and never see a hang-up.
fn open_terminal(size: Size) -> nix::Result<(OwnedFd, OwnedFd, String)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags | OFlag::O_NONBLOCK)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname_r(&master)?;
    let slave = open(name.as_str(), flags, Mode::empty())?;
    let mut attributes = tcgetattr(&slave)?;
    // Erasing a character in line mode erases all its bytes.
    attributes.input_flags.insert(InputFlags::IUTF8);
    tcsetattr(&slave, SetArg::TCSANOW, &attributes)?;
    let master = OwnedFd::from(master);
    set_size(&master, size)?;
    Ok((master, slave, name))
}

/// Without this, `/dev/tty`, `screen` and `sudo` do not work for the user.
fn hand_over(slave: &OwnedFd, user: &LoginUser) -> nix::Result<()> {
    let (group, mode) = terminal_access(tty_group(), user.gid);
    fchown(slave, Some(user.uid), Some(group))?;
    fchmod(slave, mode)
}

/// `write` and `wall` reach a terminal by the group `tty`. Any other group may not write to it: the user's own may have
/// many members.
fn terminal_access(tty: Option<Gid>, own: Gid) -> (Gid, Mode) {
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    match tty {
        Some(tty) => (tty, mode | Mode::S_IWGRP),
        None => (own, mode),
    }
}

/// What a process has as its standard input, output and error.
struct Streams {
    input: Stdio,
    output: Stdio,
    error: Stdio,
    /// Output is a terminal, which becomes the controlling one.
    is_terminal: bool,
}

impl Streams {
    /// All three are the terminal; with an input of its own, a program reads that first.
    fn terminal(slave: OwnedFd, input: Option<&str>) -> io::Result<Self> {
        Ok(Self {
            input: match input {
                None => slave.try_clone()?.into(),
                Some(input) => memory_file(c"session", input.as_bytes())?.into(),
            },
            output: slave.try_clone()?.into(),
            error: slave.into(),
            is_terminal: true,
        })
    }
}

fn spawn(program: &Program, user: &LoginUser, streams: Streams) -> io::Result<Shell> {
    let mut command = Command::new(&program.path);
    describe(&mut command, program);
    command
        .stdin(streams.input)
        .stdout(streams.output)
        .stderr(streams.error);
    let is_terminal = streams.is_terminal;
    let home = c_path(&user.home)?;
    let (uid, gid) = (user.uid, user.gid);
    let identity = user.groups.clone().map(|groups| Identity { uid, gid, groups });
    let prepare = move || {
        setsid()?;
        attribute_to(uid);
        let _agents = umask(usual_umask());
        give_back_core_limit();
        become_shell(&home, identity.as_ref(), is_terminal).map_err(io::Error::from)
    };
    #[expect(
        unsafe_code,
        reason = "only the child can take the terminal and change its user"
    )]
    // SAFETY: `prepare` runs between fork and exec and makes system calls only: everything that allocates or asks
    // the user database was done above.
    unsafe {
        command.pre_exec(prepare);
    }
    // The command holds the slave: it must be gone before the end of the terminal can be seen.
    Ok(Shell::new(command.spawn()?, None))
}

/// Name, arguments and environment of a program.
pub(super) fn describe(command: &mut Command, program: &Program) {
    command
        .arg0(&program.name)
        .args(&program.arguments)
        .env_clear()
        .envs(program.environment.iter());
}

/// # Errors
/// The path holds a NUL.
pub(super) fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// The audit system of the kernel names this user in all that the process and its descendants do. A kernel without it
/// has no such file, and where it was set before (a daemon that was started by hand) it may be fixed.
pub(super) fn attribute_to(uid: Uid) {
    let mut digits = [0; 10];
    let mut rest = digits.as_mut_slice();
    // no number of 32 bits has more digits
    let _fits = write!(rest, "{}", uid.as_raw());
    let unused = rest.len();
    let length = digits.len() - unused;
    if let Ok(file) = open(c"/proc/self/loginuid", OFlag::O_WRONLY, Mode::empty()) {
        let _kept = nix::unistd::write(&file, digits.get(..length).unwrap_or_default());
    }
}

/// In a process that leads a session and has the terminal, if there is one, as standard output; the last before exec.
///
/// # Errors
/// The terminal is not to be had, or the user is not.
pub(super) fn become_shell(
    home: &CString,
    identity: Option<&Identity>,
    is_terminal: bool,
) -> nix::Result<()> {
    for ignored in Signal::iterator() {
        #[expect(
            unsafe_code,
            reason = "a signal that the agent ignores would be ignored by every shell"
        )]
        // SAFETY: the default action runs no code of ours. The two signals whose action is fixed give an error,
        // which says nothing.
        let _unchanged = unsafe { signal(ignored, SigHandler::SigDfl) };
    }
    if is_terminal {
        #[expect(unsafe_code, reason = "TIOCSCTTY has no safe wrapper")]
        // SAFETY: 1 is the terminal's slave, and the argument is an integer.
        unsafe {
            control::take_terminal(libc::STDOUT_FILENO, 0)?;
        }
    }
    #[expect(unsafe_code, reason = "close_range has no safe wrapper")]
    // SAFETY: nothing is closed before exec, which is the end of everything that uses these descriptors. An old
    // kernel refuses, and then only what our starter left open to us stays open.
    let _unknown_to_old_kernels = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    give_up_protection();
    if let Some(identity) = identity {
        setgroups(&identity.groups)?;
        setgid(identity.gid)?;
        setuid(identity.uid)?;
    }
    // As the user, since root may not look into a home on NFS.
    chdir(home.as_c_str()).or_else(|_| chdir(c"/"))
}

/// What new files deny where nobody says otherwise.
pub(super) fn usual_umask() -> Mode {
    Mode::S_IWGRP | Mode::S_IWOTH
}

/// The daemon is the last that a machine without memory should kill, so that it can be repaired; what is run from a
/// shell is not. Where it cannot be had, the shell is as protected as we are.
fn give_up_protection() {
    let _kept = set_own(c"/proc/self/oom_score_adj", b"0");
}

fn set_size(master: &impl std::os::fd::AsRawFd, size: Size) -> nix::Result<()> {
    let size = libc::winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    #[expect(unsafe_code, reason = "TIOCSWINSZ has no safe wrapper")]
    // SAFETY: the descriptor is open, and the kernel reads one `winsize` from the pointer during the call.
    unsafe {
        control::set_size(master.as_raw_fd(), &raw const size).map(drop)
    }
}

impl Pty {
    /// The path of its programs' side.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Waits for output and reads what there is, up to the length of the buffer. Zero means the end: nobody holds
    /// the other side open. Nothing is lost when the future is dropped.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(ahead) = &self.ahead {
            return ahead.read(buffer).await;
        }
        loop {
            let mut guard = self.master.readable().await?;
            if let Ok(read) = guard.try_io(|master| Ok(read_available(master.get_ref(), buffer)?)) {
                return read;
            }
        }
    }

    /// Has a thread read from now on. Where there is none to be had it goes on as before.
    pub(super) fn read_ahead(&mut self) {
        if let Err(error) = self.try_read_ahead() {
            tracing::debug!(%error, "the terminal is not read ahead");
        }
    }

    fn try_read_ahead(&mut self) -> io::Result<()> {
        let master = self.master.get_ref();
        // output wakes the thread, and nobody else any more
        let written = watch(master.try_clone()?, Interest::WRITABLE)?;
        self.ahead = Some(ReadAhead::start(master.try_clone()?)?);
        self.master = written;
        Ok(())
    }

    /// Waits until input is taken, and returns how much of it. Nothing is written when the future is dropped.
    pub(super) async fn write(&self, input: &[u8]) -> io::Result<usize> {
        loop {
            let mut guard = self.master.writable().await?;
            let write = |master: &AsyncFd<OwnedFd>| Ok(nix::unistd::write(master.get_ref(), input)?);
            if let Ok(written) = guard.try_io(write) {
                return written;
            }
        }
    }

    /// # Errors
    /// The terminal is gone.
    pub(super) fn resize(&self, size: Size) -> nix::Result<()> {
        set_size(&self.master, size)
    }

    /// Whether what is typed now is shown. A terminal whose settings cannot be read shows nothing.
    pub(super) fn is_echoing(&self) -> bool {
        tcgetattr(self.master.get_ref())
            .is_ok_and(|attributes| attributes.local_flags.contains(LocalFlags::ECHO))
    }

    /// Tells the program in the foreground that the size may have changed.
    pub(super) fn repaint(&self) {
        let told = nix::unistd::tcgetpgrp(&self.master).and_then(|group| killpg(group, Signal::SIGWINCH));
        if let Err(error) = told {
            tracing::debug!(%error, "the program was not told to fill the screen again");
        }
    }
}

/// Less room than this is not worth another call.
const LEAST_MORE_BYTES: usize = 1024;

/// The kernel gives at most 4 KiB a call: reads until nothing is there or the buffer has little room.
fn read_available(master: &OwnedFd, buffer: &mut [u8]) -> nix::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer
        .get_mut(length..)
        .filter(|rest| length == 0 || rest.len() >= LEAST_MORE_BYTES)
    {
        match nix::unistd::read(master, rest) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(Errno::EINTR) => {}
            // What was read goes out first; the next call finds the same again.
            Err(_) if length > 0 => break,
            // How Linux says that the last slave was closed.
            Err(Errno::EIO) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

impl Shell {
    pub(super) fn new(child: Child, login: Option<PamLogin>) -> Self {
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        Self { child, pid, login }
    }

    /// The process that closes its PAM session, which is none of its programs.
    pub(super) fn keeper(&self) -> Option<Pid> {
        self.login.as_ref().map(|login| login.keeper)
    }

    /// Ends its PAM session.
    pub(super) fn log_out(&mut self) {
        self.login = None;
    }

    /// Its process number, which is that of its session.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Its exit code once it has ended, 128 + signal when a signal ended it. It stays a zombie.
    pub(super) fn exit_code(&self) -> Option<i32> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.pid), flags) {
            Ok(WaitStatus::Exited(_, code)) => Some(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32),
            // Not ended; and an error can only mean that there is no such child, which cannot be before `reap`.
            _ => None,
        }
    }

    /// Frees its process number, if it has ended.
    pub(super) fn reap(mut self) {
        if let Err(error) = self.child.try_wait() {
            tracing::debug!(%error, "the shell could not be reaped");
        }
    }
}

#[cfg(test)]
mod tests;
