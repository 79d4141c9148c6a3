//! Text in recordings: what was shown, typed and noted, with terminal control sequences left out. Letters of ASCII are
//! found in either case. An encrypted recording has no text for us.

use std::collections::VecDeque;

use moorline_protocol::{
    transcript::{Code, Line, MAX_LINE_BYTES},
    types::TranscriptId,
};

use tokio::time::Instant;

use super::TranscriptFiles;
use crate::store::StoreError;

/// What is read at once.
const PIECE_BYTES: u64 = 4 * 1024 * 1024;

/// A search that pauses goes back no further than this to have what the text may have begun with: a control sequence that
/// is longer is none.
const MOST_BACK_BYTES: u64 = 1024 * 1024;

/// What is known of a text in a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Searched {
    Found,
    /// As far as the recording is there.
    NotFound,
    /// It does not stand before this offset, from which the search goes on.
    Paused(u64),
}

impl TranscriptFiles {
    /// Looks for the text from an offset on, which is 0 or where it was paused. Pauses when the time is over and it has come
    /// further. One search at a time.
    pub(crate) async fn search(
        &self,
        recording: &TranscriptId,
        text: &str,
        (from, until): (u64, Instant),
    ) -> Result<Searched, StoreError> {
        // the semaphore is never closed
        let _turn = self.searches.acquire().await;
        let length = self.length(recording).await?.unwrap_or(0);
        let mut search = Search::new(text, from);
        let mut offset = from;
        while offset < length {
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
            if search.is_found() {
                return Ok(Searched::Found);
            }
            let resume_at = search.resume_at();
            if Instant::now() >= until && offset < length && resume_at > from {
                return Ok(Searched::Paused(resume_at));
            }
        }
        Ok(Searched::NotFound)
    }
}

/// Looks for a text in bytes of a recording, however they are cut.
#[derive(Debug)]
struct Search {
    text: String,
    /// The begin of a line, and where that is in the recording.
    line: Vec<u8>,
    line_at: u64,
    shown: Shown,
    /// The end of what was shown, which a text that goes on may begin with.
    tail: String,
    /// Bytes that were shown.
    shown_bytes: u64,
    /// Lines of output that begin outside of control sequences, and what was shown before each: as many as the tail was
    /// shown by.
    begins: VecDeque<(u64, u64)>,
    is_found: bool,
}

impl Search {
    /// From this offset on, where a line begins.
    fn new(text: &str, from: u64) -> Self {
        Self {
            text: text.to_ascii_lowercase(),
            line: Vec::new(),
            line_at: from,
            shown: Shown::default(),
            tail: String::new(),
            shown_bytes: 0,
            begins: VecDeque::new(),
            is_found: false,
        }
    }

    /// Where another search goes on without missing anything: the line in which the tail begins.
    fn resume_at(&self) -> u64 {
        let line = self.begins.front().map_or(self.line_at, |(line, _)| *line);
        line.max(self.line_at.saturating_sub(MOST_BACK_BYTES))
            .min(self.line_at)
    }

    fn is_found(&self) -> bool {
        self.is_found
    }

    fn push(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + part.len() > MAX_LINE_BYTES {
                // no line of a recording
                self.line_at += (self.line.len() + part.len()) as u64;
                self.line.clear();
                continue;
            }
            if !part.ends_with(b"\n") {
                self.line.extend_from_slice(part);
            } else if self.line.is_empty() {
                self.look(part);
                self.line_at += part.len() as u64;
            } else {
                self.line.extend_from_slice(part);
                let line = std::mem::take(&mut self.line);
                self.look(&line);
                self.line_at += line.len() as u64;
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
                self.begin_line();
                let before = self.tail.len();
                self.shown.push(&event.text(), &mut self.tail);
                self.shown_bytes += (self.tail.len() - before) as u64;
                self.is_found = self.tail.contains(&self.text);
                // what a match that is not whole yet may have, and no more
                let keep = self.text.len().saturating_sub(1);
                let cut = self
                    .tail
                    .floor_char_boundary(self.tail.len().saturating_sub(keep));
                self.tail.drain(..cut);
                self.forget_begins();
            }
            Some(Code::Input | Code::Marker | Code::Ours) => {
                self.is_found = event.text().to_ascii_lowercase().contains(&self.text);
            }
            _ => {}
        }
    }
}

impl Search {
    fn begin_line(&mut self) {
        if !matches!(self.shown, Shown::Text) {
            return;
        }
        // of two before which the same was shown the later one serves
        if self
            .begins
            .back()
            .is_some_and(|(_, shown)| *shown == self.shown_bytes)
        {
            self.begins.pop_back();
        }
        self.begins.push_back((self.line_at, self.shown_bytes));
    }

    /// Those behind which more was shown than the tail has.
    fn forget_begins(&mut self) {
        let tail_at = self.shown_bytes - self.tail.len() as u64;
        while self.begins.get(1).is_some_and(|(_, shown)| *shown <= tail_at) {
            self.begins.pop_front();
        }
        if self.tail.is_empty() && matches!(self.shown, Shown::Text) {
            self.begins.clear();
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
    /// Behind `ESC ]` and its like, until BEL, ST or another sequence.
    Command,
}

impl Shown {
    /// Adds the text to `out`, in lower case.
    fn push(&mut self, text: &str, out: &mut String) {
        for character in text.chars() {
            *self = match (*self, character) {
                (_, '\u{1b}') => Self::Escape,
                // cancel and substitute end any sequence, as on a terminal
                (_, '\u{18}' | '\u{1a}') | (Self::Command, '\u{7}' | '\u{9c}') => Self::Text,
                (Self::Text, character) => {
                    if !character.is_control() || matches!(character, '\n' | '\t') {
                        out.push(character.to_ascii_lowercase());
                    }
                    Self::Text
                }
                (Self::Escape, '[') => Self::Sequence,
                (Self::Escape, ']' | 'P' | 'X' | '^' | '_') => Self::Command,
                (Self::Escape, ' '..='/') => Self::Escape,
                (Self::Escape, _) | (Self::Sequence, '@'..='~') => Self::Text,
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
        let mut search = Search::new(text, 0);
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
            (&[(out, "\u{1b}]0;title\u{9c}drop")], "drop", true),
            (&[(out, "\u{1b}]0;title\u{18}drop")], "drop", true),
            (&[(out, "\u{1b}[3\u{1a}drop")], "drop", true),
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
        /// Wherever a search is paused, another finds the same from where it says.
        #[test]
        fn a_search_that_pauses_finds_what_one_that_goes_on_finds(
            events in prop::collection::vec("(\u{1b}\\[1m|\u{1b}\\]0;|\u{7}|[ab]){0,6}", 1..30),
            text in "[ab]{1,5}",
            pauses in prop::collection::vec(1_usize..60, 0..20),
        ) {
            let mut bytes = b"{\"version\":2}\n".to_vec();
            for (at, text) in (0..).zip(&events) {
                bytes.extend_from_slice(event_line(Time::from_micros(at), Code::Output, text).as_bytes());
            }
            let mut whole = Search::new(&text, 0);
            whole.push(&bytes);
            let mut search = Search::new(&text, 0);
            let (mut from, mut at) = (0, 0);
            for pause in pauses {
                let end = bytes.len().min(at + pause);
                search.push(&bytes[at..end]);
                at = end;
                let resume_at = search.resume_at();
                prop_assert!(resume_at >= from && resume_at <= at as u64);
                if search.is_found() {
                    break;
                }
                from = resume_at;
                at = usize::try_from(from).unwrap();
                search = Search::new(&text, from);
            }
            if !search.is_found() {
                search.push(&bytes[at..]);
            }
            prop_assert_eq!(search.is_found(), whole.is_found());
        }

        #[test]
        fn no_bytes_are_too_strange(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20), text in ".{1,8}"
        ) {
            let mut search = Search::new(&text, 0);
            pieces.iter().for_each(|piece| search.push(piece));
            prop_assert!(search.tail.len() < text.len().max(1));
        }
    }
}
