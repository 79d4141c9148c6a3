//! The worker's moves: begin, each step, the end. Only the worker that began a command can make the others.

use moorline_protocol::message::ResultStatus;
use rusqlite::OptionalExtension;

use super::{
    Conclusion, Journal, JournalError, NewReply, ProcessRecord, conclude, doing, insert_replies, number,
};

/// A command that waits to be begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::command) struct Assignment {
    pub(in crate::command) job_id: String,
    /// JSON text of a `SendCommandContent`.
    pub(in crate::command) content: String,
}

/// Whether this worker has the command now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::command) enum Beginning {
    Begun {
        is_cancelled: bool,
    },
    /// Another worker has it, or it is over.
    NotOurs,
}

/// One finished step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::command) struct StepProgress {
    pub(in crate::command) position: usize,
    pub(in crate::command) status: ResultStatus,
    pub(in crate::command) reply: NewReply,
}

impl Journal {
    /// What there is to do, if it has not been begun.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub(in crate::command) fn assignment(
        &self,
        command_id: &str,
    ) -> Result<Option<Assignment>, JournalError> {
        self.connection
            .query_row(
                "SELECT job_id, content FROM command WHERE command_id = ?1 AND state = 'accepted'",
                [command_id],
                |row| {
                    Ok(Assignment {
                        job_id: row.get(0)?,
                        content: row.get(1)?,
                    })
                },
            )
            .optional()
            .map_err(doing("read"))
    }

    /// Makes this worker the one that runs the command: of all that try, exactly one succeeds, ever.
    ///
    /// # Errors
    /// The journal cannot be written; the command counts as not begun.
    pub(in crate::command) fn begin(
        &mut self,
        command_id: &str,
        worker: &ProcessRecord,
        steps: &[(String, String)],
    ) -> Result<Beginning, JournalError> {
        self.write("begin a command in", |transaction| {
            let moved = transaction.execute(
                "UPDATE command SET state = 'started', boot_id = ?2, worker_pid = ?3, worker_start_ticks = ?4
                 WHERE command_id = ?1 AND state = 'accepted'",
                (
                    command_id,
                    &worker.boot_id,
                    worker.key.pid,
                    worker.key.start_ticks.cast_signed(),
                ),
            )?;
            if moved == 0 {
                return Ok(Beginning::NotOurs);
            }
            for (position, (action, name)) in steps.iter().enumerate() {
                transaction.execute(
                    "INSERT INTO step (command_id, position, action, name) VALUES (?1, ?2, ?3, ?4)",
                    (command_id, number(position), action, name),
                )?;
            }
            let is_cancelled = transaction.query_row(
                "SELECT cancel_requested FROM command WHERE command_id = ?1",
                [command_id],
                |row| row.get(0),
            )?;
            Ok(Beginning::Begun { is_cancelled })
        })
    }

    /// Records a finished step, and with the last one the end of the command. False: the command is no longer this
    /// worker's, and nothing was recorded.
    ///
    /// # Errors
    /// The journal cannot be written; the caller tries again, nothing else may happen first.
    pub(in crate::command) fn record(
        &mut self,
        command_id: &str,
        worker: &ProcessRecord,
        step: Option<&StepProgress>,
        conclusion: Option<&Conclusion>,
        now: u64,
    ) -> Result<bool, JournalError> {
        self.write("record progress in", |transaction| {
            let is_ours = transaction
                .query_row(
                    "SELECT 1 FROM command WHERE command_id = ?1 AND state = 'started' AND boot_id = ?2
                         AND worker_pid = ?3 AND worker_start_ticks = ?4",
                    (
                        command_id,
                        &worker.boot_id,
                        worker.key.pid,
                        worker.key.start_ticks.cast_signed(),
                    ),
                    |_| Ok(()),
                )
                .optional()?
                .is_some();
            if !is_ours {
                return Ok(false);
            }
            if let Some(step) = step {
                transaction.execute(
                    "UPDATE step SET status = ?3 WHERE command_id = ?1 AND position = ?2",
                    (command_id, number(step.position), step.status.as_str()),
                )?;
                insert_replies(transaction, command_id, std::slice::from_ref(&step.reply), now)?;
            }
            if let Some(conclusion) = conclusion {
                conclude(transaction, command_id, conclusion, now)?;
            }
            Ok(true)
        })
    }
}
