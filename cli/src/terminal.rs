//! The user's terminal: raw mode, size, and the blocking reads and writes on threads of their own.

pub(crate) mod escape;
pub(crate) mod input;
pub(crate) mod output;
pub(crate) mod signals;

use std::{
    io::{self, IsTerminal},
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd},
    sync::{Mutex, Once, PoisonError},
};

use moorline_protocol::message::TerminalSize;
use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr},
};

/// What the terminal was before raw mode. In one place for the whole process, so that the panic hook finds it.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Keeps the terminal of standard input raw; when it is dropped, and also when something panics, the terminal is what
/// it was.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Makes the terminal raw; `None` when standard input is none.
    ///
    /// # Errors
    /// The terminal does not take it.
    pub(crate) fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let default = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                default(info);
            }));
        });
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw)?;
        Ok(Some(Self(())))
    }

    /// Makes it raw again: a shell that had stopped us has set its own mode meanwhile.
    pub(crate) fn renew(&self) {
        let stdin = io::stdin();
        if let Ok(mut raw) = tcgetattr(&stdin) {
            cfmakeraw(&mut raw);
            // a terminal that has gone is noticed by its reader
            let _gone = tcsetattr(&stdin, SetArg::TCSANOW, &raw);
        }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal its mode back, once. It does not wait for output: that may be held back by Ctrl-S.
fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        let _gone = tcsetattr(io::stdin(), SetArg::TCSANOW, &before);
    }
}

/// The size of the terminal on standard output, input or error, whichever is one.
pub(crate) fn size() -> Option<TerminalSize> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    size_of(&stdout)
        .or_else(|| size_of(&stdin))
        .or_else(|| size_of(&stderr))
}

fn size_of(terminal: &impl AsRawFd) -> Option<TerminalSize> {
    let mut size = MaybeUninit::<libc::winsize>::zeroed();
    // SAFETY: TIOCGWINSZ writes one `winsize` behind the pointer, which is as large; all-zero bytes are a valid one.
    #[expect(unsafe_code, reason = "the size of a terminal is only to be had by ioctl")]
    let size = unsafe {
        if libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, size.as_mut_ptr()) != 0 {
            return None;
        }
        size.assume_init()
    };
    (size.ws_col > 0 && size.ws_row > 0).then_some(TerminalSize {
        cols: size.ws_col.into(),
        rows: size.ws_row.into(),
    })
}

/// Waits until the descriptor may be used without waiting; what is wrong with it the use tells.
fn wait(fd: BorrowedFd<'_>, flags: PollFlags) {
    let _told_by_use = poll(&mut [PollFd::new(fd, flags)], PollTimeout::NONE);
}

#[cfg(test)]
mod tests;
