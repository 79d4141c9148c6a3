//! The worker's moves: begin, each step, the end. Only the worker that began a command can make the others.

use moorline_protocol::document::StepResult;
use rusqlite::{OptionalExtension, Transaction};

use super::{
    Conclusion, Journal, JournalError, NewReply, ProcessRecord, conclude, doing, insert_replies, number,
    read_status,
};

/// A command that waits to be begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::command) struct Assignment {
    pub(in crate::command) job_id: String,
    /// JSON text of a `SendCommandContent`.
    pub(in crate::command) content: String,
    /// None of its steps has run, not even before a reboot.
    pub(in crate::command) is_new: bool,
}

/// Whether this worker has the command now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::command) enum Beginning {
    Begun {
        is_cancelled: bool,
        /// Of the steps that ended before a reboot, from the first.
        results: Vec<StepResult>,
        reboots: u32,
    },
    /// Another worker has it, or it is over.
    NotOurs,
}

/// One finished step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::command) struct StepProgress {
    pub(in crate::command) position: usize,
    pub(in crate::command) result: StepResult,
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
                "SELECT job_id, content,
                     NOT EXISTS (SELECT 1 FROM step WHERE step.command_id = command.command_id)
                 FROM command WHERE command_id = ?1 AND state = 'accepted'",
                [command_id],
                |row| {
                    Ok(Assignment {
                        job_id: row.get(0)?,
                        content: row.get(1)?,
                        is_new: row.get(2)?,
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
                "UPDATE command SET state = 'started', is_rebooting = 0, boot_id = ?2, worker_pid = ?3, worker_start_ticks = ?4
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
                    "INSERT INTO step (command_id, position, action, name) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (command_id, position) DO NOTHING",
                    (command_id, number(position), action, name),
                )?;
            }
            let (is_cancelled, reboots) = transaction.query_row(
                "SELECT cancel_requested, reboots FROM command WHERE command_id = ?1",
                [command_id],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            Ok(Beginning::Begun {
                is_cancelled,
                results: results(transaction, command_id)?,
                reboots,
            })
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
            if !is_ours(transaction, command_id, worker)? {
                return Ok(false);
            }
            if let Some(step) = step {
                transaction.execute(
                    "UPDATE step SET status = ?3, code = ?4 WHERE command_id = ?1 AND position = ?2",
                    (
                        command_id,
                        number(step.position),
                        step.result.status.as_str(),
                        step.result.code,
                    ),
                )?;
                insert_replies(transaction, command_id, std::slice::from_ref(&step.reply), now)?;
            }
            if let Some(conclusion) = conclusion {
                conclude(transaction, command_id, conclusion, now)?;
            }
            Ok(true)
        })
    }

    /// The command waits for a reboot that one of its steps has asked for, or after all does not. False: the command
    /// is no longer this worker's.
    ///
    /// # Errors
    /// The journal cannot be written: there may be no reboot, since the command would be lost with it.
    pub(in crate::command) fn await_reboot(
        &mut self,
        command_id: &str,
        worker: &ProcessRecord,
        is_rebooting: bool,
    ) -> Result<bool, JournalError> {
        self.write("record a reboot in", |transaction| {
            if !is_ours(transaction, command_id, worker)? {
                return Ok(false);
            }
            transaction.execute(
                "UPDATE command SET is_rebooting = ?2, reboot_is_arranged = 0, reboots = reboots + ?2
                 WHERE command_id = ?1",
                (command_id, is_rebooting),
            )?;
            Ok(true)
        })
    }

    /// The machine has been asked for the reboot that the command awaits, and it will come.
    ///
    /// # Errors
    /// The journal cannot be written: the machine may be asked again.
    pub(in crate::command) fn reboot_arranged(&mut self, command_id: &str) -> Result<(), JournalError> {
        self.write_relaxed("record a reboot in", |transaction| {
            transaction.execute(
                "UPDATE command SET reboot_is_arranged = 1 WHERE command_id = ?1 AND is_rebooting",
                [command_id],
            )?;
            Ok(())
        })
    }
}

fn is_ours(
    transaction: &Transaction<'_>,
    command_id: &str,
    worker: &ProcessRecord,
) -> rusqlite::Result<bool> {
    let found = transaction
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
        .optional()?;
    Ok(found.is_some())
}

/// Results of the steps up to the first that has none.
fn results(transaction: &Transaction<'_>, command_id: &str) -> rusqlite::Result<Vec<StepResult>> {
    let mut statement =
        transaction.prepare("SELECT status, code FROM step WHERE command_id = ?1 ORDER BY position")?;
    let rows = statement.query_map([command_id], |row| {
        let (status, code): (Option<String>, Option<i64>) = (row.get(0)?, row.get(1)?);
        Ok(status.map(|status| StepResult {
            status: read_status(&status),
            code: code.unwrap_or_default(),
        }))
    })?;
    let mut results = Vec::new();
    for row in rows {
        match row? {
            Some(result) => results.push(result),
            None => break,
        }
    }
    Ok(results)
}
