//! Messages that the relay makes itself, in the strict form that every client takes (client-wire §3.7).

use std::time::Duration;

use bytes::Bytes;
use moorline_protocol::{
    message::{Acknowledge, AgentMessage, ChannelClosed, FLAG_FIN, FLAG_SYN, MessageType, StartPublication},
    time::Now,
    types::SessionId,
};
use serde::Serialize;
use uuid::Uuid;

use crate::gateway::wall_time;

/// Makes messages with ids of its own.
#[derive(Debug)]
pub(super) struct Composer {
    session: String,
    seed: u128,
    made: u128,
}

impl Composer {
    /// Ids need not be secret, only different: `seed` is drawn anew for each relay.
    pub(super) fn new(session: String, seed: u128) -> Self {
        Self {
            session,
            seed,
            made: 0,
        }
    }

    /// What a stock peer gets says nothing beyond its name.
    pub(super) fn start_publication(&mut self, now: Now, start: &StartPublication) -> Bytes {
        if *start == StartPublication::default() {
            self.bare(now, MessageType::StartPublication)
        } else {
            self.message(now, MessageType::StartPublication, json(start))
        }
    }

    pub(super) fn pause_publication(&mut self, now: Now) -> Bytes {
        self.bare(now, MessageType::PausePublication)
    }

    /// A message that says nothing. Its name is its payload, since the stock agent drops what ends with its header.
    fn bare(&mut self, now: Now, message_type: MessageType) -> Bytes {
        let name = Bytes::copy_from_slice(message_type.as_str().as_bytes());
        self.message(now, message_type, name)
    }

    /// Acknowledges a data frame in the place of a peer that did so before.
    pub(super) fn acknowledge(&mut self, now: Now, acknowledged: &AgentMessage) -> Bytes {
        let payload = json(&Acknowledge {
            acknowledged_message_type: acknowledged.message_type.as_str().to_owned(),
            acknowledged_message_id: acknowledged.message_id.to_string(),
            acknowledged_message_sequence_number: acknowledged.sequence_number,
            is_sequential_message: true,
        });
        self.message(now, MessageType::Acknowledge, payload)
    }

    pub(super) fn channel_closed(
        &mut self,
        now: Now,
        destination: &str,
        reason: &str,
        exit_code: Option<i32>,
    ) -> Bytes {
        let payload = json(&ChannelClosed {
            message_schema_version: "1.0".to_owned(),
            message_id: self.id().to_string(),
            created_date: wall_time(now.unix_millis),
            destination_id: destination.to_owned(),
            session_id: self.session.clone(),
            message_type: "channel_closed".to_owned(),
            schema_version: 1,
            output: reason.to_owned(),
            moorline_exit_code: exit_code,
        });
        self.message(now, MessageType::ChannelClosed, payload)
    }

    fn message(&mut self, now: Now, message_type: MessageType, payload: Bytes) -> Bytes {
        let id = self.id();
        AgentMessage::control(message_type, id, now, FLAG_SYN | FLAG_FIN, payload).encode()
    }

    fn id(&mut self) -> Uuid {
        self.made = self.made.wrapping_add(1);
        let bytes = self.seed.wrapping_add(self.made).to_be_bytes();
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

/// What a client is told whose session has ended before it came.
pub(in crate::gateway) fn channel_closed(
    unix_millis: u64,
    session: &SessionId,
    reason: &str,
    exit_code: Option<i32>,
) -> Bytes {
    let now = Now {
        monotonic: Duration::ZERO,
        unix_millis,
    };
    let seed = Uuid::new_v4().as_u128();
    Composer::new(session.to_string(), seed).channel_closed(now, "", reason, exit_code)
}

fn json(payload: &impl Serialize) -> Bytes {
    // plain structures with text keys: serializing them cannot fail
    Bytes::from(serde_json::to_vec(payload).unwrap_or_default())
}
