//! Commands that run on without a recorder.

use moorline_protocol::document::StopReason;
use rusqlite::OptionalExtension as _;

use super::{Journal, JournalError, ProcessRecord, accept::worker_record, doing};

impl Journal {
    /// The endpoint takes no more of the recording of a command, and why. The first reason stands. The worker, if the
    /// command runs.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub(in crate::command) fn note_unrecorded(
        &mut self,
        command_id: &str,
        reason: &str,
    ) -> Result<Option<ProcessRecord>, JournalError> {
        self.write("note an end of a recording in", |transaction| {
            transaction.execute(
                "UPDATE command SET unrecorded = coalesce(unrecorded, ?2)
                 WHERE command_id = ?1 AND state <> 'finished'",
                (command_id, reason),
            )?;
            let worker = transaction.query_row(
                "SELECT boot_id, worker_pid, worker_start_ticks FROM command
                 WHERE command_id = ?1 AND state = 'started'",
                [command_id],
                |row| worker_record(row, 0),
            );
            worker.optional().map(Option::flatten)
        })
    }

    /// Why the endpoint takes no more of the command's recording, if it does not.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub(in crate::command) fn unrecorded(&self, command_id: &str) -> Result<Option<String>, JournalError> {
        self.connection
            .query_row(
                "SELECT unrecorded FROM command WHERE command_id = ?1",
                [command_id],
                |row| row.get(0),
            )
            .optional()
            .map(Option::flatten)
            .map_err(doing("read"))
    }

    /// What a worker was told to stop for.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub(in crate::command) fn stop_reason(&self, command_id: &str) -> Result<StopReason, JournalError> {
        let is_unrecorded = self
            .connection
            .query_row(
                "SELECT NOT cancel_requested AND unrecorded IS NOT NULL FROM command WHERE command_id = ?1",
                [command_id],
                |row| row.get(0),
            )
            .optional()
            .map_err(doing("read"))?;
        Ok(match is_unrecorded {
            Some(true) => StopReason::Unrecorded,
            Some(false) | None => StopReason::Cancelled,
        })
    }
}
