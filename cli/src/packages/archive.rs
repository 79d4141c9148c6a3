//! A folder as a zip file. The same files make the same bytes, whenever and by whomever it is made.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use flate2::{Compression, Crc, write::DeflateEncoder};
use moorline_protocol::package::{ArchiveError, ArchiveWriter, MAX_ENTRIES};

use crate::{error::CliError, output_file::OutputFile};

/// What a package cannot do without.
const NEEDED: &str = "install.sh";
/// Folders in each other.
const MAX_DEPTH: usize = 16;

/// Writes the files of `folder` and below, in the order of their names.
pub(super) fn write(folder: &Path, archive: &mut OutputFile) -> Result<(), CliError> {
    if !folder.join(NEEDED).is_file() {
        return Err(CliError::Usage(format!(
            "{} has no {NEEDED}, so no node could install it",
            folder.display()
        )));
    }
    let mut files = Vec::new();
    collect(folder, "", 0, &mut files)?;
    files.sort();
    let mut writer = ArchiveWriter::default();
    for (name, path) in files {
        add(&mut writer, archive, &name, &path)?;
    }
    let end = writer.finish().map_err(|error| refused(&error))?;
    archive
        .write_all(&end)
        .map_err(|source| CliError::io("write the archive", source))
}

fn collect(
    folder: &Path,
    prefix: &str,
    depth: usize,
    files: &mut Vec<(String, PathBuf)>,
) -> Result<(), CliError> {
    let failed = |source| CliError::io(format!("read {}", folder.display()), source);
    if depth > MAX_DEPTH {
        return Err(CliError::Usage(format!("{} is too deep", folder.display())));
    }
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let name = entry.file_name();
        let name = name
            .to_str()
            .ok_or_else(|| CliError::Usage(format!("{} has a name that is not UTF-8", path.display())))?;
        let name = format!("{prefix}{name}");
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            collect(&path, &format!("{name}/"), depth + 1, files)?;
        } else if kind.is_file() {
            files.push((name, path));
        } else {
            return Err(CliError::Usage(format!(
                "{} is neither a file nor a folder, and nodes unpack nothing else",
                path.display()
            )));
        }
        if files.len() > MAX_ENTRIES {
            return Err(refused(&ArchiveError::Entries(files.len())));
        }
    }
    Ok(())
}

/// The header comes first, and is known last: it is written again when the data is there.
fn add(
    writer: &mut ArchiveWriter,
    archive: &mut OutputFile,
    name: &str,
    path: &Path,
) -> Result<(), CliError> {
    let failed = |source| CliError::io(format!("pack {}", path.display()), source);
    let mut pack = || -> io::Result<Result<(), ArchiveError>> {
        let file = File::open(path)?;
        let is_executable = file.metadata()?.permissions().mode() & 0o111 != 0;
        let begin = archive.stream_position()?;
        let mut sizes = ArchiveWriter::default();
        let header_bytes = match sizes.file(name, is_executable, 0, (0, 0)) {
            Ok(header) => header.len() as u64,
            Err(error) => return Ok(Err(error)),
        };
        archive.seek(SeekFrom::Start(begin + header_bytes))?;
        let mut packed = DeflateEncoder::new(&mut *archive, Compression::default());
        let mut crc = Crc::new();
        let mut unpacked = 0;
        let mut from = BufReader::new(file);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = from.read(&mut buffer)?;
            let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else {
                break;
            };
            crc.update(piece);
            unpacked += count as u64;
            packed.write_all(piece)?;
        }
        packed.finish()?;
        let end = archive.stream_position()?;
        let packed = end - begin - header_bytes;
        let header = match writer.file(name, is_executable, crc.sum(), (packed, unpacked)) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        archive.seek(SeekFrom::Start(begin))?;
        archive.write_all(&header)?;
        archive.seek(SeekFrom::Start(end))?;
        Ok(Ok(()))
    };
    pack().map_err(failed)?.map_err(|error| refused(&error))
}

fn refused(error: &ArchiveError) -> CliError {
    CliError::Usage(format!("the package would be refused: {error}"))
}
