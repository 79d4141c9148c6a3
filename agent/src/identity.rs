//! Who this node is: its registration, its key, its fingerprint, its role credentials.

mod registration;

pub(crate) use registration::{Registration, RegistrationError};
