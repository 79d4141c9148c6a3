//! Who gets a channel, and what a control channel carries.

use moorline_protocol::message::{AgentJob, AgentJobReplyAck, AgentTaskAcknowledge, MessageType};
use moorline_ssm::command::{SendCommand, SendCommandRequest};

use super::peer::Endpoint;
use crate::gateway::socket::{CLOSE_COPIED_KEY, CLOSE_NORMAL, CLOSE_POLICY};

#[tokio::test]
async fn a_node_gets_a_token_for_itself_only() {
    let endpoint = Endpoint::start().await;
    endpoint.test.register_node(2, &[]).await;
    let path = format!("/v1/control-channel/{}", endpoint.node());
    let (status, body) = endpoint.post(&path, b"{}", Some(&endpoint.credentials(1))).await;
    assert_eq!(status, 201);
    assert!(
        body.contains("<MessageSchemaVersion>1.0</MessageSchemaVersion>"),
        "{body}"
    );
    for credentials in [Some(endpoint.credentials(2)), None] {
        let (status, body) = endpoint.post(&path, b"{}", credentials.as_ref()).await;
        assert_eq!(status, 403);
        assert!(body.starts_with("<AccessDeniedException>"), "{body}");
    }
    // one that was deregistered turns to its slow retry when it reads this element
    let (status, body) = endpoint.post(&path, b"{}", Some(&endpoint.credentials(3))).await;
    assert_eq!(status, 403);
    assert!(body.starts_with("<AccessDeniedException>"), "{body}");
}

#[tokio::test]
async fn a_body_that_was_changed_or_is_too_large_is_refused() {
    let endpoint = Endpoint::start().await;
    let path = format!("/v1/control-channel/{}", endpoint.node());
    let mut wrong = endpoint.credentials(1);
    wrong.secret_access_key.push('x');
    let (status, body) = endpoint.post(&path, b"{}", Some(&wrong)).await;
    assert_eq!(
        (status, body.starts_with("<InvalidSignatureException>")),
        (403, true),
        "{body}"
    );
    let large = vec![b' '; 17 * 1024];
    assert_eq!(
        endpoint
            .post(&path, &large, Some(&endpoint.credentials(1)))
            .await
            .0,
        413
    );
    assert_eq!(endpoint.post("/v1/nothing/x", b"", None).await.0, 404);
    assert_eq!(endpoint.post("/v1/data-channel/..%2f", b"", None).await.0, 404);
}

#[tokio::test]
async fn before_its_token_a_peer_may_send_no_more_than_an_open_message() {
    let endpoint = Endpoint::start().await;
    let path = format!("/v1/control-channel/{}", endpoint.node());
    let mut peer = endpoint.dial(&path, None).await;
    // A masked text frame of 64 KiB, of which the end never comes.
    let mut frame = vec![0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    frame.resize(40 * 1024, b' ');
    peer.send_bytes(&frame).await;
    assert_eq!(
        peer.close_reason().await,
        (CLOSE_POLICY, "the open message cannot be read".to_owned())
    );
}

#[tokio::test]
async fn a_token_opens_its_channel_once() {
    let endpoint = Endpoint::start().await;
    let path = format!("/v1/control-channel/{}", endpoint.node());
    let token = endpoint.token(&path, 1).await;
    let open = format!(
        r#"{{"MessageSchemaVersion":"1.0","RequestId":"r","TokenValue":"{token}","AgentVersion":"1","PlatformType":"linux"}}"#
    );
    let mut first = endpoint.dial(&path, None).await;
    first.send_text(&open).await;
    endpoint.until_connected().await;
    let mut second = endpoint.dial(&path, None).await;
    second.send_text(&open).await;
    assert_eq!(
        second.close_reason().await,
        (CLOSE_POLICY, "the token was used before".to_owned())
    );
    let mut third = endpoint.dial(&path, None).await;
    third.send_text(&open.replace(&token, "AAAA")).await;
    assert_eq!(
        third.close_reason().await,
        (CLOSE_POLICY, "the token is invalid or expired".to_owned())
    );
    first.is_served().await;
}

#[tokio::test]
async fn a_token_is_good_for_its_own_channel_and_time_only() {
    let endpoint = Endpoint::start().await;
    endpoint.test.register_node(2, &[]).await;
    let path = format!("/v1/control-channel/{}", endpoint.node());
    let open = |token: String| {
        format!(
            r#"{{"MessageSchemaVersion":"1.0","RequestId":"r","TokenValue":"{token}","AgentVersion":"1","PlatformType":"linux"}}"#
        )
    };
    let other = endpoint
        .token(
            &format!("/v1/control-channel/{}", crate::test_support::node_id(2)),
            2,
        )
        .await;
    let mut peer = endpoint.dial(&path, None).await;
    peer.send_text(&open(other)).await;
    assert_eq!(peer.close_reason().await.1, "the token is for another channel");
    let late = endpoint.token(&path, 1).await;
    endpoint.test.advance_millis(5 * 60 * 1000);
    let mut peer = endpoint.dial(&path, None).await;
    peer.send_text(&open(late)).await;
    assert_eq!(peer.close_reason().await.1, "the token is invalid or expired");
    let mut peer = endpoint.dial(&path, None).await;
    peer.send_text("no open message").await;
    assert_eq!(
        peer.close_reason().await,
        (CLOSE_POLICY, "the open message cannot be read".to_owned())
    );
}

#[tokio::test]
async fn another_nodes_signature_on_the_upgrade_is_refused() {
    let endpoint = Endpoint::start().await;
    endpoint.test.register_node(2, &[]).await;
    let path = format!("/v1/control-channel/{}", endpoint.node());
    let mut wrong = endpoint.credentials(1);
    wrong.secret_access_key.push('x');
    for credentials in [endpoint.credentials(2), wrong] {
        let headers = endpoint.headers("GET", &path, b"", Some(&credentials));
        assert_eq!(endpoint.dial_with(&path, &headers).await.err(), Some(403));
    }
}

#[tokio::test]
async fn a_command_travels_over_the_control_channel_and_its_reply_is_acknowledged() {
    let endpoint = Endpoint::start().await;
    let mut node = endpoint.control_channel(None).await;
    endpoint.until_connected().await;
    let commands = std::collections::BTreeMap::from([("commands".to_owned(), vec!["true".to_owned()])]);
    let request = SendCommandRequest {
        document_name: Some("AWS-RunShellScript".to_owned()),
        instance_ids: Some(vec![endpoint.node().to_string()]),
        parameters: Some(commands),
        ..SendCommandRequest::default()
    };
    endpoint.test.call::<SendCommand>(request).await.unwrap();
    let frame = node.expect(MessageType::AgentJob).await;
    let job: AgentJob = serde_json::from_slice(&frame.payload).unwrap();
    let ack = serde_json::json!({
        "jobId": job.job_id, "acknowledgedMessageId": frame.message_id.to_string(),
        "createdDate": "2026-11-22T00:00:00.000Z", "statusCode": "200", "errorMessage": "Successful",
    });
    node.say(MessageType::AgentJobAck, ack).await;
    let content = serde_json::json!({
        "additionalInfo": {"agent": {}, "dateTime": "2026-11-22T00:00:01.000Z"},
        "documentStatus": "Success", "documentTraceOutput": "",
        "runtimeStatus": {"runShellScript": {"status": "Success", "code": 0, "standardOutput": "hello\n"}},
    });
    let reply = serde_json::json!({
        "schemaVersion": 1, "jobId": job.job_id, "content": content.to_string(), "topic": job.topic,
    });
    let reply = node.say(MessageType::AgentJobReply, reply).await;
    let ack: AgentJobReplyAck = node.expect_payload(MessageType::AgentJobReplyAck).await;
    assert_eq!(ack.acknowledged_message_id, reply.message_id.to_string());
}

#[tokio::test]
async fn a_second_machine_with_the_same_registration_is_refused_and_noted() {
    let endpoint = Endpoint::start().await;
    let mut first = endpoint.control_channel(Some("process 1")).await;
    endpoint.until_connected().await;
    let mut second = endpoint.control_channel(Some("process 2")).await;
    // the first answers the probe whenever it comes
    let alive = async {
        loop {
            first.is_served().await;
        }
    };
    let (code, reason) = tokio::select! {
        refused = second.close_reason() => refused,
        () = alive => unreachable!(),
    };
    assert_eq!(code, CLOSE_COPIED_KEY);
    assert!(
        reason.starts_with("another node is connected with this registration"),
        "{reason}"
    );
    let node = endpoint
        .test
        .app
        .store
        .node(&endpoint.node())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(node.copied_key_count, 1);
    assert!(
        endpoint
            .test
            .app
            .metrics
            .render()
            .contains("moorline_copied_keys_total 1")
    );
    first.is_served().await;
}

#[tokio::test]
async fn a_second_machine_that_names_no_process_is_refused_as_well() {
    for (present, new) in [(Some("process 1"), None), (None, Some("process 2"))] {
        let endpoint = Endpoint::start().await;
        let mut first = endpoint.control_channel(present).await;
        endpoint.until_connected().await;
        let mut second = endpoint.control_channel(new).await;
        let alive = async {
            loop {
                first.is_served().await;
            }
        };
        let (code, _reason) = tokio::select! {
            refused = second.close_reason() => refused,
            () = alive => unreachable!(),
        };
        assert_eq!(code, CLOSE_COPIED_KEY);
        first.is_served().await;
    }
}

#[tokio::test]
async fn a_machine_that_does_not_answer_gives_way_to_its_successor() {
    let endpoint = Endpoint::start().await;
    // nobody reads this socket: a daemon that was killed behind a broken network
    let _silent = endpoint.control_channel(Some("process 1")).await;
    endpoint.until_connected().await;
    let mut second = endpoint.control_channel(Some("process 2")).await;
    second.is_served().await;
    let node = endpoint
        .test
        .app
        .store
        .node(&endpoint.node())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(node.copied_key_count, 0);
}

#[tokio::test]
async fn a_new_channel_of_the_same_daemon_replaces_the_old_one() {
    let endpoint = Endpoint::start().await;
    for process_id in [Some("process 1"), None] {
        let mut old = endpoint.control_channel(process_id).await;
        old.is_served().await;
        let mut new = endpoint.control_channel(process_id).await;
        assert_eq!(old.close_reason().await.0, CLOSE_NORMAL);
        new.is_served().await;
        endpoint.until_connected().await;
    }
}

#[tokio::test]
async fn malformed_frames_harm_nothing_until_there_are_very_many() {
    let endpoint = Endpoint::start().await;
    let mut node = endpoint.control_channel(None).await;
    for _ in 0..99 {
        node.send_raw(b"garbage").await;
    }
    node.is_served().await;
    node.send_raw(b"garbage").await;
    let (code, reason) = node.close_reason().await;
    assert_eq!(
        (code, reason.as_str()),
        (CLOSE_POLICY, "too many frames that cannot be read")
    );
}

#[tokio::test]
async fn a_deregistered_nodes_channel_is_closed() {
    use crate::app::Routing as _;
    let endpoint = Endpoint::start().await;
    let mut node = endpoint.control_channel(None).await;
    endpoint.until_connected().await;
    endpoint
        .gateway
        .disconnect(&endpoint.node(), "deregistered")
        .await;
    assert_eq!(
        node.close_reason().await,
        (CLOSE_POLICY, "deregistered".to_owned())
    );
}

#[tokio::test]
async fn a_store_that_fails_takes_no_channel_down() {
    let endpoint = Endpoint::start().await;
    let mut node = endpoint.control_channel(None).await;
    endpoint.until_connected().await;
    let writer = &endpoint.test.app.store.writer;
    let complete = || {
        serde_json::json!({
            "SchemaVersion": 1, "TaskId": "unknown-session", "Topic": "agent_task_complete",
            "FinalTaskStatus": "Success", "InstanceId": "", "Output": "", "RetryNumber": 1,
        })
    };
    let read_only = |on: &str| sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA query_only = {on}")));
    read_only("ON").execute(writer).await.unwrap();
    node.say(MessageType::AgentTaskComplete, complete()).await;
    node.is_served().await;
    let metrics = endpoint.test.app.metrics.render();
    assert!(
        metrics.contains("moorline_control_channel_store_failures_total 1"),
        "{metrics}"
    );
    read_only("OFF").execute(writer).await.unwrap();
    let complete = node.say(MessageType::AgentTaskComplete, complete()).await;
    let acknowledged: AgentTaskAcknowledge = node.expect_payload(MessageType::AgentTaskAcknowledge).await;
    assert_eq!(acknowledged.message_id, complete.message_id.to_string());
}
