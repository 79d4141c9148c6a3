//! What a request is for its signature, and how one is signed.

use std::fmt;

use ring::hmac;

use super::canonical::{ALGORITHM, Scope, amz_date, hex};

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

/// As the value of `x-amz-content-sha256`: the signature is over everything but the body, as S3 has it for requests
/// over TLS. For what proves its content itself.
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

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
///
/// Headers of these three names in the request are not signed: they are about to be replaced.
pub fn sign(
    request: &SignableRequest<'_>,
    scope: &SigningScope<'_>,
    credentials: &Credentials,
) -> Vec<(String, String)> {
    let amz_date = amz_date(scope.unix_millis);
    let mut added = vec![("x-amz-date".to_owned(), amz_date.clone())];
    if let Some(token) = &credentials.session_token {
        added.push(("x-amz-security-token".to_owned(), token.clone()));
    }
    let replaced = |name: &str| matches!(name, "authorization" | "x-amz-date" | "x-amz-security-token");
    let signing = Signing::new(request, &added, |name| !replaced(name));
    let scope = Scope::of(&amz_date, scope.region, scope.service);
    let key = scope.signing_key(&credentials.secret_access_key);
    let signature = hex(hmac::sign(&key, signing.text(&scope).as_bytes()).as_ref());
    let value = signing.authorization(&scope, &credentials.access_key_id, &signature);
    added.push(("authorization".to_owned(), value));
    added
}

/// A request with the headers that its signature adds, as it will arrive.
pub(super) struct Signing<'a> {
    request: SignableRequest<'a>,
    headers: Vec<(&'a str, &'a str)>,
    /// Lower case, sorted.
    signed_headers: Vec<String>,
}

impl<'a> Signing<'a> {
    /// Signs the headers that `is_signed` (given lower-case names) keeps, and all the added ones.
    pub(super) fn new(
        request: &SignableRequest<'a>,
        added: &'a [(String, String)],
        is_signed: impl Fn(&str) -> bool,
    ) -> Self {
        let mut headers: Vec<_> = request
            .headers
            .iter()
            .filter(|(name, _)| is_signed(&name.to_ascii_lowercase()))
            .copied()
            .collect();
        headers.extend(added.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let mut signed_headers: Vec<String> = headers.iter().map(|(n, _)| n.to_ascii_lowercase()).collect();
        signed_headers.sort();
        signed_headers.dedup();
        Self {
            request: *request,
            headers,
            signed_headers,
        }
    }

    /// The text to sign.
    pub(super) fn text(&self, scope: &Scope<'_>) -> String {
        let request = SignableRequest {
            headers: &self.headers,
            ..self.request
        };
        let text = scope.string_to_sign(&request, &self.signed_headers);
        text.expect("the signed headers were taken from these headers")
    }

    /// The value of the `Authorization` header.
    pub(super) fn authorization(&self, scope: &Scope<'_>, key_id: &str, signature: &str) -> String {
        format!(
            "{ALGORITHM} Credential={key_id}/{}, SignedHeaders={}, Signature={signature}",
            scope.credential_scope(),
            self.signed_headers.join(";"),
        )
    }
}

#[cfg(test)]
mod tests;
