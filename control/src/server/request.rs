//! One request: which part of the endpoint answers it, within which bounds.

use std::{
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::Full;
use hyper::body::Incoming;
use moorline_protocol::error_chain;
use moorline_ssm::{ErrorCode, Operation as _, message_delivery::GetMessages};
use tokio::time::timeout;

use crate::{
    api::{self, ApiError, CONTENT_TYPE, RequestContext, Router},
    app::App,
    audit::{CallRecord, Source},
    auth::{AuthError, Principal, authenticate, claimed_key},
    gateway::{self, Gateway},
    log_lines::{Pace, shown_line},
    server::{
        BodyError, MOST_BODY_BYTES,
        attachment::{self, Attachments, ReplyBody},
    },
};

/// For an operation; the longest is an empty long poll of 15 seconds.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(60);
const MOST_TARGET_CHARACTERS: usize = 128;
/// Refusals that are written to the log in one second; others are counted.
const MOST_REFUSALS_LOGGED: u32 = 50;
/// Longest `Host`: a DNS name and a port.
const MOST_HOST_BYTES: usize = 261;

/// Answers requests.
pub(super) struct Service {
    pub(super) app: Arc<App>,
    gateway: Arc<Gateway>,
    router: Router,
    attachments: Attachments,
    /// Where we listen, for clients that send no `Host`.
    address: SocketAddr,
    /// Of the log.
    refusals: Pace,
}

impl Service {
    pub(super) fn new(app: Arc<App>, gateway: Arc<Gateway>, address: SocketAddr) -> Self {
        Self {
            app,
            gateway,
            router: api::router(),
            attachments: Attachments::default(),
            address,
            refusals: Pace::per_second(MOST_REFUSALS_LOGGED),
        }
    }

    pub(super) async fn answer(&self, request: Request<Incoming>, peer: IpAddr) -> Response<ReplyBody> {
        let _under_way = self.app.metrics.gauge("moorline_requests_under_way", &[]).hold();
        let request_id = uuid::Uuid::new_v4().to_string();
        let route = self.route(request, peer, &request_id);
        // A panic in a handler ends this request, not the connection or the process.
        let mut response = match AssertUnwindSafe(route).catch_unwind().await {
            Ok(response) => response,
            Err(_) => {
                tracing::error!(request_id, "a handler panicked");
                ApiError::internal("a handler panicked")
                    .to_response()
                    .map(ReplyBody::from)
            }
        };
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert("x-amzn-requestid", value);
        }
        response
    }

    async fn route(&self, request: Request<Incoming>, peer: IpAddr, request_id: &str) -> Response<ReplyBody> {
        if request.method() == Method::GET && request.uri().path().starts_with(attachment::PATH) {
            let (parts, _no_body) = request.into_parts();
            return self
                .attachments
                .answer(&self.app, parts.uri.path(), &parts.headers)
                .await;
        }
        let response = match (request.method(), request.uri().path()) {
            (&Method::GET, "/healthz") => self.health().await,
            (&Method::GET, "/metrics") => self.metrics(request, peer).await,
            (_, path) if path.starts_with("/v1/") => {
                gateway::handle(&self.app, &self.gateway, request, peer).await
            }
            (&Method::POST, "/") => self.operation(request, peer, request_id).await,
            _ => plain(StatusCode::NOT_FOUND, "there is nothing here\n".to_owned()),
        };
        response.map(ReplyBody::from)
    }

    async fn health(&self) -> Response<Full<Bytes>> {
        if self.app.store.is_healthy().await {
            plain(StatusCode::OK, "ok\n".to_owned())
        } else {
            plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "the store does not answer\n".to_owned(),
            )
        }
    }

    async fn metrics(&self, request: Request<Incoming>, peer: IpAddr) -> Response<Full<Bytes>> {
        let (parts, _no_body) = request.into_parts();
        if may_see_metrics(&self.app, &parts, peer).await {
            plain(StatusCode::OK, self.app.metrics.render())
        } else {
            let text = "metrics are for this machine, and for requests that an administrator signed\n";
            plain(StatusCode::FORBIDDEN, text.to_owned())
        }
    }

    async fn operation(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        request_id: &str,
    ) -> Response<Full<Bytes>> {
        let target = request
            .headers()
            .get("x-amz-target")
            .and_then(|value| value.to_str().ok());
        // A longer one names no operation, and would only fill the log.
        let target: String = target
            .unwrap_or_default()
            .chars()
            .take(MOST_TARGET_CHARACTERS)
            .collect();
        let record = Arc::new(CallRecord::new(
            self.app.audit.clone(),
            source(request.headers(), peer, request_id, &target),
        ));
        let answered = timeout(
            OPERATION_TIMEOUT,
            self.call(request, peer, (request_id, &target), &record),
        )
        .await;
        let too_long = || {
            // not as unavailable: that says that nothing was begun
            Err(ApiError::new(
                ErrorCode::InternalServerError,
                "the operation took too long to be answered; it may have been carried out all the same",
            ))
        };
        let result = answered.unwrap_or_else(|_| too_long());
        record.finish(&result).await;
        match result {
            Ok(body) => {
                let mut response = Response::new(Full::from(body));
                response
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
                response
            }
            Err(error) => {
                self.log_refusal(&error, &target, request_id);
                let mut response = error.to_response();
                if error.code == ErrorCode::RequestEntityTooLarge {
                    // The rest of the body is not worth reading.
                    response
                        .headers_mut()
                        .insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                response
            }
        }
    }

    /// Anyone may cause these lines, so they are cut, escaped and so many a second.
    fn log_refusal(&self, error: &ApiError, target: &str, request_id: &str) {
        if error.code.is_fault() {
            log_failure(error, target, request_id);
        } else if let Some(held_back) = self.refusals.admit(self.app.clock.unix_millis()) {
            let text = error.to_string();
            tracing::info!(request_id, target, held_back, "refused: {}", shown_line(&text));
        }
    }

    async fn call(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        (request_id, target): (&str, &str),
        record: &Arc<CallRecord>,
    ) -> Result<Vec<u8>, ApiError> {
        let (parts, body) = request.into_parts();
        let body = self.app.bodies.read(body, MOST_BODY_BYTES, peer).await?;
        if target.is_empty() {
            return Err(ApiError::new(
                ErrorCode::UnknownOperationException,
                "the request has no X-Amz-Target header, so it names no operation",
            ));
        }
        let principal = match authenticate(&self.app, &parts, &body.bytes).await {
            Ok(principal) => principal,
            Err(error) => {
                drop(body);
                // the stock agent of a node that was deregistered polls for ever, and again at once
                if is_poll(target) && matches!(error, AuthError::ExpiredToken | AuthError::UnknownNode(_)) {
                    self.app.polls.hold_refusal().await;
                }
                return Err(error.into());
            }
        };
        record.is_by(&principal);
        let cx = RequestContext {
            app: Arc::clone(&self.app),
            principal,
            host: host(&parts.headers).unwrap_or_else(|| self.address.to_string()),
            now: self.app.clock.unix_millis(),
            record: Arc::clone(record),
            request_id: request_id.to_owned(),
            peer: Some(peer),
        };
        self.router.call(cx, target, body.bytes.clone()).await
    }
}

/// Whether it is asked for messages by the older way.
fn is_poll(target: &str) -> bool {
    target.split_once('.') == Some((GetMessages::PREFIX, GetMessages::NAME))
}

/// What the headers say about where a request comes from.
fn source(headers: &http::HeaderMap, peer: IpAddr, request_id: &str, target: &str) -> Source {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    Source {
        peer: Some(peer),
        user_agent: text(header::USER_AGENT).map(str::to_owned),
        claimed_key: claimed_key(headers).map(str::to_owned),
        request_id: request_id.to_owned(),
        target: target.to_owned(),
    }
}

/// See [`super::metrics`].
async fn may_see_metrics(app: &Arc<App>, parts: &Parts, peer: IpAddr) -> bool {
    if peer.to_canonical().is_loopback() {
        return true;
    }
    let asking = authenticate(app, parts, b"").await;
    matches!(asking, Ok(Principal::Administrator { .. }))
}

/// The `Host` header, if it can stand in a URL.
pub(crate) fn host(headers: &http::HeaderMap) -> Option<String> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let is_plain = host.len() <= MOST_HOST_BYTES
        && !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']'));
    is_plain.then(|| host.to_owned())
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        let code = match error {
            BodyError::BrokeOff => ErrorCode::SerializationException,
            BodyError::Late => ErrorCode::RequestExpired,
            BodyError::TooLarge(_) => ErrorCode::RequestEntityTooLarge,
        };
        Self::new(code, error.to_string())
    }
}

fn log_failure(error: &ApiError, target: &str, request_id: &str) {
    let source = error.source.as_deref();
    let cause = source.map_or_else(String::new, |source| error_chain(source));
    tracing::error!(request_id, target, cause, "{}", shown_line(&error.to_string()));
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests;
