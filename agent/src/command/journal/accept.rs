//! The daemon's moves: accept, cancel, and settle what a worker left behind.

use rusqlite::{Connection, OptionalExtension, Row, Transaction};

use crate::runtime::ProcessKey;

use super::{
    Assignment, Conclusion, Journal, JournalError, ProcessRecord, StepRecord, conclude, doing, millis,
    read_status,
};

/// A command without an end, as a starting daemon finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::command) struct Unfinished {
    pub(in crate::command) command_id: String,
    /// `None`: accepted, and never started.
    pub(in crate::command) worker: Option<ProcessRecord>,
}

/// What a cancellation came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::command) enum CancelOutcome {
    /// It waited, and has ended as cancelled.
    Ended,
    /// Its worker will see the mark, and is to be signalled if one is named.
    Marked(Option<ProcessRecord>),
    /// There is nothing to cancel: never heard of, or already at its end.
    Nothing,
}

/// How to end a command, depending on how far it got.
#[derive(Debug)]
pub(in crate::command) struct Endings<C, L> {
    pub(in crate::command) cancelled: C,
    pub(in crate::command) lost: L,
}

/// Where a command stands after its worker has gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::command) enum Settled {
    /// It had finished, or is not known.
    Finished,
    /// No worker has begun it: it can be started.
    Waiting,
    /// Another worker runs it.
    Running(ProcessRecord),
    /// No worker has begun it and it was cancelled, so it has ended now.
    Cancelled,
    /// Its worker died without a result, and that has been recorded now.
    Lost,
    /// It goes on after the reboot that one of its steps has asked for.
    AwaitsReboot {
        /// False: nobody is known to have asked the machine.
        is_arranged: bool,
    },
}

impl Journal {
    /// Takes a command in. False: it was taken before, and nothing changes.
    ///
    /// # Errors
    /// The journal is full or cannot be written; the command counts as not taken.
    pub(in crate::command) fn accept(
        &mut self,
        command_id: &str,
        job_id: &str,
        content: &str,
        now: u64,
    ) -> Result<bool, JournalError> {
        let most = self.most_bytes;
        self.write("accept a command into", |transaction| {
            if is_known(transaction, command_id)? {
                return Ok(Ok(false));
            }
            let used = used_bytes(transaction)?;
            if used.saturating_add(content.len() as u64) > most {
                return Ok(Err(JournalError::Full { used, most }));
            }
            transaction.execute(
                "INSERT INTO command (command_id, job_id, content, state, accepted_at)
                 VALUES (?1, ?2, ?3, 'accepted', ?4)",
                (command_id, job_id, content, millis(now)),
            )?;
            Ok(Ok(true))
        })?
    }

    /// Whether the command was taken in before. A look only, so it needs no room on the disk.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub(in crate::command) fn is_known(&self, command_id: &str) -> Result<bool, JournalError> {
        is_known(&self.connection, command_id).map_err(doing("look into"))
    }

    /// Everything without an end, oldest first.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub(in crate::command) fn unfinished(&self) -> Result<Vec<Unfinished>, JournalError> {
        let read = || {
            let mut statement = self.connection.prepare(
                "SELECT command_id, boot_id, worker_pid, worker_start_ticks FROM command
                 WHERE state <> 'finished' ORDER BY accepted_at, rowid",
            )?;
            let rows = statement.query_map([], |row| {
                Ok(Unfinished {
                    command_id: row.get(0)?,
                    worker: worker_record(row, 1)?,
                })
            })?;
            rows.collect::<rusqlite::Result<_>>()
        };
        read().map_err(doing("read"))
    }

    /// Cancels a command. One that waits ends here, unless a worker process has been started for it
    /// (`has_process`), which then finds the mark when it begins.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub(in crate::command) fn cancel(
        &mut self,
        command_id: &str,
        has_process: bool,
        now: u64,
        ended: impl FnOnce(&Assignment) -> Conclusion,
    ) -> Result<CancelOutcome, JournalError> {
        self.write("cancel a command in", |transaction| {
            let Some((assignment, state, worker)) = command(transaction, command_id)? else {
                return Ok(CancelOutcome::Nothing);
            };
            match state.as_str() {
                "finished" => return Ok(CancelOutcome::Nothing),
                "accepted" if !has_process => {
                    conclude(transaction, command_id, &ended(&assignment), now)?;
                    return Ok(CancelOutcome::Ended);
                }
                _ => {}
            }
            transaction.execute(
                "UPDATE command SET cancel_requested = 1 WHERE command_id = ?1",
                [command_id],
            )?;
            Ok(CancelOutcome::Marked(worker))
        })
    }

    /// A worker of this command has gone: finds out what that means, and ends the command when its outcome can no
    /// longer be known.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub(in crate::command) fn settle(
        &mut self,
        command_id: &str,
        now: u64,
        is_alive: impl FnOnce(&ProcessRecord) -> bool,
        ended: Endings<
            impl FnOnce(&Assignment) -> Conclusion,
            impl FnOnce(&str, &[StepRecord]) -> Conclusion,
        >,
    ) -> Result<Settled, JournalError> {
        self.write("settle a command in", |transaction| {
            let Some((assignment, state, worker)) = command(transaction, command_id)? else {
                return Ok(Settled::Finished);
            };
            match (state.as_str(), worker) {
                ("accepted", _) => {
                    let is_cancelled: bool = transaction.query_row(
                        "SELECT cancel_requested FROM command WHERE command_id = ?1",
                        [command_id],
                        |row| row.get(0),
                    )?;
                    if !is_cancelled {
                        return Ok(Settled::Waiting);
                    }
                    conclude(transaction, command_id, &(ended.cancelled)(&assignment), now)?;
                    return Ok(Settled::Cancelled);
                }
                ("finished", _) => return Ok(Settled::Finished),
                (_, Some(worker)) if is_alive(&worker) => return Ok(Settled::Running(worker)),
                (_, Some(worker)) if is_rebooting(transaction, command_id)? => {
                    if worker.is_of_this_boot() {
                        let is_arranged = transaction.query_row(
                            "SELECT reboot_is_arranged FROM command WHERE command_id = ?1",
                            [command_id],
                            |row| row.get(0),
                        )?;
                        return Ok(Settled::AwaitsReboot { is_arranged });
                    }
                    transaction.execute(
                        "UPDATE command SET state = 'accepted', is_rebooting = 0, boot_id = NULL,
                             worker_pid = NULL, worker_start_ticks = NULL WHERE command_id = ?1",
                        [command_id],
                    )?;
                    return Ok(Settled::Waiting);
                }
                _ => {}
            }
            let steps = steps(transaction, command_id)?;
            conclude(
                transaction,
                command_id,
                &(ended.lost)(&assignment.job_id, &steps),
                now,
            )?;
            Ok(Settled::Lost)
        })
    }

    /// Ends a command that waits for a reboot which has not come. False: it does not wait for one any more.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub(in crate::command) fn give_up_reboot(
        &mut self,
        command_id: &str,
        now: u64,
        ended: impl FnOnce(&str, &[StepRecord]) -> Conclusion,
    ) -> Result<bool, JournalError> {
        self.write("end a command in", |transaction| {
            match command(transaction, command_id)? {
                Some((assignment, state, _))
                    if state == "started" && is_rebooting(transaction, command_id)? =>
                {
                    let steps = steps(transaction, command_id)?;
                    conclude(transaction, command_id, &ended(&assignment.job_id, &steps), now)?;
                    Ok(true)
                }
                _ => Ok(false),
            }
        })
    }

    /// Ends a command that no worker has begun, because none can be started. False: one has begun it after all.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub(in crate::command) fn abandon(
        &mut self,
        command_id: &str,
        now: u64,
        ended: impl FnOnce(&Assignment) -> Conclusion,
    ) -> Result<bool, JournalError> {
        self.write("end a command in", |transaction| {
            match command(transaction, command_id)? {
                Some((assignment, state, _)) if state == "accepted" => {
                    conclude(transaction, command_id, &ended(&assignment), now)?;
                    Ok(true)
                }
                _ => Ok(false),
            }
        })
    }
}

fn is_known(connection: &Connection, command_id: &str) -> rusqlite::Result<bool> {
    let found = connection
        .query_row(
            "SELECT 1 FROM command WHERE command_id = ?1",
            [command_id],
            |_| Ok(()),
        )
        .optional()?;
    Ok(found.is_some())
}

/// Bytes of the file's pages, without those that are free to be written anew.
fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let pages = number("page_count")? - number("freelist_count")?;
    Ok(pages.saturating_mul(number("page_size")?).cast_unsigned())
}

type CommandRow = (Assignment, String, Option<ProcessRecord>);

/// What to run (empty when it has ended), state and worker.
fn command(transaction: &Transaction<'_>, command_id: &str) -> rusqlite::Result<Option<CommandRow>> {
    transaction
        .query_row(
            "SELECT job_id, coalesce(content, ''), state, boot_id, worker_pid, worker_start_ticks,
                 NOT EXISTS (SELECT 1 FROM step WHERE step.command_id = command.command_id)
             FROM command WHERE command_id = ?1",
            [command_id],
            |row| {
                let assignment = Assignment {
                    job_id: row.get(0)?,
                    content: row.get(1)?,
                    is_new: row.get(6)?,
                };
                Ok((assignment, row.get(2)?, worker_record(row, 3)?))
            },
        )
        .optional()
}

fn is_rebooting(transaction: &Transaction<'_>, command_id: &str) -> rusqlite::Result<bool> {
    transaction.query_row(
        "SELECT is_rebooting FROM command WHERE command_id = ?1",
        [command_id],
        |row| row.get(0),
    )
}

fn steps(transaction: &Transaction<'_>, command_id: &str) -> rusqlite::Result<Vec<StepRecord>> {
    let mut statement = transaction
        .prepare("SELECT action, name, status FROM step WHERE command_id = ?1 ORDER BY position")?;
    let rows = statement.query_map([command_id], |row| {
        let status: Option<String> = row.get(2)?;
        Ok(StepRecord {
            action: row.get(0)?,
            name: row.get(1)?,
            status: status.as_deref().map(read_status),
        })
    })?;
    rows.collect()
}

/// Three columns from `first`: the boot's id, pid, start time.
pub(super) fn worker_record(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<ProcessRecord>> {
    let Some(boot_id) = row.get(first)? else {
        return Ok(None);
    };
    let start_ticks: i64 = row.get(first + 2)?;
    let key = ProcessKey {
        pid: row.get(first + 1)?,
        start_ticks: start_ticks.cast_unsigned(),
    };
    Ok(Some(ProcessRecord { boot_id, key }))
}
