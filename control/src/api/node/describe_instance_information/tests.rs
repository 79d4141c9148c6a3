//! The list of nodes: filters of both forms, ping status, pages.

use moorline_ssm::node::{
    DescribeInstanceInformation, InstanceInformationFilter, InstanceInformationFilterKey,
    InstanceInformationStringFilter,
};

use super::*;
use crate::{auth::Principal, store::NodeReport, test_support::TestApp};

fn by(key: &str, values: &[&str]) -> DescribeInstanceInformationRequest {
    DescribeInstanceInformationRequest {
        filters: Some(vec![InstanceInformationStringFilter {
            key: Some(key.to_owned()),
            values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
        }]),
        ..Default::default()
    }
}

async fn ids(test: &TestApp, input: DescribeInstanceInformationRequest) -> Vec<String> {
    let list = test
        .call::<DescribeInstanceInformation>(input)
        .await
        .unwrap()
        .instance_information_list
        .unwrap();
    list.into_iter().map(|node| node.instance_id.unwrap()).collect()
}

async fn fleet() -> TestApp {
    let test = TestApp::new().await;
    for index in 0..7 {
        let env = if index % 2 == 0 { "even" } else { "odd" };
        let node = test.register_node(index, &[("env", env)]).await;
        let report = NodeReport {
            platform_type: Some(if index == 6 { "Windows" } else { "Linux" }.to_owned()),
            agent_version: Some("3.3.0.0".to_owned()),
            ..Default::default()
        };
        assert!(
            test.app
                .store
                .record_report(&node, report, test.now())
                .await
                .unwrap()
        );
        test.advance_millis(1);
    }
    test
}

#[tokio::test]
async fn pages_of_five_show_every_node_once_in_the_order_of_registration() {
    let test = fleet().await;
    let (mut seen, mut next_token) = (Vec::new(), None);
    loop {
        let input = DescribeInstanceInformationRequest {
            max_results: Some(5),
            next_token,
            ..Default::default()
        };
        let page = test.call::<DescribeInstanceInformation>(input).await.unwrap();
        seen.extend(
            page.instance_information_list
                .unwrap()
                .into_iter()
                .map(|node| node.instance_id.unwrap()),
        );
        next_token = page.next_token;
        if next_token.is_none() {
            break;
        }
    }
    let all: Vec<String> = (0..7)
        .map(|index| crate::test_support::node_id(index).to_string())
        .collect();
    assert_eq!(seen, all);
}

#[tokio::test]
async fn filters_select_by_what_a_node_is_and_by_its_tags() {
    let test = fleet().await;
    let second = crate::test_support::node_id(1).to_string();
    assert_eq!(ids(&test, by("InstanceIds", &[&second])).await.join(" "), second);
    assert_eq!(ids(&test, by("tag:env", &["odd"])).await.len(), 3);
    assert_eq!(ids(&test, by("tag-key", &["env"])).await.len(), 7);
    assert_eq!(ids(&test, by("tag-key", &["absent"])).await.len(), 0);
    assert_eq!(ids(&test, by("PlatformTypes", &["Windows"])).await.len(), 1);
    assert_eq!(ids(&test, by("AgentVersion", &["3.3.0.0"])).await.len(), 7);
    assert_eq!(
        ids(&test, by("ResourceType", &["ManagedInstance"])).await.len(),
        7
    );
    let older = DescribeInstanceInformationRequest {
        instance_information_filter_list: Some(vec![InstanceInformationFilter {
            key: Some(InstanceInformationFilterKey::InstanceIds),
            value_set: Some(vec![second.clone()]),
        }]),
        ..by("tag:env", &["odd"])
    };
    assert_eq!(ids(&test, older).await, [second]);
}

#[tokio::test]
async fn a_node_is_online_while_its_channel_stands_or_its_report_is_young() {
    let test = fleet().await;
    // The last node has reported one millisecond before.
    test.advance_millis(REPORT_LIFETIME_MILLIS - 2);
    let young = ids(&test, by("PingStatus", &["Online"])).await;
    assert_eq!(young, [crate::test_support::node_id(6).to_string()]);
    test.advance_millis(1);
    assert_eq!(ids(&test, by("PingStatus", &["ConnectionLost"])).await.len(), 7);
    test.routing
        .connected
        .lock()
        .unwrap()
        .insert(crate::test_support::node_id(3));
    let connected = ids(&test, by("PingStatus", &["Online"])).await;
    assert_eq!(connected, [crate::test_support::node_id(3).to_string()]);
}

#[tokio::test]
async fn a_filter_that_cannot_be_meant_is_refused_by_its_name() {
    let test = fleet().await;
    for (key, value, code) in [
        ("Nonsense", "x", ErrorCode::InvalidFilterKey),
        ("tag:", "x", ErrorCode::InvalidFilterKey),
        (
            "PingStatus",
            "Offline",
            ErrorCode::InvalidInstanceInformationFilterValue,
        ),
        (
            "PlatformTypes",
            "BeOS",
            ErrorCode::InvalidInstanceInformationFilterValue,
        ),
        ("InstanceIds", "web-1", ErrorCode::InvalidInstanceId),
    ] {
        let error = test
            .refuse::<DescribeInstanceInformation>(by(key, &[value]))
            .await;
        assert_eq!(error.code, code, "{key}");
    }
}

#[tokio::test]
async fn a_node_does_not_see_the_fleet() {
    let test = fleet().await;
    let node = Principal::Node(crate::test_support::node_id(0));
    let error = test
        .refuse_as::<DescribeInstanceInformation>(node, Default::default())
        .await;
    assert_eq!(error.code, ErrorCode::AccessDeniedException);
}
