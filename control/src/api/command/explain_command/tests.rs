use moorline_protocol::types::InstanceId;
use moorline_ssm::{
    ErrorCode,
    command::{
        CancelCommand, CancelCommandRequest, Command, CommandDelivery, ExplainCommand, ExplainCommandRequest,
        ExplainCommandResponse, SendCommandRequest, Target,
    },
};

use crate::{
    gateway::command_delivery::fixture::{Fleet, TWO_STEPS, request},
    test_support::{START_MILLIS, administrator, node_id},
};

fn ask(command: &Command, node: &InstanceId) -> ExplainCommandRequest {
    ExplainCommandRequest {
        command_id: command.command_id.clone(),
        instance_id: Some(node.to_string()),
    }
}

async fn explain(fleet: &Fleet, command: &Command, node: &InstanceId) -> ExplainCommandResponse {
    fleet
        .endpoint
        .call::<ExplainCommand>(ask(command, node))
        .await
        .unwrap()
}

fn by_tag() -> SendCommandRequest {
    SendCommandRequest {
        targets: Some(vec![Target {
            key: Some("tag:Env".to_owned()),
            values: Some(vec!["prod".to_owned()]),
        }]),
        max_concurrency: Some("1".to_owned()),
        ..request(TWO_STEPS, &[])
    }
}

#[tokio::test]
async fn an_explanation_has_every_time_on_the_way_and_each_step() {
    let fleet = Fleet::new().await;
    let (first, second) = (fleet.node(1).await, fleet.node(2).await);
    let command = fleet.send_as(by_tag()).await;
    let held = explain(&fleet, &command, &second).await;
    assert_eq!(held.delivery, Some(CommandDelivery::Held));
    assert!(held.explanation.unwrap().contains("at most 1 nodes"));
    assert_eq!(held.requester, Some(administrator().arn()));

    fleet.endpoint.advance_millis(10);
    let job = fleet.due_job(&first).await;
    fleet.endpoint.advance_millis(10);
    fleet.ack(&first, &job, "200").await;
    fleet.endpoint.advance_millis(10);
    let steps = [
        ("first", "Failed", 3, "out"),
        ("second", "Skipped", 0, "skipped due to a precondition"),
    ];
    fleet.reply(&first, &job, "Failed", &steps).await;
    let told = explain(&fleet, &command, &first).await;
    let at = |millis: u64| Some(START_MILLIS + millis);
    let times = [
        told.sent_date_time,
        told.acknowledged_date_time,
        told.ended_date_time,
        told.released_date_time,
    ];
    assert_eq!(
        times.map(|time| time.map(|time| time.millis())),
        [at(10), at(20), at(30), None]
    );
    assert!(told.explanation.unwrap().contains("failed there"));
    let plugins = told.invocation.unwrap().command_plugins.unwrap();
    assert_eq!(plugins[1].status_details.as_deref(), Some("Skipped"));
    assert_eq!(
        plugins[1].output.as_deref(),
        Some("skipped due to a precondition")
    );

    // an error more than the command may have
    let terminated = explain(&fleet, &command, &second).await;
    assert!(
        terminated
            .explanation
            .unwrap()
            .contains("had 1 errors, and 0 are allowed")
    );
}

#[tokio::test]
async fn a_turn_and_a_cancellation_are_told_with_their_times() {
    let fleet = Fleet::new().await;
    let (first, second) = (fleet.node(1).await, fleet.node(2).await);
    let command = fleet.send_as(by_tag()).await;
    let job = fleet.due_job(&first).await;
    fleet.endpoint.advance_millis(10);
    let steps = [("first", "Success", 0, ""), ("second", "Success", 0, "")];
    fleet.reply(&first, &job, "Success", &steps).await;
    fleet.endpoint.advance_millis(10);
    fleet
        .endpoint
        .call::<CancelCommand>(CancelCommandRequest {
            command_id: command.command_id.clone(),
            instance_ids: None,
        })
        .await
        .unwrap();
    let told = explain(&fleet, &command, &second).await;
    assert_eq!(
        told.released_date_time.map(|time| time.millis()),
        Some(START_MILLIS + 10)
    );
    assert_eq!(
        told.cancel_requested_date_time.map(|time| time.millis()),
        Some(START_MILLIS + 20)
    );
    assert!(
        told.explanation
            .unwrap()
            .contains("cancelled before the node got it")
    );
}

#[tokio::test]
async fn a_node_that_was_no_target_is_told_why() {
    let fleet = Fleet::new().await;
    fleet.node(1).await;
    let other = fleet.endpoint.register_node(2, &[("Env", "test")]).await;
    let command = fleet.send_as(by_tag()).await;
    let told = explain(&fleet, &command, &other).await;
    assert_eq!(told.targeted, Some(false));
    assert!(told.explanation.unwrap().contains("its tag Env is test"));
    let late = fleet.node(3).await;
    let told = explain(&fleet, &command, &late).await;
    assert!(told.explanation.unwrap().contains("fits the targets now"));
    let nobody = explain(&fleet, &command, &node_id(9)).await;
    assert!(nobody.explanation.unwrap().contains("no managed node"));
    let unknown = ExplainCommandRequest {
        command_id: Some(uuid::Uuid::new_v4().to_string()),
        ..ask(&command, &late)
    };
    let refused = fleet.endpoint.refuse::<ExplainCommand>(unknown).await;
    assert_eq!(refused.code, ErrorCode::InvalidCommandId);
}
