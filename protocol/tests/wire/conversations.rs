//! The captured sessions, with one of our machines in the place of either end.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use moorline_protocol::{
    channel::{DataChannel, DataKey, Event, HandshakeOffer, Output, Role},
    message::{Acknowledge, AgentMessage, MessageType, PayloadType},
    time::Now,
};
use serde_json::{Value, json};

use crate::vectors::{Frame, RUNS, frames};

const WINDOW: usize = 1 << 20;

/// What a machine said.
#[derive(Default)]
struct Heard {
    sent: Vec<AgentMessage>,
    events: Vec<Event>,
}

impl Heard {
    fn acknowledged(&self) -> Vec<i64> {
        self.sent
            .iter()
            .filter(|message| message.message_type == MessageType::Acknowledge)
            .map(|message| {
                let ack: Acknowledge = serde_json::from_slice(&message.payload).unwrap();
                ack.acknowledged_message_sequence_number
            })
            .collect()
    }

    fn data(&self) -> Vec<(PayloadType, &[u8])> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Data {
                    payload_type,
                    payload,
                } => Some((*payload_type, payload.as_ref())),
                _ => None,
            })
            .collect()
    }

    fn completed(&self) -> Option<(&str, &str)> {
        self.events.iter().find_map(|event| match event {
            Event::HandshakeComplete {
                session_type,
                customer_message,
            } => Some((session_type.as_str(), customer_message.as_str())),
            _ => None,
        })
    }
}

fn now(frame: &Frame) -> Now {
    let monotonic = Duration::from_secs_f64(frame.time);
    Now {
        monotonic,
        unix_millis: 1_795_327_722_000 + u64::try_from(monotonic.as_millis()).unwrap(),
    }
}

fn drain(machine: &mut DataChannel, heard: &mut Heard) {
    while let Some(output) = machine.poll() {
        match output {
            Output::Transmit(frame) => heard.sent.push(AgentMessage::decode(&frame).unwrap()),
            Output::Event(event) => {
                assert!(!matches!(event, Event::PeerMisbehaved(_)), "{event:?}");
                heard.events.push(event);
            }
        }
    }
}

/// The binary frames of one direction of each session.
fn sessions(run: &str, to_agent: bool) -> BTreeMap<String, Vec<Frame>> {
    let mut sessions: BTreeMap<String, Vec<Frame>> = BTreeMap::new();
    for frame in frames(run) {
        let session = frame.channel.strip_prefix("/v1/data-channel/").map(str::to_owned);
        if let Some(session) = session.filter(|_| frame.is_binary && frame.to_agent == to_agent) {
            sessions.entry(session).or_default().push(frame);
        }
    }
    sessions
}

/// Numbers of the stream messages among these frames, in the order seen.
fn stream_numbers(frames: &[Frame]) -> Vec<i64> {
    frames
        .iter()
        .map(|frame| AgentMessage::decode(&frame.bytes).unwrap())
        .filter(|message| {
            matches!(
                message.message_type,
                MessageType::InputStreamData | MessageType::OutputStreamData
            )
        })
        .map(|message| message.sequence_number)
        .collect()
}

fn run_client(frames: &[Frame]) -> (DataChannel, Heard) {
    let mut client = DataChannel::new(Role::Client, [1; 32], WINDOW);
    let mut heard = Heard::default();
    client.connected(now(&frames[0]));
    drain(&mut client, &mut heard);
    let key: Vec<u8> = (0..64).collect();
    let key = DataKey::from_slice(&key).unwrap();
    for frame in frames {
        client.receive(now(frame), &frame.bytes);
        drain(&mut client, &mut heard);
        if matches!(heard.events.last(), Some(Event::DataKeyWanted { .. })) {
            client.provide_data_key(now(frame), b"sealed", &key);
            drain(&mut client, &mut heard);
        }
    }
    (client, heard)
}

#[test]
fn our_client_takes_all_that_the_real_agent_says() {
    let mut seen = 0;
    for run in RUNS {
        for (session, frames) in sessions(run, false) {
            let (client, heard) = run_client(&frames);
            assert_eq!(heard.acknowledged(), stream_numbers(&frames), "{run} {session}");
            let states = heard
                .events
                .iter()
                .filter(|event| matches!(event, Event::SessionState(_)));
            assert!(states.count() >= 1, "{run} {session}");
            let (session_type, data): (_, Vec<(PayloadType, &[u8])>) = match session.as_str() {
                "u-sess2" => (
                    Some("NonInteractiveCommands"),
                    vec![
                        (PayloadType::StdErr, b"STD_ERR:\nerr\n"),
                        (PayloadType::Output, b"STD_OUT:\nout\n"),
                        (PayloadType::ExitCode, b"EXIT_CODE: 7"),
                    ],
                ),
                "u-sess3" => (
                    Some("Port"),
                    vec![(PayloadType::Output, &[1, 1, 0, 0, 1, 0, 0, 0])],
                ),
                "u-sess5" => (Some("Standard_Stream"), vec![]),
                "u-sess6" => (None, vec![(PayloadType::Output, b"ic-[bob]\r\n")]),
                "u-sess7" => (
                    Some("NonInteractiveCommands"),
                    vec![(PayloadType::Output, b"out\nerr\n")],
                ),
                "u-sess8" => (
                    Some("Port"),
                    vec![
                        (PayloadType::Flag, &[0, 0, 0, 3]),
                        (PayloadType::Output, &[1, 1, 0, 0, 1, 0, 0, 0]),
                    ],
                ),
                _ => (None, vec![]),
            };
            assert_eq!(heard.data(), data, "{run} {session}");
            let completed = heard.completed().map(|(name, _)| name);
            assert_eq!(completed, session_type, "{run} {session}");
            if session_type.is_some() {
                assert_eq!(client.peer_version(), Some("3.3.0.0"));
                assert_eq!(client.unacknowledged(), 0);
                assert!(client.writable() > 0);
                let is_port = session_type == Some("Port");
                assert_eq!(client.session_properties()["portNumber"].is_string(), is_port);
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 9);
}

/// Session u-sess5 is encrypted, with a data key of which the bytes count up.
#[test]
fn our_client_agrees_on_encryption_with_the_real_agent() {
    let (client, heard) = run_client(&sessions(RUNS[1], false)["u-sess5"]);
    let wanted = heard.events.iter().find_map(|event| match event {
        Event::DataKeyWanted { key_id, challenge } => Some((key_id.as_str(), challenge.is_some())),
        _ => None,
    });
    let key_id = "arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000";
    assert_eq!(wanted, Some((key_id, true)));
    let sent = |payload_type| {
        let message = heard
            .sent
            .iter()
            .find(|message| message.payload_type == payload_type);
        serde_json::from_slice::<Value>(&message.unwrap().payload).unwrap()
    };
    let response = sent(PayloadType::HandshakeResponse);
    let expected = json!({
        "ClientVersion": "1.2.764.0",
        "ProcessedClientActions": [
            {"ActionType": "SessionType", "ActionStatus": 1, "ActionResult": null, "Error": ""},
            {"ActionType": "KMSEncryption", "ActionStatus": 1, "Error": "",
             "ActionResult": {"KMSCipherTextKey": "c2VhbGVk", "KMSCipherTextHash": null,
                              "ChallengeAcknowledgement": true}},
        ],
        "Errors": null,
    });
    assert_eq!(response, expected);
    assert!(sent(PayloadType::EncChallengeResponse)["Challenge"].is_string());
    let message = "This session is encrypted using AWS KMS.";
    assert_eq!(heard.completed(), Some(("Standard_Stream", message)));
    assert!(client.is_encrypted() && client.writable() > 0);
}

#[test]
fn our_agent_takes_all_that_the_service_said() {
    let mut seen = 0;
    for run in RUNS {
        for (session, frames) in sessions(run, true) {
            let session_type = match session.as_str() {
                "u-sess2" | "u-sess7" => Some("NonInteractiveCommands"),
                "u-sess3" | "u-sess8" => Some("Port"),
                "u-sess5" => Some("Standard_Stream"),
                _ => None,
            };
            let mut agent = DataChannel::new(Role::Agent, [2; 32], WINDOW);
            let mut heard = Heard::default();
            agent.connected(now(&frames[0]));
            if let Some(session_type) = session_type {
                let offer = HandshakeOffer {
                    agent_version: "3.3.0.0".to_owned(),
                    session_type: session_type.to_owned(),
                    ..HandshakeOffer::default()
                };
                agent.start_handshake(now(&frames[0]), offer);
            }
            drain(&mut agent, &mut heard);
            for frame in &frames {
                agent.receive(now(frame), &frame.bytes);
                drain(&mut agent, &mut heard);
            }

            // repetitions are acknowledged again, and delivered once
            let numbers = stream_numbers(&frames);
            assert_eq!(heard.acknowledged(), numbers, "{run} {session}");
            let delivered = numbers
                .iter()
                .max()
                .map_or(0, |last| usize::try_from(last + 1).unwrap());
            let own = match session.as_str() {
                "u-sess5" => 2, // the answer, and that to the challenge
                _ => usize::from(session_type.is_some()),
            };
            assert_eq!(heard.data().len(), delivered - own, "{run} {session}");

            assert_eq!(
                heard.completed(),
                session_type.map(|name| (name, "")),
                "{run} {session}"
            );
            assert_eq!(agent.peer_version(), session_type.map(|_| "1.2.600.0"));
            assert_eq!(agent.unacknowledged(), 0, "{run} {session}");
            assert_eq!(agent.next_timeout(), None);
            let complete: Option<&Bytes> = heard
                .sent
                .iter()
                .find(|message| message.payload_type == PayloadType::HandshakeComplete)
                .map(|message| &message.payload);
            assert_eq!(complete.is_some(), session_type.is_some());
            seen += 1;
        }
    }
    assert_eq!(seen, 9);
}
