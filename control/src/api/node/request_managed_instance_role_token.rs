//! `RequestManagedInstanceRoleToken`: credentials for an hour, for a node that signs with its registration key.
//!
//! Not in the public API; agent-only. All five members must be in the reply: the stock agent crashes on a missing one.

use moorline_ssm::{
    EpochSeconds, ErrorCode,
    node::{RequestManagedInstanceRoleTokenRequest, RequestManagedInstanceRoleTokenResult},
};

use super::no_such_node;
use crate::api::{ApiError, ApiResult, RequestContext};

pub(super) async fn request_managed_instance_role_token(
    cx: RequestContext,
    input: RequestManagedInstanceRoleTokenRequest,
) -> ApiResult<RequestManagedInstanceRoleTokenResult> {
    let id = cx.node_key()?;
    let node = cx
        .app
        .store
        .node(id)
        .await?
        .ok_or_else(|| no_such_node(id.as_str()))?;
    let fingerprint = input.fingerprint.unwrap_or_default();
    if !fingerprint.eq_ignore_ascii_case(&node.fingerprint) {
        tracing::warn!(node = %id, peer = ?cx.peer, "credentials refused: the key is used on another machine");
        cx.app
            .metrics
            .counter("moorline_fingerprint_mismatches_total", &[])
            .increment();
        cx.app.store.record_fingerprint_mismatch(id, cx.now).await?;
        return Err(ApiError::new(
            ErrorCode::MachineFingerprintDoesNotMatch,
            format!(
                "{id} was registered by another machine; register this one with an activation of its own"
            ),
        ));
    }
    let credentials = cx
        .app
        .keys
        .role_credentials(id, node.credential_generation, cx.now);
    Ok(RequestManagedInstanceRoleTokenResult {
        access_key_id: Some(credentials.access_key_id),
        secret_access_key: Some(credentials.secret_access_key),
        session_token: Some(credentials.session_token),
        token_expiration_date: Some(EpochSeconds::from_millis(credentials.expires_at)),
        update_key_pair: Some(false),
    })
}

#[cfg(test)]
mod tests {
    use moorline_ssm::node::RequestManagedInstanceRoleToken;

    use super::*;
    use crate::{
        auth::{Principal, ROLE_CREDENTIALS_LIFETIME_MILLIS},
        test_support::{FINGERPRINT, TestApp, administrator, node_id},
    };

    fn request(fingerprint: &str) -> RequestManagedInstanceRoleTokenRequest {
        RequestManagedInstanceRoleTokenRequest {
            fingerprint: Some(fingerprint.to_owned()),
        }
    }

    #[tokio::test]
    async fn a_node_gets_all_five_members_and_an_hour() {
        let test = TestApp::new().await;
        let node = test.register_node(0, &[]).await;
        let principal = Principal::NodeKey(node.clone());
        let reply = test
            .call_as::<RequestManagedInstanceRoleToken>(principal, request(FINGERPRINT))
            .await
            .unwrap();
        let expires_at = test.now() + ROLE_CREDENTIALS_LIFETIME_MILLIS;
        assert_eq!(
            reply.token_expiration_date,
            Some(EpochSeconds::from_millis(expires_at))
        );
        assert_eq!(reply.update_key_pair, Some(false));
        let opened = test
            .app
            .keys
            .open_role_token(&reply.session_token.unwrap())
            .unwrap();
        assert_eq!(opened.node, node);
        assert_eq!(Some(opened.access_key_id), reply.access_key_id);
        assert_eq!(Some(opened.secret_access_key), reply.secret_access_key);
    }

    #[tokio::test]
    async fn a_copied_key_on_another_machine_is_refused_and_reported() {
        let test = TestApp::new().await;
        let node = test.register_node(0, &[]).await;
        let input = request("00000000-0000-4000-8000-000000000000");
        let principal = Principal::NodeKey(node.clone());
        let error = test
            .refuse_as::<RequestManagedInstanceRoleToken>(principal, input)
            .await;
        assert_eq!(error.code, ErrorCode::MachineFingerprintDoesNotMatch);
        let row = test.app.store.node(&node).await.unwrap().unwrap();
        assert_eq!(
            (row.fingerprint_mismatch_count, row.fingerprint_mismatch_at),
            (1, Some(test.now()))
        );
        assert!(
            test.app
                .metrics
                .render()
                .contains("moorline_fingerprint_mismatches_total 1")
        );
    }

    #[tokio::test]
    async fn only_a_registered_nodes_key_gets_credentials() {
        let test = TestApp::new().await;
        let node = test.register_node(0, &[]).await;
        for principal in [administrator(), Principal::Node(node)] {
            let error = test
                .refuse_as::<RequestManagedInstanceRoleToken>(principal, request(FINGERPRINT))
                .await;
            assert_eq!(error.code, ErrorCode::AccessDeniedException);
        }
        let gone = Principal::NodeKey(node_id(9));
        let error = test
            .refuse_as::<RequestManagedInstanceRoleToken>(gone, request(FINGERPRINT))
            .await;
        assert_eq!(error.code, ErrorCode::InvalidInstanceId);
    }
}
