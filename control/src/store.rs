//! What is stored: SQLite in WAL mode, one module and one migration per capability. SQL that PostgreSQL runs too:
//! `$1` placeholders, ids TEXT, times BIGINT epoch milliseconds, JSON as TEXT, no triggers.

mod transcript;

pub(crate) use transcript::TranscriptFiles;

use std::path::Path;

use sqlx::SqlitePool;

/// A failure of the store. Nothing of it is shown to clients.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the store holds an impossible {column} in {table} {row}")]
    Corrupt { table: &'static str, column: &'static str, row: String },
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
}

/// The database. Methods are use cases, in one `impl Store` per capability (`store/node.rs`, `store/command.rs`, …);
/// times and new ids are arguments.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    /// Writes go through one connection, so that SQLite never answers "busy".
    pub(crate) writer: SqlitePool,
    pub(crate) readers: SqlitePool,
}

impl Store {
    /// Opens or creates `dir/control.db` and brings its schema up to date.
    pub(crate) async fn open(dir: &Path) -> Result<Self, StoreError> {
        let _ = dir;
        todo!()
    }

    /// A fresh database in a temporary file, for tests.
    #[cfg(test)]
    pub(crate) async fn temporary() -> Self {
        todo!()
    }
}
