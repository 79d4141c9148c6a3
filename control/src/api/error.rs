//! Errors as the API shows them. Only this file knows HTTP.

use std::fmt;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::Full;
use moorline_ssm::{ErrorCode, Violations};

use crate::{
    auth::{AuthError, Denied, Principal},
    store::StoreError,
};

pub(crate) type ApiResult<T> = Result<T, ApiError>;

/// Errors that any operation may answer, beside those that the model names for it.
const COMMON: &[ErrorCode] = &[
    ErrorCode::AccessDeniedException,
    ErrorCode::ExpiredTokenException,
    ErrorCode::IncompleteSignature,
    ErrorCode::InternalServerError,
    ErrorCode::InvalidSignatureException,
    ErrorCode::MissingAuthenticationToken,
    ErrorCode::RequestEntityTooLarge,
    ErrorCode::RequestExpired,
    ErrorCode::SerializationException,
    ErrorCode::ServiceUnavailable,
    ErrorCode::ThrottlingException,
    ErrorCode::UnknownOperationException,
    ErrorCode::UnrecognizedClientException,
    ErrorCode::ValidationException,
];

/// A refusal or failure with the code that clients match on. The source goes to the log, never to the client.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    pub(crate) source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ApiError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            source: None,
        }
    }

    /// A failure of ours: the client sees that there was one, the log sees which.
    pub(crate) fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            code: ErrorCode::InternalServerError,
            message: "internal failure; see the endpoint's log for this request id".to_owned(),
            source: Some(source.into()),
        }
    }

    /// What is wrong with an input, in words the model has no rule for: `1 validation error detected: …`.
    pub(crate) fn validation(message: impl fmt::Display) -> Self {
        Self::new(ErrorCode::ValidationException, message.to_string())
    }

    /// Whether an operation that names `modelled` may answer this.
    pub(crate) fn is_one_of(&self, modelled: &[ErrorCode]) -> bool {
        modelled.contains(&self.code) || COMMON.contains(&self.code)
    }

    pub(crate) fn status(&self) -> StatusCode {
        if self.code == ErrorCode::RequestEntityTooLarge {
            StatusCode::PAYLOAD_TOO_LARGE
        } else if self.code == ErrorCode::ServiceUnavailable {
            StatusCode::SERVICE_UNAVAILABLE
        } else if self.code.is_fault() {
            StatusCode::INTERNAL_SERVER_ERROR
        } else {
            StatusCode::BAD_REQUEST
        }
    }

    /// The reply, but for what every reply has (request id, date).
    pub(crate) fn to_response(&self) -> Response<Full<Bytes>> {
        let body = serde_json::json!({ "__type": self.code.as_str(), "message": self.message });
        let mut response = Response::new(Full::from(body.to_string()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(CONTENT_TYPE));
        headers.insert(
            "x-amzn-errortype",
            http::HeaderValue::from_static(self.code.as_str()),
        );
        response
    }
}

/// Of every reply of the API.
pub(crate) const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl From<StoreError> for ApiError {
    fn from(source: StoreError) -> Self {
        match source {
            StoreError::Object { .. } => Self {
                code: ErrorCode::ServiceUnavailable,
                message: "the object store does not give the transcript; the endpoint's log says why"
                    .to_owned(),
                source: Some(source.into()),
            },
            StoreError::Corrupt { .. } | StoreError::Database { .. } | StoreError::File { .. } => {
                Self::internal(source)
            }
        }
    }
}

impl From<Violations> for ApiError {
    fn from(violations: Violations) -> Self {
        Self::validation(violations)
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        if denied.principal == Principal::Anonymous.arn() {
            return Self::new(
                ErrorCode::MissingAuthenticationToken,
                "Missing Authentication Token",
            );
        }
        Self::new(ErrorCode::AccessDeniedException, format!("User: {denied}"))
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        let code = error.code();
        match error {
            AuthError::Store(source) => Self::internal(source),
            refusal => Self::new(code, refusal.to_string()),
        }
    }
}
