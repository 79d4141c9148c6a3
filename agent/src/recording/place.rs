//! Where a recording goes: a path at the endpoint that takes its bytes in order (docs/deviations.md).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use moorline_protocol::transcript::MAX_UNPACKED_BYTES;
use moorline_transport::{HttpClient, HttpError, Response, Service};
use serde::Deserialize;

use super::Packed;
use crate::identity::{CredentialSupply, Registration, RoleCredentialsError};

/// The registered type of asciicast files.
const CONTENT_TYPE: &str = "application/x-asciicast";
/// What an endpoint takes in one request.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// One request: these bytes belong at this offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) offset: u64,
    pub(crate) piece: Packed,
    /// Nothing follows.
    pub(crate) is_last: bool,
    /// The answer means that it is on the endpoint's disk.
    pub(crate) is_durable: bool,
    /// Seals of this node prove it at the endpoint, so that the signature of the request need not.
    pub(crate) is_sealed: bool,
}

/// Why one request had no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("there are no valid role credentials")]
    Credentials(#[source] RoleCredentialsError),
    #[error("failed to send the transcript")]
    Http(#[source] HttpError),
}

/// The endpoint, for recordings; one connection is kept for the next request.
#[derive(Debug)]
pub(crate) struct TranscriptPlace {
    client: HttpClient,
    registration: Arc<Registration>,
    credentials: Arc<CredentialSupply>,
    /// It takes so much as blocks, as it said. One of an earlier release would take them for the recording itself.
    block_bytes: AtomicUsize,
}

/// What an answer says beside.
#[derive(Deserialize)]
struct Abilities {
    #[serde(rename = "BlockBytes", default)]
    block_bytes: usize,
}

impl TranscriptPlace {
    pub(crate) fn new(registration: Arc<Registration>, credentials: Arc<CredentialSupply>) -> Self {
        let endpoint = registration.services.endpoint(Service::SsmMessages).clone();
        Self {
            client: HttpClient::new(endpoint, registration.trust.clone()),
            registration,
            credentials,
            block_bytes: AtomicUsize::new(0),
        }
    }

    /// Bytes of a recording that one request can bring, as far as is known.
    pub(crate) fn most_bytes(&self) -> usize {
        self.block_bytes.load(Ordering::Relaxed).max(MAX_BODY_BYTES)
    }

    /// Sends a chunk of the recording that has this path, or its begin, where the endpoint takes no more at once.
    ///
    /// # Errors
    /// There is no answer; it may have been taken all the same.
    pub(crate) async fn send(&self, path: &str, chunk: Chunk) -> Result<Response, SendError> {
        let is_sealed = chunk.is_sealed;
        let (uri, body) = request(path, chunk, self.block_bytes.load(Ordering::Relaxed));
        let response = self.post(&uri, CONTENT_TYPE, body, is_sealed).await?;
        // an answer that does not say it may be another endpoint's: what goes out next is good for any
        if let Ok(Abilities { block_bytes }) = serde_json::from_slice(&response.body) {
            let block_bytes = block_bytes.min(MAX_UNPACKED_BYTES);
            self.block_bytes.store(block_bytes, Ordering::Relaxed);
        }
        Ok(response)
    }

    /// Says that the recording of this path ends at this length, and that its end was not recorded.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(crate) async fn cut(&self, path: &str, length: u64) -> Result<Response, SendError> {
        let uri = format!("{path}?offset={length}&cut=true");
        self.post(&uri, CONTENT_TYPE, Bytes::new(), false).await
    }

    /// Asks which recordings of this node are open.
    ///
    /// # Errors
    /// There is no answer.
    pub(crate) async fn open(&self) -> Result<Response, SendError> {
        let uri = format!("/v1/open-transcripts/{}", self.registration.instance_id);
        self.post(&uri, "application/json", Bytes::new(), false).await
    }

    async fn post(
        &self,
        uri: &str,
        content_type: &str,
        body: Bytes,
        is_sealed: bool,
    ) -> Result<Response, SendError> {
        let credentials = self
            .credentials
            .valid(&self.registration)
            .await
            .map_err(SendError::Credentials)?;
        let region = &self.registration.region;
        let client = &self.client;
        let response = match is_sealed {
            true => {
                client
                    .post_sealed(&credentials, region, uri, content_type, body)
                    .await
            }
            false => {
                client
                    .signed_post(&credentials, region, uri, content_type, body)
                    .await
            }
        };
        let response = response.map_err(SendError::Http)?;
        if matches!(response.status, 400 | 401 | 403) {
            self.credentials.reject(&credentials).await;
        }
        Ok(response)
    }
}

/// Where a chunk goes, and what.
fn request(path: &str, chunk: Chunk, block_bytes: usize) -> (String, Bytes) {
    let piece = chunk.piece;
    let are_blocks = piece.len() <= block_bytes && piece.held_bytes() < piece.len();
    // it was made for an endpoint that another one replaced
    let is_head = !are_blocks && piece.len() > MAX_BODY_BYTES;
    let complete = if chunk.is_last && !is_head {
        "&complete=true"
    } else {
        ""
    };
    let durable = if chunk.is_durable { "&durable=true" } else { "" };
    let uri = format!("{path}?offset={}{complete}{durable}", chunk.offset);
    match are_blocks {
        true => (format!("{uri}&blocks=true"), piece.blocks().clone()),
        false => (uri, piece.split(MAX_BODY_BYTES).0.plain().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_packed_for_an_endpoint_that_said_that_it_takes_that() {
        let chunk = |length: usize| Chunk {
            offset: 7,
            piece: Packed::new(&vec![b'x'; length]),
            is_last: false,
            is_durable: true,
            is_sealed: true,
        };
        let large = chunk(9000);
        let (uri, body) = request("/p", large.clone(), 0);
        assert_eq!(
            (&*uri, &body[..]),
            ("/p?offset=7&durable=true", &large.piece.plain()[..])
        );
        let (uri, body) = request("/p", large.clone(), MAX_UNPACKED_BYTES);
        assert_eq!(uri, "/p?offset=7&durable=true&blocks=true");
        assert!(body.len() < 100);
        assert_eq!(&body, large.piece.blocks());
        let (uri, body) = request("/p", chunk(10), MAX_UNPACKED_BYTES);
        assert_eq!((&*uri, &*body), ("/p?offset=7&durable=true", &b"xxxxxxxxxx"[..]));
    }

    #[test]
    fn an_endpoint_that_takes_less_than_the_one_before_gets_the_begin_of_what_is_too_long_for_it() {
        let chunk = Chunk {
            offset: 7,
            piece: Packed::new(&vec![b'x'; MAX_BODY_BYTES + 1]),
            is_last: true,
            is_durable: true,
            is_sealed: true,
        };
        let (uri, body) = request("/p", chunk.clone(), MAX_BODY_BYTES);
        assert_eq!((&*uri, body.len()), ("/p?offset=7&durable=true", MAX_BODY_BYTES));
        let (uri, body) = request("/p", chunk, MAX_UNPACKED_BYTES);
        assert_eq!(uri, "/p?offset=7&complete=true&durable=true&blocks=true");
        assert!(body.len() < MAX_BODY_BYTES);
    }
}
