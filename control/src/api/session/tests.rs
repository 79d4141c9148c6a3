//! Operations of sessions, in-process.

mod preferences;

use std::collections::BTreeMap;

use moorline_ssm::{
    ErrorCode,
    document::{CreateDocument, CreateDocumentRequest, DocumentType},
    session::{
        DescribeSessions, DescribeSessionsRequest, ResumeSession, ResumeSessionRequest, Session,
        SessionFilter, SessionFilterKey, SessionState, StartSession, StartSessionRequest, TerminateSession,
        TerminateSessionRequest,
    },
};

use crate::{
    api::built_in_documents,
    auth::{ChannelGrant, Principal},
    store::SessionDue,
    test_support::{TestApp, node_id},
};

async fn endpoint() -> TestApp {
    let test = TestApp::new().await;
    let node = test.register_node(1, &[]).await;
    test.routing.connected.lock().unwrap().insert(node);
    test.app
        .store
        .seed_documents(&built_in_documents(), test.now())
        .await
        .unwrap();
    test
}

fn request() -> StartSessionRequest {
    StartSessionRequest {
        target: Some(node_id(1).to_string()),
        ..StartSessionRequest::default()
    }
}

async fn start(test: &TestApp) -> String {
    test.call::<StartSession>(request())
        .await
        .unwrap()
        .session_id
        .unwrap()
}

async fn describe(test: &TestApp, state: SessionState, filters: &[(&str, &str)]) -> Vec<Session> {
    let filters = filters.iter().map(|(key, value)| SessionFilter {
        key: Some(SessionFilterKey::from(*key)),
        value: Some((*value).to_owned()),
    });
    let filters = Some(filters.collect()).filter(|filters: &Vec<_>| !filters.is_empty());
    let request = DescribeSessionsRequest {
        state: Some(state),
        filters,
        ..DescribeSessionsRequest::default()
    };
    test.call::<DescribeSessions>(request)
        .await
        .unwrap()
        .sessions
        .unwrap()
}

async fn terminate(test: &TestApp, id: &str) {
    let request = TerminateSessionRequest {
        session_id: Some(id.to_owned()),
    };
    assert_eq!(
        test.call::<TerminateSession>(request)
            .await
            .unwrap()
            .session_id
            .as_deref(),
        Some(id)
    );
}

#[tokio::test]
async fn a_started_session_is_due_for_its_node_and_opens_with_its_token() {
    let test = endpoint().await;
    let mut request = request();
    request.reason = Some("the disk is full".to_owned());
    let started = test.call::<StartSession>(request).await.unwrap();
    let id = started.session_id.unwrap();
    assert!(id.starts_with("admin-") && id.len() == 23, "{id}");
    let token = started.token_value.unwrap();
    let grant = test.app.keys.open_channel_token(&token, test.now());
    assert_eq!(
        grant,
        Some(ChannelGrant::ClientDataChannel {
            session: id.parse().unwrap(),
            operator: "admin".to_owned(),
        })
    );
    assert_eq!(
        *test.routing.calls.lock().unwrap(),
        [format!("nudge {}", node_id(1))]
    );
    let due = test
        .app
        .store
        .sessions_due(&node_id(1), test.now())
        .await
        .unwrap();
    assert!(matches!(&due[..], [SessionDue::Start { session_id, .. }] if session_id.as_str() == id));
    let sessions = describe(&test, SessionState::Active, &[]).await;
    assert_eq!(sessions.len(), 1);
    assert_eq!(
        sessions[0].status.as_ref().map(|status| status.as_str()),
        Some("Connecting")
    );
    assert_eq!(sessions[0].reason.as_deref(), Some("the disk is full"));
    assert_eq!(
        sessions[0].owner.as_deref(),
        Some("arn:moorline:iam:::user/admin")
    );
}

#[tokio::test]
async fn a_session_needs_a_connected_node() {
    let test = endpoint().await;
    let second = test.register_node(2, &[]).await.to_string();
    for target in [
        second.as_str(),
        "mi-00000000000000009",
        "i-0123456789",
        "ssm.example",
    ] {
        let request = StartSessionRequest {
            target: Some(target.to_owned()),
            ..request()
        };
        let refused = test.refuse::<StartSession>(request).await;
        assert_eq!(refused.code, ErrorCode::TargetNotConnected, "{target}");
    }
}

#[tokio::test]
async fn a_session_needs_a_document_of_its_type_and_parameters_that_keep_its_rules() {
    let test = endpoint().await;
    for (name, code) in [
        ("No-Such-Document", ErrorCode::InvalidDocument),
        ("AWS-RunShellScript", ErrorCode::InvalidDocument),
    ] {
        let request = StartSessionRequest {
            document_name: Some(name.to_owned()),
            ..request()
        };
        assert_eq!(test.refuse::<StartSession>(request).await.code, code, "{name}");
    }
    let with = |parameters: &[(&str, &[&str])]| StartSessionRequest {
        document_name: Some("AWS-StartPortForwardingSession".to_owned()),
        parameters: Some(
            parameters
                .iter()
                .map(|(name, values)| {
                    (
                        (*name).to_owned(),
                        values.iter().map(|value| (*value).to_owned()).collect(),
                    )
                })
                .collect::<BTreeMap<_, Vec<String>>>(),
        ),
        ..request()
    };
    for (name, values) in [
        ("portNumber", &["70000"][..]),
        ("portNumber", &["22", "23"]),
        ("noParameter", &["1"]),
    ] {
        let refused = test.refuse::<StartSession>(with(&[(name, values)])).await;
        assert_eq!(refused.code, ErrorCode::ValidationException);
        assert!(refused.message.contains(name), "{refused}");
    }
    test.call::<StartSession>(with(&[("portNumber", &["22"])]))
        .await
        .unwrap();
    let due = test
        .app
        .store
        .sessions_due(&node_id(1), test.now())
        .await
        .unwrap();
    let Some(SessionDue::Start { content, .. }) = due.first() else {
        panic!("{due:?}")
    };
    let content: serde_json::Value = serde_json::from_str(content).unwrap();
    assert_eq!(
        content["Parameters"]["portNumber"], "22",
        "a text, as the stock agent needs it"
    );
}

#[tokio::test]
async fn a_documents_time_limits_hold_for_its_sessions() {
    let test = endpoint().await;
    let content = r#"{"schemaVersion":"1.0","description":"d","sessionType":"Standard_Stream",
        "inputs":{"idleSessionTimeout":"5","maxSessionDuration":"30"}}"#;
    let document = CreateDocumentRequest {
        name: Some("Short-Sessions".to_owned()),
        content: Some(content.to_owned()),
        document_type: Some(DocumentType::Session),
        ..CreateDocumentRequest::default()
    };
    test.call::<CreateDocument>(document).await.unwrap();
    let request = StartSessionRequest {
        document_name: Some("Short-Sessions".to_owned()),
        ..request()
    };
    let id = test
        .call::<StartSession>(request)
        .await
        .unwrap()
        .session_id
        .unwrap();
    let row = test
        .app
        .store
        .session(&id.parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (row.idle_timeout_millis, row.max_duration_millis),
        (300_000, Some(1_800_000))
    );
    let shown = describe(&test, SessionState::Active, &[]).await;
    assert_eq!(shown[0].max_session_duration.as_deref(), Some("30"));
}

#[tokio::test]
async fn ending_a_session_twice_ends_it_once() {
    let test = endpoint().await;
    let id = start(&test).await;
    test.routing.calls.lock().unwrap().clear();
    terminate(&test, &id).await;
    terminate(&test, &id).await;
    let calls = test.routing.calls.lock().unwrap().clone();
    assert_eq!(
        calls,
        [
            format!("end {id}: terminated by admin"),
            format!("nudge {}", node_id(1))
        ]
    );
    let due = test
        .app
        .store
        .sessions_due(&node_id(1), test.now())
        .await
        .unwrap();
    assert_eq!(
        due,
        [SessionDue::End {
            session_id: id.parse().unwrap()
        }]
    );
    let resumed = ResumeSessionRequest {
        session_id: Some(id.clone()),
    };
    let resumed = test.call::<ResumeSession>(resumed).await.unwrap();
    assert_eq!(resumed.session_id, Some(id));
    assert!(
        resumed.token_value.is_some(),
        "its channel tells how the session ended"
    );
}

#[tokio::test]
async fn a_session_that_never_was_is_named_in_the_refusal() {
    let test = endpoint().await;
    for id in ["admin-00000000000000000", "no/session"] {
        let request = ResumeSessionRequest {
            session_id: Some(id.to_owned()),
        };
        let refused = test.refuse::<ResumeSession>(request).await;
        assert_eq!(
            refused.to_string(),
            format!("DoesNotExistException: there is no session {id}")
        );
        let request = TerminateSessionRequest {
            session_id: Some(id.to_owned()),
        };
        let refused = test.refuse::<TerminateSession>(request).await;
        assert_eq!(refused.code, ErrorCode::ValidationException);
    }
}

#[tokio::test]
async fn sessions_are_found_by_every_filter() {
    let test = endpoint().await;
    let first = start(&test).await;
    test.advance_millis(60_000);
    let second = start(&test).await;
    terminate(&test, &first).await;
    let ids = |sessions: Vec<Session>| -> Vec<String> {
        sessions
            .into_iter()
            .filter_map(|session| session.session_id)
            .collect()
    };
    assert_eq!(
        ids(describe(&test, SessionState::Active, &[]).await),
        [second.as_str()]
    );
    assert_eq!(
        ids(describe(&test, SessionState::History, &[]).await),
        [first.as_str()]
    );
    let node = node_id(1).to_string();
    let found: &[(&str, &str)] = &[
        ("Target", &node),
        ("Owner", "arn:moorline:iam:::user/admin"),
        ("Status", "Connecting"),
        ("SessionId", &second),
        ("InvokedAfter", "2026-11-22T00:00:30Z"),
        ("InvokedBefore", "2026-11-22T00:02:00Z"),
    ];
    for filter in found {
        assert_eq!(
            ids(describe(&test, SessionState::Active, &[*filter]).await),
            [second.as_str()],
            "{filter:?}"
        );
    }
    let missed: &[(&str, &str)] = &[
        ("Target", "mi-00000000000000009"),
        ("Owner", "somebody"),
        ("Status", "Connected"),
        ("SessionId", &first),
        ("InvokedAfter", "2026-11-22T00:02:00Z"),
        ("InvokedBefore", "2026-11-22T00:00:30Z"),
        ("AccessType", "JustInTime"),
    ];
    for filter in missed {
        assert!(
            describe(&test, SessionState::Active, &[*filter]).await.is_empty(),
            "{filter:?}"
        );
    }
    let filter = SessionFilter {
        key: Some(SessionFilterKey::InvokedAfter),
        value: Some("yesterday".to_owned()),
    };
    let request = DescribeSessionsRequest {
        state: Some(SessionState::Active),
        filters: Some(vec![filter]),
        ..DescribeSessionsRequest::default()
    };
    assert!(
        test.refuse::<DescribeSessions>(request)
            .await
            .message
            .contains("yesterday")
    );
}

#[tokio::test]
async fn pages_of_sessions_together_are_the_list() {
    let test = endpoint().await;
    let mut started = Vec::new();
    for _ in 0..5 {
        started.push(start(&test).await);
    }
    let (mut seen, mut token) = (Vec::new(), None);
    for page in 0.. {
        let request = DescribeSessionsRequest {
            state: Some(SessionState::Active),
            max_results: Some(2),
            next_token: token,
            ..DescribeSessionsRequest::default()
        };
        let reply = test.call::<DescribeSessions>(request).await.unwrap();
        seen.extend(
            reply
                .sessions
                .unwrap()
                .into_iter()
                .filter_map(|session| session.session_id),
        );
        token = reply.next_token;
        if token.is_none() {
            assert_eq!(page, 2);
            break;
        }
    }
    seen.sort();
    started.sort();
    assert_eq!(seen, started);
}

#[tokio::test]
async fn a_node_starts_and_ends_no_sessions() {
    let test = endpoint().await;
    let id = start(&test).await;
    let node = Principal::Node(node_id(1));
    let refused = test.refuse_as::<StartSession>(node.clone(), request()).await;
    assert_eq!(refused.code, ErrorCode::AccessDeniedException);
    let request = TerminateSessionRequest { session_id: Some(id) };
    let refused = test.refuse_as::<TerminateSession>(node, request).await;
    assert_eq!(refused.code, ErrorCode::AccessDeniedException);
}
