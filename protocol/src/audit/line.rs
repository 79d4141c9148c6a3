//! One line of the log, strictly: each has exactly one spelling.
//!
//! ```json
//! {"index":7,"previous":"64 hex digits","time":"2026-11-26T13:06:32.123Z","event":"call","…":"…"}
//! {"index":8,"previous":"64 hex digits","time":"2026-11-26T13:06:32.900Z","checkpoint":"16 hex digits","signature":"128 hex digits"}
//! ```

use std::fmt;

use ring::digest::{Context, SHA256};
use serde_json::{Map, Value};

use super::{event::Event, spelling};
use crate::{hex, public_keys::KeyId};

/// Longest line, with its line feed, in bytes.
pub const MAX_LINE_BYTES: usize = 512 * 1024;
/// What the hash of a line begins with.
const RECORD_DOMAIN: &[u8] = b"moorline audit record 1\n";
/// What a checkpoint's signature is over begins with.
const CHECKPOINT_DOMAIN: &[u8] = b"moorline audit checkpoint 1\n";
/// Most digits of a number; with these it fits in 63 bits.
const MAX_DIGITS: usize = 18;
/// `2026-11-26T13:06:32.123Z`
const TIME_BYTES: usize = 24;

/// A SHA-256, written as 64 lower-case hex digits.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of a line, with its line feed: what the next line has as `previous`.
    #[must_use]
    pub fn of_line(line: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(RECORD_DOMAIN);
        context.update(line);
        let mut hash = Self::default();
        hash.0.copy_from_slice(context.finish().as_ref());
        hash
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A time as it stands in the log: UTC with milliseconds, always as long, so that it sorts as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u64);

impl Time {
    /// Of milliseconds since the Unix epoch; what lies behind the year 9999 counts as its end.
    #[must_use]
    pub fn from_unix_millis(millis: u64) -> Self {
        const LAST: u64 = 253_402_300_799_999;
        Self(millis.min(LAST))
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn unix_millis(self) -> u64 {
        self.0
    }

    /// Reads exactly what [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        const SHAPE: &[u8] = b"0000-00-00T00:00:00.000Z";
        let is_spelt = |(byte, shape): (&u8, &u8)| match shape {
            b'0' => byte.is_ascii_digit(),
            _ => byte == shape,
        };
        // a leap second would become the second before it
        let is_leap = text.get(17..19) == Some(b"60");
        if text.len() != SHAPE.len() || is_leap || !text.iter().zip(SHAPE).all(is_spelt) {
            return None;
        }
        let time: jiff::Timestamp = std::str::from_utf8(text).ok()?.parse().ok()?;
        u64::try_from(time.as_millisecond()).ok().map(Self)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX);
        let time = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        write!(f, "{}", time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ"))
    }
}

/// A line that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Counts from 1.
    pub index: u64,
    /// The hash of the line before; zeros in the first.
    pub previous: Digest,
    /// The endpoint's clock.
    pub time: Time,
    /// What it says.
    pub body: Body,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Something happened.
    Event(Box<Event>),
    /// The endpoint vouches for everything before.
    Checkpoint {
        /// The key that signed.
        key: KeyId,
        /// Of [`signed_text`].
        signature: [u8; 64],
    },
}

/// Why a line is none of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// Longer than [`MAX_LINE_BYTES`].
    #[error("it is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// The last line has no line feed.
    #[error("it is cut: no line feed ends it")]
    Cut,
    /// It does not begin as every line does.
    #[error("it does not begin with index, previous and time in their one spelling")]
    Head,
    /// What follows the head is neither an event nor a checkpoint.
    #[error("it is neither an event nor a checkpoint in its one spelling")]
    Body,
}

impl Line {
    /// The time of a line, looked at no further: to pass over many of them.
    #[must_use]
    pub fn time_of(line: &[u8]) -> Option<Time> {
        Head::parse(line).map(|(head, _)| head.time)
    }

    /// Reads a line, with its line feed.
    ///
    /// # Errors
    /// Anything that [`Chain`](super::Chain) would not have written so.
    pub fn parse(line: &[u8]) -> Result<Self, FormError> {
        let (head, text, rest) = parts(line)?;
        let body = match checkpoint(rest) {
            Some((key, signature)) => Body::Checkpoint { key, signature },
            None => Body::Event(Box::new(whole_event(&head, line, text).ok_or(FormError::Body)?)),
        };
        let Head {
            index,
            previous,
            time,
        } = head;
        Ok(Self {
            index,
            previous,
            time,
            body,
        })
    }
}

/// What a line is whose event nobody wants to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Event,
    Checkpoint { key: KeyId, signature: [u8; 64] },
}

/// Reads a line as [`Line::parse`] does, with the same errors, and makes no event of it.
pub(super) fn sort(line: &[u8]) -> Result<(Head, Sort), FormError> {
    let (head, text, rest) = parts(line)?;
    if let Some((key, signature)) = checkpoint(rest) {
        return Ok((head, Sort::Checkpoint { key, signature }));
    }
    let is_event = std::str::from_utf8(rest).is_ok_and(spelling::is_event);
    match is_event || whole_event(&head, line, text).is_some() {
        true => Ok((head, Sort::Event)),
        false => Err(FormError::Body),
    }
}

/// Its head, the line without its line feed, and of that what stands behind the head.
fn parts(line: &[u8]) -> Result<(Head, &[u8], &[u8]), FormError> {
    if line.len() > MAX_LINE_BYTES {
        return Err(FormError::TooLong);
    }
    let text = line.strip_suffix(b"\n").ok_or(FormError::Cut)?;
    let (head, rest) = Head::parse(text).ok_or(FormError::Head)?;
    Ok((head, text, rest))
}

/// What every line begins with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) index: u64,
    pub(super) previous: Digest,
    pub(super) time: Time,
}

impl Head {
    fn parse(text: &[u8]) -> Option<(Self, &[u8])> {
        let rest = text.strip_prefix(b"{\"index\":")?;
        let digits = rest.iter().position(|byte| *byte == b',')?;
        let (index, rest) = rest.split_at_checked(digits)?;
        let rest = rest.strip_prefix(b",\"previous\":\"")?;
        let (previous, rest) = rest.split_at_checked(64)?;
        let rest = rest.strip_prefix(b"\",\"time\":\"")?;
        let (time, rest) = rest.split_at_checked(TIME_BYTES)?;
        let head = Self {
            index: number(index)?,
            previous: hex::parse(previous).map(Digest)?,
            time: Time::parse(time)?,
        };
        Some((head, rest.strip_prefix(b"\",")?))
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            index,
            previous,
            time,
        } = self;
        write!(
            f,
            "{{\"index\":{index},\"previous\":\"{previous}\",\"time\":\"{time}\","
        )
    }
}

/// The line of an event, with its line feed.
pub(super) fn event_line(head: &Head, event: &Event) -> String {
    let event = serde_json::to_string(event).expect("an event is made of text and numbers");
    let members = event.strip_prefix('{').unwrap_or_default();
    format!("{head}{members}\n")
}

/// The line of a checkpoint, with its line feed.
pub(super) fn checkpoint_line(head: &Head, key: KeyId, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> String {
    let mut line = format!("{head}\"checkpoint\":\"{key}\",");
    let signature = sign(&[CHECKPOINT_DOMAIN, line.as_bytes()].concat());
    line += "\"signature\":\"";
    hex::write(&mut line, &signature).expect("a String takes every text");
    line + "\"}\n"
}

/// What the signature of a checkpoint is over: the line before the member `signature`.
pub(super) fn signed_text(line: &[u8]) -> Option<Vec<u8>> {
    const TAIL: usize = "\"signature\":\"".len() + 128 + "\"}\n".len();
    let signed = line.len().checked_sub(TAIL)?;
    Some([CHECKPOINT_DOMAIN, line.get(..signed)?].concat())
}

fn checkpoint(rest: &[u8]) -> Option<(KeyId, [u8; 64])> {
    let rest = rest.strip_prefix(b"\"checkpoint\":\"")?;
    let (key, rest) = rest.split_at_checked(16)?;
    let rest = rest.strip_prefix(b"\",\"signature\":\"")?;
    let (signature, rest) = rest.split_at_checked(128)?;
    if rest != b"\"}" {
        return None;
    }
    Some((KeyId::parse(key)?, hex::parse(signature)?))
}

fn whole_event(head: &Head, line: &[u8], text: &[u8]) -> Option<Event> {
    as_written(head, line).or_else(|| event(text))
}

/// What nearly every line is: an event exactly as this release writes it, so that one look at the text is enough.
fn as_written(head: &Head, line: &[u8]) -> Option<Event> {
    let event: Event = serde_json::from_slice(line).ok()?;
    let objects = [&event.parameters, &event.details].into_iter().flatten();
    let has_fraction = objects.flat_map(Map::values).any(has_fraction);
    (!has_fraction && event_line(head, &event).as_bytes() == line).then_some(event)
}

/// The whole line is one JSON object in its shortest spelling: no white space, no member twice, no number but integers,
/// no escape that is not needed.
fn event(text: &[u8]) -> Option<Event> {
    let mut members: Map<String, Value> = serde_json::from_slice(text).ok()?;
    if serde_json::to_vec(&members).ok()? != text || members.values().any(has_fraction) {
        return None;
    }
    for name in ["index", "previous", "time"] {
        members.shift_remove(name)?;
    }
    // what is not known is left out
    let by = members.get("by").and_then(Value::as_object)?;
    if members.values().chain(by.values()).any(Value::is_null) {
        return None;
    }
    serde_json::from_value(Value::Object(members)).ok()
}

fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(values) => values.iter().any(has_fraction),
        Value::Object(members) => members.values().any(has_fraction),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

/// Decimal digits without leading zero.
fn number(digits: &[u8]) -> Option<u64> {
    let is_spelt_so = (1..=MAX_DIGITS).contains(&digits.len())
        && digits.iter().all(u8::is_ascii_digit)
        && (digits.first() != Some(&b'0') || digits.len() == 1);
    let text = is_spelt_so.then(|| std::str::from_utf8(digits))?.ok()?;
    text.parse().ok()
}
