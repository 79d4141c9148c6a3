//! Sessions from StartSession to the end.

use moorline_protocol::message::{AgentTaskAcknowledge, InteractiveShell, MessageType, StartSessionContent};
use moorline_ssm::node::{DeregisterManagedInstance, DeregisterManagedInstanceRequest};
use moorline_ssm::session::{
    DescribeSessions, DescribeSessionsRequest, ResumeSession, ResumeSessionRequest, ResumeSessionResponse,
    SessionState, SessionStatus, StartSession, StartSessionRequest, StartSessionResponse, TerminateSession,
    TerminateSessionRequest,
};

use super::peer::{Endpoint, Peer};
use crate::{
    gateway::{
        clock_watch::ClockWatch,
        socket::{CLOSE_NORMAL, CLOSE_POLICY},
        sweep::{look_after_sessions, settle},
    },
    store::{AgentEnd, SessionStatus as StoredStatus},
};

pub(super) struct Opened {
    pub(super) node: Peer,
    pub(super) agent: Peer,
    pub(super) client: Peer,
    pub(super) id: String,
}

async fn start(endpoint: &Endpoint) -> StartSessionResponse {
    let request = StartSessionRequest {
        target: Some(endpoint.node().to_string()),
        ..StartSessionRequest::default()
    };
    endpoint.test.call::<StartSession>(request).await.unwrap()
}

async fn resume(endpoint: &Endpoint, id: &str) -> ResumeSessionResponse {
    let request = ResumeSessionRequest {
        session_id: Some(id.to_owned()),
    };
    endpoint.test.call::<ResumeSession>(request).await.unwrap()
}

async fn terminate(endpoint: &Endpoint, id: &str) {
    let request = TerminateSessionRequest {
        session_id: Some(id.to_owned()),
    };
    endpoint.test.call::<TerminateSession>(request).await.unwrap();
}

/// The status that DescribeSessions shows, once it is this one.
async fn until_status(endpoint: &Endpoint, state: SessionState, status: SessionStatus) {
    let shown = async {
        loop {
            let request = DescribeSessionsRequest {
                state: Some(state.clone()),
                ..Default::default()
            };
            let sessions = endpoint
                .test
                .call::<DescribeSessions>(request)
                .await
                .unwrap()
                .sessions
                .unwrap();
            if sessions
                .iter()
                .any(|session| session.status.as_ref() == Some(&status))
            {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(20), shown).await;
    waited.unwrap_or_else(|_| panic!("no session became {status}"));
}

/// A session with both sides attached.
pub(super) async fn open(endpoint: &Endpoint) -> Opened {
    let mut node = endpoint.control_channel(None).await;
    endpoint.until_connected().await;
    let started = start(endpoint).await;
    let id = started.session_id.unwrap();
    node.expect(MessageType::InteractiveShell).await;
    let agent = endpoint.agent_side(&id).await;
    let mut client = endpoint
        .client_side(&id, &started.token_value.unwrap(), "c")
        .await;
    client.expect(MessageType::StartPublication).await;
    Opened {
        node,
        agent,
        client,
        id,
    }
}

#[tokio::test]
async fn a_session_goes_from_start_to_exit() {
    let endpoint = Endpoint::start().await;
    let mut node = endpoint.control_channel(None).await;
    endpoint.until_connected().await;
    let started = start(&endpoint).await;
    let id = started.session_id.unwrap();
    assert_eq!(
        started.stream_url.unwrap(),
        format!(
            "wss://{}/v1/data-channel/{id}?role=publish_subscribe",
            crate::test_support::HOST
        )
    );
    let shell: InteractiveShell = node.expect_payload(MessageType::InteractiveShell).await;
    assert_eq!(shell.task_id, id);
    let content: StartSessionContent = serde_json::from_str(&shell.content).unwrap();
    assert_eq!(content.session_id, id);
    assert_eq!(
        content.moorline_transcript_path,
        Some(format!("/v1/transcript/{id}"))
    );
    assert_eq!(content.document_content["sessionType"], "Standard_Stream");
    until_status(&endpoint, SessionState::Active, SessionStatus::Connecting).await;

    let mut agent = endpoint.agent_side(&id).await;
    let prompt = agent.stream(MessageType::OutputStreamData, "$ ").await;
    let mut client = endpoint
        .client_side(&id, &started.token_value.unwrap(), "c")
        .await;
    assert_eq!(client.expect(MessageType::OutputStreamData).await, prompt);
    client.acknowledge(&prompt).await;
    agent.expect(MessageType::Acknowledge).await;
    let typed = client.stream(MessageType::InputStreamData, "exit 3\r").await;
    assert_eq!(agent.expect(MessageType::InputStreamData).await, typed);
    agent.acknowledge(&typed).await;
    client.expect(MessageType::Acknowledge).await;
    until_status(&endpoint, SessionState::Active, SessionStatus::Connected).await;

    let state = serde_json::json!({
        "SchemaVersion": 1, "SessionState": "Terminating", "SessionId": id, "MoorlineExitCode": 3,
    });
    agent.say(MessageType::AgentSessionState, state).await;
    let complete = serde_json::json!({
        "SchemaVersion": 1, "TaskId": id, "Topic": "agent_task_complete", "FinalTaskStatus": "Success",
        "InstanceId": endpoint.node().to_string(), "Output": "", "RetryNumber": 1,
    });
    let complete = node.say(MessageType::AgentTaskComplete, complete).await;
    let acknowledged: AgentTaskAcknowledge = node.expect_payload(MessageType::AgentTaskAcknowledge).await;
    assert_eq!(acknowledged.message_id, complete.message_id.to_string());
    let closed = client.expect_closed().await;
    assert_eq!((closed.output.as_str(), closed.moorline_exit_code), ("", Some(3)));
    assert_eq!(client.close_reason().await.0, 1000);
    until_status(&endpoint, SessionState::History, SessionStatus::Terminated).await;
    let token = resume(&endpoint, &id).await.token_value;
    assert!(token.is_some(), "its channel tells how the session ended");
}

#[tokio::test]
async fn a_terminated_session_ends_on_both_sides_and_opens_no_more() {
    let endpoint = Endpoint::start().await;
    let Opened {
        mut node,
        mut agent,
        mut client,
        id,
    } = open(&endpoint).await;
    terminate(&endpoint, &id).await;
    assert_eq!(client.expect_closed().await.session_id, id);
    assert_eq!(agent.expect_closed().await.session_id, id);
    assert_eq!(node.expect_closed().await.session_id, id);
    terminate(&endpoint, &id).await;
    let path = format!("/v1/data-channel/{id}");
    let (status, body) = endpoint.post(&path, b"{}", Some(&endpoint.credentials(1))).await;
    assert_eq!(status, 400);
    assert!(body.contains("Session is already terminated"), "{body}");
}

#[tokio::test]
async fn a_client_that_comes_after_the_end_is_told_why() {
    let endpoint = Endpoint::start().await;
    let _node = endpoint.control_channel(None).await;
    endpoint.until_connected().await;
    let started = start(&endpoint).await;
    let id = started.session_id.unwrap();
    terminate(&endpoint, &id).await;
    let mut client = endpoint
        .client_side(&id, &started.token_value.unwrap(), "c")
        .await;
    assert_eq!(client.expect_closed().await.session_id, id);
}

#[tokio::test]
async fn both_sides_come_back_and_nothing_is_lost() {
    let endpoint = Endpoint::start().await;
    let Opened {
        mut agent,
        client,
        id,
        node: _node,
    } = open(&endpoint).await;
    drop(client);
    until_status(&endpoint, SessionState::Active, SessionStatus::Disconnected).await;
    let line = agent.stream(MessageType::OutputStreamData, "line").await;
    let token = resume(&endpoint, &id).await.token_value.unwrap();
    let mut client = endpoint.client_side(&id, &token, "c").await;
    assert_eq!(client.expect(MessageType::OutputStreamData).await, line);
    drop(agent);
    let typed = client.stream(MessageType::InputStreamData, "x").await;
    let mut agent = endpoint.agent_side(&id).await;
    assert_eq!(agent.expect(MessageType::InputStreamData).await, typed);
}

#[tokio::test]
async fn a_session_outlives_a_restart_of_the_endpoint() {
    let mut endpoint = Endpoint::start().await;
    let Opened {
        mut agent,
        mut client,
        id,
        ..
    } = open(&endpoint).await;
    let prompt = agent.stream(MessageType::OutputStreamData, "$ ").await;
    client.expect(MessageType::OutputStreamData).await;
    until_status(&endpoint, SessionState::Active, SessionStatus::Connected).await;
    endpoint.restart().await;
    let token = resume(&endpoint, &id).await.token_value.unwrap();
    let mut client = endpoint.client_side(&id, &token, "c").await;
    let mut agent = endpoint.agent_side(&id).await;
    // the agent knows of no acknowledgement, so it repeats; the client has it and acknowledges again
    agent.send(&prompt).await;
    assert_eq!(client.expect(MessageType::OutputStreamData).await, prompt);
    client.acknowledge(&prompt).await;
    agent.expect(MessageType::Acknowledge).await;
    let token = resume(&endpoint, &id).await.token_value.unwrap();
    let mut other = endpoint.client_side(&id, &token, "another process").await;
    assert_eq!(
        other.expect_closed().await.output,
        "another client holds this session"
    );
}

#[tokio::test]
async fn a_client_may_bring_a_bearer_token_or_nothing_but_no_wrong_signature() {
    let endpoint = Endpoint::start().await;
    let Opened { id, .. } = open(&endpoint).await;
    let path = format!("/v1/data-channel/{id}?role=publish_subscribe");
    let bearer = [("authorization".to_owned(), "Bearer token".to_owned())];
    assert!(endpoint.dial_with(&path, &bearer).await.is_ok());
    let origin = [("origin".to_owned(), "https://console.example".to_owned())];
    assert!(endpoint.dial_with(&path, &origin).await.is_ok());
    let garbled = [(
        "authorization".to_owned(),
        "AWS4-HMAC-SHA256 Credential=x".to_owned(),
    )];
    assert_eq!(endpoint.dial_with(&path, &garbled).await.err(), Some(403));
}

#[tokio::test]
async fn an_unused_session_ends_and_so_does_one_that_lasts_too_long() {
    let endpoint = Endpoint::start().await;
    let Opened { mut client, id, .. } = open(&endpoint).await;
    endpoint.test.advance_millis(19 * 60_000);
    look_after_sessions(&endpoint.test.app, &endpoint.gateway)
        .await
        .unwrap();
    client.stream(MessageType::InputStreamData, "x").await;
    let last = {
        let relay = endpoint.gateway.relay(&id.parse().unwrap()).unwrap();
        let used = async {
            while relay.last_activity() < endpoint.test.app.clock.steady_millis() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), used)
            .await
            .unwrap();
        relay.last_activity()
    };
    assert_eq!(last, endpoint.test.app.clock.steady_millis());
    endpoint.test.advance_millis(19 * 60_000);
    look_after_sessions(&endpoint.test.app, &endpoint.gateway)
        .await
        .unwrap();
    assert!(resume(&endpoint, &id).await.token_value.is_some());
    endpoint.test.advance_millis(60_000);
    look_after_sessions(&endpoint.test.app, &endpoint.gateway)
        .await
        .unwrap();
    assert_eq!(
        client.expect_closed().await.output,
        "the session was not used for 20 minutes"
    );
}

/// The node's row goes, and what was started meanwhile stays.
async fn forget_node(endpoint: &Endpoint) {
    sqlx::query("DELETE FROM node")
        .execute(&endpoint.test.app.store.writer)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_deregistration_ends_the_nodes_sessions_on_both_sides_at_once() {
    let endpoint = Endpoint::start().await;
    let Opened {
        mut node,
        mut agent,
        mut client,
        id,
    } = open(&endpoint).await;
    let path = format!("/v1/data-channel/{id}");
    let token = endpoint.token(&path, 1).await;
    let request = DeregisterManagedInstanceRequest {
        instance_id: Some(endpoint.node().to_string()),
    };
    endpoint
        .test
        .call::<DeregisterManagedInstance>(request)
        .await
        .unwrap();
    until_status(&endpoint, SessionState::History, SessionStatus::Terminated).await;
    assert_eq!(client.expect_closed().await.output, "the node was deregistered");
    assert_eq!(
        agent.close_reason().await,
        (CLOSE_NORMAL, "the session has ended".to_owned())
    );
    assert_eq!(
        node.close_reason().await,
        (CLOSE_POLICY, "the node was deregistered".to_owned())
    );
    let mut late = endpoint.dial(&path, None).await;
    late.open_data_channel(&token, "").await;
    assert_eq!(
        late.close_reason().await,
        (CLOSE_POLICY, "Session is already terminated".to_owned())
    );
}

#[tokio::test]
async fn with_its_token_redeemed_a_peer_may_send_any_number_of_frames() {
    let endpoint = Endpoint::start().await;
    let Opened {
        mut node,
        mut agent,
        mut client,
        ..
    } = open(&endpoint).await;
    for peer in [&mut node, &mut agent, &mut client] {
        for _ in 0..40 {
            let telemetry = serde_json::json!({ "text": "x".repeat(4096) });
            peer.say(MessageType::from_name("telemetry"), telemetry).await;
        }
        peer.is_served().await;
    }
}

#[tokio::test]
async fn a_node_that_is_registered_no_longer_joins_no_session() {
    let endpoint = Endpoint::start().await;
    let _node = endpoint.control_channel(None).await;
    endpoint.until_connected().await;
    let started = start(&endpoint).await;
    let path = format!("/v1/data-channel/{}", started.session_id.unwrap());
    let token = endpoint.token(&path, 1).await;
    forget_node(&endpoint).await;
    for (token, ends) in [(token, false), (started.token_value.unwrap(), true)] {
        let mut side = endpoint.dial(&path, None).await;
        side.open_data_channel(&token, "c").await;
        if ends {
            assert_eq!(side.expect_closed().await.output, "the node was deregistered");
        } else {
            assert_eq!(
                side.close_reason().await,
                (CLOSE_POLICY, "Session is already terminated".to_owned())
            );
        }
    }
}

#[tokio::test]
async fn the_sessions_of_a_deregistered_node_end() {
    let endpoint = Endpoint::start().await;
    let Opened { mut client, .. } = open(&endpoint).await;
    forget_node(&endpoint).await;
    look_after_sessions(&endpoint.test.app, &endpoint.gateway)
        .await
        .unwrap();
    assert_eq!(client.expect_closed().await.output, "the node was deregistered");
    until_status(&endpoint, SessionState::History, SessionStatus::Terminated).await;
}

#[tokio::test]
async fn an_end_that_was_reported_before_a_restart_is_told_after_it() {
    let mut endpoint = Endpoint::start().await;
    // both sides stay until the session is seen: a client that went at once would leave it Disconnected
    let Opened {
        id,
        node: _node,
        agent: _agent,
        client: _client,
    } = open(&endpoint).await;
    let session = id.parse().unwrap();
    until_status(&endpoint, SessionState::Active, SessionStatus::Connected).await;
    endpoint.restart().await;
    let end = AgentEnd {
        status: StoredStatus::Terminated,
        details: "bye".to_owned(),
        exit_code: Some(4),
    };
    assert!(
        endpoint
            .test
            .app
            .store
            .session_agent_done(&session, &endpoint.node(), &end)
            .await
            .unwrap()
    );
    let token = resume(&endpoint, &id).await.token_value.unwrap();
    let mut client = endpoint.client_side(&id, &token, "c").await;
    let closed = client.expect_closed().await;
    assert_eq!(
        (closed.output.as_str(), closed.moorline_exit_code),
        ("bye", Some(4))
    );
    until_status(&endpoint, SessionState::History, SessionStatus::Terminated).await;
}

#[tokio::test]
async fn an_end_that_was_acknowledged_to_the_node_outlives_the_endpoint() {
    let mut endpoint = Endpoint::start().await;
    let Opened {
        mut node,
        mut agent,
        client: _client,
        id,
    } = open(&endpoint).await;
    // the client does not acknowledge, so the relay still holds the end back
    agent.stream(MessageType::OutputStreamData, "last words").await;
    until_status(&endpoint, SessionState::Active, SessionStatus::Connected).await;
    let complete = serde_json::json!({
        "SchemaVersion": 1, "TaskId": id, "Topic": "agent_task_complete", "FinalTaskStatus": "Failed",
        "InstanceId": endpoint.node().to_string(), "Output": "broken", "RetryNumber": 1, "MoorlineExitCode": 5,
    });
    node.say(MessageType::AgentTaskComplete, complete).await;
    node.expect(MessageType::AgentTaskAcknowledge).await;
    endpoint.restart().await;
    look_after_sessions(&endpoint.test.app, &endpoint.gateway)
        .await
        .unwrap();
    let session = endpoint
        .test
        .app
        .store
        .session(&id.parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert!(session.ended_at.is_some());
    assert_eq!(
        (session.status, session.details.as_str(), session.exit_code),
        (StoredStatus::Failed, "broken", Some(5))
    );
}

#[tokio::test]
async fn what_a_node_says_of_an_end_is_cut_to_what_a_list_of_sessions_may_show() {
    let endpoint = Endpoint::start().await;
    let Opened {
        mut node,
        agent: _agent,
        client: _client,
        id,
    } = open(&endpoint).await;
    let complete = serde_json::json!({
        "SchemaVersion": 1, "TaskId": id, "Topic": "agent_task_complete", "FinalTaskStatus": "Failed",
        "InstanceId": endpoint.node().to_string(), "Output": "é".repeat(200_000), "RetryNumber": 1,
    });
    node.say(MessageType::AgentTaskComplete, complete).await;
    node.expect(MessageType::AgentTaskAcknowledge).await;
    let row = endpoint.test.app.store.session(&id.parse().unwrap()).await;
    assert_eq!(row.unwrap().unwrap().details, "é".repeat(512));
}

#[tokio::test]
async fn a_flood_of_unreadable_frames_closes_its_own_socket_only() {
    let endpoint = Endpoint::start().await;
    let Opened {
        mut agent,
        mut client,
        node: _node,
        ..
    } = open(&endpoint).await;
    for _ in 0..100 {
        client.send_raw(b"garbage").await;
    }
    let (code, reason) = client.close_reason().await;
    assert_eq!(
        (code, reason.as_str()),
        (1007, "too many frames that cannot be read")
    );
    agent.is_served().await;
}

#[tokio::test]
async fn a_clock_that_is_set_ends_no_session_and_keeps_none() {
    for step in [365 * 86_400_000, -365 * 86_400_000] {
        let endpoint = Endpoint::start().await;
        let Opened { mut client, .. } = open(&endpoint).await;
        let (app, gateway) = (&endpoint.test.app, &endpoint.gateway);
        let mut watch = ClockWatch::new(&app.clock);
        endpoint.test.step_clock(step);
        let step = watch.look(&app.clock).unwrap();
        settle(app, gateway, step).await.unwrap();
        for minute in 0..20 {
            look_after_sessions(app, gateway).await.unwrap();
            let open = app.store.open_sessions().await.unwrap();
            assert_eq!(open.len(), 1, "after {minute} minutes");
            endpoint.test.advance_millis(60_000);
        }
        look_after_sessions(app, gateway).await.unwrap();
        assert_eq!(
            client.expect_closed().await.output,
            "the session was not used for 20 minutes"
        );
    }
}

#[tokio::test]
async fn a_session_on_a_node_that_is_not_connected_is_refused() {
    let endpoint = Endpoint::start().await;
    let request = StartSessionRequest {
        target: Some(endpoint.node().to_string()),
        ..StartSessionRequest::default()
    };
    let refused = endpoint.test.refuse::<StartSession>(request).await;
    assert_eq!(
        refused.to_string(),
        format!("TargetNotConnected: {} is not connected.", endpoint.node())
    );
}

#[tokio::test]
async fn a_session_start_reaches_a_node_whose_channel_broke_meanwhile() {
    let endpoint = Endpoint::start().await;
    let node = endpoint.control_channel(None).await;
    endpoint.until_connected().await;
    let started = start(&endpoint).await;
    drop(node);
    let mut node = endpoint.control_channel(None).await;
    let shell: InteractiveShell = node.expect_payload(MessageType::InteractiveShell).await;
    assert_eq!(Some(shell.task_id), started.session_id);
}
