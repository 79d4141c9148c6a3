//! The transcript on its way to the endpoint, while the session runs: chunks of the recording, strictly in order by
//! offset, each kept until the endpoint says that it has it (docs/deviations.md).
//!
//! What has not been taken is held in memory up to a bound; at the bound the terminal is not read any more, so that
//! nothing is shown that is not recorded.

mod shipment;

use std::{future::Future, pin::Pin, sync::Arc};

use moorline_transport::{HttpClient, HttpError, Response, Service};
use tokio::time::{Duration, Instant, sleep_until};

pub(super) use self::shipment::TranscriptError;
use self::shipment::{Chunk, Shipment, Verdict};
use super::{
    recorder::{EVENT_OVERHEAD_BYTES, LARGEST_EXPANSION, Recorder, Size},
    role_credentials::CredentialSupply,
};
use crate::{
    identity::{Registration, RoleCredentialsError},
    runtime::{Backoff, random_u32},
};

/// This much is sent at once.
const FULL_CHUNK_BYTES: usize = 256 * 1024;
/// Less than that waits this long for more: each request costs the endpoint a write.
const GATHER: Duration = Duration::from_millis(100);
/// And this long after the last request.
const INTERVAL: Duration = Duration::from_millis(250);
/// Pauses after a failure: the first is below this, later ones double up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// The registered type of asciicast files.
const CONTENT_TYPE: &str = "application/x-asciicast";

/// Where it goes.
#[derive(Debug)]
pub(super) struct TranscriptPlace {
    client: HttpClient,
    registration: Arc<Registration>,
    credentials: Arc<CredentialSupply>,
    path: String,
}

/// Why one request had no answer.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("there are no valid role credentials")]
    Credentials(#[source] RoleCredentialsError),
    #[error("failed to send the transcript")]
    Http(#[source] HttpError),
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

    async fn send(&self, chunk: Chunk) -> Result<Response, SendError> {
        let credentials = self
            .credentials
            .valid(&self.registration)
            .await
            .map_err(SendError::Credentials)?;
        let complete = if chunk.is_last { "&complete=true" } else { "" };
        let uri = format!("{}?offset={}{complete}", self.path, chunk.offset);
        let region = &self.registration.region;
        let response = self
            .client
            .signed_post(&credentials, region, &uri, CONTENT_TYPE, chunk.bytes)
            .await
            .map_err(SendError::Http)?;
        if matches!(response.status, 400 | 401 | 403) {
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
    shipment: Shipment,
    sending: Option<Sending>,
    /// When the next request goes out.
    send_at: Option<Instant>,
    sent_at: Option<Instant>,
    backoff: Backoff,
    finished: bool,
}

impl Transcript {
    pub(super) fn new(place: Arc<TranscriptPlace>, recorder: Recorder) -> Self {
        Self {
            place,
            recorder,
            shipment: Shipment::new(),
            sending: None,
            send_at: None,
            sent_at: None,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            finished: false,
        }
    }

    /// Output that can be recorded now without going over the bound, in bytes.
    pub(super) fn room(&self) -> usize {
        let room = self.shipment.room(&self.recorder.written);
        room.saturating_sub(EVENT_OVERHEAD_BYTES) / LARGEST_EXPANSION
    }

    pub(super) fn output(&mut self, at: Duration, bytes: &[u8]) {
        if !self.is_over() {
            self.recorder.output(at, bytes);
            self.schedule();
        }
    }

    pub(super) fn resize(&mut self, at: Duration, size: Size) {
        if !self.is_over() {
            self.recorder.resize(at, size);
            self.schedule();
        }
    }

    /// Nothing will follow; the rest is sent at once.
    pub(super) fn finish(&mut self, at: Duration) {
        if !self.is_over() {
            self.recorder.finish(at);
            self.finished = true;
            self.schedule();
        }
    }

    /// Whether the endpoint has everything, or will never have it.
    pub(super) fn is_over(&self) -> bool {
        self.shipment.is_over()
    }

    pub(super) fn failure(&self) -> Option<&TranscriptError> {
        self.shipment.failure()
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
        // What is repeated has its time already.
        if self.sending.is_some() || (self.shipment.repeats() && self.send_at.is_some()) {
            return;
        }
        let now = Instant::now();
        let waiting = self.recorder.written.len();
        if self.finished || self.shipment.repeats() || waiting >= FULL_CHUNK_BYTES {
            self.send_at = Some(now);
        } else if waiting > 0 && self.send_at.is_none() {
            let after_last = self.sent_at.map_or(now, |sent_at| sent_at + INTERVAL);
            self.send_at = Some(after_last.max(now + GATHER));
        }
    }

    fn begin(&mut self) {
        let chunk = self
            .shipment
            .next_chunk(&mut self.recorder.written, self.finished);
        let place = Arc::clone(&self.place);
        self.send_at = None;
        self.sent_at = Some(Instant::now());
        self.sending = Some(Box::pin(async move { place.send(chunk).await }));
    }

    fn answered(&mut self, answer: Result<Response, SendError>) {
        let verdict = match answer {
            Ok(response) => self.shipment.answered(response.status, &response.body),
            Err(error) => Verdict::Later(format!("{:#}", anyhow::Error::from(error))),
        };
        match verdict {
            Verdict::GoOn if self.is_over() => {}
            Verdict::GoOn => {
                self.backoff.reset();
                self.schedule();
            }
            Verdict::Later(reason) => {
                let pause = self.backoff.next(random_u32()).max(SHORTEST_PAUSE);
                tracing::info!("the transcript was not taken, next attempt in {pause:.1?}: {reason}");
                self.send_at = Some(Instant::now() + pause);
            }
        }
    }
}
