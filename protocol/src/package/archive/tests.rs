use super::*;

/// An archive of empty files, and where the entry of the first begins in it.
fn archive(names: &[&str]) -> (Vec<u8>, usize) {
    let mut writer = ArchiveWriter::default();
    let mut bytes = Vec::new();
    for name in names {
        // an empty deflated stream has two bytes
        bytes.extend(writer.file(name, false, 0, (2, 0)).unwrap());
        bytes.extend([3, 0]);
    }
    let directory = bytes.len();
    bytes.extend(writer.finish().unwrap());
    (bytes, directory)
}

fn read(bytes: &[u8]) -> Result<Vec<Entry>, ArchiveError> {
    let directory = Directory::find(bytes, bytes.len() as u64)?;
    let at = usize::try_from(directory.offset).unwrap();
    directory.read(&bytes[at..at + directory.bytes])
}

fn patched(at: usize, with: &[u8]) -> Result<Vec<Entry>, ArchiveError> {
    let (mut bytes, directory) = archive(&["a.sh"]);
    bytes[directory + at..directory + at + with.len()].copy_from_slice(with);
    read(&bytes)
}

#[test]
fn what_is_written_is_read_back_with_the_place_of_its_data() {
    let (bytes, _) = archive(&["install.sh", "lib/x"]);
    let entries = read(&bytes).unwrap();
    let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["install.sh", "lib/x"]);
    for entry in &entries {
        let at = usize::try_from(entry.header_offset).unwrap();
        let data = entry.data_offset(bytes[at..].first_chunk().unwrap()).unwrap();
        assert_eq!(bytes[usize::try_from(data).unwrap()..][..2], [3, 0]);
        assert_eq!((entry.kind, entry.method), (EntryKind::File, Method::Deflated));
    }
    let with_comment = {
        let mut bytes = bytes.clone();
        let end = bytes.len();
        bytes[end - 2] = 3;
        bytes.extend(b"PK!");
        bytes
    };
    assert_eq!(read(&with_comment).unwrap(), entries);
    assert_eq!(read(&bytes[..bytes.len() - 1]), Err(ArchiveError::NoArchive));
}

#[test]
fn names_that_leave_their_directory_are_refused() {
    for name in [
        "..", "../x", "a/../b", "/etc/x", "a//b", "./a", "a\\b", "a\0b", "",
    ] {
        let mut writer = ArchiveWriter::default();
        let refused = writer.file(name, false, 0, (0, 0));
        assert_eq!(refused, Err(ArchiveError::Name(name.to_owned())));
    }
    // as another program may write it
    for (name, expected) in [
        (*b"/a.s", ArchiveError::Name("/a.s".to_owned())),
        (*b"../x", ArchiveError::Name("../x".to_owned())),
        (*b"a\xffbc", ArchiveError::Name("a\u{fffd}bc".to_owned())),
        (*b"a\\.b", ArchiveError::Name("a\\.b".to_owned())),
    ] {
        assert_eq!(patched(CENTRAL_HEADER_BYTES, &name), Err(expected));
    }
}

#[test]
fn links_devices_passwords_and_unknown_methods_are_refused() {
    let name = "a.sh".to_owned();
    for mode in [0o120_777_u32, 0o060_644, 0o010_644, 0o140_644, 0o040_755] {
        let attributes = (mode << 16).to_le_bytes();
        assert_eq!(
            patched(38, &attributes),
            Err(ArchiveError::Kind(name.clone())),
            "{mode:o}"
        );
    }
    assert_eq!(patched(8, &[1, 8]), Err(ArchiveError::Method(name.clone())));
    for method in [0_u16, 9, 12, 14, 93] {
        let refused = patched(10, &method.to_le_bytes());
        assert_eq!(refused, Err(ArchiveError::Method(name.clone())), "{method}");
    }
}

#[test]
fn too_much_of_anything_is_refused_before_it_is_unpacked() {
    assert_eq!(
        patched(24, &0x8000_0001_u32.to_le_bytes()),
        Err(ArchiveError::Unpacked)
    );
    assert_eq!(patched(24, &[0xff; 4]), Err(ArchiveError::Unsupported));
    let (mut bytes, _) = archive(&["a.sh"]);
    let end = bytes.len() - END_BYTES;
    let many = u16::try_from(MAX_ENTRIES + 1).unwrap().to_le_bytes();
    bytes[end + 8..end + 10].copy_from_slice(&many);
    bytes[end + 10..end + 12].copy_from_slice(&many);
    assert_eq!(read(&bytes), Err(ArchiveError::Entries(MAX_ENTRIES + 1)));
    let (mut bytes, _) = archive(&["a.sh"]);
    bytes[end + 12..end + 16].copy_from_slice(&0x0100_0000_u32.to_le_bytes());
    assert_eq!(read(&bytes), Err(ArchiveError::DirectorySize(0x0100_0000)));
    let (mut bytes, _) = archive(&["a.sh"]);
    bytes[end + 16..end + 20].copy_from_slice(&0x0010_0000_u32.to_le_bytes());
    assert_eq!(read(&bytes), Err(ArchiveError::Damaged));
    let (bytes, _) = archive(&["a.sh", "a.sh"]);
    assert_eq!(read(&bytes), Err(ArchiveError::Twice("a.sh".to_owned())));
}
