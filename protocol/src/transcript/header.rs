//! The first line: asciicast's header with our member.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use super::word::Digest;
use crate::public_keys::KeyId;

/// asciicast's version.
const VERSION: u64 = 2;
/// Ours.
const FORMAT: u64 = 1;
const MAX_ID_CHARS: usize = 256;

/// Names a recording: the id of a session, or `COMMAND-ID.NODE-ID`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordingId(String);

impl RecordingId {
    /// Checks its length and characters.
    ///
    /// # Errors
    ///
    /// A text that cannot be the name of a recording.
    pub fn parse(id: &str) -> Result<Self, HeaderError> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if id.is_empty() || id.len() > MAX_ID_CHARS || !id.bytes().all(is_allowed) {
            return Err(HeaderError::Member("id"));
        }
        Ok(Self(id.to_owned()))
    }

    /// Of what a command does on a node. After each reboot that it asks for a recording of its own goes on, and that
    /// has the next number; the first is 1.
    ///
    /// # Errors
    ///
    /// A command or node whose id cannot be in the name of a recording.
    pub fn of_command(command_id: &str, node: &str, part: u32) -> Result<Self, HeaderError> {
        match part {
            1 => Self::parse(&format!("{command_id}.{node}")),
            _ => Self::parse(&format!("{command_id}.{node}.{part}")),
        }
    }

    /// Of a command: what all parts of it on this node have in common, and which part this is, from 1.
    #[must_use]
    pub fn part(&self) -> (&str, u32) {
        let mut words = self.0.splitn(3, '.');
        let number = words.nth(2).and_then(|number| number.parse().ok());
        match (number, self.0.rsplit_once('.')) {
            (Some(number), Some((invocation, _))) => (invocation, number),
            _ => (&self.0, 1),
        }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RecordingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordingKind {
    /// A shell.
    #[serde(rename = "Standard_Stream")]
    StandardStream,
    /// A command in a terminal.
    InteractiveCommands,
    /// A command without one.
    NonInteractiveCommands,
    /// Connections through the node.
    Port,
    /// A command document on one node.
    Command,
}

/// What the `moorline` member of a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Which recording.
    pub id: RecordingId,
    /// The managed node.
    pub node: String,
    /// The key that seals.
    pub node_key: KeyId,
    /// Of what.
    pub kind: RecordingKind,
    /// The document of the session or command.
    pub document: Option<String>,
    /// Its version, as the operator asked for it.
    pub document_version: Option<String>,
    /// Who acts.
    pub operator: Option<String>,
    /// What for, as the operator said.
    pub reason: Option<String>,
    /// The user of the operating system.
    pub user: Option<String>,
    /// The document's parameters, secrets masked.
    pub parameters: Option<Map<String, Value>>,
    /// Hash of the last record of the part before, of a command that goes on after a reboot.
    pub follows: Option<Digest>,
    /// How the events are encrypted, where they are.
    pub encryption: Option<Encryption>,
}

/// Encryption at rest, to recipients that the node's owner chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// age recipients, `age1…`.
    pub recipients: Vec<String>,
    /// The data key as an age file, in base64.
    pub key: String,
}

/// The first line of a transcript.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Columns of the terminal.
    pub width: u32,
    /// Its rows.
    pub height: u32,
    /// The begin, in seconds since 1970.
    pub timestamp: Option<u64>,
    /// What players show.
    pub title: Option<String>,
    /// The command that was recorded.
    pub command: Option<String>,
    /// Our member.
    pub origin: Origin,
}

/// Why a line is no header of a transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// No JSON object in UTF-8.
    #[error("it is no JSON object")]
    Json,
    /// A member is not there or not what it should be.
    #[error("its member \"{0}\" is missing or is not as it should be")]
    Member(&'static str),
}

impl Header {
    /// Reads the first line, with or without its line feed.
    ///
    /// # Errors
    ///
    /// It is no header of format 1.
    pub fn parse(line: &[u8]) -> Result<Self, HeaderError> {
        let Ok(Value::Object(header)) = serde_json::from_slice(line) else {
            return Err(HeaderError::Json);
        };
        if header.get("version").and_then(Value::as_u64) != Some(VERSION) {
            return Err(HeaderError::Member("version"));
        }
        let size = |name| {
            let size = header.get(name).and_then(Value::as_u64);
            size.and_then(|size| u32::try_from(size).ok())
                .ok_or(HeaderError::Member(name))
        };
        Ok(Self {
            width: size("width")?,
            height: size("height")?,
            timestamp: header.get("timestamp").and_then(Value::as_u64),
            title: text(&header, "title"),
            command: text(&header, "command"),
            origin: Origin::parse(&header)?,
        })
    }

    /// The first line, with its line feed.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut header = Map::new();
        header.insert("version".to_owned(), VERSION.into());
        header.insert("width".to_owned(), self.width.into());
        header.insert("height".to_owned(), self.height.into());
        let optional = [
            ("timestamp", self.timestamp.map(Value::from)),
            ("title", self.title.clone().map(Value::from)),
            ("command", self.command.clone().map(Value::from)),
            ("moorline", Some(self.origin.to_value())),
        ];
        insert(&mut header, optional);
        let mut line = Value::Object(header).to_string();
        line.push('\n');
        line
    }
}

impl Origin {
    fn parse(header: &Map<String, Value>) -> Result<Self, HeaderError> {
        let Some(Value::Object(ours)) = header.get("moorline") else {
            return Err(HeaderError::Member("moorline"));
        };
        if ours.get("format").and_then(Value::as_u64) != Some(FORMAT) {
            return Err(HeaderError::Member("format"));
        }
        let needed = |name| text(ours, name).ok_or(HeaderError::Member(name));
        Ok(Self {
            id: RecordingId::parse(&needed("id")?)?,
            node: needed("node")?,
            node_key: KeyId::parse(needed("node_key")?.as_bytes()).ok_or(HeaderError::Member("node_key"))?,
            kind: serde_json::from_value(needed("kind")?.into()).map_err(|_| HeaderError::Member("kind"))?,
            document: text(ours, "document"),
            document_version: text(ours, "document_version"),
            operator: text(ours, "operator"),
            reason: text(ours, "reason"),
            user: text(ours, "user"),
            parameters: ours.get("parameters").and_then(Value::as_object).cloned(),
            follows: text(ours, "follows").and_then(|hash| Digest::parse(hash.as_bytes())),
            encryption: ours
                .get("encryption")
                .and_then(|encryption| Encryption::deserialize(encryption).ok()),
        })
    }

    fn to_value(&self) -> Value {
        let Self {
            id,
            node,
            node_key,
            kind,
            document,
            document_version,
            operator,
            reason,
            user,
            parameters,
            follows,
            encryption,
        } = self;
        let mut ours = Map::new();
        ours.insert("format".to_owned(), FORMAT.into());
        ours.insert("id".to_owned(), id.as_str().into());
        ours.insert("node".to_owned(), node.as_str().into());
        ours.insert("node_key".to_owned(), node_key.to_string().into());
        let optional = [
            ("kind", serde_json::to_value(kind).ok()),
            ("document", document.clone().map(Value::from)),
            ("document_version", document_version.clone().map(Value::from)),
            ("operator", operator.clone().map(Value::from)),
            ("reason", reason.clone().map(Value::from)),
            ("user", user.clone().map(Value::from)),
            ("parameters", parameters.clone().map(Value::Object)),
            ("follows", follows.map(|hash| hash.to_string().into())),
            (
                "encryption",
                encryption.as_ref().and_then(|one| serde_json::to_value(one).ok()),
            ),
        ];
        insert(&mut ours, optional);
        Value::Object(ours)
    }
}

fn text(object: &Map<String, Value>, name: &str) -> Option<String> {
    object.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn insert<const N: usize>(object: &mut Map<String, Value>, members: [(&str, Option<Value>); N]) {
    for (name, value) in members {
        if let Some(value) = value {
            object.insert(name.to_owned(), value);
        }
    }
}
