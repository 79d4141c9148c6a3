//! Who is asking, and whether they may: principals, keys, one authorization function.

mod attachment_url;
mod authenticate;
mod authorize;
mod channel_token;
mod keys;
mod kms_keys;
mod lately_registered;
mod principal;
mod role_credentials;
mod signing_key;

#[cfg(test)]
pub(crate) use attachment_url::ATTACHMENT_URL_LIFETIME_MILLIS;
pub(crate) use authenticate::*;
pub(crate) use authorize::*;
pub(crate) use channel_token::*;
pub(crate) use keys::*;
pub(crate) use kms_keys::*;
pub(crate) use lately_registered::LatelyRegistered;
pub(crate) use principal::*;
#[cfg(test)]
pub(crate) use role_credentials::ROLE_CREDENTIALS_LIFETIME_MILLIS;
pub(crate) use signing_key::*;
