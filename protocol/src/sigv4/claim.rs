//! Verifying: what a request claims, and whether that is so.

use std::str::Split;

use ring::hmac;

use super::{
    SignableRequest, UNSIGNED_PAYLOAD,
    canonical::{
        ALGORITHM, CONTENT_SHA256, QUERY_SIGNATURE, Scope, TERMINATOR, parse_amz_date, query_pairs,
        split_uri, unhex,
    },
};

/// How far the clocks of both sides may differ, in milliseconds.
pub const MAX_CLOCK_SKEW_MILLIS: u64 = 15 * 60 * 1000;
/// The longest life of a presigned request, in seconds.
const MAX_PRESIGNED_EXPIRES_S: u64 = 7 * 24 * 3600;
const MAX_SIGNED_HEADERS: usize = 64;
/// Length limit of an `Authorization` header, in bytes. The signature of an 8192-bit RSA key takes 1368.
const MAX_AUTHORIZATION_BYTES: usize = 8192;
const MAX_ACCESS_KEY_ID_BYTES: usize = 128;

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
    pub(crate) permits_unsigned_body: bool,
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

use SignatureError::{BodyHash, Incomplete, Mismatch, Missing, Skewed};

/// The texts of a claim, from the header or from the query.
struct Parts {
    credential: String,
    signed_headers: String,
    signature: String,
    amz_date: String,
    session_token: Option<String>,
    expires: Option<String>,
}

impl Claim {
    /// Reads the `Authorization` header, or the presigned query (GET only). Bounded: at most 64 signed headers.
    ///
    /// # Errors
    /// There is no signature, or it lacks a part (`host` must be signed, and a date must be present).
    pub fn parse(request: &SignableRequest<'_>) -> Result<Self, SignatureError> {
        let parts = match single_header(request, "authorization")? {
            Some(authorization) => Parts::from_header(request, authorization)?,
            None => Parts::from_query(request)?,
        };
        Self::from_parts(request, parts)
    }

    /// For requests whose body proves itself: the sender may leave it out of the signature.
    #[must_use]
    pub fn permitting_unsigned_body(self) -> Self {
        Self {
            permits_unsigned_body: true,
            ..self
        }
    }

    fn from_parts(request: &SignableRequest<'_>, parts: Parts) -> Result<Self, SignatureError> {
        let mut credential = parts.credential.split('/');
        let mut next = |missing| {
            credential
                .next()
                .filter(|text| !text.is_empty())
                .ok_or(Incomplete(missing))
        };
        let access_key_id = next("the credential has no access key id")?;
        let date = next("the credential scope has no date")?;
        let region = next("the credential scope has no region")?;
        let service = next("the credential scope has no service")?;
        if next("the credential scope does not end in aws4_request")? != TERMINATOR
            || credential.next().is_some()
        {
            return Err(Incomplete("the credential scope does not end in aws4_request"));
        }
        if access_key_id.len() > MAX_ACCESS_KEY_ID_BYTES {
            return Err(Incomplete("the access key id is too long"));
        }
        let is_name = |text: &str| {
            text.len() <= 100
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        if !is_name(region) || !is_name(service) {
            return Err(Incomplete("the region or the service is not a name"));
        }

        let signed_at = parse_amz_date(&parts.amz_date).ok_or(Incomplete("X-Amz-Date is not a date"))?;
        if parts.amz_date.get(..8) != Some(date) {
            return Err(Incomplete(
                "the date of the credential scope is not that of X-Amz-Date",
            ));
        }
        let presigned_expires_s = parts.expires.map(|seconds| {
            let seconds = seconds.parse().ok();
            seconds.filter(|seconds| (1..=MAX_PRESIGNED_EXPIRES_S).contains(seconds))
        });
        if presigned_expires_s == Some(None) {
            return Err(Incomplete("X-Amz-Expires is not between 1 and 604800"));
        }

        Ok(Self {
            signed_headers: signed_headers(request, &parts.signed_headers)?,
            access_key_id: access_key_id.to_owned(),
            session_token: parts.session_token,
            region: region.to_owned(),
            service: service.to_owned(),
            signed_at,
            date: date.to_owned(),
            amz_date: parts.amz_date,
            signature: parts.signature,
            presigned_expires_s: presigned_expires_s.flatten(),
            permits_unsigned_body: false,
        })
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
        let text = self.string_to_sign(request)?;
        let key = self.scope().signing_key(secret_access_key);
        let signature = unhex(&self.signature).ok_or(Mismatch)?;
        hmac::verify(&key, text.as_bytes(), &signature).map_err(|_| Mismatch)?;
        self.check_time(now_unix_millis)
    }

    /// Whether the signature is of now: looked at after the signature, so that a stranger learns nothing of it.
    pub(super) fn check_time(&self, now: u64) -> Result<(), SignatureError> {
        let signed_at = self.signed_at;
        let lives = self
            .presigned_expires_s
            .map_or(MAX_CLOCK_SKEW_MILLIS, |seconds| seconds * 1000);
        let is_current =
            now <= signed_at.saturating_add(lives) && signed_at <= now.saturating_add(MAX_CLOCK_SKEW_MILLIS);
        if is_current {
            Ok(())
        } else {
            Err(Skewed { signed_at, now })
        }
    }

    /// The text that the signature is over; the registration signature is over the same text.
    pub(crate) fn string_to_sign(&self, request: &SignableRequest<'_>) -> Result<String, SignatureError> {
        if let Some(stated) = single_header(request, CONTENT_SHA256)? {
            self.check_body_hash(stated.trim(), request.body)?;
        }
        self.scope()
            .string_to_sign(request, &self.signed_headers)
            .ok_or(Incomplete("a signed header is not in the request"))
    }

    /// A stated hash must be that of the body. An unsigned body is accepted where that is permitted and said in a signed
    /// header, a streamed one never.
    fn check_body_hash(&self, stated: &str, body: &[u8]) -> Result<(), SignatureError> {
        if stated == UNSIGNED_PAYLOAD || stated.starts_with("STREAMING-") {
            let is_said = self.signed_headers.iter().any(|name| name == CONTENT_SHA256);
            let is_permitted = self.permits_unsigned_body && stated == UNSIGNED_PAYLOAD && is_said;
            return is_permitted
                .then_some(())
                .ok_or(Incomplete("the body is not signed"));
        }
        let actual = ring::digest::digest(&ring::digest::SHA256, body);
        let matches = unhex(stated).is_some_and(|stated| stated == actual.as_ref());
        if matches { Ok(()) } else { Err(BodyHash) }
    }

    fn scope(&self) -> Scope<'_> {
        Scope {
            date: &self.date,
            region: &self.region,
            service: &self.service,
            amz_date: &self.amz_date,
        }
    }
}

impl Parts {
    fn from_header(request: &SignableRequest<'_>, authorization: &str) -> Result<Self, SignatureError> {
        if authorization.len() > MAX_AUTHORIZATION_BYTES {
            return Err(Incomplete("the Authorization header is too long"));
        }
        let authorization = authorization.trim();
        let (scheme, fields) = authorization
            .split_once([' ', '\t'])
            .unwrap_or((authorization, ""));
        if scheme != ALGORITHM {
            // another scheme altogether, such as Bearer, is no signature of this kind
            let other = if scheme.starts_with("AWS4-") {
                Incomplete("the algorithm is not known")
            } else {
                Missing
            };
            return Err(other);
        }
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for field in fields.split(',') {
            let Some((name, value)) = field.split_once('=') else {
                continue;
            };
            let slot = match name.trim() {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => continue,
            };
            if slot.replace(value.trim().to_owned()).is_some() {
                return Err(Incomplete("the Authorization header says something twice"));
            }
        }
        Ok(Self {
            credential: credential.ok_or(Incomplete("the Authorization header has no Credential"))?,
            signed_headers: signed_headers
                .ok_or(Incomplete("the Authorization header has no SignedHeaders"))?,
            signature: signature.ok_or(Incomplete("the Authorization header has no Signature"))?,
            amz_date: single_header(request, "x-amz-date")?
                .ok_or(Incomplete("there is no X-Amz-Date header"))?
                .to_owned(),
            session_token: single_header(request, "x-amz-security-token")?.map(str::to_owned),
            expires: None,
        })
    }

    fn from_query(request: &SignableRequest<'_>) -> Result<Self, SignatureError> {
        let (_, query) = split_uri(request.uri);
        let parameter = |name: &str| {
            let mut values = query_pairs(query).filter(|(other, _)| other == name.as_bytes());
            let value = values.next().map(|(_, value)| String::from_utf8(value));
            match (value, values.next()) {
                (None, _) => Ok(None),
                (Some(Ok(value)), None) => Ok(Some(value)),
                _ => Err(Incomplete(
                    "a parameter of the signature stands twice or is not text",
                )),
            }
        };
        let algorithm = parameter("X-Amz-Algorithm")?.ok_or(Missing)?;
        if algorithm != ALGORITHM {
            return Err(Incomplete("the algorithm is not known"));
        }
        if request.method != "GET" {
            return Err(Incomplete("only a GET request can be presigned"));
        }
        Ok(Self {
            credential: parameter("X-Amz-Credential")?.ok_or(Incomplete("there is no X-Amz-Credential"))?,
            signed_headers: parameter("X-Amz-SignedHeaders")?
                .ok_or(Incomplete("there is no X-Amz-SignedHeaders"))?,
            signature: parameter(QUERY_SIGNATURE)?.ok_or(Incomplete("there is no X-Amz-Signature"))?,
            amz_date: parameter("X-Amz-Date")?.ok_or(Incomplete("there is no X-Amz-Date"))?,
            session_token: parameter("X-Amz-Security-Token")?,
            expires: Some(parameter("X-Amz-Expires")?.ok_or(Incomplete("there is no X-Amz-Expires"))?),
        })
    }
}

/// The value of a header that may stand once only.
fn single_header<'a>(request: &SignableRequest<'a>, wanted: &str) -> Result<Option<&'a str>, SignatureError> {
    let mut found = request
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case(wanted))
        .map(|(_, value)| *value);
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(Incomplete("a header of the signature stands twice")),
        (value, None) => Ok(value),
    }
}

/// The names, lower case and sorted. `host` must be among them, and the operation too if a header names it: the
/// rest of the request says little about what it does.
fn signed_headers(request: &SignableRequest<'_>, text: &str) -> Result<Vec<String>, SignatureError> {
    let names: Split<'_, char> = text.split(';');
    if names.clone().count() > MAX_SIGNED_HEADERS {
        return Err(Incomplete("more than 64 headers are signed"));
    }
    let mut names: Vec<String> = names.map(str::to_ascii_lowercase).collect();
    names.sort();
    names.dedup();
    if !names.iter().any(|name| name == "host") {
        return Err(Incomplete("the host header is not signed"));
    }
    let names_operation = request
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("x-amz-target"));
    if names_operation && !names.iter().any(|name| name == "x-amz-target") {
        return Err(Incomplete("the x-amz-target header is not signed"));
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
