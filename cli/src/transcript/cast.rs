//! asciicast v2, read in pieces that are cut anywhere.

use std::time::Duration;

use serde_json::Value;

use crate::error::CliError;

/// One line holds one write of a session; a longer one is no transcript of ours.
const MAX_LINE_BYTES: usize = 8 * 1024 * 1024;

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
    /// Input and markers: not shown.
    Other,
}

/// Puts lines together.
#[derive(Debug, Default)]
pub(crate) struct Cast {
    partial: String,
    lines: u64,
}

impl Cast {
    /// The lines that this piece completes.
    pub(crate) fn push(&mut self, piece: &str) -> Vec<Result<Line, CliError>> {
        let mut lines = Vec::new();
        let mut rest = piece;
        while let Some((head, after)) = rest.split_once('\n') {
            self.partial.push_str(head);
            rest = after;
            let line = std::mem::take(&mut self.partial);
            if !line.trim().is_empty() {
                self.lines += 1;
                lines.push(self.parse(&line));
            }
        }
        self.partial.push_str(rest);
        if self.partial.len() > MAX_LINE_BYTES {
            self.partial.clear();
            lines.push(Err(self.broken()));
        }
        lines
    }

    /// What follows is not what follows the last piece: it begins with a line.
    pub(crate) fn skip_partial(&mut self) {
        self.partial.clear();
    }

    fn parse(&self, line: &str) -> Result<Line, CliError> {
        let value: Value = serde_json::from_str(line).map_err(|_| self.broken())?;
        if self.lines == 1 {
            let number = |name| value.get(name).and_then(Value::as_u64);
            return match (number("version"), number("width"), number("height")) {
                (Some(2), Some(width), Some(height)) => Ok(Line::Size { width, height }),
                _ => Err(self.broken()),
            };
        }
        let member = |index: usize| value.get(index).ok_or_else(|| self.broken());
        let at = member(0)?.as_f64().unwrap_or(-1.0);
        let at = Duration::try_from_secs_f64(at).map_err(|_| self.broken())?;
        let kind = member(1)?.as_str().ok_or_else(|| self.broken())?;
        let data = member(2)?.as_str().ok_or_else(|| self.broken())?;
        match kind {
            "o" => Ok(Line::Output {
                at,
                data: data.to_owned(),
            }),
            "r" => {
                let size = data.split_once('x');
                let size = size.and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
                let (width, height) = size.ok_or_else(|| self.broken())?;
                Ok(Line::Size { width, height })
            }
            _ => Ok(Line::Other),
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
                        [0.75,\"r\",\"100x50\"]\n[1.0,\"o\",\"x\"]\n";

    #[test]
    fn lines_are_found_however_the_pieces_are_cut() {
        for size in 1..CAST.chars().count() {
            let chars: Vec<char> = CAST.chars().collect();
            let mut cast = Cast::default();
            let lines: Vec<Line> = chars
                .chunks(size)
                .flat_map(|piece| cast.push(&piece.iter().collect::<String>()))
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
            let lines = Cast::default().push(bad);
            assert!(lines.into_iter().any(|line| line.is_err()), "{bad}");
        }
    }
}
