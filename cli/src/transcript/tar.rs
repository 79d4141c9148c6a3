//! Writes a tar archive (POSIX.1-1988 ustar) of regular files, one of which may be of a length that is known only at
//! its end.

use std::io::{self, Read, Seek, SeekFrom, Write};

const BLOCK: u64 = 512;
type Block = [u8; 512];
const EMPTY: Block = [0; 512];
/// What the header's field of eleven octal digits holds.
const MAX_BYTES: u64 = 0o777_7777_7777;
const NAME: usize = 100;

/// An archive that is being written.
#[derive(Debug)]
pub(super) struct Archive<W> {
    out: W,
    /// Seconds since 1970, of each file.
    modified: u64,
}

impl<W: Write + Seek> Archive<W> {
    pub(super) fn new(out: W, modified: u64) -> Self {
        Self { out, modified }
    }

    /// Adds a file.
    pub(super) fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let begun = self.begin()?;
        self.out.write_all(content)?;
        self.end(name, begun)
    }

    /// Begins a file, whose content is then written to [`Archive::out`].
    pub(super) fn begin(&mut self) -> io::Result<u64> {
        let begun = self.out.stream_position()?;
        self.out.write_all(&EMPTY)?;
        Ok(begun)
    }

    /// Where the content of a file goes.
    pub(super) fn out(&mut self) -> &mut W {
        &mut self.out
    }

    /// Ends a file that begins where [`Archive::begin`] said.
    pub(super) fn end(&mut self, name: &str, begun: u64) -> io::Result<()> {
        let end = self.out.stream_position()?;
        let length = end - begun - BLOCK;
        let header = header(name, length, self.modified)?;
        self.out.seek(SeekFrom::Start(begun))?;
        self.out.write_all(&header)?;
        self.out.seek(SeekFrom::Start(end))?;
        let padding = length.next_multiple_of(BLOCK) - length;
        io::copy(&mut io::repeat(0).take(padding), &mut self.out)?;
        Ok(())
    }

    /// Ends the archive; where it is.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&EMPTY)?;
        self.out.write_all(&EMPTY)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

fn header(name: &str, length: u64, modified: u64) -> io::Result<Block> {
    if name.len() > NAME || length > MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too long for a tar archive",
        ));
    }
    let mut header = EMPTY;
    let mut put = |at: usize, field: &[u8]| {
        for (to, from) in header.iter_mut().skip(at).zip(field) {
            *to = *from;
        }
    };
    put(0, name.as_bytes());
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{length:011o}\0").as_bytes());
    put(136, format!("{:011o}\0", modified.min(MAX_BYTES)).as_bytes());
    // the checksum counts its own field as blanks
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    for (to, from) in header.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()) {
        *to = from;
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    #[test]
    fn tar_reads_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        let mut archive = Archive::new(fs::File::create(&path).unwrap(), 1_795_000_000);
        let long = vec![b'x'; 1024];
        archive.add("transcript/empty", b"").unwrap();
        let begun = archive.begin().unwrap();
        archive.out().write_all(&long).unwrap();
        archive.out().write_all(b"y").unwrap();
        archive.end("transcript/long", begun).unwrap();
        archive.add("transcript/short", b"short\n").unwrap();
        archive.finish().unwrap();
        let mut other = Archive::new(io::Cursor::new(Vec::new()), 0);
        assert!(other.add(&"n".repeat(101), b"").is_err());
        let status = Command::new("tar")
            .arg("-xf")
            .arg(&path)
            .arg("-C")
            .arg(folder.path())
            .status();
        assert!(status.unwrap().success());
        let read = |name: &str| fs::read(folder.path().join("transcript").join(name)).unwrap();
        assert_eq!(read("empty"), b"");
        assert_eq!(read("long"), [&long[..], b"y"].concat());
        assert_eq!(read("short"), b"short\n");
    }
}
