//! One direction of a session: what waits for its receiver, what the receiver has not acknowledged, what it has.
//!
//! Every unacknowledged data frame is kept, because neither end can be relied on to repeat it in time: stock peers
//! repeat only the oldest, some clients repeat nothing (client-wire §6.1). The bytes kept are bounded by not reading
//! the sender.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use uuid::Uuid;

use super::number_set::NumberSet;

/// Bytes waiting for the receiver's socket above which its sender is not read.
const QUEUE_BYTES: usize = 1024 * 1024;
/// Bytes kept for a receiver that is away, or that does not acknowledge, above which its sender is not read.
const UNACKNOWLEDGED_BYTES: usize = 8 * 1024 * 1024;
const AWAY_BYTES: usize = 4 * 1024 * 1024;
/// Unacknowledged messages above which the sender is not read; small messages cost more than their bytes.
const UNACKNOWLEDGED_MESSAGES: usize = 65_536;
const AWAY_MESSAGES: usize = 10_000;

enum Item {
    /// A data frame; its bytes are in `unacknowledged`.
    Data(i64),
    /// Anything outside the numbered stream.
    Other(Bytes),
}

struct Kept {
    id: Uuid,
    frame: Bytes,
    /// Stands in the queue: a repetition of it adds nothing.
    queued: bool,
    /// How often it went out on the receiver's present connection.
    sent: u32,
    /// It went out on an earlier connection, whose acknowledgements may have been lost.
    sent_before: bool,
}

/// What became of a data frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    /// It waits for its receiver.
    Kept,
    /// The receiver acknowledged it before: the sender missed that acknowledgement.
    Acknowledged,
}

#[derive(Default)]
pub(super) struct Lane {
    receiver_present: bool,
    /// The receiver is there, and not ready for this stream: its data is kept.
    holds_data: bool,
    /// Nothing is known of what was acknowledged before this lane was made.
    resumed: bool,
    /// The highest number that was acknowledged on the receiver's present connection.
    highest_acknowledged: Option<i64>,
    queue: VecDeque<Item>,
    queued_bytes: usize,
    unacknowledged: BTreeMap<i64, Kept>,
    unacknowledged_bytes: usize,
    acknowledged: NumberSet,
}

impl Lane {
    pub(super) fn new(resumed: bool) -> Self {
        Self {
            resumed,
            ..Self::default()
        }
    }

    /// The receiver's new socket stands: everything unacknowledged goes out again, in order.
    pub(super) fn receiver_attached(&mut self) {
        self.receiver_detached();
        self.receiver_present = true;
        if !self.holds_data {
            self.queue_all();
        }
    }

    /// A lane whose data stays until [`Self::release`]; other frames pass.
    pub(super) fn held(receiver_present: bool) -> Self {
        Self {
            receiver_present,
            holds_data: true,
            ..Self::default()
        }
    }

    pub(super) fn hold(&mut self) {
        self.holds_data = true;
    }

    /// Everything that was kept goes out, in order.
    pub(super) fn release(&mut self) {
        if std::mem::take(&mut self.holds_data) && self.receiver_present {
            self.queue_all();
        }
    }

    fn queue_all(&mut self) {
        for (number, kept) in &mut self.unacknowledged {
            kept.queued = true;
            self.queued_bytes += kept.frame.len();
            self.queue.push_back(Item::Data(*number));
        }
    }

    /// Its socket is gone. Acknowledgements that waited for it are not kept: it will repeat what it misses them for,
    /// and is answered from memory.
    pub(super) fn receiver_detached(&mut self) {
        self.receiver_present = false;
        self.queue.clear();
        self.queued_bytes = 0;
        for kept in self.unacknowledged.values_mut() {
            kept.queued = false;
            kept.sent_before |= kept.sent > 0;
            kept.sent = 0;
        }
        self.highest_acknowledged = None;
    }

    pub(super) fn push_data(&mut self, number: i64, id: Uuid, frame: Bytes) -> Accepted {
        if self.acknowledged.contains(number) {
            return Accepted::Acknowledged;
        }
        let present = self.unacknowledged.get(&number);
        if present.is_some_and(|kept| kept.queued) {
            return Accepted::Kept;
        }
        let (sent, sent_before) = present.map_or((0, self.resumed), |kept| (kept.sent, kept.sent_before));
        let queued = self.receiver_present && !self.holds_data;
        if queued {
            self.queued_bytes += frame.len();
            self.queue.push_back(Item::Data(number));
        }
        self.unacknowledged_bytes += frame.len();
        let kept = Kept {
            id,
            frame,
            queued,
            sent,
            sent_before,
        };
        if let Some(replaced) = self.unacknowledged.insert(number, kept) {
            self.unacknowledged_bytes -= replaced.frame.len();
        }
        Accepted::Kept
    }

    /// A frame outside the numbered stream; dropped when nobody is there to take it.
    pub(super) fn push_other(&mut self, frame: Bytes) {
        if self.receiver_present {
            self.queued_bytes += frame.len();
            self.queue.push_back(Item::Other(frame));
        }
    }

    /// A frame that goes before everything that waits.
    pub(super) fn push_front(&mut self, frame: Bytes) {
        if self.receiver_present {
            self.queued_bytes += frame.len();
            self.queue.push_front(Item::Other(frame));
        }
    }

    /// An answer of the relay itself to the receiver, which can be left out when much waits already: the receiver
    /// will repeat its question.
    pub(super) fn push_answer(&mut self, frame: Bytes) {
        if self.queued_bytes < 2 * QUEUE_BYTES {
            self.push_other(frame);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        loop {
            match self.queue.pop_front()? {
                Item::Other(frame) => {
                    self.queued_bytes -= frame.len();
                    return Some(frame);
                }
                Item::Data(number) => {
                    // acknowledged while it waited (a repetition did): nothing to send
                    let Some(kept) = self.unacknowledged.get_mut(&number).filter(|kept| kept.queued) else {
                        continue;
                    };
                    kept.queued = false;
                    kept.sent = kept.sent.saturating_add(1);
                    self.queued_bytes -= kept.frame.len();
                    return Some(kept.frame.clone());
                }
            }
        }
    }

    /// The id of a data frame that the receiver was sent and has not acknowledged.
    pub(super) fn unacknowledged_id(&self, number: i64) -> Option<Uuid> {
        self.unacknowledged
            .get(&number)
            .filter(|kept| kept.sent > 0)
            .map(|kept| kept.id)
    }

    /// `false`: the receiver was never sent this number, so it means nothing. Taken at its word, it would swallow
    /// what comes under that number.
    pub(super) fn acknowledge(&mut self, number: i64) -> bool {
        let Some(kept) = self.unacknowledged.get(&number) else {
            // after a restart it may be of a frame that is not known here; its sender will repeat it
            return self.resumed || self.acknowledged.contains(number);
        };
        if kept.sent == 0 && !kept.sent_before {
            return false;
        }
        self.unacknowledged_bytes -= kept.frame.len();
        if kept.queued {
            self.queued_bytes -= kept.frame.len();
        }
        self.unacknowledged.remove(&number);
        self.acknowledged.insert(number);
        self.highest_acknowledged = self.highest_acknowledged.max(Some(number));
        true
    }

    /// The receiver had this on an earlier connection, was sent it twice on this one, and has acknowledged something
    /// behind it. Frames go out in order, so it has seen it and will say nothing.
    pub(super) fn is_silently_received(&self, number: i64) -> bool {
        self.unacknowledged.get(&number).is_some_and(|kept| {
            kept.sent_before && !kept.queued && kept.sent >= 2 && self.highest_acknowledged > Some(number)
        })
    }

    pub(super) fn is_acknowledged(&self, number: i64) -> bool {
        self.acknowledged.contains(number)
    }

    /// Whether the sender may be read.
    pub(super) fn has_room(&self) -> bool {
        let (bytes, messages) = if self.receiver_present && !self.holds_data {
            (UNACKNOWLEDGED_BYTES, UNACKNOWLEDGED_MESSAGES)
        } else {
            (AWAY_BYTES, AWAY_MESSAGES)
        };
        self.queued_bytes < QUEUE_BYTES
            && self.unacknowledged_bytes < bytes
            && self.unacknowledged.len() < messages
    }

    /// Nothing waits for the receiver's socket.
    pub(super) fn is_sent(&self) -> bool {
        self.queue.is_empty()
    }

    /// The receiver has everything.
    pub(super) fn is_delivered(&self) -> bool {
        self.queue.is_empty() && self.unacknowledged.is_empty()
    }

    pub(super) fn unacknowledged_bytes(&self) -> usize {
        self.unacknowledged_bytes
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("receiver_present", &self.receiver_present)
            .field("queued_bytes", &self.queued_bytes)
            .field("unacknowledged", &self.unacknowledged.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn drain(lane: &mut Lane) -> Vec<Bytes> {
        std::iter::from_fn(|| lane.pop()).collect()
    }

    #[test]
    fn what_was_lost_with_a_socket_goes_out_again_in_order() {
        let mut lane = Lane::default();
        lane.receiver_attached();
        for (number, text) in [(0, "a"), (1, "b"), (2, "c")] {
            lane.push_data(number, Uuid::nil(), frame(text));
        }
        assert_eq!(drain(&mut lane), ["a", "b", "c"]);
        lane.acknowledge(1);
        lane.receiver_detached();
        lane.push_data(3, Uuid::nil(), frame("d"));
        assert_eq!(lane.pop(), None);
        lane.receiver_attached();
        assert_eq!(drain(&mut lane), ["a", "c", "d"]);
    }

    #[test]
    fn a_repetition_of_a_waiting_frame_adds_nothing() {
        let mut lane = Lane::default();
        lane.receiver_attached();
        lane.push_data(0, Uuid::nil(), frame("a"));
        lane.push_data(0, Uuid::nil(), frame("a"));
        assert_eq!(drain(&mut lane), ["a"]);
        lane.push_data(0, Uuid::nil(), frame("a"));
        assert_eq!(drain(&mut lane), ["a"], "one that was sent is repeated");
        lane.acknowledge(0);
        assert_eq!(lane.push_data(0, Uuid::nil(), frame("a")), Accepted::Acknowledged);
        assert_eq!(drain(&mut lane), Vec::<Bytes>::new());
        assert_eq!((lane.queued_bytes, lane.unacknowledged_bytes), (0, 0));
    }

    #[test]
    fn a_frame_acknowledged_while_it_waits_again_is_not_sent() {
        let mut lane = Lane::default();
        lane.receiver_attached();
        lane.push_data(0, Uuid::nil(), frame("a"));
        assert_eq!(drain(&mut lane), ["a"]);
        lane.push_data(0, Uuid::nil(), frame("a"));
        lane.acknowledge(0);
        assert_eq!(lane.pop(), None);
        assert_eq!((lane.queued_bytes, lane.unacknowledged_bytes), (0, 0));
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_swallows_nothing() {
        let mut lane = Lane::default();
        lane.receiver_attached();
        assert!(!lane.acknowledge(1), "nothing has this number yet");
        lane.push_data(0, Uuid::nil(), frame("a"));
        assert!(!lane.acknowledge(0), "it waits for the socket");
        lane.push_data(1, Uuid::nil(), frame("b"));
        assert_eq!(drain(&mut lane), ["a", "b"]);
        assert!(lane.acknowledge(0) && lane.acknowledge(0));
    }

    #[test]
    fn a_number_that_was_forgotten_and_comes_again_is_counted_once() {
        let mut lane = Lane::default();
        lane.receiver_attached();
        lane.push_data(0, Uuid::nil(), frame("a"));
        assert_eq!(drain(&mut lane), ["a"]);
        lane.push_data(0, Uuid::nil(), frame("a"));
        lane.acknowledge(0);
        lane.acknowledged = NumberSet::default();
        lane.push_data(0, Uuid::nil(), frame("a"));
        assert_eq!(
            drain(&mut lane),
            ["a"],
            "its first place in the queue is nobody's"
        );
        assert_eq!(lane.queued_bytes, 0);
    }

    #[test]
    fn a_full_queue_stops_the_sender_until_it_drains() {
        let mut lane = Lane::default();
        lane.receiver_attached();
        let big = Bytes::from(vec![0; 32 * 1024]);
        let mut number = 0;
        while lane.has_room() {
            lane.push_data(number, Uuid::nil(), big.clone());
            number += 1;
        }
        assert_eq!(number, 32);
        let _sent = lane.pop();
        assert!(lane.has_room());
    }

    #[test]
    fn a_receiver_that_never_acknowledges_stops_the_sender() {
        let mut lane = Lane::default();
        lane.receiver_attached();
        let mut number = 0;
        while lane.has_room() {
            lane.push_data(number, Uuid::nil(), frame("x"));
            let _sent = lane.pop();
            number += 1;
        }
        assert_eq!(usize::try_from(number), Ok(UNACKNOWLEDGED_MESSAGES));
        lane.acknowledge(0);
        assert!(lane.has_room());
    }
}
