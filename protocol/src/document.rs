//! Command documents (schema 1.0, 1.2, 2.0, 2.0.x, 2.2) and session documents (schema 1.0): parse, parameters,
//! `{{ }}`, preconditions, the plan of steps and its course (documents.md §1, §6.1; client-wire §7).
//!
//! Member names are matched without regard to case and unknown members are ignored, as published documents need.
//! Content is bounded before it is looked at: [`MAX_CONTENT_BYTES`], [`MAX_DEPTH`], [`MAX_STEPS`],
//! [`MAX_PARAMETERS`], and [`MAX_INSERTED_BYTES`] for what the parameters add.

mod command;
mod content;
mod definition;
mod digest;
mod environment;
mod flow;
mod lint;
mod parameter;
mod pattern;
mod precondition;
mod preferences;
mod secret;
mod session;
mod substitution;
mod text;

pub use command::*;
pub use content::{MAX_CONTENT_BYTES, MAX_DEPTH, member};
pub use definition::*;
pub use digest::{Digest, InvalidDigest, one_form};
pub use flow::*;
pub use parameter::*;
pub use pattern::AllowedPattern;
pub use preferences::{PREFERENCES_DOCUMENT, complete_session};
pub use secret::{is_secret_name, marked_secrets};
pub use session::*;
pub use substitution::MAX_INSERTED_BYTES;
pub use text::{MAX_TEXT_BYTES, TextFormat, read_text, write_yaml};
