//! What calls leave in the log, and what becomes of it when the process or the disk ends.

use std::{fs, io::Write as _, path::Path, sync::Arc};

use moorline_protocol::{
    audit::{ActorKind, Body, Event, EventKind, Line, Outcome, Verifier},
    public_keys::Keys,
};
use moorline_ssm::{
    ErrorCode,
    activation::{CreateActivation, CreateActivationRequest},
    audit::{ListAuditRecords, ListAuditRecordsRequest},
    document::{ListDocuments, ListDocumentsRequest},
    node::{
        RegisterManagedInstance, RegisterManagedInstanceRequest, UpdateInstanceInformation,
        UpdateInstanceInformationRequest,
    },
};

use super::{AuditFilter, AuditLog, SegmentError};
use crate::{
    app::Clock,
    auth::{EndpointSigningKey, Principal},
    server::Metrics,
    test_support::{TestApp, administrator, node_id},
};

fn activation() -> CreateActivationRequest {
    CreateActivationRequest {
        iam_role: Some("service-role/test".to_owned()),
        description: Some("for the test".to_owned()),
        ..CreateActivationRequest::default()
    }
}

fn open(dir: &Path, key: &Arc<EndpointSigningKey>) -> Result<AuditLog, SegmentError> {
    let counter = Metrics::default().counter("failures", &[]);
    AuditLog::open(dir, Arc::clone(key), Clock::system(), counter)
}

async fn events(log: &AuditLog) -> Vec<Event> {
    let page = log.page(AuditFilter::default(), None, 1000).await.unwrap();
    let event = |line: String| match Line::parse((line + "\n").as_bytes()).unwrap().body {
        Body::Event(event) => *event,
        Body::Checkpoint { .. } => panic!("a checkpoint that nobody asked for"),
    };
    page.records.into_iter().map(event).collect()
}

/// What stands behind all that was sent.
fn mark() -> Event {
    Event::new(
        EventKind::Other("mark".to_owned()),
        moorline_protocol::audit::Actor::endpoint(),
    )
}

/// The events of calls, when everything that was sent is written.
async fn calls(test: &TestApp) -> Vec<Event> {
    test.app.audit.write(mark()).await.unwrap();
    let mut events = events(&test.app.audit).await;
    events.retain(|event| matches!(event.event, EventKind::Accepted | EventKind::Call));
    events
}

fn bytes(dir: &Path) -> Vec<u8> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    names
        .into_iter()
        .flat_map(|name| fs::read(name).unwrap())
        .collect()
}

fn verify(key: &EndpointSigningKey, log: &[u8]) -> Outcome {
    let keys = Keys {
        endpoint: vec![key.public()],
        nodes: Vec::new(),
    };
    let mut verifier = Verifier::new(&keys);
    verifier.push(log);
    verifier.finish()
}

#[tokio::test]
async fn what_changes_something_is_recorded_before_and_after() {
    let test = TestApp::new().await;
    let made = test.call::<CreateActivation>(activation()).await.unwrap();
    let [accepted, call] = calls(&test).await.try_into().unwrap();
    assert_eq!(
        (&accepted.event, &call.event),
        (&EventKind::Accepted, &EventKind::Call)
    );
    assert_eq!(accepted.result, None);
    assert_eq!(call.result.as_deref(), Some("ok"));
    assert_eq!(call.operation.as_deref(), Some("ssm:CreateActivation"));
    assert_eq!(call.by.kind, ActorKind::Operator);
    assert_eq!(
        (call.by.name.as_str(), call.by.access_key.as_deref()),
        ("admin", Some("AKIATEST"))
    );
    assert_eq!(
        (call.peer.as_deref(), call.user_agent.as_deref()),
        (Some("127.0.0.1"), Some("test"))
    );
    assert_eq!(call.request_id, accepted.request_id);
    let parameters = call.parameters.unwrap();
    assert_eq!(parameters["Description"], "for the test");
    assert_eq!(parameters["ActivationId"], made.activation_id.unwrap());
    let code = made.activation_code.unwrap();
    assert!(
        !String::from_utf8(bytes(test.app.audit.dir()))
            .unwrap()
            .contains(&code)
    );
}

#[tokio::test]
async fn a_refused_call_leaves_its_refusal_and_no_acceptance() {
    let test = TestApp::new().await;
    let node = test.register_node(0, &[]).await;
    test.refuse_as::<CreateActivation>(Principal::Node(node.clone()), activation())
        .await;
    test.refuse::<CreateActivation>(CreateActivationRequest::default())
        .await;
    let [denied, invalid] = calls(&test).await.try_into().unwrap();
    assert_eq!(denied.result.as_deref(), Some("AccessDeniedException"));
    assert_eq!(
        (denied.by.kind, denied.by.name.as_str()),
        (ActorKind::Node, node.as_str())
    );
    assert!(
        denied
            .message
            .unwrap()
            .contains("is not authorized to perform: ssm:CreateActivation")
    );
    assert_eq!(invalid.result.as_deref(), Some("ValidationException"));
}

#[tokio::test]
async fn what_is_read_over_and_over_is_counted() {
    let test = TestApp::new().await;
    for _ in 0..5 {
        let request = ListDocumentsRequest::default();
        test.call::<ListDocuments>(request).await.unwrap();
    }
    let [call] = calls(&test).await.try_into().unwrap();
    assert_eq!((call.read_only, call.count), (Some(true), None));
    test.advance_millis(60_000);
    let counted = loop {
        let change = test.app.audit.change();
        if let Some(counted) = calls(&test).await.into_iter().find_map(|call| call.count) {
            break counted;
        }
        change.await;
    };
    assert_eq!(counted, 4);
}

#[tokio::test]
async fn a_flood_without_signatures_fills_no_disk() {
    let test = TestApp::new().await;
    for number in 0..200 {
        let request = RegisterManagedInstanceRequest {
            activation_id: Some("5f3b9d4e-7c1a-4a52-9d3e-0c6f3b8a1d2e".to_owned()),
            activation_code: Some(format!("guess-{number:014}")),
            public_key: Some("key".to_owned()),
            fingerprint: Some("f76d924d-858a-42d9-abcb-91c779f69427".to_owned()),
            ..RegisterManagedInstanceRequest::default()
        };
        test.refuse_as::<RegisterManagedInstance>(Principal::Anonymous, request)
            .await;
        test.refuse_as::<ListDocuments>(Principal::Anonymous, ListDocumentsRequest::default())
            .await;
    }
    let calls = calls(&test).await;
    assert_eq!(calls.len(), 2, "{calls:?}");
    let log = String::from_utf8(bytes(test.app.audit.dir())).unwrap();
    assert!(!log.contains("guess-"), "{log}");
}

#[tokio::test]
async fn a_nodes_reports_are_not_recorded_but_a_refused_one_is() {
    let test = TestApp::new().await;
    let node = test.register_node(0, &[]).await;
    let report = |id: String| UpdateInstanceInformationRequest {
        instance_id: Some(id),
        agent_version: Some("1.0.0.0".to_owned()),
        ..UpdateInstanceInformationRequest::default()
    };
    let own = report(node.to_string());
    test.call_as::<UpdateInstanceInformation>(Principal::Node(node.clone()), own)
        .await
        .unwrap();
    let other = report(node_id(1).to_string());
    test.refuse_as::<UpdateInstanceInformation>(Principal::Node(node), other)
        .await;
    let [refused] = calls(&test).await.try_into().unwrap();
    assert_eq!(refused.result.as_deref(), Some("AccessDeniedException"));
    assert_eq!(refused.nodes, [node_id(1).to_string()]);
}

#[tokio::test]
async fn a_call_whose_client_goes_away_is_recorded() {
    let test = TestApp::new().await;
    let cx = test.context(administrator());
    cx.record.is_by(&cx.principal);
    let request = activation();
    cx.record
        .is_call_of::<CreateActivation>("ssm:CreateActivation", &request, &crate::auth::Resource::Any);
    cx.record.accept().await.unwrap();
    drop(cx);
    let [_, call] = calls(&test).await.try_into().unwrap();
    assert_eq!(call.result.as_deref(), Some("Unanswered"));
}

#[tokio::test]
async fn the_log_goes_on_where_the_process_before_ended_and_verifies() {
    let mut test = TestApp::new().await;
    for _ in 0..3 {
        test.call::<CreateActivation>(activation()).await.unwrap();
        test = test.restarted().await;
    }
    let (key, dir) = (Arc::clone(&test.app.signing_key), test.app.audit.dir().to_owned());
    let kept = test.close();
    let outcome = verify(&key, &bytes(&dir));
    assert!(outcome.is_intact(), "{outcome:?}");
    // four processes that started and stopped, and three calls in two records each
    assert_eq!(outcome.events, 14);
    drop(kept);
}

#[tokio::test]
async fn the_chain_goes_on_across_files_and_so_does_a_list() {
    let mut test = TestApp::new().await;
    for number in 0..60 {
        let request = CreateActivationRequest {
            description: Some(format!("number {number}")),
            ..activation()
        };
        test.call::<CreateActivation>(request).await.unwrap();
        if number == 30 {
            test = test.restarted().await;
        }
    }
    let (key, dir) = (Arc::clone(&test.app.signing_key), test.app.audit.dir().to_owned());
    let (mut seen, mut from) = (Vec::new(), None);
    let filter = AuditFilter {
        operation: Some("CreateActivation".to_owned()),
        result: Some("ok".to_owned()),
        ..AuditFilter::default()
    };
    loop {
        let page = test.app.audit.page(filter.clone(), from, 7).await.unwrap();
        seen.extend(page.records);
        from = Some(page.next);
        if page.is_end {
            break;
        }
    }
    assert_eq!(seen.len(), 60);
    for (number, record) in seen.iter().enumerate() {
        assert!(
            record.contains(&format!("\"number {number}\"")),
            "{number}: {record}"
        );
    }
    let kept = test.close();
    assert!(fs::read_dir(&dir).unwrap().count() > 2);
    let outcome = verify(&key, &bytes(&dir));
    assert!(outcome.is_intact(), "{outcome:?}");
    // each file but the last ends with a checkpoint
    let first = fs::read(dir.join("00000001.jsonl")).unwrap();
    assert!(verify(&key, &first).is_intact());
    drop(kept);
}

#[tokio::test]
async fn an_unfinished_line_is_removed_and_that_is_recorded() {
    let test = TestApp::new().await;
    test.call::<CreateActivation>(activation()).await.unwrap();
    let (key, dir) = (Arc::clone(&test.app.signing_key), test.app.audit.dir().to_owned());
    let kept = test.close();
    let whole = bytes(&dir);
    let end = whole.len() - 1;
    let start = whole[..end].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    let path = dir.join("00000001.jsonl");
    for length in [end, start + 1, (start + end) / 2, start] {
        fs::write(&path, &whole[..length]).unwrap();
        drop(open(&dir, &key).unwrap());
        let repaired = bytes(&dir);
        assert!(
            repaired.starts_with(&whole[..start]),
            "only the unfinished line goes"
        );
        let outcome = verify(&key, &repaired);
        assert!(outcome.is_intact(), "{length}: {outcome:?}");
        let text = String::from_utf8(repaired).unwrap();
        assert_eq!(text.contains("log-repaired"), length > start, "{length}");
    }
    for damaged in ["something else\n".to_owned(), "x".repeat(2 << 20)] {
        fs::write(&path, &damaged).unwrap();
        let refused = open(&dir, &key).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), damaged.as_bytes(), "it stays as it is");
        assert!(
            refused.to_string().contains("move it away to begin a new log"),
            "{refused}"
        );
    }
    drop(kept);
}

/// The disk fails in the middle of a line, and once more when that is taken back.
#[tokio::test]
async fn half_a_line_that_could_not_be_taken_back_is_removed_before_the_next() {
    let test = TestApp::new().await;
    let log = &test.app.audit;
    log.sync(mark()).await.unwrap();
    let path = log.dir().join("00000001.jsonl");
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"index\":9,\"previous\":\"0").unwrap();
    log.sync(mark()).await.unwrap();
    let (key, dir) = (Arc::clone(&test.app.signing_key), log.dir().to_owned());
    let kept = test.close();
    let outcome = verify(&key, &bytes(&dir));
    assert!(outcome.is_intact(), "{outcome:?}");
    drop(kept);
}

/// Bytes that never were on disk read as zeros, whatever was written before and behind them.
#[tokio::test]
async fn what_a_power_cut_left_in_pieces_is_removed_and_what_is_vouched_for_never() {
    let test = TestApp::new().await;
    let (key, dir) = (Arc::clone(&test.app.signing_key), test.app.audit.dir().to_owned());
    for _ in 0..4 {
        test.call::<CreateActivation>(activation()).await.unwrap();
    }
    let kept = test.close();
    let whole = bytes(&dir);
    let path = dir.join("00000001.jsonl");
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    let behind = |count: usize| lines[..count].concat().len();
    // a hole in the last but two: the two behind it may be there
    let start = behind(lines.len() - 3);
    for (from, to) in [
        (start, start + 1),
        (start + 7, start + 90),
        (start + 7, whole.len()),
    ] {
        let mut torn = whole.clone();
        torn[from..to].fill(0);
        fs::write(&path, &torn).unwrap();
        drop(open(&dir, &key).unwrap());
        let repaired = bytes(&dir);
        assert!(repaired.starts_with(&whole[..start]));
        let outcome = verify(&key, &repaired);
        assert!(outcome.is_intact(), "{outcome:?}");
        assert!(String::from_utf8(repaired).unwrap().contains("log-repaired"));
    }
    // the log of two processes: between two checkpoints nothing can be missing
    fs::write(&path, &whole).unwrap();
    drop(open(&dir, &key).unwrap());
    let mut damaged = bytes(&dir);
    damaged[3] = 0;
    fs::write(&path, &damaged).unwrap();
    let refused = open(&dir, &key).unwrap_err();
    assert!(refused.to_string().contains("keep it as evidence"), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), damaged, "it stays as it is");
    drop(kept);
}

#[tokio::test]
async fn when_the_log_cannot_be_written_nothing_is_changed_and_reading_goes_on() {
    let mut test = TestApp::new().await;
    let place = tempfile::tempdir().unwrap();
    let obstacle = place.path().join("state");
    fs::write(&obstacle, "no directory").unwrap();
    let mut app = Arc::into_inner(test.app).unwrap();
    app.audit = open(&obstacle.join("audit"), &app.signing_key).unwrap();
    test.app = Arc::new(app);
    let refused = test.refuse::<CreateActivation>(activation()).await;
    assert_eq!(refused.code, ErrorCode::ServiceUnavailable);
    test.call::<ListDocuments>(ListDocumentsRequest::default())
        .await
        .unwrap();
    assert!(test.app.store.activations().await.unwrap().is_empty());
    // it goes again, and the log tells what is missing: the start, an acceptance, a list, and the refusal
    fs::remove_file(&obstacle).unwrap();
    test.call::<CreateActivation>(activation()).await.unwrap();
    test.app.audit.write(mark()).await.unwrap();
    let [gap, accepted, call, _mark] = events(&test.app.audit).await.try_into().unwrap();
    assert_eq!((gap.event, gap.count), (EventKind::LogGap, Some(4)));
    assert_eq!(
        (accepted.event, call.event),
        (EventKind::Accepted, EventKind::Call)
    );
}

#[tokio::test]
async fn the_log_is_listed_in_pages_by_administrators_only() {
    let test = TestApp::new().await;
    let node = test.register_node(0, &[]).await;
    for _ in 0..3 {
        test.call::<CreateActivation>(activation()).await.unwrap();
    }
    let request = |next_token: Option<String>| ListAuditRecordsRequest {
        operation: Some("CreateActivation".to_owned()),
        result: Some("ok".to_owned()),
        max_results: Some(2),
        next_token,
        ..ListAuditRecordsRequest::default()
    };
    let first = test.call::<ListAuditRecords>(request(None)).await.unwrap();
    assert_eq!((first.records.unwrap().len(), first.complete), (2, Some(false)));
    let second = test
        .call::<ListAuditRecords>(request(first.next_token))
        .await
        .unwrap();
    assert_eq!((second.records.unwrap().len(), second.complete), (1, Some(true)));
    // the token behind the end goes on with what comes
    test.call::<CreateActivation>(activation()).await.unwrap();
    let third = test
        .call::<ListAuditRecords>(request(second.next_token))
        .await
        .unwrap();
    assert_eq!(third.records.unwrap().len(), 1);
    let refused = test
        .refuse_as::<ListAuditRecords>(Principal::Node(node), request(None))
        .await;
    assert_eq!(refused.code, ErrorCode::AccessDeniedException);
}

#[tokio::test]
async fn what_went_well_is_no_error_whatever_word_it_has_for_that() {
    let test = TestApp::new().await;
    let of = |kind: EventKind, result: &str| {
        let mut event = Event::new(kind, moorline_protocol::audit::Actor::endpoint());
        event.result = Some(result.to_owned());
        event
    };
    for event in [
        of(EventKind::Call, "ok"),
        of(EventKind::SessionEnded, "Terminated"),
        of(EventKind::CommandEnded, "Success"),
        of(EventKind::Call, "ValidationException"),
        of(EventKind::SessionEnded, "Failed"),
        of(EventKind::CommandEnded, "Terminated"),
        of(EventKind::CommandEnded, "AccessDenied"),
    ] {
        test.app.audit.write(event).await.unwrap();
    }
    for (wanted, expected) in [
        ("ok", vec!["ok", "Terminated", "Success"]),
        (
            "error",
            vec!["ValidationException", "Failed", "Terminated", "AccessDenied"],
        ),
        ("Terminated", vec!["Terminated", "Terminated"]),
    ] {
        let filter = AuditFilter {
            result: Some(wanted.to_owned()),
            ..AuditFilter::default()
        };
        let page = test.app.audit.page(filter, None, 1000).await.unwrap();
        let results: Vec<String> = page.records.into_iter().map(result_of).collect();
        assert_eq!(results, expected, "{wanted}");
    }
}

fn result_of(line: String) -> String {
    match Line::parse((line + "\n").as_bytes()).unwrap().body {
        Body::Event(event) => event.result.unwrap(),
        Body::Checkpoint { .. } => panic!("a checkpoint that nobody asked for"),
    }
}
