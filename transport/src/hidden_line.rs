//! A line that is typed at the terminal of standard input, and is not shown there.

use std::{
    io::{self, Stdin},
    os::fd::{AsFd, BorrowedFd},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal, raise},
        signalfd::{SfdFlags, SignalFd},
        termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr},
    },
    unistd::read,
};

/// What a terminal takes as a line.
const MAX_LINE_BYTES: usize = 4096;
/// What ends or stops a program at a terminal, and would leave that without its echo.
const ENDINGS: [Signal; 5] = [
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGTSTP,
];

/// Prompts for a line and reads it. A signal that ends or stops this program does so, with the terminal as it was; when
/// it goes on, it prompts again.
///
/// # Errors
/// The terminal does not hide what is typed, or is gone; the line is no text, or longer than a terminal gives at once.
pub fn read_hidden_line(prompt: impl Fn()) -> io::Result<String> {
    let stdin = io::stdin();
    loop {
        let held = HeldSignals::hold()?;
        let hidden = Hidden::begin(&stdin)?;
        prompt();
        let event = wait(stdin.as_fd(), &held)?;
        drop(hidden);
        drop(held);
        match event {
            Event::Line(line) => return String::from_utf8(line).map_err(io::Error::other),
            Event::Signal(signal) => raise(signal)?,
        }
    }
}

enum Event {
    Line(Vec<u8>),
    Signal(Signal),
}

fn wait(stdin: BorrowedFd<'_>, held: &HeldSignals) -> io::Result<Event> {
    loop {
        let mut ready = [stdin, held.0.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut ready, PollTimeout::NONE) {
            // stopped by another, and continued
            Err(Errno::EINTR) => continue,
            polled => polled?,
        };
        if let Some(got) = held.0.read_signal()? {
            let number = i32::try_from(got.ssi_signo).map_err(io::Error::other)?;
            return Ok(Event::Signal(Signal::try_from(number)?));
        }
        // a terminal hands out whole lines
        let mut line = vec![0; MAX_LINE_BYTES];
        let length = read(stdin, &mut line)?;
        line.truncate(length);
        return Ok(Event::Line(line));
    }
}

/// The terminal shows nothing but the end of the line; dropped, it is what it was.
struct Hidden<'a> {
    terminal: &'a Stdin,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn begin(terminal: &'a Stdin) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut hidden = before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        hidden.local_flags.insert(LocalFlags::ECHONL);
        // it does not wait for output, which may be held back by Ctrl-S, and leaves what was typed ahead
        tcsetattr(terminal, SetArg::TCSANOW, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        let _gone = tcsetattr(self.terminal, SetArg::TCSANOW, &self.before);
    }
}

/// The [`ENDINGS`] are read and do nothing; dropped, they do what they did.
struct HeldSignals(SignalFd);

impl HeldSignals {
    fn hold() -> nix::Result<Self> {
        let signals = SigSet::from_iter(ENDINGS);
        signals.thread_block()?;
        SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map(Self)
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        // it cannot fail with signals that there are
        let _held = SigSet::from_iter(ENDINGS).thread_unblock();
    }
}
