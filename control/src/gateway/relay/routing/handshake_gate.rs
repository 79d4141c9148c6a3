//! The two places of the handshake where a stock client breaks unless the relay orders frames for it
//! (client-wire §4.5): the acknowledgement of its response must come before HandshakeComplete, and right after
//! HandshakeComplete of a port session nothing may come for a moment.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use moorline_protocol::{
    message::{AgentMessage, PayloadType},
    time::Now,
};
use uuid::Uuid;

/// How long HandshakeComplete waits for the acknowledgement.
const HOLD: Duration = Duration::from_secs(1);
/// How long a stock port client is left alone after it.
const QUIET: Duration = Duration::from_millis(200);
/// Output held back meanwhile; an agent sends little before it is acknowledged.
const HELD_FRAMES: usize = 64;

#[derive(Debug)]
pub(super) struct Held {
    pub(super) number: i64,
    pub(super) id: Uuid,
    pub(super) frame: Bytes,
}

#[derive(Debug, Default)]
pub(super) struct HandshakeGate {
    /// Number of the client's HandshakeResponse.
    response: Option<i64>,
    held: VecDeque<Held>,
    held_until: Option<Duration>,
    /// HandshakeComplete stands in the client's queue.
    complete: Option<i64>,
    quiet_until: Option<Duration>,
}

impl HandshakeGate {
    pub(super) fn response_sent(&mut self, number: i64) {
        self.response = Some(number);
    }

    /// Whether this output must wait: it is HandshakeComplete before the acknowledgement, or comes behind one that
    /// waits.
    pub(super) fn holds_output(
        &mut self,
        now: Now,
        message: &AgentMessage,
        is_acknowledged: impl Fn(i64) -> bool,
    ) -> bool {
        if self.held_until.is_some() {
            return true;
        }
        let early = message.payload_type == PayloadType::HandshakeComplete
            && self.response.is_some_and(|number| !is_acknowledged(number));
        if early {
            self.held_until = Some(now.monotonic + HOLD);
        }
        early
    }

    pub(super) fn hold(&mut self, number: i64, id: Uuid, frame: Bytes) {
        let repeated = self.held.iter().any(|held| held.number == number);
        if !repeated && self.has_room() {
            self.held.push_back(Held { number, id, frame });
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.held.len() < HELD_FRAMES
    }

    /// What may go on now, in order.
    pub(super) fn release(&mut self, now: Now, is_acknowledged: impl Fn(i64) -> bool) -> VecDeque<Held> {
        let Some(until) = self.held_until else {
            return VecDeque::new();
        };
        if until > now.monotonic && self.response.is_some_and(|number| !is_acknowledged(number)) {
            return VecDeque::new();
        }
        self.held_until = None;
        self.complete = self.held.front().map(|held| held.number);
        std::mem::take(&mut self.held)
    }

    pub(super) fn complete_queued(&mut self, number: i64) {
        self.complete = Some(number);
    }

    /// A frame goes out to a stock client of a port session.
    pub(super) fn sent(&mut self, now: Now, frame: &Bytes) {
        let Some(complete) = self.complete else { return };
        let is_complete = AgentMessage::decode(frame).is_ok_and(|message| {
            message.payload_type == PayloadType::HandshakeComplete && message.sequence_number == complete
        });
        if is_complete {
            self.complete = None;
            self.quiet_until = Some(now.monotonic + QUIET);
        }
    }

    pub(super) fn is_quiet(&self, now: Now) -> bool {
        self.quiet_until.is_some_and(|until| now.monotonic < until)
    }

    /// `quiet_until` stays set after its time: as a deadline it is only of interest while it lies ahead, which
    /// [`Self::quiet_over`] ends.
    pub(super) fn next_timeout(&self) -> Option<Duration> {
        [self.held_until, self.quiet_until].into_iter().flatten().min()
    }

    pub(super) fn quiet_over(&mut self, now: Now) {
        if self.quiet_until.is_some_and(|until| until <= now.monotonic) {
            self.quiet_until = None;
        }
    }
}
