use super::*;

fn response(status: i64, error: &str) -> Bytes {
    let payload = json!({
        "ClientVersion": "1.2.677.0",
        "ProcessedClientActions": [
            {"ActionType": "SessionType", "ActionStatus": status, "ActionResult": null, "Error": error},
        ],
        "Errors": null,
    });
    let payload = payload.to_string();
    stream(
        MessageType::InputStreamData,
        0,
        PayloadType::HandshakeResponse,
        payload.as_bytes(),
    )
}

fn request(actions: &Value) -> Bytes {
    let payload = json!({"AgentVersion": "3.3.0.0", "RequestedClientActions": actions}).to_string();
    stream(
        MessageType::OutputStreamData,
        0,
        PayloadType::HandshakeRequest,
        payload.as_bytes(),
    )
}

/// An agent that has asked.
fn asking() -> DataChannel {
    let mut agent = connected(Role::Agent);
    agent.start_handshake(at(0), offer("Port", json!({"portNumber": "22"})));
    let sent = frames(&drain(&mut agent));
    assert_eq!(
        (sent.len(), sent[0].payload_type),
        (1, PayloadType::HandshakeRequest)
    );
    let expected = json!({
        "AgentVersion": "3.3.0.0",
        "RequestedClientActions": [
            {"ActionType": "SessionType",
             "ActionParameters": {"SessionType": "Port", "Properties": {"portNumber": "22"}}},
        ],
    });
    assert_eq!(
        serde_json::from_slice::<Value>(&sent[0].payload).unwrap(),
        expected
    );
    agent
}

#[test]
fn an_agent_completes_what_the_client_answers() {
    let mut agent = asking();
    assert_eq!(agent.writable(), 0);
    assert_eq!(agent.send(at(1), PayloadType::Output, b"x"), Err(WindowFull));
    give(&mut agent, 20, &ack(0));
    assert_eq!(agent.next_timeout(), Some(Duration::from_secs(15)));
    let outputs = give(&mut agent, 44, &response(1, ""));
    let sent = frames(&outputs);
    // the acknowledgement first (client-wire §4.5)
    assert_eq!(acknowledged(&outputs[..1]), [0]);
    assert_eq!(sent[1].payload_type, PayloadType::HandshakeComplete);
    let complete: HandshakeComplete = serde_json::from_slice(&sent[1].payload).unwrap();
    assert_eq!(complete.handshake_time_to_complete, 44_000_000);
    let expected = Event::HandshakeComplete {
        session_type: "Port".to_owned(),
        customer_message: String::new(),
    };
    assert_eq!(events(outputs), [expected]);
    assert_eq!(agent.peer_version(), Some("1.2.677.0"));
    // at once, without an acknowledgement of the completion
    assert_eq!(
        payloads(&give(&mut agent, 45, &input(1, b"SSH-2.0"))),
        ["SSH-2.0"]
    );
    assert!(agent.writable() > 0);
}

#[test]
fn an_agent_throws_early_input_away() {
    let mut agent = asking();
    agent.set_ready(false);
    let early = stream(MessageType::InputStreamData, 0, PayloadType::Size, b"{}");
    let outputs = give(&mut agent, 1, &early);
    assert_eq!((acknowledged(&outputs), events(outputs)), (vec![0], vec![]));
    // nor is its own order of types believed
    let wrong = stream(
        MessageType::InputStreamData,
        1,
        PayloadType::HandshakeComplete,
        b"{}",
    );
    assert_eq!(events(give(&mut agent, 1, &wrong)), []);
}

#[test]
fn an_agent_tells_why_the_handshake_failed() {
    let unreadable = stream(
        MessageType::InputStreamData,
        0,
        PayloadType::HandshakeResponse,
        b"{}",
    );
    let cases = [
        (
            response(2, "no such thing"),
            "Encountered error while initiating handshake. SessionType failed on client with status 2 error: no such thing",
        ),
        // an unknown action leaves the status of a stock client at 0
        (
            response(0, ""),
            "Encountered error while initiating handshake. SessionType failed on client with status 0 error: ",
        ),
        (unreadable, "The handshake response of the client cannot be read."),
    ];
    for (frame, text) in cases {
        let mut agent = asking();
        let outputs = give(&mut agent, 1, &frame);
        assert_eq!(acknowledged(&outputs), [0]);
        assert_eq!(events(outputs), [Event::HandshakeFailed(text.to_owned())]);
        assert_eq!(agent.writable(), 0);
    }
}

#[test]
fn an_agent_waits_fifteen_seconds() {
    let mut agent = asking();
    give(&mut agent, 1, &ack(0));
    agent.timeout(at(14_999));
    assert_eq!(drain(&mut agent), []);
    agent.timeout(at(15_000));
    assert_eq!(
        events(drain(&mut agent)),
        [Event::HandshakeFailed(handshake::TIMED_OUT.to_owned())]
    );
    assert_eq!(agent.next_timeout(), None);
    // too late
    assert_eq!(events(give(&mut agent, 15_001, &response(1, ""))), []);
}

#[test]
fn a_client_answers_by_itself() {
    let properties = json!({"portNumber": "22", "type": "LocalPortForwarding"});
    for session_type in [
        "Standard_Stream",
        "InteractiveCommands",
        "NonInteractiveCommands",
        "Port",
    ] {
        let mut client = connected(Role::Client);
        client.set_ready(false);
        let actions = json!([{
            "ActionType": "SessionType",
            "ActionParameters": {"SessionType": session_type, "Properties": properties},
        }]);
        let outputs = give(&mut client, 1, &request(&actions));
        assert_eq!(acknowledged(&outputs[..1]), [0]);
        let sent = frames(&outputs);
        assert_eq!(
            (sent[1].payload_type, sent[1].sequence_number),
            (PayloadType::HandshakeResponse, 0)
        );
        let answer: HandshakeResponse = serde_json::from_slice(&sent[1].payload).unwrap();
        assert_eq!(answer.client_version, CLIENT_VERSION);
        assert_eq!(answer.processed_client_actions[0].action_status, 1);
        assert_eq!(events(outputs), []);
        assert_eq!(client.session_properties(), &properties);
        assert_eq!(client.peer_version(), Some("3.3.0.0"));
        assert_eq!(client.send(at(1), PayloadType::Output, b"x"), Err(WindowFull));

        let complete = br#"{"HandshakeTimeToComplete":1,"CustomerMessage":"hello"}"#;
        let complete = stream(
            MessageType::OutputStreamData,
            1,
            PayloadType::HandshakeComplete,
            complete,
        );
        let expected = Event::HandshakeComplete {
            session_type: session_type.to_owned(),
            customer_message: "hello".to_owned(),
        };
        assert_eq!(events(give(&mut client, 2, &complete)), [expected]);
        assert!(client.writable() > 0);
    }
}

/// Data that overtook the handshake on the way comes after it.
#[test]
fn a_client_keeps_the_order_of_handshake_and_data() {
    let mut client = connected(Role::Client);
    let complete = stream(
        MessageType::OutputStreamData,
        1,
        PayloadType::HandshakeComplete,
        br#"{"HandshakeTimeToComplete":1}"#,
    );
    assert_eq!(acknowledged(&give(&mut client, 1, &output(2, b"data"))), [2]);
    assert_eq!(acknowledged(&give(&mut client, 1, &complete)), [1]);
    let actions = json!([{"ActionType": "SessionType", "ActionParameters": {"SessionType": "Port"}}]);
    let seen = events(give(&mut client, 1, &request(&actions)));
    assert!(
        matches!(&seen[..], [Event::HandshakeComplete { .. }, Event::Data { .. }]),
        "{seen:?}"
    );
}

#[test]
fn a_client_says_what_it_cannot_do() {
    let unknown_type = json!([{"ActionType": "SessionType", "ActionParameters": {"SessionType": "New"}}]);
    let encryption = json!([{"ActionType": "KMSEncryption", "ActionParameters": {"KMSKeyId": ""}}]);
    let other = json!([{"ActionType": "Dance"}]);
    for (actions, status, text) in [
        (unknown_type, 2, "Unknown session type New"),
        (
            encryption,
            2,
            "Failed to process action KMSEncryption: no key is named",
        ),
        (other, 3, "Unsupported action Dance"),
    ] {
        let mut client = connected(Role::Client);
        let outputs = give(&mut client, 1, &request(&actions));
        let answer: HandshakeResponse = serde_json::from_slice(&frames(&outputs)[1].payload).unwrap();
        let action = &answer.processed_client_actions[0];
        assert_eq!((action.action_status, action.error.as_str()), (status, text));
        assert_eq!(events(outputs), [Event::HandshakeFailed(text.to_owned())]);
    }
    let unreadable = stream(
        MessageType::OutputStreamData,
        0,
        PayloadType::HandshakeRequest,
        b"[]",
    );
    let failed = events(give(&mut connected(Role::Client), 1, &unreadable));
    assert!(matches!(&failed[..], [Event::HandshakeFailed(_)]));
}

#[test]
fn a_client_is_not_flooded_by_requests() {
    let mut client = connected(Role::Client);
    let payload = br#"{"AgentVersion":"3","RequestedClientActions":[]}"#;
    for number in 0..20_000 {
        let frame = stream(
            MessageType::OutputStreamData,
            number,
            PayloadType::HandshakeRequest,
            payload,
        );
        give(&mut client, 1, &frame);
    }
    assert!(client.send.span() <= MAX_UNACKNOWLEDGED);
}

#[test]
fn both_sides_speak_the_newer_multiplexing_only_if_both_said_so() {
    for (offered, answered, agreed) in [(None, None, 1), (Some(2), Some(2), 2), (Some(9), Some(2), 2)] {
        let mut agent = connected(Role::Agent);
        let offer = HandshakeOffer {
            moorline_mux_version: offered,
            ..offer("Port", json!({"portNumber": "22"}))
        };
        agent.start_handshake(at(0), offer);
        let mut client = connected(Role::Client);
        for _ in 0..4 {
            for frame in frames(&drain(&mut agent)) {
                client.receive(at(1), &frame.encode());
            }
            for frame in frames(&drain(&mut client)) {
                if frame.payload_type == PayloadType::HandshakeResponse {
                    let response: HandshakeResponse = serde_json::from_slice(&frame.payload).unwrap();
                    assert_eq!(response.moorline_mux_version, answered);
                }
                agent.receive(at(2), &frame.encode());
            }
        }
        assert_eq!((agent.mux_version(), client.mux_version()), (agreed, agreed));
    }
}
