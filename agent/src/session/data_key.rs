//! The data key of an encrypted session: the client had it made, KMS decrypts it for us (agent-wire §8.4).

use std::sync::Arc;

use moorline_protocol::{
    channel::{DataKey, encryption_context},
    error_chain,
    sigv4::Credentials,
    types::SessionId,
};
use moorline_ssm::{
    Blob,
    kms::{Decrypt, DecryptRequest},
};
use moorline_transport::{ApiClient, CallError};
use tokio::time::{Duration, Instant, sleep};

use crate::{
    identity::{CredentialSupply, Registration, RoleCredentialsError},
    runtime::{Backoff, random_u32},
};

/// Pauses between attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// No attempt begins later: the handshake waits for 15 s, and the user is to learn what failed.
const LAST_ATTEMPT: Duration = Duration::from_secs(8);

/// Why there is no data key.
#[derive(Debug, thiserror::Error)]
pub(super) enum DataKeyError {
    #[error("there are no valid role credentials to have the data key of the session decrypted")]
    Credentials(#[source] RoleCredentialsError),
    #[error("the data key of the session could not be decrypted")]
    Call(#[source] CallError),
    #[error("the data key of the session has {0} bytes and not {expected}", expected = DataKey::BYTES)]
    Length(usize),
}

impl DataKeyError {
    /// Whether the same call may succeed a moment later: after a restart of the endpoint, or with new credentials.
    fn is_passing(&self) -> bool {
        match self {
            Self::Call(CallError::Http { .. }) => true,
            Self::Call(CallError::Service { source, .. }) => {
                source.status >= 500 || source.code == "ThrottlingException" || self.is_about_credentials()
            }
            Self::Credentials(_) | Self::Call(CallError::Shape { .. }) | Self::Length(_) => false,
        }
    }

    fn is_about_credentials(&self) -> bool {
        let Self::Call(error) = self else { return false };
        matches!(
            error.code(),
            Some("ExpiredTokenException" | "InvalidSignatureException" | "UnrecognizedClientException")
        )
    }
}

/// A data key as the client sent it.
#[derive(Debug)]
pub(super) struct SealedKey {
    pub(super) key_id: String,
    pub(super) ciphertext: Vec<u8>,
    pub(super) challenge: Option<String>,
}

/// What decrypting needs, for this session.
#[derive(Debug)]
pub(super) struct KeyService {
    pub(super) registration: Arc<Registration>,
    pub(super) credentials: Arc<CredentialSupply>,
    pub(super) session_id: SessionId,
}

impl KeyService {
    /// Has the key decrypted. Tries again what may pass, for a while.
    ///
    /// # Errors
    /// KMS refuses, cannot be reached, or its answer is no data key.
    pub(super) async fn decrypt(self: Arc<Self>, sealed: SealedKey) -> Result<DataKey, DataKeyError> {
        let request = DecryptRequest {
            ciphertext_blob: Some(Blob(sealed.ciphertext)),
            encryption_context: Some(encryption_context(
                self.session_id.as_str(),
                self.registration.instance_id.as_str(),
                sealed.challenge.as_deref(),
            )),
            key_id: Some(sealed.key_id),
            ..DecryptRequest::default()
        };
        let client = self.registration.kms_client();
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let since = Instant::now();
        loop {
            let credentials = self
                .credentials
                .valid(&self.registration)
                .await
                .map_err(DataKeyError::Credentials)?;
            match decrypt_once(&client, &credentials, &request).await {
                Err(error) if error.is_passing() && since.elapsed() < LAST_ATTEMPT => {
                    if error.is_about_credentials() {
                        self.credentials.reject(&credentials).await;
                    }
                    let pause = backoff.next(random_u32());
                    let error = error_chain(&error);
                    tracing::info!("no data key yet, next attempt in {pause:.1?}: {error}");
                    sleep(pause).await;
                }
                result => return result,
            }
        }
    }
}

async fn decrypt_once(
    client: &ApiClient,
    credentials: &Credentials,
    request: &DecryptRequest,
) -> Result<DataKey, DataKeyError> {
    let response = client
        .call::<Decrypt>(Some(credentials), request)
        .await
        .map_err(DataKeyError::Call)?;
    let Blob(plaintext) = response.plaintext.unwrap_or_default();
    DataKey::from_slice(&plaintext).ok_or(DataKeyError::Length(plaintext.len()))
}

#[cfg(test)]
mod tests {
    use moorline_transport::ServiceError;

    use super::*;

    fn refused(code: &str, status: u16) -> DataKeyError {
        DataKeyError::Call(CallError::Service {
            operation: "Decrypt",
            source: ServiceError {
                code: code.to_owned(),
                message: String::new(),
                status,
            },
        })
    }

    #[test]
    fn what_kms_refuses_is_not_asked_again() {
        for code in [
            "AccessDeniedException",
            "InvalidCiphertextException",
            "NotFoundException",
        ] {
            assert!(!refused(code, 400).is_passing(), "{code}");
        }
        assert!(refused("ExpiredTokenException", 400).is_passing());
        assert!(refused("KMSInternalException", 500).is_passing());
    }
}
