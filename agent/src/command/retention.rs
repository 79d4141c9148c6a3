//! Files of commands that have ended: bounded by age, number and bytes, on a thread of its own that lets others
//! go first.
//!
//! A round reads the folder piece by piece, and holds in memory what is to stay. Whether a command has ended is asked
//! after its directory was seen, and the directory is made after the command is in the journal: so what is not among
//! the active ones then was ended.

mod kept;
mod pace;
mod tree;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, ReadDir},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use crate::runtime::{Abandoned, GroupPlaces, remove_leftovers, yield_to_others};

use super::{
    journal::{JournalError, JournalThread},
    node::{GROUPS_PREFIX, Node, groups_name},
    now_millis, step,
};

use self::{
    kept::{Directory, Kept, Limits, Sizes},
    pace::Pace,
};

/// The first round comes after the start, which is to be quick.
const FIRST_ROUND: Duration = Duration::from_secs(10);
/// Between two rounds that look at ages, and at all sizes anew.
const INTERVAL: Duration = Duration::from_secs(3600);
/// Between two rounds because commands have ended: one serves a burst.
const PAUSE: Duration = Duration::from_secs(1);
/// And where a round takes long, this many times as long, up to the longest pause.
const PAUSE_OF_ROUND: u32 = 20;
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// What one directory may take, so that others have their turn: the next round goes on with it.
const PATIENCE: Duration = Duration::from_secs(600);
/// Names that are read before the journal is asked.
const BATCH: usize = 256;
/// How much further than time itself the wall clock may move between two looks.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(600);
/// Nothing here is nested or large.
const STACK_BYTES: usize = 256 * 1024;

/// The task's handle to the thread, which ends with it.
#[derive(Debug)]
pub(super) struct Retention {
    node: Arc<Node>,
    journal: JournalThread,
    running: Option<(JoinHandle<()>, SyncSender<()>)>,
}

impl Retention {
    pub(super) fn start(node: Arc<Node>, journal: JournalThread) -> Self {
        let running = start_thread(&node, &journal);
        Self {
            node,
            journal,
            running,
        }
    }

    /// There is one more command that may have to go, or make another one go.
    pub(super) fn command_ended(&mut self) {
        let lives = self
            .running
            .as_ref()
            .is_some_and(|(thread, _)| !thread.is_finished());
        if !lives {
            self.running = start_thread(&self.node, &self.journal);
        }
        if let Some((_, bell)) = &self.running {
            // When it has been rung already, that will do.
            bell.try_send(()).ok();
        }
    }
}

/// `None` on a machine at its limit of processes: tried again when the next command has ended.
fn start_thread(node: &Node, journal: &JournalThread) -> Option<(JoinHandle<()>, SyncSender<()>)> {
    let (bell, listening) = sync_channel(1);
    let keeper = Keeper {
        folder: step::run_directories(&node.state_dir),
        limits: Limits::of(&node.limits),
        groups: GroupPlaces::folders_of(&groups_name(&node.state_dir)),
        abandoned: None,
        journal: journal.clone(),
        pace: Pace::new(listening),
        clocks: Clocks::new(Instant::now(), now_millis()),
        sizes: Sizes::new(),
    };
    let started = thread::Builder::new()
        .name("retention".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || keeper.run());
    match started {
        Ok(thread) => Some((thread, bell)),
        Err(error) => {
            tracing::warn!(%error, "no thread to remove old files of commands, tried again later");
            None
        }
    }
}

/// Why a round did not come to its end.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("failed to list {path}")]
    List {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to ask which commands run")]
    Journal(#[source] JournalError),
    #[error("the daemon's task has gone")]
    Over,
}

/// The thread's own.
#[derive(Debug)]
struct Keeper {
    folder: PathBuf,
    limits: Limits,
    /// Where groups of steps can be: limits of the owner's policy take folders that the daemon's own do not.
    groups: Vec<PathBuf>,
    /// Groups of other agents, until the first full round has looked a second time.
    abandoned: Option<Abandoned>,
    journal: JournalThread,
    pace: Pace,
    clocks: Clocks,
    /// Of what stayed in the last round.
    sizes: Sizes,
}

impl Keeper {
    fn run(mut self) {
        yield_to_others();
        self.abandoned = Some(Abandoned::find(&self.groups, GROUPS_PREFIX));
        let mut full_at = Instant::now() + FIRST_ROUND;
        let mut next_at = Instant::now();
        while self.pace.wait(full_at, next_at) {
            self.pace.is_rung = false;
            let began = Instant::now();
            let is_full = began >= full_at;
            match self.keep(is_full) {
                // A file system may leave names out while others are removed, so it is looked at again.
                Ok(removed) => self.pace.is_rung |= is_full && removed > 0,
                Err(RoundError::Over) => return,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "failed to remove old files of commands");
                }
            }
            let now = Instant::now();
            next_at = now
                + (now - began)
                    .saturating_mul(PAUSE_OF_ROUND)
                    .clamp(PAUSE, MAX_PAUSE);
            if is_full {
                full_at = now + INTERVAL;
            }
        }
    }

    /// One round, and the number of directories that it has removed. `is_full`: ages count too, if the clock can be
    /// believed, and nothing that was measured before.
    fn keep(&mut self, is_full: bool) -> Result<usize, RoundError> {
        remove_leftovers(&self.groups);
        let mut limits = self.limits.of_size();
        if is_full {
            if let Some(abandoned) = self.abandoned.take() {
                abandoned.remove();
            }
            step::end_orphans_by_hand(&self.folder);
            self.sizes.clear();
            if self.clocks.have_leapt(Instant::now(), now_millis()) {
                tracing::warn!("the clock was set forward; nothing is removed for its age this time");
            } else {
                limits = self.limits;
                self.forget()?;
            }
        }
        let (kept, mut removed) = self.choose(limits)?;
        let known = std::mem::take(&mut self.sizes);
        let (folder, pace) = (&self.folder, &mut self.pace);
        let measure = |directory: &Directory| {
            tree::measure(&folder.join(&directory.name), Instant::now() + PATIENCE, pace)
        };
        let (sizes, going) = kept.weigh(&known, measure).ok_or(RoundError::Over)?;
        self.sizes = sizes;
        for directory in going {
            removed += usize::from(self.remove(&directory)?);
        }
        match is_full && removed > 0 {
            true => tracing::info!(removed, "files of old commands were removed"),
            false => tracing::debug!(removed, "a round over the files of commands"),
        }
        Ok(removed)
    }

    /// Removes what is old from the journal.
    fn forget(&mut self) -> Result<(), RoundError> {
        loop {
            match self.journal.call_blocking(|journal| journal.forget(now_millis())) {
                Ok(true) if self.pace.goes_on() => {}
                Ok(true) => return Err(RoundError::Over),
                Ok(false) => return Ok(()),
                // On a full disk nothing can be written, and removing files is what helps.
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "failed to remove old commands from the journal");
                    return Ok(());
                }
            }
        }
    }

    /// Reads the whole folder, and removes at once what is too old or too much.
    fn choose(&mut self, limits: Limits) -> Result<(Kept, usize), RoundError> {
        let mut kept = Kept::new(limits, SystemTime::now());
        let mut removed = 0;
        let Some(mut listed) = list(&self.folder)? else {
            return Ok((kept, removed));
        };
        loop {
            let names = self.next_names(&mut listed)?;
            if names.is_empty() {
                return Ok((kept, removed));
            }
            let active = self
                .journal
                .call_blocking(|journal| journal.active())
                .map_err(RoundError::Journal)?;
            for name in names.into_iter().filter(|name| !is_active(name, &active)) {
                if !self.pace.goes_on() {
                    return Err(RoundError::Over);
                }
                let Ok(metadata) = fs::symlink_metadata(self.folder.join(&name)) else {
                    continue;
                };
                let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                if let Some(going) = kept.offer(Directory { modified, name }) {
                    removed += usize::from(self.remove(&going)?);
                }
            }
        }
    }

    fn next_names(&self, listed: &mut ReadDir) -> Result<Vec<OsString>, RoundError> {
        let failed = |source| RoundError::List {
            path: self.folder.clone(),
            source,
        };
        let names: io::Result<Vec<OsString>> = listed
            .by_ref()
            .take(BATCH)
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect();
        names.map_err(failed)
    }

    /// False: it could not be removed, and is left for the next round. Where it was changed by that it counts as new
    /// then.
    fn remove(&mut self, directory: &Directory) -> Result<bool, RoundError> {
        let path = self.folder.join(&directory.name);
        match tree::remove(&path, Instant::now() + PATIENCE, &mut self.pace) {
            Ok(true) => Ok(true),
            Ok(false) => Err(RoundError::Over),
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "failed to remove an old command's files");
                Ok(false)
            }
        }
    }
}

/// `None`: no command has run yet.
fn list(folder: &Path) -> Result<Option<ReadDir>, RoundError> {
    match fs::read_dir(folder) {
        Ok(listed) => Ok(Some(listed)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(RoundError::List {
            path: folder.to_owned(),
            source,
        }),
    }
}

fn is_active(name: &OsString, active: &BTreeSet<String>) -> bool {
    name.to_str().is_some_and(|name| active.contains(name))
}

/// Both clocks as they were last seen. Ages are told by the wall clock, which is set while the daemon runs.
#[derive(Debug)]
struct Clocks {
    monotonic: Instant,
    wall_millis: u64,
}

impl Clocks {
    fn new(monotonic: Instant, wall_millis: u64) -> Self {
        Self {
            monotonic,
            wall_millis,
        }
    }

    /// Whether the wall clock was set forward since the last look: then what is young looks old.
    fn have_leapt(&mut self, monotonic: Instant, wall_millis: u64) -> bool {
        let passed = monotonic.saturating_duration_since(self.monotonic);
        let told = Duration::from_millis(wall_millis.saturating_sub(self.wall_millis));
        *self = Self::new(monotonic, wall_millis);
        told > passed.saturating_add(CLOCK_TOLERANCE)
    }
}

#[cfg(test)]
mod tests;
