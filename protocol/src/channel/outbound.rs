//! The way out: numbered messages, acknowledgements, message ids, and where data is cut.

use bytes::Bytes;
use ring::digest;
use serde::Serialize;
use uuid::Uuid;

use super::{DataChannel, Role};
use crate::message::{AgentMessage, FLAG_FIN, FLAG_SYN, MessageType, PayloadType};

/// Acknowledgements and other unnumbered messages that wait to be sent. Beyond it they are dropped, which is safe:
/// the peer repeats what is not acknowledged.
const MAX_CONTROL: usize = 10_000;
/// A character of UTF-8 has at most this many bytes after its first.
pub(super) const MAX_CONTINUATION_BYTES: usize = 3;

/// Makes message ids, and what else must be random, from a seed: as good as random to whoever does not know it.
#[derive(Debug)]
pub(super) struct MessageIds {
    seed: [u8; 32],
    counter: u64,
}

impl MessageIds {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0 }
    }

    fn next(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes(self.draw()).into_uuid()
    }

    /// Bytes that were never drawn before, at most 32. What was drawn tells nothing of what will be.
    pub(super) fn draw<const N: usize>(&mut self) -> [u8; N] {
        const { assert!(N <= digest::SHA256_OUTPUT_LEN) };
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&self.seed);
        context.update(&self.counter.to_be_bytes());
        self.counter = self.counter.wrapping_add(1);
        let bytes = context.finish();
        bytes.as_ref().first_chunk().copied().unwrap_or([0; N])
    }
}

impl DataChannel {
    /// Appends one message to the numbered stream. Returns its payload in clear, which shares the frame's memory where
    /// that is not encrypted.
    pub(super) fn push(&mut self, payload_type: PayloadType, payload: Bytes) -> Bytes {
        let sequence_number = self.send.next_number();
        let (message_type, first) = match self.role {
            Role::Agent => (MessageType::OutputStreamData, FLAG_SYN),
            Role::Client => (MessageType::InputStreamData, 0), // client-wire §3.5
        };
        let clear = payload.clone();
        let payload = self.encryption.seal(self.role, payload_type, payload);
        let payload_bytes = payload.len();
        let is_clear = self.encryption.overhead(self.role, payload_type) == 0;
        let message = AgentMessage {
            message_type,
            schema_version: 1,
            created_date: self.now.unix_millis,
            sequence_number,
            flags: if sequence_number == 0 { first } else { 0 },
            message_id: self.ids.next(),
            payload_type,
            payload,
        };
        let frame = message.encode();
        let kept = match is_clear {
            true => frame.slice(frame.len() - payload_bytes..),
            false => clear,
        };
        self.send.push(frame, payload_bytes);
        kept
    }

    pub(super) fn push_control(&mut self, message_type: MessageType, payload: Bytes) {
        if self.control.len() < MAX_CONTROL {
            let id = self.ids.next();
            let flags = FLAG_SYN | FLAG_FIN;
            let message = AgentMessage::control(message_type, id, self.now, flags, payload);
            self.control.push_back(message.encode());
        }
    }

    /// Not while disconnected: the peer repeats the message, and is answered then.
    pub(super) fn acknowledge(&mut self, message_id: Uuid, number: i64) {
        if self.connected {
            let received = match self.role {
                Role::Agent => MessageType::InputStreamData,
                Role::Client => MessageType::OutputStreamData,
            };
            let payload = format!(
                concat!(
                    r#"{{"AcknowledgedMessageType":"{}","AcknowledgedMessageId":"{}","#,
                    r#""AcknowledgedMessageSequenceNumber":{},"IsSequentialMessage":true}}"#
                ),
                received.as_str(),
                message_id,
                number,
            );
            self.push_control(MessageType::Acknowledge, payload.into());
        }
    }
}

/// None of our payloads has a map with keys that are not text, the one thing that cannot be written.
pub(super) fn json(payload: &impl Serialize) -> Bytes {
    serde_json::to_vec(payload).unwrap_or_default().into()
}

/// The first payload of at most `largest` bytes, and the rest. A character of UTF-8 is left whole if its end is
/// within reach; bytes that are no text are cut anywhere.
pub(super) fn cut(data: &[u8], largest: usize) -> (&[u8], &[u8]) {
    let is_border = |at: usize| data.get(at).is_none_or(|byte| byte & 0b1100_0000 != 0b1000_0000);
    let at = (largest.saturating_sub(MAX_CONTINUATION_BYTES)..=largest)
        .rev()
        .find(|&at| is_border(at))
        .unwrap_or(largest);
    data.split_at_checked(at).unwrap_or((data, &[]))
}
