//! What was shown last, for a client that takes the session over.

use std::collections::VecDeque;

/// Kept in any case: a few screens.
const LEAST_BYTES: usize = 64 * 1024;
/// It grows by so much.
const STEP_BYTES: usize = 128 * 1024;
/// Gives colours and the like their usual values: what set them may not be among what is shown again.
const RESET: &[u8] = b"\x1b[0m";

/// The last output, and all of it that no client has acknowledged.
#[derive(Debug, Default)]
pub(super) struct Scrollback {
    kept: VecDeque<u8>,
    /// Output before it was dropped.
    is_cut: bool,
}

impl Scrollback {
    /// `unacknowledged`: bytes of the output so far, this included, that may be lost with the present client.
    pub(super) fn push(&mut self, shown: &[u8], unacknowledged: usize) {
        let length = self.kept.len() + shown.len();
        let over = length.saturating_sub(LEAST_BYTES.max(unacknowledged));
        let of_kept = over.min(self.kept.len());
        if over > 0 {
            self.is_cut = true;
            self.kept.drain(..of_kept);
        }
        let shown = shown.get(over - of_kept..).unwrap_or_default();
        // what it takes of itself is up to twice as much
        let needed = self.kept.len() + shown.len();
        if needed > self.kept.capacity() {
            let more = needed.next_multiple_of(STEP_BYTES) - self.kept.len();
            self.kept.reserve_exact(more);
        }
        self.kept.extend(shown);
    }

    /// At most `limit` bytes for a new client, from a line's begin on where only part of the output is left.
    pub(super) fn replay(&self, limit: usize) -> Vec<u8> {
        let room = limit.saturating_sub(RESET.len());
        let skipped = self.kept.len().saturating_sub(room);
        let begin = if self.is_cut || skipped > 0 {
            let rest = self.kept.iter().skip(skipped);
            // a screen without any line's end is shown from the middle
            skipped
                + rest
                    .clone()
                    .position(|byte| *byte == b'\n')
                    .map_or(0, |end| end + 1)
        } else {
            0
        };
        let mut replay = Vec::with_capacity(RESET.len() + self.kept.len() - begin);
        replay.extend_from_slice(RESET);
        replay.extend(self.kept.iter().skip(begin));
        replay
    }

    /// Gives back the memory of a flood.
    pub(super) fn rest(&mut self) {
        self.kept.shrink_to(self.kept.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_shown_again_while_it_is_little() {
        let mut scrollback = Scrollback::default();
        scrollback.push(b"$ ls\r\n", 6);
        scrollback.push(b"$ ", 8);
        assert_eq!(scrollback.replay(1000), b"\x1b[0m$ ls\r\n$ ");
    }

    #[test]
    fn it_takes_little_more_memory_than_what_it_keeps() {
        let mut scrollback = Scrollback::default();
        let mut unacknowledged = 0;
        for _ in 0..100 {
            unacknowledged = (unacknowledged + 32_760).min(1024 * 1024);
            scrollback.push(&[b'x'; 32_760], unacknowledged);
        }
        assert_eq!(scrollback.kept.len(), 1024 * 1024);
        assert!(scrollback.kept.capacity() <= 1024 * 1024 + STEP_BYTES);
        scrollback.push(&[b'y'; 100_000], 0);
        assert_eq!(scrollback.kept, vec![b'y'; LEAST_BYTES]);
    }

    #[test]
    fn of_much_the_end_is_shown_from_a_lines_begin_on() {
        let mut scrollback = Scrollback::default();
        for number in 0..20_000 {
            scrollback.push(format!("{number}\r\n").as_bytes(), 0);
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
            scrollback.push(&[b'x'; 4096], number * 4096);
        }
        assert_eq!(scrollback.replay(usize::MAX).len(), 100 * 4096 + RESET.len());
        scrollback.push(b"y", 1);
        assert_eq!(scrollback.replay(usize::MAX).len(), LEAST_BYTES + RESET.len());
    }
}
