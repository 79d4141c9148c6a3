//! `UpdateManagedInstancePublicKey`: a node changes its registration key, signing with the old one.
//!
//! Not in the public API; agent-only. The old key stays good until the new one was seen, since the node may fail to
//! save the new one.

use moorline_protocol::sigv4::is_rsa_public_key;
use moorline_ssm::{
    ErrorCode,
    node::{UpdateManagedInstancePublicKeyRequest, UpdateManagedInstancePublicKeyResult},
};

use super::no_such_node;
use crate::{
    api::{ApiError, ApiResult, RequestContext},
    store::KeyRotation,
};

pub(super) async fn update_managed_instance_public_key(
    cx: RequestContext,
    input: UpdateManagedInstancePublicKeyRequest,
) -> ApiResult<UpdateManagedInstancePublicKeyResult> {
    let id = cx.node_key()?;
    let key = input.new_public_key.unwrap_or_default();
    if !is_rsa_public_key(&key) {
        let message = "NewPublicKey is not the base64 of an RSA public key of 2048 to 4096 bits";
        return Err(ApiError::new(ErrorCode::InvalidPublicKey, message));
    }
    match cx.app.store.rotate_public_key(id, &key).await? {
        KeyRotation::Done => {
            tracing::info!(node = %id, "registration key rotated");
            Ok(UpdateManagedInstancePublicKeyResult {})
        }
        KeyRotation::KeyInUse => Err(ApiError::new(
            ErrorCode::PublicKeyAlreadyRegistered,
            "another managed node is registered with this key",
        )),
        KeyRotation::NoSuchNode => Err(no_such_node(id.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use moorline_ssm::node::UpdateManagedInstancePublicKey;

    use super::*;
    use crate::{
        auth::Principal,
        test_support::{PUBLIC_KEY, TestApp},
    };

    fn request(key: &str) -> UpdateManagedInstancePublicKeyRequest {
        UpdateManagedInstancePublicKeyRequest {
            new_public_key: Some(key.to_owned()),
            new_public_key_type: Some("Rsa".into()),
        }
    }

    #[tokio::test]
    async fn the_old_key_stays_beside_the_new_one_and_a_rotation_back_leaves_one() {
        let test = TestApp::new().await;
        let node = test.register_node(1, &[]).await;
        let input = request(PUBLIC_KEY.trim());
        let principal = Principal::NodeKey(node.clone());
        test.call_as::<UpdateManagedInstancePublicKey>(principal, input)
            .await
            .unwrap();
        let row = test.app.store.node(&node).await.unwrap().unwrap();
        assert_eq!(row.public_key, PUBLIC_KEY.trim());
        assert_eq!(row.previous_public_key.as_deref(), Some("key 1"));
        assert_eq!(
            test.app.store.rotate_public_key(&node, "key 1").await.unwrap(),
            KeyRotation::Done
        );
        let row = test.app.store.node(&node).await.unwrap().unwrap();
        assert_eq!(
            (row.public_key.as_str(), row.previous_public_key),
            ("key 1", None)
        );
    }

    #[tokio::test]
    async fn a_key_of_another_node_or_no_key_at_all_is_refused() {
        let test = TestApp::new().await;
        let (_first, second) = (test.register_node(0, &[]).await, test.register_node(1, &[]).await);
        let principal = Principal::NodeKey(second);
        for (key, code) in [
            (PUBLIC_KEY.trim(), ErrorCode::PublicKeyAlreadyRegistered),
            ("AAAA", ErrorCode::InvalidPublicKey),
        ] {
            let error = test
                .refuse_as::<UpdateManagedInstancePublicKey>(principal.clone(), request(key))
                .await;
            assert_eq!(error.code, code);
        }
    }
}
