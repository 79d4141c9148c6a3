//! The daemon brings to the endpoint what is in spools: of commands while they run, and of workers that died, or whose
//! session ended while the endpoint was away.
//!
//! All of it goes over one connection, a chunk of each recording in turn. What the endpoint has is asked of it alone:
//! an answer says how much that is, and there the recording goes on.
//!
//! Where a worker died, the endpoint is told that the end will not come. What workers leave on the disk says that of
//! itself; at the daemon's start, and when a session ends, the endpoint is asked which recordings it has open, and those
//! that nobody makes here are ended.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use moorline_protocol::{error_chain, transcript::MAX_BLOCK_BYTES};
use moorline_transport::Response;
use serde::Deserialize;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::yield_now,
    time::{Instant, sleep, timeout},
};

use super::{
    Chunk, Packed, SendError, TranscriptPlace, is_plain_path,
    mending::mend,
    spool::folder,
    spooled::{Spooled, is_being_made, is_spooled},
    syncing::Syncing,
};
use crate::{
    identity::CredentialSupply,
    runtime::{Backoff, NodeContext, random_u32},
};

/// Between two looks where nobody says that there is something.
const INTERVAL: Duration = Duration::from_secs(20);
/// The same while a command records of which an earlier daemon was told.
const GROWING_INTERVAL: Duration = Duration::from_secs(1);
/// What comes within this time goes together.
const GATHER: Duration = Duration::from_millis(100);
/// Pauses while the endpoint takes nothing: the first is below this, later ones double up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The same for one recording that the endpoint does not take, for a reason that is its own.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);
/// A request brings at most so much, in bytes of the network.
const CHUNK_BYTES: usize = 512 * 1024;
/// After so many bytes of one recording the endpoint is asked to have them on its disk, and here they make room.
const DURABLE_STEP: u64 = 8 * 1024 * 1024;
/// To end a recording whose length only the endpoint knows: the second says it right, unless something was under way.
const CUT_ATTEMPTS: u32 = 4;

/// Whose recordings they are, and where its key is.
fn node_of(context: &NodeContext) -> (&Path, &str) {
    (&context.state_dir, context.registration.instance_id.as_str())
}

/// What the endpoint says it has.
#[derive(Deserialize)]
struct Stored {
    #[serde(rename = "Length")]
    length: u64,
}

/// What the endpoint says of the recordings that are open there.
#[derive(Deserialize)]
struct Open {
    #[serde(rename = "Paths")]
    paths: Vec<String>,
}

/// The endpoint does not take the rest of what somebody records.
#[derive(Debug)]
pub(crate) struct RefusedRecording {
    /// Its name.
    pub(crate) recording: String,
    pub(crate) reason: String,
    /// Told once it is noted. Only then the spool goes: who finds it gone finds the reason.
    pub(crate) noted: oneshot::Sender<()>,
}

/// Whom the courier asks and tells.
pub(crate) struct Recorders {
    /// Whether a process serves, or may serve, the session of this name.
    pub(crate) is_session_served: fn(&NodeContext, &str) -> bool,
    pub(crate) refused: mpsc::Sender<RefusedRecording>,
}

/// A handle to the daemon's task.
#[derive(Debug, Clone, Default)]
pub(crate) struct Courier {
    look: Arc<Notify>,
    /// Recordings may be open at the endpoint that nobody makes any more.
    is_review_due: Arc<AtomicBool>,
}

impl Courier {
    /// Begins to deliver, for as long as the daemon lives.
    pub(crate) fn start(context: Arc<NodeContext>, recorders: Recorders) -> Self {
        let courier = Self::default();
        // what an earlier daemon, or the machine, took with it
        courier.is_review_due.store(true, Ordering::Relaxed);
        tokio::spawn(deliver(context, recorders, courier.clone()));
        courier
    }

    /// Something was recorded, by whomever.
    pub(crate) fn nudge(&self) {
        self.look.notify_one();
    }

    /// Somebody who recorded is gone, and may have left nothing here that says so.
    pub(crate) fn review(&self) {
        self.is_review_due.store(true, Ordering::Relaxed);
        self.nudge();
    }
}

/// What is known of a recording that goes out.
#[derive(Debug, Default)]
struct Progress {
    /// Up to here the endpoint has it; `None`: it was not asked yet.
    confirmed: Option<u64>,
    /// And up to here on its disk.
    durable: u64,
    /// Up to here it is on ours.
    synced: u64,
    syncing: Syncing,
    /// It was not taken the last time.
    rest: Option<Rest>,
    /// A power cut may have damaged it: it was here at the daemon's start.
    is_from_before: bool,
    /// What is damaged of it was left out, and its end written.
    is_mended: bool,
}

/// When a recording is tried again that was not taken. What others record is a reason to look ten times a second.
#[derive(Debug)]
struct Rest {
    until: Instant,
    backoff: Backoff,
}

impl Progress {
    fn rests(&self, now: Instant) -> bool {
        self.rest.as_ref().is_some_and(|rest| now < rest.until)
    }

    /// It was not taken; whether that is new.
    fn put_off(&mut self, (now, random): (Instant, u32)) -> bool {
        let is_first = self.rest.is_none();
        let rest = self.rest.get_or_insert_with(|| Rest {
            until: now,
            backoff: Backoff::new(FIRST_REST, LONGEST_REST),
        });
        rest.until = now + rest.backoff.next(random);
        is_first
    }

    /// Whether it must be looked at before anything of it is sent.
    fn must_mend(&self, spooled: &Spooled) -> bool {
        !self.is_mended && !spooled.is_growing() && (self.is_from_before || !spooled.is_whole)
    }
}

/// By path at the endpoint.
type Known = BTreeMap<String, Progress>;

/// What is here at the daemon's start.
fn known_from_before(folder: &Path) -> Known {
    let from_before = |spooled: Spooled| {
        let progress = Progress {
            is_from_before: true,
            ..Progress::default()
        };
        (spooled.path, progress)
    };
    Spooled::find(folder).into_iter().map(from_before).collect()
}

async fn deliver(context: Arc<NodeContext>, recorders: Recorders, courier: Courier) {
    if !context.registration.is_moorline {
        return;
    }
    let folder = folder(&context.state_dir);
    let mut credentials = context.credentials.clone();
    let supply = Arc::new(CredentialSupply::new(None));
    let place = TranscriptPlace::new(Arc::clone(&context.registration), Arc::clone(&supply));
    let mut known = known_from_before(&folder);
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        // at the start this waits for the endpoint
        let Ok(handed) = credentials
            .wait_for(Option::is_some)
            .await
            .map(|handed| handed.clone())
        else {
            return;
        };
        supply.hand(handed).await;
        let round = deliver_all(&place, (&context, &folder), &mut known, &recorders.refused).await;
        if round.has_refused {
            courier.is_review_due.store(true, Ordering::Relaxed);
        }
        let is_due = !round.is_away && courier.is_review_due.swap(false, Ordering::Relaxed);
        let reviewed = match is_due {
            true => review(&context, &place, recorders.is_session_served).await,
            false => Outcome::Current,
        };
        if let Outcome::Later(reason) | Outcome::Away(reason) = &reviewed {
            tracing::debug!(reason, "which recordings are open is asked again");
            courier.is_review_due.store(true, Ordering::Relaxed);
        }
        if round.is_away || matches!(reviewed, Outcome::Away(_)) {
            sleep(backoff.next(random_u32())).await;
            continue;
        }
        backoff.reset();
        let interval = if round.is_growing {
            GROWING_INTERVAL
        } else {
            INTERVAL
        };
        // either is a reason to look
        let _woken = timeout(interval, courier.look.notified()).await;
        sleep(GATHER).await;
    }
}

/// What a round found.
#[derive(Debug, Default)]
struct Round {
    /// A worker may add something at any moment.
    is_growing: bool,
    /// The endpoint takes nothing now.
    is_away: bool,
    /// It takes no more of a recording.
    has_refused: bool,
}

/// Tells who records that the endpoint takes no more of it, and waits until that is noted; whether it is.
async fn tell(refused: &mpsc::Sender<RefusedRecording>, recording: String, reason: String) -> bool {
    let (noted, is_noted) = oneshot::channel();
    let refusal = RefusedRecording {
        recording,
        reason,
        noted,
    };
    // nobody is there to be told while the daemon ends
    refused.send(refusal).await.is_ok() && is_noted.await.is_ok()
}

/// Chunk by chunk, a recording after the other, until all is delivered that was there.
async fn deliver_all(
    place: &TranscriptPlace,
    (context, folder): (&NodeContext, &Path),
    known: &mut Known,
    refused: &mpsc::Sender<RefusedRecording>,
) -> Round {
    let mut round = Round::default();
    let mut waiting = Spooled::find(folder);
    known.retain(|path, _| waiting.iter().any(|spooled| spooled.path == *path));
    round.is_growing = waiting.iter().any(Spooled::is_growing);
    while !waiting.is_empty() {
        let mut unfinished = Vec::with_capacity(waiting.len());
        for mut spooled in waiting {
            let progress = known.entry(spooled.path.clone()).or_default();
            if round.is_away || progress.rests(Instant::now()) {
                sync(&spooled, progress);
                continue;
            }
            let path = spooled.path.clone();
            match deliver_chunk((place, context), &mut spooled, progress).await {
                Outcome::More => unfinished.push(spooled),
                Outcome::Current => {}
                Outcome::Delivered => {
                    tracing::debug!(path, "a recording was delivered");
                    spooled.remove();
                }
                Outcome::Refused(reason) => {
                    tracing::warn!(
                        path,
                        reason,
                        "the endpoint does not take the rest of a transcript"
                    );
                    round.has_refused = true;
                    if !spooled.is_growing() || tell(refused, spooled.recording(), reason).await {
                        spooled.remove();
                    } else {
                        progress.put_off((Instant::now(), random_u32()));
                    }
                }
                Outcome::Later(reason) => {
                    if progress.put_off((Instant::now(), random_u32())) {
                        tracing::warn!(path, reason, "the rest of a transcript waits");
                    }
                    sync(&spooled, progress);
                }
                Outcome::Away(reason) => {
                    tracing::debug!(path, reason, "the rest of a transcript waits");
                    // what holds one up holds the others up as well
                    round.is_away = true;
                    sync(&spooled, progress);
                }
            }
        }
        waiting = unfinished;
    }
    round
}

/// What waits survives a power cut.
fn sync(spooled: &Spooled, progress: &mut Progress) {
    if spooled.end <= progress.synced {
        return;
    }
    match spooled.to_sync().and_then(|file| progress.syncing.start(&file)) {
        Ok(()) => progress.synced = spooled.end,
        Err(error) => tracing::warn!(%error, path = spooled.path, "the spool of a recording was not synced"),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// There is more to send.
    More,
    /// The endpoint has all that there is, and more may come.
    Current,
    /// It has all that there will be.
    Delivered,
    /// It never will.
    Refused(String),
    /// Not now, for a reason of its own.
    Later(String),
    /// The endpoint takes nothing now.
    Away(String),
}

/// Only what says that this recording can never be taken costs it: there is none of this name, it is closed, it is too
/// long, or it holds other bytes. Credentials end, clocks differ, links are slow: those come right again.
fn outcome_of(status: u16, body: &[u8]) -> Outcome {
    let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
    let reason = format!("HTTP status {status}: {text}");
    match status {
        404 | 409 | 410 | 413 => Outcome::Refused(reason),
        // the endpoint cannot read or write this one, perhaps, and the others wait for nothing
        500 => Outcome::Later(reason),
        408 | 429 | 501.. => Outcome::Away(reason),
        _ => Outcome::Later(reason),
    }
}

/// What is there from this offset on, at most `most` bytes of it: never more of that in memory than what goes out.
async fn packed(spooled: &Spooled, offset: u64, most: usize) -> io::Result<Packed> {
    let (mut parts, mut held, mut length) = (Vec::new(), 0, 0);
    while held < CHUNK_BYTES && length < most {
        let bytes = spooled.read(offset + length as u64, MAX_BLOCK_BYTES.min(most - length))?;
        if bytes.is_empty() {
            break;
        }
        let part = Packed::new(&bytes);
        held += part.held_bytes();
        length += part.len();
        parts.push(part);
        // a slow disk holds up nothing else that the daemon does
        yield_now().await;
    }
    Ok(Packed::joined(parts))
}

async fn deliver_chunk(
    (place, context): (&TranscriptPlace, &NodeContext),
    spooled: &mut Spooled,
    progress: &mut Progress,
) -> Outcome {
    let mut most = place.most_bytes();
    if progress.must_mend(spooled) {
        match progress.confirmed {
            // nothing is sent before it was looked at
            None => most = 0,
            Some(confirmed) => match mend(spooled, confirmed, node_of(context)).await {
                Ok(()) => progress.is_mended = true,
                Err(error) => return Outcome::Later(format!("its spool cannot be mended: {error}")),
            },
        }
    }
    let offset = progress.confirmed.unwrap_or(0).max(spooled.start());
    let has_all = offset >= spooled.end && progress.confirmed.is_some();
    if has_all && spooled.is_growing() {
        return Outcome::Current;
    }
    if spooled.end == 0 && !spooled.is_whole {
        // nothing was recorded
        return if spooled.is_growing() {
            Outcome::Current
        } else {
            Outcome::Delivered
        };
    }
    let piece = match packed(spooled, offset, most).await {
        Ok(piece) => piece,
        // a disk that fails may come right again, and what is deleted does not
        Err(error) => return Outcome::Later(format!("its spool cannot be read: {error}")),
    };
    let sent = offset + piece.len() as u64;
    let is_end = sent >= spooled.end;
    let is_last = is_end && spooled.is_whole;
    // what is not kept here must be safe there
    let is_durable = (is_end && (!spooled.is_growing() || spooled.is_disk_short))
        || sent >= progress.durable + DURABLE_STEP;
    let chunk = Chunk {
        offset,
        piece,
        is_last,
        is_durable,
        is_sealed: spooled.is_sealed,
    };
    let response = match answer(place.send(&spooled.path, chunk).await) {
        Ok(response) => response,
        Err(away) => return away,
    };
    let stored = serde_json::from_slice(&response.body).map(|stored: Stored| stored.length);
    match (response.status, stored) {
        (200, Ok(length)) if length >= sent => {
            progress.confirmed = Some(length);
            progress.rest = None;
            if is_durable {
                progress.durable = length;
                spooled.discard_before(length);
            }
            match (is_end, spooled.is_growing()) {
                (false, _) => Outcome::More,
                (true, true) => Outcome::Current,
                (true, false) if spooled.is_whole => Outcome::Delivered,
                // it was made until somebody or something ended its worker
                (true, false) => cut(place, &spooled.path, length).await,
            }
        }
        (200 | 409, Ok(length)) => {
            let resumed = resume(spooled, progress, (offset, length));
            resumed.unwrap_or_else(|| outcome_of(response.status, &response.body))
        }
        (status, _) => outcome_of(status, &response.body),
    }
}

/// The endpoint has another length than was thought: a part arrived of which nobody knows, or a power cut took one from
/// it. `None`: nothing of that kind.
fn resume(spooled: &Spooled, progress: &mut Progress, (offset, length): (u64, u64)) -> Option<Outcome> {
    let is_here = (spooled.start().max(progress.durable)..=spooled.end).contains(&length);
    if length == offset || !is_here {
        return None;
    }
    progress.confirmed = Some(length);
    progress.rest = None;
    // where nothing is left to send it is asked whether it has all that on its disk
    Some(Outcome::More)
}

/// Ends at the endpoint the recordings that are open there and that nobody makes any more, or has anything left of.
async fn review(
    context: &NodeContext,
    place: &TranscriptPlace,
    is_session_served: fn(&NodeContext, &str) -> bool,
) -> Outcome {
    let asked = match answer(place.open().await) {
        Ok(response) => response,
        Err(away) => return away,
    };
    let open = match (asked.status, serde_json::from_slice(&asked.body)) {
        (200, Ok(Open { paths })) => paths,
        // an earlier release does not tell
        (status, _) => return outcome_of(status, &asked.body),
    };
    let (folder, mut is_to_come) = (folder(&context.state_dir), false);
    for path in open.iter().filter(|path| is_plain_path(path)) {
        let Some((_, name)) = path.rsplit_once('/') else {
            continue;
        };
        // in this order: a worker marks its spool before it ends
        if is_session_served(context, name) {
            continue;
        }
        if is_spooled(&folder, name) {
            is_to_come |= is_being_made(&folder, name);
            continue;
        }
        match cut(place, path, 0).await {
            away @ (Outcome::Away(_) | Outcome::Later(_)) => return away,
            Outcome::Refused(reason) => tracing::warn!(path, reason, "a recording without an end stays open"),
            Outcome::Delivered | Outcome::More | Outcome::Current => {
                tracing::info!(path, "a recording that nobody makes any more was ended");
            }
        }
    }
    match is_to_come {
        // there may be nothing in it
        true => Outcome::Later("what is left of a recording is looked at first".to_owned()),
        false => Outcome::Delivered,
    }
}

/// Says that a recording ends here, and that its end was not recorded. Where the endpoint has another length, that is
/// where.
async fn cut(place: &TranscriptPlace, path: &str, length: u64) -> Outcome {
    let mut length = length;
    for _ in 0..CUT_ATTEMPTS {
        let response = match answer(place.cut(path, length).await) {
            Ok(response) => response,
            Err(away) => return away,
        };
        let stored = serde_json::from_slice(&response.body).map(|stored: Stored| stored.length);
        match (response.status, stored) {
            (200, _) => return Outcome::Delivered,
            (409, Ok(theirs)) if theirs != length => length = theirs,
            (status, _) => return outcome_of(status, &response.body),
        }
    }
    Outcome::Later("the recording grows".to_owned())
}

fn answer(sent: Result<Response, SendError>) -> Result<Response, Outcome> {
    sent.map_err(|error| Outcome::Away(error_chain(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_that_is_not_taken_is_tried_more_and_more_rarely_until_it_is() {
        let (mut progress, mut now) = (Progress::default(), Instant::now());
        assert!(!progress.rests(now));
        let rests: Vec<u64> = (0..9)
            .map(|time| {
                assert_eq!(progress.put_off((now, u32::MAX)), time == 0, "said once");
                let begun = now;
                while progress.rests(now) {
                    now += Duration::from_millis(100);
                }
                (now - begun).as_secs()
            })
            .collect();
        assert_eq!(rests, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn what_comes_right_again_costs_no_recording() {
        for status in [404, 409, 410, 413] {
            assert!(
                matches!(outcome_of(status, b"x"), Outcome::Refused(_)),
                "{status}"
            );
        }
        // credentials that ended, a clock that differs, a body that came too slowly
        // or a file at the endpoint that is damaged: it holds up no other recording
        for status in [400, 401, 403, 500] {
            assert!(matches!(outcome_of(status, b"x"), Outcome::Later(_)), "{status}");
        }
        for status in [408, 429, 502, 503, 507] {
            assert!(matches!(outcome_of(status, b"x"), Outcome::Away(_)), "{status}");
        }
    }
}
