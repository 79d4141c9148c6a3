//! What was sent, or is to be sent, and is not yet acknowledged.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;

use super::rtt::Rtt;

/// Messages that may be unacknowledged at once: as many as a stock client buffers out of order.
pub(super) const MAX_UNACKNOWLEDGED: usize = 10_000;
/// Retransmission is considered at multiples of this time, and at most once each (client-wire §4.4).
const CHECK_INTERVAL_MS: u64 = 100;

#[derive(Debug)]
struct Unacknowledged {
    /// Encoded once, so that a repetition has the same bytes, id and date.
    frame: Bytes,
    payload_bytes: usize,
    /// Payload bytes of all messages before this one, of the whole stream.
    offset: u64,
    sent: Option<Sent>,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    first: Duration,
    last: Duration,
    /// Sent on more than one connection: how long its acknowledgement took says nothing.
    carried_over: bool,
}

/// The numbered messages of one direction, oldest first. All operations take O(log n).
#[derive(Debug, Default)]
pub(super) struct SendWindow {
    messages: BTreeMap<i64, Unacknowledged>,
    /// Number of the next new message.
    next: i64,
    /// Payload bytes of the whole stream.
    end_offset: u64,
    /// Messages from here on were not yet sent on the present connection.
    cursor: i64,
    unacknowledged_bytes: usize,
    resend_head: bool,
    last_resend: Option<Duration>,
}

impl SendWindow {
    pub(super) fn next_number(&self) -> i64 {
        self.next
    }

    /// Payload bytes that are not acknowledged.
    pub(super) fn unacknowledged_bytes(&self) -> usize {
        self.unacknowledged_bytes
    }

    /// Messages from the oldest unacknowledged one to the newest, acknowledged ones among them.
    pub(super) fn span(&self) -> usize {
        let head = self
            .messages
            .first_key_value()
            .map_or(self.next, |(&head, _)| head);
        usize::try_from(self.next.saturating_sub(head)).unwrap_or(usize::MAX)
    }

    /// Payload bytes of [`Self::span`]: the most that the receiver may have to keep.
    pub(super) fn span_bytes(&self) -> usize {
        let head = self
            .messages
            .first_key_value()
            .map_or(self.end_offset, |(_, head)| head.offset);
        usize::try_from(self.end_offset.saturating_sub(head)).unwrap_or(usize::MAX)
    }

    /// Appends the message that has [`Self::next_number`].
    pub(super) fn push(&mut self, frame: Bytes, payload_bytes: usize) {
        let message = Unacknowledged {
            frame,
            payload_bytes,
            offset: self.end_offset,
            sent: None,
        };
        self.messages.insert(self.next, message);
        self.next += 1;
        self.end_offset += payload_bytes as u64;
        self.unacknowledged_bytes += payload_bytes;
    }

    /// The next frame to send: a repetition first, then new messages in order.
    pub(super) fn transmit(&mut self, now: Duration) -> Option<Bytes> {
        if std::mem::take(&mut self.resend_head)
            && let Some(mut head) = self.messages.first_entry()
            && *head.key() < self.cursor
        {
            let message = head.get_mut();
            if let Some(sent) = &mut message.sent {
                sent.last = now;
            }
            return Some(message.frame.clone());
        }
        let (&number, message) = self.messages.range_mut(self.cursor..).next()?;
        self.cursor = number + 1;
        message.sent = Some(Sent {
            first: now,
            last: now,
            carried_over: message.sent.is_some(),
        });
        Some(message.frame.clone())
    }

    /// Removes one message. A number that is unknown, or was never sent, is ignored: acknowledgements are repeated,
    /// and are of one message each (client-wire §4.2).
    pub(super) fn acknowledge(&mut self, number: i64, now: Duration, rtt: &mut Rtt) {
        let Some(sent) = self.messages.get(&number).and_then(|message| message.sent) else {
            return;
        };
        if self
            .messages
            .first_key_value()
            .is_some_and(|(&head, _)| head == number)
        {
            self.resend_head = false; // the next head has a time of its own
        }
        if let Some(message) = self.messages.remove(&number) {
            self.unacknowledged_bytes = self.unacknowledged_bytes.saturating_sub(message.payload_bytes);
        }
        if !sent.carried_over {
            rtt.sample(now.saturating_sub(sent.first));
        }
    }

    /// When the head is due to be sent again. Only the head is, as with the stock peers.
    pub(super) fn due(&self, rtt: &Rtt) -> Option<Duration> {
        let (&number, head) = self.messages.first_key_value()?;
        if self.resend_head || number >= self.cursor {
            return None; // it waits to be transmitted
        }
        let due = head.sent?.last.saturating_add(rtt.timeout());
        let after_last = self.last_resend.map_or(Duration::ZERO, |last| {
            last.saturating_add(Duration::from_nanos(1))
        });
        Some(next_check(due.max(after_last)))
    }

    /// Marks the head for repetition if it is due.
    pub(super) fn timeout(&mut self, now: Duration, rtt: &Rtt) {
        if self.due(rtt).is_some_and(|due| due <= now) {
            self.resend_head = true;
            self.last_resend = Some(now);
        }
    }

    /// A new connection: everything unacknowledged is to be sent, in order.
    pub(super) fn rewind(&mut self) {
        self.cursor = 0;
        self.resend_head = false;
        self.last_resend = None;
    }

    /// The session is over: nothing will be acknowledged any more.
    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.unacknowledged_bytes = 0;
        self.resend_head = false;
    }
}

/// Rounds up to the next check.
fn next_check(time: Duration) -> Duration {
    let millis = u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    Duration::from_millis(
        millis
            .div_ceil(CHECK_INTERVAL_MS)
            .saturating_mul(CHECK_INTERVAL_MS),
    )
}

#[cfg(test)]
mod tests;
