//! Who this node is: its registration, its key, its fingerprint, its role credentials.

mod credential_supply;
mod credentials;
mod fingerprint;
mod key;
mod learned;
mod register;
mod registration;
mod transcript_key;

pub(crate) use credential_supply::CredentialSupply;
pub(crate) use credentials::keep_fresh;
pub(crate) use key::{KeyError, NodeKey};
pub(crate) use learned::{Learned, note, recall};
pub(crate) use register::{Registrar, register};
pub(crate) use registration::{Registration, RegistrationError, RoleCredentialsError};
pub(crate) use transcript_key::TranscriptKey;
