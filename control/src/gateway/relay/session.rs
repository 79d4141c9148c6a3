//! What a relay is told about its session and its sides, and what it reports.

use moorline_protocol::document::SessionType;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Side {
    Agent,
    Client,
}

/// What the open message of a side said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) struct Peer {
    /// The `ClientId` of the open message; empty when there was none.
    pub(in crate::gateway) client_id: String,
    /// Ours: the largest stream payload it takes. `None`: a stock peer.
    pub(in crate::gateway) max_payload_bytes: Option<u32>,
    /// Ours: takes the session over from the client that holds it.
    pub(in crate::gateway) takes_over: bool,
    /// Of a client: who it is, for the log and for the one it takes the session from.
    pub(in crate::gateway) operator: String,
}

impl Peer {
    pub(in crate::gateway) fn is_ours(&self) -> bool {
        self.max_payload_bytes.is_some()
    }
}

/// What became of the client that had the session before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) enum Attached {
    /// There was none, or it was an earlier connection of the same process.
    Alone,
    /// It is another process: this is its last frame.
    TookOver { goodbye: bytes::Bytes },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) enum RelayEvent {
    /// Both sides stand.
    Connected,
    /// Another client has the session from now on. The agent is told once this is on disk.
    TakenOver,
    /// The client is gone; the session lives on.
    Disconnected,
    /// The session's command has ended on the node; its output may still be under way.
    Terminating,
    /// Nothing more will come. Sent once, after the last frame.
    Ended(Ending),
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::gateway) struct Ending {
    /// Shown to the client; empty on a normal end.
    pub(in crate::gateway) reason: String,
    pub(in crate::gateway) exit_code: Option<i32>,
    /// The node never attached, or reported that it failed.
    pub(in crate::gateway) failed: bool,
}

/// Another process holds this session's client side, and keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::gateway) enum AnotherClient {
    #[error("another client holds this session")]
    Holds,
    #[error("another client holds this session, and a session of type {0} cannot be taken over")]
    NotAShell(&'static str),
    #[error("another client holds this session, and the node's agent cannot hand it over")]
    StockAgent,
    #[error("the session has ended on its node; what is left is for the client that holds it")]
    Ends,
    /// Which agent it is shows when it is back; it is worth trying again.
    #[error("the node is not connected to the session at the moment")]
    NodeAway,
}

/// What the relay must know about its session.
#[derive(Debug, Clone)]
pub(in crate::gateway) struct RelaySession {
    pub(in crate::gateway) session_id: String,
    pub(in crate::gateway) node: String,
    pub(in crate::gateway) session_type: SessionType,
    /// Both sides were attached before this relay was made: the endpoint was restarted.
    pub(in crate::gateway) resumed: bool,
    /// The client process that held the session then.
    pub(in crate::gateway) client_id: Option<String>,
}
