//! What is stored: SQLite in WAL mode, one module and one migration per capability. SQL that PostgreSQL runs too:
//! `$1` placeholders, ids TEXT, times BIGINT epoch milliseconds, JSON as TEXT, no triggers.

mod access_key;
mod activation;
mod attachment_files;
mod attachment_source;
mod command;
mod deregistration;
mod document;
mod node;
mod node_group;
mod operator;
mod output_store;
mod output_upload;
mod parameter;
mod s3;
mod session;
mod tag;
mod transcript;
mod transcript_key;

pub(crate) use access_key::AccessKeyRow;
pub(crate) use activation::{ActivationRow, NewActivation, NewNode, RegistrationRefusal};
pub(crate) use attachment_files::{AttachmentFiles, Put, Upload};
pub(crate) use attachment_source::{S3Source, S3SourceError};
pub(crate) use command::{
    CommandHead, CommandQuery, CommandRow, DUE_JOBS, DueJob, DueJobKind, Expired, InvocationCursor,
    InvocationQuery, InvocationRow, ListFilters, NewCommand, NewInvocation, OldCommand, StepRow,
    TakenParameter, UntoldEnd,
};
pub(crate) use document::{
    AttachmentRow, BUILT_IN_OWNER, DocumentRow, NewDocument, NewVersion, ShareRow, Update, UpdateRefusal,
    VersionChoice, VersionRefusal, VersionRow,
};
pub(crate) use node::{KeyRotation, NodeColumn, NodeFilter, NodePosition, NodeReport, NodeRow};
pub(crate) use node_group::NodeGroupRow;
pub(crate) use operator::OperatorRow;
pub(crate) use output_store::{OutputBucket, OutputStore};
pub(crate) use output_upload::{DueUpload, OutputObject, OutputUpload, UploadState};
pub(crate) use parameter::{
    Labelling, NewParameterVersion, ParameterRow, ParameterScan, PolicyRow, PresentParameter, Unlabelled,
};
pub(crate) use s3::S3Server;
pub(crate) use session::{AgentEnd, NewSession, SessionDue, SessionQuery, SessionRow, SessionStatus};
pub(crate) use tag::{TagRefusal, TaggedResource, Tags};
#[cfg(test)]
pub(crate) use transcript::fixture;
pub(crate) use transcript::{
    Appended, Chunk, ChunkBody, Content, Hold, Place, Recorded, RemoteStore, RemoteStoreError, Searched,
    Sender, Tombstone, TranscriptFiles, TranscriptQuery, TranscriptRow, TranscriptState,
};
pub(crate) use transcript_key::TranscriptKeyRow;

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use moorline_protocol::error_chain;
use sqlx::{
    Row, SqlSafeStr, SqlitePool,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};
use tokio::{sync::Mutex, time::Instant};

/// Readers at the same time; SQLite's readers wait for nobody, so a few are enough.
const READERS: u32 = 4;
/// With one writer nobody waits, except for another process that looks into the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The health check writes at most this often.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
/// How long the store may take for the health check.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// The schema, in the order in which it grew.
const MIGRATIONS: [(i64, &str, &str); 19] = [
    (1, "base", include_str!("../migrations/0001_base.sql")),
    (2, "command", include_str!("../migrations/0002_command.sql")),
    (3, "session", include_str!("../migrations/0003_session.sql")),
    (
        4,
        "document version",
        include_str!("../migrations/0004_document_version.sql"),
    ),
    (
        9,
        "rate_control",
        include_str!("../migrations/0009_rate_control.sql"),
    ),
    (
        10,
        "transcript key",
        include_str!("../migrations/0010_transcript_key.sql"),
    ),
    (
        12,
        "document permission",
        include_str!("../migrations/0012_document_permission.sql"),
    ),
    (13, "parameter", include_str!("../migrations/0013_parameter.sql")),
    (
        19,
        "transcript at rest",
        include_str!("../migrations/0019_transcript_at_rest.sql"),
    ),
    (
        20,
        "command transcript",
        include_str!("../migrations/0020_command_transcript.sql"),
    ),
    (
        23,
        "document attachment",
        include_str!("../migrations/0023_document_attachment.sql"),
    ),
    (
        25,
        "node policy",
        include_str!("../migrations/0025_node_policy.sql"),
    ),
    (
        27,
        "explained commands",
        include_str!("../migrations/0027_explained_commands.sql"),
    ),
    (
        28,
        "node group",
        include_str!("../migrations/0028_node_group.sql"),
    ),
    (
        31,
        "open transcripts",
        include_str!("../migrations/0031_open_transcripts.sql"),
    ),
    (
        33,
        "output upload",
        include_str!("../migrations/0033_output_upload.sql"),
    ),
    (
        34,
        "untold end",
        include_str!("../migrations/0034_untold_end.sql"),
    ),
    (
        35,
        "packed bytes",
        include_str!("../migrations/0035_packed_bytes.sql"),
    ),
    (
        36,
        "untold session end",
        include_str!("../migrations/0036_untold_session_end.sql"),
    ),
];

/// A failure of the store. Nothing of it is shown to clients.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the store holds an impossible {column} in {table} {row}")]
    Corrupt {
        table: &'static str,
        column: &'static str,
        row: String,
    },
    #[error("failed to {doing}")]
    Database {
        doing: &'static str,
        #[source]
        source: sqlx::Error,
    },
    #[error("failed to {doing} {path}")]
    File {
        doing: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("failed to {doing} {object} in the object store")]
    Object {
        doing: &'static str,
        object: String,
        #[source]
        source: object_store::Error,
    },
}

impl StoreError {
    /// Whether it would have gone with more room on the disk of a file.
    pub(crate) fn is_for_want_of_room(&self) -> bool {
        matches!(self, Self::File { source, .. } if source.kind() == std::io::ErrorKind::StorageFull)
    }
}

/// Names what was being done when the database failed: `.map_err(failed_to("insert the node"))`.
pub(crate) fn failed_to(doing: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Database { doing, source }
}

/// Epoch milliseconds as the column type has them.
pub(crate) fn column_millis(unix_millis: u64) -> i64 {
    i64::try_from(unix_millis).unwrap_or(i64::MAX)
}

/// Epoch milliseconds out of a column; nothing before 1970 is ever written.
pub(crate) fn millis_of(column: i64) -> u64 {
    u64::try_from(column).unwrap_or(0)
}

/// A column of a row, with the failure named.
pub(crate) fn column<'r, T>(row: &'r SqliteRow, name: &'static str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(name).map_err(failed_to("read a column"))
}

/// The database. Methods are use cases, in one `impl Store` per capability (`store/node.rs`, `store/command.rs`, …);
/// times and new ids are arguments.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    /// Writes go through one connection, so that SQLite never answers "busy".
    pub(crate) writer: SqlitePool,
    pub(crate) readers: SqlitePool,
    /// Changes of commands, many in one transaction.
    changes: command::GroupCommit,
    /// When the health check last wrote.
    last_written: Arc<Mutex<Option<Instant>>>,
}

impl Store {
    /// Opens or creates `dir/control.db` and brings its schema up to date.
    pub(crate) async fn open(dir: &Path) -> Result<Self, StoreError> {
        let file = dir.join("control.db");
        make_private(&file)?;
        let base = SqliteConnectOptions::new()
            .filename(&file)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .synchronous(SqliteSynchronous::Full);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(base.clone().journal_mode(SqliteJournalMode::Wal))
            .await
            .map_err(failed_to("open the store for writing"))?;
        migrator()
            .run(&writer)
            .await
            .map_err(|source| StoreError::Database {
                doing: "bring the store's schema up to date",
                source: source.into(),
            })?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(base.pragma("query_only", "ON"))
            .await
            .map_err(failed_to("open the store for reading"))?;
        Ok(Self {
            changes: command::GroupCommit::start(writer.clone()),
            writer,
            readers,
            last_written: Arc::default(),
        })
    }

    /// Whether the store can be read and written, for the health check. Anybody may ask, so a write that succeeded
    /// counts for a while.
    pub(crate) async fn is_healthy(&self) -> bool {
        let check = async {
            sqlx::query("SELECT 1").fetch_one(&self.readers).await?;
            let mut last = self.last_written.lock().await;
            if last.is_none_or(|last| last.elapsed() >= HEALTH_INTERVAL) {
                // nothing reads it; setting it writes a page, which a full disk refuses
                sqlx::query("PRAGMA user_version = 1")
                    .execute(&self.writer)
                    .await?;
                *last = Some(Instant::now());
            }
            Ok::<_, sqlx::Error>(())
        };
        match tokio::time::timeout(HEALTH_TIMEOUT, check).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(
                    error = %error_chain(&error),
                    "the store is not healthy"
                );
                false
            }
            Err(_) => {
                tracing::warn!("the store is not healthy: it does not answer in time");
                false
            }
        }
    }

    /// Waits for what is being written, then closes.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// A fresh database in a temporary file, for tests. The file is removed when the process ends its tests' folder.
    #[cfg(test)]
    pub(crate) async fn temporary() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store = Self::open(dir.path()).await.expect("a fresh store opens");
        // SQLite keeps its open files after the folder is unlinked, so nothing is left behind by a test that fails.
        store.hold(dir);
        store
    }

    #[cfg(test)]
    fn hold(&self, dir: tempfile::TempDir) {
        let writer = self.writer.clone();
        tokio::spawn(async move {
            writer.close_event().await;
            drop(dir);
        });
    }
}

fn migrator() -> Migrator {
    let migrations = MIGRATIONS.map(|(version, name, sql)| {
        Migration::new(
            version,
            name.into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    });
    Migrator::with_migrations(migrations.into())
}

/// Makes the file before SQLite does, so that it is never open to others.
fn make_private(file: &Path) -> Result<(), StoreError> {
    let made = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(file);
    made.map(drop).map_err(|source| StoreError::File {
        doing: "create the store",
        path: PathBuf::from(file).display().to_string(),
        source,
    })
}

#[cfg(test)]
mod tests;
