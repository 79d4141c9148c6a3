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
        termios::{
            FlushArg, LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcflush, tcgetattr, tcsetattr,
        },
    },
    unistd::read,
};

/// What a terminal takes as a line, with its end. It drops what comes behind that, up to the end.
const MAX_LINE_BYTES: usize = 4096;
/// Milliseconds in which more of what was pasted has come, and a person has typed nothing.
const PASTE_PAUSE: u8 = 50;
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
/// The terminal does not hide what is typed, or is gone; the line is no text, or longer than a terminal gives; more
/// came with it, which no shell gets then. The last two name the option that takes a file.
pub fn read_hidden_line(prompt: impl Fn(), file_option: &str) -> io::Result<String> {
    let stdin = io::stdin();
    loop {
        let held = HeldSignals::hold()?;
        let hidden = Hidden::begin(&stdin)?;
        prompt();
        let event = wait(stdin.as_fd(), &held)?;
        let has_more = matches!(event, Event::Line(_)) && hidden.discard_more(&held)?;
        drop(hidden);
        drop(held);
        let refused = |why: &str| {
            let why = format!("{why}: give it in a file, with {file_option}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, why))
        };
        match event {
            Event::Line(_) if has_more => return refused("it is more than one line"),
            // with or without an end it may have lost some
            Event::Line(line) if line.len() >= MAX_LINE_BYTES - usize::from(!line.ends_with(b"\n")) => {
                return refused("it is longer than a terminal gives");
            }
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

    /// Discards what came with the line that was read. Returns whether there was anything.
    fn discard_more(&self, held: &HeldSignals) -> io::Result<bool> {
        // while it hands out lines, one without its end is not to be seen
        let mut at_once = tcgetattr(self.terminal)?;
        at_once.local_flags.remove(LocalFlags::ICANON);
        at_once.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        at_once.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        tcsetattr(self.terminal, SetArg::TCSANOW, &at_once)?;
        let mut has_more = false;
        loop {
            let fds = [self.terminal.as_fd(), held.0.as_fd()];
            let mut ready = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut ready, PollTimeout::from(PASTE_PAUSE)) {
                Err(Errno::EINTR) => continue,
                polled => polled?,
            };
            let [is_typed, is_ended] = ready.map(|fd| fd.any().unwrap_or_default());
            if is_ended || !is_typed {
                return Ok(has_more);
            }
            tcflush(self.terminal, FlushArg::TCIFLUSH)?;
            has_more = true;
        }
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
