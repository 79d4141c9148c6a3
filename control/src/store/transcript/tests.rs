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
    files.append(&session(id), offset, chunk, false).await.unwrap()
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
