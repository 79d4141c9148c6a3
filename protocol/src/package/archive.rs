//! Zip files (PKWARE's APPNOTE 6.3), as far as packages need them: no encryption, no splitting, no zip64, and the two
//! methods that everyone writes. What is read is bounded, and no name leads out of the directory that it is unpacked
//! into.

use std::collections::BTreeSet;

/// Entries of an archive.
pub const MAX_ENTRIES: usize = 10_000;
/// All files of an archive together, unpacked, in bytes.
pub const MAX_UNPACKED_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// The end of a file in which its directory is announced.
pub const TAIL_BYTES: u64 = END_BYTES as u64 + u16::MAX as u64;
/// What is read in front of an entry's data, without its name.
pub const LOCAL_HEADER_BYTES: usize = 30;

const MAX_DIRECTORY_BYTES: u64 = 4 * 1024 * 1024;
const MAX_NAME_BYTES: usize = 1024;
const MAX_NAME_PARTS: usize = 32;
const END_BYTES: usize = 22;
const CENTRAL_HEADER_BYTES: usize = 46;
const END_SIGNATURE: [u8; 4] = *b"PK\x05\x06";
const CENTRAL_SIGNATURE: [u8; 4] = *b"PK\x01\x02";
const LOCAL_SIGNATURE: [u8; 4] = *b"PK\x03\x04";
/// The data cannot be read without a password.
const FLAG_ENCRYPTED: u16 = 1;
/// Names are UTF-8.
const FLAG_UTF8: u16 = 1 << 11;
/// Version 2.0 of the format: directories and deflate.
const VERSION: u16 = 20;
/// In "version made by": the mode of a file is in the upper half of its attributes.
const HOST_UNIX: u16 = 3;
const MODE_TYPE: u32 = 0o170_000;
const MODE_FILE: u32 = 0o100_000;
const MODE_DIRECTORY: u32 = 0o040_000;
/// 1 January 1980, the first day that there is: archives of the same files are the same bytes.
const DATE: u16 = 0x21;

/// Why an archive is not unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    #[error("it is no zip file, or it is cut")]
    NoArchive,
    #[error("its directory is damaged")]
    Damaged,
    #[error("it uses zip64 or several disks, which are not read")]
    Unsupported,
    #[error("it has {0} entries; {MAX_ENTRIES} are unpacked")]
    Entries(usize),
    #[error("its directory has {0} bytes; {MAX_DIRECTORY_BYTES} are read")]
    DirectorySize(u64),
    #[error("its files have more than {MAX_UNPACKED_BYTES} bytes")]
    Unpacked,
    #[error("{0:?} is no name that stays in its directory")]
    Name(String),
    #[error("{0:?} is in it twice")]
    Twice(String),
    #[error("{0:?} is neither a file nor a directory")]
    Kind(String),
    #[error("{0:?} is encrypted or packed by a method that is not known: 0 and 8 are")]
    Method(String),
}

/// Where the list of entries is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Directory {
    /// Of its first byte in the file.
    pub offset: u64,
    /// Its length.
    pub bytes: usize,
    entries: usize,
}

/// How data is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Stored,
    /// RFC 1951.
    Deflated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    File,
    Directory,
}

/// A file or directory in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Parts between slashes; none is empty, `.` or `..`.
    pub name: String,
    pub kind: EntryKind,
    pub method: Method,
    /// Bytes in the archive.
    pub packed: u64,
    /// Bytes of the file. More or less than it says is damage.
    pub unpacked: u64,
    pub crc32: u32,
    pub is_executable: bool,
    /// Where its header is.
    pub header_offset: u64,
}

impl Directory {
    /// Finds it from the last [`TAIL_BYTES`] of a file, or all of it.
    ///
    /// # Errors
    /// There is none, or more than is read.
    pub fn find(tail: &[u8], file_bytes: u64) -> Result<Self, ArchiveError> {
        // From the back: the comment may hold anything, but the record says how long it is.
        let end = (0..=tail.len().saturating_sub(END_BYTES))
            .rev()
            .filter_map(|at| tail.get(at..))
            .find(|end| is_end(end))
            .ok_or(ArchiveError::NoArchive)?;
        let (disk, entries) = (u16_at(end, 4), u16_at(end, 10));
        let (bytes, offset) = (u32_at(end, 12), u32_at(end, 16));
        if disk != 0 || u16_at(end, 6) != 0 || u16_at(end, 8) != entries {
            return Err(ArchiveError::Unsupported);
        }
        if entries == u16::MAX || bytes == u32::MAX || offset == u32::MAX {
            return Err(ArchiveError::Unsupported);
        }
        let (bytes, offset) = (u64::from(bytes), u64::from(offset));
        if usize::from(entries) > MAX_ENTRIES {
            return Err(ArchiveError::Entries(entries.into()));
        }
        if bytes > MAX_DIRECTORY_BYTES {
            return Err(ArchiveError::DirectorySize(bytes));
        }
        if offset + bytes > file_bytes {
            return Err(ArchiveError::Damaged);
        }
        Ok(Self {
            offset,
            bytes: usize::try_from(bytes).map_err(|_| ArchiveError::DirectorySize(bytes))?,
            entries: entries.into(),
        })
    }

    /// Reads the entries out of the directory's bytes.
    ///
    /// # Errors
    /// The bytes are no directory, or one that is not unpacked: too much, links, devices, names that lead elsewhere.
    pub fn read(&self, bytes: &[u8]) -> Result<Vec<Entry>, ArchiveError> {
        let mut rest = bytes;
        let mut entries = Vec::with_capacity(self.entries);
        let mut names = BTreeSet::new();
        let mut unpacked: u64 = 0;
        for _ in 0..self.entries {
            let (entry, behind) = read_entry(rest)?;
            rest = behind;
            unpacked += entry.unpacked;
            if unpacked > MAX_UNPACKED_BYTES {
                return Err(ArchiveError::Unpacked);
            }
            if !names.insert(entry.name.clone()) {
                return Err(ArchiveError::Twice(entry.name));
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

impl Entry {
    /// Where its data begins, told by the header at [`Self::header_offset`].
    ///
    /// # Errors
    /// That is no header.
    pub fn data_offset(&self, header: &[u8; LOCAL_HEADER_BYTES]) -> Result<u64, ArchiveError> {
        if !header.starts_with(&LOCAL_SIGNATURE) {
            return Err(ArchiveError::Damaged);
        }
        let behind = u64::from(u16_at(header, 26)) + u64::from(u16_at(header, 28));
        Ok(self.header_offset + LOCAL_HEADER_BYTES as u64 + behind)
    }
}

fn is_end(end: &[u8]) -> bool {
    end.len() >= END_BYTES
        && end.starts_with(&END_SIGNATURE)
        && usize::from(u16_at(end, 20)) == end.len() - END_BYTES
}

fn read_entry(bytes: &[u8]) -> Result<(Entry, &[u8]), ArchiveError> {
    if bytes.len() < CENTRAL_HEADER_BYTES || !bytes.starts_with(&CENTRAL_SIGNATURE) {
        return Err(ArchiveError::Damaged);
    }
    let (header, rest) = bytes.split_at(CENTRAL_HEADER_BYTES);
    let (name_bytes, extra_bytes, comment_bytes) =
        (u16_at(header, 28), u16_at(header, 30), u16_at(header, 32));
    let (name, rest) = rest
        .split_at_checked(name_bytes.into())
        .ok_or(ArchiveError::Damaged)?;
    let behind = usize::from(extra_bytes) + usize::from(comment_bytes);
    let rest = rest.get(behind..).ok_or(ArchiveError::Damaged)?;
    let (packed, unpacked, header_offset) = (u32_at(header, 20), u32_at(header, 24), u32_at(header, 42));
    if [packed, unpacked, header_offset].contains(&u32::MAX) || u16_at(header, 34) != 0 {
        return Err(ArchiveError::Unsupported);
    }
    let shown = String::from_utf8_lossy(name).into_owned();
    let mode = match u16_at(header, 4) >> 8 {
        HOST_UNIX => u32_at(header, 38) >> 16,
        _ => 0,
    };
    let is_directory = name.ends_with(b"/");
    let kind = match (mode & MODE_TYPE, is_directory) {
        (0 | MODE_FILE, false) => EntryKind::File,
        (0 | MODE_DIRECTORY, true) => EntryKind::Directory,
        _ => return Err(ArchiveError::Kind(shown)),
    };
    let method = match (u16_at(header, 10), u16_at(header, 8) & FLAG_ENCRYPTED) {
        (0, 0) if packed == unpacked => Method::Stored,
        (8, 0) => Method::Deflated,
        _ => return Err(ArchiveError::Method(shown)),
    };
    let name = safe_name(name).ok_or(ArchiveError::Name(shown))?;
    let entry = Entry {
        name,
        kind,
        method,
        packed: packed.into(),
        unpacked: unpacked.into(),
        crc32: u32_at(header, 16),
        is_executable: mode & 0o111 != 0,
        header_offset: header_offset.into(),
    };
    Ok((entry, rest))
}

/// A name that stays in its directory, without the slash at a directory's end.
fn safe_name(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let name = name.strip_suffix('/').unwrap_or(name);
    let is_safe = name.len() <= MAX_NAME_BYTES
        && !name.contains(['\0', '\\'])
        && name.split('/').count() <= MAX_NAME_PARTS
        && name
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && part.len() <= 255);
    is_safe.then(|| name.to_owned())
}

/// What is known of a file that was packed.
#[derive(Debug, Clone, Copy)]
struct Packed {
    method: Method,
    crc32: u32,
    packed: u32,
    unpacked: u32,
    mode: u32,
}

/// Makes the headers of an archive; the caller packs the data and writes everything.
#[derive(Debug, Default)]
pub struct ArchiveWriter {
    directory: Vec<u8>,
    entries: usize,
    offset: u64,
}

impl ArchiveWriter {
    /// The header of the next file, whose deflated data is to follow: it is as long whatever the numbers are.
    ///
    /// # Errors
    /// The name would not be unpacked, or there is more of something than is unpacked.
    pub fn file(
        &mut self,
        name: &str,
        is_executable: bool,
        crc32: u32,
        (packed, unpacked): (u64, u64),
    ) -> Result<Vec<u8>, ArchiveError> {
        if safe_name(name.as_bytes()).as_deref() != Some(name) {
            return Err(ArchiveError::Name(name.to_owned()));
        }
        let size = |bytes: u64| u32::try_from(bytes).map_err(|_| ArchiveError::Unpacked);
        let file = Packed {
            method: Method::Deflated,
            crc32,
            packed: size(packed)?,
            unpacked: size(unpacked)?,
            mode: MODE_FILE | if is_executable { 0o755 } else { 0o644 },
        };
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(ArchiveError::Entries(self.entries));
        }
        let offset = size(self.offset)?;
        let mut header = LOCAL_SIGNATURE.to_vec();
        push_common(&mut header, name, &file);
        header.extend([0, 0]);
        header.extend(name.as_bytes());
        self.directory.extend(CENTRAL_SIGNATURE);
        self.directory.extend((HOST_UNIX << 8 | VERSION).to_le_bytes());
        push_common(&mut self.directory, name, &file);
        // no extra field, no comment, first disk, no internal attributes
        self.directory.extend([0; 8]);
        self.directory.extend((file.mode << 16).to_le_bytes());
        self.directory.extend(offset.to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.offset += header.len() as u64 + packed;
        Ok(header)
    }

    /// What stands at the end of the archive.
    ///
    /// # Errors
    /// It is larger than is unpacked.
    pub fn finish(mut self) -> Result<Vec<u8>, ArchiveError> {
        let size = |bytes: u64| u32::try_from(bytes).map_err(|_| ArchiveError::Unpacked);
        let bytes = size(self.directory.len() as u64)?;
        let entries = u16::try_from(self.entries).map_err(|_| ArchiveError::Entries(self.entries))?;
        self.directory.extend(END_SIGNATURE);
        self.directory.extend([0; 4]);
        self.directory.extend(entries.to_le_bytes());
        self.directory.extend(entries.to_le_bytes());
        self.directory.extend(bytes.to_le_bytes());
        self.directory.extend(size(self.offset)?.to_le_bytes());
        self.directory.extend([0; 2]);
        Ok(self.directory)
    }
}

/// What both headers of a file have, up to the length of its name.
fn push_common(header: &mut Vec<u8>, name: &str, file: &Packed) {
    let method: u16 = match file.method {
        Method::Stored => 0,
        Method::Deflated => 8,
    };
    for number in [VERSION, FLAG_UTF8, method, 0, DATE] {
        header.extend(number.to_le_bytes());
    }
    for number in [file.crc32, file.packed, file.unpacked] {
        header.extend(number.to_le_bytes());
    }
    // A safe name is far shorter.
    header.extend(u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let found = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    found.copied().map_or(0, u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    found.copied().map_or(0, u32::from_le_bytes)
}

#[cfg(test)]
mod tests;
