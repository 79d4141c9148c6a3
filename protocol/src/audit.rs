//! The endpoint's audit log: a chain of lines that says itself whether it was altered (docs/audit-log.md).
//!
//! [`Chain`] makes the lines, [`Verifier`] reads them with public keys only, [`Event`] is what they say. Bytes in, bytes
//! out: clocks, the key that signs and files are the caller's, and nothing here holds a log as a whole.

mod chain;
mod event;
mod line;
mod spelling;
mod verify;

pub use self::{
    chain::{Chain, Checkpoint},
    event::{Actor, ActorKind, Event, EventKind},
    line::{Body, Digest, FormError, Line, MAX_LINE_BYTES, Time},
    verify::{Fault, Finding, Outcome, Verifier},
};

#[cfg(test)]
mod tests;
