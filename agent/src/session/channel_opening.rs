//! Opening the data channel of a session: the channel itself, then the open message (agent-wire §8.1).

use std::sync::Arc;

use futures_util::SinkExt;
use moorline_protocol::{message::OpenDataChannel, sigv4::Credentials, types::SessionId};
use moorline_transport::{ChannelError, ChannelRequest, Service, WebSocket, WebSocketError, open_channel};
use tokio_tungstenite::tungstenite::{self, Message};
use uuid::Uuid;

use crate::identity::{CredentialSupply, Registration, RoleCredentialsError};

/// Payload size that this agent takes from clients of ours, and sends to them, in bytes.
pub(super) const MAX_PAYLOAD_BYTES: u32 = 32 * 1024;
/// In an error text: nothing will ever open this channel again.
const ALREADY_TERMINATED: &str = "Session is already terminated";

/// Why no data channel stands.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("there are no valid role credentials")]
    Credentials(#[source] RoleCredentialsError),
    #[error("failed to open the data channel")]
    Channel(#[source] ChannelError),
    #[error("failed to send the open message of the data channel")]
    OpenMessage(#[source] Box<tungstenite::Error>),
}

impl OpenError {
    /// Status and text of an endpoint that said no.
    fn refusal(&self) -> Option<(u16, &str)> {
        match self {
            Self::Channel(ChannelError::Refused { status, text, .. }) => Some((*status, text)),
            Self::Channel(ChannelError::WebSocket(WebSocketError::Refused { status, body, .. })) => {
                Some((*status, body))
            }
            _ => None,
        }
    }

    /// Whether no further attempt can succeed.
    pub(super) fn is_final(&self) -> bool {
        self.refusal()
            .is_some_and(|(_, text)| text.contains(ALREADY_TERMINATED))
    }

    /// Whether other credentials may help.
    fn is_about_credentials(&self) -> bool {
        self.refusal()
            .is_some_and(|(status, _)| matches!(status, 400 | 401 | 403))
    }
}

/// What opening needs, for this session.
#[derive(Debug)]
pub(super) struct ChannelOpening {
    pub(super) registration: Arc<Registration>,
    pub(super) credentials: Arc<CredentialSupply>,
    pub(super) session_id: SessionId,
}

impl ChannelOpening {
    /// Opens the data channel once.
    ///
    /// # Errors
    /// No channel stands.
    pub(super) async fn open(&self) -> Result<WebSocket, OpenError> {
        let credentials = self
            .credentials
            .valid(&self.registration)
            .await
            .map_err(OpenError::Credentials)?;
        let opened = self.open_with(&credentials).await;
        if let Err(error) = &opened
            && error.is_about_credentials()
        {
            self.credentials.reject(&credentials).await;
        }
        opened
    }

    async fn open_with(&self, credentials: &Credentials) -> Result<WebSocket, OpenError> {
        let registration = &self.registration;
        let request = ChannelRequest {
            endpoint: registration.services.endpoint(Service::SsmMessages),
            trust: &registration.trust,
            credentials,
            region: &registration.region,
            path: &format!("/v1/data-channel/{}", self.session_id),
            query: "role=publish_subscribe",
            client_id: Some(""),
        };
        let (token_value, mut socket) = open_channel(&request).await.map_err(OpenError::Channel)?;
        let open = OpenDataChannel {
            message_schema_version: "1.0".into(),
            request_id: Uuid::new_v4().to_string(),
            token_value,
            client_id: String::new(),
            client_version: None,
            client_instance_id: Some(registration.instance_id.to_string()),
            moorline_max_payload_bytes: registration.is_moorline.then_some(MAX_PAYLOAD_BYTES),
            moorline_take_over: None,
        };
        let text = serde_json::to_string(&open).expect("a struct of texts and numbers is JSON");
        socket
            .send(Message::text(text))
            .await
            .map_err(|source| OpenError::OpenMessage(Box::new(source)))?;
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminated_session_ends_the_attempts() {
        let refused = |text: &str| {
            OpenError::Channel(ChannelError::Refused {
                endpoint: String::new(),
                status: 400,
                text: text.to_owned(),
            })
        };
        assert!(refused("<R><Message>Session is already terminated</Message></R>").is_final());
        assert!(!refused("<AccessDeniedException>").is_final());
        assert!(refused("").is_about_credentials());
        let upgrade = OpenError::Channel(ChannelError::WebSocket(WebSocketError::Refused {
            endpoint: String::new(),
            status: 403,
            body: String::new(),
        }));
        assert!(upgrade.is_about_credentials() && !upgrade.is_final());
    }
}
