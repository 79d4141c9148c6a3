//! JSON payloads of data channels (agent-wire §8, client-wire §4).

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// First message of a data channel, as TEXT, of both sides (agent-wire §8.1, client-wire §2.2).
///
/// Clients are lenient here: numbers for texts and missing members happen, so every member but the token has a
/// default.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OpenDataChannel {
    /// `"1.0"`; some clients send the number 1.
    #[serde(default)]
    pub message_schema_version: Value,
    #[serde(default)]
    pub request_id: String,
    pub token_value: String,
    #[serde(default)]
    pub client_id: String,
    /// Only clients send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_version: Option<String>,
    /// Only agents send it: the node's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_instance_id: Option<String>,
    /// Ours: the largest stream payload this peer wants to be sent, in bytes. Absent: 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moorline_max_payload_bytes: Option<u32>,
    /// Ours: this client takes the session over from the one that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moorline_take_over: Option<bool>,
}

/// Without the token, which opens the channel for whoever reads it.
impl fmt::Debug for OpenDataChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenDataChannel")
            .field("client_id", &self.client_id)
            .field("client_instance_id", &self.client_instance_id)
            .finish_non_exhaustive()
    }
}

/// `acknowledge` (client-wire §4.2). Only the sequence number counts; an ack is for one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Acknowledge {
    pub acknowledged_message_type: String,
    pub acknowledged_message_id: String,
    pub acknowledged_message_sequence_number: i64,
    pub is_sequential_message: bool,
}

/// `agent_session_state` (agent-wire §8.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AgentSessionState {
    pub schema_version: i64,
    /// `Connected` or `Terminating`.
    pub session_state: String,
    pub session_id: String,
    /// Ours, with `Terminating`: exit code of the shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moorline_exit_code: Option<i32>,
    /// Ours, with `Terminating`: why, where there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moorline_reason: Option<String>,
    /// Ours, with `Connected`: the client that the agent's stream is for; empty before it was told of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moorline_client_id: Option<String>,
}

/// Payload of our `start_publication` (docs/deviations.md): stock agents do not read it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StartPublication {
    /// The largest stream payload the client takes, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moorline_max_payload_bytes: Option<u32>,
    /// The client that the agent's stream is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moorline_client_id: Option<String>,
    /// That client knows nothing of the stream so far: the agent begins a new one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moorline_take_over: bool,
}

/// Terminal size (payload type Size).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub cols: u32,
    pub rows: u32,
}

/// Payload type HandshakeRequest (agent-wire §8.3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HandshakeRequest {
    pub agent_version: String,
    pub requested_client_actions: Vec<RequestedClientAction>,
    /// Ours: the newest version of multiplexing that the agent speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moorline_mux_version: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RequestedClientAction {
    pub action_type: String,
    #[serde(default)]
    pub action_parameters: Value,
}

/// Payload type HandshakeResponse.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HandshakeResponse {
    pub client_version: String,
    pub processed_client_actions: Vec<ProcessedClientAction>,
    pub errors: Option<Vec<String>>,
    /// Ours: the version of multiplexing that both will speak. Absent: 1, the stock peers' own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moorline_mux_version: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProcessedClientAction {
    pub action_type: String,
    /// 1 success, 2 failed, 3 unsupported.
    pub action_status: i64,
    #[serde(default)]
    pub action_result: Value,
    /// Empty on success; some clients send `null` or leave it out.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub error: String,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Payload type HandshakeComplete. The time is in nanoseconds and must be present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HandshakeComplete {
    pub handshake_time_to_complete: i64,
    #[serde(default)]
    pub customer_message: String,
}

/// Payload types EncChallengeRequest and EncChallengeResponse: base64 of what each end encrypted of the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EncryptionChallenge {
    pub challenge: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::OpenControlChannel;

    #[test]
    fn an_open_message_does_not_show_its_token() {
        let text = r#"{"TokenValue":"the-token","ClientId":"c","MessageSchemaVersion":1}"#;
        let open: OpenDataChannel = serde_json::from_str(text).unwrap();
        assert!(!format!("{open:?}").contains("the-token"));
        let text = r#"{"Cookie":null,"MessageSchemaVersion":"1.0","RequestId":"r","TokenValue":"the-token",
                       "AgentVersion":"3","PlatformType":"linux"}"#;
        let open: OpenControlChannel = serde_json::from_str(text).unwrap();
        assert!(!format!("{open:?}").contains("the-token"));
    }
}
