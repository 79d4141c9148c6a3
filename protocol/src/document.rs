//! Command documents (schema 1.0, 1.2, 2.0, 2.0.x, 2.2) and session documents (schema 1.0): parse, parameters,
//! `{{ }}`, preconditions, and the plan of steps (documents.md §1, §6.1; client-wire §7).
//!
//! Member names are matched without regard to case and unknown members are ignored, as published documents need.

mod command;
mod parameter;
mod session;
mod substitution;

pub use command::*;
pub use parameter::*;
pub use session::*;
