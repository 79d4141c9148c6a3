//! Who a request comes from: operators' access keys, nodes' role credentials, nodes' registration keys, nobody.

use std::{fmt::Write as _, sync::Arc};

use http::request::Parts;
use moorline_protocol::{
    sigv4::{Claim, SignableRequest, SignatureError, verify_registration},
    types::InstanceId,
};
use moorline_ssm::ErrorCode;

use super::{Principal, Purpose};
use crate::{
    app::App,
    server::Newcomer,
    store::{NodeRow, StoreError},
};

/// Why a request's origin is not proven.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("the security token included in the request is expired; ask for new role credentials")]
    ExpiredToken,
    #[error("the request's headers cannot be read: {0} is not text")]
    HeaderNotText(String),
    #[error("{0}")]
    Signature(SignatureError),
    #[error("{}", skew_text(*signed_at, *now))]
    Skewed { signed_at: u64, now: u64 },
    #[error("the store failed while a signature was checked")]
    Store(#[source] StoreError),
    #[error("the security token included in the request is invalid")]
    UnknownKey,
    #[error(
        "managed node {0} is not registered here: it was deregistered, or registered with another endpoint"
    )]
    UnknownNode(InstanceId),
}

impl AuthError {
    /// The name that clients know it by.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::ExpiredToken => ErrorCode::ExpiredTokenException,
            Self::HeaderNotText(_) | Self::Signature(SignatureError::Incomplete(_)) => {
                ErrorCode::IncompleteSignature
            }
            Self::Signature(SignatureError::Missing) => ErrorCode::MissingAuthenticationToken,
            Self::Signature(_) | Self::Skewed { .. } => ErrorCode::InvalidSignatureException,
            Self::Store(_) => ErrorCode::InternalServerError,
            Self::UnknownKey => ErrorCode::UnrecognizedClientException,
            // The stock agent waits half an hour after this one, and hammers after others.
            Self::UnknownNode(_) => ErrorCode::AccessDeniedException,
        }
    }
}

impl From<SignatureError> for AuthError {
    fn from(error: SignatureError) -> Self {
        match error {
            SignatureError::Skewed { signed_at, now } => Self::Skewed { signed_at, now },
            other => Self::Signature(other),
        }
    }
}

impl From<StoreError> for AuthError {
    fn from(source: StoreError) -> Self {
        Self::Store(source)
    }
}

/// The words of the real service, which clients search for to learn that their clock is wrong.
fn skew_text(signed_at: u64, now: u64) -> String {
    const ALLOWED_MILLIS: u64 = 15 * 60 * 1000;
    if signed_at < now {
        let bound = amz_date(now.saturating_sub(ALLOWED_MILLIS));
        let (signed, now) = (amz_date(signed_at), amz_date(now));
        format!("Signature expired: {signed} is now earlier than {bound} ({now} - 15 min.); check the clock")
    } else {
        let bound = amz_date(now.saturating_add(ALLOWED_MILLIS));
        let (signed, now) = (amz_date(signed_at), amz_date(now));
        format!(
            "Signature not yet current: {signed} is still later than {bound} ({now} + 15 min.); check the clock"
        )
    }
}

fn amz_date(unix_millis: u64) -> String {
    let seconds = i64::try_from(unix_millis / 1000).unwrap_or(i64::MAX);
    let mut text = String::new();
    match jiff::Timestamp::from_second(seconds) {
        Ok(time) => write!(text, "{}", time.strftime("%Y%m%dT%H%M%SZ")),
        Err(_) => write!(text, "{seconds}"),
    }
    .expect("a String takes every text");
    text
}

/// The access key that a request names in its header, whether or not it has its secret.
pub(crate) fn claimed_key(headers: &http::HeaderMap) -> Option<&str> {
    let signature = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (_, scope) = signature.split_once("Credential=")?;
    scope.split('/').next()
}

/// Proves who sent a request. The body must be complete: it is part of what was signed.
pub(crate) async fn authenticate(app: &Arc<App>, parts: &Parts, body: &[u8]) -> Result<Principal, AuthError> {
    authenticate_as(app, parts, body, Proof::Signature).await
}

/// The same for a request whose body proves itself: its sender may have left the body out of the signature, and that its
/// node is still registered was perhaps asked within the last second.
pub(crate) async fn authenticate_sealed(
    app: &Arc<App>,
    parts: &Parts,
    body: &[u8],
) -> Result<Principal, AuthError> {
    authenticate_as(app, parts, body, Proof::Seal).await
}

/// What proves a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    Signature,
    /// Of the node, within the body.
    Seal,
}

async fn authenticate_as(
    app: &Arc<App>,
    parts: &Parts,
    body: &[u8],
    proof: Proof,
) -> Result<Principal, AuthError> {
    let principal = prove(app, parts, body, proof).await?;
    if principal != Principal::Anonymous
        && let Some(newcomer) = parts.extensions.get::<Newcomer>()
    {
        newcomer.is_proven();
    }
    Ok(principal)
}

async fn prove(app: &Arc<App>, parts: &Parts, body: &[u8], proof: Proof) -> Result<Principal, AuthError> {
    let headers = readable_headers(parts)?;
    let uri = parts.uri.path_and_query().map_or("/", |both| both.as_str());
    let request = SignableRequest {
        method: parts.method.as_str(),
        uri,
        headers: &headers,
        body,
    };
    let claim = match Claim::parse(&request) {
        Ok(claim) if proof == Proof::Seal => claim.permitting_unsigned_body(),
        Ok(claim) => claim,
        Err(SignatureError::Missing) => return Ok(Principal::Anonymous),
        Err(other) => return Err(other.into()),
    };
    let now = app.clock.unix_millis();
    if let Ok(node) = claim.access_key_id.parse::<InstanceId>() {
        return node_key(app, &claim, &request, node, now).await;
    }
    match &claim.session_token {
        Some(token) => role(app, &claim, &request, (token, proof), now).await,
        None => operator(app, &claim, &request, now).await,
    }
}

/// Header values as text; what is not text cannot have been signed by a client of ours.
fn readable_headers(parts: &Parts) -> Result<Vec<(&str, &str)>, AuthError> {
    let readable = |(name, value): (&'_ http::HeaderName, &'_ http::HeaderValue)| {
        value.to_str().is_err().then(|| name.as_str().to_owned())
    };
    if let Some(name) = parts.headers.iter().find_map(readable) {
        return Err(AuthError::HeaderNotText(name));
    }
    Ok(parts
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
        .collect())
}

async fn operator(
    app: &App,
    claim: &Claim,
    request: &SignableRequest<'_>,
    now: u64,
) -> Result<Principal, AuthError> {
    let key = app
        .store
        .access_key(&claim.access_key_id)
        .await?
        .ok_or(AuthError::UnknownKey)?;
    let secret = app
        .keys
        .unseal(Purpose::AccessKeySecret, &key.access_key_id, &key.sealed_secret)
        .ok_or(AuthError::UnknownKey)?;
    claim.verify(request, &secret, now)?;
    Ok(Principal::Administrator {
        access_key_id: key.access_key_id,
        user_name: key.user_name,
    })
}

async fn role(
    app: &App,
    claim: &Claim,
    request: &SignableRequest<'_>,
    (token, proof): (&str, Proof),
    now: u64,
) -> Result<Principal, AuthError> {
    let opened = app.keys.open_role_token(token).ok_or(AuthError::UnknownKey)?;
    if opened.access_key_id != claim.access_key_id {
        return Err(AuthError::UnknownKey);
    }
    claim.verify(request, &opened.secret_access_key, now)?;
    if now >= opened.expires_at {
        return Err(AuthError::ExpiredToken);
    }
    if proof == Proof::Seal && app.lately_registered.generation(&opened.node, now) == Some(opened.generation)
    {
        return Ok(Principal::Node(opened.node));
    }
    let node = app.store.node(&opened.node).await?;
    match node {
        Some(node) if node.credential_generation == opened.generation => {
            app.lately_registered.note(&opened.node, opened.generation, now);
            Ok(Principal::Node(opened.node))
        }
        Some(_) => Err(AuthError::ExpiredToken),
        None => Err(AuthError::UnknownNode(opened.node)),
    }
}

async fn node_key(
    app: &App,
    claim: &Claim,
    request: &SignableRequest<'_>,
    id: InstanceId,
    now: u64,
) -> Result<Principal, AuthError> {
    let Some(NodeRow {
        public_key,
        previous_public_key,
        ..
    }) = app.store.node(&id).await?
    else {
        return Err(AuthError::UnknownNode(id));
    };
    match (
        verify_registration(claim, request, &public_key, now),
        previous_public_key,
    ) {
        (Ok(()), None) => {}
        // Seen: from now on only the new key counts.
        (Ok(()), Some(_)) => app.store.forget_previous_key(&id).await?,
        (Err(SignatureError::Mismatch), Some(previous)) => {
            verify_registration(claim, request, &previous, now)?;
        }
        (Err(error), _) => return Err(error.into()),
    }
    Ok(Principal::NodeKey(id))
}

#[cfg(test)]
mod tests;
