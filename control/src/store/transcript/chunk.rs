//! A chunk of a recording as it arrives, and what becomes of it.

use std::borrow::Cow;

use bytes::Bytes;
use moorline_protocol::transcript::{BadBlocks, Blocks};

use super::TranscriptState;

/// A piece of a recording, and where it belongs.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub(crate) offset: u64,
    pub(crate) body: ChunkBody,
    /// Nothing follows.
    pub(crate) is_last: bool,
    /// It is answered when it is on the disk for good.
    pub(crate) is_durable: bool,
}

/// The bytes of the recording.
#[derive(Debug, Clone)]
pub(crate) enum ChunkBody {
    Plain(Bytes),
    Blocks(Blocks),
}

impl ChunkBody {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Blocks(blocks) => blocks.len(),
        }
    }

    /// One after the other, so that little is held of what is more than came.
    pub(super) fn pieces(&self) -> Box<dyn Iterator<Item = Result<Cow<'_, [u8]>, BadBlocks>> + '_> {
        match self {
            Self::Plain(bytes) => Box::new(std::iter::once(Ok(Cow::Borrowed(&bytes[..])))),
            Self::Blocks(blocks) => Box::new(blocks.pieces()),
        }
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
    /// Its blocks cannot be read.
    Garbled(BadBlocks),
}
