//! The endpoint is told the public half of the key that seals transcripts, before it is told of anything sealed.

use std::{sync::atomic::Ordering, time::Duration};

use moorline_protocol::{error_chain, sigv4::Credentials};
use moorline_ssm::public_key::{RegisterTranscriptKey, RegisterTranscriptKeyRequest};
use tokio::time::timeout;

use crate::{identity::TranscriptKey, runtime::NodeContext};

/// Sessions are worth more than seals: the channel to the endpoint waits no longer than this.
const LIMIT: Duration = Duration::from_secs(5);

/// Registers the key if that is not done yet. Without it transcripts are kept unsealed; the next connection, or the next
/// health ping, tries again.
pub(super) async fn register(context: &NodeContext, credentials: &Credentials) {
    if !context.registration.is_moorline || context.seals.load(Ordering::Relaxed) {
        return;
    }
    if timeout(LIMIT, tell(context, credentials)).await.is_err() {
        tracing::warn!("the endpoint did not answer to the key of transcripts; they are kept unsealed");
    }
}

/// Connection and health ping begin at the same time: one of them tells, and the other waits until it is told.
async fn tell(context: &NodeContext, credentials: &Credentials) {
    let _teller = context.key_teller.lock().await;
    if context.seals.load(Ordering::Relaxed) {
        return;
    }
    let key = match TranscriptKey::load_or_make(&context.state_dir) {
        Ok(key) => key,
        Err(error) => {
            return tracing::warn!(%error, "no key to seal transcripts with; they are kept unsealed");
        }
    };
    let request = RegisterTranscriptKeyRequest {
        instance_id: Some(context.instance_id().to_string()),
        public_key: Some(key.public().to_base64()),
    };
    let client = context.registration.api_client();
    match client
        .call::<RegisterTranscriptKey>(Some(credentials), &request)
        .await
    {
        Ok(_) => {
            context.seals.store(true, Ordering::Relaxed);
            tracing::info!(key = %key.public().id(), "transcripts are sealed with this key");
        }
        Err(error) => {
            let reason = error_chain(&error);
            tracing::warn!(
                reason,
                "the endpoint did not take the key of transcripts; they are kept unsealed"
            );
        }
    }
}
