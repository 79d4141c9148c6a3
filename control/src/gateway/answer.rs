//! Answers of the channel endpoints: XML, as the stock agent reads them (agent-wire §4.1).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use moorline_protocol::{error_chain, transcript::MAX_UNPACKED_BYTES, types::TranscriptId};

use super::Answer;
use crate::{
    auth::{AuthError, Denied},
    server::BodyError,
    store::StoreError,
};

/// A request that gets no channel. `code` is the name of the XML element, which the stock agent looks for.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    pub(super) fn no_such_path() -> Self {
        let message = "there is nothing under this path; channels are /v1/control-channel/{node} and \
                       /v1/data-channel/{session}";
        Self::new(StatusCode::NOT_FOUND, "ResourceNotFoundException", message)
    }

    pub(super) fn method_not_allowed() -> Self {
        let message = "a channel is asked for with POST and opened with a websocket upgrade";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "ValidationException", message)
    }

    pub(super) fn access_denied(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "AccessDeniedException", message)
    }

    /// It is the id neither of a session nor of a command on a node.
    pub(super) fn nothing_to_record(id: &TranscriptId) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "ResourceNotFoundException",
            format!("there is nothing of which {id} could be the transcript"),
        )
    }

    pub(super) fn no_such_session() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "ResourceNotFoundException",
            "there is no such session",
        )
    }

    /// The stock agent stops trying when it reads this text (agent-wire §8.1).
    pub(super) fn session_terminated() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "ValidationException",
            "Session is already terminated",
        )
    }

    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLargeException",
            message,
        )
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "ValidationException", message)
    }

    /// Who asked may not, or did not prove who it is: code and message.
    pub(super) fn denial(&self) -> Option<(&'static str, &str)> {
        (self.status == StatusCode::FORBIDDEN).then_some((self.code, self.message.as_str()))
    }

    pub(super) fn into_answer(self) -> Answer {
        let Self {
            status,
            code,
            message,
        } = self;
        let message = escape(&message);
        xml(status, format!("<{code}><Message>{message}</Message></{code}>"))
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Store(source) => source.into(),
            refusal => Self::new(
                StatusCode::FORBIDDEN,
                refusal.code().as_str(),
                refusal.to_string(),
            ),
        }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge(_) => Self::too_large(error.to_string()),
            BodyError::BrokeOff | BodyError::Late => Self::bad_request(error.to_string()),
        }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        Self::access_denied(denied.to_string())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!(
            error = %error_chain(&error),
            "the store failed a channel request"
        );
        let message = "internal failure; see the endpoint's log";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", message)
    }
}

/// The answer to a request for a channel: 201 exactly, or the stock agent takes it for an error.
pub(super) fn token(root: &'static str, token: &str) -> Answer {
    let body = format!(
        "<{root}><MessageSchemaVersion>1.0</MessageSchemaVersion><TokenValue>{}</TokenValue></{root}>",
        escape(token)
    );
    xml(StatusCode::CREATED, body)
}

/// How much of a transcript is stored now, and how much of that survives a power cut; and that so much of what follows may
/// come as blocks.
pub(super) fn stored(length: u64, durable: u64) -> Answer {
    let body = format!("{{\"Length\":{length},\"Durable\":{durable},\"BlockBytes\":{MAX_UNPACKED_BYTES}}}");
    respond(StatusCode::OK, "application/json", body)
}

/// How much of a transcript is stored now.
pub(super) fn length(status: StatusCode, length: u64) -> Answer {
    respond(status, "application/json", format!("{{\"Length\":{length}}}"))
}

/// These recordings are open, each as the path that it is sent to.
pub(super) fn open_transcripts(recordings: &[TranscriptId]) -> Answer {
    let paths: Vec<String> = recordings
        .iter()
        .map(|id| format!("/v1/transcript/{id}"))
        .collect();
    let body = serde_json::json!({ "Paths": paths });
    respond(StatusCode::OK, "application/json", body.to_string())
}

fn xml(status: StatusCode, body: String) -> Answer {
    respond(status, "application/xml", body)
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
