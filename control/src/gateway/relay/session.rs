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
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) enum RelayEvent {
    /// Both sides stand.
    Connected,
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

/// Another process already holds this session's client side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another client holds this session")]
pub(in crate::gateway) struct AnotherClient;

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
