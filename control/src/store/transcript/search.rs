//! Text in recordings: what was shown, typed and noted, with terminal control sequences left out. Letters of ASCII are
//! found in either case. An encrypted recording has no text for us.

use moorline_protocol::{
    transcript::{Code, Line, MAX_LINE_BYTES},
    types::TranscriptId,
};

use super::TranscriptFiles;
use crate::store::StoreError;

/// What is read at once.
const PIECE_BYTES: u64 = 4 * 1024 * 1024;

impl TranscriptFiles {
    /// Whether the text stands in the recording, as far as it is there. Reads the whole of it, one search at a time.
    pub(crate) async fn contains(&self, recording: &TranscriptId, text: &str) -> Result<bool, StoreError> {
        // the semaphore is never closed
        let _turn = self.searches.acquire().await;
        let length = self.length(recording).await?.unwrap_or(0);
        let mut search = Search::new(text);
        let mut offset = 0;
        while offset < length && !search.is_found() {
            let piece = self
                .read(recording, offset, PIECE_BYTES.min(length - offset))
                .await?;
            if piece.is_empty() {
                break;
            }
            offset += piece.len() as u64;
            search = super::blocking(move || {
                search.push(&piece);
                Ok(search)
            })
            .await?;
        }
        Ok(search.is_found())
    }
}

/// Looks for a text in bytes of a recording, however they are cut.
#[derive(Debug)]
struct Search {
    text: String,
    /// The begin of a line.
    line: Vec<u8>,
    shown: Shown,
    /// The end of what was shown, which a text that goes on may begin with.
    tail: String,
    is_found: bool,
}

impl Search {
    fn new(text: &str) -> Self {
        Self {
            text: text.to_ascii_lowercase(),
            line: Vec::new(),
            shown: Shown::default(),
            tail: String::new(),
            is_found: false,
        }
    }

    fn is_found(&self) -> bool {
        self.is_found
    }

    fn push(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + part.len() > MAX_LINE_BYTES {
                // no line of a recording
                self.line.clear();
                continue;
            }
            if !part.ends_with(b"\n") {
                self.line.extend_from_slice(part);
            } else if self.line.is_empty() {
                self.look(part);
            } else {
                self.line.extend_from_slice(part);
                let line = std::mem::take(&mut self.line);
                self.look(&line);
            }
            if self.is_found {
                return;
            }
        }
    }

    fn look(&mut self, line: &[u8]) {
        let Ok(Line::Event(event)) = Line::parse(line) else {
            return;
        };
        match event.code {
            Some(Code::Output) => {
                self.shown.push(&event.text(), &mut self.tail);
                self.is_found = self.tail.contains(&self.text);
                // what a match that is not whole yet may have, and no more
                let keep = self.text.len().saturating_sub(1);
                let cut = self
                    .tail
                    .floor_char_boundary(self.tail.len().saturating_sub(keep));
                self.tail.drain(..cut);
            }
            Some(Code::Input | Code::Marker | Code::Ours) => {
                self.is_found = event.text().to_ascii_lowercase().contains(&self.text);
            }
            _ => {}
        }
    }
}

/// Takes control sequences out of what a terminal was sent (ECMA-48 §5.4, §5.6).
#[derive(Debug, Default, Clone, Copy)]
enum Shown {
    #[default]
    Text,
    /// Behind ESC.
    Escape,
    /// Behind `ESC [`.
    Sequence,
    /// Behind `ESC ]` and its like, until BEL or ST.
    Command,
}

impl Shown {
    /// Adds the text to `out`, in lower case.
    fn push(&mut self, text: &str, out: &mut String) {
        for character in text.chars() {
            *self = match (*self, character) {
                (_, '\u{1b}') => Self::Escape,
                (Self::Text, character) => {
                    if !character.is_control() || matches!(character, '\n' | '\t') {
                        out.push(character.to_ascii_lowercase());
                    }
                    Self::Text
                }
                (Self::Escape, '[') => Self::Sequence,
                (Self::Escape, ']' | 'P' | 'X' | '^' | '_') => Self::Command,
                (Self::Escape, ' '..='/') => Self::Escape,
                (Self::Escape, _) | (Self::Sequence, '@'..='~') | (Self::Command, '\u{7}') => Self::Text,
                (Self::Sequence, _) => Self::Sequence,
                (Self::Command, _) => Self::Command,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use moorline_protocol::transcript::{Time, event_line};
    use proptest::prelude::*;

    use super::*;

    fn found(events: &[(Code, &str)], text: &str, piece: usize) -> bool {
        let mut bytes = b"{\"version\":2}\n".to_vec();
        for (at, (code, text)) in (0..).zip(events) {
            bytes.extend_from_slice(event_line(Time::from_micros(at), *code, text).as_bytes());
        }
        let mut search = Search::new(text);
        bytes.chunks(piece).for_each(|piece| search.push(piece));
        search.is_found()
    }

    #[test]
    fn a_text_is_found_as_the_terminal_showed_it() {
        let out = Code::Output;
        for (events, text, expected) in [
            (&[(out, "drop table users")][..], "TABLE", true),
            (&[(out, "dr"), (out, "o"), (out, "p it")], "drop it", true),
            (&[(out, "\u{1b}[1;31mdr\u{1b}[0mop")], "drop", true),
            (&[(out, "\u{1b}]0;title\u{7}drop")], "title", false),
            (&[(out, "\u{1b}]0;title\u{1b}\\drop")], "drop", true),
            (&[(out, "dr"), (Code::Resize, "80x24"), (out, "op")], "drop", true),
            (&[(Code::Input, "DROP\r")], "drop", true),
            (
                &[(Code::Ours, "{\"event\":\"opened\",\"address\":\"db:5432\"}")],
                "db:5432",
                true,
            ),
            (&[(out, "é"), (out, "è")], "éè", true),
            (&[(out, "drop")], "dropped", false),
            (&[(out, "x\\ny")], "\"x", false),
        ] {
            for piece in [1, 7, 4096] {
                assert_eq!(found(events, text, piece), expected, "{events:?} {text} {piece}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20), text in ".{1,8}"
        ) {
            let mut search = Search::new(&text);
            pieces.iter().for_each(|piece| search.push(piece));
            prop_assert!(search.tail.len() < text.len().max(1));
        }
    }
}
