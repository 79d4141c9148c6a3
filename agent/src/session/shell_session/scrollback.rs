//! What was shown last, for a client that takes the session over.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

/// Kept in any case: a few screens.
const LEAST_BYTES: usize = 64 * 1024;
/// A piece below this is copied, behind others like it: each would hold on to a frame for a few bytes.
const LEAST_PIECE_BYTES: usize = 512;
/// So many of those lie together.
const COPIED_BYTES: usize = 4 * 1024;
/// Gives colours and the like their usual values: what set them may not be among what is shown again.
const RESET: &[u8] = b"\x1b[0m";

/// The last output, and all of it that no client has acknowledged: as pieces of the frames that carry it, since both
/// are kept for the same time.
#[derive(Debug, Default)]
pub(super) struct Scrollback {
    pieces: VecDeque<Bytes>,
    /// What comes behind them.
    copied: Vec<u8>,
    /// Bytes of both.
    length: usize,
    /// Output before it was dropped.
    is_cut: bool,
}

impl Scrollback {
    /// `unacknowledged`: bytes of the output so far, this included, that may be lost with the present client.
    pub(super) fn push(&mut self, shown: Bytes, unacknowledged: usize) {
        self.length += shown.len();
        if shown.len() < LEAST_PIECE_BYTES {
            self.copied.extend_from_slice(&shown);
            if self.copied.len() >= COPIED_BYTES {
                self.close_copied();
            }
        } else {
            self.close_copied();
            self.pieces.push_back(shown);
        }
        self.drop_beyond(LEAST_BYTES.max(unacknowledged));
    }

    fn close_copied(&mut self) {
        if !self.copied.is_empty() {
            self.pieces.push_back(Bytes::copy_from_slice(&self.copied));
            self.copied.clear();
        }
    }

    fn drop_beyond(&mut self, limit: usize) {
        while self.length > limit {
            self.is_cut = true;
            let over = self.length - limit;
            // what is copied is less than what is always kept
            let Some(first) = self.pieces.front_mut() else {
                return;
            };
            if first.len() > over {
                first.advance(over);
                self.length = limit;
            } else {
                self.length -= first.len();
                self.pieces.pop_front();
            }
        }
    }

    fn bytes(&self) -> impl Iterator<Item = &u8> {
        self.pieces.iter().flatten().chain(&self.copied)
    }

    /// At most `limit` bytes for a new client, from a line's begin on where only part of the output is left.
    pub(super) fn replay(&self, limit: usize) -> Vec<u8> {
        let room = limit.saturating_sub(RESET.len());
        let skipped = self.length.saturating_sub(room);
        let begin = if self.is_cut || skipped > 0 {
            // a screen without any line's end is shown from the middle
            skipped
                + self
                    .bytes()
                    .skip(skipped)
                    .position(|byte| *byte == b'\n')
                    .map_or(0, |end| end + 1)
        } else {
            0
        };
        let mut replay = Vec::with_capacity(RESET.len() + self.length - begin);
        replay.extend_from_slice(RESET);
        replay.extend(self.bytes().skip(begin));
        replay
    }

    /// Gives back the memory of a flood.
    pub(super) fn rest(&mut self) {
        self.pieces.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_shown_again_while_it_is_little() {
        let mut scrollback = Scrollback::default();
        scrollback.push(Bytes::from_static(b"$ ls\r\n"), 6);
        scrollback.push(Bytes::from_static(b"$ "), 8);
        assert_eq!(scrollback.replay(1000), b"\x1b[0m$ ls\r\n$ ");
    }

    #[test]
    fn it_takes_no_memory_of_its_own_for_large_pieces_and_little_for_small_ones() {
        let mut scrollback = Scrollback::default();
        let sent: Vec<Bytes> = (0..32).map(|_| vec![b'x'; 32_768].into()).collect();
        for (piece, number) in sent.iter().zip(1..) {
            scrollback.push(piece.clone(), number * 32_768);
        }
        assert!(
            scrollback
                .pieces
                .iter()
                .zip(&sent)
                .all(|(kept, sent)| kept.as_ptr() == sent.as_ptr())
        );
        for _ in 0..200_000 {
            scrollback.push(Bytes::from_static(b"y"), 0);
        }
        assert_eq!(scrollback.length, LEAST_BYTES);
        assert!(scrollback.pieces.len() <= LEAST_BYTES / COPIED_BYTES + 1);
        assert!(
            sent.into_iter().all(|piece| piece.is_unique()),
            "a frame is kept that is not shown"
        );
        assert_eq!(scrollback.replay(usize::MAX).len(), LEAST_BYTES + RESET.len());
    }

    #[test]
    fn of_much_the_end_is_shown_from_a_lines_begin_on() {
        let mut scrollback = Scrollback::default();
        for number in 0..20_000 {
            scrollback.push(format!("{number}\r\n").into(), 0);
        }
        let replay = String::from_utf8(scrollback.replay(usize::MAX)).unwrap();
        let lines: Vec<&str> = replay.strip_prefix("\x1b[0m").unwrap().lines().collect();
        let shown = replay.len() - RESET.len();
        assert!(shown <= LEAST_BYTES && shown > LEAST_BYTES - 100);
        assert_eq!(lines.last(), Some(&"19999"));
        let first: u32 = lines[0].parse().unwrap();
        assert_eq!(lines.len(), usize::try_from(20_000 - first).unwrap());
        let short = scrollback.replay(30);
        assert_eq!(short, b"\x1b[0m19997\r\n19998\r\n19999\r\n");
    }

    #[test]
    fn what_nobody_has_acknowledged_is_kept() {
        let mut scrollback = Scrollback::default();
        for number in 1..=100 {
            scrollback.push(vec![b'x'; 4096].into(), number * 4096);
        }
        assert_eq!(scrollback.replay(usize::MAX).len(), 100 * 4096 + RESET.len());
        scrollback.push(Bytes::from_static(b"y"), 1);
        assert_eq!(scrollback.replay(usize::MAX).len(), LEAST_BYTES + RESET.len());
    }
}
