//! Commands that an operator has signed (docs/signed-commands.md): what is signed, how it is spelt, and what a node
//! compares with what it was sent. Whoever carries a signed command can drop it, and change nothing in it.
//!
//! The signature is one of OpenSSH's kind (`ssh-keygen -Y sign`, namespace `command@moorline`) by an Ed25519 key, so it
//! is good for nothing else that such keys sign. Sessions are signed in the same way, as `session@moorline`.

mod ssh_key;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    digest::{SHA512, digest},
    signature::Ed25519KeyPair,
};
use serde::{Deserialize, Serialize};

pub use self::ssh_key::{KeyError, SigningKey, public_key_line, read_public_key};
use crate::{
    document::{Digest, one_form},
    hex,
    public_keys::PublicKey,
    types::InstanceId,
};

/// Longest life of a signed command, in seconds: so long a node remembers which it has run.
pub const MAX_LIFE_SECONDS: u64 = 24 * 60 * 60;
/// Most nodes of one signed command.
pub const MAX_NODES: usize = 50;
/// Longest signed command as text.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// The only format there is.
const FORMAT: u32 = 1;
/// What a statement is for. A signature for one is none for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Command,
    Session,
}

impl Purpose {
    /// What signatures of these keys over other things are told apart by.
    fn namespace(self) -> &'static [u8] {
        match self {
            Self::Command => b"command@moorline",
            Self::Session => b"session@moorline",
        }
    }
}

/// What an operator signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Name of the document.
    pub document_name: String,
    /// Of its content.
    pub document: Digest,
    /// Of its parameters as nodes get them: typed, with the document's defaults.
    pub parameters: Digest,
    /// The nodes that may run it, and no others.
    pub nodes: BTreeSet<InstanceId>,
    /// Random: of two statements with one nonce a node runs one.
    pub nonce: [u8; 16],
    /// Seconds since the Unix epoch.
    pub not_before: u64,
    /// Seconds since the Unix epoch, at most [`MAX_LIFE_SECONDS`] later.
    pub expires: u64,
    /// What a session is for; of commands, and of sessions without one, `None`.
    pub reason: Option<String>,
}

/// The statement as JSON; members in the order of their names.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Spelling {
    document: String,
    document_name: String,
    expires: u64,
    format: u32,
    nodes: Vec<String>,
    nonce: String,
    not_before: u64,
    parameters: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Why a text is no signed command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the signed command is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    #[error("it is no signed command")]
    Form,
    #[error("the signed command has another format than {FORMAT}")]
    Format,
    #[error("the signed command is for no node, or for more than {MAX_NODES}")]
    Nodes,
    #[error("the signed command is good for longer than a day")]
    Life,
}

/// Why a signed command is not what a node was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("the signature is for another document")]
    Document,
    #[error("the signature is for other parameters")]
    Parameters,
    #[error("the signature is for other nodes")]
    Node,
    #[error("the signature is for another reason")]
    Reason,
    #[error("the signed command is not good yet; is this node's clock right?")]
    NotYet,
    #[error("the signed command has expired")]
    Expired,
}

/// What a node was sent.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'a> {
    pub document_name: &'a str,
    pub document: Digest,
    pub parameters: Digest,
    pub node: &'a str,
    pub reason: Option<&'a str>,
    /// Seconds since the Unix epoch; `None`: it has begun in time.
    pub now: Option<u64>,
}

/// A statement with its signature, which has not been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCommand {
    statement: Statement,
    signature: [u8; 64],
}

impl Statement {
    /// The one text that says this.
    fn text(&self) -> String {
        let mut nonce = String::new();
        // A text takes every digit.
        let _digits = hex::write(&mut nonce, &self.nonce);
        let spelling = Spelling {
            document: self.document.to_string(),
            document_name: self.document_name.clone(),
            expires: self.expires,
            format: FORMAT,
            nodes: self.nodes.iter().map(ToString::to_string).collect(),
            nonce,
            not_before: self.not_before,
            parameters: self.parameters.to_string(),
            reason: self.reason.clone(),
        };
        let value = serde_json::to_value(spelling).expect("texts and numbers have a JSON form");
        one_form(&value)
    }

    fn parse(text: &[u8]) -> Result<Self, Malformed> {
        let spelling: Spelling = serde_json::from_slice(text).map_err(|_| Malformed::Form)?;
        if spelling.format != FORMAT {
            return Err(Malformed::Format);
        }
        let nodes: Result<BTreeSet<InstanceId>, _> = spelling.nodes.iter().map(|id| id.parse()).collect();
        let statement = Self {
            document_name: spelling.document_name,
            document: spelling.document.parse().map_err(|_| Malformed::Form)?,
            parameters: spelling.parameters.parse().map_err(|_| Malformed::Form)?,
            nodes: nodes.map_err(|_| Malformed::Form)?,
            nonce: hex::parse(spelling.nonce.as_bytes()).ok_or(Malformed::Form)?,
            not_before: spelling.not_before,
            expires: spelling.expires,
            reason: spelling.reason,
        };
        statement.check()?;
        // One text for one statement: nothing is said in two ways.
        match statement.text().as_bytes() == text {
            true => Ok(statement),
            false => Err(Malformed::Form),
        }
    }

    fn check(&self) -> Result<(), Malformed> {
        if !(1..=MAX_NODES).contains(&self.nodes.len()) {
            return Err(Malformed::Nodes);
        }
        let life = self.expires.checked_sub(self.not_before);
        match life.is_some_and(|life| life <= MAX_LIFE_SECONDS) {
            true => Ok(()),
            false => Err(Malformed::Life),
        }
    }
}

impl SignedCommand {
    /// Signs a statement.
    ///
    /// # Errors
    /// It has too many nodes, or too long a life.
    pub fn sign(statement: Statement, purpose: Purpose, key: &SigningKey) -> Result<Self, Malformed> {
        statement.check()?;
        let signed = sign(&key.pair, statement.text().as_bytes(), purpose);
        Ok(Self {
            statement,
            signature: signed,
        })
    }

    /// Reads a signed command; whose it is, [`Self::is_by`] says.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(token: &str) -> Result<Self, Malformed> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Malformed::TooLong);
        }
        let (text, signature) = token.split_once('.').ok_or(Malformed::Form)?;
        let text = URL_SAFE_NO_PAD.decode(text).map_err(|_| Malformed::Form)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Malformed::Form)?;
        Ok(Self {
            statement: Statement::parse(&text)?,
            signature: signature.try_into().map_err(|_| Malformed::Form)?,
        })
    }

    /// As it travels.
    pub fn token(&self) -> String {
        let text = URL_SAFE_NO_PAD.encode(self.statement.text());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(self.signature))
    }

    /// Whether the holder of this key signed it, for this.
    pub fn is_by(&self, key: &PublicKey, purpose: Purpose) -> bool {
        let bytes = signed_bytes(self.statement.text().as_bytes(), purpose);
        key.has_signed(&bytes, &self.signature)
    }

    /// What was signed.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Compares what was signed with what a node was sent.
    ///
    /// # Errors
    /// The first difference.
    pub fn covers(&self, sent: &Sent<'_>) -> Result<(), Mismatch> {
        /// Clocks differ a little.
        const EARLY_SECONDS: u64 = 120;
        let Statement {
            document_name,
            document,
            parameters,
            nodes,
            not_before,
            expires,
            reason,
            nonce: _,
        } = &self.statement;
        if document != &sent.document || document_name != sent.document_name {
            return Err(Mismatch::Document);
        }
        if parameters != &sent.parameters {
            return Err(Mismatch::Parameters);
        }
        if !nodes.iter().any(|node| node.as_str() == sent.node) {
            return Err(Mismatch::Node);
        }
        if reason.as_deref() != sent.reason {
            return Err(Mismatch::Reason);
        }
        match sent.now {
            Some(now) if now.saturating_add(EARLY_SECONDS) < *not_before => Err(Mismatch::NotYet),
            Some(now) if now >= *expires => Err(Mismatch::Expired),
            _ => Ok(()),
        }
    }
}

fn sign(pair: &Ed25519KeyPair, text: &[u8], purpose: Purpose) -> [u8; 64] {
    let signature = pair.sign(&signed_bytes(text, purpose));
    let mut bytes = [0; 64];
    bytes.copy_from_slice(signature.as_ref());
    bytes
}

/// What OpenSSH signs for a text (its PROTOCOL.sshsig).
fn signed_bytes(text: &[u8], purpose: Purpose) -> Vec<u8> {
    let hash = digest(&SHA512, text);
    let mut bytes = b"SSHSIG".to_vec();
    for part in [purpose.namespace(), b"", b"sha512", hash.as_ref()] {
        ssh_key::put_string(&mut bytes, part);
    }
    bytes
}
