//! The data key of an encrypted session (client-wire §4.6): made by KMS, with the operator's own key.

use std::{sync::Arc, time::Duration};

use moorline_protocol::channel::{DataKey, encryption_context};
use moorline_ssm::{
    Blob,
    kms::{GenerateDataKey, GenerateDataKeyRequest},
};
use moorline_transport::CallError;
use tokio::time::{Instant, sleep};

use crate::operator::{Operator, is_passing};

const PAUSE: Duration = Duration::from_millis(500);
/// No attempt begins later: the node waits for 15 s, and the user is to learn what failed.
const LAST_ATTEMPT: Duration = Duration::from_secs(8);

/// Why there is no data key.
#[derive(Debug, thiserror::Error)]
pub(super) enum DataKeyError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("no access key is at hand to have a data key made")]
    NoCredentials,
    #[error("it is not known which node the session is on, and a data key is bound to it")]
    NoTarget,
    #[error(
        "the answer to GenerateDataKey has no ciphertext or no plaintext of {} bytes",
        DataKey::BYTES
    )]
    Answer,
}

/// Encrypted, and in clear.
pub(super) type MadeKey = (Vec<u8>, DataKey);

/// What a data key is made for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) key_id: String,
    pub(super) session_id: String,
    pub(super) target: Option<String>,
    pub(super) challenge: Option<String>,
}

/// Has a data key made. Tries again what may pass, for a while.
pub(super) async fn make(operator: Option<Arc<Operator>>, wanted: Wanted) -> Result<MadeKey, DataKeyError> {
    let operator = operator.ok_or(DataKeyError::NoCredentials)?;
    let target = wanted.target.ok_or(DataKeyError::NoTarget)?;
    let context = encryption_context(&wanted.session_id, &target, wanted.challenge.as_deref());
    let request = GenerateDataKeyRequest {
        key_id: Some(wanted.key_id),
        encryption_context: Some(context),
        number_of_bytes: i32::try_from(DataKey::BYTES).ok(),
        ..GenerateDataKeyRequest::default()
    };
    let since = Instant::now();
    let response = loop {
        match operator.call_kms::<GenerateDataKey>(&request).await {
            Err(error) if is_passing(&error) && since.elapsed() < LAST_ATTEMPT => sleep(PAUSE).await,
            result => break result?,
        }
    };
    let Blob(plaintext) = response.plaintext.unwrap_or_default();
    match (response.ciphertext_blob, DataKey::from_slice(&plaintext)) {
        (Some(Blob(ciphertext)), Some(key)) if !ciphertext.is_empty() => Ok((ciphertext, key)),
        _ => Err(DataKeyError::Answer),
    }
}
