//! What of the recording the endpoint has, what goes out next, and what an answer means: without socket or clock.

use bytes::Bytes;
use serde::Deserialize;

use crate::recording::Chunk;

/// The largest request.
pub(super) const MAX_CHUNK_BYTES: usize = 256 * 1024;
/// An endpoint that refuses a transcript so often will not take it.
const MAX_REFUSALS: u32 = 6;

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
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Open,
    Complete,
    Failed(TranscriptError),
}

/// The transfer of one recording.
#[derive(Debug)]
pub(super) struct Shipment {
    /// Sent and not confirmed, beginning at `offset`.
    chunk: Bytes,
    /// What the endpoint is known to have.
    offset: u64,
    /// Whether the request under way says that nothing follows.
    last_under_way: bool,
    refusals: u32,
    state: State,
}

impl Shipment {
    pub(super) fn new() -> Self {
        Self {
            chunk: Bytes::new(),
            offset: 0,
            last_under_way: false,
            refusals: 0,
            state: State::Open,
        }
    }

    /// What was sent and is not confirmed.
    pub(super) fn unconfirmed(&self) -> &Bytes {
        &self.chunk
    }

    /// Up to here the endpoint has the recording.
    pub(super) fn confirmed(&self) -> u64 {
        self.offset
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

    /// Gives it what to send next; only when nothing waits for a repetition.
    pub(super) fn load(&mut self, bytes: Vec<u8>) {
        if self.chunk.is_empty() {
            self.chunk = Bytes::from(bytes);
        }
    }

    /// The next request. `is_last`: nothing follows it.
    pub(super) fn next_chunk(&mut self, is_last: bool) -> Chunk {
        self.last_under_way = is_last;
        Chunk {
            offset: self.offset,
            bytes: self.chunk.clone(),
            is_last: self.last_under_way,
            is_durable: false,
        }
    }

    /// The endpoint answered the last request.
    pub(super) fn answered(&mut self, status: u16, body: &[u8]) -> Verdict {
        let stored = serde_json::from_slice(body).map(|stored: Stored| stored.length);
        match (status, stored) {
            (200, Ok(length)) => self.holds(length, true),
            (409, Ok(length)) => self.holds(length, false),
            (408 | 429 | 500.., _) => Verdict::Later(format!("HTTP status {status}")),
            (_, _) => self.refused(status, body),
        }
    }

    /// The endpoint has this many bytes now; they need not be kept here.
    fn holds(&mut self, length: u64, accepted: bool) -> Verdict {
        let sent_to = self.offset.saturating_add(self.chunk.len() as u64);
        if length < self.offset || length > sent_to {
            return self.fail(TranscriptError::Diverged {
                ours: length.clamp(self.offset, sent_to),
                theirs: length,
            });
        }
        let progress = length > self.offset;
        let taken = usize::try_from(length - self.offset).unwrap_or(self.chunk.len());
        drop(self.chunk.split_to(taken));
        if self.chunk.is_empty() {
            // An empty slice would keep the whole chunk in memory.
            self.chunk = Bytes::new();
        }
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

    fn refused(&mut self, status: u16, body: &[u8]) -> Verdict {
        let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
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
        self.chunk = Bytes::new();
        Verdict::GoOn
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The endpoint's side as agreed: it appends at its length and refuses any other offset.
    #[derive(Default)]
    struct Endpoint {
        stored: Vec<u8>,
        complete: bool,
    }

    impl Endpoint {
        fn post(&mut self, chunk: &Chunk) -> (u16, Vec<u8>) {
            let fits = usize::try_from(chunk.offset).unwrap() == self.stored.len();
            if fits {
                self.stored.extend_from_slice(&chunk.bytes);
                self.complete |= chunk.is_last;
            }
            let body = format!("{{\"Length\":{}}}", self.stored.len());
            (if fits { 200 } else { 409 }, body.into_bytes())
        }
    }

    #[derive(Debug, Clone)]
    enum Fate {
        Answered,
        AnswerLost,
        NeverArrived,
        Unavailable,
    }

    fn fate() -> impl Strategy<Value = Fate> {
        prop_oneof![
            Just(Fate::Answered),
            Just(Fate::AnswerLost),
            Just(Fate::NeverArrived),
            Just(Fate::Unavailable)
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_lost_the_endpoint_has_every_byte_once(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..12),
            fates in proptest::collection::vec(fate(), 0..60),
        ) {
            let mut endpoint = Endpoint::default();
            let mut shipment = Shipment::new();
            let mut written = Vec::new();
            let mut pieces_left = pieces.iter();
            let mut fates = fates.into_iter();
            for _ in 0..200 {
                let piece = pieces_left.next();
                written.extend_from_slice(piece.map_or(&[], Vec::as_slice));
                if !shipment.repeats() {
                    shipment.load(std::mem::take(&mut written));
                }
                let chunk = shipment.next_chunk(piece.is_none() && written.is_empty());
                match fates.next().unwrap_or(Fate::Answered) {
                    Fate::Answered => {
                        let (status, body) = endpoint.post(&chunk);
                        shipment.answered(status, &body);
                    }
                    Fate::AnswerLost => drop(endpoint.post(&chunk)),
                    Fate::NeverArrived => {}
                    Fate::Unavailable => {
                        let is_later = matches!(shipment.answered(503, b"<busy>"), Verdict::Later(_));
                        prop_assert!(is_later);
                    }
                }
                if shipment.is_over() {
                    break;
                }
            }
            prop_assert_eq!(shipment.failure(), None);
            prop_assert!(shipment.is_over() && endpoint.complete);
            prop_assert_eq!(endpoint.stored, pieces.concat());
        }
    }

    #[test]
    fn an_endpoint_that_has_lost_or_invented_bytes_ends_the_transfer() {
        for theirs in [3_u64, 500] {
            let mut shipment = Shipment::new();
            shipment.load(b"0123456789".to_vec());
            shipment.next_chunk(false);
            shipment.answered(200, br#"{"Length":10}"#);
            shipment.load(b"more".to_vec());
            shipment.next_chunk(false);
            shipment.answered(409, format!("{{\"Length\":{theirs}}}").as_bytes());
            assert!(matches!(
                shipment.failure(),
                Some(TranscriptError::Diverged { .. })
            ));
        }
    }

    #[test]
    fn a_refusal_is_tried_again_a_few_times_and_an_outage_for_ever() {
        let mut shipment = Shipment::new();
        shipment.load(b"x".to_vec());
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
    fn an_endpoint_that_asks_for_the_same_again_and_again_is_no_tight_loop() {
        let mut shipment = Shipment::new();
        shipment.load(b"x".to_vec());
        shipment.next_chunk(false);
        assert!(matches!(
            shipment.answered(409, br#"{"Length":0}"#),
            Verdict::Later(_)
        ));
        assert!(matches!(shipment.answered(200, b"not json"), Verdict::Later(_)));
    }
}
