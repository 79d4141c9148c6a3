//! The bytes of attachments: a directory of files that are called by their SHA-256, so that one that is attached twice
//! is kept once. A file that is not whole yet ends in `.part`, and has in its name who brings it and how long it is to be:
//! what one principal sends is never the begin of another's file.

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

/// A file on its way here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Upload<'a> {
    /// The ARN of the principal.
    pub(crate) by: &'a str,
    /// In lower-case hex.
    pub(crate) sha256: &'a str,
    /// In bytes.
    pub(crate) size: u64,
}

impl Upload<'_> {
    fn part(&self) -> String {
        let by = hex(digest::digest(&digest::SHA256, self.by.as_bytes()).as_ref());
        format!("{}.{by}.{}.{PART}", self.sha256, self.size)
    }
}

/// Where a file is when it is whole, and before.
struct Places {
    whole: PathBuf,
    part: PathBuf,
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

    /// Adds a piece to a file that somebody brings. What is there already, or begins elsewhere than what is there ends,
    /// is not written.
    pub(crate) async fn put(
        &self,
        upload: Upload<'_>,
        offset: u64,
        piece: bytes::Bytes,
    ) -> Result<Put, StoreError> {
        let (whole, size) = (self.path.join(upload.sha256), upload.size);
        let part = self.path.join(upload.part());
        self.change(move || put(&Places { whole, part }, size, offset, &piece))
            .await
    }

    /// Removes what was on its way when the endpoint went down: after a power cut nobody knows what is in it.
    pub(crate) fn remove_parts(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == PART) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
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

fn put(places: &Places, size: u64, offset: u64, piece: &[u8]) -> io::Result<Put> {
    let Places { whole, part } = places;
    if whole.is_file() {
        // somebody else was faster
        let _gone = fs::remove_file(part);
        return Ok(Put::Whole);
    }
    let directory = whole.parent().unwrap_or(whole);
    let there = match fs::metadata(part) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let end = there + piece.len() as u64;
    if offset != there || end > size {
        return Ok(Put::Next(there));
    }
    // What others have begun meanwhile takes its room with each piece.
    if !has_room(directory, size - there, there == 0)? {
        return Ok(Put::Full);
    }
    if end == 0 {
        return Ok(Put::Next(0));
    }
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .mode(0o600)
        .open(part)?;
    if let Err(error) = file.write_all(piece) {
        // A disk that is full gets its room back; who brings the file begins anew.
        let _gone = fs::remove_file(part);
        return Err(error);
    }
    if end < size {
        return Ok(Put::Next(end));
    }
    if hash_of(&mut file)? != whole.file_name().unwrap_or_default().to_string_lossy() {
        fs::remove_file(part)?;
        return Ok(Put::OtherHash);
    }
    file.sync_all()?;
    fs::rename(part, whole)?;
    File::open(directory)?.sync_all()?;
    Ok(Put::Whole)
}

/// Whether there is room for so many more bytes, in a file of their own or not.
fn has_room(directory: &Path, more: u64, is_new: bool) -> io::Result<bool> {
    let (mut bytes, mut files) = (more, usize::from(is_new));
    for entry in fs::read_dir(directory)? {
        bytes = bytes.saturating_add(entry?.metadata()?.len());
        files += 1;
    }
    Ok(bytes <= MOST_BYTES && files <= MOST_FILES)
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
    Ok(hex(hash.finish().as_ref()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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

    const ABC: Upload<'_> = Upload {
        by: "me",
        sha256: SUM,
        size: 3,
    };

    async fn put(files: &AttachmentFiles, offset: u64, piece: &'static str) -> Put {
        files.put(ABC, offset, piece.into()).await.unwrap()
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
    async fn what_others_have_begun_under_the_same_hash_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let files = AttachmentFiles::new(dir.path().to_owned());
        for junk in [Upload { by: "other", ..ABC }, Upload { size: 9, ..ABC }] {
            assert!(matches!(
                files.put(junk, 0, "xx".into()).await.unwrap(),
                Put::Next(2)
            ));
        }
        assert_eq!(put(&files, 0, "ab").await, Put::Next(2));
        assert_eq!(put(&files, 2, "c").await, Put::Whole);
    }

    #[tokio::test]
    async fn files_that_grow_at_the_same_time_have_no_more_room_together() {
        let dir = tempfile::tempdir().unwrap();
        let files = AttachmentFiles::new(dir.path().to_owned());
        let filler = File::create(dir.path().join("filler")).unwrap();
        filler.set_len(MOST_BYTES - 4).unwrap();
        let other = Upload { by: "other", ..ABC };
        assert_eq!(put(&files, 0, "ab").await, Put::Next(2));
        assert_eq!(files.put(other, 0, "ab".into()).await.unwrap(), Put::Full);
        filler.set_len(MOST_BYTES - 5).unwrap();
        assert_eq!(files.put(other, 0, "ab".into()).await.unwrap(), Put::Next(2));
        assert_eq!(put(&files, 2, "c").await, Put::Whole);
        assert_eq!(files.put(other, 2, "c".into()).await.unwrap(), Put::Whole);
    }

    #[tokio::test]
    async fn what_the_disk_did_not_take_is_gone_and_can_be_brought_again() {
        let dir = tempfile::tempdir().unwrap();
        let files = AttachmentFiles::new(dir.path().to_owned());
        std::os::unix::fs::symlink("/dev/full", dir.path().join(ABC.part())).unwrap();
        files.put(ABC, 0, "abc".into()).await.unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(put(&files, 0, "abc").await, Put::Whole);
    }

    #[tokio::test]
    async fn what_was_on_its_way_at_the_last_end_is_swept_and_whole_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let files = AttachmentFiles::new(dir.path().to_owned());
        put(&files, 0, "abc").await;
        files
            .put(Upload { sha256: "00", ..ABC }, 0, "ab".into())
            .await
            .unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        files.remove_parts().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(files.claim(SUM, 0).await.unwrap(), Some(3));
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
