//! The handshake at the begin of a session (agent-wire §8.3, client-wire §4.5): what is asked, answered and judged.

use std::time::Duration;

use serde_json::{Value, json};

use crate::message::{
    HandshakeRequest, HandshakeResponse, PayloadType, ProcessedClientAction, RequestedClientAction,
};

/// How long an agent waits for the client's answer.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(15);
/// The version a client says it has. Agents choose features by it: from 1.1.70 on multiplexed ports, above 1.2.331.0
/// no keep-alive messages in them. AWS documents this version as the oldest one supported.
pub const CLIENT_VERSION: &str = "1.2.764.0";

pub(super) const TIMED_OUT: &str =
    "Handshake timed out. Please ensure that you have the latest version of the session manager plugin.";

const ACTION_SESSION_TYPE: &str = "SessionType";
const SESSION_TYPES: [&str; 4] = [
    "Standard_Stream",
    "InteractiveCommands",
    "NonInteractiveCommands",
    "Port",
];
const STATUS_SUCCESS: i64 = 1;
const STATUS_FAILED: i64 = 2;
const STATUS_UNSUPPORTED: i64 = 3;

/// Where the handshake stands.
#[derive(Debug)]
pub(super) enum Handshake {
    /// None has begun; most sessions have none.
    Idle,
    /// Agent: the request is sent.
    Requested {
        since: Duration,
        session_type: String,
    },
    /// Client: the request is answered, and the agent has not yet said that it is content.
    Answered {
        session_type: String,
    },
    Done,
    Failed,
}

impl Handshake {
    /// Whether session data must wait. After a failure it waits for ever: the session is about to end.
    pub(super) fn holds_data(&self) -> bool {
        match self {
            Self::Requested { .. } | Self::Answered { .. } | Self::Failed => true,
            Self::Idle | Self::Done => false,
        }
    }

    /// Agent: when the client's answer is overdue.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match self {
            Self::Requested { since, .. } => Some(since.saturating_add(TIME_LIMIT)),
            Self::Idle | Self::Answered { .. } | Self::Done | Self::Failed => None,
        }
    }
}

/// Whether this payload is the machine's own and not the session's.
pub(super) fn is_handshake(payload_type: PayloadType) -> bool {
    matches!(
        payload_type,
        PayloadType::HandshakeRequest
            | PayloadType::HandshakeResponse
            | PayloadType::HandshakeComplete
            | PayloadType::EncChallengeRequest
            | PayloadType::EncChallengeResponse
    )
}

/// What an agent asks of its client.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HandshakeOffer {
    /// Clients choose features by it: four numbers (client-wire §5.2).
    pub agent_version: String,
    pub session_type: String,
    /// The port and its like for Port, otherwise null.
    pub properties: Value,
    /// Ours, for endpoints of ours: the newest version of multiplexing that this agent speaks.
    pub moorline_mux_version: Option<u32>,
}

/// The version of multiplexing that every peer speaks.
const STOCK_MUX_VERSION: u32 = 1;
/// The newest version of multiplexing that this build speaks.
pub const NEWEST_MUX_VERSION: u32 = 2;

/// The version that both sides speak, of what the other side said.
pub(super) fn mux_version(said: Option<u32>) -> u32 {
    said.map_or(STOCK_MUX_VERSION, |said| {
        said.clamp(STOCK_MUX_VERSION, NEWEST_MUX_VERSION)
    })
}

/// Agent: what is asked of the client.
pub(super) fn request(offer: &HandshakeOffer) -> HandshakeRequest {
    HandshakeRequest {
        agent_version: offer.agent_version.clone(),
        requested_client_actions: vec![RequestedClientAction {
            action_type: ACTION_SESSION_TYPE.to_owned(),
            action_parameters: json!({ "SessionType": offer.session_type, "Properties": offer.properties }),
        }],
        moorline_mux_version: offer.moorline_mux_version,
    }
}

/// Client: the answer to a request, and what was learnt from it.
pub(super) struct Answer {
    pub(super) response: HandshakeResponse,
    pub(super) session_type: String,
    pub(super) properties: Value,
    /// An action that this client cannot do, for the user.
    pub(super) failure: Option<String>,
}

/// Client: does what is asked, as far as it can.
pub(super) fn answer(request: &HandshakeRequest) -> Answer {
    let mut answer = Answer {
        response: HandshakeResponse {
            client_version: CLIENT_VERSION.to_owned(),
            processed_client_actions: Vec::new(),
            errors: None,
            moorline_mux_version: request.moorline_mux_version.map(|said| mux_version(Some(said))),
        },
        session_type: String::new(),
        properties: Value::Null,
        failure: None,
    };
    for action in &request.requested_client_actions {
        let (action_status, error) = if action.action_type == ACTION_SESSION_TYPE {
            let session_type = action
                .action_parameters
                .get("SessionType")
                .and_then(Value::as_str);
            let session_type = session_type.unwrap_or_default();
            session_type.clone_into(&mut answer.session_type);
            answer.properties = action
                .action_parameters
                .get("Properties")
                .cloned()
                .unwrap_or(Value::Null);
            if SESSION_TYPES.contains(&session_type) {
                (STATUS_SUCCESS, String::new())
            } else {
                (STATUS_FAILED, format!("Unknown session type {session_type}"))
            }
        } else {
            (
                STATUS_UNSUPPORTED,
                format!("Unsupported action {}", action.action_type),
            )
        };
        if answer.failure.is_none() && action_status != STATUS_SUCCESS {
            answer.failure = Some(error.clone());
        }
        answer
            .response
            .processed_client_actions
            .push(ProcessedClientAction {
                action_type: action.action_type.clone(),
                action_status,
                action_result: Value::Null,
                error,
            });
    }
    answer
}

/// Agent: whether the client has done all that was asked.
///
/// # Errors
/// The text for the user, as the stock agent words it.
pub(super) fn judge(response: &HandshakeResponse) -> Result<(), String> {
    let failed = response
        .processed_client_actions
        .iter()
        .find(|action| action.action_status != STATUS_SUCCESS);
    failed.map_or(Ok(()), |action| {
        Err(format!(
            "Encountered error while initiating handshake. {} failed on client with status {} error: {}",
            action.action_type, action.action_status, action.error,
        ))
    })
}
