//! What peers make us say: their text cut and escaped, their lines in the log so many a second.

use std::{
    fmt::{self, Write as _},
    sync::{Mutex, PoisonError},
};

/// Ids, names of operations: the longest that is one of ours is shorter.
const MOST_CHARACTERS: usize = 128;
/// A whole message, of which peers' texts are a part.
const MOST_LINE_CHARACTERS: usize = 1024;

/// Of a kind, in a second, from all nodes.
const MOST_NODE_LINES: u32 = 5;

/// Text of a peer as it may stand in a message or in the log: on one line, without control characters, not too long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown<'a> {
    text: &'a str,
    most: usize,
}

/// One value of a peer.
pub(crate) fn shown(text: &str) -> Shown<'_> {
    let most = MOST_CHARACTERS;
    Shown { text, most }
}

/// A message that may have values of a peer in it.
pub(crate) fn shown_line(text: &str) -> Shown<'_> {
    let most = MOST_LINE_CHARACTERS;
    Shown { text, most }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut characters = self.text.chars();
        for character in characters.by_ref().take(self.most) {
            match character {
                // Harmless on a line, and our own messages have them.
                '\'' | '"' => f.write_char(character)?,
                other => write!(f, "{}", other.escape_debug())?,
            }
        }
        if characters.next().is_some() {
            f.write_char('…')?;
        }
        Ok(())
    }
}

/// Lets so many lines a second into the log and counts the others.
#[derive(Debug)]
pub(crate) struct Pace {
    most: u32,
    second: Mutex<Second>,
}

#[derive(Debug)]
struct Second {
    number: u64,
    written: u32,
    held_back: u64,
}

impl Pace {
    pub(crate) const fn per_second(most: u32) -> Self {
        let second = Second {
            number: 0,
            written: 0,
            held_back: 0,
        };
        Self {
            most,
            second: Mutex::new(second),
        }
    }

    /// `Some`: write the line; that many were held back before it. `None`: hold it back.
    pub(crate) fn admit(&self, unix_millis: u64) -> Option<u64> {
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        let number = unix_millis / 1000;
        if second.number != number {
            second.number = number;
            second.written = 0;
        }
        if second.written >= self.most {
            second.held_back += 1;
            return None;
        }
        second.written += 1;
        Some(std::mem::take(&mut second.held_back))
    }
}

/// Lines of the log that a node can have written as often as it likes: so many of a kind, and of each kind its own, or one
/// would hide another.
#[derive(Debug)]
pub(crate) struct NodeLines {
    /// What it says of jobs that are none of its own, or cannot be read.
    pub(crate) answers: Pace,
    /// That it refused a job of its own, and why.
    pub(crate) refusals: Pace,
    /// That its recordings have their share of the disk.
    pub(crate) over_share: Pace,
    /// That the disk is full.
    pub(crate) without_room: Pace,
}

impl Default for NodeLines {
    fn default() -> Self {
        let pace = || Pace::per_second(MOST_NODE_LINES);
        Self {
            answers: pace(),
            refusals: pace(),
            over_share: pace(),
            without_room: pace(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_peer_stays_on_its_line_and_short() {
        assert_eq!(
            shown("mi-1\nWARN all is lost\u{1b}[2J").to_string(),
            "mi-1\\nWARN all is lost\\u{1b}[2J"
        );
        assert_eq!(shown("it's \"so\"").to_string(), "it's \"so\"");
        let cut = shown(&"é".repeat(129)).to_string();
        assert_eq!(cut, format!("{}…", "é".repeat(128)));
        assert_eq!(shown(&"x".repeat(128)).to_string(), "x".repeat(128));
    }

    #[test]
    fn a_flood_of_lines_is_counted_instead_of_written() {
        let pace = Pace::per_second(2);
        assert_eq!(
            [0, 1, 2, 3].map(|millis| pace.admit(millis)),
            [Some(0), Some(0), None, None]
        );
        assert_eq!(pace.admit(1000), Some(2));
        assert_eq!(pace.admit(1001), Some(0));
    }
}
