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
                tracing::warn!(path = leftover.path, reason, "the rest of a transcript waits");
            }
            Outcome::Away(reason) => {
                tracing::debug!(path = leftover.path, reason, "the rest of a transcript waits");
                // what holds one up holds the others up as well
                return;
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Delivered,
    /// It never will be.
    Refused(String),
    /// Not now, for a reason of its own.
    Later(String),
    /// The endpoint takes nothing now.
    Away(String),
}

/// Only what says that this recording can never be taken costs it: there is none of this name, it is closed, it is too
/// long, or it holds other bytes. Credentials end, clocks differ, links are slow: those come right again.
fn outcome_of(status: u16, body: &[u8]) -> Outcome {
    let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
    let reason = format!("HTTP status {status}: {text}");
    match status {
        404 | 409 | 410 | 413 => Outcome::Refused(reason),
        408 | 429 | 500.. => Outcome::Away(reason),
        _ => Outcome::Later(reason),
    }
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
            Err(error) => return Outcome::Away(format!("{:#}", anyhow::Error::from(error))),
        };
        let stored = serde_json::from_slice(&response.body).map(|stored: Stored| stored.length);
        match (response.status, stored) {
            (200, Ok(length)) if length >= leftover.end => return Outcome::Delivered,
            (200, Ok(length)) if length > offset => offset = length,
            // a part of it arrived before its worker died
            (409, Ok(length)) if length > offset && length <= leftover.end => offset = length,
            (409, Ok(length)) if length == leftover.end && !leftover.is_whole => return Outcome::Delivered,
            (status, _) => return outcome_of(status, &response.body),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_right_again_costs_no_recording() {
        for status in [404, 409, 410, 413] {
            assert!(
                matches!(outcome_of(status, b"x"), Outcome::Refused(_)),
                "{status}"
            );
        }
        // credentials that ended, a clock that differs, a body that came too slowly
        for status in [400, 401, 403] {
            assert!(matches!(outcome_of(status, b"x"), Outcome::Later(_)), "{status}");
        }
        for status in [408, 429, 500, 503, 507] {
            assert!(matches!(outcome_of(status, b"x"), Outcome::Away(_)), "{status}");
        }
    }
}
