//! Transcripts: recordings that say themselves whether they were altered (docs/transcript-format.md).
//!
//! The node writes event lines and has them sealed, record by record ([`Sealer`]). The endpoint verifies each seal as
//! it arrives ([`Receiver`]) and signs what it took ([`Countersigner`]); an export has both ([`Weaver`]). An auditor
//! verifies that with public keys only ([`Verifier`]). Bytes in, bytes out: clocks, keys that sign and files are the
//! caller's, and nothing here holds a recording as a whole.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod blocks;
mod chain;

mod countersign;
mod encryption;
mod header;
mod line;
mod lines;
mod output;
mod parts;
mod receive;
mod remains;
mod seal;
mod terminal_filter;
mod verify;
mod weave;
mod word;

pub use self::{
    blocks::{BadBlocks, Blocks, MAX_BLOCK_BYTES, MAX_UNPACKED_BYTES},
    chain::Fault,
    countersign::{Countersigner, Ending},
    encryption::{DataKey, Decryptor, Encryptor, NotDecrypted},
    header::{Encryption, Header, HeaderError, Origin, RecordingId, RecordingKind},
    line::{Code, EndpointLine, Event, FormError, Line, SealLine, event_line, json_plain_length},
    lines::MAX_LINE_BYTES,
    output::{OutputError, OutputPiece, OutputReader, OutputStep, OutputStream},
    parts::{PartFault, PartFinding, check_parts},
    receive::{MAX_RECORDING_BYTES, Position, Receiver, Refusal},
    remains::{Remains, Survey},
    seal::Sealer,
    terminal_filter::TerminalFilter,
    verify::{ClockRemark, Finding, Outcome, Remark, Verdict, Verifier},
    weave::Weaver,
    word::{Digest, Signature, Time},
};

#[cfg(test)]
mod tests;
