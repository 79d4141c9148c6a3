//! Syncing of a file beside the session: a slow disk holds up nobody who types.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// From the end of one sync to the begin of the next. Each costs the disk more than what it writes.
const PAUSE: Duration = Duration::from_millis(100);

/// At most one sync of a file runs, and at most one waits.
#[derive(Debug, Clone, Default)]
pub(super) struct Syncing(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_running: bool,
    is_wanted: bool,
    last: Option<Instant>,
}

impl Syncing {
    /// Has what was written so far synced soon. A machine that has no thread left syncs at once.
    ///
    /// # Errors
    /// The file has no second descriptor, or could not be synced at once.
    pub(super) fn start(&self, file: &File) -> io::Result<()> {
        if self.is_under_way() {
            return Ok(());
        }
        let copy = file.try_clone();
        let started = copy.and_then(|copy| self.spawn(move || sync(&copy)));
        match started {
            Ok(()) => Ok(()),
            Err(_) => {
                self.state().is_running = false;
                file.sync_data()
            }
        }
    }

    /// Whether somebody is at it, who is told that there is more; else the caller is.
    fn is_under_way(&self) -> bool {
        let mut state = self.state();
        state.is_wanted = state.is_running;
        std::mem::replace(&mut state.is_running, true)
    }

    fn spawn(&self, sync: impl Fn() -> io::Result<()> + Send + 'static) -> io::Result<()> {
        let syncing = self.clone();
        thread::Builder::new()
            .name("sync".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || syncing.run(sync))
            .map(drop)
    }

    fn run(&self, sync: impl Fn() -> io::Result<()>) {
        loop {
            let due = self.state().last.map(|last| last + PAUSE);
            wait_until(due);
            self.state().is_wanted = false;
            if let Err(error) = sync() {
                tracing::warn!(%error, "the spool of a recording was not synced");
            }
            let mut state = self.state();
            state.last = Some(Instant::now());
            if !state.is_wanted {
                state.is_running = false;
                return;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Syncs a file, unless nobody will open it any more: what it held was delivered meanwhile.
fn sync(file: &File) -> io::Result<()> {
    match file.metadata()?.nlink() {
        0 => Ok(()),
        _ => file.sync_data(),
    }
}

fn wait_until(due: Option<Instant>) {
    let left = || due?.checked_duration_since(Instant::now());
    while let Some(left) = left().filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Has a sync started that says when it was.
    fn started(syncing: &Syncing, synced: &mpsc::Sender<Instant>) {
        if !syncing.is_under_way() {
            let synced = synced.clone();
            syncing
                .spawn(move || synced.send(Instant::now()).map_err(io::Error::other))
                .unwrap();
        }
    }

    #[test]
    fn what_is_written_all_the_time_is_synced_at_a_measured_pace_and_the_last_of_it_too() {
        let syncing = Syncing::default();
        let (sender, synced) = mpsc::channel();
        let mut times = Vec::new();
        while times.len() < 4 {
            started(&syncing, &sender);
            times.extend(synced.try_iter());
        }
        for pair in times.windows(2) {
            assert!(pair[1] - pair[0] >= PAUSE, "{times:?}");
        }
        let written = Instant::now();
        started(&syncing, &sender);
        drop(sender);
        assert!(synced.iter().any(|at| at >= written));
    }
}
