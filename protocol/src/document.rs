//! Command documents (schema 1.0, 1.2, 2.0, 2.0.x, 2.2) and session documents (schema 1.0): parse, parameters,
//! `{{ }}`, preconditions, and the plan of steps (documents.md §1, §6.1; client-wire §7).
//!
//! Member names are matched without regard to case and unknown members are ignored, as published documents need.
//! Content is bounded before it is looked at: [`MAX_CONTENT_BYTES`], [`MAX_DEPTH`], [`MAX_STEPS`],
//! [`MAX_PARAMETERS`], and [`MAX_INSERTED_BYTES`] for what the parameters add.

mod command;
mod content;
mod definition;
mod parameter;
mod pattern;
mod precondition;
mod session;
mod substitution;

pub use command::*;
pub use content::{MAX_CONTENT_BYTES, MAX_DEPTH, member};
pub use definition::*;
pub use parameter::*;
pub use session::*;
pub use substitution::MAX_INSERTED_BYTES;
