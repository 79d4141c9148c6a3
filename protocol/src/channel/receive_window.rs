//! What has arrived and was not yet handed out.

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use crate::message::{AgentMessage, PayloadType};

/// Messages kept out of order: the limit of the stock client (client-wire §4.3).
pub(super) const MAX_HELD: usize = 10_000;

/// A stream message that waits for its turn.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) message_id: Uuid,
    pub(super) payload_type: PayloadType,
    pub(super) payload: Bytes,
    /// A message that came ahead of its turn is acknowledged when it is stored, one in turn when it is handed out.
    pub(super) acknowledged: bool,
}

/// The numbered messages of the peer. All operations take O(log n).
#[derive(Debug)]
pub(super) struct ReceiveWindow {
    /// The number whose turn it is.
    next: i64,
    held: BTreeMap<i64, Held>,
    /// Of payloads alone, as the sender's window counts: two ends with one size of window never overflow each other.
    held_bytes: usize,
    limit_bytes: usize,
}

impl ReceiveWindow {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self {
            next: 0,
            held: BTreeMap::new(),
            held_bytes: 0,
            limit_bytes,
        }
    }

    /// Takes a message of the stream. Returns whether it is to be acknowledged now: a duplicate is (the first
    /// acknowledgement may have been lost), and so is one ahead of its turn for which there was room. The message
    /// whose turn it is always has room, or a full window would never empty.
    pub(super) fn arrive(&mut self, message: &AgentMessage) -> bool {
        let number = message.sequence_number;
        if number < self.next {
            return true;
        }
        if let Some(held) = self.held.get(&number) {
            return held.acknowledged;
        }
        let bytes = message.payload.len();
        let is_ahead = number > self.next;
        if is_ahead && (self.held.len() >= MAX_HELD || self.held_bytes + bytes > self.limit_bytes) {
            return false;
        }
        let held = Held {
            message_id: message.message_id,
            payload_type: message.payload_type,
            payload: message.payload.clone(),
            acknowledged: is_ahead,
        };
        self.held.insert(number, held);
        self.held_bytes += bytes;
        is_ahead
    }

    /// The message whose turn it is, if it is here.
    pub(super) fn due(&self) -> Option<&Held> {
        self.held.get(&self.next)
    }

    /// Takes [`Self::due`], with its number.
    pub(super) fn take_due(&mut self) -> Option<(i64, Held)> {
        let number = self.next;
        let held = self.held.remove(&number)?;
        self.held_bytes = self.held_bytes.saturating_sub(held.payload.len());
        self.next = number.saturating_add(1);
        Some((number, held))
    }
}
