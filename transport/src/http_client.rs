//! HTTPS requests over HTTP/1.1, with one connection kept for the next request. No redirects, cookies or retries:
//! a signed request is answered or it is not.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{sync::Mutex, time::timeout};

use crate::{DialError, Endpoint, Trust, clock::http_date, dial::dial};

/// The largest answer that is read, in bytes.
const MAX_RESPONSE_BYTES: usize = 8 * 1024 * 1024;
/// A whole request, with dialling. Above the 15 s that an endpoint holds an empty poll.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// A kept connection that was idle for longer may be closed by the server just as we use it: a new one is dialled.
const KEEP_IDLE: Duration = Duration::from_secs(20);
/// hyper's smallest read buffer: idle connections should cost little.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// How the services say that the time of a signature is off.
const SKEW_TEXTS: [&str; 4] = [
    "Signature expired",
    "Signature not yet current",
    "RequestTimeTooSkewed",
    "RequestExpired",
];

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("{endpoint} broke off the request")]
    Broken {
        endpoint: String,
        #[source]
        source: hyper::Error,
    },
    #[error("the answer of {endpoint} could not be read")]
    Body {
        endpoint: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{endpoint} did not answer within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout { endpoint: String },
    #[error("the request cannot be written")]
    Malformed(#[source] http::Error),
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Response {
    /// The endpoint's time, if it refused the request because of ours.
    fn refused_time(&self) -> Option<u64> {
        if !matches!(self.status, 400 | 401 | 403) {
            return None;
        }
        let text = String::from_utf8_lossy(&self.body);
        SKEW_TEXTS.iter().find(|skew| text.contains(*skew))?;
        http_date(self.headers.get(http::header::DATE)?.to_str().ok()?)
    }
}

/// A client of one endpoint.
#[derive(Debug)]
pub struct HttpClient {
    endpoint: Endpoint,
    trust: Trust,
    idle: Mutex<Option<(SendRequest<Full<Bytes>>, Instant)>>,
}

impl HttpClient {
    pub fn new(endpoint: Endpoint, trust: Trust) -> Self {
        Self {
            endpoint,
            trust,
            idle: Mutex::new(None),
        }
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Sends one request with exactly these headers (which must include `host`) and a content length.
    ///
    /// # Errors
    /// No whole answer came. Only a request that was provably never sent is tried again, on a new connection: a
    /// command that may have been taken must not be sent twice.
    pub async fn request(
        &self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response, HttpError> {
        let attempt = async {
            let kept = self.idle.lock().await.take();
            if let Some((sender, since)) = kept
                && !sender.is_closed()
                && since.elapsed() < KEEP_IDLE
            {
                match self.send(sender, method, uri, headers, body.clone()).await {
                    Err(HttpError::Broken { source, .. }) if source.is_canceled() => {}
                    other => return other,
                }
            }
            let sender = self.dial().await?;
            self.send(sender, method, uri, headers, body).await
        };
        timeout(REQUEST_TIMEOUT, attempt).await.unwrap_or_else(|_| {
            Err(HttpError::Timeout {
                endpoint: self.endpoint.url(),
            })
        })
    }

    /// As [`Self::request`], signed: `sign` gets the time and returns all headers. When the endpoint refuses the time,
    /// its own is learned and the request signed and sent once more: it was refused, so nothing is done twice.
    ///
    /// # Errors
    /// As [`Self::request`]; and what `sign` returns.
    pub async fn request_signed<E: From<HttpError>>(
        &self,
        method: &str,
        uri: &str,
        body: &Bytes,
        sign: impl Fn(u64) -> Result<Vec<(String, String)>, E>,
    ) -> Result<Response, E> {
        let send = async || {
            let headers = sign(self.endpoint.unix_millis())?;
            let headers: Vec<(&str, &str)> = headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            Ok::<_, E>(self.request(method, uri, &headers, body.clone()).await?)
        };
        let response = send().await?;
        match response.refused_time() {
            Some(theirs) if self.endpoint.clock().learn(theirs) => send().await,
            _ => Ok(response),
        }
    }

    async fn dial(&self) -> Result<SendRequest<Full<Bytes>>, HttpError> {
        let stream = dial(&self.endpoint, &self.trust).await?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_BUFFER_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| self.broken(source))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
        Ok(sender)
    }

    async fn send(
        &self,
        mut sender: SendRequest<Full<Bytes>>,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response, HttpError> {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).map_err(HttpError::Malformed)?;
        sender.ready().await.map_err(|source| self.broken(source))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|source| self.broken(source))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_RESPONSE_BYTES)
            .collect()
            .await
            .map_err(|source| HttpError::Body {
                endpoint: self.endpoint.url(),
                source,
            })?
            .to_bytes();
        *self.idle.lock().await = Some((sender, Instant::now()));
        Ok(Response {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        })
    }

    fn broken(&self, source: hyper::Error) -> HttpError {
        HttpError::Broken {
            endpoint: self.endpoint.url(),
            source,
        }
    }
}
