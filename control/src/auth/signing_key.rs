//! The key that the endpoint signs with: its audit log, and what it received of transcripts.

use std::fmt;

use moorline_protocol::public_keys::{KeyId, PublicKey};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};

/// An Ed25519 key. Its file is `DIR/signing.key`, mode 0600, in PKCS #8; the key never leaves the endpoint, its public
/// half is for everyone (`GetPublicKeys`).
pub(crate) struct EndpointSigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl fmt::Debug for EndpointSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndpointSigningKey({})", self.id())
    }
}

impl EndpointSigningKey {
    /// The content of a new file.
    ///
    /// # Panics
    /// If the operating system gives no random bytes: then no key may be made.
    pub(crate) fn new_file() -> Vec<u8> {
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .expect("the operating system gives random bytes")
            .as_ref()
            .to_vec()
    }

    /// Reads a file that [`Self::new_file`] made; `None`: it holds something else.
    pub(crate) fn read(file: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(file).ok()?;
        let public = pair.public_key().as_ref().try_into().ok().map(PublicKey)?;
        Some(Self { pair, public })
    }

    /// Signs as RFC 8032 says; the same text always gets the same signature. What is signed must begin with words that
    /// say what it is, so that a signature on one thing is none on another.
    pub(crate) fn sign(&self, text: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(text).as_ref());
        signature
    }

    pub(crate) fn public(&self) -> PublicKey {
        self.public
    }

    pub(crate) fn id(&self) -> KeyId {
        self.public.id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_signs_its_public_half_verifies() {
        let file = EndpointSigningKey::new_file();
        let key = EndpointSigningKey::read(&file).unwrap();
        let again = EndpointSigningKey::read(&file).unwrap();
        assert_eq!(key.sign(b"text"), again.sign(b"text"));
        assert!(key.public().has_signed(b"text", &again.sign(b"text")));
        assert!(!key.public().has_signed(b"texts", &again.sign(b"text")));
        let other = EndpointSigningKey::read(&EndpointSigningKey::new_file()).unwrap();
        assert!(!other.public().has_signed(b"text", &key.sign(b"text")));
        assert_ne!(other.id(), key.id());
    }

    #[test]
    fn a_damaged_file_gives_no_key_and_its_debug_form_no_secret() {
        let file = EndpointSigningKey::new_file();
        for length in 0..file.len() {
            assert!(EndpointSigningKey::read(file.get(..length).unwrap()).is_none());
        }
        for index in 0..file.len() {
            let mut damaged = file.clone();
            damaged[index] ^= 1;
            // a flip in the private half makes another public half than the file says
            assert!(EndpointSigningKey::read(&damaged).is_none(), "byte {index}");
        }
        let key = EndpointSigningKey::read(&file).unwrap();
        assert_eq!(format!("{key:?}"), format!("EndpointSigningKey({})", key.id()));
    }
}
