//! The files of the log: `00000001.jsonl` and so on, each begun when the one before is large; the chain goes on across.

mod tail;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use moorline_protocol::audit::{Chain, FormError};

use self::tail::Tail;
use crate::private_directory::make_private_directory;

/// A segment that is as long as this is followed by another one; in tests soon.
const SEGMENT_BYTES: u64 = if cfg!(test) { 16 * 1024 } else { 64 * 1024 * 1024 };

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SegmentError {
    #[error("failed to {doing} {path}")]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the last line of {path} is no line of an audit log, so nothing can be chained to it: put the directory back \
         from a backup, or move it away to begin a new log, and keep it as evidence"
    )]
    Damaged {
        path: PathBuf,
        #[source]
        source: FormError,
    },
}

/// What the last process left.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) segments: Segments,
    pub(super) chain: Chain,
    /// Bytes at the end that a crash left unfinished, which were removed.
    pub(super) torn: u64,
}

/// The end of the log, where lines are added.
#[derive(Debug)]
pub(super) struct Segments {
    dir: PathBuf,
    /// Of the last segment; 0: there is none.
    number: u64,
    /// Of the last segment, in bytes.
    length: u64,
    file: Option<File>,
}

impl Segments {
    /// Looks at what is there, without writing; only what a crash left unfinished at the end is removed.
    pub(super) fn open(dir: &Path) -> Result<Found, SegmentError> {
        let mut torn = 0;
        for number in numbers(dir)?.into_iter().rev() {
            let path = path_of(dir, number);
            let Tail { length, last } = tail::read(&path)?;
            let total = fs::metadata(&path).map_err(failed("look at", &path))?.len();
            if total > length {
                torn += total - length;
                cut(&path, length).map_err(failed("repair", &path))?;
            }
            let Some(last) = last else {
                // empty: the process died between making it and writing to it
                continue;
            };
            let chain = Chain::behind(&last).map_err(|source| SegmentError::Damaged { path, source })?;
            let segments = Self {
                dir: dir.to_owned(),
                number,
                length,
                file: None,
            };
            return Ok(Found {
                segments,
                chain,
                torn,
            });
        }
        let segments = Self {
            dir: dir.to_owned(),
            number: 0,
            length: 0,
            file: None,
        };
        Ok(Found {
            segments,
            chain: Chain::new(),
            torn,
        })
    }

    /// Where the log ends: segment and bytes in it.
    pub(super) fn end(&self) -> (u64, u64) {
        (self.number, self.length)
    }

    /// Whether the next lines belong into another segment.
    pub(super) fn is_full(&self) -> bool {
        self.length >= SEGMENT_BYTES
    }

    /// The next lines go into a new segment.
    pub(super) fn rotate(&mut self) {
        self.file = None;
        self.number += 1;
        self.length = 0;
    }

    /// Adds whole lines: all of them or, when this fails, none.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let length = self.length;
        let file = self.open_file()?;
        // half a line of a write that failed, where taking it back failed as well
        if file.metadata()?.len() > length {
            file.set_len(length)?;
        }
        if let Err(error) = file.write_all(lines) {
            file.set_len(length)?;
            return Err(error);
        }
        self.length += u64::try_from(lines.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Makes what was added survive a power cut.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_data)
    }

    fn open_file(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            make_private_directory(&self.dir)?;
            let number = self.number.max(1);
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(path_of(&self.dir, number))?;
            // the names survive too
            File::open(&self.dir)?.sync_all()?;
            self.number = number;
            self.file = Some(file);
        }
        self.file
            .as_mut()
            .ok_or_else(|| io::Error::other("the segment is not open"))
    }
}

/// The segments that there are, in order.
pub(super) fn numbers(dir: &Path) -> Result<Vec<u64>, SegmentError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        // a place where no directory can be: writing fails, and is tried with each record
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed("list", dir)(error)),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed("list", dir))?.file_name();
        numbers.extend(name.to_str().and_then(number_of));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".jsonl")?;
    let number = digits.parse().ok()?;
    (format!("{number:08}") == digits && number > 0).then_some(number)
}

pub(super) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.jsonl"))
}

fn cut(path: &Path, length: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length)?;
    file.sync_all()
}

pub(super) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SegmentError {
    let path = path.to_owned();
    move |source| SegmentError::File { doing, path, source }
}
