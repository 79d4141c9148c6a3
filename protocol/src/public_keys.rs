//! The keys that an auditor trusts: those that nodes and endpoint sign with, and the file that hands them around.
//!
//! ```json
//! {"format":1,
//!  "endpoint":[{"id":"16 hex digits","key":"base64 of 32 bytes"}],
//!  "nodes":[{"node":"mi-0123456789abcdef0","id":"16 hex digits","key":"base64 of 32 bytes"}]}
//! ```

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    digest::{SHA256, digest},
    signature::{ED25519, UnparsedPublicKey},
};
use serde::{Deserialize, Serialize};

use crate::{hex, types::InstanceId};

/// The only format there is.
const FORMAT: u32 = 1;
/// The largest file that is read, in bytes: a hundred thousand nodes with a few keys each.
pub const MAX_KEYS_BYTES: usize = 64 * 1024 * 1024;

/// The identity of a key: the first 8 bytes of the SHA-256 of its 32 public bytes, written as 16 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 8]);

impl KeyId {
    /// Reads 16 lower-case hex digits.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        hex::parse(text).map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
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
    /// Reads the base64 (standard alphabet, padded) of 32 bytes.
    #[must_use]
    pub fn from_base64(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// As it stands in a file of keys.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let digest = digest(&SHA256, &self.0);
        let mut id = KeyId([0; 8]);
        for (to, from) in id.0.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        id
    }

    /// Whether its private half signed this text.
    #[must_use]
    pub fn has_signed(&self, text: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(text, signature)
            .is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}

/// A key of a node. A node that was registered anew has several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeKey {
    /// The managed node.
    pub node: InstanceId,
    /// What it seals with.
    pub key: PublicKey,
}

/// What an auditor trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// What the endpoint signs with, or once did.
    pub endpoint: Vec<PublicKey>,
    /// What the nodes seal with.
    pub nodes: Vec<NodeKey>,
}

/// Why a file holds no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It is not this JSON.
    #[error("it is no file of public keys: {0}")]
    Form(#[from] serde_json::Error),
    /// A later release wrote it.
    #[error("its format is {0}, and this program reads format {FORMAT}")]
    Format(u32),
    /// `key` is no key.
    #[error("the key with id {0:?} is not base64 of 32 bytes")]
    Key(String),
    /// `id` is that of another key.
    #[error("the key with id {given:?} has the id {computed}: one of the two was altered")]
    Id {
        /// What the file says.
        given: String,
        /// What the key says.
        computed: KeyId,
    },
    /// Nothing to trust.
    #[error("there is no key in it")]
    Empty,
    /// Longer than [`MAX_KEYS_BYTES`].
    #[error("it is longer than {MAX_KEYS_BYTES} bytes")]
    TooLong,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    endpoint: Vec<EndpointEntry>,
    nodes: Vec<NodeEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointEntry {
    id: String,
    key: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeEntry {
    node: InstanceId,
    id: String,
    key: String,
}

impl Keys {
    /// Reads a file.
    ///
    /// # Errors
    /// It is not a file of keys, or an id is not that of its key.
    pub fn parse(file: &[u8]) -> Result<Self, KeysError> {
        if file.len() > MAX_KEYS_BYTES {
            return Err(KeysError::TooLong);
        }
        let File {
            format,
            endpoint,
            nodes,
        } = serde_json::from_slice(file)?;
        if format != FORMAT {
            return Err(KeysError::Format(format));
        }
        let endpoint: Result<_, KeysError> = endpoint
            .into_iter()
            .map(|entry| key(entry.id, &entry.key))
            .collect();
        let nodes: Result<_, KeysError> = nodes
            .into_iter()
            .map(|entry| {
                let node = entry.node;
                key(entry.id, &entry.key).map(|key| NodeKey { node, key })
            })
            .collect();
        let keys = Self {
            endpoint: endpoint?,
            nodes: nodes?,
        };
        if keys == Self::default() {
            return Err(KeysError::Empty);
        }
        Ok(keys)
    }

    /// The file's content: one line, ended by a line feed.
    #[must_use]
    pub fn to_file(&self) -> String {
        let file = File {
            format: FORMAT,
            endpoint: self
                .endpoint
                .iter()
                .map(|key| EndpointEntry {
                    id: key.id().to_string(),
                    key: key.to_base64(),
                })
                .collect(),
            nodes: self
                .nodes
                .iter()
                .map(|NodeKey { node, key }| NodeEntry {
                    node: node.clone(),
                    id: key.id().to_string(),
                    key: key.to_base64(),
                })
                .collect(),
        };
        let text = serde_json::to_string(&file).expect("keys and ids are text");
        text + "\n"
    }

    /// The endpoint's key of this name.
    #[must_use]
    pub fn of_endpoint(&self, id: KeyId) -> Option<PublicKey> {
        self.endpoint.iter().find(|key| key.id() == id).copied()
    }

    /// The key of this name that this node has or had.
    #[must_use]
    pub fn of_node(&self, node: &InstanceId, id: KeyId) -> Option<PublicKey> {
        let mut of_node = self.nodes.iter().filter(|one| one.node == *node);
        of_node.find(|one| one.key.id() == id).map(|one| one.key)
    }
}

fn key(id: String, base64: &str) -> Result<PublicKey, KeysError> {
    let Some(key) = PublicKey::from_base64(base64) else {
        return Err(KeysError::Key(id));
    };
    let computed = key.id();
    if computed.to_string() != id {
        return Err(KeysError::Id { given: id, computed });
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys {
            endpoint: vec![PublicKey([1; 32])],
            nodes: vec![NodeKey {
                node: "mi-0123456789abcdef0".parse().unwrap(),
                key: PublicKey([2; 32]),
            }],
        }
    }

    #[test]
    fn a_file_of_keys_reads_as_it_was_written() {
        let file = keys().to_file();
        assert_eq!(
            file,
            "{\"format\":1,\"endpoint\":[{\"id\":\"72cd6e8422c407fb\",\"key\":\"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\"}],\
             \"nodes\":[{\"node\":\"mi-0123456789abcdef0\",\"id\":\"75877bb41d393b5f\",\
             \"key\":\"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\"}]}\n"
        );
        assert_eq!(Keys::parse(file.as_bytes()).unwrap(), keys());
    }

    #[test]
    fn keys_are_found_by_name_and_owner() {
        let keys = keys();
        let node = "mi-0123456789abcdef0".parse().unwrap();
        let other = "mi-0123456789abcdef1".parse().unwrap();
        let (of_endpoint, of_node) = (PublicKey([1; 32]), PublicKey([2; 32]));
        assert_eq!(keys.of_endpoint(of_endpoint.id()), Some(of_endpoint));
        assert_eq!(keys.of_endpoint(of_node.id()), None);
        assert_eq!(keys.of_node(&node, of_node.id()), Some(of_node));
        assert_eq!(keys.of_node(&other, of_node.id()), None);
    }

    #[test]
    fn what_is_no_file_of_keys_is_told_apart() {
        let file = keys().to_file();
        let refused = |file: String| Keys::parse(file.as_bytes()).unwrap_err();
        assert!(matches!(refused(String::new()), KeysError::Form(_)));
        assert!(matches!(
            refused(file.replace("\"nodes\"", "\"n\"")),
            KeysError::Form(_)
        ));
        assert!(matches!(
            refused(file.replace("format\":1", "format\":2")),
            KeysError::Format(2)
        ));
        assert!(matches!(refused(file.replace("AQEB", "AQE")), KeysError::Key(_)));
        assert!(matches!(
            refused(file.replace("AQEB", "AQEC")),
            KeysError::Id { .. }
        ));
        let empty = "{\"format\":1,\"endpoint\":[],\"nodes\":[]}".to_owned();
        assert!(matches!(refused(empty), KeysError::Empty));
    }
}
