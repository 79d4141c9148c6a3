//! The audit log: who did what, from where, on which node, and how it went (docs/audit-log.md).
//!
//! [`CallRecord`] follows one request and says at its end what it was; [`rule`] decides per operation what is recorded
//! and what waits for it. [`AuditLog`] takes records from everywhere; one thread writes and signs them.

mod call;
mod log;
mod marked_secrets;
mod mask;
mod occurrence;
mod query;
mod repeats;
mod rule;
mod segments;
mod writer;

pub(crate) use call::{CallRecord, Source};
pub(crate) use log::{AuditLog, NotRecorded};
pub(crate) use mask::MASKED;
pub(crate) use occurrence::{RecordedContent, tell_ends_of_sessions};
pub(crate) use query::{AuditFilter, AuditPage, Position};
pub(crate) use segments::SegmentError;

#[cfg(test)]
mod tests;
