//! The keys that sign, and how they are named.

use std::fmt;

use ring::signature::{ED25519, UnparsedPublicKey};

use super::word::{Signature, hex, write_hex};

/// The identity of a key: the first 8 bytes of the SHA-256 of its 32 public bytes, written as 16 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 8]);

impl KeyId {
    /// Reads 16 lower-case hex digits.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        hex(text).map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An Ed25519 public key (RFC 8032).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.0);
        let mut id = KeyId([0; 8]);
        id.0.iter_mut()
            .zip(digest.as_ref())
            .for_each(|(to, from)| *to = *from);
        id
    }

    /// Whether it signed this text.
    pub(super) fn has_signed(&self, text: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(text, &signature.0)
            .is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// A key of a node. A node that was registered anew has several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeKey {
    /// The id of the managed node.
    pub node: String,
    /// What it seals with.
    pub key: PublicKey,
}

/// What an auditor trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// What the endpoint countersigns with, or once did.
    pub endpoint: Vec<PublicKey>,
    /// What the nodes seal with.
    pub nodes: Vec<NodeKey>,
}

impl Keys {
    pub(super) fn of_endpoint(&self, id: KeyId) -> Option<PublicKey> {
        self.endpoint.iter().find(|key| key.id() == id).copied()
    }

    pub(super) fn of_node(&self, node: &str, id: KeyId) -> Option<PublicKey> {
        let mut of_node = self.nodes.iter().filter(|one| one.node == node);
        of_node.find(|one| one.key.id() == id).map(|one| one.key)
    }
}
