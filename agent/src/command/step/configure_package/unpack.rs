//! The archive of a package into a directory of its own, within the bounds of `moorline_protocol::package`.

use std::{
    collections::BTreeSet,
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
    #[error("it was stopped")]
    Stopped,
}

/// Unpacks into a directory, which appears under its name only when it is whole, and on disk: whoever finds it there
/// after a power cut need not look into it. `is_stopped` is asked again and again.
///
/// # Errors
/// The archive is refused before anything is written, or is not what its directory says. Nothing of it stays.
pub(super) fn unpack(
    archive: &mut File,
    directory: &Path,
    is_stopped: &dyn Fn() -> bool,
) -> Result<(), UnpackError> {
    let entries = entries(archive)?;
    let mut unfinished = directory.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&unfinished)(error)),
        _ => {}
    }
    let unpacked = write_all(archive, &entries, &unfinished, is_stopped).and_then(|()| {
        fs::rename(&unfinished, directory).map_err(failed(directory))?;
        directory.parent().map_or(Ok(()), sync_directory)
    });
    if unpacked.is_err() {
        // What cannot be removed goes with the package's next clean-up.
        drop(fs::remove_dir_all(&unfinished));
    }
    unpacked
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> UnpackError {
    let path = path.to_owned();
    |source| UnpackError::Write { path, source }
}

/// Everything, on disk when this returns, but for the name of `directory` itself.
fn write_all(
    archive: &mut File,
    entries: &[Entry],
    directory: &Path,
    is_stopped: &dyn Fn() -> bool,
) -> Result<(), UnpackError> {
    make_private_directory(directory).map_err(failed(directory))?;
    let mut directories = BTreeSet::from([directory.to_owned()]);
    for entry in entries {
        if is_stopped() {
            return Err(UnpackError::Stopped);
        }
        let path = directory.join(&entry.name);
        let deepest = match entry.kind {
            EntryKind::Directory => Some(path.as_path()),
            EntryKind::File => path.parent(),
        };
        if let Some(deepest) = deepest {
            make_private_directory(deepest).map_err(failed(deepest))?;
            let made = deepest.ancestors().take_while(|made| *made != directory);
            directories.extend(made.map(Path::to_owned));
        }
        if entry.kind == EntryKind::File {
            write_file(archive, entry, &path, is_stopped)?;
        }
    }
    directories
        .iter()
        .try_for_each(|directory| sync_directory(directory))
}

fn sync_directory(path: &Path) -> Result<(), UnpackError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(failed(path))
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

fn write_file(
    archive: &mut File,
    entry: &Entry,
    path: &Path,
    is_stopped: &dyn Fn() -> bool,
) -> Result<(), UnpackError> {
    let mut header = [0; LOCAL_HEADER_BYTES];
    let data = archive
        .seek(SeekFrom::Start(entry.header_offset))
        .and_then(|_| archive.read_exact(&mut header))
        .map_err(UnpackError::Read)
        .and_then(|()| Ok(entry.data_offset(&header)?))?;
    archive.seek(SeekFrom::Start(data)).map_err(UnpackError::Read)?;
    let mode = if entry.is_executable { 0o700 } else { 0o600 };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(failed(path))?;
    let packed = archive.take(entry.packed);
    let mut write = |piece: &[u8]| match is_stopped() {
        true => Err(UnpackError::Stopped),
        false => file.write_all(piece).map_err(failed(path)),
    };
    match entry.method {
        Method::Stored => copy(packed, entry, &mut write)?,
        Method::Deflated => copy(DeflateDecoder::new(packed), entry, &mut write)?,
    }
    file.sync_all().map_err(failed(path))
}

/// Exactly the bytes that were announced: an archive that unfolds to more is one made to fill the disk.
fn copy(
    from: impl Read,
    entry: &Entry,
    write: &mut dyn FnMut(&[u8]) -> Result<(), UnpackError>,
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
        write(piece)?;
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
        unpack(&mut file, &to, &|| false).unwrap();
        assert_eq!(fs::read(to.join("install.sh")).unwrap(), b"true");
        assert_eq!(fs::read(to.join("lib/deep/data")).unwrap(), long);
        let mode = |name| fs::metadata(to.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("install.sh"), mode("lib/deep/data")), (0o700, 0o600));
    }

    #[test]
    fn what_is_stopped_in_the_middle_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("package");
        let members = [member("a/b.txt", "1"), member("c.txt", vec![b'x'; 10_000_000])];
        let asked = std::cell::Cell::new(0);
        let stopped = unpack(&mut archive(&members), &to, &|| {
            asked.replace(asked.get() + 1) > 3
        });
        assert!(matches!(stopped, Err(UnpackError::Stopped)), "{stopped:?}");
        assert!(asked.get() > 3 && is_empty(dir.path()));
    }

    fn is_empty(directory: &Path) -> bool {
        fs::read_dir(directory).unwrap().next().is_none()
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
            let error = unpack(&mut archive(&[member]), &to, &|| false)
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error}");
            assert!(is_empty(dir.path()), "{expected}");
        }
        let twice = [member("a.txt", "1"), member("a.txt/b", "2")];
        assert!(matches!(
            unpack(&mut archive(&twice), &to, &|| false),
            Err(UnpackError::Write { .. })
        ));
        assert!(is_empty(dir.path()));
        let mut cut = archive(&[member("a.txt", "1")]);
        let length = cut.metadata().unwrap().len();
        cut.set_len(length - 1).unwrap();
        assert!(matches!(
            unpack(&mut cut, &to, &|| false),
            Err(UnpackError::Archive(_))
        ));
        unpack(&mut archive(&[member("a.txt", "1")]), &to, &|| false).unwrap();
    }
}
