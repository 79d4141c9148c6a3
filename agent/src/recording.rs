//! Recordings of what is done on this node (docs/transcript-format.md): of sessions and of commands alike.
//!
//! A [`Recorder`] makes sealed lines of what happens, a [`Spool`] keeps them on the disk, and the [`Courier`], in the
//! daemon, brings what is there to the endpoint: what commands record while they run, and what workers have left.

mod courier;
mod means;
mod mending;
mod packed;
mod place;
mod recorder;
mod spool;
mod spooled;
mod syncing;

pub(crate) use courier::{Courier, Recorders, RefusedRecording};
pub(crate) use means::{Means, Missing, is_plain_path};
pub(crate) use packed::Packed;
pub(crate) use place::{Chunk, SendError, TranscriptPlace};
pub(crate) use recorder::{About, MASK, Masker, Piece, Recorder, Size, as_on_terminal};
pub(crate) use spool::{Deliverer, Spool, SpoolLimits};
