//! Syncing of a file beside the session: a slow disk holds up nobody who types.

use std::{
    fs::File,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

/// At most one sync of a file runs, and at most one waits.
#[derive(Debug, Clone, Default)]
pub(super) struct Syncing(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_running: bool,
    is_wanted: bool,
}

impl Syncing {
    /// Has what was written so far synced soon. A machine that has no thread left syncs at once.
    ///
    /// # Errors
    /// The file has no second descriptor, or could not be synced at once.
    pub(super) fn start(&self, file: &File) -> io::Result<()> {
        let copy = file.try_clone()?;
        {
            let mut state = self.state();
            if state.is_running {
                state.is_wanted = true;
                return Ok(());
            }
            state.is_running = true;
        }
        let syncing = self.clone();
        let started = thread::Builder::new()
            .name("sync".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || syncing.run(&copy));
        match started {
            Ok(_runs_by_itself) => Ok(()),
            Err(_) => {
                self.state().is_running = false;
                file.sync_data()
            }
        }
    }

    fn run(&self, file: &File) {
        loop {
            if let Err(error) = file.sync_data() {
                tracing::warn!(%error, "the spool of a recording was not synced");
            }
            let mut state = self.state();
            if !std::mem::take(&mut state.is_wanted) {
                state.is_running = false;
                return;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
