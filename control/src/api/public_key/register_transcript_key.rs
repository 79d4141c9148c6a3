//! `RegisterTranscriptKey`: a node tells the public half of the key that it seals its transcripts with. Ours, not AWS's.

use moorline_protocol::public_keys::PublicKey;
use moorline_ssm::public_key::{RegisterTranscriptKeyRequest, RegisterTranscriptKeyResponse};

use crate::api::{ApiError, ApiResult, RequestContext, node::instance_id};

pub(super) async fn register_transcript_key(
    cx: RequestContext,
    input: RegisterTranscriptKeyRequest,
) -> ApiResult<RegisterTranscriptKeyResponse> {
    let node = instance_id(input.instance_id.as_deref())?;
    let key = PublicKey::from_base64(&input.public_key.unwrap_or_default());
    let key = key.ok_or_else(|| ApiError::validation("PublicKey is not the base64 of 32 bytes"))?;
    if !cx.app.store.register_transcript_key(&node, key, cx.now).await? {
        let message = format!("{node} has registered too many keys");
        return Err(ApiError::validation(message));
    }
    tracing::info!(%node, key = %key.id(), "the node registered a key for transcripts");
    Ok(RegisterTranscriptKeyResponse {
        key_id: Some(key.id().to_string()),
    })
}

#[cfg(test)]
mod tests {
    use moorline_ssm::{
        ErrorCode,
        public_key::{GetPublicKeys, GetPublicKeysRequest, RegisterTranscriptKey},
    };

    use super::*;
    use crate::{
        auth::Principal,
        test_support::{TestApp, administrator},
    };

    #[tokio::test]
    async fn a_node_registers_a_key_for_itself_and_for_nobody_else() {
        let test = TestApp::new().await;
        let (one, other) = (test.register_node(0, &[]).await, test.register_node(1, &[]).await);
        let request = |node: &str, key: &str| RegisterTranscriptKeyRequest {
            instance_id: Some(node.to_owned()),
            public_key: Some(key.to_owned()),
        };
        let key = PublicKey([7; 32]).to_base64();
        let principal = Principal::Node(one.clone());
        let registered = test
            .call_as::<RegisterTranscriptKey>(principal.clone(), request(one.as_str(), &key))
            .await
            .unwrap();
        assert_eq!(registered.key_id, Some(PublicKey([7; 32]).id().to_string()));
        let foreign = request(other.as_str(), &key);
        let refused = test
            .refuse_as::<RegisterTranscriptKey>(principal.clone(), foreign)
            .await;
        assert_eq!(refused.code, ErrorCode::AccessDeniedException);
        for bad in ["", "AAAA", "no base64"] {
            let refused = test
                .refuse_as::<RegisterTranscriptKey>(principal.clone(), request(one.as_str(), bad))
                .await;
            assert_eq!(refused.code, ErrorCode::ValidationException, "{bad}");
        }
        let refused = test
            .refuse_as::<RegisterTranscriptKey>(administrator(), request(one.as_str(), &key))
            .await;
        assert_eq!(refused.code, ErrorCode::AccessDeniedException);
        let told = test
            .call::<GetPublicKeys>(GetPublicKeysRequest::default())
            .await
            .unwrap();
        let [node] = told.nodes.unwrap().try_into().unwrap();
        assert_eq!(
            (node.instance_id.as_deref(), node.public_key),
            (Some(one.as_str()), Some(key))
        );
    }
}
