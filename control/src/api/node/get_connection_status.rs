//! `GetConnectionStatus`: whether a session to the node can be opened now.
//!
//! AWS: API_GetConnectionStatus. A node that nobody knows is not connected; that is no error.

use moorline_protocol::types::InstanceId;
use moorline_ssm::node::{ConnectionStatus, GetConnectionStatusRequest, GetConnectionStatusResponse};

use crate::api::{ApiResult, RequestContext};

pub(super) async fn get_connection_status(
    cx: RequestContext,
    input: GetConnectionStatusRequest,
) -> ApiResult<GetConnectionStatusResponse> {
    let node: Option<InstanceId> = input.target.as_deref().and_then(|target| target.parse().ok());
    let is_connected = match &node {
        Some(node) => cx.app.routing.is_connected(node).await,
        None => false,
    };
    let status = if is_connected {
        ConnectionStatus::Connected
    } else {
        ConnectionStatus::Notconnected
    };
    Ok(GetConnectionStatusResponse {
        target: input.target,
        status: Some(status),
    })
}

#[cfg(test)]
mod tests {
    use moorline_ssm::node::GetConnectionStatus;

    use super::*;
    use crate::test_support::{TestApp, node_id};

    #[tokio::test]
    async fn a_node_is_connected_while_its_control_channel_stands() {
        let test = TestApp::new().await;
        test.routing.connected.lock().unwrap().insert(node_id(1));
        for (target, status) in [
            (node_id(1).to_string(), ConnectionStatus::Connected),
            (node_id(2).to_string(), ConnectionStatus::Notconnected),
            ("i-0123456789".to_owned(), ConnectionStatus::Notconnected),
        ] {
            let input = GetConnectionStatusRequest {
                target: Some(target.clone()),
            };
            let reply = test.call::<GetConnectionStatus>(input).await.unwrap();
            assert_eq!((reply.target, reply.status), (Some(target), Some(status)));
        }
    }
}
