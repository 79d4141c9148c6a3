//! A program at a terminal: what it writes is kept, what a user would type is typed.

use std::{
    fs::File,
    io::{Read, Write},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    libc,
    pty::{Winsize, openpty},
    sys::{
        signal::{SigHandler, Signal, killpg, signal},
        termios::{FlowArg, tcflow},
    },
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::wait::{PATIENCE, wait_for};

/// A pseudo terminal with a program on it, which leads its session there.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    pid: i32,
    master: File,
    screen: Arc<Mutex<Vec<u8>>>,
    /// No program is left on the terminal, and all it wrote is on the screen.
    is_closed: Arc<AtomicBool>,
    /// What [`Self::expect`] has already passed.
    passed: usize,
}

impl Terminal {
    /// Starts `command` on a terminal of the given size.
    ///
    /// # Errors
    /// There is no terminal, or the program cannot be started.
    pub fn start(command: &mut Command, columns: u16, rows: u16) -> Result<Self> {
        Self::start_with(command, columns, rows, None)
    }

    /// As [`Self::start`], with standard error in a file, where the program's own remarks do not come between the
    /// lines of what it shows.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(command: &mut Command, columns: u16, rows: u16, remarks: Option<File>) -> Result<Self> {
        let size = winsize(columns, rows);
        let pty = openpty(Some(&size), None).context("failed to open a pseudo terminal")?;
        command
            .stdin(pty.slave.try_clone()?)
            .stdout(pty.slave.try_clone()?)
            .kill_on_drop(true);
        match remarks {
            Some(file) => command.stderr(file),
            None => command.stderr(pty.slave),
        };
        #[expect(unsafe_code, reason = "only a forked child can take a controlling terminal")]
        // SAFETY: setsid, sigaction and ioctl are async-signal-safe, and nothing allocates between fork and exec.
        unsafe {
            command.pre_exec(take_terminal);
        }
        let child = command
            .spawn()
            .context("failed to start a program on a terminal")?;
        let pid = i32::try_from(child.id().context("the program ended at once")?)?;
        let master = File::from(pty.master);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let is_closed = Arc::new(AtomicBool::new(false));
        let (reader, filled, closed) = (master.try_clone()?, Arc::clone(&screen), Arc::clone(&is_closed));
        std::thread::spawn(move || {
            keep_reading(reader, &filled);
            closed.store(true, Ordering::Release);
        });
        // the command holds the slave's descriptors: they must go, or the terminal never ends
        command
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        Ok(Self {
            child,
            pid,
            master,
            screen,
            is_closed,
            passed: 0,
        })
    }

    /// Types text.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn send(&mut self, text: &str) -> Result<()> {
        self.master
            .write_all(text.as_bytes())
            .context("failed to type into the terminal")
    }

    /// Waits until `text` stands on the screen after what was expected before, and passes it.
    ///
    /// # Errors
    /// It does not come; the error shows the screen.
    pub async fn expect(&mut self, text: &str) -> Result<()> {
        self.expect_within(text, PATIENCE).await
    }

    /// As [`Self::expect`], with a limit.
    ///
    /// # Errors
    /// As [`Self::expect`].
    pub async fn expect_within(&mut self, text: &str, limit: Duration) -> Result<()> {
        let passed = self.passed;
        let found = wait_for(&format!("{text:?} on the screen"), limit, async || {
            // asked before the look at the screen, so that what was written last is found
            let is_closed = self.is_closed.load(Ordering::Acquire);
            let found = find(
                lock(&self.screen).get(passed..).unwrap_or_default(),
                text.as_bytes(),
            );
            Ok((found.is_some() || is_closed).then_some(found))
        })
        .await
        .and_then(|found| {
            found.with_context(|| format!("the program ended before {text:?} was on the screen"))
        });
        match found {
            Ok(end) => {
                self.passed = passed + end;
                Ok(())
            }
            Err(error) => bail!("{error:#}; the screen shows:\n{}", self.text()),
        }
    }

    /// Everything that was written so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.screen)).into_owned()
    }

    /// Gives the terminal another size; the program is told by the kernel.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let size = winsize(columns, rows);
        #[expect(unsafe_code, reason = "there is no safe call for TIOCSWINSZ")]
        // SAFETY: the descriptor is open, and `size` is what this request reads.
        let outcome = unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        nix::errno::Errno::result(outcome).context("failed to resize the terminal")?;
        Ok(())
    }

    /// Stops the output, as whoever holds the scroll bar or a full pipe does: what is written there waits for ever.
    ///
    /// # Errors
    /// The program is gone, or the kernel refuses.
    pub fn stop_output(&self) -> Result<()> {
        let slave = File::options()
            .read(true)
            .custom_flags(libc::O_NOCTTY)
            .open(format!("/proc/{}/fd/0", self.pid))?;
        tcflow(&slave, FlowArg::TCOOFF).context("failed to stop the output of a terminal")
    }

    /// Waits for the program's end and returns its exit code.
    ///
    /// # Errors
    /// It does not end in time, or a signal ended it.
    pub async fn wait(&mut self) -> Result<i32> {
        let Ok(status) = timeout(PATIENCE, self.child.wait()).await else {
            bail!("the program did not end; the screen shows:\n{}", self.text());
        };
        let status = status?;
        status
            .code()
            .with_context(|| format!("the program ended with {status}"))
    }

    /// Sends the program a signal.
    ///
    /// # Errors
    /// The program is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        nix::sys::signal::kill(Pid::from_raw(self.pid), signal).context("failed to signal the program")
    }

    /// `kill -9` of the program, as when a user's machine dies.
    ///
    /// # Errors
    /// It cannot be killed.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.context("failed to kill the program")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _gone = killpg(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}

fn winsize(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// In the child: a session of its own, with standard input as its controlling terminal, whose keys work even where the
/// tests run in the background of a shell, which has what it puts there ignore them.
fn take_terminal() -> std::io::Result<()> {
    nix::unistd::setsid()?;
    for key in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP, Signal::SIGHUP] {
        #[expect(unsafe_code, reason = "setting how a signal is handled is")]
        // SAFETY: no handler is installed, and sigaction is async-signal-safe.
        unsafe { signal(key, SigHandler::SigDfl) }?;
    }
    #[expect(unsafe_code, reason = "there is no safe call for TIOCSCTTY")]
    // SAFETY: descriptor 0 is the terminal's slave, and this request takes no pointer.
    let outcome = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
    nix::errno::Errno::result(outcome)?;
    Ok(())
}

/// Ends when the last program on the terminal has closed it.
fn keep_reading(mut reader: File, screen: &Mutex<Vec<u8>>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = reader.read(&mut buffer) {
        lock(screen).extend_from_slice(buffer.get(..length).unwrap_or_default());
    }
}

fn lock(screen: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where `wanted` ends in `text`.
fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    let start = text.windows(wanted.len()).position(|window| window == wanted)?;
    Some(start + wanted.len())
}
