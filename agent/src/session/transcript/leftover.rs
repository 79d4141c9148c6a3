//! The daemon delivers what workers left of recordings: they died, or their session ended while the endpoint was away.

use std::{path::Path, sync::Arc, time::Duration};

use serde::Deserialize;
use tokio::time::sleep;

use super::{
    TranscriptPlace,
    shipment::Chunk,
    spool::{Leftover, folder},
};
use crate::{runtime::NodeContext, session::role_credentials::CredentialSupply};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(20);
const CHUNK_BYTES: usize = 512 * 1024;

/// What the endpoint says it has.
#[derive(Deserialize)]
struct Stored {
    #[serde(rename = "Length")]
    length: u64,
}

/// For as long as the daemon lives.
pub(in crate::session) async fn deliver(context: Arc<NodeContext>) {
    if !context.registration.is_moorline {
        return;
    }
    let folder = folder(&context.state_dir);
    let mut credentials = context.credentials.clone();
    loop {
        // at the start this waits for the endpoint
        if credentials.wait_for(Option::is_some).await.is_err() {
            return;
        }
        deliver_all(&context, &folder).await;
        sleep(INTERVAL).await;
    }
}

async fn deliver_all(context: &NodeContext, folder: &Path) {
    for leftover in Leftover::find(folder) {
        let supply = CredentialSupply::new(context.credentials.borrow().clone());
        let place = TranscriptPlace::new(
            Arc::clone(&context.registration),
            Arc::new(supply),
            leftover.path.clone(),
            // what was delivered is removed here
            true,
        );
        match deliver_one(&place, &leftover).await {
            Outcome::Delivered => {
                tracing::info!(path = leftover.path, "the rest of a transcript was delivered");
                leftover.remove();
            }
            Outcome::Refused(reason) => {
                tracing::warn!(
                    path = leftover.path,
                    reason,
                    "the endpoint does not take the rest of a transcript"
                );
                leftover.remove();
            }
            Outcome::Later(reason) => {
                tracing::debug!(path = leftover.path, reason, "the rest of a transcript waits");
                // what holds one up holds the others up as well
                return;
            }
        }
    }
}

enum Outcome {
    Delivered,
    /// It never will be.
    Refused(String),
    Later(String),
}

async fn deliver_one(place: &TranscriptPlace, leftover: &Leftover) -> Outcome {
    let mut offset = leftover.start();
    loop {
        let bytes = match leftover.read(offset, CHUNK_BYTES) {
            Ok(bytes) => bytes,
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        let sent = offset + bytes.len() as u64;
        let is_last = leftover.is_whole && sent >= leftover.end;
        let chunk = Chunk {
            offset,
            bytes: bytes.into(),
            is_last,
        };
        let response = match place.send(chunk).await {
            Ok(response) => response,
            Err(error) => return Outcome::Later(format!("{:#}", anyhow::Error::from(error))),
        };
        let stored = serde_json::from_slice(&response.body).map(|stored: Stored| stored.length);
        match (response.status, stored) {
            (200, Ok(length)) if length >= leftover.end => return Outcome::Delivered,
            (200, Ok(length)) if length > offset => offset = length,
            // a part of it arrived before its worker died
            (409, Ok(length)) if length > offset && length <= leftover.end => offset = length,
            (409, Ok(length)) if length == leftover.end && !leftover.is_whole => return Outcome::Delivered,
            (408 | 429 | 500.., _) => return Outcome::Later(format!("HTTP status {}", response.status)),
            // credentials that have just ended; what is refused for good is refused again
            (401, _) => return Outcome::Later("the credentials were not taken".to_owned()),
            (status, _) => {
                let text: String = String::from_utf8_lossy(&response.body)
                    .chars()
                    .take(200)
                    .collect();
                return Outcome::Refused(format!("HTTP status {status}: {text}"));
            }
        }
    }
}
