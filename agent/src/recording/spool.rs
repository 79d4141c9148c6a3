//! What of a recording the endpoint does not have yet, on the disk. A session's worker puts there what waits while the
//! endpoint is away, or slower than the session, and the daemon delivers what the worker has left behind; a command's
//! puts everything there, and the daemon delivers it while it grows ([`super::Courier`]).
//!
//! A file holds one line that says what it is, then bytes of the recording. Its worker holds a lock on it.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, Flock, FlockArg, fallocate},
};
use serde::{Deserialize, Serialize};

use super::{Packed, syncing::Syncing};
use crate::config::TranscriptConfig;
use crate::runtime::{has_space, make_private_directory};

/// Between two looks at what all spools have together.
const TOTAL_STEP: u64 = 1024 * 1024;
/// Of a recording that the daemon delivers, so much room is kept for its end, and this much more is asked for at once.
const END_BYTES: u64 = 64 * 1024;
const END_STEP: u64 = 256 * 1024;
/// The rest of a recording that goes on, or whose worker died.
pub(super) const OPEN: &str = "open";
/// The rest of a recording to its end.
pub(super) const WHOLE: &str = "whole";

/// One that is being made.
pub(super) const NEW: &str = "new";

/// What recordings may take of the disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpoolLimits {
    /// One.
    pub(super) each: u64,
    /// All together, more or less: each looks when it begins and with each MiB.
    pub(super) total: u64,
}

impl SpoolLimits {
    pub(crate) fn new(config: &TranscriptConfig) -> Self {
        let bytes = |mib: usize| (mib as u64).saturating_mul(1024 * 1024);
        Self {
            each: bytes(config.spool_mib),
            total: bytes(config.spool_total_mib),
        }
    }
}

/// Where spools are.
pub(crate) fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("spool")
}

/// Who brings it to the endpoint while its worker lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Deliverer {
    /// The worker itself, which also has it synced.
    #[default]
    Worker,
    /// The daemon, which takes delivered parts out of the file.
    Daemon,
}

/// The first line of a spool.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SpoolHeader {
    /// Of the transcript, at the endpoint.
    pub(super) path: String,
    /// Of the first byte within the recording.
    pub(super) offset: u64,
    /// Absent in what an earlier release wrote.
    #[serde(default)]
    pub(super) deliverer: Deliverer,
    /// The node's seals prove it. Absent in what an earlier release wrote.
    #[serde(default)]
    pub(super) is_sealed: bool,
}

/// What a file takes of the disk: parts that were taken out of it take nothing.
fn used(file: &Metadata) -> u64 {
    file.len().min(file.blocks().saturating_mul(512))
}

fn total(parts: &[Packed]) -> u64 {
    parts.iter().map(|part| part.len() as u64).sum()
}

/// The spool of one recording; without a file while nothing must be kept.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    /// Of the recording.
    name: String,
    path: String,
    deliverer: Deliverer,
    is_sealed: bool,
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
    /// Up to here the disk has room for the file.
    kept_to: u64,
    syncing: Syncing,
}

impl Spool {
    /// Of the recording of this name, which has this path at the endpoint. The name is that of a file, too.
    pub(crate) fn new(
        state_dir: &Path,
        (name, path): (&str, String),
        deliverer: Deliverer,
        limits: SpoolLimits,
    ) -> Self {
        Self {
            folder: folder(state_dir),
            name: name.to_owned(),
            path,
            deliverer,
            is_sealed: false,
            limits,
            file: None,
        }
    }

    /// Says of it that seals of this node prove it, so that whoever delivers it need not.
    #[must_use]
    pub(crate) fn sealed(mut self, is_sealed: bool) -> Self {
        self.is_sealed = is_sealed;
        self
    }

    /// Up to where the recording is on the disk, if anything is.
    pub(crate) fn end(&self) -> Option<u64> {
        self.file.as_ref().map(|file| file.end)
    }

    /// Adds what follows; it survives this process, and a moment later a power cut. `from` is its place in the recording, which must be
    /// [`Self::end`] if there is one.
    ///
    /// # Errors
    /// The disk takes no more, or may not: nothing was added.
    pub(crate) fn append(&mut self, from: u64, parts: &[Packed]) -> io::Result<()> {
        let length = total(parts);
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.create(from)?,
        };
        let added = self
            .admit(&mut file, length)
            .and_then(|()| file.check_space(length))
            .and_then(|()| file.append(parts));
        if added.is_ok() || file.end > file.start {
            self.file = Some(file);
        } else {
            drop(fs::remove_file(&file.name));
        }
        added
    }

    /// Adds what follows of a recording that the daemon delivers while it grows, or as much of it as the disk takes: so
    /// many bytes. It survives this process; the daemon has it synced while the endpoint is away. The last of a
    /// recording may have what is left free for others: it is not much.
    ///
    /// # Errors
    /// The disk takes no more, or may not: nothing was added.
    pub(crate) fn append_growing(&mut self, bytes: &[u8], is_last: bool) -> io::Result<usize> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.create(0)?,
        };
        let admitted = match is_last {
            true => Ok(()),
            false => self
                .admit(&mut file, bytes.len() as u64)
                .and_then(|()| file.check_space(bytes.len() as u64))
                .and_then(|()| file.keep_room_for_end(bytes.len() as u64)),
        };
        let added = admitted.and_then(|()| file.append_some(bytes));
        self.file = Some(file);
        added
    }

    /// Whether the owner lets recordings have so much of the disk.
    fn admit(&self, file: &mut SpoolFile, added: u64) -> io::Result<()> {
        let full = |what| Err(io::Error::new(io::ErrorKind::StorageFull, what));
        let metadata = file.file.metadata()?;
        let blocks = metadata.blocks().saturating_mul(512).saturating_sub(file.ahead());
        let kept = metadata.len().min(blocks).saturating_sub(file.header);
        if kept.saturating_add(added) > self.limits.each {
            return full("the spool of the recording is full (transcript.spool_mib)");
        }
        if file.allowed < added {
            let used: u64 = fs::read_dir(&self.folder)?
                .filter_map(|entry| Some(used(&entry.ok()?.metadata().ok()?)))
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
    pub(crate) fn read(&self, offset: u64, limit: usize) -> io::Result<Vec<u8>> {
        let Some(file) = &self.file else {
            return Ok(Vec::new());
        };
        let left = file.end.saturating_sub(offset);
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(limit).min(limit)];
        file.file
            .read_exact_at(&mut bytes, file.header + offset.saturating_sub(file.start))?;
        Ok(bytes)
    }

    /// Whether somebody has removed the file, as the daemon does when the endpoint takes no more of it.
    pub(crate) fn is_gone(&self) -> bool {
        let metadata = self.file.as_ref().and_then(|file| file.file.metadata().ok());
        metadata.is_some_and(|metadata| metadata.nlink() == 0)
    }

    /// The endpoint has all of it.
    pub(crate) fn clear(&mut self) {
        if let Some(file) = self.file.take()
            && let Err(error) = fs::remove_file(&file.name)
        {
            tracing::debug!(%error, "a spool that was delivered was not removed");
        }
    }

    /// What is here goes to the recording's end.
    pub(crate) fn mark_whole(&mut self) {
        let Some(file) = &mut self.file else { return };
        let whole = file.name.with_extension(WHOLE);
        match fs::rename(&file.name, &whole) {
            Ok(()) => file.name = whole,
            Err(error) => tracing::warn!(%error, "the end of a recording is not marked"),
        }
    }

    fn create(&self, from: u64) -> io::Result<SpoolFile> {
        if !self.folder.is_dir() {
            make_private_directory(&self.folder)?;
        }
        let name = self.folder.join(format!("{}.{OPEN}", self.name));
        // under another name until it is locked and says what it is
        let new = self.folder.join(format!("{}.{NEW}", self.name));
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
            deliverer: self.deliverer,
            is_sealed: self.is_sealed,
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
            kept_to: 0,
            syncing: Syncing::default(),
        })
    }
}

impl SpoolFile {
    /// Whether enough is left for others.
    fn check_space(&self, added: u64) -> io::Result<()> {
        match has_space(&*self.file, added)? {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "the disk is nearly full",
            )),
        }
    }

    /// Where in the file the next byte goes.
    fn at(&self) -> u64 {
        self.header + (self.end - self.start)
    }

    /// Has the disk keep room behind what is to be added: there the end goes, when nothing else is taken.
    fn keep_room_for_end(&mut self, added: u64) -> io::Result<()> {
        let needed = self.at().saturating_add(added).saturating_add(END_BYTES);
        if needed <= self.kept_to {
            return Ok(());
        }
        let from = self.kept_to.max(self.at());
        let mut kept = Err(Errno::ENOSPC);
        for to in [needed.saturating_add(END_STEP), needed] {
            if kept == Err(Errno::ENOSPC) {
                let flags = FallocateFlags::FALLOC_FL_KEEP_SIZE;
                let length = i64::try_from(to - from).unwrap_or(i64::MAX);
                kept = fallocate(
                    &*self.file,
                    flags,
                    i64::try_from(from).unwrap_or(i64::MAX),
                    length,
                );
                self.kept_to = if kept.is_ok() { to } else { self.kept_to };
            }
        }
        match kept {
            // a file system that cannot do so
            Err(Errno::EOPNOTSUPP) => self.kept_to = u64::MAX,
            kept => kept?,
        }
        Ok(())
    }

    /// What of the file is not part of the recording yet.
    fn ahead(&self) -> u64 {
        match self.kept_to {
            u64::MAX => 0,
            kept_to => kept_to.saturating_sub(self.at()),
        }
    }

    fn append(&mut self, parts: &[Packed]) -> io::Result<()> {
        let at = self.at();
        let write = || -> io::Result<()> {
            let mut to = at;
            for part in parts {
                // one at a time: all of them together may be many times what they are in memory
                for piece in part.pieces() {
                    self.file.write_all_at(&piece, to)?;
                    to += piece.len() as u64;
                }
            }
            self.syncing.start(&self.file)
        };
        if let Err(error) = write() {
            // half of it would be taken for a part of the recording
            self.file.set_len(at)?;
            return Err(error);
        }
        self.end += total(parts);
        Ok(())
    }

    /// Adds as much of these as the disk takes. What was added stays: it may be at the endpoint already.
    fn append_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let at = self.at();
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.file.write_at(rest, at + written as u64) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if written == 0 => return Err(error),
                Err(_) => break,
            }
        }
        self.end += written as u64;
        Ok(written)
    }
}
