//! The recorder: what the terminal showed, as asciicast version 2, with the time at which each piece was read.
//!
//! Output is bytes and asciicast is text: a character that is not complete yet is held back to the next event, and
//! bytes that are no UTF-8 become U+FFFD, so the concatenated events are exactly the lossy text of the output.

use std::{io::Write, time::Duration};

use serde_json::json;

/// The recording can be this many times as long as what it records, plus [`EVENT_OVERHEAD_BYTES`] an event: a
/// control character takes the six bytes of `\u0001`.
pub(super) const LARGEST_EXPANSION: usize = 6;
/// `[86400.000000,"o",""]`, a newline, and a held-back character.
pub(super) const EVENT_OVERHEAD_BYTES: usize = 64;

/// Terminal size in columns and rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) cols: u16,
    pub(super) rows: u16,
}

impl Default for Size {
    fn default() -> Self {
        Self { cols: 80, rows: 24 }
    }
}

/// Writes one recording into `written`, from where it is taken.
#[derive(Debug)]
pub(super) struct Recorder {
    header: Option<Header>,
    size: Size,
    /// Begin of a character whose end has not been read; at most 3 bytes.
    tail: Vec<u8>,
    pub(super) written: Vec<u8>,
}

#[derive(Debug)]
struct Header {
    title: String,
    command: String,
    unix_secs: u64,
}

impl Recorder {
    /// The header is written with the first event, so that it has the size the client asked for in the meantime.
    pub(super) fn new(title: String, command: String, unix_secs: u64) -> Self {
        Self {
            header: Some(Header {
                title,
                command,
                unix_secs,
            }),
            size: Size::default(),
            tail: Vec::new(),
            written: Vec::new(),
        }
    }

    /// Records output that was read `at` this time after the begin.
    pub(super) fn output(&mut self, at: Duration, bytes: &[u8]) {
        if self.tail.is_empty() {
            let complete = complete_length(bytes);
            self.event(at, bytes.get(..complete).unwrap_or(bytes));
            self.tail
                .extend_from_slice(bytes.get(complete..).unwrap_or_default());
        } else {
            let mut joined = std::mem::take(&mut self.tail);
            joined.extend_from_slice(bytes);
            let complete = complete_length(&joined);
            self.tail = joined.split_off(complete);
            self.event(at, &joined);
        }
    }

    /// Records a new terminal size.
    pub(super) fn resize(&mut self, at: Duration, size: Size) {
        if size == self.size {
            return;
        }
        self.size = size;
        if self.header.is_none() {
            let line = format!("[{},\"r\",\"{}x{}\"]\n", Seconds(at), size.cols, size.rows);
            self.written.extend_from_slice(line.as_bytes());
        }
    }

    /// Nothing follows: what was held back is no character.
    pub(super) fn finish(&mut self, at: Duration) {
        let tail = std::mem::take(&mut self.tail);
        self.event(at, &tail);
        self.begin();
    }

    fn event(&mut self, at: Duration, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.begin();
        // Writing into a Vec cannot fail.
        write!(self.written, "[{},\"o\",\"", Seconds(at)).unwrap_or_default();
        for chunk in bytes.utf8_chunks() {
            escape(&mut self.written, chunk.valid().as_bytes());
            if !chunk.invalid().is_empty() {
                self.written.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
        self.written.extend_from_slice(b"\"]\n");
    }

    fn begin(&mut self) {
        let Some(header) = self.header.take() else {
            return;
        };
        let line = json!({
            "version": 2,
            "width": self.size.cols,
            "height": self.size.rows,
            "timestamp": header.unix_secs,
            "command": header.command,
            "title": header.title,
        });
        self.written.extend_from_slice(line.to_string().as_bytes());
        self.written.push(b'\n');
    }
}

/// Seconds with microseconds, without going through a float.
struct Seconds(Duration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06}", self.0.as_secs(), self.0.subsec_micros())
    }
}

/// Length without an incomplete character at the end.
fn complete_length(bytes: &[u8]) -> usize {
    let from = bytes.len().saturating_sub(3);
    // The last byte that begins a character, among the last three: a complete one needs no more than four.
    let last_lead = bytes
        .iter()
        .enumerate()
        .skip(from)
        .rfind(|(_, byte)| **byte & 0xC0 != 0x80);
    let Some((start, _)) = last_lead else {
        return bytes.len();
    };
    match std::str::from_utf8(bytes.get(start..).unwrap_or_default()) {
        Err(error) if error.error_len().is_none() => start.saturating_add(error.valid_up_to()),
        _ => bytes.len(),
    }
}

/// Appends text as the inside of a JSON string. Runs that need no escape, nearly everything, are copied whole.
fn escape(into: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    loop {
        let plain = rest
            .iter()
            .position(|byte| NEEDS_ESCAPE[usize::from(*byte)])
            .unwrap_or(rest.len());
        let (run, after) = rest.split_at(plain);
        into.extend_from_slice(run);
        let Some((special, after)) = after.split_first() else {
            return;
        };
        match special {
            b'"' => into.extend_from_slice(b"\\\""),
            b'\\' => into.extend_from_slice(b"\\\\"),
            b'\n' => into.extend_from_slice(b"\\n"),
            b'\r' => into.extend_from_slice(b"\\r"),
            b'\t' => into.extend_from_slice(b"\\t"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                into.extend_from_slice(b"\\u00");
                into.push(HEX[usize::from(control >> 4)]);
                into.push(HEX[usize::from(control & 0x0F)]);
            }
        }
        rest = after;
    }
}

const NEEDS_ESCAPE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table
};

#[cfg(test)]
mod tests;
