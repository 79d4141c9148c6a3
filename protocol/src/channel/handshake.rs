//! The handshake at the begin of a session (agent-wire §8.3, client-wire §4.5): what is asked, answered and judged.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
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

pub(super) const ACTION_SESSION_TYPE: &str = "SessionType";
pub(super) const ACTION_ENCRYPTION: &str = "KMSEncryption";
const SESSION_TYPES: [&str; 4] = [
    "Standard_Stream",
    "InteractiveCommands",
    "NonInteractiveCommands",
    "Port",
];
pub(super) const STATUS_SUCCESS: i64 = 1;
pub(super) const STATUS_FAILED: i64 = 2;
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
        /// Encryption is asked for.
        key: Option<WantedKey>,
    },
    /// Agent: the driver has the client's data key decrypted.
    Decrypting {
        began: Duration,
        since: Duration,
        session_type: String,
        key_id: String,
    },
    /// Agent: the client is to prove that it has the same keys.
    Challenged {
        began: Duration,
        since: Duration,
        session_type: String,
        key_id: String,
        probe: [u8; PROBE_BYTES],
    },
    /// Client: the driver gets a data key; then the answer is sent.
    KeyWanted {
        since: Duration,
        session_type: String,
        response: HandshakeResponse,
        challenge: Option<String>,
    },
    /// Client: the request is answered, and the agent has not yet said that it is content.
    Answered {
        session_type: String,
        /// Whether the agent may still ask for a proof of the keys, which it does once.
        may_challenge: bool,
    },
    Done,
    Failed,
}

impl Handshake {
    /// Whether session data must wait. After a failure it waits for ever: the session is about to end.
    pub(super) fn holds_data(&self) -> bool {
        match self {
            Self::Requested { .. }
            | Self::Decrypting { .. }
            | Self::Challenged { .. }
            | Self::KeyWanted { .. }
            | Self::Answered { .. }
            | Self::Failed => true,
            Self::Idle | Self::Done => false,
        }
    }

    /// When what is waited for is overdue: each wait has its own time.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match self {
            Self::Requested { since, .. }
            | Self::Decrypting { since, .. }
            | Self::Challenged { since, .. }
            | Self::KeyWanted { since, .. } => Some(since.saturating_add(TIME_LIMIT)),
            Self::Idle | Self::Answered { .. } | Self::Done | Self::Failed => None,
        }
    }

    /// What to say when it is overdue.
    pub(super) fn overdue(&self) -> &'static str {
        match self {
            Self::Decrypting { .. } => "The data key of the session was not decrypted within 15 seconds.",
            Self::Challenged { .. } => {
                "The client did not answer the encryption challenge within 15 seconds."
            }
            Self::KeyWanted { .. } => "no data key was made within 15 seconds",
            _ => TIMED_OUT,
        }
    }
}

/// How long the proof of the keys is.
pub(super) const PROBE_BYTES: usize = 64;

/// The key of KMS that an agent wants a session to be encrypted with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WantedKey {
    pub(super) key_id: String,
    /// Random text that the data key is to be bound to; agents before 2023 have none.
    pub(super) challenge: Option<String>,
}

impl WantedKey {
    pub(super) fn new(key_id: String, challenge: &[u8]) -> Self {
        Self {
            key_id,
            challenge: Some(STANDARD.encode(challenge)),
        }
    }

    fn read(parameters: &Value) -> Option<Self> {
        let text = |name| parameters.get(name).and_then(Value::as_str);
        Some(Self {
            key_id: text("KMSKeyId").filter(|id| !id.is_empty())?.to_owned(),
            challenge: text("Challenge")
                .filter(|text| !text.is_empty())
                .map(str::to_owned),
        })
    }

    fn action(&self) -> RequestedClientAction {
        let mut parameters = json!({ "KMSKeyId": self.key_id });
        if let (Some(members), Some(challenge)) = (parameters.as_object_mut(), &self.challenge) {
            members.insert("Challenge".to_owned(), challenge.as_str().into());
        }
        RequestedClientAction {
            action_type: ACTION_ENCRYPTION.to_owned(),
            action_parameters: parameters,
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
    /// The key of KMS that the session is to be encrypted with.
    pub kms_key_id: Option<String>,
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
pub(super) fn request(offer: &HandshakeOffer, key: Option<&WantedKey>) -> HandshakeRequest {
    let session_type = RequestedClientAction {
        action_type: ACTION_SESSION_TYPE.to_owned(),
        action_parameters: json!({ "SessionType": offer.session_type, "Properties": offer.properties }),
    };
    HandshakeRequest {
        agent_version: offer.agent_version.clone(),
        requested_client_actions: std::iter::once(session_type)
            .chain(key.map(WantedKey::action))
            .collect(),
        moorline_mux_version: offer.moorline_mux_version,
    }
}

/// Client: the answer to a request, and what was learnt from it.
pub(super) struct Answer {
    pub(super) response: HandshakeResponse,
    pub(super) session_type: String,
    pub(super) properties: Value,
    /// Encryption is asked for: its action in the response waits for a data key.
    pub(super) key: Option<WantedKey>,
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
        key: None,
        failure: None,
    };
    for action in &request.requested_client_actions {
        let (action_status, error) = answer.process(action);
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

impl Answer {
    /// Status and text of one action.
    fn process(&mut self, action: &RequestedClientAction) -> (i64, String) {
        let parameters = &action.action_parameters;
        match action.action_type.as_str() {
            ACTION_SESSION_TYPE => {
                let session_type = parameters.get("SessionType").and_then(Value::as_str);
                let session_type = session_type.unwrap_or_default();
                session_type.clone_into(&mut self.session_type);
                self.properties = parameters.get("Properties").cloned().unwrap_or(Value::Null);
                if SESSION_TYPES.contains(&session_type) {
                    (STATUS_SUCCESS, String::new())
                } else {
                    (STATUS_FAILED, format!("Unknown session type {session_type}"))
                }
            }
            ACTION_ENCRYPTION if self.key.is_some() => {
                (STATUS_FAILED, encryption_failure("it is asked for twice"))
            }
            ACTION_ENCRYPTION => {
                self.key = WantedKey::read(parameters);
                if self.key.is_some() {
                    (STATUS_SUCCESS, String::new())
                } else {
                    (STATUS_FAILED, encryption_failure("no key is named"))
                }
            }
            other => (STATUS_UNSUPPORTED, format!("Unsupported action {other}")),
        }
    }
}

/// Client: what the user and the node are told when there will be no encryption.
pub(super) fn encryption_failure(why: &str) -> String {
    format!("Failed to process action {ACTION_ENCRYPTION}: {why}")
}

/// Client: writes into the response what became of the data key.
pub(super) fn set_encryption_result(response: &mut HandshakeResponse, result: Result<Value, String>) {
    let actions = response.processed_client_actions.iter_mut();
    for action in actions.filter(|action| action.action_type == ACTION_ENCRYPTION) {
        match &result {
            Ok(value) => action.action_result = value.clone(),
            Err(error) => {
                action.action_status = STATUS_FAILED;
                action.error.clone_from(error);
            }
        }
    }
}

/// Client: the result of the encryption action.
pub(super) fn encryption_result(ciphertext: &[u8], challenge: Option<&str>) -> Value {
    let mut result = json!({ "KMSCipherTextKey": STANDARD.encode(ciphertext), "KMSCipherTextHash": null });
    if let (Some(members), Some(_)) = (result.as_object_mut(), challenge) {
        members.insert("ChallengeAcknowledgement".to_owned(), true.into());
    }
    result
}

/// Agent: the data key in a response that was judged, and whether it is bound to the challenge. `None`: there is none.
pub(super) fn data_key_of(response: &HandshakeResponse) -> Option<(Vec<u8>, bool)> {
    let action = response
        .processed_client_actions
        .iter()
        .find(|action| action.action_type == ACTION_ENCRYPTION)?;
    let ciphertext = action.action_result.get("KMSCipherTextKey")?.as_str()?;
    let acknowledged = action.action_result.get("ChallengeAcknowledgement");
    Some((
        STANDARD
            .decode(ciphertext)
            .ok()
            .filter(|bytes| !bytes.is_empty())?,
        acknowledged.and_then(Value::as_bool).unwrap_or(false),
    ))
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
