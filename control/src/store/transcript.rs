//! Recorded transcripts: one asciicast file per session, and a row that says whether it is complete.

use std::{
    collections::BTreeSet,
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use moorline_protocol::types::{InstanceId, SessionId};
use sqlx::{QueryBuilder, Sqlite, sqlite::SqliteRow};
use tokio::sync::{Notify, futures::Notified};

use super::{Store, StoreError, column, column_millis, failed_to, millis_of};

/// The largest recording that is kept, in bytes.
pub(crate) const MAX_TRANSCRIPT_BYTES: u64 = 1024 * 1024 * 1024;
/// What recordings leave free on their file system, which the database shares: so much, or a twentieth of a small one.
const RESERVED_BYTES: u64 = 256 * 1024 * 1024;
const RESERVED_PART: u64 = 20;
/// Appends are serialised by session, over this many locks.
const LOCKS: usize = 64;

/// What became of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Appended {
    /// It is stored; this many bytes are now.
    Stored(u64),
    /// It does not begin where the recording ends.
    WrongOffset(u64),
    /// The recording would pass [`MAX_TRANSCRIPT_BYTES`].
    TooLong(u64),
    /// It would add to a recording that is closed.
    Closed(u64),
    /// The file system is nearly full.
    NoRoom,
}

/// Of a file system, in bytes.
#[derive(Debug, Clone, Copy)]
struct Space {
    available: u64,
    total: u64,
}

impl Space {
    fn around(file: &File) -> io::Result<Self> {
        let file_system = nix::sys::statvfs::fstatvfs(file)?;
        let unit = file_system.fragment_size();
        Ok(Self {
            available: file_system.blocks_available().saturating_mul(unit),
            total: file_system.blocks().saturating_mul(unit),
        })
    }

    fn has_room_for(self, bytes: u64) -> bool {
        let reserved = RESERVED_BYTES.min(self.total / RESERVED_PART);
        self.available.saturating_sub(bytes) >= reserved
    }
}

/// The directory of transcripts.
#[derive(Debug, Clone)]
pub(crate) struct TranscriptFiles {
    dir: PathBuf,
    locks: Arc<[Mutex<()>; LOCKS]>,
    /// Recordings written since the last [`Self::sync`].
    unsynced: Arc<Mutex<BTreeSet<SessionId>>>,
    /// A function, so that tests can fill the disk.
    space: fn(&File) -> io::Result<Space>,
    /// For those who wait for more of a recording. They are few, so one for all.
    changed: Arc<Notify>,
}

impl TranscriptFiles {
    /// The directory is made with the first recording.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            locks: Arc::new(std::array::from_fn(|_| Mutex::new(()))),
            unsynced: Arc::default(),
            space: Space::around,
            changed: Arc::default(),
        }
    }

    /// On a disk that is nearly full.
    #[cfg(test)]
    pub(crate) fn without_room(dir: PathBuf) -> Self {
        Self {
            space: |_| {
                Ok(Space {
                    available: RESERVED_BYTES,
                    total: u64::MAX,
                })
            },
            ..Self::new(dir)
        }
    }

    /// Whoever waits for more of a recording looks again.
    pub(crate) fn has_changed(&self) {
        self.changed.notify_waiters();
    }

    /// Ends when a recording has changed since the call, perhaps another.
    pub(crate) fn change(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Stores a chunk if it begins exactly where the recording ends, so that a repeated one is harmless. A closed
    /// recording takes no more bytes; that it is complete can still be said.
    pub(crate) async fn append(
        &self,
        session: &SessionId,
        offset: u64,
        chunk: Bytes,
        (complete, is_closed): (bool, bool),
    ) -> Result<Appended, StoreError> {
        let files = self.clone();
        let session = session.clone();
        blocking(move || {
            let path = files.path(&session);
            files
                .append_now(&session, &path, offset, &chunk, (complete, is_closed))
                .map_err(file_error("append to the transcript", &path))
        })
        .await
    }

    fn append_now(
        &self,
        session: &SessionId,
        path: &Path,
        offset: u64,
        chunk: &[u8],
        (complete, is_closed): (bool, bool),
    ) -> io::Result<Appended> {
        let _one_at_a_time = self.lock(session).lock().unwrap_or_else(PoisonError::into_inner);
        if is_closed && !path.try_exists()? {
            return Ok(Appended::Closed(0));
        }
        let file = self.open_for_append(path)?;
        let length = file.metadata()?.len();
        if offset != length {
            return Ok(Appended::WrongOffset(length));
        }
        let added = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        let longer = length.saturating_add(added);
        if longer > MAX_TRANSCRIPT_BYTES {
            return Ok(Appended::TooLong(length));
        }
        if added > 0 && is_closed {
            return Ok(Appended::Closed(length));
        }
        if added > 0 && !(self.space)(&file)?.has_room_for(added) {
            return Ok(Appended::NoRoom);
        }
        if let Err(error) = file.write_all_at(chunk, length) {
            // half a chunk would be taken for a whole one when the node asks how much is here
            file.set_len(length)?;
            return Err(error);
        }
        if complete {
            file.sync_data()?;
            File::open(&self.dir)?.sync_all()?;
        } else {
            self.unsynced().insert(session.clone());
        }
        Ok(Appended::Stored(longer))
    }

    fn open_for_append(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.create(true).write(true).truncate(false).mode(0o600);
        match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
                options.open(path)
            }
            other => other,
        }
    }

    /// Makes what was written last survive a power cut; called every second, so that one costs no more than that.
    /// What cannot be synced now is tried again at the next call.
    pub(crate) async fn sync(&self) -> Result<(), StoreError> {
        let unsynced = std::mem::take(&mut *self.unsynced());
        if unsynced.is_empty() {
            return Ok(());
        }
        let files = self.clone();
        blocking(move || {
            let mut result = sync_path(&files.dir);
            for session in unsynced {
                if let Err(error) = sync_path(&files.path(&session)) {
                    files.unsynced().insert(session);
                    result = Err(error);
                }
            }
            result
        })
        .await
    }

    fn unsynced(&self) -> MutexGuard<'_, BTreeSet<SessionId>> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a recording, if there is one.
    pub(crate) async fn remove(&self, session: &SessionId) -> Result<(), StoreError> {
        let path = self.path(session);
        blocking(move || match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(file_error("remove the transcript", &path)(error))
            }
            _ => Ok(()),
        })
        .await
    }

    /// Length of the recording; `None`: there is none.
    pub(crate) async fn length(&self, session: &SessionId) -> Result<Option<u64>, StoreError> {
        let path = self.path(session);
        blocking(move || match std::fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file_error("read the length of the transcript", &path)(error)),
        })
        .await
    }

    /// At most `limit` bytes from `offset`; fewer at the end of what is there now.
    pub(crate) async fn read(
        &self,
        session: &SessionId,
        offset: u64,
        limit: u64,
    ) -> Result<Vec<u8>, StoreError> {
        let path = self.path(session);
        blocking(move || {
            let read = || {
                let mut file = File::open(&path)?;
                file.seek(SeekFrom::Start(offset))?;
                let mut bytes = Vec::new();
                file.take(limit).read_to_end(&mut bytes)?;
                Ok(bytes)
            };
            read().map_err(file_error("read the transcript", &path))
        })
        .await
    }

    /// A session id is a file name: its grammar has no separators and no leading dot.
    fn path(&self, session: &SessionId) -> PathBuf {
        self.dir.join(format!("{session}.cast"))
    }

    fn lock(&self, session: &SessionId) -> &Mutex<()> {
        let sum = session
            .as_str()
            .bytes()
            .fold(0_usize, |sum, byte| sum.wrapping_mul(31) + usize::from(byte));
        let [first, ..] = &*self.locks;
        self.locks.get(sum % LOCKS).unwrap_or(first)
    }
}

/// Of a directory it makes the names in it survive. What was removed meanwhile needs nothing.
fn sync_path(path: &Path) -> Result<(), StoreError> {
    match File::open(path).and_then(|file| file.sync_all()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        synced => synced.map_err(file_error("sync the transcript", path)),
    }
}

fn file_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.display().to_string();
    move |source| StoreError::File { doing, path, source }
}

/// File work stays off the threads that serve connections.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|stopped| {
        Err(StoreError::File {
            doing: "work on a transcript",
            path: String::new(),
            source: io::Error::other(stopped),
        })
    })
}

/// A transcript in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TranscriptRow {
    pub(crate) session_id: SessionId,
    pub(crate) node: String,
    pub(crate) started_at: u64,
    pub(crate) completed_at: Option<u64>,
    /// Of the session, if it is still known.
    pub(crate) owner: Option<String>,
    pub(crate) document_name: Option<String>,
    pub(crate) ended_at: Option<u64>,
}

/// Which transcripts to list.
#[derive(Debug, Clone, Default)]
pub(crate) struct TranscriptQuery {
    pub(crate) node: Option<String>,
    pub(crate) session_id: Option<String>,
    /// Continue behind this one.
    pub(crate) behind: Option<(u64, String)>,
    pub(crate) limit: u32,
}

impl Store {
    /// The first chunk of a recording has come.
    pub(crate) async fn transcript_started(
        &self,
        session: &SessionId,
        node: &InstanceId,
        now: u64,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO transcript (session_id, instance_id, started_at) VALUES ($1, $2, $3) \
             ON CONFLICT (session_id) DO NOTHING",
        )
        .bind(session.as_str())
        .bind(node.as_str())
        .bind(column_millis(now))
        .execute(&self.writer)
        .await
        .map_err(failed_to("record a transcript"))?;
        Ok(())
    }

    /// Whether the node said that nothing follows.
    pub(crate) async fn transcript_is_complete(&self, session: &SessionId) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM transcript WHERE session_id = $1 AND completed_at IS NOT NULL")
            .bind(session.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(failed_to("look a transcript up"))?;
        Ok(row.is_some())
    }

    pub(crate) async fn transcript_completed(&self, session: &SessionId, now: u64) -> Result<(), StoreError> {
        sqlx::query("UPDATE transcript SET completed_at = $2 WHERE session_id = $1 AND completed_at IS NULL")
            .bind(session.as_str())
            .bind(column_millis(now))
            .execute(&self.writer)
            .await
            .map_err(failed_to("complete a transcript"))?;
        Ok(())
    }

    /// The newest first.
    pub(crate) async fn transcripts(
        &self,
        query: &TranscriptQuery,
    ) -> Result<Vec<TranscriptRow>, StoreError> {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "SELECT t.session_id, t.instance_id, t.started_at, t.completed_at, s.owner, s.document_name, \
             s.ended_at \
             FROM transcript t LEFT JOIN session s ON s.session_id = t.session_id WHERE 1 = 1",
        );
        if let Some(node) = &query.node {
            sql.push(" AND t.instance_id = ").push_bind(node.clone());
        }
        if let Some(id) = &query.session_id {
            sql.push(" AND t.session_id = ").push_bind(id.clone());
        }
        if let Some((started_at, id)) = &query.behind {
            let started_at = column_millis(*started_at);
            sql.push(" AND (t.started_at < ").push_bind(started_at);
            sql.push(" OR (t.started_at = ").push_bind(started_at);
            sql.push(" AND t.session_id < ").push_bind(id.clone()).push("))");
        }
        sql.push(" ORDER BY t.started_at DESC, t.session_id DESC LIMIT ");
        sql.push_bind(i64::from(query.limit));
        let rows = sql.build().fetch_all(&self.readers).await;
        rows.map_err(failed_to("list transcripts"))?
            .iter()
            .map(transcript)
            .collect()
    }
}

fn transcript(row: &SqliteRow) -> Result<TranscriptRow, StoreError> {
    let id: String = column(row, "session_id")?;
    let session_id = id.parse().map_err(|_| StoreError::Corrupt {
        table: "transcript",
        column: "session_id",
        row: id,
    })?;
    Ok(TranscriptRow {
        session_id,
        node: column(row, "instance_id")?,
        started_at: millis_of(column(row, "started_at")?),
        completed_at: column::<Option<i64>>(row, "completed_at")?.map(millis_of),
        owner: column(row, "owner")?,
        document_name: column(row, "document_name")?,
        ended_at: column::<Option<i64>>(row, "ended_at")?.map(millis_of),
    })
}

#[cfg(test)]
mod tests;
