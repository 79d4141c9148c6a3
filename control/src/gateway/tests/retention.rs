//! What age does to recordings of commands, and that the audit log has it before anything is gone.

use std::{fs, sync::Arc};

use bytes::Bytes;
use moorline_protocol::types::{InstanceId, SessionId, TranscriptId};
use moorline_ssm::{
    audit::{ListAuditRecords, ListAuditRecordsRequest},
    parameter::{ParameterTier, ParameterType, PutParameter, PutParameterRequest},
    transcript::{ListTranscripts, ListTranscriptsRequest, Transcript, TranscriptState},
};

use crate::{
    audit::AuditLog,
    gateway::{
        at_rest,
        command_delivery::{
            fixture::{Fleet, ONE_STEP, request},
            forget_command,
        },
        sweep::{close_transcripts, delete_expired_parameters, forget_sessions},
    },
    server::Metrics,
    store::{Chunk, ChunkBody, NewSession, Place, Sender, SessionStatus, TranscriptState as State},
    test_support::TestApp,
};

const DAY_MILLIS: u64 = 86_400_000;

/// A command that ran on a node, and what its recording would be.
async fn with_ended_command() -> (Fleet, InstanceId, TranscriptId) {
    let fleet = Fleet::new().await;
    let node = fleet.node(1).await;
    let command = fleet.send_as(request(ONE_STEP, &[&node])).await;
    let job = fleet.due_job(&node).await;
    fleet.ack(&node, &job, "200").await;
    fleet
        .reply(&node, &job, "Success", &[("shell", "Success", 0, "done")])
        .await;
    let id = format!("{}.{node}", command.command_id.unwrap()).parse().unwrap();
    (fleet, node, id)
}

/// A command that ran on a node, whose recording is closed and at rest.
async fn with_recording() -> (Fleet, TranscriptId) {
    let (fleet, node, id) = with_ended_command().await;
    let app = Arc::clone(&fleet.endpoint.app);
    let recorded = app.store.recorded(&id).await.unwrap().unwrap();
    let now = fleet.endpoint.now();
    app.store.transcript_started(&recorded, now).await.unwrap();
    let sender = Sender {
        node: node.to_string(),
        keys: Vec::new(),
    };
    let chunk = Chunk {
        offset: 0,
        body: ChunkBody::Plain(Bytes::from_static(
            b"{\"version\":2,\"width\":80,\"height\":24}\n",
        )),
        is_last: true,
        is_durable: true,
    };
    app.transcripts
        .append(&id, sender, chunk, (false, now))
        .await
        .unwrap();
    app.store.transcript_closed(&id, State::Plain, now).await.unwrap();
    at_rest::look(&app).await;
    (fleet, id)
}

async fn listed(test: &TestApp, state: Option<TranscriptState>) -> Vec<Transcript> {
    let request = ListTranscriptsRequest {
        state,
        ..ListTranscriptsRequest::default()
    };
    test.call::<ListTranscripts>(request)
        .await
        .unwrap()
        .transcripts
        .unwrap()
}

/// Lines of the audit log that say what the endpoint deleted.
async fn deletions(test: &TestApp) -> Vec<String> {
    recorded(test, "deleted").await
}

/// Lines of the audit log.
pub(super) async fn recorded(test: &TestApp, event: &str) -> Vec<String> {
    let page = test
        .call::<ListAuditRecords>(ListAuditRecordsRequest::default())
        .await
        .unwrap();
    let lines = page.records.unwrap().into_iter();
    lines
        .filter(|line| line.contains(&format!("\"event\":\"{event}\"")))
        .collect()
}

fn files(test: &TestApp) -> usize {
    fs::read_dir(test.dir().join("transcripts")).unwrap().count()
}

#[tokio::test]
async fn a_recording_that_came_behind_the_end_of_its_command_has_not_ended_before_it_began() {
    let (fleet, _node, id) = with_ended_command().await;
    let test = &fleet.endpoint;
    test.advance_millis(DAY_MILLIS);
    let recorded = test.app.store.recorded(&id).await.unwrap().unwrap();
    let store = &test.app.store;
    store.transcript_started(&recorded, test.now()).await.unwrap();
    let times = async || {
        let [one] = listed(test, None).await.try_into().unwrap();
        [one.start_date, one.end_date].map(|date| date.unwrap().millis())
    };
    assert_eq!(times().await, [test.now(); 2]);
    // the command is forgotten before its recording
    store
        .transcript_closed(&id, State::Complete, test.now())
        .await
        .unwrap();
    test.advance_millis(40 * DAY_MILLIS);
    forget_command(&test.app).await.unwrap();
    let (command, _) = id.command().unwrap();
    assert!(store.command(&command).await.unwrap().is_none());
    let [started, ended] = times().await;
    assert!(started <= ended, "{started} {ended}");
}

#[tokio::test]
async fn age_deletes_the_recording_of_a_command_and_leaves_whose_it_was() {
    let (fleet, id) = with_recording().await;
    let test = &fleet.endpoint;
    test.advance_millis(89 * DAY_MILLIS);
    at_rest::expire(&test.app).await.unwrap();
    at_rest::look(&test.app).await;
    assert_eq!(listed(test, None).await.len(), 1);
    test.advance_millis(2 * DAY_MILLIS);
    at_rest::expire(&test.app).await.unwrap();
    at_rest::look(&test.app).await;
    assert!(listed(test, None).await.is_empty());
    assert_eq!(files(test), 0);
    let [tombstone] = listed(test, Some(TranscriptState::Deleted))
        .await
        .try_into()
        .unwrap();
    assert_eq!(tombstone.session_id.as_deref(), Some(id.as_str()));
    assert_eq!(tombstone.deleted_by.as_deref(), Some("retention"));
    assert!(tombstone.sha256.is_some());
    let [line] = deletions(test).await.try_into().unwrap();
    let (command, node) = id.command().unwrap();
    assert!(
        line.contains(command.as_str()) && line.contains(node.as_str()),
        "{line}"
    );
    let (length, sha256) = (tombstone.length_bytes.unwrap(), tombstone.sha256.unwrap());
    let details = format!(r#""details":{{"length":{length},"sha256":"{sha256}"}}"#);
    assert!(line.contains(&details), "{line}");
}

#[tokio::test]
async fn nothing_that_age_deletes_is_gone_before_the_audit_log_has_it() {
    let (mut fleet, id) = with_recording().await;
    let obstacle = fleet.endpoint.dir().join("obstacle");
    fs::write(&obstacle, "no directory").unwrap();
    let app = Arc::get_mut(&mut fleet.endpoint.app).expect("nobody else has it");
    let failures = Metrics::default().counter("failures", &[]);
    let (key, clock) = (Arc::clone(&app.signing_key), app.clock.clone());
    app.audit = AuditLog::open(&obstacle.join("audit"), key, clock, failures).unwrap();
    let test = &fleet.endpoint;
    test.advance_millis(91 * DAY_MILLIS);
    at_rest::expire(&test.app).await.unwrap();
    at_rest::look(&test.app).await;
    forget_sessions(&test.app).await.unwrap();
    forget_command(&test.app).await.unwrap();
    assert!(files(test) > 0, "it could not be recorded");
    let (command, _) = id.command().unwrap();
    let is_command_there = async || test.app.store.command(&command).await.unwrap().is_some();
    assert!(is_command_there().await, "nor could this");
    let row = test.app.store.transcript(&id).await.unwrap().unwrap();
    assert_eq!(row.place, Place::Packed);
    fs::remove_file(&obstacle).unwrap();
    at_rest::look(&test.app).await;
    assert_eq!(files(test), 0);
    assert_eq!(deletions(test).await.len(), 1);
    forget_command(&test.app).await.unwrap();
    assert!(!is_command_there().await);
    assert_eq!(deletions(test).await.len(), 2);
}

#[tokio::test]
async fn a_parameter_that_expired_is_deleted_when_the_audit_log_has_that() {
    let mut test = TestApp::new().await;
    let expiration =
        r#"[{"Type":"Expiration","Version":"1.0","Attributes":{"Timestamp":"2026-11-23T00:00:00Z"}}]"#;
    let put = PutParameterRequest {
        name: Some("/app/brief".to_owned()),
        value: Some("v".to_owned()),
        r#type: Some(ParameterType::String),
        policies: Some(expiration.to_owned()),
        tier: Some(ParameterTier::Advanced),
        ..PutParameterRequest::default()
    };
    test.call::<PutParameter>(put).await.unwrap();
    test.advance_millis(2 * DAY_MILLIS);
    let log = test.app.audit.clone();
    let obstacle = test.dir().join("obstacle");
    fs::write(&obstacle, "no directory").unwrap();
    let app = Arc::get_mut(&mut test.app).expect("nobody else has it");
    let failures = Metrics::default().counter("failures", &[]);
    let (key, clock) = (Arc::clone(&app.signing_key), app.clock.clone());
    app.audit = AuditLog::open(&obstacle.join("audit"), key, clock, failures).unwrap();
    delete_expired_parameters(&test.app).await.unwrap();
    let left = test.app.store.expired_parameters(test.now()).await.unwrap();
    assert_eq!(left, ["/app/brief"], "it could not be recorded");
    Arc::get_mut(&mut test.app).expect("nobody else has it").audit = log;
    delete_expired_parameters(&test.app).await.unwrap();
    let left = test.app.store.expired_parameters(test.now()).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    let [line] = deletions(&test).await.try_into().unwrap();
    assert!(
        line.contains("/app/brief") && line.contains("DeleteParameter"),
        "{line}"
    );
}

pub(super) fn new_session(session: &SessionId, node: &InstanceId) -> NewSession {
    NewSession {
        session_id: session.clone(),
        node: node.clone(),
        owner: "arn:moorline:iam:::user/admin".to_owned(),
        document_name: "SSM-SessionManagerRunShell".to_owned(),
        session_type: moorline_protocol::document::SessionType::StandardStream,
        reason: None,
        start_content: "{}".to_owned(),
        idle_timeout_millis: 60_000,
        max_duration_millis: None,
    }
}

#[tokio::test]
async fn an_end_of_a_session_that_is_stored_is_in_the_audit_log_once_though_the_endpoint_died_before_it_told_it()
 {
    let mut test = TestApp::new().await;
    let node = test.register_node(1, &[]).await;
    let session: SessionId = "admin-00000000000000001".parse().unwrap();
    let (store, now) = (&test.app.store, test.now());
    store
        .insert_session(&new_session(&session, &node), now)
        .await
        .unwrap();
    let ended = store.end_session(&session, SessionStatus::Terminated, "by alice", None, now);
    assert!(ended.await.unwrap());
    assert!(recorded(&test, "session-ended").await.is_empty());
    for _ in 0..2 {
        test = test.restarted().await;
        test.app.tell_ends_of_sessions().await;
        let [line] = recorded(&test, "session-ended").await.try_into().unwrap();
        assert!(
            line.contains(session.as_str()) && line.contains("by alice"),
            "{line}"
        );
    }
}

#[tokio::test]
async fn an_end_of_a_session_that_the_audit_log_does_not_take_is_told_when_it_does() {
    let mut test = TestApp::new().await;
    let node = test.register_node(1, &[]).await;
    let session: SessionId = "admin-00000000000000001".parse().unwrap();
    let new = new_session(&session, &node);
    test.app.store.insert_session(&new, test.now()).await.unwrap();
    let obstacle = test.dir().join("obstacle");
    fs::write(&obstacle, "no directory").unwrap();
    let app = Arc::get_mut(&mut test.app).expect("nobody else has it");
    let failures = Metrics::default().counter("failures", &[]);
    let (key, clock) = (Arc::clone(&app.signing_key), app.clock.clone());
    app.audit = AuditLog::open(&obstacle.join("audit"), key, clock, failures).unwrap();
    let ended = test
        .app
        .end_session(&session, SessionStatus::Terminated, "", None);
    assert!(ended.await.unwrap());
    fs::remove_file(&obstacle).unwrap();
    for _ in 0..2 {
        test.app.tell_ends_of_sessions().await;
        assert_eq!(recorded(&test, "session-ended").await.len(), 1);
    }
}

/// Sessions that have ended, in this order, with recordings that nobody closed. All but the last are damaged.
async fn left_open(count: usize) -> (TestApp, Vec<TranscriptId>) {
    let test = TestApp::new().await;
    let node = test.register_node(1, &[]).await;
    let (app, begun) = (&test.app, test.now());
    let id = |number| format!("admin-{number:017x}").parse::<TranscriptId>().unwrap();
    let ids: Vec<_> = (0..count).map(id).collect();
    for id in &ids {
        let session: SessionId = id.as_str().parse().unwrap();
        app.store
            .insert_session(&new_session(&session, &node), begun)
            .await
            .unwrap();
        let recorded = app.store.recorded(id).await.unwrap().unwrap();
        app.store.transcript_started(&recorded, begun).await.unwrap();
        let ended = app.end_session(&session, SessionStatus::Terminated, "", None);
        ended.await.unwrap();
        test.advance_millis(1);
    }
    for damaged in &ids[..count - 1] {
        // what cannot be opened as a file
        fs::create_dir_all(test.dir().join(format!("transcripts/{damaged}.cast"))).unwrap();
    }
    (test, ids)
}

#[tokio::test]
async fn a_damaged_recording_keeps_no_other_from_being_closed() {
    let (test, ids) = left_open(2).await;
    let app = &test.app;
    test.advance_millis(8 * DAY_MILLIS);
    close_transcripts(app, &mut None).await.unwrap_err();
    let is_closed = async |id| app.store.transcript_is_closed(id).await.unwrap();
    assert_eq!(
        [is_closed(&ids[0]).await, is_closed(&ids[1]).await],
        [false, true]
    );
}

#[tokio::test]
async fn however_many_recordings_are_damaged_each_of_the_others_is_closed() {
    let (test, ids) = left_open(202).await;
    let app = &test.app;
    let mut behind = None;
    test.advance_millis(8 * DAY_MILLIS);
    for _ in 0..3 {
        close_transcripts(app, &mut behind).await.unwrap_err();
    }
    assert!(app.store.transcript_is_closed(&ids[201]).await.unwrap());
    // those before it are tried again: somebody may have put one in order
    fs::remove_dir(test.dir().join(format!("transcripts/{}.cast", ids[0]))).unwrap();
    for _ in 0..3 {
        close_transcripts(app, &mut behind).await.unwrap_err();
    }
    assert!(app.store.transcript_is_closed(&ids[0]).await.unwrap());
}

#[tokio::test]
async fn a_command_is_kept_while_its_recording_may_still_arrive() {
    let fleet = Fleet::new().await;
    let (test, node) = (&fleet.endpoint, fleet.node(1).await);
    let mut long = request(ONE_STEP, &[&node]);
    long.timeout_seconds = Some(2_592_000);
    let command = fleet.send_as(long).await;
    test.advance_millis(29 * DAY_MILLIS);
    let job = fleet.due_job(&node).await;
    fleet.ack(&node, &job, "200").await;
    let id: TranscriptId = format!("{}.{node}", command.command_id.unwrap()).parse().unwrap();
    let (command, _) = id.command().unwrap();
    let recorded = test.app.store.recorded(&id).await.unwrap().unwrap();
    test.app
        .store
        .transcript_started(&recorded, test.now())
        .await
        .unwrap();
    fleet
        .reply(&node, &job, "Success", &[("shell", "Success", 0, "done")])
        .await;
    let is_there = async || {
        forget_command(&test.app).await.unwrap();
        close_transcripts(&test.app, &mut None).await.unwrap();
        test.app.store.command(&command).await.unwrap().is_some()
    };
    test.advance_millis(2 * DAY_MILLIS);
    assert!(is_there().await, "its node may be away");
    let row = async || test.app.store.transcript(&id).await.unwrap().unwrap();
    assert_eq!(row().await.completed_at, None);
    test.advance_millis(6 * DAY_MILLIS);
    assert!(is_there().await, "its recording was open");
    assert!(row().await.completed_at.is_some(), "and is closed now");
    assert!(!is_there().await);
}
