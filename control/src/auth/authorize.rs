//! The one function that every operation passes. Deny by default.

use super::Principal;

/// What an operation acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resource {
    /// Nothing in particular, or many things: lists, creations.
    Any,
    Activation(String),
    Command(String),
    Document(String),
    Node(String),
    Session(String),
}

/// The refusal; its text names who, what and on what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{principal} is not authorized to perform {action} on {resource:?}")]
pub(crate) struct Denied {
    pub(crate) principal: String,
    pub(crate) action: String,
    pub(crate) resource: Resource,
}

/// May `principal` perform `action` (`ssm:SendCommand`, `ssmmessages:OpenDataChannel`, …) on `resource`?
pub(crate) fn authorize(principal: &Principal, action: &str, resource: &Resource) -> Result<(), Denied> {
    let _ = (principal, action, resource);
    todo!()
}
