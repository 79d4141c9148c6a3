//! The bytes of attachments: a directory of files that are called by their SHA-256, so that one that is attached twice
//! is kept once. A file that is not whole yet ends in `.part`.

use std::{
    collections::BTreeSet,
    fs::{self, File, FileTimes, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ring::digest;
use tokio::sync::Mutex;

use super::StoreError;

/// All files together, in bytes.
pub(crate) const MOST_BYTES: u64 = 10 * 1024 * 1024 * 1024;
/// Files at the same time, whole and not.
const MOST_FILES: usize = 10_000;
/// How long a file that no document has is kept, in milliseconds: whoever uploads it is to attach it meanwhile.
const UNUSED_MILLIS: u64 = 24 * 60 * 60 * 1000;
const PART: &str = "part";
const READ_BYTES: usize = 64 * 1024;

/// What has become of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// The next piece is to begin here.
    Next(u64),
    /// The file is there as a whole.
    Whole,
    /// The bytes that came are not those that were announced; they are gone.
    OtherHash,
    /// There is no more room for attachments.
    Full,
}

/// The directory.
#[derive(Debug, Clone)]
pub(crate) struct AttachmentFiles {
    path: PathBuf,
    /// One change at a time: pieces of the same file may come from two operators.
    changing: Arc<Mutex<()>>,
}

impl AttachmentFiles {
    /// The directory is there.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            changing: Arc::default(),
        }
    }

    /// Adds a piece of the file with this hash, in lower-case hex, which is to have `size` bytes. What is there
    /// already, or begins elsewhere than what is there ends, is not written.
    pub(crate) async fn put(
        &self,
        sha256: &str,
        size: u64,
        offset: u64,
        piece: bytes::Bytes,
    ) -> Result<Put, StoreError> {
        let (directory, sha256) = (self.path.clone(), sha256.to_owned());
        self.change(move || put(&directory, &sha256, size, offset, &piece))
            .await
    }

    /// The length of a whole file, which is kept for another while. `None`: it is not there.
    pub(crate) async fn claim(&self, sha256: &str, now: u64) -> Result<Option<u64>, StoreError> {
        let path = self.path.join(sha256);
        self.change(move || {
            let file = match OpenOptions::new().append(true).open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            let used = UNIX_EPOCH + Duration::from_millis(now);
            file.set_times(FileTimes::new().set_modified(used))?;
            Ok(Some(file.metadata()?.len()))
        })
        .await
    }

    /// Where a whole file is, if it is there.
    pub(crate) fn path_of(&self, sha256: &str) -> PathBuf {
        self.path.join(sha256)
    }

    /// Removes what no document has and nobody has touched for a day.
    pub(crate) async fn remove_unused(&self, used: BTreeSet<String>, now: u64) -> Result<(), StoreError> {
        let directory = self.path.clone();
        let cutoff = UNIX_EPOCH + Duration::from_millis(now.saturating_sub(UNUSED_MILLIS));
        self.change(move || remove_unused(&directory, &used, cutoff))
            .await
    }

    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _changing = self.changing.lock().await;
        let changed = tokio::task::spawn_blocking(change).await;
        changed
            .unwrap_or_else(|_| Err(io::Error::other("it panicked")))
            .map_err(|source| StoreError::File {
                doing: "keep attachments in",
                path: self.path.display().to_string(),
                source,
            })
    }
}

fn put(directory: &Path, sha256: &str, size: u64, offset: u64, piece: &[u8]) -> io::Result<Put> {
    let whole = directory.join(sha256);
    if whole.is_file() {
        return Ok(Put::Whole);
    }
    let part = whole.with_extension(PART);
    let there = match fs::metadata(&part) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !has_room(directory, size)? {
                return Ok(Put::Full);
            }
            0
        }
        Err(error) => return Err(error),
    };
    let end = there + piece.len() as u64;
    if offset != there || end > size {
        return Ok(Put::Next(there));
    }
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .mode(0o600)
        .open(&part)?;
    file.write_all(piece)?;
    if end < size {
        return Ok(Put::Next(end));
    }
    if hash_of(&mut file)? != sha256 {
        fs::remove_file(&part)?;
        return Ok(Put::OtherHash);
    }
    file.sync_all()?;
    fs::rename(&part, &whole)?;
    File::open(directory)?.sync_all()?;
    Ok(Put::Whole)
}

fn has_room(directory: &Path, size: u64) -> io::Result<bool> {
    let (mut bytes, mut files) = (size, 0);
    for entry in fs::read_dir(directory)? {
        bytes = bytes.saturating_add(entry?.metadata()?.len());
        files += 1;
    }
    Ok(bytes <= MOST_BYTES && files < MOST_FILES)
}

/// In lower-case hex.
fn hash_of(file: &mut File) -> io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = file.read(&mut buffer)?;
        match buffer.get(..count) {
            None | Some([]) => break,
            Some(bytes) => hash.update(bytes),
        }
    }
    Ok(hash
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn remove_unused(directory: &Path, used: &BTreeSet<String>, cutoff: SystemTime) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let is_used = entry.file_name().to_str().is_some_and(|name| used.contains(name));
        if !is_used && entry.metadata()?.modified()? < cutoff {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `abc`.
    const SUM: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    async fn put(files: &AttachmentFiles, offset: u64, piece: &'static str) -> Put {
        files.put(SUM, 3, offset, piece.into()).await.unwrap()
    }

    #[tokio::test]
    async fn pieces_make_a_file_however_often_they_come() {
        let dir = tempfile::tempdir().unwrap();
        let files = AttachmentFiles::new(dir.path().to_owned());
        assert_eq!(put(&files, 0, "").await, Put::Next(0));
        assert_eq!(put(&files, 0, "ab").await, Put::Next(2));
        assert_eq!(put(&files, 0, "ab").await, Put::Next(2));
        assert_eq!(put(&files, 2, "cd").await, Put::Next(2));
        assert_eq!(files.claim(SUM, 0).await.unwrap(), None);
        assert_eq!(put(&files, 2, "c").await, Put::Whole);
        assert_eq!(put(&files, 0, "ab").await, Put::Whole);
        assert_eq!(files.claim(SUM, 0).await.unwrap(), Some(3));
        assert_eq!(fs::read(files.path_of(SUM)).unwrap(), b"abc");
    }

    #[tokio::test]
    async fn what_is_not_what_was_announced_is_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let files = AttachmentFiles::new(dir.path().to_owned());
        assert_eq!(put(&files, 0, "abd").await, Put::OtherHash);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(put(&files, 0, "abc").await, Put::Whole);
    }

    #[tokio::test]
    async fn there_is_no_room_for_more_than_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let files = AttachmentFiles::new(dir.path().to_owned());
        let filler = File::create(dir.path().join("filler")).unwrap();
        // sparse: it takes no room on the disk
        filler.set_len(MOST_BYTES - 2).unwrap();
        assert_eq!(put(&files, 0, "abc").await, Put::Full);
        filler.set_len(MOST_BYTES - 3).unwrap();
        assert_eq!(put(&files, 0, "abc").await, Put::Whole);
    }

    #[tokio::test]
    async fn a_file_goes_a_day_after_no_document_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let files = AttachmentFiles::new(dir.path().to_owned());
        put(&files, 0, "abc").await;
        let day = 24 * 60 * 60 * 1000;
        let now = 1_795_305_600_000;
        files.claim(SUM, now).await.unwrap();
        files.remove_unused(BTreeSet::new(), now + day).await.unwrap();
        let used = BTreeSet::from([SUM.to_owned()]);
        files.remove_unused(used, now + 2 * day).await.unwrap();
        assert_eq!(files.claim(SUM, now).await.unwrap(), Some(3));
        files.remove_unused(BTreeSet::new(), now + day + 1).await.unwrap();
        assert_eq!(files.claim(SUM, now).await.unwrap(), None);
    }
}
