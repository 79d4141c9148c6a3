use super::*;

fn session(id: &str) -> SessionId {
    id.parse().unwrap()
}

fn files() -> (TranscriptFiles, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (TranscriptFiles::new(dir.path().join("transcripts")), dir)
}

async fn append(files: &TranscriptFiles, id: &str, offset: u64, chunk: &'static [u8]) -> Appended {
    let chunk = Bytes::from_static(chunk);
    files
        .append(&session(id), offset, chunk, (false, false))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_recording_that_cannot_be_synced_is_tried_again_and_a_removed_one_is_done() {
    let (files, _dir) = files();
    for id in ["a", "b", "c"] {
        assert_eq!(append(&files, id, 0, b"x").await, Appended::Stored(1));
    }
    std::fs::remove_file(files.path(&session("a"))).unwrap();
    // a loop of links stands for a file that cannot be opened
    let broken = files.path(&session("b"));
    std::fs::remove_file(&broken).unwrap();
    std::os::unix::fs::symlink(&broken, &broken).unwrap();
    files.sync().await.unwrap_err();
    assert_eq!(*files.unsynced(), BTreeSet::from([session("b")]));
    std::fs::remove_file(&broken).unwrap();
    files.sync().await.unwrap();
    assert!(files.unsynced().is_empty());
}

#[test]
fn a_recording_leaves_room_for_the_database() {
    const GIB: u64 = 1024 * 1024 * 1024;
    for (available, total, added, fits) in [
        (RESERVED_BYTES + 10, 100 * GIB, 10, true),
        (RESERVED_BYTES + 10, 100 * GIB, 11, false),
        // a twentieth of a small one
        (GIB / 20 + 10, GIB, 10, true),
        (GIB / 20 + 10, GIB, 12, false),
        (0, GIB, 1, false),
    ] {
        assert_eq!(
            Space { available, total }.has_room_for(added),
            fits,
            "{available} of {total}"
        );
    }
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_takes_no_more_of_a_recording_but_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let files = TranscriptFiles::without_room(dir.path().to_owned());
    assert_eq!(append(&files, "a", 0, b"x").await, Appended::NoRoom);
    let end = files.append(&session("a"), 0, Bytes::new(), (true, false)).await;
    assert_eq!(end.unwrap(), Appended::Stored(0));
}
