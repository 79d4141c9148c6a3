use std::collections::{BTreeMap, BTreeSet};

use moorline_protocol::message::PolicyAnswer;
use moorline_ssm::{
    ErrorCode,
    command::{
        ListCommandInvocations, ListCommandInvocationsRequest, PlanCommand, PlanCommandRequest,
        PlanCommandResponse, PlannedNode, PlannedState, PlannedVerdict, SendCommand, SendCommandRequest,
        Target,
    },
    parameter::{ParameterType, PutParameter, PutParameterRequest},
};
use proptest::prelude::*;
use serde_json::json;

use crate::{
    auth::Principal,
    gateway::command_delivery::fixture::{Fleet, ONE_STEP, request},
    store::NodeReport,
    test_support::node_id,
};

fn plan_of(command: SendCommandRequest) -> PlanCommandRequest {
    PlanCommandRequest {
        command: Some(command),
        ..PlanCommandRequest::default()
    }
}

async fn plan(fleet: &Fleet, command: SendCommandRequest) -> PlanCommandResponse {
    fleet
        .endpoint
        .call::<PlanCommand>(plan_of(command))
        .await
        .unwrap()
}

fn to_tag(key: &str, values: &[&str]) -> SendCommandRequest {
    SendCommandRequest {
        targets: Some(vec![Target {
            key: Some(format!("tag:{key}")),
            values: Some(values.iter().map(|&value| value.to_owned()).collect()),
        }]),
        ..request(ONE_STEP, &[])
    }
}

#[tokio::test]
async fn a_plan_says_what_each_node_would_do_and_sends_nothing() {
    let fleet = Fleet::new().await;
    let (ready, away, windows) = (fleet.node(1).await, fleet.node(2).await, fleet.node(3).await);
    fleet
        .endpoint
        .routing
        .connected
        .lock()
        .unwrap()
        .insert(ready.clone());
    let report = NodeReport {
        platform_type: Some("Windows".to_owned()),
        ..NodeReport::default()
    };
    fleet
        .endpoint
        .app
        .store
        .record_report(&windows, report, 1)
        .await
        .unwrap();
    let ran = fleet.send(ONE_STEP, &[&ready]).await;
    let job = fleet.due_job(&ready).await;
    fleet
        .reply(&ready, &job, "Failed", &[("shell", "Failed", 3, "")])
        .await;
    let planned = plan(
        &fleet,
        SendCommandRequest {
            max_concurrency: Some("1".to_owned()),
            max_errors: Some("50%".to_owned()),
            ..to_tag("Env", &["prod"])
        },
    )
    .await;
    assert_eq!(planned.document_version.as_deref(), Some("1"));
    assert_eq!(planned.step_names.as_deref(), Some(&["shell".to_owned()][..]));
    assert_eq!(
        (planned.target_count, planned.max_concurrency, planned.max_errors),
        (Some(3), Some(1), Some(1))
    );
    let nodes = planned.nodes.unwrap();
    let states: Vec<_> = nodes
        .iter()
        .map(|node| {
            (
                node.instance_id.clone().unwrap(),
                node.state.clone().unwrap(),
                node.held.unwrap(),
            )
        })
        .collect();
    assert_eq!(
        states,
        [
            (ready.to_string(), PlannedState::Runs, false),
            (away.to_string(), PlannedState::Waits, true),
            (windows.to_string(), PlannedState::WrongPlatform, false),
        ]
    );
    let last = nodes[0].last_run.clone().unwrap();
    assert_eq!(last.command_id, ran.command_id);
    assert_eq!(last.status.unwrap().as_str(), "Failed");
    assert_eq!(nodes[1].last_run, None);
    assert!(nodes[2].reason.as_deref().unwrap().contains("is not for Windows"));
    assert_eq!(fleet.due(&ready).await, []);
    assert_eq!(fleet.due(&away).await, []);
}

#[tokio::test]
async fn values_of_the_parameter_store_are_shown_by_their_names() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    for (name, kind) in [
        ("/plain", ParameterType::String),
        ("/secret", ParameterType::SecureString),
    ] {
        let put = PutParameterRequest {
            name: Some(name.to_owned()),
            value: Some("the value".to_owned()),
            r#type: Some(kind),
            ..PutParameterRequest::default()
        };
        fleet.endpoint.call::<PutParameter>(put).await.unwrap();
    }
    let script = vec!["echo {{ssm:/plain}} {{ssm-secure:/secret}}".to_owned()];
    let command = SendCommandRequest {
        parameters: Some(BTreeMap::from([("commands".to_owned(), script.clone())])),
        ..request(ONE_STEP, &[&node])
    };
    let planned = plan(&fleet, command).await;
    let parameters = planned.parameters.unwrap();
    assert_eq!(parameters["commands"], script);
    assert_eq!(parameters["mode"], ["fast"], "a default is shown");
    assert_eq!(planned.read_parameters.unwrap(), ["/secret"]);
}

#[tokio::test]
async fn a_plan_is_refused_as_the_command_would_be() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let stranger = request(ONE_STEP, &[&node_id(9)]);
    let parameters = SendCommandRequest {
        parameters: Some(BTreeMap::from([("mode".to_owned(), vec!["LOUD".to_owned()])])),
        ..request(ONE_STEP, &[&node])
    };
    let nowhere = SendCommandRequest {
        instance_ids: None,
        ..request(ONE_STEP, &[&node])
    };
    for (command, code) in [
        (stranger, ErrorCode::InvalidInstanceId),
        (parameters, ErrorCode::InvalidParameters),
        (nowhere, ErrorCode::ValidationException),
        (request("No-Such", &[&node]), ErrorCode::InvalidDocument),
    ] {
        let sent = fleet.endpoint.refuse::<SendCommand>(command.clone()).await;
        let planned = fleet.endpoint.refuse::<PlanCommand>(plan_of(command)).await;
        assert_eq!((sent.code, &sent.message), (code, &planned.message));
    }
    let node_asks = fleet
        .endpoint
        .refuse_as::<PlanCommand>(
            Principal::Node(node.clone()),
            plan_of(request(ONE_STEP, &[&node])),
        )
        .await;
    assert_eq!(node_asks.code, ErrorCode::AccessDeniedException);
}

#[tokio::test]
async fn pages_of_a_plan_are_the_plan() {
    let fleet = Fleet::new().await;
    for index in 1..=7 {
        fleet.node(index).await;
    }
    let command = to_tag("Env", &["prod"]);
    let whole = plan(&fleet, command.clone()).await.nodes.unwrap();
    let (mut pages, mut next_token) = (Vec::new(), None);
    loop {
        let page = PlanCommandRequest {
            max_results: Some(3),
            next_token,
            ..plan_of(command.clone())
        };
        let page = fleet.endpoint.call::<PlanCommand>(page).await.unwrap();
        pages.extend(page.nodes.unwrap());
        next_token = page.next_token;
        if next_token.is_none() {
            break;
        }
    }
    assert_eq!(pages, whole);
    let foreign = PlanCommandRequest {
        next_token: Some("AAAA".to_owned()),
        ..plan_of(command)
    };
    assert_eq!(
        fleet.endpoint.refuse::<PlanCommand>(foreign).await.code,
        ErrorCode::InvalidNextToken
    );
}

/// A node of a random fleet.
#[derive(Debug, Clone)]
struct RandomNode {
    env: usize,
    has_role: bool,
    platform: usize,
    is_connected: bool,
}

const ENVS: [&str; 3] = ["prod", "test", "dev"];
const PLATFORMS: [Option<&str>; 3] = [Some("Linux"), Some("Windows"), None];

fn random_node() -> impl Strategy<Value = RandomNode> {
    (0..3_usize, any::<bool>(), 0..3_usize, any::<bool>()).prop_map(
        |(env, has_role, platform, is_connected)| RandomNode {
            env,
            has_role,
            platform,
            is_connected,
        },
    )
}

/// Plans and then sends the same: node by node whether it is held, and whether it is of the wrong platform.
async fn plan_and_send(
    nodes: &[RandomNode],
    command: SendCommandRequest,
) -> (BTreeSet<(String, bool, bool)>, BTreeSet<(String, bool, bool)>) {
    let fleet = Fleet::new().await;
    let document = json!({"schemaVersion": "2.2", "mainSteps": [{"action": "aws:runShellScript", "name": "s",
        "inputs": {"runCommand": ["true"]}}]});
    fleet.document("Random", "Command", &document).await;
    for (index, node) in (1..).zip(nodes) {
        let mut tags = vec![("Env", ENVS[node.env])];
        tags.extend(node.has_role.then_some(("Role", "web")));
        let id = fleet.endpoint.register_node(index, &tags).await;
        let report = NodeReport {
            platform_type: PLATFORMS[node.platform].map(str::to_owned),
            ..NodeReport::default()
        };
        fleet
            .endpoint
            .app
            .store
            .record_report(&id, report, 1)
            .await
            .unwrap();
        if node.is_connected {
            fleet.endpoint.routing.connected.lock().unwrap().insert(id);
        }
    }
    let of_plan = |node: PlannedNode| {
        let is_wrong = node.state == Some(PlannedState::WrongPlatform);
        (node.instance_id.unwrap(), node.held.unwrap(), is_wrong)
    };
    let planned = plan(&fleet, command.clone()).await;
    let planned_nodes: BTreeSet<_> = planned.nodes.unwrap().into_iter().map(of_plan).collect();
    let sent = fleet.send_as(command).await;
    assert_eq!(planned.target_count, sent.target_count.map(i64::from));
    let list = ListCommandInvocationsRequest {
        command_id: sent.command_id.clone(),
        ..ListCommandInvocationsRequest::default()
    };
    let listed = fleet.endpoint.call::<ListCommandInvocations>(list).await.unwrap();
    let id = sent.command_id.unwrap().parse().unwrap();
    let mut sent_nodes = BTreeSet::new();
    for listed in listed.command_invocations.unwrap() {
        let node = listed.instance_id.unwrap();
        let (row, _) = fleet
            .endpoint
            .app
            .store
            .invocation(&id, &node.parse().unwrap())
            .await
            .unwrap()
            .unwrap();
        let is_held = row.invocation.delivery == crate::engine::invocation::Delivery::Held;
        sent_nodes.insert((
            node,
            is_held,
            listed.status_details.as_deref() == Some("InvalidPlatform"),
        ));
    }
    (planned_nodes, sent_nodes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_plan_and_its_command_are_about_the_same_nodes(
        nodes in proptest::collection::vec(random_node(), 0..12),
        envs in proptest::collection::btree_set(0..3_usize, 1..3),
        by_role in any::<bool>(),
        max_concurrency in prop_oneof![Just(None), (1..5_u32).prop_map(|n| Some(n.to_string())),
            (1..=100_u32).prop_map(|n| Some(format!("{n}%")))],
    ) {
        let values: Vec<&str> = envs.iter().map(|env| ENVS[*env]).collect();
        let mut command = to_tag("Env", &values);
        command.document_name = Some("Random".to_owned());
        command.max_concurrency = max_concurrency;
        if by_role {
            command.targets.as_mut().unwrap().push(Target {
                key: Some("tag-key".to_owned()),
                values: Some(vec!["Role".to_owned()]),
            });
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (planned, sent) = runtime.block_on(plan_and_send(&nodes, command));
        prop_assert_eq!(planned, sent);
    }
}

#[tokio::test]
async fn nodes_are_asked_what_their_owners_make_of_it_if_the_caller_wishes() {
    let fleet = Fleet::new().await;
    let (allows, refuses, away) = (fleet.node(1).await, fleet.node(2).await, fleet.node(3).await);
    let answer = |is_allowed, reason: &str| PolicyAnswer {
        question_id: 0,
        is_allowed,
        reason: reason.to_owned(),
        needs_signature: is_allowed,
    };
    fleet.endpoint.routing.policies.lock().unwrap().extend([
        (allows.clone(), answer(true, "no rule")),
        (refuses.clone(), answer(false, "rule \"r\"")),
    ]);
    let asked = || {
        let calls = fleet.endpoint.routing.calls.lock().unwrap();
        calls.iter().filter(|call| call.starts_with("ask ")).count()
    };
    let command = request(ONE_STEP, &[&allows, &refuses, &away]);
    let unasked = plan(&fleet, command.clone()).await;
    assert!(asked() == 0 && unasked.nodes.unwrap().iter().all(|node| node.policy.is_none()));
    let input = PlanCommandRequest {
        ask_nodes: Some(true),
        ..plan_of(command)
    };
    let planned = fleet.endpoint.call::<PlanCommand>(input).await.unwrap();
    let nodes = planned.nodes.unwrap();
    let said: Vec<_> = nodes
        .iter()
        .map(|node| {
            (
                node.policy.clone().unwrap(),
                node.policy_reason.as_deref().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            (PlannedVerdict::Allows, "no rule"),
            (PlannedVerdict::Refuses, "rule \"r\""),
            (PlannedVerdict::NotKnown, "not connected")
        ]
    );
    assert_eq!(nodes[0].needs_signature, Some(true));
    assert_eq!(asked(), 3);
}
