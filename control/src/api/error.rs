//! Errors as the API shows them. Only this file knows HTTP.

use std::fmt;

use moorline_ssm::ErrorCode;

pub(crate) type ApiResult<T> = Result<T, ApiError>;

/// A refusal or failure with the code that clients match on. The source goes to the log, never to the client.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    pub(crate) source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ApiError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), source: None }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl From<crate::store::StoreError> for ApiError {
    fn from(source: crate::store::StoreError) -> Self {
        Self {
            code: ErrorCode::InternalServerError,
            message: "internal failure; see the endpoint's log for this request id".to_owned(),
            source: Some(Box::new(source)),
        }
    }
}
