//! The endpoint's side: it signs what it took.

use std::fmt;

use ring::digest::{SHA256, digest};

use super::{
    header::RecordingId,
    line::{EndpointLine, signed, signed_text},
    receive::Position,
    word::{Digest, Signature},
};
use crate::public_keys::KeyId;

/// How a recording ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The node said that it is the end.
    Complete,
    /// The node did not come back to say so.
    Cut,
}

impl Ending {
    pub(super) fn parse(word: &[u8]) -> Option<Self> {
        match word {
            b"complete" => Some(Self::Complete),
            b"cut" => Some(Self::Cut),
            _ => None,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Complete => "complete",
            Self::Cut => "cut",
        })
    }
}

/// Writes the endpoint's lines of one recording.
#[derive(Debug, Clone)]
pub struct Countersigner {
    id: RecordingId,
    key: KeyId,
    /// The last line's number; 0 before the first.
    number: u64,
    /// The last line's hash.
    previous: Digest,
}

impl Countersigner {
    /// For a recording that has `last` as its newest line of the endpoint, with or without line feed; `None` before the
    /// first. `number` says how many there are. `key` signs from now on.
    #[must_use]
    pub fn new(id: RecordingId, key: KeyId, number: u64, last: Option<&str>) -> Self {
        Self {
            id,
            key,
            number,
            previous: last.map(|line| line_hash(line.as_bytes())).unwrap_or_default(),
        }
    }

    /// The line for what was received up to a seal, with its line feed. `unix_millis` is the endpoint's clock, `sign`
    /// makes an Ed25519 signature.
    pub fn countersign(
        &mut self,
        at: &Position,
        unix_millis: u64,
        sign: impl FnOnce(&[u8]) -> [u8; 64],
    ) -> String {
        self.write(at, unix_millis, None, sign)
    }

    /// The last line of a recording; nothing may be added to it afterwards. `at` is [`Receiver::end`].
    ///
    /// [`Receiver::end`]: super::Receiver::end
    pub fn close(
        &mut self,
        at: &Position,
        unix_millis: u64,
        ending: Ending,
        sign: impl FnOnce(&[u8]) -> [u8; 64],
    ) -> String {
        self.write(at, unix_millis, Some(ending), sign)
    }

    fn write(
        &mut self,
        at: &Position,
        unix_millis: u64,
        ending: Option<Ending>,
        sign: impl FnOnce(&[u8]) -> [u8; 64],
    ) -> String {
        self.number += 1;
        let unsigned = EndpointLine {
            time: at.time,
            number: self.number,
            record: at.record,
            previous: self.previous,
            hash: at.hash,
            length: at.length,
            unix_millis,
            key: self.key,
            ending,
            signature: Signature([0; 64]),
        }
        .unsigned();
        let signature = sign(endpoint_text(&self.id, &unsigned).as_bytes());
        let line = signed(unsigned, &signature);
        self.previous = line_hash(line.as_bytes());
        line
    }
}

/// What a countersignature's signature is over.
pub(super) fn endpoint_text(id: &RecordingId, unsigned: &str) -> String {
    signed_text("countersign", id.as_str(), unsigned)
}

/// What the next line of the endpoint calls the one before: over `[` up to and with `]`.
pub(super) fn line_hash(line: &[u8]) -> Digest {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut hash = Digest::default();
    hash.0.copy_from_slice(digest(&SHA256, line).as_ref());
    hash
}
