//! The endpoint's side: it verifies a recording while it arrives.

use thiserror::Error;

use crate::public_keys::{KeyId, PublicKey};

use super::{
    chain::{Chain, Fault},
    header::{Header, RecordingId},
    line::{Line, SealLine},
    lines::{Cut, Lines},
    seal::{Sealer, seal_text},
    word::{Digest, Time},
};

/// The longest recording, in bytes: 1 GB of what a terminal shows, each byte of it escaped at worst as three or so.
pub const MAX_RECORDING_BYTES: u64 = 4 << 30;

/// A place in a recording: behind a seal, or its end. From one behind a seal a [`Receiver`] goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// That of the last line; zero if there is but the header.
    pub time: Time,
    /// The last sealed record; 0 if there is none.
    pub record: u64,
    /// Its hash. At an end that nobody sealed: the hash that the next seal would have there.
    pub hash: Digest,
    /// Bytes up to here.
    pub length: u64,
    /// The key that seals, as the header says.
    pub node_key: KeyId,
}

/// Why what a node sends is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("record {record}, the line at byte {offset} of the recording: {fault}")]
pub struct Refusal {
    /// The record it is in.
    pub record: u64,
    /// Where its line begins, in bytes from the begin of the recording.
    pub offset: u64,
    /// What is wrong.
    pub fault: Fault,
}

/// Takes a recording in pieces that are cut anywhere, from its begin or from behind a seal.
///
/// It holds at most one line that is not whole yet.
#[derive(Debug, Clone)]
pub struct Receiver {
    id: RecordingId,
    node: String,
    keys: Vec<PublicKey>,
    /// Among `keys`, the one that the header names.
    key: Option<PublicKey>,
    chain: Chain,
    lines: Lines,
    time: Time,
    /// Bytes of whole lines.
    length: u64,
    refused: Option<Refusal>,
}

impl Receiver {
    /// For a recording of this name from this node, of which nothing has come. `keys` are all that the node has
    /// registered.
    #[must_use]
    pub fn new(id: RecordingId, node: String, keys: Vec<PublicKey>) -> Self {
        Self {
            id,
            node,
            keys,
            key: None,
            chain: Chain::after(0, Digest::default()),
            lines: Lines::default(),
            time: Time::default(),
            length: 0,
            refused: None,
        }
    }

    /// Goes on behind a seal, as [`Receiver::push`] told it. The bytes from `at.length` on are pushed next.
    #[must_use]
    pub fn resume(id: RecordingId, node: String, keys: Vec<PublicKey>, at: &Position) -> Self {
        Self {
            key: keys.iter().find(|key| key.id() == at.node_key).copied(),
            chain: Chain::after(at.record, at.hash),
            time: at.time,
            length: at.length,
            ..Self::new(id, node, keys)
        }
    }

    /// Takes what comes next, and tells each seal that it verified.
    ///
    /// # Errors
    ///
    /// The first place that is wrong. Nothing more is taken then: each further call says the same.
    pub fn push(&mut self, bytes: &[u8], mut on_seal: impl FnMut(Position)) -> Result<(), Refusal> {
        if let Some(refusal) = self.refused {
            return Err(refusal);
        }
        let mut lines = std::mem::take(&mut self.lines);
        let mut rest = bytes;
        while let Some(cut) = lines.next(&mut rest) {
            let taken = match cut {
                Cut::Line(line) => self.take(line),
                Cut::Overlong { .. } => Err(Fault::Overlong),
            };
            match taken {
                Ok(None) => {}
                Ok(Some(position)) => on_seal(position),
                Err(fault) => {
                    let refusal = Refusal {
                        record: self.chain.record + 1,
                        offset: self.length,
                        fault,
                    };
                    self.refused = Some(refusal);
                    return Err(refusal);
                }
            }
        }
        self.lines = lines;
        Ok(())
    }

    /// Whose recording it takes.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Bytes that it has taken, from the begin of the recording.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.length + self.lines.partial().len() as u64
    }

    /// Bytes of memory that it takes for a line that is not whole yet.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.lines.held_bytes()
    }

    /// Where the recording ends as far as it has come, a last line that is not whole left out: what a close is written
    /// for. `None` before the header.
    #[must_use]
    pub fn end(&self) -> Option<Position> {
        let hash = match self.chain.open_bytes {
            0 => self.chain.hash,
            _ => self.chain.open_hash(),
        };
        Some(Position {
            time: self.time,
            record: self.chain.record,
            hash,
            length: self.length,
            node_key: self.key?.id(),
        })
    }

    /// Goes on sealing where this ends: what was received is the node's own. A line that is not whole is left out.
    pub(super) fn into_sealer(self) -> Sealer {
        Sealer::behind(self.id, self.chain)
    }

    fn take(&mut self, line: &[u8]) -> Result<Option<Position>, Fault> {
        if self.length + line.len() as u64 > MAX_RECORDING_BYTES {
            return Err(Fault::TooLong);
        }
        let Some(key) = self.key else {
            self.key = Some(self.header_key(line)?);
            self.event(line);
            return Ok(None);
        };
        match Line::parse(line)? {
            Line::Event(event) => {
                self.time = event.time;
                self.event(line);
                Ok(None)
            }
            Line::Seal(seal) => {
                self.check(&seal, &key)?;
                self.chain = Chain::after(seal.record, seal.hash);
                self.time = seal.time;
                self.length += line.len() as u64;
                Ok(self.end())
            }
            Line::Endpoint(_) => Err(Fault::CountersignedByNode),
        }
    }

    fn event(&mut self, line: &[u8]) {
        self.chain.event(line);
        self.length += line.len() as u64;
    }

    fn header_key(&self, line: &[u8]) -> Result<PublicKey, Fault> {
        let origin = Header::parse(line)?.origin;
        if self.length > 0 || origin.id != self.id || origin.node != self.node {
            return Err(Fault::OtherRecording);
        }
        let mut keys = self.keys.iter();
        keys.find(|key| key.id() == origin.node_key)
            .copied()
            .ok_or(Fault::UnknownNodeKey)
    }

    fn check(&self, seal: &SealLine, key: &PublicKey) -> Result<(), Fault> {
        let text = seal_text(&self.id, &seal.unsigned());
        if !key.has_signed(text.as_bytes(), &seal.signature.0) {
            return Err(Fault::SealSignature);
        }
        self.chain.check(seal)
    }
}
