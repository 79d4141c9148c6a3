//! The daemon's connection, on a thread of its own: the disk may be slow, the daemon's tasks may not.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use tokio::sync::{mpsc, oneshot};

use super::{Journal, JournalError, Opener};

/// Work that waits for the thread. Its callers wait for their answers, so there are never more than tasks.
const QUEUE: usize = 64;
/// SQLite's own need is small; documents are parsed here, nested 64 levels at most.
const STACK_BYTES: usize = 1024 * 1024;

type Work = Box<dyn FnOnce(&mut Keeper) + Send>;

/// A handle to the thread, which ends with the last handle.
#[derive(Debug, Clone)]
pub(in crate::command) struct JournalThread {
    work: mpsc::Sender<Work>,
}

/// Owns the connection, and opens it when there is none.
struct Keeper {
    state_dir: PathBuf,
    journal: Option<Journal>,
}

impl Keeper {
    fn journal(&mut self) -> Result<&mut Journal, JournalError> {
        match &mut self.journal {
            Some(journal) => Ok(journal),
            closed => Ok(closed.insert(Journal::open(&self.state_dir, Opener::Daemon)?)),
        }
    }
}

impl JournalThread {
    /// Starts the thread. The journal itself is opened by the first call.
    pub(in crate::command) fn start(state_dir: PathBuf) -> Self {
        let (work, mut queue) = mpsc::channel::<Work>(QUEUE);
        let mut keeper = Keeper {
            state_dir,
            journal: None,
        };
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .stack_size(STACK_BYTES);
        let started = thread.spawn(move || {
            while let Some(work) = queue.blocking_recv() {
                // A panic ends this piece of work, whose caller hears of it by the missing answer, and nothing else.
                if catch_unwind(AssertUnwindSafe(|| work(&mut keeper))).is_err() {
                    keeper.journal = None;
                }
            }
        });
        if let Err(error) = started {
            // Every call then says that the thread has ended, and no command is accepted.
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "failed to start the journal's thread"
            );
        }
        Self { work }
    }

    /// Does something with the journal. After an error, but that it is full, the connection is given up, and the next
    /// call opens it anew.
    ///
    /// # Errors
    /// The journal cannot be opened, or what `work` returns.
    pub(in crate::command) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        self.run(on_journal(work)).await?
    }

    /// As [`Self::call`], for a thread outside the runtime.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(in crate::command) fn call_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (work, answered) = answering(on_journal(work));
        self.work.blocking_send(work).map_err(|_| JournalError::Closed)?;
        answered.blocking_recv().map_err(|_| JournalError::Closed)?
    }

    /// Does something that takes its time and needs no journal.
    ///
    /// # Errors
    /// The thread has ended.
    pub(in crate::command) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JournalError> {
        self.run(move |_| work()).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Keeper) -> T + Send + 'static,
    ) -> Result<T, JournalError> {
        let (work, answered) = answering(work);
        self.work.send(work).await.map_err(|_| JournalError::Closed)?;
        answered.await.map_err(|_| JournalError::Closed)
    }
}

/// Work with the journal, which is given up after an error.
fn on_journal<T>(
    work: impl FnOnce(&mut Journal) -> Result<T, JournalError>,
) -> impl FnOnce(&mut Keeper) -> Result<T, JournalError> {
    move |keeper| {
        let outcome = keeper.journal().and_then(work);
        let is_broken = |error: &JournalError| !matches!(error, JournalError::Full { .. });
        if outcome.as_ref().is_err_and(is_broken) {
            keeper.journal = None;
        }
        outcome
    }
}

fn answering<T: Send + 'static>(
    work: impl FnOnce(&mut Keeper) -> T + Send + 'static,
) -> (Work, oneshot::Receiver<T>) {
    let (answer, answered) = oneshot::channel();
    // Nobody may wait any more: the daemon ends.
    let work: Work = Box::new(move |keeper| drop(answer.send(work(keeper))));
    (work, answered)
}
