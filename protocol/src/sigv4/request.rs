//! Header-signed requests, and presigned query strings for websockets.

use std::fmt;

/// A key pair, with the session token of temporary credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// One HTTP request as the signature sees it. Header names in any case; values as sent.
#[derive(Debug, Clone, Copy)]
pub struct SignableRequest<'a> {
    pub method: &'a str,
    /// Path and query as they stand in the request line.
    pub uri: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

/// What a request is signed for.
#[derive(Debug, Clone, Copy)]
pub struct SigningScope<'a> {
    pub region: &'a str,
    /// `ssm`, `ssmmessages`, `ec2messages`.
    pub service: &'a str,
    /// Milliseconds since the Unix epoch.
    pub unix_millis: u64,
}

/// Signs all given headers (which must include `host`), adds `x-amz-date` and `x-amz-security-token`.
/// Returns the headers to add, `authorization` last.
pub fn sign(
    request: &SignableRequest<'_>,
    scope: &SigningScope<'_>,
    credentials: &Credentials,
) -> Vec<(String, String)> {
    let _ = (request, scope, credentials);
    todo!()
}

/// The parsed claim of a signed request, before its secret is known: what the verifier looks the key up by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub access_key_id: String,
    pub session_token: Option<String>,
    pub region: String,
    pub service: String,
    /// Milliseconds since the Unix epoch.
    pub signed_at: u64,
    /// Lower case, sorted.
    pub signed_headers: Vec<String>,
    pub(crate) date: String,
    pub(crate) amz_date: String,
    pub(crate) signature: String,
    pub(crate) presigned_expires_s: Option<u64>,
}

/// Why a request is not accepted, by the name the service gives it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// `MissingAuthenticationTokenException`
    #[error("request carries no signature")]
    Missing,
    /// `IncompleteSignatureException`
    #[error("signature is incomplete: {0}")]
    Incomplete(&'static str),
    /// `InvalidSignatureException`: the clock differs by more than 15 minutes, or a presigned request is too old.
    #[error("signature is expired or not yet current: signed at {signed_at}, now {now} (Unix milliseconds)")]
    Skewed { signed_at: u64, now: u64 },
    /// `InvalidSignatureException`
    #[error("the signature does not match; check the secret access key and the signing method")]
    Mismatch,
    /// `InvalidSignatureException`
    #[error("x-amz-content-sha256 does not match the body")]
    BodyHash,
}

impl Claim {
    /// Reads the `Authorization` header, or the presigned query (GET only). Bounded: at most 64 signed headers.
    ///
    /// # Errors
    /// There is no signature, or it lacks a part (`host` must be signed, and a date must be present).
    pub fn parse(request: &SignableRequest<'_>) -> Result<Self, SignatureError> {
        let _ = request;
        todo!()
    }

    /// Checks the signature in constant time, and the clock: ±15 minutes.
    ///
    /// # Errors
    /// The request is not what was signed, or not now.
    pub fn verify(
        &self,
        request: &SignableRequest<'_>,
        secret_access_key: &str,
        now_unix_millis: u64,
    ) -> Result<(), SignatureError> {
        let _ = (request, secret_access_key, now_unix_millis);
        todo!()
    }

    /// The text that the signature is over; the registration signature is over the same text.
    pub(crate) fn string_to_sign(&self, request: &SignableRequest<'_>) -> Result<String, SignatureError> {
        let _ = request;
        todo!()
    }
}
