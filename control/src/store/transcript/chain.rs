//! The chain of one recording as it arrives: each seal is verified, and what is on the disk for good is countersigned
//! (docs/transcript-format.md). The endpoint's lines stand in a file beside the recording.
//!
//! What is in memory can be lost at any moment: it is made anew from both files.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use moorline_protocol::public_keys::PublicKey;
use moorline_protocol::transcript::{
    Countersigner, Ending, EndpointLine, Header, Line, Position, Receiver, RecordingId, Refusal,
};

use crate::auth::EndpointSigningKey;

/// The first line of a recording of ours is a few hundred bytes, and its document's parameters.
const MAX_HEADER_BYTES: u64 = 8 * 1024 * 1024;
const PIECE_BYTES: u64 = 256 * 1024;
/// More than a line of the endpoint has.
const LAST_LINE_BYTES: u64 = 4096;

/// Who sends a recording, and the keys that may have sealed it.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(crate) node: String,
    pub(crate) keys: Vec<PublicKey>,
}

/// What is known of a recording's chain.
#[derive(Debug, Clone)]
pub(super) enum Chain {
    /// Its first line has not come whole.
    Undecided,
    /// An agent that does not seal: it is kept, and nobody vouches for it.
    Plain,
    Sealed(Box<Sealed>),
}

/// A recording that is sealed.
#[derive(Debug, Clone)]
pub(super) struct Sealed {
    receiver: Receiver,
    countersigner: Countersigner,
    /// The last seal that was verified and is not countersigned.
    fresh: Option<Position>,
    /// How it was closed, if it is.
    ending: Option<Ending>,
}

impl Chain {
    /// Reads what is there of a recording. `cast` is the recording, `signatures` the path of the endpoint's lines.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn load(
        id: &RecordingId,
        sender: &Sender,
        (cast, signatures): (&File, &Path),
        signer: &EndpointSigningKey,
    ) -> io::Result<(Self, Result<(), Refusal>)> {
        let Some(first) = first_line(cast)? else {
            return Ok((Self::Undecided, Ok(())));
        };
        if !is_ours(&first) {
            return Ok((Self::Plain, Ok(())));
        }
        let Sender { node, keys } = sender.clone();
        let last = last_line(signatures)?;
        let parsed = last.as_deref().and_then(endpoint_line);
        let header = Header::parse(&first).ok();
        let place = parsed.as_ref().zip(header).map(|(line, header)| Position {
            time: line.time,
            record: line.record,
            hash: line.hash,
            length: line.length,
            node_key: header.origin.node_key,
        });
        if place.is_some_and(|place| cast.metadata().is_ok_and(|cast| cast.len() < place.length)) {
            // what the node sends now would be taken for its lie
            return Err(shorter_than_signed());
        }
        let receiver = match &place {
            Some(place) => Receiver::resume(id.clone(), node, keys, place),
            None => Receiver::new(id.clone(), node, keys),
        };
        let number = parsed.as_ref().map_or(0, |line| line.number);
        let mut sealed = Sealed {
            receiver,
            countersigner: Countersigner::new(id.clone(), signer.id(), number, last.as_deref()),
            fresh: None,
            ending: parsed.and_then(|line| line.ending),
        };
        let taken = match sealed.is_closed() {
            true => Ok(()),
            false => sealed.catch_up(cast, place.map_or(0, |place| place.length))?,
        };
        Ok((Self::Sealed(Box::new(sealed)), taken))
    }

    /// Whether it is that of a recording of so many bytes.
    pub(super) fn is_of(&self, length: u64) -> bool {
        matches!(self, Self::Sealed(sealed) if sealed.receiver.received() == length)
    }
}

impl Sealed {
    fn catch_up(&mut self, mut cast: &File, from: u64) -> io::Result<Result<(), Refusal>> {
        cast.seek(SeekFrom::Start(from))?;
        loop {
            let mut piece = Vec::new();
            cast.take(PIECE_BYTES).read_to_end(&mut piece)?;
            if piece.is_empty() {
                return Ok(Ok(()));
            }
            if let Err(refusal) = self.push(&piece) {
                return Ok(Err(refusal));
            }
        }
    }

    /// Takes what follows what it has.
    ///
    /// # Errors
    /// The first place that is wrong; nothing behind it may be kept.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let fresh = &mut self.fresh;
        self.receiver.push(bytes, |position| *fresh = Some(position))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.ending.is_some()
    }

    /// Whose recording it is.
    pub(super) fn node(&self) -> &str {
        self.receiver.node()
    }

    /// Bytes of memory that the line takes which has not come whole.
    pub(super) fn held_bytes(&self) -> usize {
        self.receiver.held_bytes()
    }

    /// What was verified and is not countersigned: it is when it is on the disk for good.
    pub(super) fn signable(&self) -> Option<Position> {
        self.fresh
    }

    /// Signs what was verified up to a place. Call it only when that is on the disk for good: the signature says so. What
    /// was closed meanwhile has all its signatures.
    ///
    /// # Errors
    /// The file cannot be written; the line is written another time then.
    pub(super) fn countersign(
        &mut self,
        path: &Path,
        signer: &EndpointSigningKey,
        (position, now): (&Position, u64),
    ) -> io::Result<()> {
        if self.is_closed() {
            return Ok(());
        }
        let mut next = self.countersigner.clone();
        let line = next.countersign(position, now, |text| signer.sign(text));
        append_line(path, &line)?;
        self.countersigner = next;
        // what came meanwhile is signed with the next
        self.fresh = self.fresh.take_if(|fresh| fresh.record > position.record);
        Ok(())
    }

    /// Writes the last line, unless there is one: what that says stays. Returns how the recording ended. It must be on the
    /// disk for good.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn close(
        &mut self,
        path: &Path,
        signer: &EndpointSigningKey,
        (now, ending): (u64, Ending),
    ) -> io::Result<Ending> {
        if let Some(ending) = self.ending {
            return Ok(ending);
        }
        if let Some(position) = self.fresh {
            self.countersign(path, signer, (&position, now))?;
        }
        if let Some(end) = self.receiver.end() {
            let line = self
                .countersigner
                .close(&end, now, ending, |text| signer.sign(text));
            append_line(path, &line)?;
        }
        self.ending = Some(ending);
        Ok(ending)
    }

    /// Bytes of whole lines: what a closed recording has.
    pub(super) fn whole_bytes(&self) -> Option<u64> {
        self.receiver.end().map(|end| end.length)
    }
}

/// Removes the zeros that a power cut left in the place of what was not synced, and all behind them. They stand behind
/// what was countersigned, since that was on the disk; of a recording without seals, of which nothing is, only the first
/// line is looked at. Returns the length of what is left; `None`: there are no zeros.
///
/// What stands before them stays to the last byte, also of half a line: the node may know that it is on the disk, and
/// have it no more.
///
/// # Errors
/// A file cannot be read or cut.
pub(super) fn cut_at_hole(cast: &File, signatures: &Path) -> io::Result<Option<u64>> {
    let beginning = beginning(cast)?;
    if !beginning.contains(&0) && !is_ours(&beginning) {
        return Ok(None);
    }
    let mut good = signed_length(signatures)?;
    let mut reader = io::BufReader::new(cast);
    reader.seek(SeekFrom::Start(good))?;
    loop {
        let piece = io::BufRead::fill_buf(&mut reader)?;
        if piece.is_empty() {
            return Ok(None);
        }
        if let Some(hole) = piece.iter().position(|byte| *byte == 0) {
            good += hole as u64;
            cast.set_len(good)?;
            cast.sync_data()?;
            return Ok(Some(good));
        }
        let read = piece.len();
        good += read as u64;
        io::BufRead::consume(&mut reader, read);
    }
}

/// How much of a recording the endpoint signed.
///
/// # Errors
/// The file cannot be read.
pub(super) fn signed_length(signatures: &Path) -> io::Result<u64> {
    let last = last_line(signatures)?.as_deref().and_then(endpoint_line);
    Ok(last.map_or(0, |line| line.length))
}

pub(super) fn shorter_than_signed() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "it is shorter than what the endpoint signed of it: put it back from a backup",
    )
}

fn endpoint_line(line: &str) -> Option<EndpointLine> {
    match Line::parse(line.as_bytes()) {
        Ok(Line::Endpoint(line)) => Some(line),
        _ => None,
    }
}

/// What has come of the first line.
fn beginning(mut cast: &File) -> io::Result<Vec<u8>> {
    cast.seek(SeekFrom::Start(0))?;
    let mut line = Vec::new();
    let mut reader = io::BufReader::new(cast.take(MAX_HEADER_BYTES));
    io::BufRead::read_until(&mut reader, b'\n', &mut line)?;
    Ok(line)
}

/// The first line with its line feed; `None`: it has not come whole.
fn first_line(cast: &File) -> io::Result<Option<Vec<u8>>> {
    let line = beginning(cast)?;
    let is_whole = line.ends_with(b"\n") || line.len() as u64 == MAX_HEADER_BYTES;
    Ok(is_whole.then_some(line))
}

/// Whether the agent says that it seals.
fn is_ours(first: &[u8]) -> bool {
    let header: Result<serde_json::Value, _> = serde_json::from_slice(first);
    header.is_ok_and(|header| header.get("moorline").is_some())
}

/// The endpoint's last line, with its line feed. What a power cut left of a line behind it is removed: half of one, or
/// zeros in the place of its begin.
fn last_line(path: &Path) -> io::Result<Option<String>> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let from = length.saturating_sub(2 * LAST_LINE_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    (&file).take(2 * LAST_LINE_BYTES).read_to_end(&mut tail)?;
    let (mut at, mut last) = (0, None);
    for line in tail.split_inclusive(|byte| *byte == b'\n') {
        at += line.len() as u64;
        let text = str::from_utf8(line).ok();
        if let Some(text) = text.filter(|text| endpoint_line(text).is_some()) {
            last = Some((text.to_owned(), from + at));
        }
    }
    if last.is_none() && from > 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "what the endpoint signed is damaged: put it back from a backup",
        ));
    }
    let (line, end) = last.unzip();
    if end.unwrap_or(0) < length {
        file.set_len(end.unwrap_or(0))?;
    }
    Ok(line)
}

/// A line that a crash cut short is no line: see [`last_line`].
fn append_line(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let length = file.metadata()?.len();
    if let Err(error) = file.write_all(line.as_bytes()).and_then(|()| file.sync_data()) {
        file.set_len(length)?;
        return Err(error);
    }
    Ok(())
}
