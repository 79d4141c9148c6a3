use std::{ffi::OsStr, time::SystemTime};

use nix::errno::Errno;

use super::{Attributes, Image, Kind, ROOT, Survivors, UNSYNCED_BYTES};
use crate::Dice;

fn attributes() -> Attributes {
    Attributes {
        mode: 0o600,
        uid: 0,
        gid: 0,
        modified: SystemTime::UNIX_EPOCH,
    }
}

fn disk() -> Image {
    Image::new(attributes())
}

fn create(image: &mut Image, parent: u64, name: &str, kind: Kind) -> u64 {
    image
        .create(parent, OsStr::new(name), kind, attributes())
        .unwrap()
}

/// A file whose name and content are on the disk.
fn synced(image: &mut Image, name: &str, content: &[u8]) -> u64 {
    let file = create(image, ROOT, name, Kind::File);
    image.write(file, 0, content).unwrap();
    image.sync_file(file).unwrap();
    image.sync_directory(ROOT).unwrap();
    file
}

fn read<'a>(image: &'a Image, name: &str) -> Result<&'a [u8], Errno> {
    image.read(image.lookup(ROOT, OsStr::new(name))?, 0, u32::MAX)
}

/// A power cut of which nothing survives that need not.
fn hard_cut(image: Image) -> Image {
    image.cut(Survivors::Nothing, |_| 0)
}

/// All that seeds make of the same disk.
fn cuts(survivors: Survivors, build: impl Fn() -> Image) -> impl Iterator<Item = Image> {
    (0..64).map(move |seed| {
        let mut dice = Dice::of(seed);
        build().cut(survivors, |below| dice.below(below))
    })
}

#[test]
fn a_write_without_a_sync_is_lost_and_one_with_it_is_kept() {
    let mut image = disk();
    let file = synced(&mut image, "f", b"old");
    image.write(file, 0, b"new and longer").unwrap();
    assert_eq!(
        read(&image, "f"),
        Ok(&b"new and longer"[..]),
        "all see it at once"
    );
    let image = hard_cut(image);
    assert_eq!(read(&image, "f"), Ok(&b"old"[..]));

    let mut image = disk();
    let file = synced(&mut image, "f", b"old");
    image.write(file, 0, b"new").unwrap();
    image.sync_file(file).unwrap();
    assert_eq!(read(&hard_cut(image), "f"), Ok(&b"new"[..]));
}

#[test]
fn a_length_without_a_sync_goes_back() {
    let mut image = disk();
    let file = synced(&mut image, "f", b"old");
    image.set_length(file, 0).unwrap();
    assert_eq!(read(&image, "f"), Ok(&b""[..]));
    assert_eq!(read(&hard_cut(image), "f"), Ok(&b"old"[..]));
}

#[test]
fn a_file_whose_directory_was_not_synced_is_not_there() {
    let mut image = disk();
    let file = create(&mut image, ROOT, "f", Kind::File);
    image.write(file, 0, b"synced").unwrap();
    image.sync_file(file).unwrap();
    assert_eq!(read(&hard_cut(image), "f"), Err(Errno::ENOENT));
}

#[test]
fn what_lies_in_a_directory_goes_with_the_directory_whose_name_was_not_synced() {
    let mut image = disk();
    let inner = create(&mut image, ROOT, "d", Kind::Directory);
    let file = create(&mut image, inner, "f", Kind::File);
    image.sync_file(file).unwrap();
    image.sync_directory(inner).unwrap();
    let image = hard_cut(image);
    assert_eq!(image.lookup(ROOT, OsStr::new("d")), Err(Errno::ENOENT));
    assert_eq!(image.inodes.len(), 1, "nothing is left of it");
}

#[test]
fn a_removal_without_a_sync_of_the_directory_is_undone() {
    let mut image = disk();
    synced(&mut image, "f", b"content");
    image.remove(ROOT, OsStr::new("f"), Kind::File).unwrap();
    assert_eq!(read(&image, "f"), Err(Errno::ENOENT));
    assert_eq!(read(&hard_cut(image), "f"), Ok(&b"content"[..]));
}

#[test]
fn a_rename_is_done_or_not_but_never_half() {
    let build = || {
        let mut image = disk();
        synced(&mut image, "f", b"old");
        synced(&mut image, "f.new", b"new");
        image
            .rename((ROOT, OsStr::new("f.new")), (ROOT, OsStr::new("f")))
            .unwrap();
        image
    };
    let mut seen = [0, 0];
    for image in cuts(Survivors::Some { piece: 512 }, build) {
        match (read(&image, "f"), read(&image, "f.new")) {
            (Ok(b"old"), Ok(b"new")) => seen[0] += 1,
            (Ok(b"new"), Err(Errno::ENOENT)) => seen[1] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    let mut image = build();
    image.sync_directory(ROOT).unwrap();
    assert_eq!(read(&hard_cut(image), "f"), Ok(&b"new"[..]));
}

#[test]
fn a_file_that_was_renamed_before_it_was_synced_may_be_empty() {
    let mut image = disk();
    synced(&mut image, "f", b"old");
    let new = create(&mut image, ROOT, "f.new", Kind::File);
    image.write(new, 0, b"new").unwrap();
    image
        .rename((ROOT, OsStr::new("f.new")), (ROOT, OsStr::new("f")))
        .unwrap();
    image.sync_directory(ROOT).unwrap();
    assert_eq!(read(&hard_cut(image), "f"), Ok(&b""[..]));
}

#[test]
fn of_a_long_write_any_pieces_may_be_there() {
    let build = || {
        let mut image = disk();
        let file = synced(&mut image, "f", &[0; 2048]);
        image.write(file, 256, &[1; 1024]).unwrap();
        image
    };
    let mut seen = std::collections::BTreeSet::new();
    for image in cuts(Survivors::Some { piece: 512 }, build) {
        let content = read(&image, "f").unwrap().to_vec();
        assert_eq!(content.len(), 2048);
        let whole = [256..512, 512..1024, 1024..1280].map(|piece| {
            let bytes = &content[piece];
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "torn within a sector");
            bytes[0]
        });
        seen.insert(whole);
    }
    assert_eq!(
        seen.len(),
        8,
        "each piece is there or not, whatever the others are"
    );
}

#[test]
fn up_to_a_point_keeps_the_order() {
    let build = || {
        let mut image = disk();
        let file = synced(&mut image, "f", b"");
        for (offset, byte) in (0..).zip(b"abcdef") {
            image.write(file, offset, &[*byte]).unwrap();
        }
        image
    };
    for image in cuts(Survivors::UpToAPoint, build) {
        assert!(b"abcdef".starts_with(read(&image, "f").unwrap()));
    }
    let everything = build().cut(Survivors::Everything, |_| 0);
    assert_eq!(read(&everything, "f"), Ok(&b"abcdef"[..]));
}

#[test]
fn what_is_never_synced_takes_no_more_and_more_memory() {
    let mut image = disk();
    let file = synced(&mut image, "f", b"");
    for _ in 0..1000 {
        image.write(file, 0, &[7; 64 * 1024]).unwrap();
    }
    let content = image.content(file).unwrap();
    assert!(content.unsynced_bytes <= UNSYNCED_BYTES);
    let bytes: usize = content.unsynced.iter().map(super::Change::size).sum();
    assert_eq!(bytes, content.unsynced_bytes);
}

#[test]
fn what_cannot_be_done_is_refused() {
    let mut image = disk();
    let inner = create(&mut image, ROOT, "d", Kind::Directory);
    create(&mut image, inner, "f", Kind::File);
    let (d, f) = (OsStr::new("d"), OsStr::new("f"));
    assert_eq!(
        image.create(ROOT, d, Kind::File, attributes()),
        Err(Errno::EEXIST)
    );
    assert_eq!(image.remove(ROOT, d, Kind::Directory), Err(Errno::ENOTEMPTY));
    assert_eq!(image.remove(ROOT, d, Kind::File), Err(Errno::EISDIR));
    assert_eq!(image.remove(inner, f, Kind::Directory), Err(Errno::ENOTDIR));
    assert_eq!(image.remove(ROOT, f, Kind::File), Err(Errno::ENOENT));
    assert_eq!(image.rename((inner, f), (ROOT, d)), Err(Errno::ENOTEMPTY));
    assert_eq!(image.write(inner, 0, b"x"), Err(Errno::EISDIR));
}
