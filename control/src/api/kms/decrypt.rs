//! `Decrypt`: opens what `GenerateDataKey` sealed, for the same context.
//!
//! KMS: API_Decrypt. The data key of a session opens for the node that serves it, while the session is open, and for
//! nobody else; one that is bound to no session opens for the administrator.

use moorline_ssm::{
    Blob, ErrorCode,
    kms::{DecryptRequest, DecryptResponse, EncryptionAlgorithmSpec},
};

use super::{SESSION_ID, no_such_key, refuse_extras};
use crate::{
    api::{ApiError, ApiResult, RequestContext},
    auth::{Denied, Principal, Resource, UnsealError},
};

pub(super) async fn decrypt(cx: RequestContext, input: DecryptRequest) -> ApiResult<DecryptResponse> {
    let context = input.encryption_context.unwrap_or_default();
    if let Principal::Node(_) = &cx.principal {
        serves(&cx, context.get(SESSION_ID).map_or("", String::as_str)).await?;
    }
    if let Some(algorithm) = &input.encryption_algorithm
        && *algorithm != EncryptionAlgorithmSpec::SymmetricDefault
    {
        let message = format!("the key does not support the algorithm {}", algorithm.as_str());
        return Err(ApiError::new(ErrorCode::InvalidKeyUsageException, message));
    }
    let Some(Blob(sealed)) = input.ciphertext_blob else {
        return Err(ApiError::validation(
            "1 validation error detected: Value null at 'ciphertextBlob' failed to satisfy constraint: Member must \
             not be null",
        ));
    };
    let key_id = input.key_id.as_deref();
    if let Some(key_id) = key_id.filter(|key_id| !cx.app.kms.has(key_id)) {
        return Err(no_such_key(key_id));
    }
    let (arn, plaintext) = cx
        .app
        .kms
        .unseal(key_id, &context, &sealed)
        .map_err(|error| match error {
            UnsealError::OtherKey => ApiError::new(
                ErrorCode::IncorrectKeyException,
                "The key ID in the request does not identify a CMK that can perform this operation.",
            ),
            UnsealError::Invalid => ApiError::new(
                ErrorCode::InvalidCiphertextException,
                "the ciphertext was not made here, was changed, or belongs to another encryption context",
            ),
        })?;
    refuse_extras(input.dry_run, input.recipient.as_ref())?;
    Ok(DecryptResponse {
        key_id: Some(arn),
        plaintext: Some(Blob(plaintext)),
        encryption_algorithm: Some(EncryptionAlgorithmSpec::SymmetricDefault),
        ..DecryptResponse::default()
    })
}

/// That the node serves this session now: the context's node is the caller, as `authorize` has seen, but anybody could
/// have bound a key to a session of another node.
async fn serves(cx: &RequestContext, session_id: &str) -> ApiResult<()> {
    let session = match session_id.parse() {
        Ok(id) => cx.app.store.session(&id).await?,
        Err(_) => None,
    };
    let is_open = session
        .is_some_and(|session| session.ended_at.is_none() && cx.principal == Principal::Node(session.node));
    if is_open {
        return Ok(());
    }
    Err(ApiError::from(Denied {
        principal: cx.principal.arn(),
        action: "kms:Decrypt".to_owned(),
        resource: Resource::Session(session_id.to_owned()),
    }))
}
