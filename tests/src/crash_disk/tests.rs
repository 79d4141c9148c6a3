//! Through the kernel, as the processes of a test see it.

use std::{
    fs::{self, File},
    io::{Read, Seek, Write},
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
};

use crate::{CrashDisk, Dice, skipped};

/// A disk, or what a test says when it cannot have one.
fn disk() -> Option<CrashDisk> {
    if let Some(why) = CrashDisk::missing() {
        skipped(why);
        return None;
    }
    Some(CrashDisk::mount().unwrap())
}

fn sync(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

#[test]
fn a_disk_is_as_any_other_until_the_power_goes() {
    let Some(disk) = disk() else { return };
    let root = disk.path();
    fs::create_dir(root.join("d")).unwrap();
    fs::write(root.join("d/f"), "content").unwrap();
    fs::set_permissions(root.join("d/f"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::rename(root.join("d/f"), root.join("g")).unwrap();
    assert!(!root.join("d/f").exists());
    assert_eq!(fs::read_to_string(root.join("g")).unwrap(), "content");
    assert_eq!(
        fs::metadata(root.join("g")).unwrap().permissions().mode() & 0o777,
        0o640
    );
    let mut file = File::options().append(true).open(root.join("g")).unwrap();
    file.write_all(b" and more").unwrap();
    fs::remove_file(root.join("g")).unwrap();
    let mut file = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(root.join("h"))
        .unwrap();
    file.write_all(&vec![7; 300_000]).unwrap();
    file.set_len(200_000).unwrap();
    file.rewind().unwrap();
    let mut all = Vec::new();
    file.read_to_end(&mut all).unwrap();
    assert_eq!(all, vec![7; 200_000]);
    for number in 0..500 {
        File::create(root.join("d").join(format!("a-rather-long-name-{number}"))).unwrap();
    }
    assert_eq!(fs::read_dir(root.join("d")).unwrap().count(), 500);
    fs::remove_dir_all(root.join("d")).unwrap();
    let left: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["h"]);
}

#[test]
fn a_cut_leaves_what_was_synced_whatever_the_seed() {
    let Some(mut disk) = disk() else {
        return;
    };
    let path = disk.path().join("f");
    fs::write(&path, "first").unwrap();
    sync(&path);
    sync(disk.path());
    let mut was_lost = false;
    for seed in 0..20 {
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(b"SECOND", 0).unwrap();
        fs::write(disk.path().join("unsynced"), "x").unwrap();
        drop(file);
        disk.on_again(&mut Dice::of(seed)).unwrap();
        let content = fs::read_to_string(&path).unwrap();
        assert!(content == "first" || content == "SECOND", "{content}");
        was_lost |= content == "first";
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(0).unwrap();
        file.write_all_at(b"first", 0).unwrap();
        file.sync_data().unwrap();
    }
    assert!(was_lost);
}

#[test]
fn after_so_many_changes_the_power_goes_and_those_who_wait_get_an_error_in_the_end() {
    let Some(mut disk) = disk() else {
        return;
    };
    let path = disk.path().join("f");
    let mut file = File::create(&path).unwrap();
    sync(disk.path());
    let before = disk.changes();
    file.write_all(b"1").unwrap();
    file.sync_all().unwrap();
    assert_eq!(disk.changes(), before + 2);
    disk.cut_in(2);
    let waiting = std::thread::spawn(move || {
        file.write_all(b"2").unwrap();
        file.sync_all()
    });
    while !disk.is_frozen() {
        std::thread::yield_now();
    }
    disk.off();
    assert!(waiting.join().unwrap().is_err());
    disk.on_again(&mut Dice::of(1)).unwrap();
    let content = fs::read_to_string(&path).unwrap();
    assert!(content == "1" || content == "12", "{content}");
}
