//! Recordings that are finished: compressed in their file, then perhaps in an object store. Where one is can be seen
//! by looking, in this order: as it came, packed, in the store. Each step leaves the next place whole, and verified,
//! before it takes from the one before, so that a reader finds the recording at any moment and a crash costs a
//! repetition.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::PoisonError,
};

use moorline_protocol::types::TranscriptId;
use tokio::sync::futures::Notified;

use super::{
    Content, RemoteStore, Space, TranscriptFiles, blocking,
    durable::sync_path,
    file_error,
    seekable::{self, MOST_TABLE_BYTES, SeekTable, Sum},
};
use crate::store::StoreError;

/// Read at a time.
const PIECE_BYTES: u64 = 1024 * 1024;

/// A recording that is compressed in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) content: Content,
    /// What it takes of the disk.
    pub(super) bytes: u64,
}

/// A recording on the disk.
enum Local {
    Plain(File),
    Packed(File, SeekTable),
}

impl Local {
    fn length(&self) -> io::Result<u64> {
        match self {
            Self::Plain(file) => Ok(file.metadata()?.len()),
            Self::Packed(_, table) => Ok(table.length()),
        }
    }

    fn read(&self, offset: u64, limit: u64) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain(file) => read_at(file, offset, limit),
            Self::Packed(file, table) => {
                let mut bytes = Vec::new();
                for frame in table.covering(offset, limit) {
                    let stored = read_at(file, frame.stored_at, frame.stored_bytes as u64)?;
                    let plain = frame.open(&stored)?;
                    bytes.extend_from_slice(seekable::part_of(&plain, frame.begin, offset, limit));
                }
                Ok(bytes)
            }
        }
    }
}

impl TranscriptFiles {
    /// A recording was closed or deleted: whoever looks after them looks.
    pub(crate) fn has_come_to_rest(&self) {
        self.at_rest.notify_one();
    }

    /// Ends when there is something to look after since the last call.
    pub(crate) fn rest(&self) -> Notified<'_> {
        self.at_rest.notified()
    }

    /// Whether finished recordings go to an object store.
    pub(crate) fn has_remote(&self) -> bool {
        self.remote.is_some()
    }

    /// Length of the recording; `None`: there is none.
    pub(crate) async fn length(&self, recording: &TranscriptId) -> Result<Option<u64>, StoreError> {
        let local = self.local(recording, |local| local.length()).await?;
        match (local, &self.remote) {
            (None, Some(remote)) => Ok(remote.table(recording).await?.map(|table| table.length())),
            (local, _) => Ok(local),
        }
    }

    /// At most `limit` bytes from `offset`; fewer at the end of what is there now.
    pub(crate) async fn read(
        &self,
        recording: &TranscriptId,
        offset: u64,
        limit: u64,
    ) -> Result<Vec<u8>, StoreError> {
        let local = self
            .local(recording, move |local| local.read(offset, limit))
            .await?;
        if let Some(bytes) = local {
            return Ok(bytes);
        }
        if let Some(remote) = &self.remote
            && let Some(table) = remote.table(recording).await?
        {
            return remote.read(recording, &table, offset, limit).await;
        }
        let none = io::Error::from(io::ErrorKind::NotFound);
        Err(file_error("read the transcript", &self.path(recording))(none))
    }

    async fn local<T: Send + 'static>(
        &self,
        recording: &TranscriptId,
        use_it: impl FnOnce(&Local) -> io::Result<T> + Send + 'static,
    ) -> Result<Option<T>, StoreError> {
        let (path, packed) = (self.path(recording), self.packed_path(recording));
        blocking(move || {
            let look = || match open_local(&path, &packed)? {
                Some(local) => use_it(&local).map(Some),
                None => Ok(None),
            };
            look().map_err(file_error("read the transcript", &path))
        })
        .await
    }

    /// Compresses a recording that is closed; what it is. `None`: there is none.
    pub(crate) async fn pack(&self, recording: &TranscriptId) -> Result<Option<Packed>, StoreError> {
        let files = self.clone();
        let recording = recording.clone();
        blocking(move || {
            let pack = || match files.pack_now(&recording)? {
                Some(content) => {
                    let bytes = fs::metadata(files.packed_path(&recording))?.len();
                    Ok(Some(Packed { content, bytes }))
                }
                None => Ok(None),
            };
            pack().map_err(file_error("compress the transcript", &files.path(&recording)))
        })
        .await
    }

    fn pack_now(&self, recording: &TranscriptId) -> io::Result<Option<Content>> {
        let _one_at_a_time = self.packing.lock().unwrap_or_else(PoisonError::into_inner);
        let (path, packed) = (self.path(recording), self.packed_path(recording));
        let mut plain = match File::open(&path) {
            Ok(plain) => plain,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return content_if_there(&packed),
            Err(error) => return Err(error),
        };
        if !self.has_room_for(&plain)? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let partial = partial(&packed);
        let mut options = OpenOptions::new();
        let mut out = options
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)?;
        let written = seekable::pack(&mut plain, &mut out).and_then(|content| {
            out.sync_all()?;
            Ok(content)
        });
        let content = written.inspect_err(|_| {
            // it may be the disk that is full; what is left is written over another time
            let _left = fs::remove_file(&partial);
        })?;
        fs::rename(&partial, &packed)?;
        File::open(&self.dir)?.sync_all()?;
        // before the only copy goes
        if !is_same(&plain, &packed, content)? {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "what was compressed reads back as something else; the recording is kept as it is",
            ));
        }
        // not between the two looks of an append: it would begin a new file
        let _no_append = self.locked(recording);
        fs::remove_file(&path)?;
        Ok(Some(content))
    }

    fn has_room_for(&self, plain: &File) -> io::Result<bool> {
        let space: Space = (self.space)(plain)?;
        Ok(space.has_room_to_pack(plain.metadata()?.len()))
    }

    /// What a recording on this disk is, for which no room is needed. `None`: there is none.
    pub(crate) async fn content(&self, recording: &TranscriptId) -> Result<Option<Content>, StoreError> {
        let (path, packed) = (self.path(recording), self.packed_path(recording));
        blocking(move || {
            let look = || match open_if_there(&path)? {
                Some(plain) => content_of(&plain).map(Some),
                None => content_if_there(&packed),
            };
            look().map_err(file_error("read the transcript", &path))
        })
        .await
    }

    /// Brings a recording that is packed, and what the endpoint signed of it, to the object store, and removes the
    /// recording here when what is there reads back as the same. `false`: there is none.
    pub(crate) async fn upload(&self, recording: &TranscriptId) -> Result<bool, StoreError> {
        let Some(remote) = &self.remote else {
            return Ok(true);
        };
        let packed = self.packed_path(recording);
        let failed = file_error("upload the transcript", &packed);
        if !tokio::fs::try_exists(&packed).await.map_err(failed)? {
            return Ok(remote.table(recording).await?.is_some());
        }
        remote.put(&RemoteStore::recording(recording), &packed).await?;
        let signatures = self.signatures_path(recording);
        let failed = file_error("upload the signatures on the transcript", &signatures);
        if tokio::fs::try_exists(&signatures).await.map_err(failed)? {
            remote
                .put(&RemoteStore::signatures(recording), &signatures)
                .await?;
        }
        let removed = tokio::fs::remove_file(&packed).await;
        removed.map_err(file_error("remove the uploaded transcript", &packed))?;
        Ok(true)
    }

    /// Removes a recording and what was signed of it, wherever they are.
    pub(crate) async fn remove(&self, recording: &TranscriptId) -> Result<(), StoreError> {
        self.chains().remove(recording);
        self.durable_lengths().remove(recording);
        let (dir, packed) = (self.dir.clone(), self.packed_path(recording));
        let paths = [
            self.path(recording),
            partial(&packed),
            packed,
            self.signatures_path(recording),
        ];
        blocking(move || {
            for path in &paths {
                match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(file_error("remove the transcript", path)(error));
                    }
                    _ => {}
                }
            }
            // or a power cut brings back what a tombstone says is gone
            sync_path(&dir).map(drop)
        })
        .await?;
        match &self.remote {
            Some(remote) => remote.remove(recording).await,
            None => Ok(()),
        }
    }
}

/// What is being compressed.
fn partial(packed: &Path) -> PathBuf {
    packed.with_extension("zst.part")
}

/// `packed` is looked for second: it is whole before the other goes.
fn open_local(path: &Path, packed: &Path) -> io::Result<Option<Local>> {
    if let Some(plain) = open_if_there(path)? {
        return Ok(Some(Local::Plain(plain)));
    }
    let Some(file) = open_if_there(packed)? else {
        return Ok(None);
    };
    let table = table_of(&file)?;
    Ok(Some(Local::Packed(file, table)))
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn table_of(packed: &File) -> io::Result<SeekTable> {
    let stored = packed.metadata()?.len();
    let tail = stored.saturating_sub(MOST_TABLE_BYTES as u64);
    SeekTable::parse(&read_at(packed, tail, MOST_TABLE_BYTES as u64)?, stored)
}

/// What a packed recording has, read as a whole.
fn content_if_there(packed: &Path) -> io::Result<Option<Content>> {
    let Some(file) = open_if_there(packed)? else {
        return Ok(None);
    };
    let mut sum = Sum::new();
    for frame in table_of(&file)?.frames() {
        let stored = read_at(&file, frame.stored_at, frame.stored_bytes as u64)?;
        sum.push(&frame.open(&stored)?);
    }
    Ok(Some(sum.finish()))
}

fn content_of(plain: &File) -> io::Result<Content> {
    let (mut sum, mut offset) = (Sum::new(), 0);
    loop {
        let piece = read_at(plain, offset, PIECE_BYTES)?;
        if piece.is_empty() {
            return Ok(sum.finish());
        }
        offset += piece.len() as u64;
        sum.push(&piece);
    }
}

/// Whether what was compressed reads back as what it was made of, byte by byte.
fn is_same(plain: &File, packed: &Path, content: Content) -> io::Result<bool> {
    let file = File::open(packed)?;
    let mut length = 0;
    for frame in table_of(&file)?.frames() {
        let stored = read_at(&file, frame.stored_at, frame.stored_bytes as u64)?;
        let read_back = frame.open(&stored)?;
        if frame.begin != length || read_at(plain, length, read_back.len() as u64)? != read_back {
            return Ok(false);
        }
        length += read_back.len() as u64;
    }
    Ok(length == content.length)
}

fn read_at(file: &File, offset: u64, limit: u64) -> io::Result<Vec<u8>> {
    let there = file.metadata()?.len().saturating_sub(offset);
    let mut bytes = vec![0; usize::try_from(limit.min(there)).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}
