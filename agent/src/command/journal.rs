//! The write-ahead journal of commands: what the node promised, did and has still to tell.
//!
//! A command moves `accepted → started → finished`, each move one conditional statement, so whoever comes second
//! (a repeated job, a second worker, a worker that was given up) changes nothing. The daemon and every command worker
//! have a connection of their own; SQLite puts their transactions in order.

mod accept;
mod local;
mod outbox;
mod progress;
mod recording;
mod retention;
mod signature;
mod thread;

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use moorline_protocol::message::ResultStatus;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use rusqlite_migration::{M, Migrations};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::runtime::ProcessKey;

pub(super) use accept::{CancelOutcome, Endings, Settled, Unfinished};
pub(super) use local::{LOCAL_MARK, LocalEnd};
pub(super) use outbox::PendingReply;
pub(super) use progress::{Assignment, Beginning, StepProgress};
pub(super) use retention::MEMORY;
pub(super) use thread::JournalThread;

/// File in the state directory.
pub(super) const FILE_NAME: &str = "journal.db";

const MIGRATION_STEPS: &[M<'static>] = &[
    M::up(include_str!("journal/migrations/0001_journal.sql")),
    M::up(include_str!("journal/migrations/0002_reboot.sql")),
    M::up(include_str!("journal/migrations/0003_signature.sql")),
    M::up(include_str!("journal/migrations/0004_recording.sql")),
    M::up(include_str!("journal/migrations/0005_forgetting.sql")),
    M::up(include_str!("journal/migrations/0006_arranged_reboot.sql")),
    M::up(include_str!("journal/migrations/0007_local_end.sql")),
    M::up(include_str!("journal/migrations/0008_signed_command.sql")),
];
const MIGRATIONS: Migrations<'static> = Migrations::from_slice(MIGRATION_STEPS);

/// How long a statement waits for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The daemon accepts nothing more that would make more bytes in use. Nothing else is bound by it, so the end of what
/// was accepted always finds room, whoever writes it.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Why the journal did not take or give something.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    #[error("failed to open the journal {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("failed to set up the journal {path}")]
    SetUp {
        path: PathBuf,
        #[source]
        source: rusqlite_migration::Error,
    },
    #[error("failed to {doing} the journal")]
    Statement {
        doing: &'static str,
        #[source]
        source: rusqlite::Error,
    },
    #[error("the journal holds {what} that cannot be read")]
    Content { what: &'static str },
    #[error("the journal is full: {used} bytes are in use of {most}, until the endpoint has taken results")]
    Full { used: u64, most: u64 },
    #[error("the journal's thread has ended")]
    Closed,
}

/// Names what was being done when a statement failed.
fn doing(doing: &'static str) -> impl Fn(rusqlite::Error) -> JournalError {
    move |source| JournalError::Statement { doing, source }
}

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opener {
    /// Makes the file, and brings its schema up to date.
    Daemon,
    /// Takes the file as it is.
    Worker,
}

/// A process, known again even after a reboot: a worker, or its script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessRecord {
    pub(super) boot_id: String,
    pub(super) key: ProcessKey,
}

impl ProcessRecord {
    /// This process.
    pub(super) fn of_this_process() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// A living process.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let key = ProcessKey::of(i32::try_from(pid).ok()?)?;
        Some(Self {
            boot_id: boot_id(),
            key,
        })
    }

    /// Whether exactly this process still lives.
    pub(super) fn is_alive(&self) -> bool {
        self.is_of_this_boot() && self.key.is_alive()
    }

    /// Whether its number can still mean the same process.
    pub(super) fn is_of_this_boot(&self) -> bool {
        self.boot_id == boot_id()
    }
}

/// The kernel's boot, and that of the container if we are in one: there the first process is another after a restart.
/// Empty where /proc does not tell; then only pid and start time count.
fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let first = ProcessKey::of(1).map_or(0, |key| key.start_ticks);
    format!("{}/{first}", text.trim())
}

/// A reply that goes into the journal together with what it reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewReply {
    pub(super) message_id: Uuid,
    pub(super) is_final: bool,
    /// JSON text of an `AgentJobReply`.
    pub(super) payload: String,
}

/// The end of a command, decided by whoever ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conclusion {
    pub(super) status: ResultStatus,
    pub(super) replies: Vec<NewReply>,
}

/// A step as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StepRecord {
    pub(super) action: String,
    pub(super) name: String,
    /// `None` while it has not finished.
    pub(super) status: Option<ResultStatus>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Journal {
    connection: Connection,
    most_bytes: u64,
}

impl Journal {
    /// Opens `STATE_DIR/journal.db`.
    ///
    /// # Errors
    /// The file cannot be made, opened or brought up to date; for a worker also when it is missing.
    pub(super) fn open(state_dir: &Path, opener: Opener) -> Result<Self, JournalError> {
        let path = state_dir.join(FILE_NAME);
        if opener == Opener::Daemon {
            // SQLite gives its side files the mode of this one.
            OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(&path)
                .map_err(|source| JournalError::Open {
                    path: path.clone(),
                    source,
                })?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(&path, flags).map_err(doing("open"))?;
        let set_up = |connection: &Connection| {
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "cache_size", -512)?;
            connection.pragma_update(None, "secure_delete", "FAST")
        };
        set_up(&connection).map_err(doing("set up"))?;
        if opener == Opener::Daemon {
            let set_up = |connection: &Connection| {
                connection.pragma_update(None, "journal_mode", "WAL")?;
                connection.pragma_update(None, "journal_size_limit", 4 * 1024 * 1024)
            };
            set_up(&connection).map_err(doing("set up"))?;
            MIGRATIONS
                .to_latest(&mut connection)
                .map_err(|source| JournalError::SetUp { path, source })?;
        }
        Ok(Self {
            connection,
            most_bytes: MAX_BYTES,
        })
    }

    /// A transaction that writes; everything in it is on the disk, or nothing.
    fn write<T>(
        &mut self,
        what: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        let run = || {
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        run().map_err(doing(what))
    }

    /// The same without waiting for the disk, for what may be lost: at worst something harmless is done again.
    fn write_relaxed<T>(
        &mut self,
        what: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        self.connection
            .pragma_update(None, "synchronous", "NORMAL")
            .map_err(doing(what))?;
        let written = self.write(what, work);
        self.connection
            .pragma_update(None, "synchronous", "FULL")
            .map_err(doing(what))?;
        written
    }
}

/// Unix milliseconds as SQLite has them.
fn millis(now: u64) -> i64 {
    i64::try_from(now).unwrap_or(i64::MAX)
}

/// A count or position as SQLite has them.
fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A status as it was written; unreadable ones count as failed, never as success.
fn read_status(text: &str) -> ResultStatus {
    serde_json::from_value(text.into()).unwrap_or(ResultStatus::Failed)
}

/// Ends a command and writes its replies; the caller has checked, in this transaction, that it may.
fn conclude(
    transaction: &Transaction<'_>,
    command_id: &str,
    conclusion: &Conclusion,
    now: u64,
) -> rusqlite::Result<()> {
    transaction.execute(
        "UPDATE command SET state = 'finished', status = ?2, finished_at = ?3, content = NULL
         WHERE command_id = ?1",
        (command_id, conclusion.status.as_str(), millis(now)),
    )?;
    transaction.execute("DELETE FROM step WHERE command_id = ?1", [command_id])?;
    insert_replies(transaction, command_id, &conclusion.replies, now)
}

fn insert_replies(
    transaction: &Transaction<'_>,
    command_id: &str,
    replies: &[NewReply],
    now: u64,
) -> rusqlite::Result<()> {
    for reply in replies {
        transaction.execute(
            "INSERT INTO reply (message_id, command_id, is_final, payload, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            (reply.message_id.to_string(), command_id, reply.is_final, &reply.payload, millis(now)),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
