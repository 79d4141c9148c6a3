//! `DeregisterManagedInstance`: the node's key and credentials open nothing any more, and its channel is closed.
//!
//! AWS: API_DeregisterManagedInstance.

use moorline_ssm::node::{DeregisterManagedInstanceRequest, DeregisterManagedInstanceResult};

use super::{instance_id, no_such_node};
use crate::api::{ApiResult, RequestContext};

pub(super) async fn deregister_managed_instance(
    cx: RequestContext,
    input: DeregisterManagedInstanceRequest,
) -> ApiResult<DeregisterManagedInstanceResult> {
    let id = instance_id(input.instance_id.as_deref())?;
    if !cx.app.store.deregister_node(&id).await? {
        return Err(no_such_node(id.as_str()));
    }
    tracing::info!(node = %id, by = cx.principal.arn(), "node deregistered");
    cx.app.store.end_invocations_of_node(&id, cx.now).await?;
    cx.app.routing.disconnect(&id, "the node was deregistered").await;
    Ok(DeregisterManagedInstanceResult {})
}

#[cfg(test)]
mod tests {
    use moorline_ssm::{ErrorCode, node::DeregisterManagedInstance};

    use super::*;
    use crate::{auth::Principal, test_support::TestApp};

    #[tokio::test]
    async fn a_deregistered_node_is_gone_and_its_channel_closed() {
        let test = TestApp::new().await;
        let node = test.register_node(0, &[("a", "b")]).await;
        let request = DeregisterManagedInstanceRequest {
            instance_id: Some(node.to_string()),
        };
        test.call::<DeregisterManagedInstance>(request.clone())
            .await
            .unwrap();
        assert_eq!(test.app.store.node(&node).await.unwrap(), None);
        let calls = test.routing.calls.lock().unwrap().clone();
        assert_eq!(calls, [format!("disconnect {node}: the node was deregistered")]);
        assert_eq!(
            test.refuse::<DeregisterManagedInstance>(request).await.code,
            ErrorCode::InvalidInstanceId
        );
    }

    #[tokio::test]
    async fn a_node_does_not_deregister_anything() {
        let test = TestApp::new().await;
        let node = test.register_node(0, &[]).await;
        let request = DeregisterManagedInstanceRequest {
            instance_id: Some(node.to_string()),
        };
        let error = test
            .refuse_as::<DeregisterManagedInstance>(Principal::Node(node), request)
            .await;
        assert_eq!(error.code, ErrorCode::AccessDeniedException);
    }
}
