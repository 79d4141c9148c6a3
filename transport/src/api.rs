//! Calls of the JSON 1.1 API, signed.

use bytes::Bytes;
use moorline_protocol::sigv4::{self, Credentials, SignableRequest, SigningScope};
use moorline_ssm::Operation;

use crate::{HttpClient, HttpError, Response, Service};

/// The endpoint refused a call, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct ServiceError {
    /// The part of `__type` that clients match on, such as `InvalidInstanceId`.
    pub code: String,
    pub message: String,
    pub status: u16,
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("failed to call {operation}")]
    Http {
        operation: &'static str,
        #[source]
        source: HttpError,
    },
    #[error("{operation}")]
    Service {
        operation: &'static str,
        #[source]
        source: ServiceError,
    },
    #[error("the answer to {operation} is not what the service model says")]
    Shape {
        operation: &'static str,
        #[source]
        source: serde_json::Error,
    },
}

impl CallError {
    /// The service's error code, when it was the service that refused.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Service { source, .. } => Some(&source.code),
            Self::Http { .. } | Self::Shape { .. } => None,
        }
    }
}

/// A client of the SSM API (and of our operations beside it).
#[derive(Debug)]
pub struct ApiClient {
    http: HttpClient,
    region: String,
    user_agent: String,
}

impl ApiClient {
    pub fn new(http: HttpClient, region: String, user_agent: String) -> Self {
        Self {
            http,
            region,
            user_agent,
        }
    }

    pub fn http(&self) -> &HttpClient {
        &self.http
    }

    pub fn region(&self) -> &str {
        &self.region
    }

    /// Calls an operation, signed with `credentials`; without, the call is anonymous.
    ///
    /// # Errors
    /// No answer came, the service refused, or the answer has another shape.
    pub async fn call<O: Operation>(
        &self,
        credentials: Option<&Credentials>,
        input: &O::Input,
    ) -> Result<O::Output, CallError> {
        let body = Bytes::from(O::encode_input(input));
        let target = format!("{}.{}", O::PREFIX, O::NAME);
        let service = match O::PREFIX {
            "EC2WindowsMessageDeliveryService" => Service::Ec2Messages,
            "TrentService" => Service::Kms,
            _ => Service::Ssm,
        };
        let authority = self.http.endpoint().authority();
        let sign = |unix_millis| {
            let mut headers = vec![
                ("host".to_owned(), authority.clone()),
                ("content-type".to_owned(), "application/x-amz-json-1.1".to_owned()),
                ("x-amz-target".to_owned(), target.clone()),
            ];
            if let Some(credentials) = credentials {
                let scope = SigningScope {
                    region: &self.region,
                    service: service.as_str(),
                    unix_millis,
                };
                let borrowed = borrow(&headers);
                let request = SignableRequest {
                    method: "POST",
                    uri: "/",
                    headers: &borrowed,
                    body: &body,
                };
                let signed = sigv4::sign(&request, &scope, credentials);
                headers.extend(signed);
            }
            headers.push(("user-agent".to_owned(), self.user_agent.clone()));
            Ok(headers)
        };
        self.post::<O, CallError>(&body, sign).await
    }

    /// Calls an operation with headers that the caller signs (the registration key's signature).
    ///
    /// # Errors
    /// As [`Self::call`]; and what `sign` returns.
    pub async fn post<O: Operation, E: From<CallError>>(
        &self,
        body: &Bytes,
        sign: impl Fn(u64) -> Result<Vec<(String, String)>, E>,
    ) -> Result<O::Output, E> {
        let failed = |source| CallError::Http {
            operation: O::NAME,
            source,
        };
        let sign = |unix_millis| sign(unix_millis).map_err(SignedCallError::Sign);
        let response = match self.http.request_signed("POST", "/", body, sign).await {
            Ok(response) => response,
            Err(SignedCallError::Http(source)) => return Err(failed(source).into()),
            Err(SignedCallError::Sign(error)) => return Err(error),
        };
        if response.status != 200 {
            return Err(CallError::Service {
                operation: O::NAME,
                source: ServiceError::read(&response),
            }
            .into());
        }
        O::decode_output(&response.body).map_err(|source| {
            CallError::Shape {
                operation: O::NAME,
                source,
            }
            .into()
        })
    }
}

/// A call did not come to an answer, by the network's fault or the caller's.
enum SignedCallError<E> {
    Http(HttpError),
    Sign(E),
}

impl<E> From<HttpError> for SignedCallError<E> {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}

impl ServiceError {
    /// Reads `{"__type":"Some#Code","message":"…"}`; a body of another form is shown as it is, cut.
    pub fn read(response: &Response) -> Self {
        let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap_or_default();
        let text = |name: &str| body.get(name).and_then(serde_json::Value::as_str);
        let code = text("__type").map_or("UnknownError", |code| code.rsplit('#').next().unwrap_or(code));
        let message = text("message").or_else(|| text("Message")).map_or_else(
            || {
                let raw: String = String::from_utf8_lossy(&response.body)
                    .chars()
                    .take(200)
                    .collect();
                format!("HTTP status {}: {raw}", response.status)
            },
            str::to_owned,
        );
        Self {
            code: code.to_owned(),
            message,
            status: response.status,
        }
    }
}

fn borrow(headers: &[(String, String)]) -> Vec<(&str, &str)> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}
