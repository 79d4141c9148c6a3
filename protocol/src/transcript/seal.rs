//! The node's side: it closes records.

use super::{
    chain::Chain,
    header::RecordingId,
    line::{SealLine, signed, signed_text},
    word::{Digest, Signature, Time},
};

/// Seals the records of one recording, from its first.
#[derive(Debug)]
pub struct Sealer {
    id: RecordingId,
    chain: Chain,
}

impl Sealer {
    /// For a recording that has no line yet.
    #[must_use]
    pub fn new(id: RecordingId) -> Self {
        Self {
            id,
            chain: Chain::after(0, Digest::default()),
        }
    }

    /// For one that has these records, and perhaps an open one.
    pub(super) fn behind(id: RecordingId, chain: Chain) -> Self {
        Self { id, chain }
    }

    /// Takes whole lines with their line feeds into the open record: first the header, then events.
    pub fn push(&mut self, lines: &[u8]) {
        self.chain.event(lines);
    }

    /// Bytes in the open record. With none there is nothing to seal.
    #[must_use]
    pub fn open_bytes(&self) -> u64 {
        self.chain.open_bytes
    }

    /// The hash of the last record that was closed; zeros before the first.
    #[must_use]
    pub fn last_hash(&self) -> Digest {
        self.chain.hash
    }

    /// Closes the open record at this time of the recording and of the node's clock; `sign` makes an Ed25519 signature by
    /// the key that the header names. The seal line, with its line feed, stands directly behind the record.
    ///
    /// `None` if the record is empty.
    pub fn seal(
        &mut self,
        time: Time,
        unix_millis: u64,
        sign: impl FnOnce(&[u8]) -> [u8; 64],
    ) -> Option<String> {
        if self.chain.open_bytes == 0 {
            return None;
        }
        let seal = SealLine {
            time,
            record: self.chain.record + 1,
            previous: self.chain.hash,
            hash: self.chain.open_hash(),
            unix_millis,
            signature: Signature([0; 64]),
        };
        self.chain = Chain::after(seal.record, seal.hash);
        let unsigned = seal.unsigned();
        let signature = sign(seal_text(&self.id, &unsigned).as_bytes());
        Some(signed(unsigned, &signature))
    }
}

/// What a seal's signature is over.
pub(super) fn seal_text(id: &RecordingId, unsigned: &str) -> String {
    signed_text("seal", id.as_str(), unsigned)
}
