use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::message::{Acknowledge, FLAG_SYN, HandshakeComplete, HandshakeResponse};

mod handshakes;
mod key_exchanges;

const WINDOW: usize = 64 * 1024;

/// Milliseconds since the start.
fn at(millis: u64) -> Now {
    Now {
        monotonic: Duration::from_millis(millis),
        unix_millis: 1_700_000_000_000 + millis,
    }
}

fn connected(role: Role) -> DataChannel {
    let mut machine = DataChannel::new(role, [7; 32], WINDOW);
    machine.connected(at(0));
    assert_eq!(machine.poll(), None);
    machine
}

fn offer(session_type: &str, properties: Value) -> HandshakeOffer {
    HandshakeOffer {
        agent_version: "3.3.0.0".to_owned(),
        session_type: session_type.to_owned(),
        properties,
        ..HandshakeOffer::default()
    }
}

fn drain(machine: &mut DataChannel) -> Vec<Output> {
    std::iter::from_fn(|| machine.poll()).collect()
}

/// The frames among what a machine wants done.
fn frames(outputs: &[Output]) -> Vec<AgentMessage> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Transmit(frame) => Some(AgentMessage::decode(frame).unwrap()),
            Output::Event(_) => None,
        })
        .collect()
}

fn events(outputs: Vec<Output>) -> Vec<Event> {
    outputs
        .into_iter()
        .filter_map(|output| match output {
            Output::Transmit(_) => None,
            Output::Event(event) => Some(event),
        })
        .collect()
}

fn acknowledged(outputs: &[Output]) -> Vec<i64> {
    frames(outputs)
        .iter()
        .filter(|message| message.message_type == MessageType::Acknowledge)
        .map(|message| {
            let ack: Acknowledge = serde_json::from_slice(&message.payload).unwrap();
            ack.acknowledged_message_sequence_number
        })
        .collect()
}

fn payloads(outputs: &[Output]) -> Vec<Bytes> {
    events(outputs.to_vec())
        .into_iter()
        .filter_map(|event| match event {
            Event::Data { payload, .. } => Some(payload),
            _ => None,
        })
        .collect()
}

fn stream(message_type: MessageType, number: i64, payload_type: PayloadType, payload: &[u8]) -> Bytes {
    let message = AgentMessage {
        message_type,
        schema_version: 1,
        created_date: 1,
        sequence_number: number,
        flags: 0,
        message_id: uuid::Uuid::from_u128(u128::from(number.unsigned_abs())),
        payload_type,
        payload: Bytes::copy_from_slice(payload),
    };
    message.encode()
}

fn input(number: i64, payload: &[u8]) -> Bytes {
    stream(MessageType::InputStreamData, number, PayloadType::Output, payload)
}

fn output(number: i64, payload: &[u8]) -> Bytes {
    stream(
        MessageType::OutputStreamData,
        number,
        PayloadType::Output,
        payload,
    )
}

fn control(message_type: MessageType, payload: &[u8]) -> Bytes {
    let payload = Bytes::copy_from_slice(payload);
    AgentMessage::control(message_type, uuid::Uuid::nil(), at(0), 3, payload).encode()
}

fn ack(number: i64) -> Bytes {
    let payload = json!({"AcknowledgedMessageSequenceNumber": number});
    control(MessageType::Acknowledge, payload.to_string().as_bytes())
}

/// Gives the machine a frame and drains it.
fn give(machine: &mut DataChannel, millis: u64, frame: &Bytes) -> Vec<Output> {
    machine.receive(at(millis), frame);
    drain(machine)
}

#[test]
fn the_first_message_of_an_agent_has_syn() {
    for (role, message_type, first_flags) in [
        (Role::Agent, MessageType::OutputStreamData, FLAG_SYN),
        (Role::Client, MessageType::InputStreamData, 0),
    ] {
        let mut machine = connected(role);
        for _ in 0..2 {
            machine.send(at(5), PayloadType::Output, b"x").unwrap();
        }
        let sent = frames(&drain(&mut machine));
        let seen: Vec<_> = sent
            .iter()
            .map(|message| (message.sequence_number, message.flags))
            .collect();
        assert_eq!(seen, [(0, first_flags), (1, 0)]);
        assert!(sent.iter().all(|message| message.message_type == message_type));
        assert_eq!(sent[0].created_date, 1_700_000_000_005);
        assert_ne!(sent[0].message_id, sent[1].message_id);
    }
}

#[test]
fn an_acknowledgement_has_the_form_of_the_stock_peers() {
    let mut client = connected(Role::Client);
    let outputs = give(&mut client, 3, &output(0, b"x"));
    let sent = frames(&outputs);
    assert_eq!(sent.len(), 1);
    assert_eq!(
        (sent[0].sequence_number, sent[0].flags, sent[0].payload_type),
        (0, 3, PayloadType::None)
    );
    let expected = r#"{"AcknowledgedMessageType":"output_stream_data","AcknowledgedMessageId":"00000000-0000-0000-0000-000000000000","AcknowledgedMessageSequenceNumber":0,"IsSequentialMessage":true}"#;
    assert_eq!(sent[0].payload, expected);
    // the acknowledgement is out before the data is handed on
    assert!(matches!(
        outputs.as_slice(),
        [Output::Transmit(_), Output::Event(Event::Data { .. })]
    ));
}

/// What arrives, what is acknowledged and what is handed out.
#[test]
fn early_due_and_late_numbers() {
    let steps: [(i64, &[i64], &[&str]); 8] = [
        (0, &[0], &["0"]),
        (0, &[0], &[]),
        (2, &[2], &[]),
        (2, &[2], &[]),
        (4, &[4], &[]),
        (1, &[1], &["1", "2"]),
        (3, &[3], &["3", "4"]),
        (1, &[1], &[]),
    ];
    let mut agent = connected(Role::Agent);
    for (number, expected_acks, expected_data) in steps {
        let outputs = give(&mut agent, 1, &input(number, number.to_string().as_bytes()));
        assert_eq!(acknowledged(&outputs), expected_acks, "{number}");
        assert_eq!(payloads(&outputs), expected_data, "{number}");
    }
}

#[test]
fn what_has_no_room_is_not_acknowledged() {
    let mut agent = DataChannel::new(Role::Agent, [7; 32], 100);
    agent.connected(at(0));
    assert_eq!(acknowledged(&give(&mut agent, 1, &input(1, &[b'x'; 60]))), [1]);
    assert_eq!(acknowledged(&give(&mut agent, 1, &input(2, &[b'x'; 60]))), [0; 0]);
    // but the due one always has
    assert_eq!(acknowledged(&give(&mut agent, 1, &input(0, &[b'x'; 600]))), [0]);
    assert_eq!(acknowledged(&give(&mut agent, 1, &input(2, &[b'x'; 60]))), [2]);

    // empty payloads count too
    let ahead = i64::try_from(receive_window::MAX_HELD).unwrap();
    for number in 4..4 + ahead {
        assert_eq!(acknowledged(&give(&mut agent, 1, &input(number, b""))), [number]);
    }
    assert_eq!(acknowledged(&give(&mut agent, 1, &input(4 + ahead, b""))), [0; 0]);
    assert_eq!(acknowledged(&give(&mut agent, 1, &input(i64::MAX, b""))), [0; 0]);
}

#[test]
fn while_not_ready_due_data_waits_without_acknowledgement() {
    let mut agent = connected(Role::Agent);
    agent.set_ready(false);
    for _ in 0..2 {
        let outputs = give(&mut agent, 1, &input(0, b"size"));
        assert_eq!(outputs, []);
    }
    assert_eq!(acknowledged(&give(&mut agent, 2, &input(1, b"more"))), [1]);
    agent.set_ready(true);
    let outputs = drain(&mut agent);
    assert_eq!(acknowledged(&outputs), [0]);
    assert_eq!(payloads(&outputs), ["size", "more"]);
}

/// A sink that is full says so between two payloads.
#[test]
fn readiness_counts_between_payloads() {
    let mut agent = connected(Role::Agent);
    for number in [2, 1, 0] {
        agent.receive(at(1), &input(number, number.to_string().as_bytes()));
    }
    let mut seen = Vec::new();
    while let Some(output) = agent.poll() {
        if let Output::Event(Event::Data { payload, .. }) = output {
            seen.push(payload);
            agent.set_ready(false);
        }
    }
    assert_eq!(seen, ["0"]);
    agent.set_ready(true);
    assert_eq!(payloads(&drain(&mut agent)), ["1", "2"]);
}

#[test]
fn repetitions_are_the_same_bytes() {
    let mut agent = connected(Role::Agent);
    agent.send(at(10), PayloadType::Output, b"a").unwrap();
    agent.send(at(10), PayloadType::Output, b"b").unwrap();
    let first = drain(&mut agent);
    assert_eq!(agent.next_timeout(), Some(Duration::from_millis(300)));
    agent.timeout(at(299));
    assert_eq!(drain(&mut agent), []);
    agent.timeout(at(300));
    assert_eq!(drain(&mut agent), first[..1]);

    agent.disconnected();
    assert_eq!(agent.next_timeout(), None);
    agent.timeout(at(2000));
    assert_eq!(drain(&mut agent), []);
    agent.connected(at(3000));
    assert_eq!(drain(&mut agent), first);

    give(&mut agent, 3001, &ack(0));
    assert_eq!(agent.unacknowledged(), 1);
    give(&mut agent, 3001, &ack(1));
    assert_eq!((agent.unacknowledged(), agent.next_timeout()), (0, None));
}

#[test]
fn sends_wait_for_a_connection() {
    let mut client = DataChannel::new(Role::Client, [7; 32], WINDOW);
    client.send(at(0), PayloadType::Size, b"{}").unwrap();
    assert_eq!(
        (client.poll(), client.next_timeout(), client.unacknowledged()),
        (None, None, 2)
    );
    client.connected(at(5));
    assert_eq!(frames(&drain(&mut client)).len(), 1);
    // what arrives without a connection is taken, and acknowledged when it comes again
    client.disconnected();
    let outputs = give(&mut client, 6, &output(0, b"x"));
    assert_eq!((acknowledged(&outputs), payloads(&outputs).len()), (vec![], 1));
    client.connected(at(7));
    drain(&mut client);
    let outputs = give(&mut client, 8, &output(0, b"x"));
    assert_eq!((acknowledged(&outputs), payloads(&outputs).len()), (vec![0], 0));
}

#[test]
fn the_window_bounds_what_is_sent() {
    let mut agent = DataChannel::new(Role::Agent, [7; 32], 3000);
    agent.connected(at(0));
    assert_eq!(agent.writable(), 3000);
    assert_eq!(
        agent.send(at(0), PayloadType::Output, &[b'x'; 3001]),
        Err(WindowFull)
    );
    agent.send(at(0), PayloadType::Output, &[b'x'; 3000]).unwrap();
    assert_eq!((agent.writable(), agent.unacknowledged()), (0, 3000));
    assert_eq!(
        agent.send(at(0), PayloadType::ExitCode, b"EXIT_CODE: 0"),
        Err(WindowFull)
    );
    assert_eq!(agent.send(at(0), PayloadType::Output, b""), Ok(Vec::new()));
    assert_eq!(frames(&drain(&mut agent)).len(), 3);
    // room is made at the front only: the receiver keeps what is behind a gap
    give(&mut agent, 1, &ack(1));
    assert_eq!((agent.writable(), agent.unacknowledged()), (0, 1976));
    give(&mut agent, 1, &ack(0));
    assert_eq!((agent.writable(), agent.unacknowledged()), (2048, 952));
}

#[test]
fn the_count_of_messages_is_bounded_too() {
    let mut client = DataChannel::new(Role::Client, [7; 32], 1 << 30);
    client.connected(at(0));
    let mut count = 0;
    while client.writable() > 0 {
        client.send(at(0), PayloadType::Output, b"k").unwrap();
        count += 1;
    }
    assert_eq!(count, MAX_UNACKNOWLEDGED);
    give(&mut client, 1, &ack(0));
    drain(&mut client);
    give(&mut client, 1, &ack(0));
    let room = client.writable();
    assert!(room > 0 && room < STANDARD_PAYLOAD_BYTES);
    let sent = client.send(at(1), PayloadType::Output, &vec![b'k'; room]);
    assert_eq!(sent, Ok(vec![vec![b'k'; room].into()]));
    assert_eq!(client.writable(), 0);
}

#[test]
fn what_was_sent_lies_in_its_frames() {
    let mut agent = connected(Role::Agent);
    let sent = agent.send(at(0), PayloadType::Output, &[b'x'; 3000]).unwrap();
    let outputs = drain(&mut agent);
    assert_eq!(outputs.len(), 3);
    for (payload, output) in sent.iter().zip(&outputs) {
        let Output::Transmit(frame) = output else {
            panic!("no frame: {output:?}")
        };
        assert_eq!(payload, &frame.slice(FRAME_HEADER_BYTES..));
        assert_eq!(payload.as_ptr(), frame.as_ptr().wrapping_add(FRAME_HEADER_BYTES));
    }
}

#[test]
fn output_is_cut_between_characters() {
    let sizes = |payload_type, data: &[u8]| -> Vec<usize> {
        let mut agent = connected(Role::Agent);
        agent.send(at(0), payload_type, data).unwrap();
        let sent = frames(&drain(&mut agent));
        assert!(sent.iter().flat_map(|message| &message.payload).eq(data));
        sent.iter().map(|message| message.payload.len()).collect()
    };
    let text =
        |before: usize, character: &str| [vec![b'x'; before], character.repeat(3).into_bytes()].concat();
    for payload_type in [PayloadType::Output, PayloadType::StdErr] {
        assert_eq!(sizes(payload_type, &text(1024, "")), [1024]);
        assert_eq!(sizes(payload_type, &text(1024, "ä")), [1024, 6]);
        assert_eq!(sizes(payload_type, &text(1023, "ä")), [1023, 6]);
        assert_eq!(sizes(payload_type, &text(1022, "€")), [1022, 9]);
        assert_eq!(sizes(payload_type, &text(1021, "😀")), [1021, 12]);
        // ends within the payload, though the next one does not
        assert_eq!(sizes(payload_type, &text(1020, "😀")), [1024, 8]);
        // no text: cut anywhere
        assert_eq!(sizes(payload_type, &[0x80; 2048]), [1024, 1024]);
    }
    assert_eq!(sizes(PayloadType::Parameter, &text(1023, "ä")), [1029]);
}

#[test]
fn the_largest_payload_may_grow() {
    let mut agent = connected(Role::Agent);
    agent.set_max_payload(16 * 1024);
    agent.send(at(0), PayloadType::Output, &[b'x'; 40_000]).unwrap();
    let sizes: Vec<_> = frames(&drain(&mut agent))
        .iter()
        .map(|message| message.payload.len())
        .collect();
    assert_eq!(sizes, [16_384, 16_384, 7232]);
    agent.set_max_payload(0);
    agent.send(at(0), PayloadType::Output, b"12345").unwrap();
    assert_eq!(frames(&drain(&mut agent)).len(), 2);
}

#[test]
fn a_pause_ends_with_anything_from_the_peer() {
    let pause = control(MessageType::PausePublication, b"pause_publication");
    let endings = [
        control(MessageType::StartPublication, b"start_publication"),
        ack(99),
        input(0, b"x"),
    ];
    for (number, ending) in endings.iter().enumerate() {
        let mut agent = connected(Role::Agent);
        agent.send(at(0), PayloadType::Output, b"x").unwrap();
        drain(&mut agent);
        assert_eq!(give(&mut agent, 1, &pause), [Output::Event(Event::Paused)]);
        assert_eq!(give(&mut agent, 1, &pause), []);
        assert_eq!((agent.writable(), agent.next_timeout()), (0, None));
        assert_eq!(agent.send(at(1), PayloadType::Output, b"x"), Err(WindowFull));
        agent.timeout(at(1000));
        assert_eq!(drain(&mut agent), []);

        let outputs = give(&mut agent, 1001, ending);
        let started = Output::Event(Event::Started(StartPublication::default()));
        assert_eq!(outputs.contains(&started), number == 0);
        assert!(agent.writable() > 0);
        agent.timeout(at(1100));
        assert_eq!(frames(&drain(&mut agent)).len(), 1);
    }
    let mut agent = connected(Role::Agent);
    give(&mut agent, 1, &pause);
    agent.disconnected();
    agent.connected(at(2));
    assert!(agent.writable() > 0);
}

#[test]
fn a_start_may_bring_a_payload_size() {
    let mut agent = connected(Role::Agent);
    let start = control(
        MessageType::StartPublication,
        br#"{"MoorlineMaxPayloadBytes":32768}"#,
    );
    let expected = StartPublication {
        moorline_max_payload_bytes: Some(32_768),
        ..StartPublication::default()
    };
    assert_eq!(
        give(&mut agent, 1, &start),
        [Output::Event(Event::Started(expected))]
    );
}

#[test]
fn unknown_things_pass() {
    let mut client = connected(Role::Client);
    let unknown = stream(MessageType::OutputStreamData, 0, PayloadType::Unknown(17), b"x");
    let expected = Event::Data {
        payload_type: PayloadType::Unknown(17),
        payload: Bytes::from_static(b"x"),
    };
    assert_eq!(events(give(&mut client, 1, &unknown)), [expected]);
    let strange = [
        control(MessageType::Unknown("future_message".to_owned()), b"x"),
        control(MessageType::AgentJob, b"{}"),
        input(0, b"of the wrong side"),
    ];
    for frame in &strange {
        assert_eq!(give(&mut client, 1, frame), []);
    }
}

#[test]
fn broken_frames_are_reported_and_dropped() {
    let mut client = connected(Role::Client);
    let broken = [
        (Bytes::from_static(b"abc"), FrameError::TooShort(3)),
        (
            control(MessageType::Acknowledge, b"{}"),
            FrameError::Payload("acknowledge"),
        ),
        (
            control(MessageType::AgentSessionState, b"{}"),
            FrameError::Payload("agent_session_state"),
        ),
    ];
    for (frame, error) in broken {
        assert_eq!(
            give(&mut client, 1, &frame),
            [Output::Event(Event::PeerMisbehaved(error))]
        );
    }
    // without a driver that takes events, too, there is a bound
    for _ in 0..5000 {
        client.receive(at(1), &Bytes::from_static(b"abc"));
    }
    assert!(drain(&mut client).len() <= 1000);
}

#[test]
fn session_state_is_outside_the_stream() {
    let state = AgentSessionState {
        schema_version: 1,
        session_state: "Connected".to_owned(),
        session_id: "s".to_owned(),
        moorline_exit_code: None,
        moorline_reason: None,
        moorline_client_id: None,
    };
    let mut agent = connected(Role::Agent);
    agent.send_session_state(at(1), &state);
    agent.send(at(1), PayloadType::Output, b"x").unwrap();
    let sent = frames(&drain(&mut agent));
    assert_eq!((sent[0].flags, sent[0].sequence_number), (3, 0));
    assert_eq!(
        sent[0].payload,
        r#"{"SchemaVersion":1,"SessionState":"Connected","SessionId":"s"}"#
    );
    assert_eq!(sent[1].sequence_number, 0);
    let outputs = give(&mut connected(Role::Client), 1, &sent[0].encode());
    assert_eq!(events(outputs), [Event::SessionState(state)]);
}

fn closed_frame() -> Bytes {
    control(
        MessageType::ChannelClosed,
        br#"{"MessageSchemaVersion":"1.0","MessageId":"m","CreatedDate":"2024-01-01T00:00:00.000Z","DestinationId":"d","SessionId":"s","MessageType":"channel_closed","SchemaVersion":1,"Output":"bye"}"#,
    )
}

fn close_reason(outputs: Vec<Output>) -> Option<String> {
    events(outputs).into_iter().find_map(|event| match event {
        Event::Closed(closed) => Some(closed.output),
        _ => None,
    })
}

#[test]
fn the_end_comes_after_the_data_for_a_client() {
    let mut client = connected(Role::Client);
    client.send(at(0), PayloadType::Output, b"x").unwrap();
    drain(&mut client);
    client.set_ready(false);
    give(&mut client, 1, &output(0, b"last words"));
    assert_eq!(give(&mut client, 1, &closed_frame()), []);
    client.set_ready(true);
    let outputs = drain(&mut client);
    assert_eq!(payloads(&outputs), ["last words"]);
    assert!(matches!(outputs.last(), Some(Output::Event(Event::Closed(_)))));
    assert_eq!(close_reason(outputs).as_deref(), Some("bye"));

    // and nothing comes after it
    assert_eq!(
        (client.writable(), client.unacknowledged(), client.next_timeout()),
        (0, 0, None)
    );
    for frame in [output(1, b"x"), closed_frame()] {
        assert_eq!(give(&mut client, 2, &frame), []);
    }
}

#[test]
fn the_end_comes_at_once_for_an_agent() {
    let mut agent = connected(Role::Agent);
    agent.set_ready(false);
    give(&mut agent, 1, &input(0, b"typed"));
    assert_eq!(
        close_reason(give(&mut agent, 1, &closed_frame())).as_deref(),
        Some("bye")
    );
    agent.set_ready(true);
    assert_eq!(drain(&mut agent), []);
}

#[test]
fn an_end_that_cannot_be_read_is_an_end() {
    for (payload, reason) in [
        (&b"nonsense"[..], ""),
        (br#"{"Output":"gone","SchemaVersion":"1"}"#, "gone"),
    ] {
        let frame = control(MessageType::ChannelClosed, payload);
        let outputs = give(&mut connected(Role::Client), 1, &frame);
        assert_eq!(close_reason(outputs).as_deref(), Some(reason));
    }
}

fn any_frame() -> impl Strategy<Value = Bytes> {
    let message_type = prop::sample::select(vec![
        MessageType::Acknowledge,
        MessageType::InputStreamData,
        MessageType::OutputStreamData,
        MessageType::PausePublication,
        MessageType::StartPublication,
        MessageType::AgentSessionState,
        MessageType::ChannelClosed,
    ]);
    let number = prop_oneof![0..6_i64, any::<i64>()];
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        (-1..6_i64).prop_map(|n| json!({"AcknowledgedMessageSequenceNumber": n})
            .to_string()
            .into_bytes()),
        Just(br#"{"AgentVersion":"3","RequestedClientActions":[{"ActionType":"SessionType"}]}"#.to_vec()),
        Just(br#"{"ClientVersion":"1","ProcessedClientActions":[]}"#.to_vec()),
        Just(br#"{"AgentVersion":"3","RequestedClientActions":[{"ActionType":"KMSEncryption",
            "ActionParameters":{"KMSKeyId":"k"}}]}"#.to_vec()),
        Just(br#"{"ClientVersion":"1","ProcessedClientActions":[{"ActionType":"KMSEncryption","ActionStatus":1,
            "ActionResult":{"KMSCipherTextKey":"AAAA"}}]}"#.to_vec()),
        Just(br#"{"Challenge":"AAAA"}"#.to_vec()),
    ];
    (message_type, number, 0..14_u32, payload)
        .prop_map(|(message_type, number, kind, payload)| stream(message_type, number, kind.into(), &payload))
}

proptest! {
    /// Whatever the peer says, a machine neither panics, nor talks for ever, nor keeps a timer that is past.
    #[test]
    fn any_frames_are_survived(
        role in prop::sample::select(vec![Role::Agent, Role::Client]),
        asks in any::<bool>(),
        encrypts in any::<bool>(),
        steps in prop::collection::vec((any_frame(), 0..6_u8, 0..400_u64), 1..60),
    ) {
        let mut machine = connected(role);
        if asks && role == Role::Agent {
            let kms_key_id = encrypts.then(|| "k".to_owned());
            machine.start_handshake(at(0), HandshakeOffer { kms_key_id, ..offer("Port", Value::Null) });
        }
        let key = DataKey::from_slice(&[1; 64]).unwrap();
        let mut time = 0;
        for (frame, action, wait) in steps {
            time += wait;
            match action {
                0 => machine.set_ready(wait % 2 == 0),
                1 => drop(machine.send(at(time), PayloadType::Output, b"data")),
                2 => {
                    machine.disconnected();
                    machine.connected(at(time));
                }
                3 => machine.provide_data_key(at(time), b"sealed", &key),
                4 => machine.provide_decrypted_key(at(time), &key),
                _ => {}
            }
            machine.receive(at(time), &frame);
            let outputs = std::iter::from_fn(|| machine.poll()).take(200).count();
            prop_assert!(outputs < 200);
            machine.timeout(at(time));
            drain(&mut machine);
            prop_assert!(machine.next_timeout().is_none_or(|due| due > at(time).monotonic));
            prop_assert!(machine.unacknowledged() <= WINDOW);
        }
    }
}
