//! Who is asking, and whether they may: principals, keys, one authorization function.

mod authorize;
mod channel_token;
mod keys;
mod principal;

pub(crate) use authorize::*;
pub(crate) use channel_token::*;
pub(crate) use keys::*;
pub(crate) use principal::*;
