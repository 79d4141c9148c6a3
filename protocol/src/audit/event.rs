//! What a record says: who did what, from where, on which nodes, and how it went.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum EventKind {
    /// A call that changes something was accepted and is about to be carried out; its `call` follows under the same
    /// request id. When none does, the endpoint was stopped in between and the outcome is not known.
    Accepted,
    /// A call was answered.
    Call,
    /// A request for a channel, or for the endpoint's recordings of one, was refused.
    ChannelRefused,
    /// A client joined its session.
    SessionJoined,
    /// Another client took a session over.
    SessionTakenOver,
    /// A session came to its end.
    SessionEnded,
    /// A node said how a command ended there.
    CommandEnded,
    /// The endpoint deleted something by itself, because its time was over.
    Deleted,
    /// The endpoint began to write.
    LogStarted,
    /// Half a line at the end was removed at the start: the endpoint, or its machine, had been stopped while it wrote.
    LogRepaired,
    /// So many records could not be written.
    LogGap,
    /// The endpoint was asked to stop.
    LogStopped,
    /// Of a later release.
    Other(String),
}

impl EventKind {
    /// As it stands in the log.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Accepted => "accepted",
            Self::Call => "call",
            Self::ChannelRefused => "channel-refused",
            Self::SessionJoined => "session-joined",
            Self::SessionTakenOver => "session-taken-over",
            Self::SessionEnded => "session-ended",
            Self::CommandEnded => "command-ended",
            Self::Deleted => "deleted",
            Self::LogStarted => "log-started",
            Self::LogRepaired => "log-repaired",
            Self::LogGap => "log-gap",
            Self::LogStopped => "log-stopped",
            Self::Other(kind) => kind,
        }
    }
}

impl From<String> for EventKind {
    fn from(kind: String) -> Self {
        let known = [
            Self::Accepted,
            Self::Call,
            Self::ChannelRefused,
            Self::SessionJoined,
            Self::SessionTakenOver,
            Self::SessionEnded,
            Self::CommandEnded,
            Self::Deleted,
            Self::LogStarted,
            Self::LogRepaired,
            Self::LogGap,
            Self::LogStopped,
        ];
        let same = known.into_iter().find(|one| one.as_str() == kind);
        same.unwrap_or(Self::Other(kind))
    }
}

impl From<EventKind> for String {
    fn from(kind: EventKind) -> Self {
        kind.as_str().to_owned()
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What sort of principal did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActorKind {
    /// Nobody signed.
    Anonymous,
    /// The endpoint by itself.
    Endpoint,
    /// A managed node.
    Node,
    /// A person or program with an access key.
    Operator,
}

/// Who did it, proven by a signature unless it is anonymous.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// What sort.
    #[serde(rename = "type")]
    pub kind: ActorKind,
    /// The operator's name or the node's id; empty for the others.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The access key that signed, or that a refused request names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<String>,
}

impl Actor {
    /// The endpoint itself.
    #[must_use]
    pub fn endpoint() -> Self {
        Self {
            kind: ActorKind::Endpoint,
            name: String::new(),
            access_key: None,
        }
    }
}

/// One record. What is not known, or says nothing here, is left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// What happened.
    pub event: EventKind,
    /// Who did it.
    pub by: Actor,
    /// The address that the request came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// What the client says that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// `service:Operation`, as `ssm:SendCommand`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Whether the operation changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// The request's members, secrets masked and what is long cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Map<String, Value>>,
    /// Managed nodes that it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// The session that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The command that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// `ok`, or the code of the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// What the error says, or why it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Which the client got with its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// How often the same happened, when this record stands for several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Map<String, Value>>,
}

impl Event {
    /// Only what and who.
    #[must_use]
    pub fn new(event: EventKind, by: Actor) -> Self {
        Self {
            event,
            by,
            peer: None,
            user_agent: None,
            operation: None,
            read_only: None,
            parameters: None,
            nodes: Vec::new(),
            session: None,
            command: None,
            result: None,
            message: None,
            request_id: None,
            count: None,
            details: None,
        }
    }
}
