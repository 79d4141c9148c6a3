use moorline_ssm::{
    ErrorCode,
    command::{SendCommandRequest, SendCommandWave, SendCommandWaveRequest, Target},
};
use uuid::Uuid;

use crate::gateway::command_delivery::fixture::{Fleet, ONE_STEP, request};

fn wave(id: &str, only: &[&str]) -> SendCommandWaveRequest {
    SendCommandWaveRequest {
        command: Some(SendCommandRequest {
            targets: Some(vec![Target {
                key: Some("tag:Env".to_owned()),
                values: Some(vec!["prod".to_owned()]),
            }]),
            ..request(ONE_STEP, &[])
        }),
        command_id: Some(id.to_owned()),
        only_instance_ids: Some(only.iter().map(|&id| id.to_owned()).collect()),
    }
}

#[tokio::test]
async fn a_wave_reaches_those_of_its_nodes_that_are_still_targets() {
    let fleet = Fleet::new().await;
    let (first, second) = (fleet.node(1).await, fleet.node(2).await);
    let other = fleet.endpoint.register_node(3, &[("Env", "test")]).await;
    let id = Uuid::new_v4().to_string();
    let sent = fleet
        .endpoint
        .call::<SendCommandWave>(wave(&id, &[first.as_str(), other.as_str()]))
        .await
        .unwrap();
    let command = sent.command.unwrap();
    assert_eq!(
        (command.command_id.as_deref(), command.target_count),
        (Some(id.as_str()), Some(1))
    );
    assert_eq!(fleet.due(&first).await.len(), 1);
    assert_eq!(
        (fleet.due(&second).await, fleet.due(&other).await),
        (vec![], vec![])
    );
}

#[tokio::test]
async fn a_wave_that_is_sent_twice_is_accepted_once() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let id = Uuid::new_v4().to_string();
    let request = wave(&id, &[node.as_str()]);
    for expected in [false, true] {
        let sent = fleet
            .endpoint
            .call::<SendCommandWave>(request.clone())
            .await
            .unwrap();
        assert_eq!(sent.already_accepted, Some(expected));
        assert_eq!(sent.command.unwrap().target_count, Some(1));
    }
    assert_eq!(fleet.due(&node).await.len(), 1);
    let mut other = request;
    other.command.as_mut().unwrap().comment = Some("another".to_owned());
    let refused = fleet.endpoint.refuse::<SendCommandWave>(other).await;
    assert_eq!(refused.code, ErrorCode::IdempotentParameterMismatch);
    let malformed = fleet
        .endpoint
        .refuse::<SendCommandWave>(wave("not an id", &[node.as_str()]))
        .await;
    assert_eq!(malformed.code, ErrorCode::ValidationException);
}
