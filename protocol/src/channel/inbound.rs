//! The way in: what each message of the peer changes.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::{
    DataChannel, Event, Life, Role,
    handshake::{self, Handshake},
    outbound::json,
    receive_window::Held,
    send_window::MAX_UNACKNOWLEDGED,
};
use crate::message::{
    AgentMessage, ChannelClosed, FrameError, HandshakeComplete, HandshakeRequest, HandshakeResponse,
    PayloadType,
};

/// Events that wait to be taken, without data. Beyond it what the peer made happen is dropped.
const MAX_EVENTS: usize = 1000;
const NOT_DECRYPTED: &str = "A message of the other end cannot be decrypted: it was changed on its way, or it is not \
                             encrypted with the session's key.";

impl DataChannel {
    pub(super) fn on_acknowledge(&mut self, payload: &[u8]) {
        /// Only the number counts; stock peers look at nothing else, and some clients send little else.
        #[derive(Deserialize)]
        struct Number {
            #[serde(rename = "AcknowledgedMessageSequenceNumber")]
            number: i64,
        }
        match serde_json::from_slice(payload) {
            Ok(Number { number }) => {
                self.paused = false;
                self.send.acknowledge(number, self.now.monotonic, &mut self.rtt);
            }
            Err(_) => self.report(Event::PeerMisbehaved(FrameError::Payload("acknowledge"))),
        }
    }

    pub(super) fn on_stream(&mut self, message: &AgentMessage) {
        self.paused = false;
        if self.receive.arrive(message) {
            self.acknowledge(message.message_id, message.sequence_number);
        }
        self.advance();
    }

    pub(super) fn on_closed(&mut self, payload: &[u8]) {
        let closed = serde_json::from_slice(payload).unwrap_or_else(|_| lenient_channel_closed(payload));
        self.send.clear();
        match self.role {
            // what the user typed is of no use to a session that ends
            Role::Agent => {
                self.life = Life::Closed;
                self.events.push_back(Event::Closed(closed));
            }
            Role::Client => self.life = Life::Closing(closed),
        }
    }

    /// Hands out what is due, as far as there is room.
    pub(super) fn advance(&mut self) {
        while let (Life::Open | Life::Closing(_), Some(due)) = (&self.life, self.receive.due()) {
            // what follows may be encrypted with the key that is being fetched
            if self.encryption.is_broken() || matches!(self.handshake, Handshake::KeyWanted { .. }) {
                return;
            }
            let is_handshake = handshake::is_handshake(due.payload_type);
            // stock agents throw away what a client sends before the end of the handshake
            let is_early = self.role == Role::Agent && self.handshake.holds_data();
            if !is_handshake && !is_early && (!self.ready || self.data_waits) {
                return;
            }
            let Some((number, held)) = self.receive.take_due() else {
                return;
            };
            if !held.acknowledged {
                self.acknowledge(held.message_id, number);
            }
            if is_handshake {
                self.on_handshake(&held);
            } else if !is_early {
                self.hand_out(held);
            }
        }
    }

    fn hand_out(&mut self, held: Held) {
        let sender = self.role.other();
        let Some(payload) = self.encryption.open(sender, held.payload_type, held.payload) else {
            return self.break_encryption(NOT_DECRYPTED);
        };
        self.data_waits = true;
        self.events.push_back(Event::Data {
            payload_type: held.payload_type,
            payload,
        });
    }

    fn on_handshake(&mut self, held: &Held) {
        match (held.payload_type, self.role) {
            (PayloadType::HandshakeRequest, Role::Client) => self.on_handshake_request(&held.payload),
            (PayloadType::HandshakeResponse, Role::Agent) => self.on_handshake_response(&held.payload),
            (PayloadType::HandshakeComplete, Role::Client) => self.on_handshake_complete(&held.payload),
            (PayloadType::EncChallengeRequest, Role::Client) => self.on_challenge(&held.payload),
            (PayloadType::EncChallengeResponse, Role::Agent) => self.on_challenge_answer(&held.payload),
            _ => {} // the wrong way round
        }
    }

    fn on_handshake_request(&mut self, payload: &[u8]) {
        let Ok(request) = serde_json::from_slice::<HandshakeRequest>(payload) else {
            return self.fail_handshake("The handshake request of the node cannot be read.".to_owned());
        };
        if self.send.span() >= MAX_UNACKNOWLEDGED {
            return; // a peer that asks on and on, and acknowledges no answer
        }
        if self.encryption.is_on() {
            // whoever could ask again could ask for no encryption
            return self.break_encryption("The node asks for a second handshake in an encrypted session.");
        }
        let answer = handshake::answer(&request);
        self.peer_version = Some(request.agent_version);
        self.mux_version = handshake::mux_version(request.moorline_mux_version);
        self.session_properties = answer.properties;
        if let Some(key) = answer.key.filter(|_| answer.failure.is_none()) {
            return self.want_data_key(key, answer.session_type, answer.response);
        }
        self.handshake = Handshake::Answered {
            session_type: answer.session_type,
            may_challenge: false,
        };
        self.push(PayloadType::HandshakeResponse, json(&answer.response));
        if let Some(text) = answer.failure {
            self.fail_handshake(text);
        }
    }

    fn on_handshake_response(&mut self, payload: &[u8]) {
        let Handshake::Requested {
            since,
            session_type,
            key,
        } = &self.handshake
        else {
            return;
        };
        let (since, session_type, key) = (*since, session_type.clone(), key.clone());
        let Ok(response) = serde_json::from_slice::<HandshakeResponse>(payload) else {
            return self.fail_handshake("The handshake response of the client cannot be read.".to_owned());
        };
        if let Err(text) = handshake::judge(&response) {
            return self.fail_handshake(text);
        }
        self.mux_version = handshake::mux_version(response.moorline_mux_version);
        match key {
            Some(key) => self.want_decryption(since, session_type, key, &response),
            None => self.complete_handshake(since, session_type, String::new()),
        }
        self.peer_version = Some(response.client_version);
    }

    /// Agent: the client has done all that was asked.
    pub(super) fn complete_handshake(&mut self, began: Duration, session_type: String, message: String) {
        let elapsed = self.now.monotonic.saturating_sub(began);
        // done before it is said: what the client sends at once must not be thrown away
        self.handshake = Handshake::Done;
        let complete = HandshakeComplete {
            handshake_time_to_complete: i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX),
            customer_message: message.clone(),
        };
        self.push(PayloadType::HandshakeComplete, json(&complete));
        self.events.push_back(Event::HandshakeComplete {
            session_type,
            customer_message: message,
        });
    }

    fn on_handshake_complete(&mut self, payload: &[u8]) {
        let Handshake::Answered { session_type, .. } = &self.handshake else {
            return;
        };
        let session_type = session_type.clone();
        let complete = serde_json::from_slice::<HandshakeComplete>(payload);
        self.handshake = Handshake::Done;
        self.events.push_back(Event::HandshakeComplete {
            session_type,
            customer_message: complete.map(|c| c.customer_message).unwrap_or_default(),
        });
    }

    pub(super) fn fail_handshake(&mut self, text: String) {
        self.handshake = Handshake::Failed;
        self.report(Event::HandshakeFailed(text));
    }

    pub(super) fn report(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        }
    }
}

/// What can be read of a `channel_closed` that lacks members or has others: the session ends in any case.
fn lenient_channel_closed(payload: &[u8]) -> ChannelClosed {
    let value: Value = serde_json::from_slice(payload).unwrap_or_default();
    let text = |name| {
        value
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    ChannelClosed {
        message_schema_version: text("MessageSchemaVersion"),
        message_id: text("MessageId"),
        created_date: text("CreatedDate"),
        destination_id: text("DestinationId"),
        session_id: text("SessionId"),
        message_type: text("MessageType"),
        schema_version: value.get("SchemaVersion").and_then(Value::as_i64).unwrap_or(1),
        output: text("Output"),
        moorline_exit_code: None,
    }
}
