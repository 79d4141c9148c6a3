//! Both ends with encryption, and whoever carries their frames.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::*;

const KEY_ID: &str = "alias/sessions";
const REFUSAL: &str = "AccessDeniedException: no";

fn key(byte: u8) -> DataKey {
    let (to_client, to_agent) = ([byte; DataKey::BYTES / 2], [!byte; DataKey::BYTES / 2]);
    DataKey::from_slice(&[to_client, to_agent].concat()).unwrap()
}

/// Two ends, and every frame that went between them.
struct Pair {
    agent: DataChannel,
    client: DataChannel,
    carried: Vec<AgentMessage>,
    at_agent: Vec<Event>,
    at_client: Vec<Event>,
}

impl Pair {
    /// Before the client has a key.
    fn asked() -> Self {
        let mut pair = Self {
            agent: DataChannel::new(Role::Agent, [7; 32], WINDOW),
            client: DataChannel::new(Role::Client, [8; 32], WINDOW),
            carried: vec![],
            at_agent: vec![],
            at_client: vec![],
        };
        pair.agent.connected(at(0));
        pair.client.connected(at(0));
        let offer = HandshakeOffer {
            kms_key_id: Some(KEY_ID.to_owned()),
            ..offer("Standard_Stream", Value::Null)
        };
        pair.agent.start_handshake(at(0), offer);
        pair.carry();
        pair
    }

    /// With one key at each end.
    fn keyed(client: &DataKey, agent: &DataKey) -> Self {
        let mut pair = Self::asked();
        pair.client.provide_data_key(at(1), b"sealed", client);
        pair.carry();
        pair.agent.provide_decrypted_key(at(2), agent);
        pair.carry();
        pair
    }

    fn encrypted() -> Self {
        let pair = Self::keyed(&key(3), &key(3));
        assert!(pair.agent.is_encrypted() && pair.client.is_encrypted());
        pair
    }

    fn carry(&mut self) {
        loop {
            let (from_agent, from_client) = (drain(&mut self.agent), drain(&mut self.client));
            if from_agent.is_empty() && from_client.is_empty() {
                return;
            }
            for message in frames(&from_agent) {
                self.client.receive(at(3), &message.encode());
                self.carried.push(message);
            }
            for message in frames(&from_client) {
                self.agent.receive(at(3), &message.encode());
                self.carried.push(message);
            }
            self.at_agent.extend(events(from_agent));
            self.at_client.extend(events(from_client));
        }
    }

    fn carried(&self, payload_type: PayloadType) -> Vec<Bytes> {
        let of_type = self.carried.iter().filter(|m| m.payload_type == payload_type);
        of_type.map(|message| message.payload.clone()).collect()
    }
}

fn text(events: &[Event]) -> Vec<u8> {
    let data = events.iter().filter_map(|event| match event {
        Event::Data { payload, .. } => Some(payload.to_vec()),
        _ => None,
    });
    data.collect::<Vec<_>>().concat()
}

fn broken(events: &[Event]) -> usize {
    let is_broken = |event: &&Event| matches!(event, Event::EncryptionBroken(_));
    events.iter().filter(is_broken).count()
}

#[test]
fn both_ends_agree_and_who_carries_it_reads_nothing() {
    let mut pair = Pair::encrypted();
    let challenge = match &pair.at_client[..] {
        [
            Event::DataKeyWanted { key_id, challenge },
            Event::HandshakeComplete { customer_message, .. },
        ] => {
            assert_eq!(key_id, KEY_ID);
            assert_eq!(
                customer_message,
                "This session is encrypted end to end with key alias/sessions."
            );
            challenge.clone()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(STANDARD.decode(challenge.as_ref().unwrap()).unwrap().len(), 16);
    let wanted = Event::DecryptionWanted {
        key_id: KEY_ID.to_owned(),
        ciphertext: b"sealed".to_vec(),
        challenge,
    };
    assert_eq!(pair.at_agent[0], wanted);
    assert!(matches!(pair.at_agent[1], Event::HandshakeComplete { .. }));

    let (typed, shown) = (b"type secret\r".repeat(300), b"show secret\r\n".repeat(300));
    pair.client.send(at(4), PayloadType::Output, &typed).unwrap();
    pair.client
        .send(at(4), PayloadType::Size, br#"{"cols":1}"#)
        .unwrap();
    let sent = pair.agent.send(at(4), PayloadType::Output, &shown).unwrap();
    assert_eq!(sent.concat(), shown, "who keeps what was sent gets it in clear");
    pair.agent
        .send(at(4), PayloadType::StdErr, b"secret failure")
        .unwrap();
    pair.agent
        .send(at(4), PayloadType::ExitCode, b"EXIT_CODE: secret")
        .unwrap();
    pair.carry();
    assert_eq!(text(&pair.at_agent), [&typed[..], br#"{"cols":1}"#].concat());
    assert_eq!(
        text(&pair.at_client),
        [&shown[..], b"secret failure", b"EXIT_CODE: secret"].concat()
    );
    for message in &pair.carried {
        assert!(
            !message.payload.windows(6).any(|part| part == b"secret"),
            "{message:?}"
        );
        assert!(message.payload.len() <= STANDARD_PAYLOAD_BYTES + OVERHEAD_BYTES);
    }
    assert_eq!(
        pair.carried(PayloadType::Size),
        [Bytes::from_static(br#"{"cols":1}"#)]
    );
    assert_eq!(
        (pair.agent.unacknowledged(), pair.client.unacknowledged()),
        (0, 0)
    );
}

#[test]
fn ends_with_different_keys_do_not_begin() {
    let pair = Pair::keyed(&key(3), &key(4));
    let text = "The encryption challenge of the node cannot be decrypted: its key is another one.";
    assert_eq!(pair.at_client[1..], [Event::HandshakeFailed(text.to_owned())]);
    assert_eq!((pair.client.writable(), pair.agent.writable()), (0, 0));
    // the client says no more, and the agent waits for 15 s
    let mut agent = pair.agent;
    assert_eq!(agent.next_timeout(), Some(at(15_002).monotonic));
    agent.timeout(at(15_002));
    let text = "The client did not answer the encryption challenge within 15 seconds.";
    assert_eq!(
        events(drain(&mut agent)),
        [Event::HandshakeFailed(text.to_owned())]
    );
}

#[test]
fn a_wrong_answer_to_the_challenge_fails_the_session() {
    let mut pair = Pair::asked();
    pair.client.provide_data_key(at(1), b"sealed", &key(3));
    pair.carry();
    pair.agent.provide_decrypted_key(at(2), &key(3));
    let asked = frames(&drain(&mut pair.agent)).remove(0);
    // the challenge itself, as whoever carries it could send it back
    let echo = stream(
        MessageType::InputStreamData,
        1,
        PayloadType::EncChallengeResponse,
        &asked.payload,
    );
    let failed = events(give(&mut pair.agent, 3, &echo));
    let text = "The client failed the encryption challenge: its key is another one.";
    assert_eq!(failed, [Event::HandshakeFailed(text.to_owned())]);
}

#[test]
fn a_client_without_a_key_says_why() {
    let mut pair = Pair::asked();
    assert_eq!(pair.client.writable(), 0);
    pair.client.refuse_data_key(at(1), REFUSAL);
    pair.carry();
    let why = format!("Failed to process action KMSEncryption: {REFUSAL}");
    assert_eq!(pair.at_client[1], Event::HandshakeFailed(why.clone()));
    let told = format!(
        "Encountered error while initiating handshake. KMSEncryption failed on client with status 2 error: {why}"
    );
    assert_eq!(pair.at_agent, [Event::HandshakeFailed(told)]);
}

#[test]
fn a_client_that_gets_no_key_in_time_gives_up() {
    let mut pair = Pair::asked();
    assert_eq!(pair.client.next_timeout(), Some(at(15_003).monotonic));
    pair.client.timeout(at(15_003));
    let outputs = drain(&mut pair.client);
    assert_eq!(frames(&outputs)[0].payload_type, PayloadType::HandshakeResponse);
    let text = "Failed to process action KMSEncryption: no data key was made within 15 seconds";
    assert_eq!(events(outputs), [Event::HandshakeFailed(text.to_owned())]);
    // too late
    pair.client.provide_data_key(at(15_004), b"sealed", &key(3));
    assert!(drain(&mut pair.client).is_empty() && !pair.client.is_encrypted());
}

#[test]
fn an_agent_fails_when_its_data_key_is_not_decrypted() {
    let pair = || {
        let mut pair = Pair::asked();
        pair.client.provide_data_key(at(1), b"sealed", &key(3));
        pair.carry();
        pair.agent
    };
    let mut agent = pair();
    agent.refuse_data_key(at(2), REFUSAL);
    assert_eq!(
        events(drain(&mut agent)),
        [Event::HandshakeFailed(REFUSAL.to_owned())]
    );
    let mut agent = pair();
    agent.timeout(at(15_003));
    let text = "The data key of the session was not decrypted within 15 seconds.";
    assert_eq!(
        events(drain(&mut agent)),
        [Event::HandshakeFailed(text.to_owned())]
    );
    agent.provide_decrypted_key(at(15_004), &key(3));
    assert_eq!(drain(&mut agent), []);
}

/// As clients from before the challenge, and those that do not know of encryption at all.
#[test]
fn an_agent_takes_a_client_that_ignores_the_challenge_but_none_without_a_key() {
    let answer = |result: Value| {
        let payload = json!({"ClientVersion": "1.2.0.0", "ProcessedClientActions": [
            {"ActionType": "SessionType", "ActionStatus": 1},
            {"ActionType": "KMSEncryption", "ActionStatus": 1, "ActionResult": result},
        ]});
        let payload = payload.to_string();
        let response = PayloadType::HandshakeResponse;
        let frame = stream(MessageType::InputStreamData, 0, response, payload.as_bytes());
        events(give(&mut Pair::asked().agent, 1, &frame))
    };
    let wanted = Event::DecryptionWanted {
        key_id: KEY_ID.to_owned(),
        ciphertext: vec![0; 3],
        challenge: None,
    };
    assert_eq!(
        answer(json!({"KMSCipherTextKey": "AAAA", "KMSCipherTextHash": null})),
        [wanted]
    );
    for bad in [
        json!(null),
        json!({"KMSCipherTextKey": ""}),
        json!({"KMSCipherTextKey": "?"}),
    ] {
        let text = "The client has sent no data key, and the session must be encrypted.";
        assert_eq!(answer(bad), [Event::HandshakeFailed(text.to_owned())]);
    }
}

#[test]
fn an_old_agent_without_a_challenge_is_served() {
    let mut client = connected(Role::Client);
    let request = json!({"AgentVersion": "3.0.0.0", "RequestedClientActions": [
        {"ActionType": "KMSEncryption", "ActionParameters": {"KMSKeyId": "k"}}]});
    let request = request.to_string();
    let asks = PayloadType::HandshakeRequest;
    let frame = stream(MessageType::OutputStreamData, 0, asks, request.as_bytes());
    let wanted = Event::DataKeyWanted {
        key_id: "k".to_owned(),
        challenge: None,
    };
    assert_eq!(events(give(&mut client, 1, &frame)), [wanted]);
    client.provide_data_key(at(1), b"sealed", &key(3));
    let response: HandshakeResponse =
        serde_json::from_slice(&frames(&drain(&mut client))[0].payload).unwrap();
    let result = &response.processed_client_actions[0].action_result;
    assert_eq!(
        result,
        &json!({"KMSCipherTextKey": "c2VhbGVk", "KMSCipherTextHash": null})
    );
}

#[test]
fn data_in_clear_breaks_an_encrypted_session_on_either_side() {
    for is_agent in [true, false] {
        let mut pair = Pair::encrypted();
        // handshake and challenge took numbers 0 and 1 of the client, 0 to 2 of the agent
        let (end, forged) = if is_agent {
            (&mut pair.agent, input(2, b"rm -r build\r, and this is long"))
        } else {
            (
                &mut pair.client,
                output(3, b"password for root, and this is long:"),
            )
        };
        let seen = events(give(end, 5, &forged));
        assert_eq!((broken(&seen), text(&seen)), (1, vec![]), "{seen:?}");
        assert_eq!(end.writable(), 0);
        // nor does anything come after it
        let next = if is_agent { input(3, b"x") } else { output(4, b"x") };
        assert_eq!(events(give(end, 6, &next)), []);
        // but its end
        let closed = control(MessageType::ChannelClosed, b"{}");
        assert!(matches!(events(give(end, 7, &closed))[..], [Event::Closed(_)]));
    }
}

#[test]
fn an_encrypted_session_is_not_talked_out_of_its_encryption() {
    let mut pair = Pair::encrypted();
    let request = br#"{"AgentVersion":"3","RequestedClientActions":[]}"#;
    let frame = stream(
        MessageType::OutputStreamData,
        3,
        PayloadType::HandshakeRequest,
        request,
    );
    let seen = events(give(&mut pair.client, 5, &frame));
    assert_eq!(broken(&seen), 1, "{seen:?}");
}

/// Otherwise output could be given to the client as a challenge, and would come back encrypted as input.
#[test]
fn a_client_encrypts_nothing_for_others_once_there_is_data() {
    let mut pair = Pair::encrypted();
    pair.agent.send(at(4), PayloadType::Output, &[b'y'; 64]).unwrap();
    pair.carry();
    let shown = pair.carried(PayloadType::Output).remove(0);
    let challenge = json!({"Challenge": STANDARD.encode(shown)}).to_string();
    let asks = PayloadType::EncChallengeRequest;
    let frame = stream(MessageType::OutputStreamData, 4, asks, challenge.as_bytes());
    let outputs = give(&mut pair.client, 5, &frame);
    assert_eq!(acknowledged(&outputs), [4]);
    assert_eq!(outputs.len(), 1);
}

#[test]
fn what_comes_while_the_key_is_fetched_waits_for_it() {
    let mut pair = Pair::asked();
    assert_eq!(drain(&mut pair.client), []);
    let early = output(1, b"not encrypted, and long enough for it");
    assert_eq!(events(give(&mut pair.client, 1, &early)), []);
    pair.client.provide_data_key(at(2), b"sealed", &key(3));
    let seen = events(drain(&mut pair.client));
    assert_eq!((broken(&seen), text(&seen)), (1, vec![]), "{seen:?}");
}

/// What is left of the window beyond whole messages may be less than encryption adds to one.
#[test]
fn the_smallest_payloads_leave_room_in_an_encrypted_window() {
    let mut pair = Pair::encrypted();
    pair.agent.window_bytes = 64;
    pair.agent.set_max_payload(4);
    assert_eq!(pair.agent.writable(), 2);
    pair.agent.send(at(4), PayloadType::Output, b"xx").unwrap();
    assert!(pair.agent.unacknowledged() <= 64);
}

proptest! {
    /// `writable` counts what encryption adds, for any size of window and payload.
    #[test]
    fn an_encrypted_window_is_filled_and_never_overfilled(window in 64..9000_usize, max_payload in 4..2000_usize) {
        let mut pair = Pair::encrypted();
        pair.agent.window_bytes = window;
        pair.agent.set_max_payload(max_payload);
        let room = pair.agent.writable();
        prop_assert!(room > 0);
        pair.agent.send(at(4), PayloadType::Output, &vec![b'x'; room]).unwrap();
        prop_assert!(pair.agent.unacknowledged() <= window);
    }
}
