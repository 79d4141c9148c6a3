use moorline_ssm::{
    ErrorCode,
    command::{
        CancelCommand, CancelCommandRequest, Command, CommandFilter, CommandFilterKey, DocumentHashType,
        GetCommandInvocation, GetCommandInvocationRequest, ListCommandInvocations,
        ListCommandInvocationsRequest, ListCommands, ListCommandsRequest, PlanCommand, PlanCommandRequest,
        SendCommand, SendCommandRequest, SendCommandWave, SendCommandWaveRequest, Target,
    },
    document::{CreateDocument, CreateDocumentRequest, DocumentType, UpdateDocument, UpdateDocumentRequest},
};

use crate::{
    auth::Principal,
    gateway::command_delivery::fixture::{Fleet, ONE_STEP, SESSION, TWO_STEPS, request},
    store::NodeReport,
    test_support::node_id,
};

fn target(key: &str, values: &[&str]) -> Target {
    let values = values.iter().map(|&value| value.to_owned()).collect();
    Target {
        key: Some(key.to_owned()),
        values: Some(values),
    }
}

fn to_targets(document: &str, targets: Vec<Target>) -> SendCommandRequest {
    SendCommandRequest {
        targets: Some(targets),
        ..request(document, &[])
    }
}

fn filter(key: CommandFilterKey, value: &str) -> CommandFilter {
    CommandFilter {
        key: Some(key),
        value: Some(value.to_owned()),
    }
}

async fn refusal(fleet: &Fleet, change: impl FnOnce(&mut SendCommandRequest)) -> (ErrorCode, String) {
    let node = node_id(1);
    let mut request = request(ONE_STEP, &[&node]);
    change(&mut request);
    let error = fleet.endpoint.refuse::<SendCommand>(request).await;
    (error.code, error.message)
}

#[tokio::test]
async fn a_command_that_cannot_run_is_refused_with_its_reason() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let stranger = node_id(9);
    type Change = Box<dyn FnOnce(&mut SendCommandRequest)>;
    let change = |change: fn(&mut SendCommandRequest)| -> Change { Box::new(change) };
    let table: Vec<(Change, ErrorCode, &str)> = vec![
        (
            Box::new(move |r| r.instance_ids = Some(vec![stranger.to_string()])),
            ErrorCode::InvalidInstanceId,
            "mi-00000000000000009",
        ),
        (
            change(|r| r.instance_ids = Some(vec!["i-0123456789abcdef0".to_owned()])),
            ErrorCode::InvalidInstanceId,
            "i-0123456789abcdef0",
        ),
        (
            Box::new(move |r| r.instance_ids = Some(vec![node.to_string(), node.to_string()])),
            ErrorCode::DuplicateInstanceId,
            "twice",
        ),
        (
            change(|r| r.instance_ids = None),
            ErrorCode::ValidationException,
            "InstanceIds or Targets",
        ),
        (
            change(|r| r.targets = Some(vec![target("tag:Env", &["prod"])])),
            ErrorCode::ValidationException,
            "not both",
        ),
        (
            change(|r| r.document_name = Some("Nope".to_owned())),
            ErrorCode::InvalidDocument,
            "Nope",
        ),
        (
            change(|r| r.document_name = Some(SESSION.to_owned())),
            ErrorCode::InvalidDocument,
            "Session",
        ),
        (
            change(|r| r.document_version = Some("2".to_owned())),
            ErrorCode::InvalidDocumentVersion,
            "version 2",
        ),
        (
            change(|r| r.document_hash = Some("00".to_owned())),
            ErrorCode::InvalidDocument,
            "hash",
        ),
        (
            change(|r| r.parameters = Some([("nope".to_owned(), vec!["x".to_owned()])].into())),
            ErrorCode::InvalidParameters,
            "nope",
        ),
        (
            change(|r| r.parameters = Some([("mode".to_owned(), vec!["FAST!".to_owned()])].into())),
            ErrorCode::InvalidParameters,
            "mode",
        ),
        (
            change(|r| r.parameters = Some([("commands".to_owned(), vec!["\"".repeat(400_000)])].into())),
            ErrorCode::InvalidParameters,
            "limit",
        ),
        (
            change(|r| r.timeout_seconds = Some(29)),
            ErrorCode::ValidationException,
            "timeoutSeconds",
        ),
        (
            change(|r| r.max_errors = Some("-1".to_owned())),
            ErrorCode::ValidationException,
            "maxErrors",
        ),
        (
            change(|r| r.max_concurrency = Some("0".to_owned())),
            ErrorCode::ValidationException,
            "maxConcurrency",
        ),
    ];
    for (change, code, text) in table {
        let (actual, message) = refusal(&fleet, change).await;
        assert_eq!(actual, code, "{message}");
        assert!(message.contains(text), "{message} does not name {text}");
    }
    let listed = fleet
        .endpoint
        .call::<ListCommands>(ListCommandsRequest::default())
        .await
        .unwrap();
    assert_eq!(listed.commands.unwrap(), [], "nothing was stored");
}

#[tokio::test]
async fn a_command_runs_the_version_of_its_document_that_it_names() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let newer = fleet.endpoint.app.store.document(TWO_STEPS).await.unwrap();
    let update = UpdateDocumentRequest {
        name: Some(ONE_STEP.to_owned()),
        content: newer.map(|document| document.content),
        document_version: Some("1".to_owned()),
        ..UpdateDocumentRequest::default()
    };
    fleet.endpoint.call::<UpdateDocument>(update).await.unwrap();
    for (version, steps) in [
        (None, 1),
        (Some("$DEFAULT"), 1),
        (Some("1"), 1),
        (Some("2"), 2),
        (Some("$LATEST"), 2),
    ] {
        let command = fleet
            .send_as(SendCommandRequest {
                document_version: version.map(str::to_owned),
                ..request(ONE_STEP, &[&node])
            })
            .await;
        let id = command.command_id.unwrap().parse().unwrap();
        let stored = fleet.endpoint.app.store.command(&id).await.unwrap().unwrap();
        assert_eq!(stored.head.step_names.len(), steps, "{version:?}");
    }
}

#[tokio::test]
async fn the_reply_shows_the_command_as_it_was_accepted() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let document = fleet
        .endpoint
        .app
        .store
        .document(ONE_STEP)
        .await
        .unwrap()
        .unwrap();
    let command = fleet
        .send_as(SendCommandRequest {
            document_name: Some(format!("arn:aws:ssm:us-east-1:000000000000:document/{ONE_STEP}")),
            document_version: Some("$LATEST".to_owned()),
            document_hash: Some(document.sha256.to_uppercase()),
            document_hash_type: Some(DocumentHashType::Sha256),
            parameters: Some([("commands".to_owned(), vec!["id".to_owned(), "pwd".to_owned()])].into()),
            comment: Some("why".to_owned()),
            timeout_seconds: Some(600),
            max_errors: Some("10%".to_owned()),
            ..request(ONE_STEP, &[&node])
        })
        .await;
    assert_eq!(command.document_name.as_deref(), Some(ONE_STEP));
    assert_eq!(command.status.as_ref().unwrap().as_str(), "Pending");
    assert_eq!(command.comment.as_deref(), Some("why"));
    assert_eq!(
        (command.max_concurrency.as_deref(), command.max_errors.as_deref()),
        (Some("50"), Some("10%"))
    );
    assert_eq!(command.target_count, Some(1));
    let lifetime = command.expires_after.unwrap().millis() - command.requested_date_time.unwrap().millis();
    assert_eq!(lifetime, (600 + 60) * 1000, "time to deliver and time to run");
    assert_eq!(fleet.command(&command).await, command, "the list shows the same");

    let job = fleet.due_job(&node).await;
    let content: serde_json::Value = serde_json::from_str(&job.payload.content).unwrap();
    assert_eq!(
        content["Parameters"]["commands"],
        serde_json::json!(["id", "pwd"])
    );
    assert_eq!(content["Parameters"]["mode"], "fast");
}

/// Everybody who may list commands reads them.
#[tokio::test]
async fn a_value_that_its_document_marks_as_a_secret_is_shown_to_the_node_alone() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let content = serde_json::json!({
        "schemaVersion": "2.2",
        "parameters": {
            "pin": {"type": "String", "noEcho": true}, "other": {"type": "String", "noEcho": true, "default": "4712"},
            "host": {"type": "String"},
        },
        "mainSteps": [{"action": "aws:runShellScript", "name": "s",
            "inputs": {"runCommand": ["login {{ host }} {{ pin }} {{ other }}"]}}],
    });
    let create = CreateDocumentRequest {
        name: Some("Login".to_owned()),
        document_type: Some(DocumentType::Command),
        content: Some(content.to_string()),
        ..CreateDocumentRequest::default()
    };
    fleet.endpoint.call::<CreateDocument>(create).await.unwrap();
    let values = |pairs: &[(&str, &str)]| -> std::collections::BTreeMap<String, Vec<String>> {
        let pairs = pairs.iter();
        pairs
            .map(|&(name, value)| (name.to_owned(), vec![value.to_owned()]))
            .collect()
    };
    let send = SendCommandRequest {
        parameters: Some(values(&[("pin", "4711"), ("host", "h")])),
        ..request("Login", &[&node])
    };
    let shown = Some(values(&[("pin", "***"), ("host", "h")]));
    let command = fleet.send_as(send.clone()).await;
    assert_eq!(command.parameters, shown);
    assert_eq!(fleet.command(&command).await.parameters, shown);
    let job = fleet.due_job(&node).await;
    let content: serde_json::Value = serde_json::from_str(&job.payload.content).unwrap();
    let expected = serde_json::json!({"pin": "4711", "host": "h", "other": "4712"});
    assert_eq!(content["Parameters"], expected);

    let plan = PlanCommandRequest {
        command: Some(send.clone()),
        ..PlanCommandRequest::default()
    };
    let planned = fleet.endpoint.call::<PlanCommand>(plan).await.unwrap();
    let shown = values(&[("pin", "***"), ("host", "h"), ("other", "***")]);
    assert_eq!(planned.parameters, Some(shown));

    let wave = SendCommandWaveRequest {
        command: Some(send),
        command_id: Some(uuid::Uuid::new_v4().to_string()),
        only_instance_ids: Some(vec![node.to_string()]),
    };
    for again in [false, true] {
        let sent = fleet
            .endpoint
            .call::<SendCommandWave>(wave.clone())
            .await
            .unwrap();
        assert_eq!(sent.already_accepted, Some(again));
    }
}

#[tokio::test]
async fn targets_are_resolved_when_the_command_is_sent() {
    let fleet = Fleet::new().await;
    let (web, db) = (node_id(1), node_id(2));
    fleet
        .endpoint
        .register_node(1, &[("Env", "prod"), ("Role", "web")])
        .await;
    fleet
        .endpoint
        .register_node(2, &[("Env", "prod"), ("Role", "db")])
        .await;
    let both = fleet
        .send_as(to_targets(ONE_STEP, vec![target("tag:Env", &["prod", "test"])]))
        .await;
    assert_eq!(both.target_count, Some(2));
    let one = to_targets(
        ONE_STEP,
        vec![target("tag-key", &["Env"]), target("tag:Role", &["db"])],
    );
    assert_eq!(fleet.send_as(one).await.target_count, Some(1));
    let named = fleet
        .send_as(to_targets(ONE_STEP, vec![target("InstanceIds", &[web.as_str()])]))
        .await;
    assert_eq!(named.target_count, Some(1));
    assert_eq!((fleet.due(&web).await.len(), fleet.due(&db).await.len()), (2, 2));
    // tags that come later change nothing
    fleet.endpoint.register_node(3, &[("Env", "prod")]).await;
    assert_eq!(fleet.due(&node_id(3)).await, []);
}

#[tokio::test]
async fn a_command_without_a_matching_node_has_succeeded_on_none() {
    let fleet = Fleet::new().await;
    let command = fleet
        .send_as(to_targets(ONE_STEP, vec![target("tag:Env", &["nowhere"])]))
        .await;
    assert_eq!(command.status.unwrap().as_str(), "Success");
    assert_eq!(command.status_details.as_deref(), Some("NoInstancesInTag"));
    assert_eq!(
        (command.target_count, command.completed_count),
        (Some(0), Some(0))
    );
}

#[tokio::test]
async fn a_target_that_cannot_be_resolved_is_refused() {
    let fleet = Fleet::new().await;
    let table = [
        (
            target("resource-groups:Name", &["x"]),
            ErrorCode::ValidationException,
        ),
        (target("tag:Env", &[]), ErrorCode::ValidationException),
        (
            target("InstanceIds", &["mi-00000000000000009"]),
            ErrorCode::InvalidInstanceId,
        ),
    ];
    for (target, code) in table {
        let request = to_targets(ONE_STEP, vec![target.clone()]);
        assert_eq!(
            fleet.endpoint.refuse::<SendCommand>(request).await.code,
            code,
            "{target:?}"
        );
    }
}

#[tokio::test]
async fn a_document_for_another_platform_is_refused_for_a_named_node_and_fails_on_a_tagged_one() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let report = NodeReport {
        platform_type: Some("Windows".to_owned()),
        ..NodeReport::default()
    };
    assert!(
        fleet
            .endpoint
            .app
            .store
            .record_report(&node, report, 1)
            .await
            .unwrap()
    );
    let error = fleet
        .endpoint
        .refuse::<SendCommand>(request(ONE_STEP, &[&node]))
        .await;
    assert_eq!(error.code, ErrorCode::UnsupportedPlatformType);
    let command = fleet
        .send_as(to_targets(ONE_STEP, vec![target("tag:Env", &["prod"])]))
        .await;
    assert_eq!(command.status.as_ref().unwrap().as_str(), "Failed");
    let invocation = fleet.invocation(&command, &node).await;
    assert_eq!(invocation.status_details.as_deref(), Some("InvalidPlatform"));
    assert_eq!(fleet.due(&node).await, []);
}

#[tokio::test]
async fn a_node_may_not_send_commands() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let request = request(ONE_STEP, &[&node]);
    let error = fleet
        .endpoint
        .refuse_as::<SendCommand>(Principal::Node(node), request)
        .await;
    assert_eq!(error.code, ErrorCode::AccessDeniedException);
}

#[tokio::test]
async fn commands_are_listed_newest_first_in_pages() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let mut sent = Vec::new();
    for number in 0..5 {
        // some at the same time, so that paging within one millisecond is tested
        fleet.endpoint.advance_millis(u64::from(number % 2 == 1));
        sent.push(fleet.send(ONE_STEP, &[&node]).await.command_id);
    }
    let mut listed = Vec::new();
    let mut next_token = None;
    loop {
        let request = ListCommandsRequest {
            max_results: Some(2),
            next_token,
            ..ListCommandsRequest::default()
        };
        let page = fleet.endpoint.call::<ListCommands>(request).await.unwrap();
        let commands = page.commands.unwrap();
        assert!((1..=2).contains(&commands.len()));
        listed.extend(commands.into_iter().map(|command| command.command_id));
        next_token = page.next_token;
        if next_token.is_none() {
            break;
        }
    }
    assert!(sent[3..].contains(&listed[0]), "the newest come first");
    assert_eq!(listed[4], sent[0]);
    let (mut all, mut expected) = (listed.clone(), sent);
    all.sort();
    expected.sort();
    assert_eq!(all, expected, "each once");
}

#[tokio::test]
async fn a_token_of_another_list_is_refused() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    for _ in 0..2 {
        fleet.send(ONE_STEP, &[&node]).await;
    }
    let request = ListCommandsRequest {
        max_results: Some(1),
        ..ListCommandsRequest::default()
    };
    let token = fleet
        .endpoint
        .call::<ListCommands>(request)
        .await
        .unwrap()
        .next_token;
    let other = ListCommandInvocationsRequest {
        next_token: token.clone(),
        ..ListCommandInvocationsRequest::default()
    };
    let error = fleet.endpoint.refuse::<ListCommandInvocations>(other).await;
    assert_eq!(error.code, ErrorCode::InvalidNextToken);
    let filtered = ListCommandsRequest {
        next_token: token,
        filters: Some(vec![filter(CommandFilterKey::Status, "Pending")]),
        ..ListCommandsRequest::default()
    };
    assert_eq!(
        fleet.endpoint.refuse::<ListCommands>(filtered).await.code,
        ErrorCode::InvalidNextToken
    );
}

#[tokio::test]
async fn lists_are_filtered() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let older = fleet.send(ONE_STEP, &[&node]).await;
    let job = fleet.due_job(&node).await;
    fleet
        .reply(&node, &job, "Success", &[("shell", "Success", 0, "")])
        .await;
    fleet.endpoint.advance_millis(60_000);
    fleet.send(TWO_STEPS, &[&node]).await;
    // `o` is the older command, `n` the newer one
    let table = [
        (CommandFilterKey::InvokedAfter, "2026-11-22T00:00:30Z", "n"),
        (CommandFilterKey::InvokedBefore, "2026-11-22T00:00:30Z", "o"),
        (CommandFilterKey::Status, "Success", "o"),
        (CommandFilterKey::Status, "Pending", "n"),
        (CommandFilterKey::Status, "Failed", ""),
        (CommandFilterKey::ExecutionStage, "Executing", "n"),
        (CommandFilterKey::ExecutionStage, "Complete", "o"),
        (CommandFilterKey::DocumentName, TWO_STEPS, "n"),
    ];
    let name = |id: &Option<String>| if *id == older.command_id { "o" } else { "n" };
    for (key, value, expected) in table {
        let filters = Some(vec![filter(key.clone(), value)]);
        let request = ListCommandsRequest {
            filters: filters.clone(),
            ..ListCommandsRequest::default()
        };
        let commands = fleet
            .endpoint
            .call::<ListCommands>(request)
            .await
            .unwrap()
            .commands
            .unwrap();
        let shown: String = commands.iter().map(|command| name(&command.command_id)).collect();
        assert_eq!(shown, expected, "commands with {key} {value}");
        let request = ListCommandInvocationsRequest {
            filters,
            ..ListCommandInvocationsRequest::default()
        };
        let reply = fleet
            .endpoint
            .call::<ListCommandInvocations>(request)
            .await
            .unwrap();
        let invocations = reply.command_invocations.unwrap();
        let shown: String = invocations
            .iter()
            .map(|invocation| name(&invocation.command_id))
            .collect();
        assert_eq!(shown, expected, "invocations with {key} {value}");
    }
    for (key, value) in [
        (CommandFilterKey::InvokedAfter, "yesterday"),
        (CommandFilterKey::Status, "Done"),
        (CommandFilterKey::ExecutionStage, "Late"),
    ] {
        let filters = Some(vec![filter(key, value)]);
        let request = ListCommandsRequest {
            filters,
            ..ListCommandsRequest::default()
        };
        assert_eq!(
            fleet.endpoint.refuse::<ListCommands>(request).await.code,
            ErrorCode::ValidationException
        );
    }
    let on_node = |node: &str| ListCommandsRequest {
        instance_id: Some(node.to_owned()),
        ..ListCommandsRequest::default()
    };
    let commands = fleet
        .endpoint
        .call::<ListCommands>(on_node(node.as_str()))
        .await
        .unwrap()
        .commands;
    assert_eq!(commands.unwrap().len(), 2);
    let commands = fleet
        .endpoint
        .call::<ListCommands>(on_node(node_id(5).as_str()))
        .await
        .unwrap()
        .commands;
    assert_eq!(commands.unwrap(), []);
}

#[tokio::test]
async fn details_list_every_step_of_the_document() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let command = fleet.send(TWO_STEPS, &[&node]).await;
    let job = fleet.due_job(&node).await;
    fleet
        .reply(&node, &job, "InProgress", &[("first", "Skipped", 0, "not here")])
        .await;
    let list = async |details| {
        let request = ListCommandInvocationsRequest {
            command_id: command.command_id.clone(),
            details: Some(details),
            ..ListCommandInvocationsRequest::default()
        };
        let reply = fleet
            .endpoint
            .call::<ListCommandInvocations>(request)
            .await
            .unwrap();
        reply
            .command_invocations
            .unwrap()
            .remove(0)
            .command_plugins
            .unwrap()
    };
    assert_eq!(list(false).await, []);
    let steps = list(true).await;
    let shown: Vec<_> = steps
        .iter()
        .map(|step| {
            (
                step.name.as_deref().unwrap(),
                step.status.as_ref().unwrap().as_str(),
                step.status_details.as_deref().unwrap(),
                step.response_code.unwrap(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("first", "Success", "Skipped", 0),
            ("second", "InProgress", "InProgress", -1)
        ]
    );
    assert_eq!(steps[0].output.as_deref(), Some("not here"));
    assert!(steps[0].response_finish_date_time.is_some());
}

#[tokio::test]
async fn an_invocation_shows_the_step_that_is_asked_for() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let command = fleet.send(TWO_STEPS, &[&node]).await;
    let ask = |plugin_name: Option<&str>| GetCommandInvocationRequest {
        command_id: command.command_id.clone(),
        instance_id: Some(node.to_string()),
        plugin_name: plugin_name.map(str::to_owned),
    };
    let silent = fleet
        .endpoint
        .call::<GetCommandInvocation>(ask(None))
        .await
        .unwrap();
    assert_eq!(
        (silent.response_code, silent.execution_start_date_time.as_deref()),
        (Some(-1), Some(""))
    );
    let job = fleet.due_job(&node).await;
    fleet
        .reply(&node, &job, "InProgress", &[("first", "Failed", 2, "one")])
        .await;
    let first = fleet
        .endpoint
        .call::<GetCommandInvocation>(ask(Some("first")))
        .await
        .unwrap();
    assert_eq!(first.status.unwrap().as_str(), "Failed");
    assert_eq!(
        (first.response_code, first.plugin_name.as_deref()),
        (Some(2), Some("first"))
    );
    assert_eq!(first.standard_output_content.as_deref(), Some("one"));
    assert_eq!(
        first.standard_error_content.as_deref(),
        Some("failed to run commands")
    );
    let second = fleet
        .endpoint
        .call::<GetCommandInvocation>(ask(Some("second")))
        .await
        .unwrap();
    assert_eq!(
        (second.response_code, second.status.unwrap().as_str()),
        (Some(-1), "InProgress")
    );
    let error = fleet
        .endpoint
        .refuse::<GetCommandInvocation>(ask(Some("third")))
        .await;
    assert_eq!(error.code, ErrorCode::InvalidPluginName);
    assert!(error.message.contains("first, second"), "{}", error.message);
}

#[tokio::test]
async fn what_does_not_exist_is_said_not_to_exist() {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let command = fleet.send(ONE_STEP, &[&node]).await;
    let nowhere = uuid::Uuid::nil().to_string();
    let ask = |command: &str, node: &str| GetCommandInvocationRequest {
        command_id: Some(command.to_owned()),
        instance_id: Some(node.to_owned()),
        plugin_name: None,
    };
    let id = command.command_id.clone().unwrap();
    for request in [ask(&nowhere, node.as_str()), ask(&id, node_id(9).as_str())] {
        let error = fleet.endpoint.refuse::<GetCommandInvocation>(request).await;
        assert_eq!(error.code, ErrorCode::InvocationDoesNotExist);
    }
    let list = ListCommandsRequest {
        command_id: Some(nowhere.clone()),
        ..ListCommandsRequest::default()
    };
    assert_eq!(
        fleet.endpoint.refuse::<ListCommands>(list).await.code,
        ErrorCode::InvalidCommandId
    );
    let cancel = CancelCommandRequest {
        command_id: Some(nowhere),
        instance_ids: None,
    };
    assert_eq!(
        fleet.endpoint.refuse::<CancelCommand>(cancel).await.code,
        ErrorCode::InvalidCommandId
    );
    let cancel = CancelCommandRequest {
        command_id: Some(id),
        instance_ids: Some(vec![node_id(9).to_string()]),
    };
    assert_eq!(
        fleet.endpoint.refuse::<CancelCommand>(cancel).await.code,
        ErrorCode::InvalidInstanceId
    );
}

#[tokio::test]
async fn a_command_can_be_cancelled_on_some_of_its_nodes() {
    let fleet = Fleet::new().await;
    let (one, two) = (fleet.node(1).await, fleet.node(2).await);
    let command: Command = fleet.send(ONE_STEP, &[&one, &two]).await;
    let cancel = CancelCommandRequest {
        command_id: command.command_id.clone(),
        instance_ids: Some(vec![two.to_string()]),
    };
    fleet.endpoint.call::<CancelCommand>(cancel).await.unwrap();
    assert_eq!(fleet.status(&command, &one).await, "Pending");
    assert_eq!(fleet.status(&command, &two).await, "Cancelled");
    assert_eq!(
        fleet.command(&command).await.status.unwrap().as_str(),
        "InProgress"
    );
    let job = fleet.due_job(&one).await;
    fleet
        .reply(&one, &job, "Success", &[("shell", "Success", 0, "")])
        .await;
    let command = fleet.command(&command).await;
    assert_eq!(command.status.unwrap().as_str(), "Cancelled");
    assert_eq!(command.completed_count, Some(2));
}
