//! `DeregisterManagedInstance`: the node's key and credentials open nothing any more, its commands and sessions end,
//! and its channels are closed.
//!
//! AWS: API_DeregisterManagedInstance.

use moorline_ssm::node::{DeregisterManagedInstanceRequest, DeregisterManagedInstanceResult};

use super::{instance_id, no_such_node};
use crate::api::{ApiResult, RequestContext};

/// Shown to the clients of the node's sessions, and to the node.
const REASON: &str = "the node was deregistered";

pub(super) async fn deregister_managed_instance(
    cx: RequestContext,
    input: DeregisterManagedInstanceRequest,
) -> ApiResult<DeregisterManagedInstanceResult> {
    let id = instance_id(input.instance_id.as_deref())?;
    let ended = cx.app.store.deregister_node(&id, REASON, cx.now).await?;
    let Some(sessions) = ended else {
        return Err(no_such_node(id.as_str()));
    };
    tracing::info!(node = %id, by = cx.principal.arn(), "node deregistered");
    cx.app.tell_ends_of_sessions().await;
    for session in &sessions {
        cx.app.routing.end_session(session, REASON).await;
    }
    cx.app.routing.disconnect(&id, REASON).await;
    Ok(DeregisterManagedInstanceResult {})
}

#[cfg(test)]
mod tests {
    use moorline_ssm::{ErrorCode, node::DeregisterManagedInstance};

    use super::*;
    use crate::{
        auth::Principal,
        store::{NewSession, SessionStatus},
        test_support::{TestApp, node_id},
    };

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
    async fn sessions_of_the_node_end_with_it_and_others_go_on() {
        let test = TestApp::new().await;
        let ids = ["admin-00000000000000000", "admin-00000000000000001"];
        for (index, id) in (0..).zip(ids) {
            let new = NewSession {
                session_id: id.parse().unwrap(),
                node: test.register_node(index, &[]).await,
                owner: "o".to_owned(),
                document_name: "d".to_owned(),
                session_type: moorline_protocol::document::SessionType::StandardStream,
                reason: None,
                start_content: "{}".to_owned(),
                idle_timeout_millis: 1,
                max_duration_millis: None,
            };
            test.app.store.insert_session(&new, test.now()).await.unwrap();
        }
        let node = node_id(0);
        let request = DeregisterManagedInstanceRequest {
            instance_id: Some(node.to_string()),
        };
        test.call::<DeregisterManagedInstance>(request).await.unwrap();
        let calls = test.routing.calls.lock().unwrap().clone();
        let ended = format!("end {}: {REASON}", ids[0]);
        assert_eq!(calls, [ended, format!("disconnect {node}: {REASON}")]);
        let [gone, other] = ids.map(|id| id.parse().unwrap());
        let gone = test.app.store.session(&gone).await.unwrap().unwrap();
        assert_eq!(
            (gone.status, gone.details.as_str(), gone.ended_at),
            (SessionStatus::Terminated, REASON, Some(test.now()))
        );
        let other = test.app.store.session(&other).await.unwrap().unwrap();
        assert_eq!(other.ended_at, None);
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
