//! What of the recording the endpoint has, what goes out next, and what an answer means: without socket or clock.
//!
//! What the endpoint has and not yet on its disk is kept: where its machine loses power it has less than it said.

use std::collections::VecDeque;

use serde::Deserialize;

use crate::recording::{Chunk, Packed};

/// The largest request, in bytes of the network.
pub(super) const MAX_CHUNK_BYTES: usize = 256 * 1024;
/// An endpoint that refuses a transcript so often will not take it.
const MAX_REFUSALS: u32 = 6;
/// What an endpoint says to a node that it knows, or knows no more. To a request that does not prove whose it is it says
/// something else.
const NOT_THIS_NODES: &[u8] = b"<AccessDeniedException>";

/// The endpoint will not take the transcript.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::session) enum TranscriptError {
    #[error("the endpoint refuses the transcript with HTTP status {status}: {text}")]
    Refused { status: u16, text: String },
    #[error("the endpoint holds {theirs} bytes of the transcript, and {ours} are right")]
    Diverged { ours: u64, theirs: u64 },
    #[error("what was kept of the transcript on the disk cannot be read: {0}")]
    Spool(String),
}

/// What to do after an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    GoOn,
    /// The same again after a pause; the reason.
    Later(String),
}

/// What the endpoint says it has.
#[derive(Deserialize)]
struct Stored {
    #[serde(rename = "Length")]
    length: u64,
    /// And of that on its disk for good; an endpoint that does not say so has all of it there, as far as we know.
    #[serde(rename = "Durable")]
    durable: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    Complete,
    Failed(TranscriptError),
}

/// Pieces that follow each other.
#[derive(Debug, Default)]
struct Pieces {
    pieces: VecDeque<Packed>,
    /// Of the recording.
    length: u64,
    /// Of memory.
    held_bytes: usize,
}

impl Pieces {
    fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    fn push_back(&mut self, piece: Packed) {
        if !piece.is_empty() {
            self.length += piece.len() as u64;
            self.held_bytes += piece.held_bytes();
            self.pieces.push_back(piece);
        }
    }

    fn pop_front(&mut self) -> Option<Packed> {
        let piece = self.pieces.pop_front()?;
        self.length -= piece.len() as u64;
        self.held_bytes -= piece.held_bytes();
        if self.pieces.is_empty() {
            self.pieces = VecDeque::new(); // with the memory that it took
        }
        Some(piece)
    }

    fn append(&mut self, other: Self) {
        for piece in other.pieces {
            self.push_back(piece);
        }
    }

    /// Leaves its first `length` bytes, and returns the others.
    fn split_off(&mut self, length: u64) -> Self {
        let (mut head, mut tail) = (Self::default(), Self::default());
        while let Some(piece) = self.pop_front() {
            let left = usize::try_from(length.saturating_sub(head.length)).unwrap_or(usize::MAX);
            let (first, rest) = piece.split(left);
            head.push_back(first);
            tail.push_back(rest);
        }
        *self = head;
        tail
    }
}

/// The transfer of one recording.
#[derive(Debug, Default)]
pub(super) struct Shipment {
    /// What the endpoint has on its disk.
    durable: u64,
    /// What it has, and perhaps not on its disk: what ends at `offset`, as far as it is not in the spool.
    kept: Pieces,
    /// Sent and not confirmed, beginning at `offset`.
    chunk: Packed,
    /// Whether that is in the spool.
    is_spooled: bool,
    /// What comes behind it: it was kept, and the endpoint lost it; or the endpoint is slower than the session.
    waiting: Pieces,
    /// What the endpoint is known to have.
    offset: u64,
    /// Whether the request under way says that nothing follows.
    last_under_way: bool,
    refusals: u32,
    state: State,
}

impl Shipment {
    /// Bytes of memory that it takes.
    pub(super) fn held_bytes(&self) -> usize {
        self.kept.held_bytes + self.chunk.held_bytes() + self.waiting.held_bytes
    }

    /// Bytes of memory of what was not sent, and how much of the recording that is.
    pub(super) fn waiting(&self) -> (usize, u64) {
        (self.waiting.held_bytes, self.waiting.length)
    }

    /// What the endpoint has not on its disk, as far as it is not in the spool; and where that begins.
    pub(super) fn not_durable(&self) -> (u64, impl Iterator<Item = &Packed>) {
        let chunk = std::iter::once(&self.chunk).filter(|_| !self.is_spooled);
        let parts = self.kept.pieces.iter().chain(chunk).chain(&self.waiting.pieces);
        let from = match self.is_spooled {
            true => self.next_offset(),
            false => self.offset.saturating_sub(self.kept.length),
        };
        (from, parts.filter(|part| !part.is_empty()))
    }

    /// All of that is in the spool now.
    pub(super) fn spooled(&mut self) {
        (self.kept, self.waiting) = (Pieces::default(), Pieces::default());
        self.is_spooled = true;
    }

    /// Up to here the endpoint has the recording.
    pub(super) fn confirmed(&self) -> u64 {
        self.offset
    }

    /// And up to here on its disk.
    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    /// Where what was not sent yet begins.
    pub(super) fn next_offset(&self) -> u64 {
        self.offset.saturating_add(self.chunk.len() as u64)
    }

    /// Whether bytes wait that were sent before.
    pub(super) fn repeats(&self) -> bool {
        !self.chunk.is_empty()
    }

    pub(super) fn is_over(&self) -> bool {
        self.state != State::Open
    }

    pub(super) fn failure(&self) -> Option<&TranscriptError> {
        match &self.state {
            State::Failed(error) => Some(error),
            State::Open | State::Complete => None,
        }
    }

    /// Gives it what to send next; only when nothing waits for a repetition. `is_spooled`: it is in the spool.
    pub(super) fn load(&mut self, piece: Packed, is_spooled: bool) {
        if self.chunk.is_empty() {
            self.chunk = piece;
            self.is_spooled = is_spooled;
        }
    }

    /// Gives it what comes behind all that it has.
    pub(super) fn push(&mut self, piece: Packed) {
        self.waiting.push_back(piece);
    }

    /// Whether something waits that is not in the spool.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next that waits and is not in the spool: as much as one request takes, of the recording at most `most` bytes.
    pub(super) fn next_waiting(&mut self, most: usize) -> Option<Packed> {
        let first = self.waiting.pop_front()?;
        let (mut held, mut length) = (first.held_bytes(), first.len());
        let mut parts = vec![first];
        while let Some(next) = self.waiting.pieces.front() {
            held += next.held_bytes();
            length += next.len();
            if held > MAX_CHUNK_BYTES || length > most {
                break;
            }
            parts.extend(self.waiting.pop_front());
        }
        Some(Packed::joined(parts))
    }

    /// The next request. `is_last`: nothing follows it.
    pub(super) fn next_chunk(&mut self, is_last: bool) -> Chunk {
        self.last_under_way = is_last;
        Chunk {
            offset: self.offset,
            piece: self.chunk.clone(),
            is_last: self.last_under_way,
            is_durable: false,
            is_sealed: false,
        }
    }

    /// The endpoint answered the last request.
    pub(super) fn answered(&mut self, status: u16, body: &[u8]) -> Verdict {
        let stored = serde_json::from_slice(body);
        match (status, stored) {
            (200, Ok(Stored { length, durable })) => {
                let verdict = self.holds(length, true);
                self.is_durable_to(durable.unwrap_or(length));
                verdict
            }
            (409, Ok(Stored { length, .. })) => self.holds(length, false),
            (200..300 | 404 | 409 | 410 | 413, _) => self.refused(status, body),
            (403, _) if body.starts_with(NOT_THIS_NODES) => self.refused(status, body),
            // what is not about the recording comes right again: a clock that differs, credentials that ended, a slow link,
            // something between. What was closed for what it has is told as closed the next time.
            _ => Verdict::Later(format!("HTTP status {status}: {}", beginning(body))),
        }
    }

    /// The endpoint has this many bytes now.
    fn holds(&mut self, length: u64, accepted: bool) -> Verdict {
        let sent_to = self.offset.saturating_add(self.chunk.len() as u64);
        if length < self.durable || length > sent_to {
            return self.fail(TranscriptError::Diverged {
                ours: length.clamp(self.durable, sent_to),
                theirs: length,
            });
        }
        if length < self.offset {
            return self.go_back(length);
        }
        let progress = length > self.offset;
        let taken = usize::try_from(length - self.offset).unwrap_or(self.chunk.len());
        let (taken, left) = std::mem::take(&mut self.chunk).split(taken);
        if !self.is_spooled {
            self.kept.push_back(taken);
        }
        self.chunk = left;
        self.offset = length;
        if accepted && self.chunk.is_empty() {
            self.refusals = 0;
            if self.last_under_way {
                self.state = State::Complete;
            }
            return Verdict::GoOn;
        }
        match progress {
            true => Verdict::GoOn,
            false => self.refused(409, b"it wants what it was sent"),
        }
    }

    /// The endpoint's machine lost its power, and with it what was not on its disk: that goes out again, from the spool or
    /// from what is kept.
    fn go_back(&mut self, length: u64) -> Verdict {
        tracing::warn!(
            bytes = self.offset - length,
            "the endpoint lost the end of the transcript; it is sent again"
        );
        let from = self.offset - self.kept.length;
        let mut lost = self.kept.split_off(length.saturating_sub(from));
        if !self.is_spooled {
            lost.push_back(std::mem::take(&mut self.chunk));
        }
        lost.append(std::mem::take(&mut self.waiting));
        self.chunk = Packed::default();
        self.waiting = lost;
        self.offset = length;
        self.refused(409, b"it lost what it had")
    }

    /// What the endpoint has on its disk need not be kept here.
    fn is_durable_to(&mut self, durable: u64) {
        self.durable = durable.clamp(self.durable, self.offset.max(self.durable));
        let mut from = self.offset - self.kept.length;
        while let Some(first) = self.kept.pieces.front()
            && from + first.len() as u64 <= self.durable
        {
            from += first.len() as u64;
            self.kept.pop_front();
        }
    }

    fn refused(&mut self, status: u16, body: &[u8]) -> Verdict {
        let text = beginning(body);
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals >= MAX_REFUSALS {
            return self.fail(TranscriptError::Refused { status, text });
        }
        Verdict::Later(format!("HTTP status {status}: {text}"))
    }

    /// The recording cannot go on.
    pub(super) fn give_up(&mut self, error: TranscriptError) {
        self.fail(error);
    }

    fn fail(&mut self, error: TranscriptError) -> Verdict {
        tracing::error!(%error, "the transcript cannot go on");
        self.state = State::Failed(error);
        self.chunk = Packed::default();
        (self.kept, self.waiting) = (Pieces::default(), Pieces::default());
        Verdict::GoOn
    }
}

fn beginning(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 1024 * 1024;
    const SKEWED: &[u8] =
        b"<InvalidSignatureException><Message>Signature expired</Message></InvalidSignatureException>";

    /// The endpoint's side as agreed: it appends at its length and refuses any other offset.
    #[derive(Default)]
    struct Endpoint {
        stored: Vec<u8>,
        durable: usize,
        complete: bool,
    }

    impl Endpoint {
        fn post(&mut self, chunk: &Chunk) -> (u16, Vec<u8>) {
            let fits = usize::try_from(chunk.offset).unwrap() == self.stored.len();
            if fits {
                self.stored.extend_from_slice(&chunk.piece.plain());
                self.complete |= chunk.is_last;
                if chunk.is_last {
                    self.durable = self.stored.len();
                }
            }
            let body = format!(
                "{{\"Length\":{},\"Durable\":{}}}",
                self.stored.len(),
                self.durable
            );
            (if fits { 200 } else { 409 }, body.into_bytes())
        }

        fn lose_power(&mut self, kept: usize) {
            let left = self.durable + kept % (self.stored.len() - self.durable + 1);
            self.stored.truncate(left);
        }
    }

    #[derive(Debug, Clone)]
    enum Fate {
        Answered,
        AnswerLost,
        NeverArrived,
        Unavailable,
        /// Who asks is not proven: the endpoint's clock is wrong.
        NotProven,
        /// And what its disk has is synced.
        Synced,
        /// The machine of the endpoint loses its power afterwards; so much of what was not synced is left.
        PowerCut(usize),
        /// What is only in memory goes into the spool beforehand.
        Spooled,
        /// What was written waits behind what is under way.
        Pushed,
    }

    /// Of a terminal, which gets smaller, or of an encrypted recording.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300),
            proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b')], 0..4000),
        ]
    }

    fn fate() -> impl Strategy<Value = Fate> {
        prop_oneof![
            Just(Fate::Answered),
            Just(Fate::AnswerLost),
            Just(Fate::NeverArrived),
            Just(Fate::Unavailable),
            Just(Fate::NotProven),
            Just(Fate::Synced),
            any::<usize>().prop_map(Fate::PowerCut),
            Just(Fate::Spooled),
            Just(Fate::Pushed),
        ]
    }

    /// The node's side without time: what a spool has, and what is written.
    #[derive(Default)]
    struct Node {
        shipment: Shipment,
        spool: Option<(u64, Vec<u8>)>,
        written: Vec<u8>,
    }

    impl Node {
        fn spool_end(&self) -> Option<u64> {
            self.spool
                .as_ref()
                .map(|(start, bytes)| start + bytes.len() as u64)
        }

        fn spool(&mut self) {
            let (from, parts) = self.shipment.not_durable();
            let mut bytes = parts.map(Packed::plain).collect::<Vec<_>>().concat();
            bytes.append(&mut self.written);
            let (_, spooled) = self.spool.get_or_insert((from, Vec::new()));
            spooled.append(&mut bytes);
            self.shipment.spooled();
        }

        fn load(&mut self) {
            let next = self.shipment.next_offset();
            if let Some((start, bytes)) = &self.spool
                && start + (bytes.len() as u64) > next
            {
                let at = usize::try_from(next.checked_sub(*start).expect("it is in the spool")).unwrap();
                let end = bytes.len().min(at + 100);
                self.shipment.load(Packed::new(&bytes[at..end]), true);
            } else if let Some(waiting) = self.shipment.next_waiting(MOST) {
                self.shipment.load(waiting, false);
            } else {
                self.shipment
                    .load(Packed::new(&std::mem::take(&mut self.written)), false);
            }
        }

        fn is_drained(&self) -> bool {
            let next = self.shipment.next_offset();
            self.spool_end().is_none_or(|end| end <= next)
                && !self.shipment.has_waiting()
                && self.written.is_empty()
        }
    }

    proptest! {
        #[test]
        fn whatever_is_lost_the_endpoint_has_every_byte_once(
            pieces in proptest::collection::vec(piece(), 0..12),
            fates in proptest::collection::vec(fate(), 0..60),
        ) {
            let mut endpoint = Endpoint::default();
            let mut node = Node::default();
            let mut pieces_left = pieces.iter();
            let mut fates = fates.into_iter();
            for _ in 0..300 {
                let piece = pieces_left.next();
                node.written.extend_from_slice(piece.map_or(&[], Vec::as_slice));
                let fate = fates.next().unwrap_or(Fate::Answered);
                match fate {
                    Fate::Spooled => node.spool(),
                    Fate::Pushed => node.shipment.push(Packed::new(&std::mem::take(&mut node.written))),
                    _ => {}
                }
                if !node.shipment.repeats() {
                    node.load();
                }
                let chunk = node.shipment.next_chunk(piece.is_none() && node.is_drained());
                match fate {
                    Fate::Answered | Fate::Synced | Fate::PowerCut(_) | Fate::Spooled | Fate::Pushed => {
                        let (status, body) = endpoint.post(&chunk);
                        node.shipment.answered(status, &body);
                    }
                    Fate::AnswerLost => drop(endpoint.post(&chunk)),
                    Fate::NeverArrived => {}
                    Fate::Unavailable => {
                        let is_later = matches!(node.shipment.answered(503, b"<busy>"), Verdict::Later(_));
                        prop_assert!(is_later);
                    }
                    Fate::NotProven => {
                        let is_later = matches!(node.shipment.answered(403, SKEWED), Verdict::Later(_));
                        prop_assert!(is_later);
                    }
                }
                if node.shipment.is_over() {
                    break;
                }
                match fate {
                    Fate::Synced => endpoint.durable = endpoint.stored.len(),
                    Fate::PowerCut(kept) => endpoint.lose_power(kept),
                    _ => {}
                }
                if node.spool_end().is_some_and(|end| end <= node.shipment.durable()) {
                    node.spool = None;
                }
            }
            // an endpoint that loses its power again and again, and takes nothing in between, is given up
            let is_given_up = matches!(node.shipment.failure(), Some(TranscriptError::Refused { .. }));
            prop_assert!(node.shipment.is_over());
            prop_assert!(is_given_up || endpoint.complete, "{:?}", node.shipment.failure());
            let sent = pieces.concat();
            match is_given_up {
                true => prop_assert!(sent.starts_with(&endpoint.stored)),
                false => prop_assert_eq!(endpoint.stored, sent),
            }
        }
    }

    #[test]
    fn an_endpoint_that_has_lost_what_it_said_is_on_its_disk_or_invented_bytes_ends_the_transfer() {
        for (durable, theirs) in [(10_u64, 3_u64), (4, 3), (0, 500)] {
            let mut shipment = Shipment::default();
            shipment.load(Packed::new(b"0123456789"), false);
            shipment.next_chunk(false);
            shipment.answered(200, format!("{{\"Length\":10,\"Durable\":{durable}}}").as_bytes());
            shipment.load(Packed::new(b"more"), false);
            shipment.next_chunk(false);
            shipment.answered(409, format!("{{\"Length\":{theirs}}}").as_bytes());
            assert!(matches!(
                shipment.failure(),
                Some(TranscriptError::Diverged { .. })
            ));
        }
    }

    #[test]
    fn what_the_endpoint_lost_with_its_power_goes_out_again_from_the_exact_byte() {
        let mut shipment = Shipment::default();
        for (bytes, answer) in [
            ("0123", r#"{"Length":4,"Durable":0}"#),
            ("4567", r#"{"Length":8,"Durable":2}"#),
        ] {
            shipment.load(Packed::new(bytes.as_bytes()), false);
            shipment.next_chunk(false);
            assert_eq!(shipment.answered(200, answer.as_bytes()), Verdict::GoOn);
        }
        shipment.load(Packed::new(b"89"), false);
        shipment.next_chunk(false);
        let verdict = shipment.answered(409, br#"{"Length":3}"#);
        assert!(matches!(verdict, Verdict::Later(_)));
        let mut again = Vec::new();
        assert_eq!(shipment.next_offset(), 3);
        while let Some(lost) = shipment.next_waiting(MOST) {
            again.extend_from_slice(&lost.plain());
        }
        assert_eq!(again, b"3456789");
    }

    #[test]
    fn a_refusal_is_tried_again_a_few_times_and_an_outage_for_ever() {
        let mut shipment = Shipment::default();
        shipment.load(Packed::new(b"x"), false);
        shipment.next_chunk(false);
        for _ in 0..100 {
            assert!(matches!(shipment.answered(503, b""), Verdict::Later(_)));
        }
        for _ in 1..MAX_REFUSALS {
            assert!(matches!(shipment.answered(404, b"no"), Verdict::Later(_)));
            assert!(!shipment.is_over());
        }
        shipment.answered(404, b"no such session");
        assert_eq!(
            shipment.failure(),
            Some(&TranscriptError::Refused {
                status: 404,
                text: "no such session".to_owned()
            })
        );
    }

    #[test]
    fn an_answer_that_is_not_about_the_recording_is_an_outage_and_one_that_is_ends_it() {
        let answered = |status: u16, body: &[u8]| {
            let mut shipment = Shipment::default();
            shipment.load(Packed::new(b"x"), false);
            shipment.next_chunk(false);
            for _ in 0..100 {
                shipment.answered(status, body);
            }
            (shipment.is_over(), shipment.repeats())
        };
        for (status, body) in [
            (403, SKEWED),
            (
                403,
                b"<ExpiredTokenException><Message>x</Message></ExpiredTokenException>",
            ),
            (
                400,
                b"<ValidationException><Message>the body came too slowly</Message></ValidationException>",
            ),
            (401, b"<html>a proxy</html>"),
            (403, b"<html>a proxy</html>"),
            (403, b""),
            (407, b""),
        ] {
            assert_eq!(answered(status, body), (false, true), "{status}");
        }
        for (status, body) in [
            (404, &b""[..]),
            (
                410,
                b"<ValidationException><Message>it is closed</Message></ValidationException>",
            ),
            (413, b""),
            (
                403,
                b"<AccessDeniedException><Message>another node's</Message></AccessDeniedException>",
            ),
        ] {
            assert_eq!(answered(status, body), (true, false), "{status}");
        }
    }

    #[test]
    fn an_endpoint_that_asks_for_the_same_again_and_again_is_no_tight_loop() {
        let mut shipment = Shipment::default();
        shipment.load(Packed::new(b"x"), false);
        shipment.next_chunk(false);
        assert!(matches!(
            shipment.answered(409, br#"{"Length":0}"#),
            Verdict::Later(_)
        ));
        assert!(matches!(shipment.answered(200, b"not json"), Verdict::Later(_)));
    }
}
