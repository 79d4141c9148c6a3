//! A chunk of a recording as it arrives, and what becomes of it.

use bytes::Bytes;
use moorline_protocol::transcript::{NotCompressed, decompressed};

use super::TranscriptState;

/// A piece of a recording, and where it belongs.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
    /// They are an LZ4 block, of so many.
    pub(crate) compressed_from: Option<usize>,
    /// Nothing follows.
    pub(crate) is_last: bool,
    /// It is answered when it is on the disk for good.
    pub(crate) is_durable: bool,
}

impl Chunk {
    /// With the bytes of the recording.
    pub(super) fn plain(mut self) -> Result<Self, NotCompressed> {
        if let Some(length) = self.compressed_from.take() {
            self.bytes = decompressed(&self.bytes, length)?.into();
        }
        Ok(self)
    }
}

/// What became of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Appended {
    /// It is stored; this many bytes are now.
    Stored(u64, TranscriptState),
    /// It does not begin where the recording ends.
    WrongOffset(u64),
    /// The recording would pass [`MAX_RECORDING_BYTES`](moorline_protocol::transcript::MAX_RECORDING_BYTES).
    TooLong(u64),
    /// It would add to a recording that is closed.
    Closed(u64),
    /// Its chain is broken, and why. What was good is kept, and the recording is closed.
    Broken(String),
    /// The file system is nearly full.
    NoRoom,
    /// Its node would have more than its share of the file system.
    OverShare,
    /// What it is compressed to cannot be read.
    Garbled(NotCompressed),
}
