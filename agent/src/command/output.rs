//! Output of a step: captured with bounded memory, kept in files, cut to what a reply may carry
//! (documents.md §1.11).

use std::{
    cell::Cell,
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    rc::Rc,
};

use crate::config::OutputLimits;

/// Most bytes of `standardOutput` and of `standardError` in a reply.
pub(super) const STREAM_BYTES: usize = 24_000;
/// Most bytes of `output`, where both stand together.
pub(super) const COMBINED_BYTES: usize = 2_500;
const MIB: u64 = 1024 * 1024;

/// What is held of a stream's beginning: a few bytes more than are reported, so that the text shows whether it was
/// cut.
const HEAD_BYTES: usize = STREAM_BYTES + 8;
/// What is held of its end, where the error usually is: more than half of what is reported.
const TAIL_BYTES: usize = STREAM_BYTES / 2 + 8;

const STREAM_MARK: &str = "\n--output truncated--\n";
const OUTPUT_MARK: &str = "\n---Output truncated---\n";
const ERROR_MARK: &str = "\n---Error truncated----\n";
const ERROR_TITLE: &str = "\n----------ERROR-------\n";

/// What the streams of one command may take on the node's disk, in bytes.
#[derive(Debug, Clone)]
pub(super) struct Allowance {
    stream: u64,
    /// What is left for all of them; every clone takes from the same.
    left: Rc<Cell<u64>>,
}

impl Allowance {
    pub(super) fn new(limits: OutputLimits) -> Self {
        let bytes = |mib: usize| (mib as u64).saturating_mul(MIB);
        Self {
            stream: bytes(limits.stream_mib),
            left: Rc::new(Cell::new(bytes(limits.command_mib))),
        }
    }
}

/// One stream of a step while it runs: its beginning and its end in memory, all of it (up to a bound) in a file.
#[derive(Debug)]
pub(super) struct Capture {
    allowance: Allowance,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    file: Option<File>,
    file_bytes: u64,
}

impl Capture {
    pub(super) fn new(allowance: Allowance) -> Self {
        Self {
            allowance,
            head: Vec::new(),
            tail: VecDeque::new(),
            file: None,
            file_bytes: 0,
        }
    }

    /// Goes on into another file; the beginning in memory stays, and what the step wrote into this file before a
    /// reboot comes behind it. Without a file (the disk is full, say) the stream is still reported.
    pub(super) fn continue_in(&mut self, path: &Path) {
        let opened = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .mode(0o600)
            .open(path);
        self.file = opened.ok();
        self.file_bytes = 0;
        if let Some(file) = &mut self.file {
            self.file_bytes = file.metadata().map_or(0, |metadata| metadata.len());
            let room = HEAD_BYTES.saturating_sub(self.head.len());
            // Unreadable: then it is told from here on, and kept whole.
            drop(file.take(room as u64).read_to_end(&mut self.head));
        }
    }

    /// Takes what the script wrote. Never fails: losing the copy is no reason to lose the script.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.remember(bytes);
        let Some(file) = &mut self.file else {
            return;
        };
        let Allowance { stream, left } = &self.allowance;
        let room = stream.saturating_sub(self.file_bytes).min(left.get());
        let kept = bytes
            .get(..usize::try_from(room).unwrap_or(usize::MAX))
            .unwrap_or(bytes);
        match file.write_all(kept) {
            Ok(()) => {
                self.file_bytes += kept.len() as u64;
                left.set(left.get().saturating_sub(kept.len() as u64));
            }
            Err(_) => self.file = None,
        }
    }

    /// A further set of properties writes from here on. The stock agent joins what it tells of the sets with line
    /// feeds, once there is anything to tell; the files and the recording have what was written, and nothing else.
    pub(super) fn begin_next_set(&mut self) {
        if !self.head.is_empty() {
            self.remember(b"\n");
        }
    }

    fn remember(&mut self, bytes: &[u8]) {
        let room = HEAD_BYTES.saturating_sub(self.head.len());
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend(head);
        let rest = rest
            .get(rest.len().saturating_sub(TAIL_BYTES)..)
            .unwrap_or_default();
        let excess = (self.tail.len() + rest.len()).saturating_sub(TAIL_BYTES);
        self.tail.drain(..excess);
        self.tail.extend(rest);
    }

    /// Its beginning and its end as text; what is not UTF-8 is replaced. What was left out between them is where
    /// [`stream_text`] cuts: together they are longer than a reply takes.
    pub(super) fn text(&self) -> String {
        let bytes: Vec<u8> = self.head.iter().chain(&self.tail).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// `standardOutput` or `standardError`: at most `limit` bytes with the mark that says so.
pub(super) fn stream_text(text: &str, limit: usize) -> String {
    cut(text, limit, STREAM_MARK)
}

/// `output`: both streams, at most `limit` bytes. If only one is longer than half, only that one is cut.
pub(super) fn combined_text(stdout: &str, stderr: &str, limit: usize) -> String {
    if stderr.is_empty() {
        return cut(stdout, limit, OUTPUT_MARK);
    }
    let available = limit.saturating_sub(ERROR_TITLE.len());
    let half = available / 2;
    let (stdout_limit, stderr_limit) = if stdout.len() + stderr.len() <= available {
        (stdout.len(), stderr.len())
    } else if stdout.len() > half && stderr.len() > half {
        (half, half)
    } else if stdout.len() > half {
        (available - stderr.len(), stderr.len())
    } else {
        (stdout.len(), available - stdout.len())
    };
    let stdout = cut(stdout, stdout_limit, OUTPUT_MARK);
    let stderr = cut(stderr, stderr_limit, ERROR_MARK);
    format!("{stdout}{ERROR_TITLE}{stderr}")
}

/// A text of at most `limit` bytes: its beginning and its end, and the mark where its middle was cut out; never inside
/// a character.
pub(super) fn cut(text: &str, limit: usize, mark: &str) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let room = limit.saturating_sub(mark.len());
    let head = text.floor_char_boundary(room - room / 2);
    let tail = text.ceil_char_boundary(text.len() - room / 2);
    let head = text.get(..head).unwrap_or_default();
    let tail = text.get(tail..).unwrap_or_default();
    format!("{head}{mark}{tail}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stream_is_cut_to_24000_bytes_with_its_beginning_its_end_and_the_mark() {
        assert_eq!(
            stream_text(&"x".repeat(STREAM_BYTES), STREAM_BYTES),
            "x".repeat(STREAM_BYTES)
        );
        let cut = stream_text(&"x".repeat(STREAM_BYTES + 1), STREAM_BYTES);
        assert_eq!(cut.len(), STREAM_BYTES);
        assert!(cut.starts_with("xx") && cut.ends_with("xx") && cut.contains("x\n--output truncated--\nx"));
    }

    #[test]
    fn a_character_is_never_cut_apart() {
        let cut = stream_text(&"€".repeat(10_000), STREAM_BYTES);
        assert!(cut.len() <= STREAM_BYTES && cut.len() > STREAM_BYTES - 6);
        assert!(cut.starts_with("€") && cut.ends_with('€') && cut.contains("€\n--output truncated--\n€"));
    }

    #[test]
    fn the_combined_output_shares_its_room() {
        let table = [
            ("hello\n", "", "hello\n".to_owned()),
            (
                "hello\n",
                "err\n",
                "hello\n\n----------ERROR-------\nerr\n".to_owned(),
            ),
            ("", "err", "\n----------ERROR-------\nerr".to_owned()),
        ];
        for (stdout, stderr, expected) in table {
            assert_eq!(combined_text(stdout, stderr, COMBINED_BYTES), expected);
        }
        let long = "x".repeat(3_000);
        let only = combined_text(&long, "", COMBINED_BYTES);
        assert_eq!(only.len(), COMBINED_BYTES);
        assert!(only.ends_with("x") && only.contains("x\n---Output truncated---\nx"));
        let both = combined_text(&long, &long, COMBINED_BYTES);
        assert!(both.len() <= COMBINED_BYTES && both.len() >= COMBINED_BYTES - 1);
        assert!(
            both.contains("x\n---Output truncated---\nx") && both.contains("x\n----------ERROR-------\nx")
        );
        assert!(both.ends_with("x") && both.contains("x\n---Error truncated----\nx"));
        let short_error = combined_text(&long, "err", COMBINED_BYTES);
        assert_eq!(short_error.len(), COMBINED_BYTES);
        assert!(short_error.ends_with("x\n----------ERROR-------\nerr"));
        let short_output = combined_text("out", &long, COMBINED_BYTES);
        assert_eq!(short_output.len(), COMBINED_BYTES);
        assert!(short_output.starts_with("out\n----------ERROR-------\nx"));
    }

    #[test]
    fn a_capture_keeps_both_ends_in_memory_and_everything_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout");
        let mut capture = Capture::new(Allowance::new(OutputLimits::default()));
        capture.continue_in(&path);
        capture.push(b"first");
        for _ in 0..100 {
            capture.push(&[b'x'; 1000]);
        }
        capture.push(b"last");
        assert_eq!(capture.text().len(), HEAD_BYTES + TAIL_BYTES);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 100_009);
        let told = stream_text(&capture.text(), STREAM_BYTES);
        assert!(told.starts_with("firstx") && told.ends_with("xlast"), "{told}");
        assert_eq!(told.matches("--output truncated--").count(), 1);
    }

    #[test]
    fn the_streams_of_a_command_share_what_it_may_keep_and_each_has_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let allowance = Allowance {
            stream: 900,
            left: Rc::new(Cell::new(2_500)),
        };
        for (index, expected) in [900, 900, 700, 0].into_iter().enumerate() {
            let path = dir.path().join(index.to_string());
            let mut capture = Capture::new(allowance.clone());
            capture.continue_in(&path);
            capture.push(&[b'x'; 1_000]);
            assert_eq!(capture.text().len(), 1_000, "all of it is reported");
            assert_eq!(std::fs::metadata(&path).unwrap().len(), expected);
        }
    }

    proptest! {
        /// However a stream comes in pieces: what is told of it is what would be told of all of it.
        #[test]
        fn a_capture_tells_what_the_whole_stream_would(
            pieces in proptest::collection::vec(("[a-z€😀]{1,300}", 1_usize..60), 0..20)
        ) {
            let mut capture = Capture::new(Allowance::new(OutputLimits::default()));
            let mut whole = String::new();
            for (text, times) in pieces {
                let text = text.repeat(times);
                capture.push(text.as_bytes());
                whole.push_str(&text);
            }
            prop_assert_eq!(stream_text(&capture.text(), STREAM_BYTES), stream_text(&whole, STREAM_BYTES));
        }

        #[test]
        fn no_text_exceeds_its_limit(stdout in ".{0,4000}", stderr in ".{0,4000}", limit in 200_usize..5_000) {
            prop_assert!(combined_text(&stdout, &stderr, limit).len() <= limit);
            prop_assert!(stream_text(&stdout, limit).len() <= limit);
        }
    }
}
