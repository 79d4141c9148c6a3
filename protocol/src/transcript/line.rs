//! The lines after the header: `[TIME,"CODE","TEXT"]`, parsed strictly and written in the one spelling.

use std::fmt::Write;

use thiserror::Error;

use crate::public_keys::KeyId;

use super::{
    countersign::Ending,
    lines::MAX_LINE_BYTES,
    word::{Digest, Signature, Time, number},
};

/// The codes that are written by a node as events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// What was shown.
    Output,
    /// What was typed.
    Input,
    /// `COLUMNSxROWS`.
    Resize,
    /// A label to jump to.
    Marker,
    /// The exit code.
    Exit,
    /// An event of ours, a JSON object as text.
    Ours,
    /// Encrypted event lines.
    Encrypted,
}

impl Code {
    /// As it stands in a line.
    #[must_use]
    pub const fn as_char(self) -> char {
        match self {
            Self::Output => 'o',
            Self::Input => 'i',
            Self::Resize => 'r',
            Self::Marker => 'm',
            Self::Exit => 'x',
            Self::Ours => 'e',
            Self::Encrypted => 'z',
        }
    }

    const fn of(code: u8) -> Option<Self> {
        match code {
            b'o' => Some(Self::Output),
            b'i' => Some(Self::Input),
            b'r' => Some(Self::Resize),
            b'm' => Some(Self::Marker),
            b'x' => Some(Self::Exit),
            b'e' => Some(Self::Ours),
            b'z' => Some(Self::Encrypted),
            _ => None,
        }
    }
}

/// One line after the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line<'a> {
    /// Something that happened.
    Event(Event<'a>),
    /// A seal of the node.
    Seal(SealLine),
    /// A countersignature of the endpoint, or its last line.
    Endpoint(EndpointLine),
}

/// An event, its text still as JSON spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// When.
    pub time: Time,
    /// What; `None` for a code that is not known here.
    pub code: Option<Code>,
    /// The JSON string, with its quotation marks.
    json: &'a [u8],
}

impl Event<'_> {
    /// The text.
    #[must_use]
    pub fn text(&self) -> String {
        serde_json::from_slice(self.json).unwrap_or_default()
    }
}

/// `seal N PREVIOUS HASH MILLIS SIGNATURE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealLine {
    /// When it was written, on the recording's clock.
    pub time: Time,
    /// Which record it closes, from 1.
    pub record: u64,
    /// The hash of the record before; zeros in the first.
    pub previous: Digest,
    /// The hash of this record.
    pub hash: Digest,
    /// The node's clock, in milliseconds since 1970.
    pub unix_millis: u64,
    pub(super) signature: Signature,
}

/// `countersign M N PREVIOUS HASH LENGTH MILLIS KEY SIGNATURE`, or `close`, which has STATE before its signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointLine {
    /// That of the line before it.
    pub time: Time,
    /// Which line of the endpoint in this recording it is, from 1.
    pub number: u64,
    /// The last record that it stands for.
    pub record: u64,
    /// The hash of the endpoint's line before; zeros in the first.
    pub previous: Digest,
    /// The hash of the record, or of what follows the last one.
    pub hash: Digest,
    /// The recording's bytes up to here, without lines of the endpoint.
    pub length: u64,
    /// The endpoint's clock, in milliseconds since 1970.
    pub unix_millis: u64,
    /// Which key signed.
    pub key: KeyId,
    /// How the recording ended, if this line closes it.
    pub ending: Option<Ending>,
    pub(super) signature: Signature,
}

/// A line that has not the form of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FormError {
    /// Neither kind of line.
    #[error("this is no event line")]
    Event,
    /// Its code is `s`.
    #[error("this is not spelt as a seal")]
    Seal,
    /// Its code is `c`.
    #[error("this is not spelt as a countersignature")]
    Endpoint,
}

impl<'a> Line<'a> {
    /// Reads a line, with its line feed.
    ///
    /// # Errors
    ///
    /// Of what kind the line would be.
    pub fn parse(line: &'a [u8]) -> Result<Self, FormError> {
        let (time, code, text) = split(line).ok_or(FormError::Event)?;
        match code {
            b's' => SealLine::parse(time, text).map(Self::Seal).ok_or(FormError::Seal),
            b'c' => EndpointLine::parse(time, text)
                .map(Self::Endpoint)
                .ok_or(FormError::Endpoint),
            code if is_json_string(text) => Ok(Self::Event(Event {
                time,
                code: Code::of(code),
                json: text,
            })),
            _ => Err(FormError::Event),
        }
    }
}

/// TIME, CODE, and TEXT with its quotation marks.
fn split(line: &[u8]) -> Option<(Time, u8, &[u8])> {
    let inner = line.strip_prefix(b"[")?.strip_suffix(b"]\n")?;
    let comma = inner.iter().take(20).position(|byte| *byte == b',')?;
    let (time, rest) = inner.split_at_checked(comma)?;
    let (b",\"", [code @ b'a'..=b'z'], b"\",", text) =
        (rest.get(..2)?, rest.get(2..3)?, rest.get(3..5)?, rest.get(5..)?)
    else {
        return None;
    };
    Some((Time::parse(time)?, *code, text))
}

/// Whether it is a JSON string in UTF-8, whose escapes make no lone surrogates.
fn is_json_string(text: &[u8]) -> bool {
    let inner = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\""));
    let Some(mut rest) = inner else { return false };
    if std::str::from_utf8(rest).is_err() {
        return false;
    }
    loop {
        let at = json_plain_length(rest);
        if at == rest.len() {
            return true;
        }
        let escape = rest.get(at..at + 2);
        let length = match escape {
            Some([b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't']) => 2,
            Some(b"\\u") if rest.get(at + 2..at + 6).is_some_and(is_code_unit) => 6,
            _ => return false,
        };
        rest = rest.get(at + length..).unwrap_or_default();
    }
}

/// How many bytes at the begin of the inside of a JSON string stand for themselves.
#[must_use]
pub fn json_plain_length(text: &[u8]) -> usize {
    /// So many are looked at together, without a branch for each.
    const BLOCK: usize = 32;
    let is_special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    let (blocks, _) = text.as_chunks::<BLOCK>();
    let has_special = |block: &[u8; BLOCK]| block.iter().fold(false, |found, byte| found | is_special(*byte));
    let plain = BLOCK * blocks.iter().position(has_special).unwrap_or(blocks.len());
    let rest = text.get(plain..).unwrap_or_default();
    plain
        + rest
            .iter()
            .position(|byte| is_special(*byte))
            .unwrap_or(rest.len())
}

/// Whether these are four hex digits that stand for a character alone.
fn is_code_unit(digits: &[u8]) -> bool {
    let is_surrogate = matches!(digits, [b'd' | b'D', b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F', ..]);
    !is_surrogate && digits.iter().all(u8::is_ascii_hexdigit)
}

/// An event line, with its line feed.
#[must_use]
pub fn event_line(time: Time, code: Code, text: &str) -> String {
    let text = serde_json::Value::from(text);
    format!("[{time},\"{}\",{text}]\n", code.as_char())
}

impl SealLine {
    fn parse(time: Time, text: &[u8]) -> Option<Self> {
        let mut words = words(text)?;
        let (b"seal", record) = (words.next()?, number(words.next()?)?) else {
            return None;
        };
        let seal = Self {
            time,
            record,
            previous: Digest::parse(words.next()?)?,
            hash: Digest::parse(words.next()?)?,
            unix_millis: number(words.next()?)?,
            signature: Signature::parse(words.next()?)?,
        };
        (record > 0 && words.next().is_none()).then_some(seal)
    }

    /// The line from `[` up to and with the space before the signature.
    pub(super) fn unsigned(&self) -> String {
        let Self {
            time,
            record,
            previous,
            hash,
            unix_millis,
            signature: _,
        } = self;
        format!("[{time},\"s\",\"seal {record} {previous} {hash} {unix_millis} ")
    }
}

impl EndpointLine {
    fn parse(time: Time, text: &[u8]) -> Option<Self> {
        let mut words = words(text)?;
        let is_close = match words.next()? {
            b"countersign" => false,
            b"close" => true,
            _ => return None,
        };
        let line = Self {
            time,
            number: number(words.next()?)?,
            record: number(words.next()?)?,
            previous: Digest::parse(words.next()?)?,
            hash: Digest::parse(words.next()?)?,
            length: number(words.next()?)?,
            unix_millis: number(words.next()?)?,
            key: KeyId::parse(words.next()?)?,
            ending: match is_close.then(|| words.next()).flatten() {
                None if is_close => return None,
                None => None,
                Some(state) => Some(Ending::parse(state)?),
            },
            signature: Signature::parse(words.next()?)?,
        };
        let is_counted = line.number > 0 && (is_close || line.record > 0);
        (is_counted && words.next().is_none()).then_some(line)
    }

    /// The line from `[` up to and with the space before the signature.
    pub(super) fn unsigned(&self) -> String {
        let Self {
            time,
            number,
            record,
            previous,
            hash,
            length,
            unix_millis,
            key,
            ending,
            signature: _,
        } = self;
        let word = if ending.is_some() { "close" } else { "countersign" };
        let mut text = format!(
            "[{time},\"c\",\"{word} {number} {record} {previous} {hash} {length} {unix_millis} {key} "
        );
        if let Some(ending) = ending {
            let _written = write!(text, "{ending} ");
        }
        text
    }
}

/// The words between the quotation marks of a short line.
fn words(text: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let inner = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    Some(inner.split(|byte| *byte == b' '))
}

/// Ends a line with its signature.
pub(super) fn signed(mut unsigned: String, signature: &[u8; 64]) -> String {
    let _written = writeln!(unsigned, "{}\"]", Signature(*signature));
    debug_assert!(unsigned.len() <= MAX_LINE_BYTES, "a signed line is short");
    unsigned
}

/// What a signature is over: a line that says what for, the recording, and the line that is signed.
pub(super) fn signed_text(purpose: &str, id: &str, unsigned: &str) -> String {
    format!("moorline transcript {purpose} 1\n{id}\n{unsigned}")
}
