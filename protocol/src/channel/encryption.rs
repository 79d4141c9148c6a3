//! Encryption of a session's data between its two ends (client-wire §4.6): AES-256-GCM under two keys, one a direction,
//! which are the halves of one data key of KMS.
//!
//! The protocol, not we, decides what that protects: the content of output and input against whoever carries it. The
//! header of a message and its number are not bound to the ciphertext, and sizes, flags and the handshake stay clear.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::Role;
use crate::message::PayloadType;

/// By how much an encrypted payload is longer: a nonce of 12 bytes before the ciphertext, a tag of 16 behind.
pub(super) const OVERHEAD_BYTES: usize = NONCE_LEN + 16;

/// The plaintext of a session's data key. It is overwritten when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct DataKey(Zeroizing<[u8; Self::BYTES]>);

impl DataKey {
    /// What a client asks KMS for.
    pub const BYTES: usize = 64;

    /// `None` for another length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| Self(Zeroizing::new(bytes)))
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(***)")
    }
}

/// What a data key is bound to in KMS. `target_id` is the plain id of the node, and `challenge` the node's, unless the
/// client did not take it in.
pub fn encryption_context(
    session_id: &str,
    target_id: &str,
    challenge: Option<&str>,
) -> BTreeMap<String, String> {
    let entries = [
        ("aws:ssm:SessionId", Some(session_id)),
        ("aws:ssm:TargetId", Some(target_id)),
        ("aws:ssm:RandomChallenge", challenge),
    ];
    entries
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect()
}

/// One end's two keys.
#[derive(Debug)]
pub(super) struct Cipher {
    sealing: LessSafeKey,
    opening: LessSafeKey,
    nonce: u128,
}

impl Cipher {
    /// Nonces are `first_nonce` and those counted up from it, 96 bits wide: no nonce comes twice under one key, since
    /// this end alone seals with it, a data key is of one handshake, and 2^96 messages are never sent. Where a process
    /// begins anew with an old data key, which ours never does, its random start would still keep them apart.
    pub(super) fn new(role: Role, key: &DataKey, first_nonce: [u8; NONCE_LEN]) -> Self {
        let (to_client, to_agent) = key.0.split_at(DataKey::BYTES / 2);
        let (sealing, opening) = match role {
            Role::Agent => (to_client, to_agent),
            Role::Client => (to_agent, to_client),
        };
        let key = |bytes| {
            let key = UnboundKey::new(&AES_256_GCM, bytes);
            LessSafeKey::new(key.expect("AES-256 takes the 32 bytes that half a data key is"))
        };
        let mut nonce = [0; 16];
        nonce[16 - NONCE_LEN..].copy_from_slice(&first_nonce);
        Self {
            sealing: key(sealing),
            opening: key(opening),
            nonce: u128::from_be_bytes(nonce),
        }
    }

    fn next_nonce(&mut self) -> [u8; NONCE_LEN] {
        let nonce = self.nonce.to_be_bytes();
        self.nonce = self.nonce.wrapping_add(1);
        // the lower 96 bits go round by themselves
        nonce.last_chunk().copied().unwrap_or_default()
    }

    /// Nonce, ciphertext, tag.
    pub(super) fn seal(&mut self, payload: &[u8]) -> Vec<u8> {
        let nonce = self.next_nonce();
        let mut text = payload.to_vec();
        let tag = self
            .sealing
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut text)
            .expect("a payload is far below AES-GCM's limit");
        [&nonce[..], &text, tag.as_ref()].concat()
    }

    /// `None` unless the peer sealed exactly this.
    pub(super) fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self
            .opening
            .open_in_place(nonce, Aad::empty(), &mut text)
            .ok()?
            .len();
        text.truncate(length);
        Some(text)
    }
}

/// Whether a session's data is encrypted.
#[derive(Debug)]
pub(super) enum Encryption {
    Off,
    On(Box<Cipher>),
    /// It was to be, and failed: nothing is handed out or sent any more.
    Broken,
}

impl Encryption {
    pub(super) fn is_on(&self) -> bool {
        matches!(self, Self::On(_))
    }

    pub(super) fn is_broken(&self) -> bool {
        matches!(self, Self::Broken)
    }

    /// By how much a payload of this type from this end is longer on the wire.
    pub(super) fn overhead(&self, sender: Role, payload_type: PayloadType) -> usize {
        if self.is_on() && is_encrypted(sender, payload_type) {
            OVERHEAD_BYTES
        } else {
            0
        }
    }

    /// A payload as it goes onto the wire.
    pub(super) fn seal(&mut self, sender: Role, payload_type: PayloadType, payload: Bytes) -> Bytes {
        match self {
            Self::On(cipher) if is_encrypted(sender, payload_type) => cipher.seal(&payload).into(),
            _ => payload,
        }
    }

    /// A payload as it came from the wire; `None` when it is not what the peer sealed.
    pub(super) fn open(&self, sender: Role, payload_type: PayloadType, payload: Bytes) -> Option<Bytes> {
        match self {
            Self::On(cipher) if is_encrypted(sender, payload_type) => cipher.open(&payload).map(Bytes::from),
            Self::Broken => None,
            _ => Some(payload),
        }
    }
}

/// The types that are encrypted, which differ by sender.
fn is_encrypted(sender: Role, payload_type: PayloadType) -> bool {
    match sender {
        Role::Agent => matches!(
            payload_type,
            PayloadType::Output | PayloadType::StdErr | PayloadType::ExitCode
        ),
        Role::Client => payload_type == PayloadType::Output,
    }
}

#[cfg(test)]
mod tests;
