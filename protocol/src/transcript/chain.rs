//! The chain of records: what each record's hash is, and whether a seal says so.

use ring::digest::{Context, SHA256};
use thiserror::Error;

use super::{
    header::HeaderError,
    line::{FormError, SealLine},
    word::Digest,
};

/// What a record's hash begins with.
const RECORD: &[u8] = b"moorline transcript record 1\n";

/// The records so far, and the one that is open. Of that it holds no byte.
#[derive(Clone)]
pub(super) struct Chain {
    /// The number of the last sealed record; 0 before the first.
    pub(super) record: u64,
    /// Its hash; zeros before the first.
    pub(super) hash: Digest,
    open: Context,
    /// Bytes in the open record.
    pub(super) open_bytes: u64,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            record,
            hash,
            open: _,
            open_bytes,
        } = self;
        f.debug_struct("Chain")
            .field("record", record)
            .field("hash", hash)
            .field("open_bytes", open_bytes)
            .finish_non_exhaustive()
    }
}

impl Chain {
    /// After so many records, the last with this hash.
    pub(super) fn after(record: u64, hash: Digest) -> Self {
        let mut open = Context::new(&SHA256);
        open.update(RECORD);
        open.update(&hash.0);
        Self {
            record,
            hash,
            open,
            open_bytes: 0,
        }
    }

    /// Takes bytes of event lines into the open record.
    pub(super) fn event(&mut self, bytes: &[u8]) {
        self.open.update(bytes);
        self.open_bytes += bytes.len() as u64;
    }

    /// The hash that the seal of the open record has in this place.
    pub(super) fn open_hash(&self) -> Digest {
        Digest::of(self.open.clone())
    }

    /// Whether a seal says what the chain says, its signature aside.
    pub(super) fn check(&self, seal: &SealLine) -> Result<(), Fault> {
        if seal.record != self.record + 1 {
            return Err(Fault::SealNumber {
                found: seal.record,
                expected: self.record + 1,
            });
        }
        if seal.previous != self.hash {
            return Err(Fault::SealPrevious);
        }
        if self.open_bytes == 0 {
            return Err(Fault::EmptyRecord);
        }
        if seal.hash != self.open_hash() {
            return Err(Fault::RecordHash);
        }
        Ok(())
    }
}

/// What is wrong at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fault {
    /// A line has not the form of one.
    #[error("{0}")]
    Form(#[from] FormError),
    /// The first line is no header.
    #[error("this is no header of a transcript: {0}")]
    Header(#[from] HeaderError),
    /// A line is longer than 8 MiB.
    #[error("this line is longer than 8 MiB")]
    Overlong,
    /// The file ends inside a line.
    #[error("the file ends inside this line")]
    Unfinished,
    /// The header names another recording, as an endpoint expects it.
    #[error("the header names another recording or another node")]
    OtherRecording,
    /// The recording is longer than 4 GiB.
    #[error("the recording is longer than 4 GiB")]
    TooLong,
    /// A node sent what only an endpoint writes.
    #[error("a node's recording has no countersignatures")]
    CountersignedByNode,
    /// The key that the header names is none of the node's.
    #[error("the key that the header names is not among the keys of this node")]
    UnknownNodeKey,
    /// The seal's signature is not the node's.
    #[error("the signature of this seal is not the node's: the seal was altered or made by somebody else")]
    SealSignature,
    /// A record is missing, doubled or in another place.
    #[error("this is the seal of record {found} where that of record {expected} belongs")]
    SealNumber {
        /// What the seal says.
        found: u64,
        /// What comes next in the chain.
        expected: u64,
    },
    /// The seal follows another record.
    #[error("this seal follows another record than the one before it")]
    SealPrevious,
    /// A seal closes nothing.
    #[error("this seal closes a record without events")]
    EmptyRecord,
    /// The events are not those that were sealed.
    #[error("the events of this record are not those that the node sealed")]
    RecordHash,
    /// A countersignature stands elsewhere than behind its seal.
    #[error("this countersignature does not stand behind the seal that it is for")]
    EndpointPlace,
    /// The endpoint's key is unknown.
    #[error("the key of this countersignature is not among the keys of the endpoint")]
    UnknownEndpointKey,
    /// The countersignature is not the endpoint's.
    #[error(
        "the signature of this countersignature is not the endpoint's: it was altered or made by somebody else"
    )]
    EndpointSignature,
    /// A countersignature is missing, doubled or in another place.
    #[error("this is countersignature {found} where number {expected} belongs")]
    EndpointNumber {
        /// What the line says.
        found: u64,
        /// What comes next.
        expected: u64,
    },
    /// The countersignature follows another one.
    #[error("this countersignature follows another one than the one before it")]
    EndpointPrevious,
    /// The endpoint countersigned something else.
    #[error("the endpoint countersigned another hash")]
    EndpointHash,
    /// The endpoint countersigned another length.
    #[error("the endpoint countersigned another length of the recording")]
    EndpointLength,
    /// Something follows the close.
    #[error("this stands behind the end of the recording")]
    AfterClose,
    /// The end is missing.
    #[error(
        "the recording does not end here: the endpoint has not closed it (it runs still, or its end was cut off)"
    )]
    NotClosed,
    /// As before, and records at the end lack a countersignature.
    #[error(
        "the recording does not end here, and its last record is not countersigned (it runs still, or its end was cut off)"
    )]
    NotCountersigned,
}
