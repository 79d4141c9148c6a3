//! `UpdateInstanceInformation`: a node's health ping, and what it says about itself.
//!
//! Not in the public API; agent-only. The first ping of a start carries only a few members: what it leaves out keeps
//! its value.

use moorline_ssm::node::{UpdateInstanceInformationRequest, UpdateInstanceInformationResult};

use super::{instance_id, no_such_node};
use crate::{
    api::{ApiResult, RequestContext},
    store::NodeReport,
};

pub(super) async fn update_instance_information(
    cx: RequestContext,
    input: UpdateInstanceInformationRequest,
) -> ApiResult<UpdateInstanceInformationResult> {
    let id = instance_id(input.instance_id.as_deref())?;
    let report = NodeReport {
        agent_name: said(input.agent_name),
        agent_status: said(input.agent_status),
        agent_version: said(input.agent_version),
        computer_name: said(input.computer_name),
        ip_address: said(input.ip_address),
        platform_name: said(input.platform_name),
        platform_type: said(input.platform_type.map(|platform| platform.to_string())),
        platform_version: said(input.platform_version),
        connection_channel: said(input.ssm_connection_channel),
        policy: said(input.moorline_policy),
    };
    if !cx.app.store.record_report(&id, report, cx.now).await? {
        return Err(no_such_node(id.as_str()));
    }
    Ok(UpdateInstanceInformationResult {})
}

/// The stock agent sends an empty text for what it does not know yet.
fn said(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use moorline_ssm::{
        ErrorCode,
        node::{PlatformType, UpdateInstanceInformation},
    };

    use super::*;
    use crate::{
        auth::Principal,
        test_support::{TestApp, node_id},
    };

    fn empty_ping(id: &str) -> UpdateInstanceInformationRequest {
        UpdateInstanceInformationRequest {
            agent_name: Some("amazon-ssm-agent".to_owned()),
            agent_version: Some("3.3.0.0".to_owned()),
            instance_id: Some(id.to_owned()),
            platform_type: Some(PlatformType::Linux),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn an_empty_ping_keeps_what_a_full_one_said() {
        let test = TestApp::new().await;
        let node = test.register_node(0, &[]).await;
        let full = UpdateInstanceInformationRequest {
            computer_name: Some("vm".to_owned()),
            ip_address: Some("10.1.2.3".to_owned()),
            ..empty_ping(node.as_str())
        };
        let principal = Principal::Node(node.clone());
        test.call_as::<UpdateInstanceInformation>(principal.clone(), full)
            .await
            .unwrap();
        test.advance_millis(60_000);
        test.call_as::<UpdateInstanceInformation>(principal, empty_ping(node.as_str()))
            .await
            .unwrap();
        let row = test.app.store.node(&node).await.unwrap().unwrap();
        assert_eq!(row.report.computer_name.as_deref(), Some("vm"));
        assert_eq!(row.report.ip_address.as_deref(), Some("10.1.2.3"));
        assert_eq!(row.last_ping_at, Some(test.now()));
    }

    #[tokio::test]
    async fn a_ping_says_which_policy_the_node_has_and_whoever_asks_is_told() {
        use moorline_ssm::node::{DescribeInstanceInformation, DescribeInstanceInformationRequest};
        let test = TestApp::new().await;
        let node = test.register_node(0, &[]).await;
        for policy in ["none", "unusable", &"0a".repeat(32)] {
            let input = UpdateInstanceInformationRequest {
                moorline_policy: Some(policy.to_owned()),
                ..empty_ping(node.as_str())
            };
            test.call_as::<UpdateInstanceInformation>(Principal::Node(node.clone()), input)
                .await
                .unwrap();
            let listed = test
                .call::<DescribeInstanceInformation>(DescribeInstanceInformationRequest::default())
                .await
                .unwrap();
            let listed = listed.instance_information_list.unwrap();
            assert_eq!(listed[0].moorline_policy.as_deref(), Some(policy));
        }
        let input = UpdateInstanceInformationRequest {
            moorline_policy: Some("anything".to_owned()),
            ..empty_ping(node.as_str())
        };
        let principal = Principal::Node(node);
        let error = test
            .refuse_as::<UpdateInstanceInformation>(principal, input)
            .await;
        assert_eq!(error.code, ErrorCode::ValidationException);
    }

    #[tokio::test]
    async fn a_ping_that_says_nothing_new_is_not_written_again_at_once() {
        let test = TestApp::new().await;
        let node = test.register_node(0, &[]).await;
        let first = test.now();
        for _ in 0..3 {
            let principal = Principal::Node(node.clone());
            test.call_as::<UpdateInstanceInformation>(principal, empty_ping(node.as_str()))
                .await
                .unwrap();
            test.advance_millis(1000);
        }
        assert_eq!(
            test.app.store.node(&node).await.unwrap().unwrap().last_ping_at,
            Some(first)
        );
    }

    #[tokio::test]
    async fn a_node_reports_about_itself_only() {
        let test = TestApp::new().await;
        let (first, second) = (test.register_node(0, &[]).await, test.register_node(1, &[]).await);
        let input = empty_ping(second.as_str());
        let error = test
            .refuse_as::<UpdateInstanceInformation>(Principal::Node(first), input)
            .await;
        assert_eq!(error.code, ErrorCode::AccessDeniedException);
        let gone = node_id(9);
        let input = empty_ping(gone.as_str());
        let error = test
            .refuse_as::<UpdateInstanceInformation>(Principal::Node(gone), input)
            .await;
        assert_eq!(error.code, ErrorCode::InvalidInstanceId);
    }
}
