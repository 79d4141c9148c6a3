//! An encrypted session over the real relay: both ends' state machines, and every frame that the relay carries.

use std::{collections::BTreeMap, time::Duration};

use moorline_protocol::{
    channel::{DataChannel, DataKey, Event, HandshakeOffer, Output, Role, encryption_context},
    message::{AgentMessage, PayloadType},
    time::Now,
};
use moorline_ssm::{
    Blob,
    kms::{Decrypt, DecryptRequest, GenerateDataKey, GenerateDataKeyRequest},
};

use super::{
    peer::{Endpoint, Peer},
    sessions::{Opened, open},
};
use crate::auth::Principal;

const WINDOW: usize = 1 << 20;
const KEY_ID: &str = "alias/moorline";

/// One end of the session, with what reached it.
struct End {
    peer: Peer,
    machine: DataChannel,
    arrived: Vec<AgentMessage>,
    data: Vec<u8>,
    is_ready: bool,
}

impl End {
    fn new(peer: Peer, role: Role, seed: u8) -> Self {
        let mut machine = DataChannel::new(role, [seed; 32], WINDOW);
        machine.connected(now());
        Self {
            peer,
            machine,
            arrived: Vec::new(),
            data: Vec::new(),
            is_ready: false,
        }
    }

    /// Sends what is to be sent, and does what the machine asks of KMS.
    async fn settle(&mut self, endpoint: &Endpoint, session: &str) {
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Transmit(frame) => self.peer.send(&AgentMessage::decode(&frame).unwrap()).await,
                Output::Event(Event::Data { payload, .. }) => self.data.extend_from_slice(&payload),
                Output::Event(Event::HandshakeComplete { .. }) => self.is_ready = true,
                Output::Event(Event::DataKeyWanted { key_id, challenge }) => {
                    let request = GenerateDataKeyRequest {
                        key_id: Some(key_id),
                        number_of_bytes: Some(64),
                        encryption_context: Some(context(endpoint, session, challenge)),
                        ..GenerateDataKeyRequest::default()
                    };
                    let made = endpoint.test.call::<GenerateDataKey>(request).await.unwrap();
                    let key = DataKey::from_slice(&made.plaintext.unwrap().0).unwrap();
                    self.machine
                        .provide_data_key(now(), &made.ciphertext_blob.unwrap().0, &key);
                }
                Output::Event(Event::DecryptionWanted {
                    key_id,
                    ciphertext,
                    challenge,
                }) => {
                    let request = DecryptRequest {
                        key_id: Some(key_id),
                        ciphertext_blob: Some(Blob(ciphertext)),
                        encryption_context: Some(context(endpoint, session, challenge)),
                        ..DecryptRequest::default()
                    };
                    let node = Principal::Node(endpoint.node());
                    let opened = endpoint.test.call_as::<Decrypt>(node, request).await.unwrap();
                    let key = DataKey::from_slice(&opened.plaintext.unwrap().0).unwrap();
                    self.machine.provide_decrypted_key(now(), &key);
                }
                Output::Event(Event::Started(_)) => {}
                Output::Event(other) => panic!("{other:?}"),
            }
        }
    }

    async fn receive(&mut self) {
        let message = self.peer.next_message().await;
        self.machine.receive(now(), &message.encode());
        self.arrived.push(message);
    }
}

fn now() -> Now {
    Now {
        monotonic: Duration::from_secs(1),
        unix_millis: 1_800_000_000_000,
    }
}

fn context(endpoint: &Endpoint, session: &str, challenge: Option<String>) -> BTreeMap<String, String> {
    encryption_context(session, endpoint.node().as_str(), challenge.as_deref())
}

#[tokio::test]
async fn the_relay_carries_nothing_of_an_encrypted_session_in_clear() {
    let endpoint = Endpoint::start().await;
    let Opened {
        node: _node,
        agent,
        client,
        id,
    } = open(&endpoint).await;
    let mut agent = End::new(agent, Role::Agent, 1);
    let mut client = End::new(client, Role::Client, 2);
    let offer = HandshakeOffer {
        agent_version: "3.3.0.0".to_owned(),
        session_type: "Standard_Stream".to_owned(),
        kms_key_id: Some(KEY_ID.to_owned()),
        ..HandshakeOffer::default()
    };
    agent.machine.start_handshake(now(), offer);
    let (typed, shown) = (b"typed-marker\r".repeat(50), b"shown-marker\r\n".repeat(500));
    let mut has_sent = false;
    while agent.data != typed || client.data != shown {
        agent.settle(&endpoint, &id).await;
        client.settle(&endpoint, &id).await;
        if agent.is_ready && client.is_ready && !has_sent {
            has_sent = true;
            agent.machine.send(now(), PayloadType::Output, &shown).unwrap();
            client.machine.send(now(), PayloadType::Output, &typed).unwrap();
            continue;
        }
        tokio::select! {
            () = agent.receive() => {}
            () = client.receive() => {}
        }
    }
    let carried: Vec<&AgentMessage> = agent.arrived.iter().chain(&client.arrived).collect();
    let outputs = carried.iter().filter(|m| m.payload_type == PayloadType::Output);
    assert!(outputs.count() >= 8);
    for message in carried {
        let in_clear = message.payload.windows(6).any(|part| part == b"marker");
        assert!(!in_clear, "{message:?}");
    }
}
