//! Signature Version 4: signing and verifying requests, and the registration signature made with a node's RSA key
//! (agent-wire §2.5, §3.1). Our own on ring: each reason for a refusal is ours to name, and no SDK is linked.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod canonical;
mod claim;
mod der;
mod registration;
mod request;

pub use claim::*;
pub use registration::*;
pub use request::*;
