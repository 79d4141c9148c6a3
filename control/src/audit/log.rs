//! Where records go: a bounded queue, and what its senders wait for.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use moorline_protocol::audit::{Actor, Event, EventKind};
use tokio::sync::{Notify, Semaphore, futures::Notified, oneshot};

use super::{
    repeats::{Key, Repeats},
    segments::{Found, SegmentError, Segments},
    writer::{Item, Until, Writer},
};
use crate::{app::Clock, auth::EndpointSigningKey, server::Counter};

/// Records that wait to be written.
const MOST_WAITING: usize = 4096;
/// What is left free on the file system for records of what is never refused: so much, or a fiftieth of a small one.
/// Recordings of sessions leave more, so they stop first.
const RESERVED_BYTES: u64 = 64 * 1024 * 1024;
const RESERVED_PART: u64 = 50;

/// A record could not be written; the log of the process says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit log cannot be written")]
pub(crate) struct NotRecorded;

/// What the writer and everybody else share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) key: Arc<EndpointSigningKey>,
    pub(super) clock: Clock,
    pub(super) failures: Counter,
    /// Records that could not be written, or found no place, and of which the log does not tell yet.
    pub(super) lost: AtomicU64,
    repeats: Mutex<Repeats>,
    /// Where the log ends for readers: segment, and whole lines in it in bytes.
    end: Mutex<(u64, u64)>,
    changed: Notify,
}

impl Shared {
    pub(super) fn end(&self) -> (u64, u64) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_written(&self, end: (u64, u64)) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = end;
        self.changed.notify_waiters();
    }

    fn repeats(&self) -> MutexGuard<'_, Repeats> {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn due_repeats(&self, is_end: bool) -> Vec<Event> {
        let mut repeats = self.repeats();
        if repeats.is_empty() {
            return Vec::new();
        }
        repeats.due(self.clock.steady_millis(), is_end)
    }
}

/// The audit log. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct AuditLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    /// Places in the queue, so that whoever waits for one blocks no thread.
    places: Arc<Semaphore>,
    /// Until it is closed.
    writing: Mutex<Option<Writing>>,
    /// Held by who tells of what the store has and the log not yet.
    telling: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Writing {
    queue: SyncSender<Box<Item>>,
    thread: JoinHandle<()>,
}

impl Inner {
    fn writing(&self) -> MutexGuard<'_, Option<Writing>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let Some(Writing { queue, thread }) = self.writing().take() else {
            return;
        };
        drop(queue);
        if thread.join().is_err() {
            tracing::error!("the thread that writes the audit log panicked");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl AuditLog {
    /// Goes on with the log in `dir`, or begins one there.
    ///
    /// # Errors
    /// What is there cannot be read, or is no audit log. A full disk is no error: writing is tried with each record.
    pub(crate) fn open(
        dir: &Path,
        key: Arc<EndpointSigningKey>,
        clock: Clock,
        failures: Counter,
    ) -> Result<Self, SegmentError> {
        let Found {
            segments,
            chain,
            torn,
        } = Segments::open(dir)?;
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            key,
            clock,
            failures,
            lost: AtomicU64::new(0),
            repeats: Mutex::default(),
            end: Mutex::new(segments.end()),
            changed: Notify::new(),
        });
        let (queue, waiting) = sync_channel(MOST_WAITING);
        let writer = Writer::new(Arc::clone(&shared), segments, chain);
        let thread = std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run(&waiting))
            .map_err(super::segments::failed("start a thread for", dir))?;
        let log = Self(Arc::new(Inner {
            shared,
            places: Arc::new(Semaphore::new(MOST_WAITING)),
            writing: Mutex::new(Some(Writing { queue, thread })),
            telling: tokio::sync::Mutex::default(),
        }));
        if torn > 0 {
            tracing::warn!(
                bytes = torn,
                "what a crash left unfinished was removed from the end of the audit log"
            );
            let mut repaired = Event::new(EventKind::LogRepaired, Actor::endpoint());
            repaired.message = Some(format!("{torn} bytes that a crash left unfinished were removed"));
            log.record(repaired);
        }
        let mut started = Event::new(EventKind::LogStarted, Actor::endpoint());
        started.message = Some(concat!("moorline-control ", env!("CARGO_PKG_VERSION")).to_owned());
        log.record(started);
        Ok(log)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.0.shared.dir
    }

    pub(super) fn end(&self) -> (u64, u64) {
        self.0.shared.end()
    }

    pub(super) fn telling(&self) -> &tokio::sync::Mutex<()> {
        &self.0.telling
    }

    /// What is recorded from now on stands in this segment or behind.
    pub(crate) fn segment(&self) -> u64 {
        self.end().0
    }

    /// Ends when the log has grown since the call.
    pub(crate) fn change(&self) -> Notified<'_> {
        self.0.shared.changed.notified()
    }

    /// The process ends: writes and signs what there is, and takes no more. Blocks as long as the disk does.
    pub(crate) fn close(&self) {
        self.0.close();
    }

    /// Whether there is room for something that would change more. What is never refused still is recorded then.
    pub(crate) fn has_room(&self) -> bool {
        has_room_at(self.dir())
    }

    /// Records without waiting. When too many wait already it is counted, and the log says how many are missing.
    pub(crate) fn record(&self, event: Event) {
        match Arc::clone(&self.0.places).try_acquire_owned() {
            Ok(place) => self.send(Item {
                event,
                until: Until::Taken,
                done: None,
                place,
            }),
            Err(_) => {
                self.0.shared.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Records, or counts what was recorded within the last minute already.
    pub(crate) fn record_or_count(&self, key: Key, event: Event) {
        let shared = &self.0.shared;
        let admitted = shared.repeats().admit(key, event, shared.clock.steady_millis());
        if let Some(event) = admitted {
            self.record(event);
        }
    }

    /// Records what outlives this process when this returns.
    pub(crate) async fn write(&self, event: Event) -> Result<(), NotRecorded> {
        self.wait_for(event, Until::Written).await
    }

    /// Records what outlives a power cut when this returns.
    pub(crate) async fn sync(&self, event: Event) -> Result<(), NotRecorded> {
        self.wait_for(event, Until::Synced).await
    }

    /// The same of what its sender keeps until then, and brings again: it is never missing.
    pub(crate) async fn sync_or_keep(&self, event: Event) -> Result<(), NotRecorded> {
        self.wait_for(event, Until::SyncedOrKept).await
    }

    async fn wait_for(&self, event: Event, until: Until) -> Result<(), NotRecorded> {
        let place = Arc::clone(&self.0.places).acquire_owned().await;
        let place = place.map_err(|_| NotRecorded)?;
        let (done, is_done) = oneshot::channel();
        self.send(Item {
            event,
            until,
            done: Some(done),
            place,
        });
        is_done.await.unwrap_or(Err(NotRecorded))
    }

    /// There is room: whoever sends has a place.
    fn send(&self, item: Item) {
        let writing = self.0.writing();
        let sent = writing
            .as_ref()
            .map(|writing| writing.queue.try_send(Box::new(item)));
        if !matches!(sent, Some(Ok(()))) {
            self.0.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn has_room_at(dir: &Path) -> bool {
    // before the first record the directory is not there
    let near = if dir.exists() {
        dir
    } else {
        dir.parent().unwrap_or(dir)
    };
    let Ok(file_system) = nix::sys::statvfs::statvfs(near) else {
        return true;
    };
    let unit = file_system.fragment_size();
    let available = file_system.blocks_available().saturating_mul(unit);
    let total = file_system.blocks().saturating_mul(unit);
    available >= RESERVED_BYTES.min(total / RESERVED_PART)
}
