use moorline_ssm::{
    ErrorCode,
    command::{SendCommand, SendCommandRequest, Target},
    node_group::{
        DeleteNodeGroup, DeleteNodeGroupRequest, ListNodeGroups, ListNodeGroupsRequest, PutNodeGroup,
        PutNodeGroupRequest,
    },
};

use crate::gateway::command_delivery::fixture::{Fleet, ONE_STEP, request};

fn target(key: &str, values: &[&str]) -> Target {
    Target {
        key: Some(key.to_owned()),
        values: Some(values.iter().map(|&value| value.to_owned()).collect()),
    }
}

fn put(name: &str, targets: Vec<Target>) -> PutNodeGroupRequest {
    PutNodeGroupRequest {
        name: Some(name.to_owned()),
        targets: Some(targets),
    }
}

fn to(targets: Vec<Target>) -> SendCommandRequest {
    SendCommandRequest {
        targets: Some(targets),
        ..request(ONE_STEP, &[])
    }
}

#[tokio::test]
async fn a_group_is_a_query_over_tags_that_is_asked_when_a_command_is_sent() {
    let fleet = Fleet::new().await;
    let web = [("Env", "prod"), ("Role", "web")];
    fleet.endpoint.register_node(1, &web).await;
    fleet
        .endpoint
        .register_node(2, &[("Env", "prod"), ("Role", "db")])
        .await;
    let targets = vec![target("tag:Env", &["prod"]), target("tag:Role", &["web"])];
    fleet
        .endpoint
        .call::<PutNodeGroup>(put("prod-web", targets))
        .await
        .unwrap();
    fleet
        .endpoint
        .call::<PutNodeGroup>(put("all-db", vec![target("tag:Role", &["db"])]))
        .await
        .unwrap();
    let by_group = |names: &[&str]| target("resource-groups:Name", names);
    let count = async |targets| fleet.send_as(to(targets)).await.target_count;
    assert_eq!(count(vec![by_group(&["prod-web"])]).await, Some(1));
    assert_eq!(count(vec![by_group(&["prod-web", "all-db"])]).await, Some(2));
    let both = vec![by_group(&["prod-web"]), target("tag:Role", &["db"])];
    assert_eq!(count(both).await, Some(0), "targets are all required");
    fleet.endpoint.register_node(3, &web).await;
    assert_eq!(count(vec![by_group(&["prod-web"])]).await, Some(2));
}

#[tokio::test]
async fn groups_are_listed_replaced_and_deleted() {
    let fleet = Fleet::new().await;
    let list = async || {
        let listed = fleet
            .endpoint
            .call::<ListNodeGroups>(ListNodeGroupsRequest::default())
            .await;
        listed.unwrap().groups.unwrap()
    };
    for value in ["a", "b"] {
        let one = put("one", vec![target("tag:K", &[value])]);
        fleet.endpoint.call::<PutNodeGroup>(one).await.unwrap();
    }
    let groups = list().await;
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0].targets, Some(vec![target("tag:K", &["b"])]));
    let delete = || DeleteNodeGroupRequest {
        name: Some("one".to_owned()),
    };
    fleet.endpoint.call::<DeleteNodeGroup>(delete()).await.unwrap();
    assert_eq!(list().await, []);
    let again = fleet.endpoint.refuse::<DeleteNodeGroup>(delete()).await;
    assert_eq!(again.code, ErrorCode::DoesNotExistException);
}

#[tokio::test]
async fn a_group_of_anything_but_tags_and_an_unknown_group_are_refused() {
    let fleet = Fleet::new().await;
    for targets in [
        vec![],
        vec![target("InstanceIds", &["mi-00000000000000001"])],
        vec![target("resource-groups:Name", &["other"])],
        vec![target("tag:K", &[])],
    ] {
        let refused = fleet
            .endpoint
            .refuse::<PutNodeGroup>(put("g", targets.clone()))
            .await;
        assert_eq!(refused.code, ErrorCode::ValidationException, "{targets:?}");
    }
    let refused = fleet
        .endpoint
        .refuse::<SendCommand>(to(vec![target("resource-groups:Name", &["none"])]))
        .await;
    assert_eq!(refused.code, ErrorCode::ValidationException);
    assert!(
        refused.message.contains("there is no group of nodes none"),
        "{}",
        refused.message
    );
}
