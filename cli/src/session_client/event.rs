//! What a session client tells its front end.

use std::time::Duration;

use bytes::Bytes;
use moorline_protocol::{message::PayloadType, mux::MuxError};
use moorline_transport::{CallError, DialError, WebSocketError};
use tokio_tungstenite::tungstenite;

use super::{MAX_BARREN_CONNECTIONS, STALL_LIMIT};

/// Why there is no session, or none any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the stream URL of the session is unusable")]
    StreamUrl(#[source] moorline_transport::EndpointError),
    #[error("failed to open the data channel")]
    Open(#[source] WebSocketError),
    #[error("failed to send the open message of the data channel")]
    OpenMessage(#[source] Box<tungstenite::Error>),
    #[error("the connection was lost and no access key is at hand to resume the session")]
    NoCredentials,
    #[error("the endpoint ended the connection {MAX_BARREN_CONNECTIONS} times in a row: {reason}")]
    Barren { reason: String },
    #[error("the connection could not be restored within {} minutes", limit.as_secs() / 60)]
    GaveUp {
        limit: Duration,
        #[source]
        source: Box<SessionError>,
    },
    #[error("the node has not acknowledged any input for {} minutes", STALL_LIMIT.as_secs() / 60)]
    Stalled,
    #[error("the handshake failed: {0}")]
    Handshake(String),
    #[error("the node's data makes no sense")]
    Multiplexing(#[from] MuxError),
    #[error("the session is not safe any more: {0}")]
    Encryption(String),
}

impl SessionError {
    /// The failed connection at the bottom of it, if that is what it is.
    pub(crate) fn dial_error(&self) -> Option<&DialError> {
        match self {
            Self::Open(WebSocketError::Dial(dial)) => Some(dial),
            Self::GaveUp { source, .. } => source.dial_error(),
            _ => None,
        }
    }
}

/// What the front end must know.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    /// The session type as the handshake gave it.
    Type(String),
    Data {
        payload_type: PayloadType,
        payload: Bytes,
    },
    /// Of the node, for the user.
    Message(String),
    /// [`SessionClient::takes_input`] has become true.
    InputTaken,
    /// The connection is gone; it is being restored.
    Lost(String),
    Restored,
    /// The end, in order.
    Closed {
        reason: String,
        exit_code: Option<i32>,
    },
    /// The session had ended while we were away.
    Expired,
    /// The end, by failure.
    Failed(SessionError),
}
