//! The thread that writes: takes what waits, chains it, writes it at once and syncs it together.

use std::{
    io,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use moorline_protocol::audit::{Actor, Chain, Checkpoint, Event, EventKind};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    log::{NotRecorded, Shared},
    segments::Segments,
};

/// How long an event may stand without a checkpoint behind it. One second is promised.
const CHECKPOINT_AFTER: Duration = Duration::from_millis(700);
/// How often counted repeats are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Events that are written together.
const MOST_EVENTS: usize = 256;

/// How far a record must have come before its sender goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// Nowhere: it is written within a second.
    Taken,
    /// It outlives the process, but perhaps not the machine.
    Written,
    /// It outlives a power cut.
    Synced,
    /// The same; who sends it keeps it until then, so that it is not lost when this fails.
    SyncedOrKept,
}

impl Until {
    fn is_synced(self) -> bool {
        matches!(self, Self::Synced | Self::SyncedOrKept)
    }
}

/// Tells the sender how it went.
pub(super) type Done = oneshot::Sender<Result<(), NotRecorded>>;

/// One record on its way.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) event: Event,
    pub(super) until: Until,
    pub(super) done: Option<Done>,
    /// Its place in the queue.
    pub(super) place: OwnedSemaphorePermit,
}

/// What the thread has.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) segments: Segments,
    pub(super) chain: Chain,
    /// When the oldest event without a checkpoint was written.
    unsigned_since: Option<Instant>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, segments: Segments, chain: Chain) -> Self {
        let unsigned_since = chain.is_unsigned().then(Instant::now);
        Self {
            shared,
            segments,
            chain,
            unsigned_since,
        }
    }

    /// Until nobody can send any more.
    pub(super) fn run(mut self, queue: &Receiver<Box<Item>>) {
        loop {
            match queue.recv_timeout(self.patience()) {
                Ok(first) => {
                    let others = queue.try_iter().take(MOST_EVENTS - 1);
                    self.write(std::iter::once(first).chain(others));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.record_repeats(false);
            if self
                .unsigned_since
                .is_some_and(|since| since.elapsed() >= CHECKPOINT_AFTER)
            {
                self.sign();
            }
        }
        self.record_repeats(true);
        let stopped = Event::new(EventKind::LogStopped, Actor::endpoint());
        // what is wrong with the disk was told; the next start finds the log as it is
        let _unwritten = self.append(&[stopped]);
        self.sign();
    }

    fn patience(&self) -> Duration {
        let until_checkpoint = self
            .unsigned_since
            .map(|since| CHECKPOINT_AFTER.saturating_sub(since.elapsed()));
        until_checkpoint.unwrap_or(TICK).min(TICK)
    }

    fn write(&mut self, items: impl Iterator<Item = Box<Item>>) {
        let mut events = Vec::new();
        let (mut senders, mut must_sync, mut kept) = (Vec::new(), false, 0);
        for item in items {
            let Item {
                event,
                until,
                done,
                place,
            } = *item;
            events.push(event);
            must_sync |= until.is_synced();
            kept += usize::from(until == Until::SyncedOrKept);
            senders.extend(done.map(|done| (until, done)));
            drop(place);
        }
        let mut result = self.append(&events);
        if result.is_err() {
            self.has_lost(events.len() - kept);
        }
        let (synced, written): (Vec<_>, Vec<_>) =
            senders.into_iter().partition(|(until, _)| until.is_synced());
        tell(written, result);
        if result.is_ok() && must_sync {
            result = self.synced();
        }
        tell(synced, result);
    }

    fn record_repeats(&mut self, is_end: bool) {
        let due = self.shared.due_repeats(is_end);
        if !due.is_empty() && self.append(&due).is_err() {
            self.has_lost(due.len());
        }
    }

    fn has_lost(&self, events: usize) {
        let more = u64::try_from(events).unwrap_or(u64::MAX);
        self.shared.lost.fetch_add(more, Ordering::Relaxed);
    }

    /// Writes events: all or none, and what was lost before with the first that go again.
    fn append(&mut self, events: &[Event]) -> Result<(), NotRecorded> {
        if self.segments.is_full() {
            self.sign();
            self.segments.rotate();
        }
        let mut chain = self.chain.clone();
        let mut lines = String::new();
        // one time for all: times in the log follow its order unless the clock is set
        let now = self.shared.clock.unix_millis();
        let lost = self.shared.lost.load(Ordering::Relaxed);
        if lost > 0 {
            let mut gap = Event::new(EventKind::LogGap, Actor::endpoint());
            gap.count = Some(lost);
            lines += &chain.append(now, &gap);
        }
        for event in events {
            lines += &chain.append(now, event);
        }
        match self.segments.append(lines.as_bytes()) {
            Ok(()) => {
                self.shared.lost.fetch_sub(lost, Ordering::Relaxed);
                self.chain = chain;
                self.unsigned_since.get_or_insert_with(Instant::now);
                self.shared.has_written(self.segments.end());
                Ok(())
            }
            Err(error) => Err(self.failed("write", &error)),
        }
    }

    fn synced(&self) -> Result<(), NotRecorded> {
        self.segments.sync().map_err(|error| self.failed("sync", &error))
    }

    fn sign(&mut self) {
        if !self.chain.is_unsigned() {
            self.unsigned_since = None;
            return;
        }
        let mut chain = self.chain.clone();
        let key = &self.shared.key;
        let checkpoint = Checkpoint {
            key: key.id(),
            sign: |text: &[u8]| key.sign(text),
        };
        let line = chain.checkpoint(self.shared.clock.unix_millis(), checkpoint);
        let written = self.segments.append(line.as_bytes());
        match written.and_then(|()| self.segments.sync()) {
            Ok(()) => self.unsigned_since = None,
            Err(error) => {
                self.failed("sign", &error);
                // it is tried again, but not in a circle
                self.unsigned_since = Some(Instant::now());
            }
        }
        if self.segments.end() != self.shared.end() {
            self.chain = chain;
            self.shared.has_written(self.segments.end());
        }
    }

    fn failed(&self, doing: &'static str, error: &io::Error) -> NotRecorded {
        self.shared.failures.increment();
        tracing::error!(%error, "failed to {doing} the audit log; what changes something is refused until it goes");
        NotRecorded
    }
}

fn tell(senders: Vec<(Until, Done)>, result: Result<(), NotRecorded>) {
    for (_, done) in senders {
        // nobody waits any more: the client has gone
        let _gone = done.send(result);
    }
}
