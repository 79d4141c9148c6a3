//! asciicast v2, read in pieces that are cut anywhere.

use std::{iter, time::Duration};

use moorline_protocol::transcript::{Header, MAX_LINE_BYTES};
use serde_json::Value;

use crate::error::CliError;

/// What a line says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Line {
    /// The terminal has this size from here on; the first line is one.
    Size { width: u64, height: u64 },
    Output {
        /// Since the begin.
        at: Duration,
        data: String,
    },
    /// Anything else, by its code. Who does not know the code skips it.
    Event { at: Duration, code: char, data: String },
}

/// Puts lines together.
#[derive(Debug, Default)]
pub(crate) struct Cast {
    partial: Vec<u8>,
    /// The line is too long, and its rest is skipped.
    is_overlong: bool,
    lines: u64,
    header: Option<Header>,
}

impl Cast {
    /// The lines that this piece completes.
    pub(crate) fn push(&mut self, mut piece: &[u8]) -> Vec<Result<Line, CliError>> {
        iter::from_fn(|| self.next(&mut piece)).collect()
    }

    /// Takes the next line from the front of a piece. `None`: nothing is left of the piece.
    pub(super) fn next(&mut self, piece: &mut &[u8]) -> Option<Result<Line, CliError>> {
        while !piece.is_empty() {
            let end = piece.iter().position(|byte| *byte == b'\n');
            let (part, rest) = piece.split_at(end.map_or(piece.len(), |end| end + 1));
            *piece = rest;
            if self.is_overlong {
                self.is_overlong = end.is_none();
                continue;
            }
            if self.partial.len() + part.len() > MAX_LINE_BYTES {
                self.partial.clear();
                self.is_overlong = end.is_none();
                self.lines += 1;
                return Some(Err(self.broken()));
            }
            self.partial.extend_from_slice(part);
            if end.is_none() {
                continue;
            }
            let line = std::mem::take(&mut self.partial);
            if !line.trim_ascii().is_empty() {
                self.lines += 1;
                return Some(match self.lines {
                    1 => self.first(&line),
                    _ => self.event(&line),
                });
            }
        }
        None
    }

    /// What follows is not what follows the last piece: it begins with a line.
    pub(crate) fn skip_partial(&mut self) {
        self.partial.clear();
        self.is_overlong = false;
    }

    /// The header, where it is one of ours. Recordings of other programs have none.
    pub(crate) fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// Whether nothing is known of a line behind the first.
    pub(super) fn is_at_first_line(&self) -> bool {
        self.lines <= 1
    }

    fn first(&mut self, line: &[u8]) -> Result<Line, CliError> {
        let value: Value = serde_json::from_slice(line).map_err(|_| self.broken())?;
        self.header = Header::parse(line).ok();
        let number = |name| value.get(name).and_then(Value::as_u64);
        match (number("version"), number("width"), number("height")) {
            (Some(2), Some(width), Some(height)) => Ok(Line::Size { width, height }),
            _ => Err(self.broken()),
        }
    }

    /// One line behind the first.
    pub(crate) fn event(&self, line: &[u8]) -> Result<Line, CliError> {
        let (at, code, data): (f64, char, String) =
            serde_json::from_slice(line).map_err(|_| self.broken())?;
        let at = Duration::try_from_secs_f64(at).map_err(|_| self.broken())?;
        match code {
            'o' => Ok(Line::Output { at, data }),
            'r' => {
                let size = data.split_once('x');
                let size = size.and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
                let (width, height) = size.ok_or_else(|| self.broken())?;
                Ok(Line::Size { width, height })
            }
            _ => Ok(Line::Event { at, code, data }),
        }
    }

    fn broken(&self) -> CliError {
        CliError::Transcript(format!(
            "line {} of the transcript is not asciicast v2",
            self.lines
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAST: &str = "{\"version\":2,\"width\":80,\"height\":24}\n[0.5,\"o\",\"h\u{e9}\\r\\n\"]\n\
                        [0.75,\"r\",\"100x50\"]\n[1.0,\"q\",\"x\"]\n";

    #[test]
    fn lines_are_found_however_the_pieces_are_cut() {
        for size in 1..CAST.len() {
            let mut cast = Cast::default();
            let lines: Vec<Line> = CAST
                .as_bytes()
                .chunks(size)
                .flat_map(|piece| cast.push(piece))
                .map(Result::unwrap)
                .collect();
            assert_eq!(lines.len(), 4, "by {size}");
            let size = |width, height| Line::Size { width, height };
            assert_eq!(lines[0], size(80, 24));
            let output = Line::Output {
                at: Duration::from_millis(500),
                data: "h\u{e9}\r\n".to_owned(),
            };
            assert_eq!(lines[1], output);
            assert_eq!(lines[2], size(100, 50));
            let unknown = Line::Event {
                at: Duration::from_secs(1),
                code: 'q',
                data: "x".to_owned(),
            };
            assert_eq!(lines[3], unknown);
        }
    }

    #[test]
    fn what_is_no_cast_is_an_error() {
        for bad in [
            "x\n",
            "{\"version\":1}\n",
            "[0,\"o\",\"x\"]\n",
            "{\"version\":2,\"width\":1,\"height\":1}\n[-1,\"o\",\"x\"]\n",
            "{\"version\":2,\"width\":1,\"height\":1}\n[1e300,\"o\",\"x\"]\n",
            "{\"version\":2,\"width\":1,\"height\":1}\n[1,\"o\"]\n",
        ] {
            let lines = Cast::default().push(bad.as_bytes());
            assert!(lines.into_iter().any(|line| line.is_err()), "{bad}");
        }
    }

    #[test]
    fn a_line_without_end_is_an_error_and_not_kept() {
        let mut cast = Cast::default();
        let piece = vec![b' '; 1024 * 1024];
        let broken = (0..10).any(|_| cast.push(&piece).iter().any(Result::is_err));
        assert!(broken && cast.partial.len() <= MAX_LINE_BYTES);
    }
}
