//! A transcript as it happened.

use std::time::Duration;

use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use super::{
    Source,
    cast::{Cast, Line},
};
use crate::{console, error::CliError, terminal};

/// Gives the terminal back what a recording may have left behind: colours, hidden cursor, the other screen, mouse.
pub(crate) const RESET: &str =
    "\x1b[0m\x1b[?25h\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\r\n";

/// Writes the recording to standard output, `speed` times as fast, with no pause longer than `idle_limit`. Ctrl-C
/// ends it.
pub(super) async fn play(
    source: &mut Source<'_>,
    speed: f64,
    idle_limit: Option<Duration>,
) -> Result<(), CliError> {
    let mut interrupts =
        signal(SignalKind::interrupt()).map_err(|source| CliError::io("watch for Ctrl-C", source))?;
    let played = tokio::select! {
        played = run(source, speed, idle_limit) => played,
        _ = interrupts.recv() => Ok(()),
    };
    if terminal::size().is_some() {
        console::print_bytes(RESET.as_bytes())?;
    }
    played
}

async fn run(source: &mut Source<'_>, speed: f64, idle_limit: Option<Duration>) -> Result<(), CliError> {
    let mut cast = Cast::default();
    let mut last = Duration::ZERO;
    while let Some(piece) = source.piece().await? {
        for line in cast.push(&piece) {
            match line? {
                Line::Size { width, height } => {
                    if let Some(size) = terminal::size()
                        && (u64::from(size.cols) < width || u64::from(size.rows) < height)
                    {
                        console::note(&format!(
                            "recorded on a terminal of {width}x{height}, larger than this one"
                        ));
                    }
                }
                Line::Output { at, data } => {
                    let pause = pause(at.saturating_sub(last), speed, idle_limit);
                    if !pause.is_zero() {
                        sleep(pause).await;
                    }
                    last = last.max(at);
                    console::print_bytes(data.as_bytes())?;
                }
                Line::Other => {}
            }
        }
    }
    Ok(())
}

fn pause(real: Duration, speed: f64, idle_limit: Option<Duration>) -> Duration {
    let limited = idle_limit.map_or(real, |limit| real.min(limit));
    Duration::try_from_secs_f64(limited.as_secs_f64() / speed).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_limited_and_then_divided() {
        let second = Duration::from_secs(1);
        assert_eq!(pause(second, 1.0, None), second);
        assert_eq!(pause(10 * second, 2.0, Some(2 * second)), second);
        assert_eq!(pause(Duration::MAX, 0.01, None), Duration::ZERO);
    }
}
