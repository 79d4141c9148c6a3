//! What of a recording the endpoint does not have yet, on the disk: while the endpoint is away, or slower than the
//! session. The daemon delivers what a worker left behind ([`super::leftover`]).
//!
//! A file holds one line that says what it is, then bytes of the recording. Its worker holds a lock on it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use moorline_protocol::types::SessionId;
use nix::{
    fcntl::{Flock, FlockArg},
    sys::statvfs::fstatvfs,
};
use serde::{Deserialize, Serialize};

use super::syncing::Syncing;
use crate::config::TranscriptConfig;

/// Between two looks at what all spools have together.
const TOTAL_STEP: u64 = 1024 * 1024;
/// What is left free on the disk, which is not ours: so much, or a tenth of a small one.
const RESERVED_BYTES: u64 = 256 * 1024 * 1024;
const RESERVED_PART: u64 = 10;
/// A path and a number.
const MAX_HEADER_BYTES: u64 = 4096;
/// The rest of a recording that goes on, or whose worker died.
const OPEN: &str = "open";
/// The rest of a recording to its end.
const WHOLE: &str = "whole";

/// What recordings may take of the disk.
#[derive(Debug, Clone, Copy)]
pub(in crate::session) struct SpoolLimits {
    /// One.
    each: u64,
    /// All together, more or less: each looks when it begins and with each MiB.
    total: u64,
}

impl SpoolLimits {
    pub(in crate::session) fn new(config: &TranscriptConfig) -> Self {
        let bytes = |mib: usize| (mib as u64).saturating_mul(1024 * 1024);
        Self {
            each: bytes(config.spool_mib),
            total: bytes(config.spool_total_mib),
        }
    }
}

/// Where spools are.
pub(in crate::session) fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("spool")
}

#[derive(Debug, Serialize, Deserialize)]
struct SpoolHeader {
    /// Of the transcript, at the endpoint.
    path: String,
    /// Of the first byte within the recording.
    offset: u64,
}

/// The spool of one session; without a file while nothing must be kept.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    session: SessionId,
    path: String,
    limits: SpoolLimits,
    file: Option<SpoolFile>,
}

#[derive(Debug)]
struct SpoolFile {
    file: Flock<File>,
    name: PathBuf,
    /// Bytes of its first line.
    header: u64,
    /// Offsets within the recording.
    start: u64,
    end: u64,
    /// What may be added before the others are looked at again.
    allowed: u64,
    syncing: Syncing,
}

impl Spool {
    /// `path` is the transcript's at the endpoint.
    pub(super) fn new(state_dir: &Path, session: SessionId, path: String, limits: SpoolLimits) -> Self {
        Self {
            folder: folder(state_dir),
            session,
            path,
            limits,
            file: None,
        }
    }

    /// Up to where the recording is on the disk, if anything is.
    pub(super) fn end(&self) -> Option<u64> {
        self.file.as_ref().map(|file| file.end)
    }

    /// Adds what follows; it survives this process, and a moment later a power cut. `from` is its place in the recording, which must be
    /// [`Self::end`] if there is one.
    ///
    /// # Errors
    /// The disk takes no more, or may not: nothing was added.
    pub(super) fn append(&mut self, from: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.create(from)?,
        };
        let added = self.admit(&mut file, parts).and_then(|()| file.append(parts));
        if added.is_ok() || file.end > file.start {
            self.file = Some(file);
        } else {
            drop(fs::remove_file(&file.name));
        }
        added
    }

    /// Whether the owner lets recordings have so much of the disk.
    fn admit(&self, file: &mut SpoolFile, parts: &[&[u8]]) -> io::Result<()> {
        let added: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let full = |what| Err(io::Error::new(io::ErrorKind::StorageFull, what));
        if file.end - file.start + added > self.limits.each {
            return full("the spool of the recording is full (transcript.spool_mib)");
        }
        if file.allowed < added {
            let used: u64 = fs::read_dir(&self.folder)?
                .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
                .sum();
            if used.saturating_add(added) > self.limits.total {
                return full("the spools of all recordings are full (transcript.spool_total_mib)");
            }
            file.allowed = added + TOTAL_STEP;
        }
        file.allowed -= added;
        Ok(())
    }

    /// Bytes from this offset on, at most `limit`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn read(&self, offset: u64, limit: usize) -> io::Result<Vec<u8>> {
        let Some(file) = &self.file else {
            return Ok(Vec::new());
        };
        let left = file.end.saturating_sub(offset);
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(limit).min(limit)];
        file.file
            .read_exact_at(&mut bytes, file.header + offset.saturating_sub(file.start))?;
        Ok(bytes)
    }

    /// The endpoint has all of it.
    pub(super) fn clear(&mut self) {
        if let Some(file) = self.file.take()
            && let Err(error) = fs::remove_file(&file.name)
        {
            tracing::debug!(%error, "a spool that was delivered was not removed");
        }
    }

    /// What is here goes to the recording's end.
    pub(super) fn mark_whole(&mut self) {
        let Some(file) = &mut self.file else { return };
        let whole = file.name.with_extension(WHOLE);
        match fs::rename(&file.name, &whole) {
            Ok(()) => file.name = whole,
            Err(error) => tracing::warn!(%error, "the end of a recording is not marked"),
        }
    }

    fn create(&self, from: u64) -> io::Result<SpoolFile> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        let name = self.folder.join(format!("{}.{OPEN}", self.session));
        // under another name until it is locked and says what it is
        let new = self.folder.join(format!("{}.new", self.session));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        let mut file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
        let header = SpoolHeader {
            path: self.path.clone(),
            offset: from,
        };
        let mut line = serde_json::to_vec(&header)?;
        line.push(b'\n');
        let written = file.write_all(&line).and_then(|()| fs::rename(&new, &name));
        if let Err(error) = written {
            drop(fs::remove_file(&new));
            return Err(error);
        }
        Ok(SpoolFile {
            file,
            name,
            header: line.len() as u64,
            start: from,
            end: from,
            allowed: 0,
            syncing: Syncing::default(),
        })
    }
}

impl SpoolFile {
    fn append(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let at = self.header + (self.end - self.start);
        let added: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let full = |what| Err(io::Error::new(io::ErrorKind::StorageFull, what));
        let space = fstatvfs(&*self.file)?;
        let unit = space.fragment_size();
        let reserved = RESERVED_BYTES.min(space.blocks().saturating_mul(unit) / RESERVED_PART);
        if space.blocks_available().saturating_mul(unit) < reserved.saturating_add(added) {
            return full("the disk is nearly full");
        }
        let write = || -> io::Result<()> {
            let mut to = at;
            for part in parts {
                self.file.write_all_at(part, to)?;
                to += part.len() as u64;
            }
            self.syncing.start(&self.file)
        };
        if let Err(error) = write() {
            // half of it would be taken for a part of the recording
            self.file.set_len(at)?;
            return Err(error);
        }
        self.end += added;
        Ok(())
    }
}

/// A spool whose worker is gone.
#[derive(Debug)]
pub(super) struct Leftover {
    file: Flock<File>,
    name: PathBuf,
    /// Of the transcript, at the endpoint.
    pub(super) path: String,
    header: u64,
    start: u64,
    pub(super) end: u64,
    /// Nothing follows.
    pub(super) is_whole: bool,
}

impl Leftover {
    /// The spools in this folder that nobody holds. One that does not say what it is was never begun: it is removed.
    pub(super) fn find(folder: &Path) -> Vec<Self> {
        let Ok(entries) = fs::read_dir(folder) else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| Self::open(entry.ok()?.path()))
            .collect()
    }

    fn open(name: PathBuf) -> Option<Self> {
        let is_whole = name.extension()? == WHOLE;
        if !is_whole && name.extension()? != OPEN {
            return None;
        }
        let file = OpenOptions::new().read(true).write(true).open(&name).ok()?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()?;
        let mut line = Vec::new();
        let read = BufReader::new((&*file).take(MAX_HEADER_BYTES)).read_until(b'\n', &mut line);
        let header: Option<SpoolHeader> = read.ok().and_then(|_| serde_json::from_slice(&line).ok());
        let length = file.metadata().ok()?.len();
        let Some(header) = header else {
            tracing::warn!(spool = %name.display(), "a spool that says nothing of itself was removed");
            drop(fs::remove_file(&name));
            return None;
        };
        let header_bytes = line.len() as u64;
        Some(Self {
            file,
            name,
            path: header.path,
            header: header_bytes,
            start: header.offset,
            end: header.offset + length.saturating_sub(header_bytes),
            is_whole,
        })
    }

    /// Where its bytes begin within the recording.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Bytes from this offset on, at most `limit`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn read(&self, offset: u64, limit: usize) -> io::Result<Vec<u8>> {
        let left = self.end.saturating_sub(offset);
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(limit).min(limit)];
        self.file
            .read_exact_at(&mut bytes, self.header + offset.saturating_sub(self.start))?;
        Ok(bytes)
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

    fn spool(dir: &Path) -> Spool {
        Spool::new(
            dir,
            "me-0abc".parse().unwrap(),
            "/v1/transcript/me-0abc".to_owned(),
            SpoolLimits {
                each: 100,
                total: 150,
            },
        )
    }

    #[test]
    fn what_a_worker_left_is_found_when_it_is_gone_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = spool(dir.path());
        spool.append(100, &[b"abc", b"def"]).unwrap();
        spool.append(106, &[b"ghi"]).unwrap();
        assert_eq!(spool.end(), Some(109));
        assert_eq!(spool.read(103, 4).unwrap(), b"defg");
        assert!(Leftover::find(&folder(dir.path())).is_empty(), "its worker lives");
        drop(spool);
        let [left] = Leftover::find(&folder(dir.path())).try_into().unwrap();
        assert_eq!((left.start(), left.end, left.is_whole), (100, 109, false));
        assert_eq!(left.path, "/v1/transcript/me-0abc");
        assert_eq!(left.read(100, 100).unwrap(), b"abcdefghi");
        left.remove();
        assert!(Leftover::find(&folder(dir.path())).is_empty());
    }

    #[test]
    fn the_end_of_a_recording_is_known_from_its_spool_and_a_delivered_one_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = spool(dir.path());
        one.append(0, &[b"x"]).unwrap();
        one.mark_whole();
        drop(one);
        let [left] = Leftover::find(&folder(dir.path())).try_into().unwrap();
        assert!(left.is_whole);
        left.remove();
        let mut other = spool(dir.path());
        other.append(0, &[b"x"]).unwrap();
        other.clear();
        assert_eq!(other.end(), None);
        assert_eq!(fs::read_dir(folder(dir.path())).unwrap().count(), 0);
        other.append(7, &[b"y"]).unwrap();
        assert_eq!(other.read(7, 9).unwrap(), b"y");
    }

    #[test]
    fn a_file_that_is_no_spool_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(folder(dir.path())).unwrap();
        for name in ["a.open", "b.whole", "c.new", "d"] {
            fs::write(folder(dir.path()).join(name), b"nonsense\n").unwrap();
        }
        assert!(Leftover::find(&folder(dir.path())).is_empty());
        assert_eq!(
            fs::read_dir(folder(dir.path())).unwrap().count(),
            2,
            "what is no spool stays"
        );
    }
}
