//! The transcript on its way to the endpoint, while the session runs: chunks of the recording, strictly in order by
//! offset, each kept until the endpoint says that it has it (docs/deviations.md).
//!
//! What has not been taken is held in memory up to a bound; at the bound the terminal is not read any more, so that
//! nothing is shown that is not recorded.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use moorline_transport::{HttpClient, HttpError, Response, Service};
use serde::Deserialize;
use tokio::time::{Duration, Instant, sleep_until};

use super::{
    recorder::{EVENT_OVERHEAD_BYTES, LARGEST_EXPANSION, Recorder, Size},
    role_credentials::CredentialSupply,
};
use crate::{
    identity::{Registration, RoleCredentialsError},
    runtime::{Backoff, random_u32},
};

/// What is held at most: recorded and not yet with the endpoint.
const MAX_HELD_BYTES: usize = 2 * 1024 * 1024;
/// The largest request.
const MAX_CHUNK_BYTES: usize = 1024 * 1024;
/// This much is sent at once.
const FULL_CHUNK_BYTES: usize = 256 * 1024;
/// Less than that waits this long for more: each request costs the endpoint a write.
const GATHER: Duration = Duration::from_millis(100);
/// And this long after the last request.
const INTERVAL: Duration = Duration::from_millis(250);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The registered type of asciicast files.
const CONTENT_TYPE: &str = "application/x-asciicast";
/// An endpoint that refuses a transcript so often will not take it.
const MAX_REFUSALS: u32 = 6;

/// The endpoint will not take the transcript.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TranscriptError {
    #[error("the endpoint refuses the transcript with HTTP status {status}: {text}")]
    Refused { status: u16, text: String },
    #[error("the endpoint holds {theirs} bytes of the transcript where {ours} are right")]
    Diverged { ours: u64, theirs: u64 },
}

/// Where it goes.
#[derive(Debug)]
pub(super) struct TranscriptPlace {
    client: HttpClient,
    registration: Arc<Registration>,
    credentials: Arc<CredentialSupply>,
    path: String,
}

/// Why one request had no result.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("there are no valid role credentials")]
    Credentials(#[source] RoleCredentialsError),
    #[error("failed to send the transcript")]
    Http(#[source] HttpError),
}

/// What the endpoint has now.
#[derive(Deserialize)]
struct Stored {
    #[serde(rename = "Length")]
    length: u64,
}

impl TranscriptPlace {
    pub(super) fn new(
        registration: Arc<Registration>,
        credentials: Arc<CredentialSupply>,
        path: String,
    ) -> Self {
        let endpoint = registration.services.endpoint(Service::SsmMessages).clone();
        Self {
            client: HttpClient::new(endpoint, registration.trust.clone()),
            registration,
            credentials,
            path,
        }
    }

    async fn send(&self, offset: u64, chunk: Bytes, is_last: bool) -> Result<Response, SendError> {
        let credentials = self
            .credentials
            .valid(&self.registration)
            .await
            .map_err(SendError::Credentials)?;
        let complete = if is_last { "&complete=true" } else { "" };
        let uri = format!("{}?offset={offset}{complete}", self.path);
        let response = self
            .client
            .signed_post(&credentials, &self.registration.region, &uri, CONTENT_TYPE, chunk)
            .await
            .map_err(SendError::Http)?;
        if matches!(response.status, 401 | 403) {
            self.credentials.reject(&credentials).await;
        }
        Ok(response)
    }
}

type Sending = Pin<Box<dyn Future<Output = Result<Response, SendError>> + Send>>;

/// A recording and its transfer.
pub(super) struct Transcript {
    place: Arc<TranscriptPlace>,
    recorder: Recorder,
    /// Given to the endpoint and not yet confirmed, beginning at `offset`.
    chunk: Bytes,
    /// What the endpoint is known to have.
    offset: u64,
    sending: Option<Sending>,
    /// Whether the request under way says that nothing follows.
    sending_last: bool,
    send_at: Option<Instant>,
    sent_at: Option<Instant>,
    backoff: Backoff,
    refusals: u32,
    finished: bool,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Open,
    Complete,
    Failed(TranscriptError),
}

impl Transcript {
    pub(super) fn new(place: Arc<TranscriptPlace>, recorder: Recorder) -> Self {
        Self {
            place,
            recorder,
            chunk: Bytes::new(),
            offset: 0,
            sending: None,
            sending_last: false,
            send_at: None,
            sent_at: None,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            refusals: 0,
            finished: false,
            state: State::Open,
        }
    }

    /// Output that can be recorded now without going over the bound, in bytes.
    pub(super) fn room(&self) -> usize {
        let held = self.recorder.written.len().saturating_add(self.chunk.len());
        MAX_HELD_BYTES
            .saturating_sub(held)
            .saturating_sub(EVENT_OVERHEAD_BYTES)
            / LARGEST_EXPANSION
    }

    pub(super) fn output(&mut self, at: Duration, bytes: &[u8]) {
        self.recorder.output(at, bytes);
        self.schedule();
    }

    pub(super) fn resize(&mut self, at: Duration, size: Size) {
        self.recorder.resize(at, size);
        self.schedule();
    }

    /// Nothing will follow; the rest is sent at once.
    pub(super) fn finish(&mut self, at: Duration) {
        self.recorder.finish(at);
        self.finished = true;
        self.schedule();
    }

    /// Whether the endpoint has everything, or will never have it.
    pub(super) fn is_over(&self) -> bool {
        self.state != State::Open
    }

    pub(super) fn failure(&self) -> Option<&TranscriptError> {
        match &self.state {
            State::Failed(error) => Some(error),
            State::Open | State::Complete => None,
        }
    }

    /// Sends what is due. Returns when the endpoint took or refused something; nothing is lost when the future is
    /// dropped.
    pub(super) async fn progress(&mut self) {
        loop {
            if let Some(sending) = &mut self.sending {
                let answer = sending.await;
                self.sending = None;
                self.answered(answer);
                return;
            }
            let Some(send_at) = self.send_at else {
                return std::future::pending().await;
            };
            sleep_until(send_at).await;
            self.begin();
        }
    }

    /// Decides when the next request goes out, if none is under way.
    fn schedule(&mut self) {
        if self.sending.is_some() || self.is_over() {
            return;
        }
        let waiting = self.recorder.written.len();
        let now = Instant::now();
        // A chunk is left over from a failed attempt, which has set its own time.
        if !self.chunk.is_empty() && self.send_at.is_some() {
            return;
        }
        if self.finished || waiting >= FULL_CHUNK_BYTES || !self.chunk.is_empty() {
            self.send_at = Some(now);
        } else if waiting > 0 && self.send_at.is_none() {
            let after_last = self.sent_at.map_or(now, |sent_at| sent_at + INTERVAL);
            self.send_at = Some(after_last.max(now + GATHER));
        }
    }

    fn begin(&mut self) {
        self.send_at = None;
        if self.chunk.is_empty() {
            self.chunk = self.take_chunk();
        }
        let place = Arc::clone(&self.place);
        let (offset, chunk) = (self.offset, self.chunk.clone());
        let is_last = self.finished && self.recorder.written.is_empty();
        self.sending_last = is_last;
        self.sent_at = Some(Instant::now());
        self.sending = Some(Box::pin(async move { place.send(offset, chunk, is_last).await }));
    }

    fn take_chunk(&mut self) -> Bytes {
        let written = &mut self.recorder.written;
        if written.len() <= MAX_CHUNK_BYTES {
            return Bytes::from(std::mem::take(written));
        }
        let rest = written.split_off(MAX_CHUNK_BYTES);
        Bytes::from(std::mem::replace(written, rest))
    }

    fn answered(&mut self, answer: Result<Response, SendError>) {
        let response = match answer {
            Ok(response) => response,
            Err(error) => {
                let text = format!("{:#}", anyhow::Error::from(error));
                return self.again_later(&text);
            }
        };
        let stored = serde_json::from_slice(&response.body).map(|stored: Stored| stored.length);
        match (response.status, stored) {
            (200, Ok(length)) => self.took(length, true),
            (409, Ok(length)) => self.took(length, false),
            (408 | 429 | 500.., _) => self.again_later(&format!("HTTP status {}", response.status)),
            (status, _) => self.refused(status, &response.body),
        }
    }

    /// The endpoint has this many bytes now; what it has need not be kept.
    fn took(&mut self, length: u64, accepted: bool) {
        let held_to = self.offset.saturating_add(self.chunk.len() as u64);
        if length < self.offset || length > held_to {
            let error = TranscriptError::Diverged {
                ours: if length < self.offset {
                    self.offset
                } else {
                    held_to
                },
                theirs: length,
            };
            tracing::error!(%error, "the transcript cannot go on");
            self.state = State::Failed(error);
            return;
        }
        if !accepted && length == self.offset {
            return self.again_later("the endpoint asks for what it was sent");
        }
        let taken = usize::try_from(length - self.offset).unwrap_or(self.chunk.len());
        drop(self.chunk.split_to(taken));
        if self.chunk.is_empty() {
            // An empty slice would keep the whole chunk in memory.
            self.chunk = Bytes::new();
        }
        self.offset = length;
        self.refusals = 0;
        self.backoff.reset();
        if accepted && self.sending_last && self.chunk.is_empty() {
            self.state = State::Complete;
        }
        self.schedule();
    }

    fn refused(&mut self, status: u16, body: &[u8]) {
        let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
        self.refusals += 1;
        if self.refusals >= MAX_REFUSALS {
            let error = TranscriptError::Refused { status, text };
            tracing::error!(%error, "the transcript cannot go on");
            self.state = State::Failed(error);
            return;
        }
        self.again_later(&format!("HTTP status {status}: {text}"));
    }

    fn again_later(&mut self, reason: &str) {
        let pause = self.backoff.next(random_u32()).max(Duration::from_millis(50));
        tracing::info!("the transcript was not taken, next attempt in {pause:.1?}: {reason}");
        self.send_at = Some(Instant::now() + pause);
    }
}

#[cfg(test)]
mod tests;
