//! A transcript as it happened.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_protocol::transcript::TerminalFilter;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::sleep,
};

use super::{cast::Line, reader::Reader};
use crate::{
    console,
    error::CliError,
    terminal::{self, RawMode, input},
};

/// Gives the terminal back what a recording may have left behind: a held picture, the other screen, margins, colours,
/// inserted or unwrapped text, another cursor, letters that are lines, mouse.
pub(crate) const RESET: &str = concat!(
    "\x1b[?2026l\x1b[?1049l\x1b7\x1b[r\x1b8\x1b[!p\x1b[0m\x1b[4l\x1b[?5l\x1b[?7h\x1b[?25h\x1b[0 q\x0f\x1b(B",
    "\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\r\n"
);
/// Before it is shown again from its begin: as [`RESET`], and an empty screen.
const CLEAR: &str = "\x1b[2J\x1b[H";
/// How far an arrow jumps.
const JUMP: Duration = Duration::from_secs(5);

/// How it is played.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Times the real speed.
    pub(super) speed: f64,
    /// No pause is longer.
    pub(super) idle_limit: Option<Duration>,
    /// What was before is shown at once.
    pub(super) start_at: Duration,
}

/// What of the output reaches the terminal of whoever looks at it.
#[derive(Debug)]
pub(crate) enum Shown {
    /// What changes only what is seen.
    Harmless(TerminalFilter),
    Everything,
}

impl Shown {
    /// Everything, if it is asked for.
    pub(crate) fn new(is_raw: bool) -> Self {
        match is_raw {
            true => Self::Everything,
            false => Self::Harmless(TerminalFilter::default()),
        }
    }

    pub(crate) fn of<'a>(&mut self, output: &'a str) -> Cow<'a, str> {
        match self {
            Self::Harmless(filter) => Cow::Owned(filter.filter(output)),
            Self::Everything => Cow::Borrowed(output),
        }
    }

    /// The output is shown from its begin once more.
    fn begin_again(&mut self) {
        if let Self::Harmless(filter) = self {
            *filter = TerminalFilter::default();
        }
    }
}

/// Writes the recording to standard output. On a terminal, blank pauses, the arrows jump, q or Ctrl-C ends it.
pub(super) async fn play(mut reader: Reader<'_>, pace: Pace, mut shown: Shown) -> Result<(), CliError> {
    let use_terminal = |source| CliError::io("use the terminal", source);
    let mut interrupts =
        signal(SignalKind::interrupt()).map_err(|source| CliError::io("watch for Ctrl-C", source))?;
    let raw = RawMode::enter().map_err(use_terminal)?;
    let mut keys = match raw {
        Some(_) => input::start().map_err(use_terminal)?,
        None => mpsc::channel(1).1,
    };
    let played = tokio::select! {
        played = run(&mut reader, pace, &mut shown, &mut keys) => played,
        _ = interrupts.recv() => Ok(()),
    };
    if terminal::size().is_some() {
        console::print_bytes(RESET.as_bytes())?;
    }
    drop(raw);
    played
}

async fn run(
    reader: &mut Reader<'_>,
    pace: Pace,
    shown: &mut Shown,
    keys: &mut mpsc::Receiver<Bytes>,
) -> Result<(), CliError> {
    let mut player = Player::new(pace);
    let mut broken = None;
    while let Some(line) = reader.line().await? {
        match line {
            Ok(Line::Size { width, height }) => tell_size(width, height),
            Ok(Line::Output { at, data }) => match player.wait(at, keys).await {
                Turn::Show => console::print_bytes(shown.of(&data).as_bytes())?,
                Turn::Again => {
                    console::print_bytes(RESET.as_bytes())?;
                    console::print_bytes(CLEAR.as_bytes())?;
                    reader.rewind()?;
                    shown.begin_again();
                }
                Turn::Quit => return Ok(()),
            },
            Ok(Line::Event { .. }) => {}
            Err(error) => {
                console::note(&format!("{error}\r"));
                broken.get_or_insert(error);
            }
        }
    }
    if let Some(ending) = reader.ending() {
        console::note(&format!("{ending}\r"));
    }
    broken.map_or(Ok(()), Err)
}

fn tell_size(width: u64, height: u64) {
    if let Some(size) = terminal::size()
        && (u64::from(size.cols) < width || u64::from(size.rows) < height)
    {
        console::note(&format!(
            "recorded on a terminal of {width}x{height}, larger than this one\r"
        ));
    }
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The line is due.
    Show,
    /// It is shown from its begin again, up to the position at once.
    Again,
    Quit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Pause,
    Forward,
    Back,
    Quit,
}

impl Key {
    /// Those that were typed, as far as they mean something here.
    fn typed(mut bytes: &[u8]) -> Vec<Self> {
        let mut keys = Vec::new();
        while let Some((&first, rest)) = bytes.split_first() {
            let (key, rest) = match (first, rest) {
                (0x1b, [b'[' | b'O', b'C', rest @ ..]) => (Some(Self::Forward), rest),
                (0x1b, [b'[' | b'O', b'D', rest @ ..]) => (Some(Self::Back), rest),
                (b' ', rest) => (Some(Self::Pause), rest),
                (b'q' | 0x03, rest) => (Some(Self::Quit), rest),
                (_, rest) => (None, rest),
            };
            keys.extend(key);
            bytes = rest;
        }
        keys
    }
}

/// Where in the recording we are.
#[derive(Debug)]
struct Player {
    pace: Pace,
    position: Duration,
    is_paused: bool,
}

impl Player {
    fn new(pace: Pace) -> Self {
        Self {
            pace,
            position: pace.start_at,
            is_paused: false,
        }
    }

    /// Waits until a line of this time is due.
    async fn wait(&mut self, at: Duration, keys: &mut mpsc::Receiver<Bytes>) -> Turn {
        loop {
            let pause = self.pause(at);
            if pause.is_zero() && !self.is_paused {
                self.position = self.position.max(at);
                // what is shown at once can still be ended
                let typed = keys.try_recv().unwrap_or_default();
                return match Key::typed(&typed).contains(&Key::Quit) {
                    true => Turn::Quit,
                    false => Turn::Show,
                };
            }
            let began = Instant::now();
            tokio::select! {
                () = sleep(pause), if !self.is_paused => self.position = at,
                Some(typed) = keys.recv() => {
                    if !self.is_paused {
                        self.pass(began.elapsed(), at);
                    }
                    for key in Key::typed(&typed) {
                        if let Some(turn) = self.key(key) {
                            return turn;
                        }
                    }
                }
                else => return Turn::Quit,
            }
        }
    }

    /// How long it takes until then.
    fn pause(&self, at: Duration) -> Duration {
        let real = at.saturating_sub(self.position);
        let limited = self.pace.idle_limit.map_or(real, |limit| real.min(limit));
        Duration::try_from_secs_f64(limited.as_secs_f64() / self.pace.speed).unwrap_or(Duration::ZERO)
    }

    /// Part of the pause until `at` has passed.
    fn pass(&mut self, elapsed: Duration, at: Duration) {
        let pause = self.pause(at);
        if !pause.is_zero() {
            let part = (elapsed.as_secs_f64() / pause.as_secs_f64()).min(1.0);
            self.position += at.saturating_sub(self.position).mul_f64(part);
        }
    }

    fn key(&mut self, key: Key) -> Option<Turn> {
        match key {
            Key::Pause => {
                self.is_paused = !self.is_paused;
                None
            }
            Key::Forward => {
                self.position = self.position.saturating_add(JUMP);
                None
            }
            Key::Back => {
                self.position = self.position.saturating_sub(JUMP);
                Some(Turn::Again)
            }
            Key::Quit => Some(Turn::Quit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn player(speed: f64, idle_limit: Option<Duration>) -> Player {
        Player::new(Pace {
            speed,
            idle_limit,
            start_at: 10 * SECOND,
        })
    }

    #[test]
    fn what_a_recording_may_leave_behind_on_a_terminal_is_undone() {
        for (left_behind, undone_by) in [
            ("\x1b[7m", "\x1b[0m"),
            ("\x1b[?25l", "\x1b[?25h"),
            ("\x1b[?1049h", "\x1b[?1049l"),
            ("\x1b[?2026h", "\x1b[?2026l"),
            ("\x1b[?5h", "\x1b[?5l"),
            ("\x1b[?6h", "\x1b[!p"),
            ("\x1b[?7l", "\x1b[?7h"),
            ("\x1b[4h", "\x1b[4l"),
            ("\x1b[2;5r", "\x1b[r"),
            ("\x1b[5 q", "\x1b[0 q"),
            ("\x1b(0", "\x1b(B"),
            ("\x0e", "\x0f"),
        ] {
            assert_eq!(Shown::new(false).of(left_behind), left_behind);
            assert!(RESET.contains(undone_by), "{left_behind:?}");
        }
    }

    #[test]
    fn pauses_are_limited_and_then_divided_and_what_is_before_the_start_has_none() {
        assert_eq!(player(1.0, None).pause(11 * SECOND), SECOND);
        assert_eq!(player(2.0, Some(2 * SECOND)).pause(20 * SECOND), SECOND);
        assert_eq!(player(0.01, None).pause(Duration::MAX), Duration::ZERO);
        assert_eq!(player(1.0, None).pause(9 * SECOND), Duration::ZERO);
    }

    #[test]
    fn keys_pause_jump_and_quit() {
        let typed = Key::typed(b" \x1b[C\x1bOD\x1bx\x03q");
        assert_eq!(typed, [Key::Pause, Key::Forward, Key::Back, Key::Quit, Key::Quit]);
        let mut player = player(1.0, None);
        assert_eq!(player.key(Key::Pause), None);
        assert!(player.is_paused);
        assert_eq!(player.key(Key::Forward), None);
        assert_eq!(player.position, 15 * SECOND);
        assert_eq!(player.key(Key::Back), Some(Turn::Again));
        assert_eq!(player.position, 10 * SECOND);
        for _ in 0..5 {
            player.key(Key::Back);
        }
        assert_eq!(player.position, Duration::ZERO);
        assert_eq!(player.key(Key::Quit), Some(Turn::Quit));
    }

    #[test]
    fn a_pause_that_was_interrupted_goes_on_where_it_was() {
        let mut player = player(2.0, Some(4 * SECOND));
        player.pass(SECOND, 30 * SECOND);
        assert_eq!(player.position, 20 * SECOND);
        player.pass(9 * SECOND, 30 * SECOND);
        assert_eq!(player.position, 30 * SECOND);
    }
}
