//! The operations of the SSM API and their shapes: JSON 1.1 in, JSON 1.1 out, checked against the model.
//!
//! One module per capability holds what `cargo xtask codegen` made of `model/`: a marker type per operation,
//! which implements [`Operation`], and a structure per shape. [`shared`] has the shapes that several
//! capabilities use; each of them names those it needs, so `command::Target` works as well as
//! `shared::Target`. Written by hand are this file, [`Violations`] and the scalars.
//!
//! Every member is an `Option`, so that whatever a peer leaves out is told apart from what it sends empty; call
//! [`validate`] to learn what is wrong with an input, in the words of AWS.

mod constraint;
mod macros;
mod scalar;
#[cfg(test)]
mod tests;

pub mod activation;
pub mod association;
pub mod audit;
pub mod command;
pub mod compliance;
pub mod document;
mod error_code;
pub mod inventory;
pub mod kms;
mod known;
pub mod message_delivery;
pub mod node;
pub mod node_group;
mod operation_id;
pub mod operator;
pub mod parameter;
pub mod public_key;
mod rules;
pub mod session;
pub mod shared;
pub mod tag;
pub mod transcript;

pub use constraint::{Path, Violations};
pub use error_code::ErrorCode;
pub use known::KNOWN_OPERATIONS;
pub use operation_id::OperationId;
pub use scalar::{Blob, EpochSeconds};

/// One call of the API, as a type: `SendCommand` rather than `"SendCommand"`.
///
/// The codec's functions have their bodies in this crate on purpose: a router that is generic over operations
/// then has no serde code of 1,000 shapes to compile.
pub trait Operation: 'static {
    /// What stands before the dot in `X-Amz-Target`.
    const PREFIX: &'static str;
    /// What stands after it.
    const NAME: &'static str;
    /// The same as a value.
    const ID: OperationId;
    /// The errors that the model names for this operation; the common ones may come as well.
    const ERRORS: &'static [ErrorCode];

    type Input: Shape + Send;
    type Output: Shape + Send;

    /// Reads a request's body; an empty one means `{}`.
    fn decode_input(body: &[u8]) -> serde_json::Result<Self::Input>;
    /// Writes a request's body.
    fn encode_input(input: &Self::Input) -> Vec<u8>;
    /// Reads the body of a successful reply; an empty one means `{}`.
    fn decode_output(body: &[u8]) -> serde_json::Result<Self::Output>;
    /// Writes the body of a successful reply.
    fn encode_output(output: &Self::Output) -> Vec<u8>;
}

/// A structure of the model that knows its constraints.
pub trait Shape {
    /// Adds what is wrong with this value, found at `path`, to `violations`.
    ///
    /// Constraints are generated for what inputs reach; shapes that only occur in outputs have none.
    fn validate(&self, _path: &mut Path, _violations: &mut Violations) {}
}

/// Checks an input against the constraints of the model.
///
/// # Errors
///
/// Everything that is wrong with it, up to a bound; the text is fit for a `ValidationException`.
pub fn validate(input: &impl Shape) -> Result<(), Violations> {
    let mut violations = Violations::default();
    input.validate(&mut Path::default(), &mut violations);
    if violations.is_empty() {
        Ok(())
    } else {
        Err(violations)
    }
}

/// Whether some model has this operation, generated here or not: tells "not implemented" from "misspelt".
pub fn is_known_operation(prefix: &str, name: &str) -> bool {
    KNOWN_OPERATIONS
        .iter()
        .any(|(known, names)| *known == prefix && names.binary_search(&name).is_ok())
}
