//! The archive of a package into a directory of its own, within the bounds of `moorline_protocol::package`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use flate2::{CrcReader, read::DeflateDecoder};
use moorline_protocol::package::{
    ArchiveError, Directory, Entry, EntryKind, LOCAL_HEADER_BYTES, Method, TAIL_BYTES,
};

use super::super::make_private_directory;

/// Why a package was not unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    #[error("the archive is refused")]
    Archive(#[from] ArchiveError),
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    #[error("{name} in the archive is damaged: {reason}")]
    Entry { name: String, reason: &'static str },
    #[error("failed to write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Unpacks into a directory, which appears under its name only when it is whole.
///
/// # Errors
/// The archive is refused before anything is written, or is not what its directory says.
pub(super) fn unpack(archive: &mut File, directory: &Path) -> Result<(), UnpackError> {
    let entries = entries(archive)?;
    let mut unfinished = directory.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| UnpackError::Write { path, source }
    };
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&unfinished)(error)),
        _ => {}
    }
    make_private_directory(&unfinished).map_err(failed(&unfinished))?;
    for entry in &entries {
        let path = unfinished.join(&entry.name);
        match entry.kind {
            EntryKind::Directory => make_private_directory(&path).map_err(failed(&path))?,
            EntryKind::File => {
                if let Some(above) = path.parent() {
                    make_private_directory(above).map_err(failed(above))?;
                }
                write_file(archive, entry, &path)?;
            }
        }
    }
    fs::rename(&unfinished, directory).map_err(failed(directory))
}

fn entries(archive: &mut File) -> Result<Vec<Entry>, UnpackError> {
    let read = |archive: &mut File, offset: u64, bytes: usize| -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; bytes];
        archive.seek(SeekFrom::Start(offset))?;
        archive.read_exact(&mut buffer)?;
        Ok(buffer)
    };
    let length = archive.metadata().map_err(UnpackError::Read)?.len();
    let tail_bytes = length.min(TAIL_BYTES);
    // It is below 64 KiB and a few bytes.
    let tail = read(
        archive,
        length - tail_bytes,
        usize::try_from(tail_bytes).unwrap_or_default(),
    );
    let directory = Directory::find(&tail.map_err(UnpackError::Read)?, length)?;
    let bytes = read(archive, directory.offset, directory.bytes).map_err(UnpackError::Read)?;
    Ok(directory.read(&bytes)?)
}

fn write_file(archive: &mut File, entry: &Entry, path: &Path) -> Result<(), UnpackError> {
    let mut header = [0; LOCAL_HEADER_BYTES];
    let data = archive
        .seek(SeekFrom::Start(entry.header_offset))
        .and_then(|_| archive.read_exact(&mut header))
        .map_err(UnpackError::Read)
        .and_then(|()| Ok(entry.data_offset(&header)?))?;
    archive.seek(SeekFrom::Start(data)).map_err(UnpackError::Read)?;
    let write_failed = |source| UnpackError::Write {
        path: path.to_owned(),
        source,
    };
    let mode = if entry.is_executable { 0o700 } else { 0o600 };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(write_failed)?;
    let packed = archive.take(entry.packed);
    match entry.method {
        Method::Stored => copy(packed, file, entry, write_failed),
        Method::Deflated => copy(DeflateDecoder::new(packed), file, entry, write_failed),
    }
}

/// Exactly the bytes that were announced: an archive that unfolds to more is one made to fill the disk.
fn copy(
    from: impl Read,
    mut to: File,
    entry: &Entry,
    write_failed: impl FnOnce(io::Error) -> UnpackError,
) -> Result<(), UnpackError> {
    let damaged = |reason| UnpackError::Entry {
        name: entry.name.clone(),
        reason,
    };
    let mut from = CrcReader::new(from.take(entry.unpacked + 1));
    let mut buffer = vec![0; 64 * 1024];
    let mut bytes = 0;
    loop {
        let count = from
            .read(&mut buffer)
            .map_err(|_| damaged("it cannot be unpacked"))?;
        let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else {
            break;
        };
        bytes += piece.len() as u64;
        if bytes > entry.unpacked {
            return Err(damaged("it is larger than the archive says"));
        }
        if let Err(error) = to.write_all(piece) {
            return Err(write_failed(error));
        }
    }
    match (bytes == entry.unpacked, from.crc().sum() == entry.crc32) {
        (true, true) => Ok(()),
        (false, _) => Err(damaged("it is smaller than the archive says")),
        (true, false) => Err(damaged("its checksum is another")),
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, Crc, write::DeflateEncoder};
    use moorline_protocol::package::ArchiveWriter;

    use super::*;

    /// A file of an archive, and what the archive says of it: size and checksum, if not the right ones.
    struct Member {
        name: &'static str,
        content: Vec<u8>,
        said_bytes: Option<u64>,
        said_crc: Option<u32>,
    }

    fn member(name: &'static str, content: impl Into<Vec<u8>>) -> Member {
        Member {
            name,
            content: content.into(),
            said_bytes: None,
            said_crc: None,
        }
    }

    fn archive(members: &[Member]) -> File {
        let mut writer = ArchiveWriter::default();
        let mut file = tempfile::tempfile().unwrap();
        for member in members {
            let mut packed = DeflateEncoder::new(Vec::new(), Compression::best());
            packed.write_all(&member.content).unwrap();
            let packed = packed.finish().unwrap();
            let mut crc = Crc::new();
            crc.update(&member.content);
            let header = writer.file(
                member.name,
                member.name.ends_with(".sh"),
                member.said_crc.unwrap_or_else(|| crc.sum()),
                (
                    packed.len() as u64,
                    member.said_bytes.unwrap_or(member.content.len() as u64),
                ),
            );
            file.write_all(&header.unwrap()).unwrap();
            file.write_all(&packed).unwrap();
        }
        file.write_all(&writer.finish().unwrap()).unwrap();
        file
    }

    #[test]
    fn files_come_out_as_they_went_in_and_scripts_can_be_run() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("package");
        let long = vec![b'x'; 1_000_000];
        let mut file = archive(&[
            member("install.sh", "true"),
            member("lib/deep/data", long.clone()),
        ]);
        unpack(&mut file, &to).unwrap();
        assert_eq!(fs::read(to.join("install.sh")).unwrap(), b"true");
        assert_eq!(fs::read(to.join("lib/deep/data")).unwrap(), long);
        let mode = |name| fs::metadata(to.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("install.sh"), mode("lib/deep/data")), (0o700, 0o600));
    }

    #[test]
    fn what_is_not_as_announced_leaves_no_package() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("package");
        let bomb = Member {
            said_bytes: Some(10),
            ..member("a.txt", vec![0; 50_000_000])
        };
        let short = Member {
            said_bytes: Some(10),
            ..member("a.txt", "short")
        };
        let other = Member {
            said_crc: Some(7),
            ..member("a.txt", "other")
        };
        for (member, expected) in [(bomb, "larger"), (short, "smaller"), (other, "checksum")] {
            let error = unpack(&mut archive(&[member]), &to).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!to.exists());
        }
        let twice = [member("a.txt", "1"), member("a.txt/b", "2")];
        assert!(matches!(
            unpack(&mut archive(&twice), &to),
            Err(UnpackError::Write { .. })
        ));
        let mut cut = archive(&[member("a.txt", "1")]);
        let length = cut.metadata().unwrap().len();
        cut.set_len(length - 1).unwrap();
        assert!(matches!(unpack(&mut cut, &to), Err(UnpackError::Archive(_))));
        unpack(&mut archive(&[member("a.txt", "1")]), &to).unwrap();
    }
}
