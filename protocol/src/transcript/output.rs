//! What the steps of a command wrote, read from its recording: bytes, as they were.
//!
//! A recording has text, with lines as a terminal shows them. Where output was no text, an event says which bytes stand
//! behind the characters that replace them.

use serde_json::Value;
use thiserror::Error;

use crate::hex;

use super::{
    header::Header,
    line::{Code, Event, Line},
    lines::{Cut, Lines},
};

/// What stands in a recording for bytes that are no UTF-8.
const REPLACEMENT: char = '\u{fffd}';
/// Steps within steps that are told apart; a node runs no more.
const MOST_STEPS: usize = 16;

/// Which of its outputs a program wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutputStream {
    /// Standard output.
    Output,
    /// Standard error.
    Errors,
}

impl OutputStream {
    /// `stdout` or `stderr`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Output => "stdout",
            Self::Errors => "stderr",
        }
    }
}

/// A step that runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutputStep {
    /// As its document names it.
    pub name: String,
    /// What it does, as `aws:runShellScript`.
    pub action: String,
}

/// Something that a recording tells of the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputPiece {
    /// A step wrote it.
    Bytes {
        /// Where to.
        stream: OutputStream,
        /// The steps that ran, each within the one before.
        steps: Vec<OutputStep>,
        /// Never empty.
        bytes: Vec<u8>,
    },
    /// So many bytes are not in the recording: the node had no room for them.
    Gap(u64),
}

/// Why there is no output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OutputError {
    /// It is no recording of ours.
    #[error("line {0} of the recording has not the form of one")]
    Form(u64),
    /// Its recipients alone can read it.
    #[error("the recording is encrypted, and its recipients alone can read it")]
    Encrypted,
}

/// Reads a recording in pieces that are cut anywhere.
#[derive(Debug, Default)]
pub struct OutputReader {
    lines: Lines,
    count: u64,
    steps: Vec<OutputStep>,
    /// The bytes that were replaced in the next text.
    replaced: Vec<Vec<u8>>,
    /// A line's end on a terminal, whose second half is to come.
    output_return: bool,
    errors_return: bool,
    has_exited: bool,
    has_ended: bool,
}

impl OutputReader {
    /// Takes the next piece of the recording.
    ///
    /// # Errors
    ///
    /// It is no recording, or only its recipients can read it.
    pub fn push(&mut self, mut recording: &[u8]) -> Result<Vec<OutputPiece>, OutputError> {
        let mut pieces = Vec::new();
        let mut lines = std::mem::take(&mut self.lines);
        while let Some(cut) = lines.next(&mut recording) {
            self.count += 1;
            let Cut::Line(line) = cut else {
                return Err(OutputError::Form(self.count));
            };
            if self.count == 1 {
                first(line)?;
                continue;
            }
            match Line::parse(line) {
                Ok(Line::Event(event)) => self.event(event, &mut pieces),
                Ok(Line::Seal(_) | Line::Endpoint(_)) => {}
                Err(_) => return Err(OutputError::Form(self.count)),
            }
        }
        self.lines = lines;
        Ok(pieces)
    }

    /// The command is over on the node. A recording that ends otherwise is followed by another, after a reboot.
    #[must_use]
    pub const fn has_exited(&self) -> bool {
        self.has_exited
    }

    /// No output follows in this recording.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.has_ended || self.has_exited
    }

    fn event(&mut self, event: Event<'_>, pieces: &mut Vec<OutputPiece>) {
        match event.code {
            Some(Code::Output) => self.wrote(OutputStream::Output, &event.text(), pieces),
            Some(Code::Exit) => {
                self.release(pieces);
                self.has_exited = true;
            }
            Some(Code::Ours) => {
                if let Ok(event) = serde_json::from_str::<Value>(&event.text()) {
                    self.ours(&event, pieces);
                }
            }
            _ => {}
        }
    }

    fn ours(&mut self, event: &Value, pieces: &mut Vec<OutputPiece>) {
        let text = |name: &str| event.get(name).and_then(Value::as_str);
        match text("event") {
            Some("stderr") => self.wrote(OutputStream::Errors, text("data").unwrap_or_default(), pieces),
            Some("replaced") => self.replaced = replaced(text("bytes").unwrap_or_default()),
            Some("gap") => {
                let bytes = event.get("bytes").and_then(Value::as_u64);
                pieces.push(OutputPiece::Gap(bytes.unwrap_or(0)));
            }
            Some("step") => match (text("name"), text("status")) {
                (Some(name), None) if self.steps.len() < MOST_STEPS => self.steps.push(OutputStep {
                    name: name.to_owned(),
                    action: text("action").unwrap_or_default().to_owned(),
                }),
                // one that was skipped never began
                (Some(name), Some(_)) if self.steps.last().is_some_and(|last| last.name == name) => {
                    self.steps.pop();
                }
                _ => {}
            },
            Some("end") => {
                self.release(pieces);
                // the node says of one that was cut that there is no more of it, and not that this was its end
                self.has_ended = event.get("cut") != Some(&Value::Bool(true));
            }
            _ => {}
        }
    }

    /// What was held back is no line's end.
    fn release(&mut self, pieces: &mut Vec<OutputPiece>) {
        let output = (OutputStream::Output, std::mem::take(&mut self.output_return));
        let errors = (OutputStream::Errors, std::mem::take(&mut self.errors_return));
        for (stream, _) in [output, errors].into_iter().filter(|(_, is_held)| *is_held) {
            pieces.push(OutputPiece::Bytes {
                stream,
                steps: self.steps.clone(),
                bytes: b"\r".to_vec(),
            });
        }
    }

    fn wrote(&mut self, stream: OutputStream, shown: &str, pieces: &mut Vec<OutputPiece>) {
        let held = match stream {
            OutputStream::Output => &mut self.output_return,
            OutputStream::Errors => &mut self.errors_return,
        };
        let mut bytes = Vec::with_capacity(shown.len() + 1);
        if std::mem::take(held) {
            bytes.push(b'\r');
        }
        let mut replaced = std::mem::take(&mut self.replaced).into_iter();
        let mut texts = shown.split(REPLACEMENT);
        bytes.extend_from_slice(texts.next().unwrap_or_default().as_bytes());
        for text in texts {
            match replaced.next() {
                Some(original) => bytes.extend_from_slice(&original),
                None => bytes.extend_from_slice(REPLACEMENT.encode_utf8(&mut [0; 4]).as_bytes()),
            }
            bytes.extend_from_slice(text.as_bytes());
        }
        if bytes.ends_with(b"\r") {
            bytes.pop();
            *held = true;
        }
        let bytes = as_written(&bytes);
        if !bytes.is_empty() {
            pieces.push(OutputPiece::Bytes {
                stream,
                steps: self.steps.clone(),
                bytes,
            });
        }
    }
}

/// The header. That of an agent that does not seal says no more than that it is a recording.
fn first(line: &[u8]) -> Result<(), OutputError> {
    if let Ok(header) = Header::parse(line) {
        return match header.origin.encryption {
            None => Ok(()),
            Some(_) => Err(OutputError::Encrypted),
        };
    }
    let header = serde_json::from_slice::<Value>(line).ok();
    let version = header.and_then(|header| header.get("version").and_then(Value::as_u64));
    match version {
        Some(2) => Ok(()),
        _ => Err(OutputError::Form(1)),
    }
}

/// Words of hex digits, one for each character that replaces bytes. What is none of that replaces nothing.
fn replaced(words: &str) -> Vec<Vec<u8>> {
    let byte = |digits: &[u8]| hex::parse(digits).map(|[byte]: [u8; 1]| byte);
    let bytes = |word: &str| word.as_bytes().chunks(2).map(byte).collect();
    let all: Option<Vec<Vec<u8>>> = words.split_ascii_whitespace().map(bytes).collect();
    all.unwrap_or_default()
}

/// A recording has lines as a terminal shows them.
fn as_written(shown: &[u8]) -> Vec<u8> {
    let mut written = Vec::with_capacity(shown.len());
    let mut rest = shown;
    while let Some(end) = memchr::memmem::find(rest, b"\r\n") {
        let (line, after) = rest.split_at(end);
        written.extend_from_slice(line);
        written.push(b'\n');
        rest = after.get(2..).unwrap_or_default();
    }
    written.extend_from_slice(rest);
    written
}
