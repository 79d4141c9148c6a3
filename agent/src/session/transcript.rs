//! The transcript on its way to the endpoint, while the session runs: chunks of the recording, strictly in order by
//! offset, each kept until the endpoint says that it has it (docs/deviations.md).
//!
//! What has not been taken is in memory, a little of it, and in a file when the endpoint is away or slower than the
//! session. Where neither has room the recording has a gap, and says so: the session never waits for it.

mod shipment;

use std::{future::Future, pin::Pin, sync::Arc};

use moorline_protocol::{error_chain, transcript::MAX_BLOCK_BYTES};
use moorline_transport::{Response, unix_millis};
use serde_json::Value;
use tokio::time::{Duration, Instant};

pub(super) use self::shipment::TranscriptError;
use self::shipment::{MAX_CHUNK_BYTES, Shipment, Verdict};
use crate::{
    recording::{Packed, Recorder, SendError, Size, Spool, TranscriptPlace},
    runtime::{Backoff, random_u32, until},
};

/// This much is sent at once.
const FULL_CHUNK_BYTES: u64 = 64 * 1024;
/// Less than that waits this long for more: each request costs the endpoint a write.
const GATHER: Duration = Duration::from_millis(100);
/// And this long after the last request. A power cut takes no more than that with it.
const INTERVAL: Duration = Duration::from_millis(200);
/// So much of what is written is packed, and waits.
const PACKED_BYTES: usize = MAX_BLOCK_BYTES;
/// At full speed a request goes out this long after the one before, or with so much of the recording, or of memory: what
/// a request costs both sides, and those that it interrupts, is more than what its bytes cost.
const BULK_INTERVAL: Duration = Duration::from_millis(100);
const BULK_CHUNK_BYTES: u64 = 6 * 1024 * 1024;
const BULK_HELD_BYTES: usize = 128 * 1024;
/// What waits in memory longer than [`INTERVAL`], or beyond this in bytes of memory or of the recording, goes to the
/// disk: the endpoint is slower than the session.
const SPOOLED_BYTES: usize = 256 * 1024;
const SPOOLED_LENGTH: u64 = 16 * 1024 * 1024;
/// Where the disk takes nothing, output beyond this is not recorded.
const MOST_HELD_BYTES: usize = 1024 * 1024;
/// With so much in memory that the endpoint has and not on its disk it is asked to have it there: bytes of memory, or of
/// the recording, which an endpoint that goes away would have written to our disk at once. Where there is less it comes
/// there by itself, and no answer waits for a disk.
const KEPT_BYTES: usize = 384 * 1024;
const KEPT_LENGTH: u64 = 32 * 1024 * 1024;
/// The same with so much in the spool.
const DURABLE_STEP: u64 = 8 * 1024 * 1024;
/// An endpoint has everything on its disk after a second; this long after the last request it is asked.
const DURABLE_AFTER: Duration = Duration::from_millis(1200);
/// Pauses after a failure: the first is below this, later ones double up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
type Sending = Pin<Box<dyn Future<Output = Result<Response, SendError>> + Send>>;

/// A recording and its transfer.
pub(super) struct Transcript {
    place: Arc<TranscriptPlace>,
    /// At the endpoint.
    path: String,
    /// Whether an answer means that what was sent is on the endpoint's disk.
    is_strict: bool,
    recorder: Recorder,
    shipment: Shipment,
    spool: Spool,
    sending: Option<Sending>,
    /// When the next request goes out.
    send_at: Option<Instant>,
    sent_at: Option<Instant>,
    /// When the endpoint is asked whether it has on its disk what it has.
    ask_at: Option<Instant>,
    /// When what is in memory goes to the disk: the endpoint is away.
    spool_at: Option<Instant>,
    /// The last request was not taken.
    is_away: bool,
    backoff: Backoff,
    begun: Instant,
    finished: bool,
    /// Bytes of output so far, as the caller counts them.
    shown: u64,
    /// With this offset confirmed, so much of the output is recorded for good.
    mark: Option<(u64, u64)>,
    confirmed_output: u64,
}

impl Transcript {
    /// `begun`: what the times of the recording count from.
    pub(super) fn new(
        (place, path, is_strict): (Arc<TranscriptPlace>, String, bool),
        recorder: Recorder,
        spool: Spool,
        begun: Instant,
    ) -> Self {
        Self {
            place,
            path,
            is_strict,
            spool: spool.sealed(recorder.seals()),
            recorder,
            shipment: Shipment::default(),
            sending: None,
            send_at: None,
            sent_at: None,
            ask_at: None,
            spool_at: None,
            is_away: false,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            begun,
            finished: false,
            shown: 0,
            mark: None,
            confirmed_output: 0,
        }
    }

    /// Whether output must wait until it is recorded for good ([`Self::confirmed_output`]).
    pub(super) fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// Output that the endpoint has on disk, in bytes as they were told to [`Self::output`].
    pub(super) fn confirmed_output(&self) -> u64 {
        self.confirmed_output
    }

    /// Records output: `length` bytes, which are recorded as these.
    pub(super) fn output(&mut self, length: usize, bytes: &[u8]) {
        self.record(length, |recorder, at| recorder.output(at, bytes));
    }

    /// Records what a program without terminal wrote to its standard error.
    pub(super) fn errors(&mut self, length: usize, bytes: &[u8]) {
        self.record(length, |recorder, at| recorder.errors(at, bytes));
    }

    fn record(&mut self, length: usize, record: impl FnOnce(&mut Recorder, Duration)) {
        if self.is_over() {
            return;
        }
        self.shown += length as u64;
        self.record_beside(length, |recorder, at| {
            record(recorder, at);
            recorder.seal_if_due(at, unix_millis());
        });
        if self.recorder.written.len() >= PACKED_BYTES {
            self.pack();
            let by = Instant::now() + INTERVAL;
            self.spool_at.get_or_insert(by);
        }
    }

    /// Records something that is no output, or that so many bytes are missing where there is no room for it.
    fn record_beside(&mut self, length: usize, record: impl FnOnce(&mut Recorder, Duration)) {
        if self.is_over() {
            return;
        }
        if self.has_no_room() {
            return self.recorder.skip(length);
        }
        record(&mut self.recorder, self.begun.elapsed());
        self.schedule();
    }

    /// What is written waits for its turn as pieces of its own.
    fn pack(&mut self) {
        let written = &mut self.recorder.written;
        for piece in written.chunks(PACKED_BYTES) {
            self.shipment.push(Packed::new(piece));
        }
        written.clear();
    }

    /// Gives back the memory of a flood.
    pub(super) fn rest(&mut self) {
        self.recorder.written.shrink_to_fit();
    }

    /// What is too much for the memory goes to the disk; whether the disk does not take it either.
    fn has_no_room(&mut self) -> bool {
        let (held, length) = self.shipment.waiting();
        if self.recorder.waiting() + held > SPOOLED_BYTES || length > SPOOLED_LENGTH {
            self.spool();
        }
        self.recorder.waiting() + self.shipment.held_bytes() > MOST_HELD_BYTES
    }

    /// Records input that the terminal echoed.
    pub(super) fn input(&mut self, bytes: &[u8]) {
        self.record_beside(bytes.len(), |recorder, at| recorder.input(at, bytes));
    }

    /// Records that so many bytes of input are not shown.
    pub(super) fn masked(&mut self, bytes: usize) {
        self.record_beside(bytes, |recorder, at| recorder.masked(at, bytes));
    }

    /// No output follows.
    pub(super) fn end_output(&mut self) {
        if !self.is_over() {
            self.recorder.end_output(self.begun.elapsed());
            self.schedule();
        }
    }

    /// Has the recording begin now, and not with the first event.
    pub(super) fn begin_now(&mut self) {
        self.recorder.begin(self.begun.elapsed());
        self.schedule();
    }

    pub(super) fn resize(&mut self, size: Size) {
        if self.is_over() {
            return;
        }
        if self.has_no_room() {
            return self.recorder.skip_resize(size);
        }
        self.recorder.resize(self.begun.elapsed(), size);
        self.schedule();
    }

    /// Records what a terminal does not show.
    pub(super) fn note(&mut self, event: &Value) {
        self.record_beside(event.to_string().len(), |recorder, at| recorder.note(at, event));
    }

    /// Nothing will follow; the rest is sent at once.
    pub(super) fn finish(&mut self, exit_code: Option<i32>, reason: Option<&str>) {
        if !self.is_over() && !self.finished {
            let at = self.begun.elapsed();
            self.recorder.finish(at, exit_code, reason, unix_millis());
            self.finished = true;
            if self.is_away {
                self.spool();
            }
            self.schedule();
        }
    }

    /// Whether the endpoint has everything, or will never have it.
    pub(super) fn is_over(&self) -> bool {
        self.shipment.is_over()
    }

    pub(super) fn failure(&self) -> Option<&TranscriptError> {
        self.shipment.failure()
    }

    /// Does what is due: sends, seals, keeps. Returns when the endpoint took or refused something; nothing is lost when
    /// the future is dropped.
    pub(super) async fn progress(&mut self) {
        if self.is_over() {
            return std::future::pending().await;
        }
        loop {
            let seal_at = self.recorder.seal_due().map(|due| self.begun + due);
            let (send_at, spool_at) = (self.send_at.or(self.ask_at), self.spool_at);
            tokio::select! {
                biased;
                answer = answer(&mut self.sending) => {
                    self.sending = None;
                    self.answered(answer);
                    return;
                }
                () = until(seal_at) => {
                    self.recorder.seal_if_due(self.begun.elapsed(), unix_millis());
                    self.schedule();
                }
                () = until(spool_at) => drop(self.spool()),
                () = until(send_at), if self.sending.is_none() => {
                    self.send();
                    if self.is_over() {
                        return;
                    }
                }
            }
        }
    }

    /// Decides when the next request goes out, if none is under way, and when what waits must be safe.
    fn schedule(&mut self) {
        let now = Instant::now();
        let written = self.recorder.waiting();
        if self.is_away && written > 0 {
            self.spool_at.get_or_insert(now + GATHER);
        }
        // What is repeated has its time already.
        if self.sending.is_some() || (self.shipment.repeats() && self.send_at.is_some()) {
            return;
        }
        let is_behind = self
            .spool
            .end()
            .is_some_and(|end| end > self.shipment.next_offset());
        let (held, length) = self.shipment.waiting();
        let waiting = written as u64 + length;
        let is_late = self.finished || self.shipment.repeats() || is_behind;
        let is_full = is_late || waiting >= FULL_CHUNK_BYTES;
        let is_bulk = !is_late && waiting < BULK_CHUNK_BYTES && held < BULK_HELD_BYTES;
        // in strict mode somebody waits to see it
        if is_full || (waiting > 0 && self.is_strict()) {
            let soon = match self.sent_at {
                Some(sent_at) if is_bulk && !self.is_strict() => (sent_at + BULK_INTERVAL).max(now),
                _ => now,
            };
            // Never later than it was: a timer is a millisecond or so behind, and output comes more often than that.
            self.send_at = Some(self.send_at.map_or(soon, |at| at.min(soon)));
        } else if waiting > 0 && self.send_at.is_none() {
            let after_last = self.sent_at.map_or(now, |sent_at| sent_at + INTERVAL);
            self.send_at = Some(after_last.max(now + GATHER));
        }
    }

    fn send(&mut self) {
        (self.send_at, self.ask_at) = (None, None);
        if !self.shipment.repeats() {
            self.flush();
            if let Err(error) = self.load_next() {
                return self.shipment.give_up(TranscriptError::Spool(error.to_string()));
            }
        }
        let next = self.shipment.next_offset();
        let is_drained = self.spool.end().is_none_or(|end| end <= next)
            && !self.shipment.has_waiting()
            && self.recorder.waiting() == 0;
        let is_last = self.finished && is_drained;
        if is_drained {
            let held = self.recorder.held_bytes() as u64;
            self.mark = Some((next, self.shown.saturating_sub(held)));
        }
        let most_kept = match self.spool.end() {
            Some(_) => DURABLE_STEP,
            None => KEPT_LENGTH,
        };
        let mut chunk = self.shipment.next_chunk(is_last);
        chunk.is_durable = self.is_strict
            || chunk.piece.is_empty()
            || self.shipment.held_bytes() >= KEPT_BYTES
            || next - self.shipment.durable() >= most_kept;
        chunk.is_sealed = self.recorder.seals();
        let (place, path) = (Arc::clone(&self.place), self.path.clone());
        self.sent_at = Some(Instant::now());
        self.sending = Some(Box::pin(async move { place.send(&path, chunk).await }));
    }

    /// Puts what is recorded where it is taken from.
    fn flush(&mut self) {
        let at = self.begun.elapsed();
        if self.is_strict() {
            self.recorder.release(at);
        }
        self.recorder.flush(at);
    }

    /// First what is on the disk, then what is in memory: that is the order of the recording.
    fn load_next(&mut self) -> std::io::Result<()> {
        let next = self.shipment.next_offset();
        if self.spool.end().is_some_and(|end| end > next) {
            let bytes = self.spool.read(next, MAX_CHUNK_BYTES)?;
            self.shipment.load(Packed::new(&bytes), true);
            return Ok(());
        }
        self.pack();
        if let Some(piece) = self.shipment.next_waiting(self.place.most_bytes()) {
            self.shipment.load(piece, false);
        }
        if !self.shipment.has_waiting() && !self.is_away {
            self.spool_at = None;
        }
        Ok(())
    }

    /// Puts on the disk what is only in memory; whether nothing is any more.
    fn spool(&mut self) -> bool {
        self.spool_at = None;
        self.flush();
        self.pack();
        let (from, parts) = self.shipment.not_durable();
        let from = self.spool.end().unwrap_or(from);
        let parts: Vec<Packed> = parts.cloned().collect();
        if parts.is_empty() {
            return true;
        }
        match self.spool.append(from, &parts) {
            Ok(()) => {
                self.shipment.spooled();
                true
            }
            Err(error) => {
                tracing::debug!(%error, "the transcript is kept in memory");
                if self.is_away {
                    self.spool_at = Some(Instant::now() + LONGEST_PAUSE);
                }
                false
            }
        }
    }

    fn answered(&mut self, answer: Result<Response, SendError>) {
        let verdict = match answer {
            Ok(response) => self.shipment.answered(response.status, &response.body),
            Err(error) => Verdict::Later(error_chain(&error)),
        };
        match verdict {
            Verdict::GoOn => {
                if self.is_away {
                    tracing::info!("the transcript is taken again");
                }
                self.is_away = false;
                let (confirmed, durable) = (self.shipment.confirmed(), self.shipment.durable());
                // an endpoint that was killed over a request may have what came with it, and not on its disk
                let settled = if self.is_strict { durable } else { confirmed };
                if let Some((_, output)) = self.mark.take_if(|(offset, _)| *offset <= settled) {
                    self.confirmed_output = output;
                }
                if self.spool.end().is_some_and(|end| end <= durable) {
                    self.spool.clear();
                }
                if !self.is_over() {
                    self.backoff.reset();
                    if durable < confirmed {
                        let after = if self.is_strict {
                            Duration::ZERO
                        } else {
                            DURABLE_AFTER
                        };
                        self.ask_at = Some(Instant::now() + after);
                    }
                    self.schedule();
                }
            }
            Verdict::Later(reason) => {
                let pause = self.backoff.next(random_u32()).max(SHORTEST_PAUSE);
                tracing::info!("the transcript was not taken, next attempt in {pause:.1?}: {reason}");
                self.is_away = true;
                self.send_at = Some(Instant::now() + pause);
                self.spool();
            }
        }
    }
}

impl Drop for Transcript {
    /// What the endpoint does not have goes to the daemon.
    fn drop(&mut self) {
        if self.is_over() {
            return self.spool.clear();
        }
        if self.spool() && self.finished {
            self.spool.mark_whole();
        }
    }
}

/// [`Transcript::progress`] of a session that may have none.
pub(super) async fn progress(transcript: Option<&mut Transcript>) {
    match transcript {
        Some(transcript) => transcript.progress().await,
        None => std::future::pending().await,
    }
}

async fn answer(sending: &mut Option<Sending>) -> Result<Response, SendError> {
    match sending {
        Some(sending) => sending.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
