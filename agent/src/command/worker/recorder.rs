//! The worker's hand in the journal: what it writes there waits until the disk takes it.

use std::time::Duration;

use moorline_protocol::transcript::Digest;
use tokio::time::{Instant, sleep};

use super::{
    super::journal::{Conclusion, Journal, JournalError, MEMORY, Opener, ProcessRecord, StepProgress},
    WorkerTask, now_millis,
};

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Writes what happened into the journal, however long that takes.
pub(super) struct Recorder<'a, N> {
    pub(super) task: &'a WorkerTask,
    pub(super) worker: ProcessRecord,
    pub(super) journal: Option<Journal>,
    pub(super) nudge: N,
}

impl<N: Fn()> Recorder<'_, N> {
    /// False: the command is not ours any more, and nothing further may be done for it.
    pub(super) async fn record(
        &mut self,
        step: Option<&StepProgress>,
        conclusion: Option<&Conclusion>,
    ) -> bool {
        let now = now_millis();
        self.write(|journal, command_id, worker| journal.record(command_id, worker, step, conclusion, now))
            .await
    }

    /// The same for a reboot that is to come, or after all does not.
    pub(super) async fn await_reboot(&mut self, is_rebooting: bool) -> bool {
        self.write(|journal, command_id, worker| journal.await_reboot(command_id, worker, is_rebooting))
            .await
    }

    /// The reboot will come. Where that cannot be noted, the daemon asks for it again.
    pub(super) fn reboot_arranged(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        if let Err(error) = journal.reboot_arranged(&self.task.command_id) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the reboot may be asked for a second time");
        }
    }

    /// Notes the end of this part of the recording for the worker that makes the next.
    pub(super) fn note_part(&mut self, hash: &Digest) {
        let Some(journal) = &mut self.journal else { return };
        if let Err(error) = journal.note_part(&self.task.command_id, hash) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                "the next part of the recording will not say what it follows"
            );
        }
    }

    /// Why the endpoint takes no more of the recording, as it says itself.
    pub(super) fn unrecorded(&self) -> Option<String> {
        let journal = self.journal.as_ref()?;
        journal.unrecorded(&self.task.command_id).ok()?
    }

    async fn write(
        &mut self,
        write: impl Fn(&mut Journal, &str, &ProcessRecord) -> Result<bool, JournalError>,
    ) -> bool {
        let begun = Instant::now();
        let mut wait = FIRST_RETRY;
        loop {
            match self.try_write(&write) {
                Ok(is_ours) => {
                    (self.nudge)();
                    return is_ours;
                }
                // The disk is full, most likely. The result is known, so it is kept until there is room.
                Err(_) if begun.elapsed() < MEMORY => self.journal = None,
                Err(_) => return false,
            }
            sleep(wait).await;
            wait = (wait * 2).min(LAST_RETRY);
        }
    }

    fn try_write(
        &mut self,
        write: impl Fn(&mut Journal, &str, &ProcessRecord) -> Result<bool, JournalError>,
    ) -> Result<bool, JournalError> {
        let journal = match &mut self.journal {
            Some(journal) => journal,
            closed => closed.insert(Journal::open(&self.task.state_dir, Opener::Worker)?),
        };
        write(journal, &self.task.command_id, &self.worker)
    }
}
