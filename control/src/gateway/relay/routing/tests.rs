//! The routing decisions, under virtual time.

mod simulation;
mod take_over;

use moorline_protocol::message::{AgentSessionState, ChannelClosed, FLAG_SYN, StartPublication};

use super::*;

const SECOND: u64 = 1000;

fn at(millis: u64) -> Now {
    Now {
        monotonic: Duration::from_millis(millis),
        unix_millis: 1_795_305_600_000 + millis,
    }
}

fn session(session_type: SessionType) -> RelaySession {
    RelaySession {
        session_id: "admin-0123456789abcdef0".to_owned(),
        node: "mi-0123456789abcdef0".to_owned(),
        session_type,
        resumed: false,
        client_id: None,
    }
}

fn stock(client_id: &str) -> Peer {
    Peer {
        client_id: client_id.to_owned(),
        max_payload_bytes: None,
        takes_over: false,
        operator: String::new(),
    }
}

fn ours(client_id: &str) -> Peer {
    Peer {
        client_id: client_id.to_owned(),
        max_payload_bytes: Some(32_768),
        takes_over: false,
        operator: String::new(),
    }
}

fn data(message_type: MessageType, number: i64, payload_type: PayloadType, payload: &str) -> AgentMessage {
    AgentMessage {
        message_type,
        schema_version: 1,
        created_date: 1,
        sequence_number: number,
        flags: FLAG_SYN,
        message_id: Uuid::from_u128(0x1000 + u128::try_from(number).unwrap()),
        payload_type,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

fn output(number: i64, text: &str) -> AgentMessage {
    data(MessageType::OutputStreamData, number, PayloadType::Output, text)
}

fn input(number: i64, text: &str) -> AgentMessage {
    data(MessageType::InputStreamData, number, PayloadType::Output, text)
}

fn ack_of(message: &AgentMessage) -> AgentMessage {
    let acknowledge = Acknowledge {
        acknowledged_message_type: message.message_type.as_str().to_owned(),
        acknowledged_message_id: message.message_id.to_string(),
        acknowledged_message_sequence_number: message.sequence_number,
        is_sequential_message: true,
    };
    let payload = serde_json::to_vec(&acknowledge).unwrap().into();
    AgentMessage::control(MessageType::Acknowledge, Uuid::from_u128(7), at(0), 3, payload)
}

/// An agent of ours says whose stream it has.
fn serves(client_id: &str) -> AgentMessage {
    let state = AgentSessionState {
        schema_version: 1,
        session_state: "Connected".to_owned(),
        session_id: "admin-0123456789abcdef0".to_owned(),
        moorline_exit_code: None,
        moorline_reason: None,
        moorline_client_id: Some(client_id.to_owned()),
    };
    let payload = serde_json::to_vec(&state).unwrap().into();
    AgentMessage::control(MessageType::AgentSessionState, Uuid::nil(), at(0), 3, payload)
}

/// A relay with its driver's part done by hand.
struct Bench {
    relay: Relay,
    millis: u64,
}

impl Bench {
    fn new(session_type: SessionType) -> Self {
        Self {
            relay: Relay::new(at(0), session(session_type), 1),
            millis: 0,
        }
    }

    /// Both sides attached, what that causes drained.
    fn attached(session_type: SessionType, client: Peer) -> Self {
        let mut bench = Self::new(session_type);
        bench.attach(Side::Agent, stock("")).unwrap();
        bench.attach(Side::Client, client).unwrap();
        bench.drain(Side::Agent);
        bench.drain(Side::Client);
        assert_eq!(bench.events(), [RelayEvent::Connected]);
        bench
    }

    fn attach(&mut self, side: Side, peer: Peer) -> Result<Attached, AnotherClient> {
        self.relay.attach(at(self.millis), side, peer)
    }

    fn detach(&mut self, side: Side) {
        self.relay.detach(at(self.millis), side);
    }

    fn receive(&mut self, side: Side, message: &AgentMessage) {
        assert!(self.relay.receive(at(self.millis), side, message.encode()));
    }

    fn pass(&mut self, millis: u64) {
        let end = self.millis + millis;
        while let Some(next) = self
            .relay
            .next_timeout()
            .map(|next| u64::try_from(next.as_millis()).unwrap())
        {
            if next > end {
                break;
            }
            self.millis = next.max(self.millis);
            self.relay.timeout(at(self.millis));
        }
        self.millis = end;
        self.relay.timeout(at(end));
    }

    fn drain(&mut self, side: Side) -> Vec<AgentMessage> {
        let now = at(self.millis);
        std::iter::from_fn(|| self.relay.next_frame(now, side))
            .map(|frame| AgentMessage::decode(&frame).unwrap())
            .collect()
    }

    fn types(&mut self, side: Side) -> Vec<String> {
        self.drain(side)
            .iter()
            .map(|message| message.message_type.as_str().to_owned())
            .collect()
    }

    fn events(&mut self) -> Vec<RelayEvent> {
        std::iter::from_fn(|| self.relay.poll_event()).collect()
    }
}

#[test]
fn frames_and_acknowledgements_pass_unchanged() {
    let mut bench = Bench::attached(SessionType::StandardStream, stock("c"));
    let prompt = output(0, "$ ");
    bench.receive(Side::Agent, &prompt);
    assert_eq!(bench.drain(Side::Client), std::slice::from_ref(&prompt));
    bench.receive(Side::Client, &ack_of(&prompt));
    assert_eq!(bench.drain(Side::Agent), [ack_of(&prompt)]);
    let typed = input(0, "ls\r");
    bench.receive(Side::Client, &typed);
    assert_eq!(bench.drain(Side::Agent), std::slice::from_ref(&typed));
    bench.receive(Side::Agent, &ack_of(&typed));
    assert_eq!(bench.drain(Side::Client), [ack_of(&typed)]);
}

#[test]
fn types_that_a_side_must_not_send_go_nowhere() {
    let mut bench = Bench::attached(SessionType::StandardStream, stock("c"));
    bench.receive(Side::Client, &output(0, "x"));
    bench.receive(Side::Agent, &input(0, "x"));
    let closed = AgentMessage::control(MessageType::ChannelClosed, Uuid::nil(), at(0), 3, Bytes::new());
    bench.receive(Side::Client, &closed);
    let garbage = Bytes::from_static(b"garbage");
    assert!(!bench.relay.receive(at(0), Side::Client, garbage));
    let no_ack = AgentMessage::control(MessageType::Acknowledge, Uuid::nil(), at(0), 3, Bytes::new());
    for side in [Side::Agent, Side::Client] {
        assert!(!bench.relay.receive(at(0), side, no_ack.encode()));
    }
    assert_eq!(
        (bench.drain(Side::Agent), bench.drain(Side::Client)),
        (vec![], vec![])
    );
}

#[test]
fn both_sides_are_told_to_start_with_each_others_payload_size() {
    let mut bench = Bench::new(SessionType::StandardStream);
    bench.attach(Side::Agent, ours("")).unwrap();
    bench.receive(Side::Agent, &output(0, "$ "));
    assert_eq!(bench.types(Side::Agent), [""; 0]);
    bench.attach(Side::Client, ours("c")).unwrap();
    for (side, client_id, then) in [
        (Side::Agent, Some("c"), None),
        (Side::Client, None, Some("output_stream_data")),
    ] {
        let start = StartPublication {
            moorline_max_payload_bytes: Some(32_768),
            moorline_client_id: client_id.map(str::to_owned),
            moorline_take_over: false,
        };
        let frames = bench.drain(side);
        assert_eq!(
            serde_json::from_slice::<StartPublication>(&frames[0].payload).unwrap(),
            start
        );
        assert_eq!(frames.get(1).map(|frame| frame.message_type.as_str()), then);
    }
}

#[test]
fn a_stock_client_gets_a_start_that_says_nothing_and_keeps_its_agent_at_small_payloads() {
    let mut bench = Bench::new(SessionType::StandardStream);
    bench.attach(Side::Agent, ours("")).unwrap();
    bench.attach(Side::Client, stock("c")).unwrap();
    let to_agent = bench.drain(Side::Agent);
    assert_eq!(
        to_agent[0].payload,
        r#"{"MoorlineMaxPayloadBytes":1024,"MoorlineClientId":"c"}"#
    );
    let to_client = bench.drain(Side::Client);
    assert_eq!(
        (to_client.len(), &*to_client[0].payload),
        (1, b"start_publication".as_slice())
    );
    // the agent comes back: the running client is left alone
    bench.detach(Side::Agent);
    bench.attach(Side::Agent, ours("")).unwrap();
    assert_eq!(bench.types(Side::Client), [""; 0]);
    assert_eq!(bench.types(Side::Agent), ["start_publication"]);
}

#[test]
fn a_client_that_waits_for_a_start_gets_it_even_if_it_sent_its_size_first() {
    let mut bench = Bench::new(SessionType::StandardStream);
    bench.attach(Side::Client, stock("")).unwrap();
    bench.receive(
        Side::Client,
        &data(MessageType::InputStreamData, 0, PayloadType::Size, "{}"),
    );
    bench.attach(Side::Agent, stock("")).unwrap();
    assert_eq!(bench.types(Side::Client), ["start_publication"]);
    assert_eq!(
        bench.types(Side::Agent),
        ["start_publication", "input_stream_data"]
    );
}

#[test]
fn only_an_acknowledgement_of_delivered_output_reaches_the_agent() {
    let mut bench = Bench::attached(SessionType::StandardStream, stock(""));
    let prompt = output(0, "$ ");
    // a client that acknowledges everything, also control messages, as number 0
    let mut bogus = prompt.clone();
    bogus.message_id = Uuid::from_u128(99);
    bench.receive(Side::Client, &ack_of(&prompt));
    bench.receive(Side::Agent, &prompt);
    bench.drain(Side::Client);
    bench.receive(Side::Client, &ack_of(&bogus));
    assert_eq!(bench.types(Side::Agent), [""; 0]);
    let mut unreadable = ack_of(&prompt);
    unreadable.payload = String::from_utf8(unreadable.payload.to_vec())
        .unwrap()
        .replace(&prompt.message_id.to_string(), "no id")
        .into();
    bench.receive(Side::Client, &unreadable);
    assert_eq!(bench.types(Side::Agent), ["acknowledge"]);
    bench.receive(Side::Client, &ack_of(&prompt));
    assert_eq!(bench.types(Side::Agent), [""; 0], "once is enough");
}

#[test]
fn output_that_was_acknowledged_is_answered_to_the_agent_and_not_shown_again() {
    let mut bench = Bench::attached(SessionType::StandardStream, stock("c"));
    let prompt = output(0, "$ ");
    bench.receive(Side::Agent, &prompt);
    bench.drain(Side::Client);
    bench.receive(Side::Client, &ack_of(&prompt));
    // the agent's socket dies with the acknowledgement in it
    bench.detach(Side::Agent);
    bench.attach(Side::Agent, stock("")).unwrap();
    bench.drain(Side::Agent);
    bench.receive(Side::Agent, &prompt);
    assert_eq!(bench.types(Side::Client), [""; 0]);
    let answers = bench.drain(Side::Agent);
    let answer: Acknowledge = serde_json::from_slice(&answers[0].payload).unwrap();
    assert_eq!(answer.acknowledged_message_sequence_number, 0);
    assert_eq!(answer.acknowledged_message_id, prompt.message_id.to_string());
    assert_eq!(answer.acknowledged_message_type, "output_stream_data");
}

/// Output 0 and 1 were shown on a connection that broke before their acknowledgements came through.
fn broken_over_acknowledgements(session_type: SessionType, client: Peer) -> Bench {
    let mut bench = Bench::attached(session_type, client.clone());
    bench.receive(Side::Agent, &output(0, "$ "));
    bench.drain(Side::Client);
    bench.detach(Side::Client);
    bench.attach(Side::Client, client).unwrap();
    bench.receive(Side::Agent, &output(1, "ls"));
    assert_eq!(bench.drain(Side::Client).last(), Some(&output(1, "ls")));
    bench.drain(Side::Agent);
    bench
}

#[test]
fn a_stock_client_that_says_nothing_to_what_it_has_does_not_stop_the_stream() {
    let mut bench = broken_over_acknowledgements(SessionType::StandardStream, stock("c"));
    bench.receive(Side::Agent, &output(0, "$ "));
    bench.receive(Side::Agent, &output(0, "$ "));
    assert_eq!(
        bench.types(Side::Agent),
        [""; 0],
        "nothing behind it was acknowledged yet"
    );
    bench.drain(Side::Client);
    bench.receive(Side::Client, &ack_of(&output(1, "ls")));
    bench.receive(Side::Agent, &output(0, "$ "));
    assert_eq!(bench.types(Side::Agent), ["acknowledge", "acknowledge"]);
    assert_eq!(bench.types(Side::Client), [""; 0]);
}

#[test]
fn silence_is_no_acknowledgement_where_it_may_mean_something_else() {
    for (session_type, client) in [
        (SessionType::Port, stock("c")),
        (SessionType::StandardStream, ours("c")),
    ] {
        let mut bench = broken_over_acknowledgements(session_type, client);
        bench.receive(Side::Client, &ack_of(&output(1, "ls")));
        bench.drain(Side::Agent);
        for _ in 0..5 {
            bench.receive(Side::Agent, &output(0, "$ "));
            assert_eq!(bench.drain(Side::Client), [output(0, "$ ")]);
        }
        assert_eq!(bench.types(Side::Agent), [""; 0]);
    }
    // on the connection it was sent on first, an acknowledgement cannot have been lost
    let mut bench = Bench::attached(SessionType::StandardStream, stock("c"));
    bench.receive(Side::Agent, &output(0, "$ "));
    bench.receive(Side::Agent, &output(1, "ls"));
    bench.drain(Side::Client);
    bench.receive(Side::Client, &ack_of(&output(1, "ls")));
    bench.drain(Side::Agent);
    for _ in 0..5 {
        bench.receive(Side::Agent, &output(0, "$ "));
        assert_eq!(bench.drain(Side::Client), [output(0, "$ ")]);
    }
}

#[test]
fn an_acknowledgement_counts_while_a_repetition_waits_for_the_same_socket() {
    let mut bench = Bench::attached(SessionType::StandardStream, stock("c"));
    bench.receive(Side::Agent, &output(0, "$ "));
    bench.drain(Side::Client);
    bench.receive(Side::Agent, &output(0, "$ "));
    bench.receive(Side::Client, &ack_of(&output(0, "$ ")));
    assert_eq!(bench.types(Side::Agent), ["acknowledge"]);
    assert_eq!(bench.types(Side::Client), [""; 0]);
}

#[test]
fn input_typed_while_the_node_is_away_arrives_once_and_in_order() {
    let mut bench = Bench::attached(SessionType::StandardStream, stock("c"));
    bench.receive(Side::Client, &input(0, "a"));
    bench.drain(Side::Agent);
    bench.detach(Side::Agent);
    for (number, text) in [(1, "b"), (0, "a"), (1, "b"), (2, "c")] {
        bench.receive(Side::Client, &input(number, text));
    }
    bench.attach(Side::Agent, stock("")).unwrap();
    let frames = bench.drain(Side::Agent);
    let typed: Vec<_> = frames.iter().skip(1).map(|frame| frame.payload.clone()).collect();
    assert_eq!(typed, ["a", "b", "c"]);
}

#[test]
fn another_client_is_refused_and_the_same_one_replaces_itself() {
    let mut bench = Bench::attached(SessionType::StandardStream, stock("c"));
    bench.attach(Side::Client, stock("early")).unwrap();
    bench.drain(Side::Client);
    bench.receive(Side::Agent, &output(0, "$ "));
    assert_eq!(
        bench.attach(Side::Client, stock("other")),
        Err(AnotherClient::Holds)
    );
    bench.attach(Side::Client, stock("early")).unwrap();
    assert_eq!(
        bench.types(Side::Client),
        ["start_publication", "output_stream_data"]
    );
}

#[test]
fn after_a_restart_of_the_endpoint_only_the_process_that_held_the_session_comes_back() {
    let resumed = RelaySession {
        resumed: true,
        client_id: Some("c".to_owned()),
        ..session(SessionType::StandardStream)
    };
    let mut relay = Relay::new(at(0), resumed, 1);
    assert_eq!(
        relay.attach(at(0), Side::Client, stock("other")),
        Err(AnotherClient::Holds)
    );
    relay.attach(at(0), Side::Client, stock("c")).unwrap();
}

#[test]
fn an_absent_clients_agent_is_paused_after_a_while_and_started_when_it_is_back() {
    let mut bench = Bench::attached(SessionType::StandardStream, stock("c"));
    bench.detach(Side::Client);
    assert_eq!(bench.events(), [RelayEvent::Disconnected]);
    bench.pass(4 * SECOND);
    assert_eq!(bench.types(Side::Agent), [""; 0]);
    bench.pass(2 * SECOND);
    assert_eq!(bench.types(Side::Agent), ["pause_publication"]);
    bench.pass(60 * SECOND);
    assert_eq!(bench.types(Side::Agent), [""; 0]);
    bench.attach(Side::Client, stock("c")).unwrap();
    assert_eq!(bench.types(Side::Agent), ["start_publication"]);
}

/// Its parser wants a byte behind the header, and drops the message otherwise.
#[test]
fn nothing_that_a_stock_agent_is_told_ends_with_its_header() {
    let mut bench = Bench::new(SessionType::StandardStream);
    bench.attach(Side::Agent, stock("")).unwrap();
    bench.attach(Side::Client, stock("c")).unwrap();
    bench.detach(Side::Client);
    bench.pass(6 * SECOND);
    let told = bench.drain(Side::Agent);
    assert_eq!(told.len(), 2, "{told:?}");
    for message in told {
        assert!(!message.payload.is_empty(), "{message:?}");
    }
}

#[test]
fn a_session_that_takes_a_pause_for_a_failure_is_not_paused() {
    let mut bench = Bench::attached(SessionType::NonInteractiveCommands, stock("c"));
    bench.detach(Side::Client);
    bench.pass(60 * SECOND);
    assert_eq!(bench.types(Side::Agent), [""; 0]);
}

#[test]
fn output_for_an_absent_client_is_bounded_by_not_reading_the_agent() {
    let mut bench = Bench::attached(SessionType::StandardStream, stock("c"));
    bench.detach(Side::Client);
    let text = "x".repeat(32 * 1024);
    let mut sent = 0;
    while bench.relay.may_read(Side::Agent) {
        bench.receive(Side::Agent, &output(sent, &text));
        sent += 1;
    }
    assert!((100..200).contains(&sent), "{sent} frames of 32 KiB");
    bench.attach(Side::Client, stock("c")).unwrap();
    let shown = bench.drain(Side::Client).len() - 1;
    assert_eq!(i64::try_from(shown), Ok(sent));
    assert!(bench.relay.may_read(Side::Agent));
}

/// HandshakeRequest to the client, its response to the agent; the agent's acknowledgement is under way.
fn handshake(client: Peer) -> (Bench, AgentMessage, AgentMessage) {
    let mut bench = Bench::attached(SessionType::Port, client);
    let request = data(
        MessageType::OutputStreamData,
        0,
        PayloadType::HandshakeRequest,
        "{}",
    );
    bench.receive(Side::Agent, &request);
    bench.drain(Side::Client);
    bench.receive(Side::Client, &ack_of(&request));
    let response = data(
        MessageType::InputStreamData,
        0,
        PayloadType::HandshakeResponse,
        "{}",
    );
    bench.receive(Side::Client, &response);
    bench.drain(Side::Agent);
    let complete = data(
        MessageType::OutputStreamData,
        1,
        PayloadType::HandshakeComplete,
        "{}",
    );
    (bench, response, complete)
}

#[test]
fn the_acknowledgement_of_the_handshake_response_goes_before_handshake_complete() {
    let (mut bench, response, complete) = handshake(stock("c"));
    bench.receive(Side::Agent, &complete);
    bench.receive(Side::Agent, &output(2, "early"));
    assert_eq!(bench.types(Side::Client), [""; 0]);
    bench.receive(Side::Agent, &ack_of(&response));
    assert_eq!(bench.drain(Side::Client), [ack_of(&response), complete]);
    bench.pass(199);
    assert_eq!(
        bench.types(Side::Client),
        [""; 0],
        "a stock client sets up its multiplexer"
    );
    bench.pass(1);
    assert_eq!(bench.drain(Side::Client), [output(2, "early")]);
}

#[test]
fn handshake_complete_waits_a_second_at_most() {
    let (mut bench, _, complete) = handshake(stock("c"));
    bench.receive(Side::Agent, &complete);
    bench.pass(999);
    assert_eq!(bench.types(Side::Client), [""; 0]);
    bench.pass(1);
    assert_eq!(bench.drain(Side::Client), [complete]);
}

#[test]
fn our_own_client_needs_no_quiet_after_the_handshake() {
    let (mut bench, response, complete) = handshake(ours("c"));
    bench.receive(Side::Agent, &ack_of(&response));
    bench.receive(Side::Agent, &complete);
    bench.receive(Side::Agent, &output(2, "early"));
    assert_eq!(bench.drain(Side::Client).len(), 3);
}

fn closed(frames: &[AgentMessage]) -> ChannelClosed {
    let last = frames.last().expect("a last frame");
    assert_eq!(last.message_type, MessageType::ChannelClosed);
    serde_json::from_slice(&last.payload).unwrap()
}

#[test]
fn the_client_gets_all_output_before_the_end_and_the_exit_code_with_it() {
    let mut bench = Bench::attached(SessionType::StandardStream, stock("c"));
    let last = output(0, "logout\r\n");
    bench.receive(Side::Agent, &last);
    let state = AgentSessionState {
        schema_version: 1,
        session_state: "Terminating".to_owned(),
        session_id: "admin-0123456789abcdef0".to_owned(),
        moorline_exit_code: Some(3),
        moorline_reason: None,
        moorline_client_id: None,
    };
    let payload = serde_json::to_vec(&state).unwrap().into();
    let state = AgentMessage::control(MessageType::AgentSessionState, Uuid::nil(), at(0), 3, payload);
    bench.receive(Side::Agent, &state);
    assert_eq!(bench.events(), [RelayEvent::Terminating]);
    bench.detach(Side::Agent);
    bench.relay.task_completed(at(0), Ending::default());
    assert_eq!(bench.drain(Side::Client), std::slice::from_ref(&last));
    assert_eq!(bench.events(), []);
    bench.receive(Side::Client, &ack_of(&last));
    let closed = closed(&bench.drain(Side::Client));
    assert_eq!((closed.output.as_str(), closed.moorline_exit_code), ("", Some(3)));
    assert_eq!(closed.destination_id, "c");
    let ending = Ending {
        reason: String::new(),
        exit_code: Some(3),
        failed: false,
    };
    assert_eq!(bench.events(), [RelayEvent::Ended(ending)]);
    assert_eq!(bench.relay.next_timeout(), None);
}

#[test]
fn a_node_whose_daemon_is_gone_ends_its_session_by_itself() {
    let mut bench = Bench::attached(SessionType::StandardStream, stock("c"));
    let payload = r#"{"SchemaVersion":1,"SessionState":"Terminating","SessionId":"x"}"#;
    let payload = Bytes::from_static(payload.as_bytes());
    let state = AgentMessage::control(MessageType::AgentSessionState, Uuid::nil(), at(0), 3, payload);
    bench.receive(Side::Agent, &state);
    bench.pass(2 * SECOND);
    assert_eq!(closed(&bench.drain(Side::Client)).output, "");
}

#[test]
fn the_last_output_waits_for_a_client_that_is_away() {
    let mut bench = Bench::attached(SessionType::StandardStream, stock("c"));
    bench.detach(Side::Client);
    bench.receive(Side::Agent, &output(0, "logout\r\n"));
    bench.relay.task_completed(
        at(0),
        Ending {
            exit_code: Some(0),
            ..Ending::default()
        },
    );
    bench.pass(20 * SECOND);
    bench.attach(Side::Client, stock("c")).unwrap();
    let frames = bench.drain(Side::Client);
    assert!(frames.contains(&output(0, "logout\r\n")));
    bench.receive(Side::Client, &ack_of(&output(0, "")));
    assert_eq!(closed(&bench.drain(Side::Client)).moorline_exit_code, Some(0));
}

#[test]
fn the_end_does_not_wait_for_ever() {
    let mut bench = Bench::attached(SessionType::StandardStream, stock("c"));
    bench.receive(Side::Agent, &output(0, "x"));
    let failed = Ending {
        reason: "broken pipe".to_owned(),
        exit_code: None,
        failed: true,
    };
    bench.relay.task_completed(at(0), failed.clone());
    bench.drain(Side::Client);
    bench.pass(10 * SECOND);
    assert_eq!(closed(&bench.drain(Side::Client)).output, "broken pipe");
    assert_eq!(
        bench.events(),
        [RelayEvent::Ended(failed)],
        "what the node said stays"
    );
    let mut bench = Bench::attached(SessionType::StandardStream, stock("c"));
    bench.detach(Side::Client);
    bench.events();
    bench.receive(Side::Agent, &output(0, "x"));
    bench.relay.task_completed(at(0), Ending::default());
    bench.pass(599 * SECOND);
    bench.drain(Side::Agent);
    assert_eq!(bench.events(), [], "the client may come back");
    bench.pass(SECOND);
    assert_eq!(bench.events(), [RelayEvent::Ended(Ending::default())]);
}

#[test]
fn the_endpoint_ends_both_sides_with_its_reason() {
    let mut bench = Bench::attached(SessionType::StandardStream, stock("c"));
    let ending = Ending {
        reason: "too long".to_owned(),
        ..Ending::default()
    };
    bench.relay.end(at(0), ending.clone());
    assert_eq!(closed(&bench.drain(Side::Client)).output, "too long");
    assert_eq!(bench.types(Side::Agent), ["channel_closed"]);
    bench.relay.end(at(0), Ending::default());
    assert_eq!(bench.events(), [RelayEvent::Ended(ending)]);
    assert_eq!((bench.types(Side::Client), bench.events()), (vec![], vec![]));
}

#[test]
fn a_side_that_takes_nothing_cannot_keep_an_ended_session() {
    let mut bench = Bench::attached(SessionType::StandardStream, stock("c"));
    bench.relay.end(at(0), Ending::default());
    assert_eq!(bench.events(), []);
    bench.pass(5 * SECOND);
    assert_eq!(bench.events(), [RelayEvent::Ended(Ending::default())]);
}

#[test]
fn a_node_that_stays_away_ends_its_session() {
    let mut bench = Bench::attached(SessionType::StandardStream, stock("c"));
    bench.detach(Side::Agent);
    bench.pass(29 * SECOND);
    bench.attach(Side::Agent, stock("")).unwrap();
    bench.pass(100 * SECOND);
    bench.detach(Side::Agent);
    bench.drain(Side::Client);
    bench.pass(30 * SECOND);
    assert_eq!(
        closed(&bench.drain(Side::Client)).output,
        "connection to the node lost"
    );
}

#[test]
fn our_own_node_may_stay_away_for_longer() {
    let mut bench = Bench::attached(SessionType::StandardStream, ours("c"));
    bench.attach(Side::Agent, ours("")).unwrap();
    bench.detach(Side::Agent);
    bench.drain(Side::Client);
    bench.pass(299 * SECOND);
    assert_eq!(bench.drain(Side::Client), []);
    bench.pass(SECOND);
    assert_eq!(
        closed(&bench.drain(Side::Client)).output,
        "connection to the node lost"
    );
}

#[test]
fn a_node_that_never_comes_fails_its_session() {
    let mut bench = Bench::new(SessionType::StandardStream);
    bench.attach(Side::Client, stock("c")).unwrap();
    bench.pass(60 * SECOND);
    assert_eq!(closed(&bench.drain(Side::Client)).output, "node did not answer");
    let events = bench.events();
    assert!(
        matches!(&events[..], [RelayEvent::Ended(Ending { failed: true, .. })]),
        "{events:?}"
    );
}

#[test]
fn a_session_that_nobody_claims_is_ended() {
    let mut bench = Bench::new(SessionType::StandardStream);
    bench.attach(Side::Agent, stock("")).unwrap();
    bench.pass(60 * SECOND);
    assert_eq!(bench.types(Side::Agent), ["channel_closed"]);
}

#[test]
fn only_typing_counts_as_use_of_a_shell_and_output_where_nobody_types() {
    let mut bench = Bench::attached(SessionType::StandardStream, stock("c"));
    let start = bench.relay.last_activity();
    bench.pass(SECOND);
    bench.receive(Side::Agent, &output(0, "x"));
    bench.receive(
        Side::Client,
        &data(MessageType::InputStreamData, 0, PayloadType::Size, "{}"),
    );
    assert_eq!(bench.relay.last_activity(), start);
    bench.receive(Side::Client, &input(1, "x"));
    assert_eq!(bench.relay.last_activity(), start + Duration::from_millis(SECOND));
    for session_type in [SessionType::Port, SessionType::NonInteractiveCommands] {
        let mut bench = Bench::attached(session_type, ours("c"));
        bench.pass(SECOND);
        bench.receive(Side::Agent, &output(0, "x"));
        assert_eq!(bench.relay.last_activity(), start + Duration::from_millis(SECOND));
    }
}

#[test]
fn the_keep_alive_of_a_forwarded_port_is_no_use_of_it() {
    let mut bench = Bench::attached(SessionType::Port, stock("c"));
    let start = bench.relay.last_activity();
    bench.pass(SECOND);
    let keep_alive = "\u{1}\u{3}\0\0\0\0\0\0";
    bench.receive(Side::Client, &input(0, keep_alive));
    bench.receive(Side::Agent, &output(0, keep_alive));
    assert_eq!(bench.relay.last_activity(), start);
    bench.receive(Side::Client, &input(1, "\u{1}\0\0\0\u{3}\0\0\0"));
    assert_eq!(bench.relay.last_activity(), start + Duration::from_millis(SECOND));
}

#[test]
fn a_frame_with_a_short_header_or_nul_padding_is_made_canonical() {
    let mut bench = Bench::attached(SessionType::StandardStream, stock(""));
    let canonical = input(0, "ls\r").encode();
    let mut odd = canonical.to_vec();
    for byte in &mut odd[4..36] {
        if *byte == b' ' {
            *byte = 0;
        }
    }
    odd[80] ^= 0xff; // its digest is wrong as well
    bench.relay.receive(at(0), Side::Client, odd.into());
    assert_eq!(
        bench.relay.next_frame(at(0), Side::Agent),
        Some(canonical.clone())
    );
    bench.relay.receive(at(0), Side::Client, canonical.clone());
    let repeated = bench.relay.next_frame(at(0), Side::Agent).unwrap();
    assert_eq!(
        repeated.as_ptr(),
        canonical.as_ptr(),
        "what is canonical is not copied"
    );
}
