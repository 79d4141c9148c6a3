//! A recording that is compressed so that a part can be read without what stands before it: zstd in frames, and a
//! table of them at the end. It is zstd's own seekable format (`contrib/seekable_format` of its source, version 0.1.0),
//! so `zstd -d` opens it without us.

use std::io::{self, Read, Write};

use moorline_protocol::transcript::{Digest, MAX_RECORDING_BYTES};
use ring::digest::{Context, SHA256};

/// Bytes of the recording in one frame.
const FRAME_BYTES: usize = 1024 * 1024;
/// What the largest recording has.
const MOST_FRAMES: usize = 4096;
const _: () = assert!(MAX_RECORDING_BYTES == (FRAME_BYTES * MOST_FRAMES) as u64);
/// Quick, and text becomes a tenth or so.
const LEVEL: i32 = 3;
const TABLE_MAGIC: [u8; 4] = 0x184D_2A5E_u32.to_le_bytes();
const SEEKABLE_MAGIC: [u8; 4] = 0x8F92_EAB1_u32.to_le_bytes();
/// Magic and size of the frame that holds the table.
const HEAD_BYTES: usize = 8;
/// Compressed and plain size of one frame.
const ENTRY_BYTES: usize = 8;
/// Number of frames, a descriptor, magic.
const FOOT_BYTES: usize = 9;
/// The table is within the last bytes, so many.
pub(super) const MOST_TABLE_BYTES: usize = HEAD_BYTES + MOST_FRAMES * ENTRY_BYTES + FOOT_BYTES;

/// What is in a recording, to know it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    /// In bytes.
    pub(crate) length: u64,
    /// SHA-256.
    pub(crate) hash: Digest,
}

/// Adds up a [`Content`].
pub(super) struct Sum {
    length: u64,
    hash: Context,
}

impl Sum {
    pub(super) fn new() -> Self {
        Self {
            length: 0,
            hash: Context::new(&SHA256),
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
    }

    pub(super) fn finish(self) -> Content {
        let hash = self.hash.finish();
        let bytes = hash.as_ref().try_into().unwrap_or_default();
        Content {
            length: self.length,
            hash: Digest(bytes),
        }
    }
}

/// One frame: where it is in the compressed file, and what it stands for in the recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) stored_at: u64,
    pub(super) stored_bytes: usize,
    pub(super) begin: u64,
    plain_bytes: usize,
}

impl Frame {
    fn end(&self) -> u64 {
        self.begin + self.plain_bytes as u64
    }

    /// # Errors
    /// It is no zstd, or not of the size that the table says.
    pub(super) fn open(&self, stored: &[u8]) -> io::Result<Vec<u8>> {
        let plain = zstd::bulk::decompress(stored, self.plain_bytes)?;
        if plain.len() != self.plain_bytes {
            return Err(malformed("a frame is shorter than its table says"));
        }
        Ok(plain)
    }
}

/// The frames, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeekTable(Vec<Frame>);

impl SeekTable {
    /// Reads the table out of the file's last bytes, [`MOST_TABLE_BYTES`] or all; `stored` is the file's length.
    ///
    /// # Errors
    /// There is none, or it does not fit the file.
    pub(super) fn parse(tail: &[u8], stored: u64) -> io::Result<Self> {
        let not_ours = || malformed("the file does not end with a table of frames");
        let (rest, foot) = tail.split_last_chunk::<FOOT_BYTES>().ok_or_else(not_ours)?;
        let [a, b, c, d, 0, magic @ ..] = *foot else {
            return Err(not_ours());
        };
        let count = u32::from_le_bytes([a, b, c, d]) as usize;
        if magic != SEEKABLE_MAGIC || count > MOST_FRAMES {
            return Err(not_ours());
        }
        let table_bytes = HEAD_BYTES + count * ENTRY_BYTES;
        let at = rest.len().checked_sub(table_bytes).ok_or_else(not_ours)?;
        let (head, entries) = rest.get(at..).unwrap_or_default().split_at(HEAD_BYTES);
        if head != table_head(count) {
            return Err(not_ours());
        }
        let (mut stored_at, mut begin) = (0, 0);
        let mut frames = Vec::with_capacity(count);
        for entry in entries.as_chunks::<ENTRY_BYTES>().0 {
            let [a, b, c, d, e, f, g, h] = *entry;
            let stored_bytes = u32::from_le_bytes([a, b, c, d]) as usize;
            let plain_bytes = u32::from_le_bytes([e, f, g, h]) as usize;
            if plain_bytes > FRAME_BYTES || stored_bytes > zstd::zstd_safe::compress_bound(FRAME_BYTES) {
                return Err(malformed("the table has a frame that is larger than any of ours"));
            }
            let frame = Frame {
                stored_at,
                stored_bytes,
                begin,
                plain_bytes,
            };
            stored_at += stored_bytes as u64;
            begin = frame.end();
            frames.push(frame);
        }
        if stored_at + (table_bytes + FOOT_BYTES) as u64 != stored {
            return Err(malformed("the table does not fit the length of the file"));
        }
        Ok(Self(frames))
    }

    /// Of the recording, in bytes.
    pub(super) fn length(&self) -> u64 {
        self.0.last().map_or(0, Frame::end)
    }

    pub(super) fn frames(&self) -> &[Frame] {
        &self.0
    }

    /// The frames that hold these bytes of the recording.
    pub(super) fn covering(&self, offset: u64, limit: u64) -> &[Frame] {
        let end = offset.saturating_add(limit);
        let from = self.0.partition_point(|frame| frame.end() <= offset);
        let to = self.0.partition_point(|frame| frame.begin < end);
        self.0.get(from..to).unwrap_or_default()
    }
}

/// What of `plain`, which begins at `begin`, lies in these bytes of the recording.
pub(super) fn part_of(plain: &[u8], begin: u64, offset: u64, limit: u64) -> &[u8] {
    let place = |at: u64| usize::try_from(at.saturating_sub(begin)).unwrap_or(usize::MAX);
    let to = place(offset.saturating_add(limit)).min(plain.len());
    plain.get(place(offset).min(to)..to).unwrap_or_default()
}

/// Compresses a recording; what it was.
///
/// # Errors
/// Reading or writing fails, or the recording is larger than any.
pub(super) fn pack(plain: &mut impl Read, packed: &mut impl Write) -> io::Result<Content> {
    let mut sum = Sum::new();
    let mut entries = Vec::new();
    let mut piece = Vec::with_capacity(FRAME_BYTES);
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    // a disk that rots is told when it is read
    compressor.include_checksum(true)?;
    let mut count = 0;
    loop {
        piece.clear();
        plain.by_ref().take(FRAME_BYTES as u64).read_to_end(&mut piece)?;
        if piece.is_empty() {
            break;
        }
        count += 1;
        if count > MOST_FRAMES {
            return Err(malformed("the recording is larger than any is kept"));
        }
        sum.push(&piece);
        let frame = compressor.compress(&piece)?;
        packed.write_all(&frame)?;
        entries.extend_from_slice(&field(frame.len()));
        entries.extend_from_slice(&field(piece.len()));
    }
    packed.write_all(&table_head(count))?;
    packed.write_all(&entries)?;
    packed.write_all(&field(count))?;
    packed.write_all(&[0])?;
    packed.write_all(&SEEKABLE_MAGIC)?;
    Ok(sum.finish())
}

fn table_head(count: usize) -> [u8; HEAD_BYTES] {
    let [a, b, c, d] = TABLE_MAGIC;
    let [e, f, g, h] = field(count * ENTRY_BYTES + FOOT_BYTES);
    [a, b, c, d, e, f, g, h]
}

fn field(size: usize) -> [u8; 4] {
    u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes()
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(plain: &[u8]) -> (Vec<u8>, Content) {
        let mut bytes = Vec::new();
        let content = pack(&mut &*plain, &mut bytes).unwrap();
        (bytes, content)
    }

    fn table(packed: &[u8]) -> io::Result<SeekTable> {
        let tail = packed.len().saturating_sub(MOST_TABLE_BYTES);
        SeekTable::parse(&packed[tail..], packed.len() as u64)
    }

    fn read(packed: &[u8], offset: u64, limit: u64) -> Vec<u8> {
        let table = table(packed).unwrap();
        let mut out = Vec::new();
        for frame in table.covering(offset, limit) {
            let at = usize::try_from(frame.stored_at).unwrap();
            let plain = frame.open(&packed[at..at + frame.stored_bytes]).unwrap();
            out.extend_from_slice(part_of(&plain, frame.begin, offset, limit));
        }
        out
    }

    /// Text of this many bytes that does not repeat within a frame.
    fn text(bytes: usize) -> Vec<u8> {
        (0..)
            .flat_map(|n: u64| n.to_string().into_bytes())
            .take(bytes)
            .collect()
    }

    #[test]
    fn any_zstd_opens_what_was_packed() {
        for size in [0, 1, FRAME_BYTES, 2 * FRAME_BYTES + 17] {
            let plain = text(size);
            let (packed, content) = packed(&plain);
            assert_eq!(zstd::stream::decode_all(&*packed).unwrap(), plain);
            assert_eq!(content.length, size as u64);
            assert_eq!(table(&packed).unwrap().length(), size as u64);
        }
        let abc = packed(b"abc").1.hash.to_string();
        assert_eq!(
            abc,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn every_part_is_read_as_it_was(
            size in 0_usize..3 * FRAME_BYTES, offset in 0_u64..4_000_000, limit in 0_u64..3_000_000
        ) {
            let plain = text(size);
            let from = usize::try_from(offset).unwrap().min(size);
            let to = usize::try_from(offset + limit).unwrap().min(size);
            prop_assert!(read(&packed(&plain).0, offset, limit) == plain[from..to.max(from)]);
        }

        #[test]
        fn a_file_that_is_none_of_ours_is_refused(tail in prop::collection::vec(any::<u8>(), 0..200), stored in any::<u64>()) {
            prop_assert!(SeekTable::parse(&tail, stored).is_err());
        }
    }

    #[test]
    fn a_file_that_was_changed_or_cut_is_refused_or_found_at_reading() {
        let plain = text(FRAME_BYTES + 1000);
        let (packed, _) = packed(&plain);
        for cut in [1, 9, 10, packed.len() - 1, packed.len()] {
            assert!(
                table(&packed[..packed.len() - cut]).is_err(),
                "without its last {cut} bytes"
            );
        }
        for at in (0..packed.len())
            .step_by(997)
            .chain(packed.len() - 33..packed.len())
        {
            let mut changed = packed.clone();
            changed[at] ^= 1;
            let Ok(table) = table(&changed) else { continue };
            let opened = table.frames().iter().try_for_each(|frame| {
                let from = usize::try_from(frame.stored_at).unwrap();
                frame.open(&changed[from..from + frame.stored_bytes]).map(drop)
            });
            assert!(opened.is_err(), "byte {at}");
        }
    }
}
