//! Spools as the daemon finds them, and brings their content to the endpoint.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};

use super::spool::{Deliverer, NEW, OPEN, SpoolHeader, WHOLE};
use crate::runtime::has_space;

/// A path and a number.
const MAX_HEADER_BYTES: u64 = 4096;
/// What the file system gives back at a time.
const BLOCK_BYTES: u64 = 4096;

/// Making a spool takes no longer: what still has its first name then is what a power cut made of one that was renamed.
const MAKING: Duration = Duration::from_secs(60);

/// A spool that is the daemon's to deliver.
#[derive(Debug)]
pub(super) struct Spooled {
    file: Handle,
    name: PathBuf,
    /// Of the transcript, at the endpoint.
    pub(super) path: String,
    /// Seals of this node prove it.
    pub(super) is_sealed: bool,
    header: u64,
    start: u64,
    pub(super) end: u64,
    /// Nothing follows.
    pub(super) is_whole: bool,
    /// What is at the endpoint must make room here.
    pub(super) is_disk_short: bool,
}

/// Whether anything of the recording of this name waits here, or is still to come.
pub(super) fn is_spooled(folder: &Path, recording: &str) -> bool {
    // in this order: the one becomes the other
    [NEW, OPEN, WHOLE]
        .iter()
        .any(|state| folder.join(format!("{recording}.{state}")).exists())
}

/// Whether what waits of the recording of this name is being made, or is what a power cut made of that.
pub(super) fn is_being_made(folder: &Path, recording: &str) -> bool {
    folder.join(format!("{recording}.{NEW}")).exists()
}

#[derive(Debug)]
enum Handle {
    /// Its worker is gone.
    Left(Flock<File>),
    /// Its worker lives, and may add to it.
    Growing(File),
}

impl Handle {
    fn file(&self) -> &File {
        match self {
            Self::Left(file) => file,
            Self::Growing(file) => file,
        }
    }
}

impl Spooled {
    /// Those in this folder whose worker is gone, or lets the daemon deliver them while it lives. One that does not say
    /// what it is was never begun: it is removed.
    pub(super) fn find(folder: &Path) -> Vec<Self> {
        Self::find_at(folder, SystemTime::now())
    }

    fn find_at(folder: &Path, now: SystemTime) -> Vec<Self> {
        let Ok(entries) = fs::read_dir(folder) else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| Self::open(entry.ok()?.path(), now))
            .collect()
    }

    fn open(mut name: PathBuf, now: SystemTime) -> Option<Self> {
        let kind = name.extension()?;
        let (is_whole, is_new) = (kind == WHOLE, kind == NEW);
        if !is_whole && !is_new && kind != OPEN {
            return None;
        }
        if is_new {
            let changed = name.metadata().and_then(|metadata| metadata.modified()).ok()?;
            if now.duration_since(changed).unwrap_or_default() < MAKING {
                return None;
            }
        }
        let file = OpenOptions::new().read(true).write(true).open(&name).ok()?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Handle::Left(file),
            Err((file, _)) => Handle::Growing(file),
        };
        let mut line = Vec::new();
        let read = BufReader::new(file.file().take(MAX_HEADER_BYTES)).read_until(b'\n', &mut line);
        let header: Option<SpoolHeader> = read.ok().and_then(|_| serde_json::from_slice(&line).ok());
        let length = file.file().metadata().ok()?.len();
        let is_growing = matches!(file, Handle::Growing(_));
        let Some(header) = header else {
            if !is_growing {
                tracing::warn!(spool = %name.display(), "a spool that says nothing of itself was removed");
                drop(fs::remove_file(&name));
            }
            return None;
        };
        if is_growing && (is_new || header.deliverer == Deliverer::Worker) {
            return None;
        }
        if is_new {
            let open = name.with_extension(OPEN);
            // a later one goes on where this one ended
            if open.exists() {
                return None;
            }
            fs::rename(&name, &open).ok()?;
            name = open;
        }
        let header_bytes = line.len() as u64;
        Some(Self {
            is_disk_short: !has_space(file.file(), 0).unwrap_or(true),
            file,
            name,
            path: header.path,
            is_sealed: header.is_sealed,
            header: header_bytes,
            start: header.offset,
            end: header.offset + length.saturating_sub(header_bytes),
            is_whole,
        })
    }

    /// Name of the recording.
    pub(super) fn recording(&self) -> String {
        let name = self.name.file_stem().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Where its bytes begin within the recording.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Whether its worker may still add to it.
    pub(super) fn is_growing(&self) -> bool {
        matches!(self.file, Handle::Growing(_)) && !self.is_whole
    }

    /// Bytes from this offset on, at most `limit`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn read(&self, offset: u64, limit: usize) -> io::Result<Vec<u8>> {
        let left = self.end.saturating_sub(offset);
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(limit).min(limit)];
        self.file.file().read_exact_at(&mut bytes, self.at(offset))?;
        Ok(bytes)
    }

    /// A second handle, to have what is there synced.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub(super) fn to_sync(&self) -> io::Result<File> {
        self.file.file().try_clone()
    }

    /// The endpoint has everything before this offset on its disk: that need not be kept here. A file system that
    /// cannot take a part out of a file keeps it until all is delivered.
    pub(super) fn discard_before(&self, offset: u64) {
        // the first line stays, with the block it is in
        let end = self.at(offset) / BLOCK_BYTES * BLOCK_BYTES;
        let (Ok(from), Ok(end)) = (i64::try_from(BLOCK_BYTES), i64::try_from(end)) else {
            return;
        };
        if end > from {
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            if let Err(error) = fallocate(self.file.file(), flags, from, end - from) {
                tracing::debug!(%error, spool = %self.name.display(), "delivered parts stay on the disk");
            }
        }
    }

    /// What is behind this offset is no part of the recording, which has not the end that its worker wrote.
    ///
    /// # Errors
    /// The file cannot be changed.
    pub(super) fn cut_at(&mut self, offset: u64) -> io::Result<()> {
        if self.is_whole {
            // in this order: half of it would be taken for the whole
            let open = self.name.with_extension(OPEN);
            fs::rename(&self.name, &open)?;
            (self.name, self.is_whole) = (open, false);
        }
        self.file.file().set_len(self.at(offset))?;
        self.end = offset;
        Ok(())
    }

    /// Adds lines at the end.
    ///
    /// # Errors
    /// The disk does not take them: nothing was added.
    pub(super) fn add(&mut self, lines: &[u8]) -> io::Result<()> {
        let (file, at) = (self.file.file(), self.at(self.end));
        if let Err(error) = file.write_all_at(lines, at) {
            file.set_len(at)?;
            return Err(error);
        }
        self.end += lines.len() as u64;
        file.sync_data()
    }

    /// Where in the file this offset of the recording is.
    fn at(&self, offset: u64) -> u64 {
        self.header + offset.saturating_sub(self.start)
    }

    /// It is delivered, or will never be.
    pub(super) fn remove(self) {
        if let Err(error) = fs::remove_file(&self.name) {
            tracing::warn!(%error, spool = %self.name.display(), "a spool was not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Packed, Spool, SpoolLimits, spool::folder};

    fn spool(dir: &Path) -> Spool {
        spool_of(dir, Deliverer::Worker)
    }

    fn spool_of(dir: &Path, deliverer: Deliverer) -> Spool {
        let limits = SpoolLimits {
            each: 100_000,
            total: 150_000,
        };
        let name = ("me-0abc", "/v1/transcript/me-0abc".to_owned());
        Spool::new(dir, name, deliverer, limits)
    }

    #[test]
    fn what_the_daemon_delivers_is_found_while_it_grows_and_delivered_parts_make_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = spool_of(dir.path(), Deliverer::Daemon);
        let piece = [b'x'; 60_000];
        assert_eq!(spool.append_growing(&piece, false).unwrap(), piece.len());
        assert!(
            spool.append_growing(&piece, false).is_err(),
            "more than its limit"
        );
        let [found] = Spooled::find(&folder(dir.path())).try_into().unwrap();
        assert!(found.is_growing());
        assert_eq!((found.start(), found.end), (0, 60_000));
        found.discard_before(60_000);
        assert_eq!(spool.append_growing(&piece, false).unwrap(), piece.len());
        let [found] = Spooled::find(&folder(dir.path())).try_into().unwrap();
        assert_eq!(found.end, 120_000);
        assert_eq!(found.read(60_000, 60_000).unwrap(), piece);
        spool.mark_whole();
        let [found] = Spooled::find(&folder(dir.path())).try_into().unwrap();
        assert!(found.is_whole && !found.is_growing());
    }

    fn parts<const N: usize>(parts: [&'static str; N]) -> [Packed; N] {
        parts.map(|part| Packed::new(part.as_bytes()))
    }

    #[test]
    fn what_a_worker_left_is_found_when_it_is_gone_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = spool(dir.path());
        spool.append(100, &parts(["abc", "def"])).unwrap();
        spool.append(106, &parts(["ghi"])).unwrap();
        assert_eq!(spool.end(), Some(109));
        assert_eq!(spool.read(103, 4).unwrap(), b"defg");
        assert!(Spooled::find(&folder(dir.path())).is_empty(), "its worker lives");
        drop(spool);
        let [left] = Spooled::find(&folder(dir.path())).try_into().unwrap();
        assert_eq!((left.start(), left.end, left.is_whole), (100, 109, false));
        assert_eq!(left.path, "/v1/transcript/me-0abc");
        assert_eq!(left.read(100, 100).unwrap(), b"abcdefghi");
        left.remove();
        assert!(Spooled::find(&folder(dir.path())).is_empty());
    }

    #[test]
    fn the_end_of_a_recording_is_known_from_its_spool_and_a_delivered_one_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = spool(dir.path());
        one.append(0, &parts(["x"])).unwrap();
        one.mark_whole();
        drop(one);
        let [left] = Spooled::find(&folder(dir.path())).try_into().unwrap();
        assert!(left.is_whole);
        left.remove();
        let mut other = spool(dir.path());
        other.append(0, &parts(["x"])).unwrap();
        other.clear();
        assert_eq!(other.end(), None);
        assert_eq!(fs::read_dir(folder(dir.path())).unwrap().count(), 0);
        other.append(7, &parts(["y"])).unwrap();
        assert_eq!(other.read(7, 9).unwrap(), b"y");
    }

    #[test]
    fn a_spool_says_whether_seals_prove_it_and_one_of_an_earlier_release_does_not() {
        let dir = tempfile::tempdir().unwrap();
        for (is_sealed, deliverer) in [(true, Deliverer::Daemon), (false, Deliverer::Worker)] {
            let mut one = spool_of(dir.path(), deliverer).sealed(is_sealed);
            one.append(0, &parts(["abc"])).unwrap();
            drop(one);
            let [left] = Spooled::find(&folder(dir.path())).try_into().unwrap();
            assert_eq!(left.is_sealed, is_sealed);
            left.remove();
        }
        let earlier = b"{\"path\":\"/v1/transcript/me-0abc\",\"offset\":0}\nabc";
        fs::write(folder(dir.path()).join("me-0abc.open"), earlier).unwrap();
        let [left] = Spooled::find(&folder(dir.path())).try_into().unwrap();
        assert!(!left.is_sealed && left.read(0, 9).unwrap() == b"abc");
    }

    #[test]
    fn a_spool_whose_renaming_a_power_cut_took_back_is_delivered() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = spool(dir.path());
        one.append(0, &parts(["abc"])).unwrap();
        drop(one);
        let (open, new) = (
            folder(dir.path()).join("me-0abc.open"),
            folder(dir.path()).join("me-0abc.new"),
        );
        fs::rename(&open, &new).unwrap();
        fs::write(folder(dir.path()).join("other.new"), b"").unwrap();
        let now = SystemTime::now();
        assert!(
            Spooled::find_at(&folder(dir.path()), now).is_empty(),
            "it is being made"
        );
        assert!(
            is_spooled(&folder(dir.path()), "me-0abc"),
            "it would be ended at the endpoint before it is sent"
        );
        let [left] = Spooled::find_at(&folder(dir.path()), now + 2 * MAKING)
            .try_into()
            .unwrap();
        assert_eq!(left.read(0, 100).unwrap(), b"abc");
        assert!(open.exists());
        assert_eq!(
            fs::read_dir(folder(dir.path())).unwrap().count(),
            1,
            "the empty one goes"
        );
    }

    #[test]
    fn a_file_that_is_no_spool_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(folder(dir.path())).unwrap();
        for name in ["a.open", "b.whole", "c.new", "d"] {
            fs::write(folder(dir.path()).join(name), b"nonsense\n").unwrap();
        }
        assert!(Spooled::find(&folder(dir.path())).is_empty());
        assert_eq!(
            fs::read_dir(folder(dir.path())).unwrap().count(),
            2,
            "what is no spool stays"
        );
    }
}
