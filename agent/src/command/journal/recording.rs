//! Recordings of commands: of those that run on without one, and of those that go on after a reboot.

use moorline_protocol::{document::StopReason, transcript::Digest};
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

    /// A part of the recording of a command ends with this record.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub(in crate::command) fn note_part(
        &mut self,
        command_id: &str,
        hash: &Digest,
    ) -> Result<(), JournalError> {
        self.write("note a part of a recording in", |transaction| {
            transaction.execute(
                "UPDATE command SET last_part = ?2 WHERE command_id = ?1",
                (command_id, hash.to_string()),
            )?;
            Ok(())
        })
    }

    /// With which record the last part of the recording of a command ends.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub(in crate::command) fn last_part(&self, command_id: &str) -> Result<Option<Digest>, JournalError> {
        let hash: Option<String> = self
            .connection
            .query_row(
                "SELECT last_part FROM command WHERE command_id = ?1",
                [command_id],
                |row| row.get(0),
            )
            .optional()
            .map(Option::flatten)
            .map_err(doing("read"))?;
        Ok(hash.and_then(|hash| Digest::parse(hash.as_bytes())))
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
