//! How a segment ends, and what a crash has left of it that is no line.
//!
//! A killed process leaves half a line. A power cut leaves of what was not synced any pieces, and zeros between them,
//! which no line has; nothing behind the first of them was on disk when anybody waited for that.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use moorline_protocol::audit::{Body, FormError, Line, MAX_LINE_BYTES};

use super::{SegmentError, failed};

/// Holds the last whole line, and the longest unfinished one that a process can leave behind it.
const TAIL_BYTES: u64 = 2 * MAX_LINE_BYTES as u64;
const BUFFER_BYTES: usize = 64 * 1024;

/// How a segment ends.
#[derive(Debug)]
pub(super) struct Tail {
    /// Of its whole lines.
    pub(super) length: u64,
    /// The last of them.
    pub(super) last: Option<Vec<u8>>,
}

pub(super) fn read(path: &Path) -> Result<Tail, SegmentError> {
    let damaged = |source| SegmentError::Damaged {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(failed("open", path))?;
    let hole = hole(&mut file).map_err(failed("read", path))?;
    if let Some(hole) = hole
        && is_vouched_for(&mut file, hole).map_err(failed("read", path))?
    {
        return Err(damaged(FormError::Body));
    }
    // what is longer than any line is nothing that was left unfinished
    before(&mut file, hole)
        .map_err(failed("read", path))?
        .ok_or_else(|| damaged(FormError::TooLong))
}

/// Where the first zero is.
fn hole(file: &mut File) -> io::Result<Option<u64>> {
    let (mut position, mut buffer) = (0, vec![0; BUFFER_BYTES]);
    loop {
        let read = file.read(&mut buffer)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
            return Ok(Some(position + at as u64));
        }
        if read == 0 {
            return Ok(None);
        }
        position += read as u64;
    }
}

/// Whether what is behind was on disk once: a checkpoint is followed by another only when it was synced, with all
/// before it. Then a hole is damage and no trace of a crash, and what is behind it is evidence.
fn is_vouched_for(file: &mut File, hole: u64) -> io::Result<bool> {
    file.seek(SeekFrom::Start(hole))?;
    let mut behind = Vec::new();
    file.read_to_end(&mut behind)?;
    let checkpoints = behind
        .split_inclusive(|byte| *byte == b'\n')
        .filter_map(|line| Line::parse(line).ok())
        .filter(|line| matches!(line.body, Body::Checkpoint { .. }));
    Ok(checkpoints.count() > 1)
}

/// The last whole line before `end`. `None`: there are more bytes behind it than a line has.
fn before(file: &mut File, end: Option<u64>) -> io::Result<Option<Tail>> {
    let end = end.map_or_else(|| file.metadata().map(|metadata| metadata.len()), Ok)?;
    let begin = end.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(begin))?;
    let mut tail = Vec::new();
    file.take(end - begin).read_to_end(&mut tail)?;
    let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else {
        return Ok((begin == 0).then_some(Tail {
            length: 0,
            last: None,
        }));
    };
    tail.truncate(end + 1);
    let length = begin + tail.len() as u64;
    let lines = tail.get(..end).unwrap_or_default();
    let start = lines
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    let last = Some(tail.split_off(start));
    Ok(Some(Tail { length, last }))
}
