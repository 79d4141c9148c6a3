//! Joins a shell session with the terminal: keys and pipes in, output out, signals, size, and how it ends.

use std::{io, time::Duration};

use bytes::Bytes;
use moorline_protocol::message::{PayloadType, TerminalSize};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    EXIT_NO_SESSION,
    error::CliError,
    session_client::{SessionClient, SessionError, SessionEvent},
    terminal::{
        self, RawMode,
        escape::{Escape, EscapeFilter, HELP},
        input,
        output::{OutputWriter, Stream},
        signals::{Signal, Signals},
    },
};

/// The end of input, typed.
const END_OF_INPUT: u8 = 0x04;
/// How long a session that we terminated may take to say goodbye.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);
/// How long a terminal may take the rest of the output of a session that its user has left.
const REST_LIMIT: Duration = Duration::from_millis(500);
/// Who leaves is gone after this time, whatever hangs: the endpoint, the terminal.
const LEAVE_LIMIT: Duration = Duration::from_secs(3);
/// How long what was typed may be on its way when the user leaves a session that goes on.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);
/// The end of input is typed again whenever the session was silent for this long. A terminal that just changes
/// between line mode and raw mode, as between two prompts of a shell, swallows it.
const FIRST_END_OF_INPUT_INTERVAL: Duration = Duration::from_millis(250);
/// While the session stays silent the interval doubles up to this: a long command is not flooded.
const LONGEST_END_OF_INPUT_INTERVAL: Duration = Duration::from_secs(2);

/// What a front end wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Where there is no terminal.
    pub(crate) default_size: TerminalSize,
    /// Where StdErr payloads go.
    pub(crate) stderr: Stream,
    /// Whether an exit code that comes as a payload is shown.
    pub(crate) shows_exit_code: bool,
    /// Whether standard input is for the session. Where it is not, it is left to others, such as the loop of a script
    /// around us.
    pub(crate) reads_input: bool,
}

/// How a session ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// By itself, or as the endpoint decided; the reason is empty when there is nothing to say.
    Closed {
        reason: String,
        exit_code: Option<i32>,
    },
    /// While the connection was lost.
    Expired,
    /// The user has left; the session goes on.
    Detached,
    /// The user has left; the session is to be terminated.
    Left,
    /// A signal ended us; the session is to be terminated.
    Signalled(u8),
    /// The reader of our output has gone; the session is to be terminated.
    OutputClosed,
    /// The node wants a session of a type that is not for terminals.
    WrongType(String),
    Failed(SessionError),
}

/// The type of session whose program has no terminal, and nothing to read.
const WITHOUT_TERMINAL: &str = "NonInteractiveCommands";
/// Exit code that the node sent as a payload, for sessions that have no terminal.
const EXIT_CODE_PREFIX: &str = "EXIT_CODE: ";

struct Attached<'a> {
    client: &'a mut SessionClient,
    writer: OutputWriter,
    raw: Option<RawMode>,
    escapes: EscapeFilter,
    options: Options,
    /// What the node was last told.
    size: TerminalSize,
    exit_code: Option<i32>,
    /// The node runs a program that has nothing to read: only signals are for it.
    takes_signals_only: bool,
    /// Standard input is read.
    has_input: bool,
    /// The input has ended; when its end is typed next.
    end_of_input: Option<Instant>,
    end_of_input_interval: Duration,
    /// Whether what was last sent ended a line.
    is_line_start: bool,
}

/// Runs the session on the terminal until it ends or the user leaves. The terminal is what it was when this returns.
///
/// # Errors
/// The terminal cannot be used.
pub(crate) async fn attach(client: &mut SessionClient, options: Options) -> Result<Ending, CliError> {
    let use_terminal = |source| CliError::io("use the terminal", source);
    let mut signals = Signals::listen().map_err(use_terminal)?;
    let writer = OutputWriter::start().map_err(use_terminal)?;
    let (mut keys, raw) = if options.reads_input {
        (
            input::start().map_err(use_terminal)?,
            RawMode::enter().map_err(use_terminal)?,
        )
    } else {
        (mpsc::channel(1).1, None)
    };
    let size = terminal::size().unwrap_or(options.default_size);
    client.resize(size);
    let mut attached = Attached {
        client,
        writer,
        raw,
        escapes: EscapeFilter::new(),
        options,
        size,
        exit_code: None,
        takes_signals_only: false,
        has_input: options.reads_input,
        end_of_input: None,
        end_of_input_interval: FIRST_END_OF_INPUT_INTERVAL,
        is_line_start: true,
    };
    let ending = attached.run(&mut keys, &mut signals).await;
    let Attached { writer, raw, .. } = attached;
    let has_left = matches!(ending, Ending::Left);
    if has_left {
        leave_by_force();
    }
    // all output before the end, unless we are to end at once
    tokio::select! {
        result = writer.finish() => if let Err(source) = result
            && source.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(CliError::Output(source));
        },
        () = leave_signal(&mut signals) => {}
        () = sleep(REST_LIMIT), if has_left => {}
    }
    drop(raw);
    if matches!(ending, Ending::Detached) {
        client.flush(FLUSH_LIMIT).await;
    }
    Ok(ending)
}

/// A terminal that takes nothing may hold any write to it, so nothing that could wait is relied on.
#[expect(
    clippy::disallowed_methods,
    clippy::exit,
    reason = "a thread of its own, for when the others hang"
)]
fn leave_by_force() {
    let watch = || {
        std::thread::sleep(LEAVE_LIMIT);
        std::process::exit(EXIT_NO_SESSION.into());
    };
    // without a thread it takes as long as it takes
    let _unwatched = std::thread::Builder::new().spawn(watch);
}

async fn leave_signal(signals: &mut Signals) {
    loop {
        match signals.next().await {
            Signal::Terminate(_) | Signal::Forward(0x03) => return,
            _ => {}
        }
    }
}

impl Attached<'_> {
    async fn run(&mut self, keys: &mut mpsc::Receiver<Bytes>, signals: &mut Signals) -> Ending {
        loop {
            let has_room = self.writer.has_room();
            let takes_input = self.has_input && self.client.takes_input() && self.end_of_input.is_none();
            let again = self.end_of_input.unwrap_or_else(Instant::now);
            let ending = tokio::select! {
                event = self.client.next(has_room) => self.on_event(event),
                typed = keys.recv(), if takes_input => self.on_input(typed),
                signal = signals.next() => self.on_signal(signal),
                () = self.writer.room(), if !has_room => None,
                () = self.writer.gone() => Some(Ending::OutputClosed),
                () = sleep_until(again), if self.end_of_input.is_some() => {
                    self.type_end_of_input();
                    None
                }
            };
            if let Some(ending) = ending {
                return ending;
            }
        }
    }

    fn on_event(&mut self, event: SessionEvent) -> Option<Ending> {
        match event {
            SessionEvent::Data {
                payload_type,
                payload,
            } => {
                if self.end_of_input.is_some() {
                    self.end_of_input_interval = FIRST_END_OF_INPUT_INTERVAL;
                    self.end_of_input = Some(Instant::now() + FIRST_END_OF_INPUT_INTERVAL);
                }
                return self.on_data(payload_type, payload);
            }
            SessionEvent::Type(session_type) if session_type == "Port" => {
                return Some(Ending::WrongType(session_type));
            }
            SessionEvent::Type(session_type) if session_type == WITHOUT_TERMINAL => {
                // its lines end as those of a pipe, and Ctrl-C is a signal to us
                self.raw = None;
                self.takes_signals_only = true;
                self.end_of_input = None;
            }
            SessionEvent::Message(text) => {
                // what the program writes to its output is all that a pipe of ours is to get
                let text = format!("{text}{}", self.line_end());
                self.writer.push(self.options.stderr, Bytes::from(text));
            }
            SessionEvent::Type(_) | SessionEvent::InputTaken => {}
            SessionEvent::Lost(reason) => {
                self.tell(&format!("connection lost ({reason}); restoring it"));
            }
            SessionEvent::Restored => self.tell("connection restored"),
            SessionEvent::Closed { reason, exit_code } => {
                return Some(Ending::Closed {
                    reason,
                    exit_code: exit_code.or(self.exit_code),
                });
            }
            SessionEvent::Expired => return Some(Ending::Expired),
            SessionEvent::Failed(error) => return Some(Ending::Failed(error)),
        }
        None
    }

    fn on_data(&mut self, payload_type: PayloadType, payload: Bytes) -> Option<Ending> {
        let stream = match payload_type {
            PayloadType::Output => Stream::Out,
            PayloadType::StdErr => self.options.stderr,
            PayloadType::ExitCode => {
                self.exit_code = exit_code(&payload);
                if !self.options.shows_exit_code {
                    return None;
                }
                Stream::Out
            }
            _ => return None,
        };
        (!self.writer.push(stream, payload)).then_some(Ending::OutputClosed)
    }

    fn on_input(&mut self, typed: Option<Bytes>) -> Option<Ending> {
        if self.takes_signals_only {
            return self.on_idle_input(typed);
        }
        let Some(typed) = typed else {
            if self.raw.is_some() {
                // the terminal has gone
                return Some(Ending::Signalled(1));
            }
            // a last line without its end would keep the shell waiting
            if !self.is_line_start {
                self.client.write(PayloadType::Output, Bytes::from_static(b"\n"));
            }
            self.type_end_of_input();
            return None;
        };
        if self.raw.is_none() {
            self.is_line_start = matches!(typed.last(), Some(b'\n' | b'\r'));
            self.client.write(PayloadType::Output, typed);
            return None;
        }
        // the signal of a new size may come after what was typed at that size
        self.send_size();
        let mut keys = Vec::with_capacity(typed.len());
        let ending = self.filter(&typed, &mut keys);
        if ending.is_none() {
            self.client.write(PayloadType::Output, keys.into());
        }
        ending
    }

    /// Input that nothing on the node reads: only the escapes mean something.
    fn on_idle_input(&mut self, typed: Option<Bytes>) -> Option<Ending> {
        match typed {
            Some(typed) => self.filter(&typed, &mut Vec::new()),
            None => {
                self.has_input = false;
                None
            }
        }
    }

    /// Does what the escapes in `typed` want; the rest goes to `keys`.
    fn filter(&mut self, typed: &[u8], keys: &mut Vec<u8>) -> Option<Ending> {
        let mut rest = typed;
        while let Some((escape, after)) = self.escapes.filter(rest, keys) {
            match escape {
                Escape::Terminate => return Some(Ending::Left),
                Escape::Detach => {
                    // what was typed before it is for the session
                    self.client
                        .write(PayloadType::Output, std::mem::take(keys).into());
                    return Some(Ending::Detached);
                }
                Escape::Help => {
                    self.writer.push(Stream::Err, Bytes::from_static(HELP.as_bytes()));
                }
            }
            rest = after;
        }
        None
    }

    fn type_end_of_input(&mut self) {
        // one that waits is enough
        if self.client.takes_input() || self.end_of_input.is_none() {
            self.client
                .write(PayloadType::Output, Bytes::from_static(&[END_OF_INPUT]));
        }
        let interval = self.end_of_input_interval;
        self.end_of_input = Some(Instant::now() + interval);
        self.end_of_input_interval = (interval * 2).min(LONGEST_END_OF_INPUT_INTERVAL);
    }

    fn on_signal(&mut self, signal: Signal) -> Option<Ending> {
        match signal {
            Signal::Forward(byte) => self.client.write(PayloadType::Output, vec![byte].into()),
            Signal::Resized => self.send_size(),
            Signal::Continued => {
                if let Some(raw) = &self.raw {
                    raw.renew();
                }
                self.send_size();
            }
            Signal::Terminate(number) => return Some(Ending::Signalled(number)),
        }
        None
    }

    fn send_size(&mut self) {
        if let Some(size) = terminal::size().filter(|size| *size != self.size) {
            self.size = size;
            self.client.resize(size);
        }
    }

    /// Tells the user something between the lines of the session.
    fn tell(&self, text: &str) {
        let end = self.line_end();
        let text = text.replace(|c: char| c.is_control(), " ");
        self.writer
            .push(Stream::Err, Bytes::from(format!("{end}moorline: {text}{end}")));
    }

    fn line_end(&self) -> &'static str {
        if self.raw.is_some() { "\r\n" } else { "\n" }
    }
}

/// Waits for the goodbye of a session that was terminated, for a while.
pub(crate) async fn goodbye(client: &mut SessionClient) -> Option<i32> {
    let limit = Instant::now() + GOODBYE_LIMIT;
    loop {
        tokio::select! {
            event = client.next(true) => match event {
                SessionEvent::Closed { exit_code, .. } => return exit_code,
                SessionEvent::Expired | SessionEvent::Failed(_) | SessionEvent::Lost(_) => return None,
                _ => {}
            },
            () = sleep_until(limit) => return None,
        }
    }
}

fn exit_code(payload: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(payload).ok()?;
    text.trim()
        .strip_prefix(EXIT_CODE_PREFIX.trim_end())?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_of_a_single_command_is_read() {
        assert_eq!(exit_code(b"EXIT_CODE: 7"), Some(7));
        assert_eq!(exit_code(b"EXIT_CODE: -1\n"), Some(-1));
        assert_eq!(exit_code(b"7"), None);
        assert_eq!(exit_code(b"EXIT_CODE: \xff"), None);
    }
}
