use super::*;
use bytes::Bytes;

fn named(id: &str) -> TranscriptId {
    id.parse().unwrap()
}

fn signer() -> Arc<EndpointSigningKey> {
    let file = EndpointSigningKey::new_file();
    Arc::new(EndpointSigningKey::read(&file).unwrap())
}

fn files() -> (TranscriptFiles, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (
        TranscriptFiles::new(dir.path().join("transcripts"), signer()),
        dir,
    )
}

fn sender() -> Sender {
    Sender {
        node: "mi-0123456789abcdef0".to_owned(),
        keys: Vec::new(),
    }
}

fn chunk(offset: u64, bytes: &'static [u8]) -> Chunk {
    Chunk {
        offset,
        body: ChunkBody::Plain(Bytes::from_static(bytes)),
        is_last: false,
        is_durable: false,
    }
}

async fn append(files: &TranscriptFiles, id: &str, offset: u64, bytes: &'static [u8]) -> Appended {
    files
        .append(&named(id), sender(), chunk(offset, bytes), (false, 0))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_recording_that_cannot_be_synced_is_tried_again_and_a_removed_one_is_done() {
    let (files, _dir) = files();
    for id in ["a", "b", "c"] {
        assert_eq!(
            append(&files, id, 0, b"x").await,
            Appended::Stored(1, TranscriptState::Open)
        );
    }
    std::fs::remove_file(files.path(&named("a"))).unwrap();
    // a loop of links stands for a file that cannot be opened
    let broken = files.path(&named("b"));
    std::fs::remove_file(&broken).unwrap();
    std::os::unix::fs::symlink(&broken, &broken).unwrap();
    files.sync(0).await.unwrap_err();
    assert_eq!(*files.unsynced(), BTreeSet::from([named("b")]));
    std::fs::remove_file(&broken).unwrap();
    files.sync(0).await.unwrap();
    assert!(files.unsynced().is_empty());
}

#[tokio::test]
async fn a_node_has_no_more_of_the_disk_than_is_left_for_the_others() {
    let (mut files, _dir) = files();
    // for 100 bytes
    files.space = |_| {
        Ok(Space {
            available: RESERVED_BYTES + 100,
            total: u64::MAX,
        })
    };
    let stored = |length| Appended::Stored(length, TranscriptState::Open);
    assert_eq!(append(&files, "a", 0, &[b'x'; 51]).await, Appended::OverShare);
    assert_eq!(append(&files, "a", 0, &[b'x'; 30]).await, stored(30));
    // its other recordings count as well, and those of others do not
    assert_eq!(append(&files, "b", 0, &[b'x'; 36]).await, Appended::OverShare);
    assert_eq!(append(&files, "b", 0, &[b'x'; 35]).await, stored(35));
    let other = Sender {
        node: "mi-0123456789abcdef1".to_owned(),
        keys: Vec::new(),
    };
    let of_other = files
        .append(&named("c"), other, chunk(0, &[b'x'; 50]), (false, 0))
        .await;
    assert_eq!(of_other.unwrap(), stored(50));
}

#[tokio::test]
async fn a_search_of_a_long_recording_pauses_inside_and_comes_to_its_end() {
    let (files, _dir) = files();
    std::fs::create_dir_all(&files.dir).unwrap();
    let line = format!("[0.000000,\"o\",\"{}\"]\n", "x".repeat(1000));
    let mut cast = format!("{{\"version\":2}}\n{}", line.repeat(13_000));
    cast.push_str("[0.000000,\"o\",\"nee\"]\n[0.000000,\"o\",\"dle\"]\n");
    std::fs::write(files.path(&named("s-1")), &cast).unwrap();
    // no time at all: each call comes one piece further
    for (text, expected) in [("needle", Searched::Found), ("haystack", Searched::NotFound)] {
        let (mut from, mut pauses) = (0, 0);
        let found = loop {
            let until = tokio::time::Instant::now();
            match files.search(&named("s-1"), text, (from, until)).await.unwrap() {
                Searched::Paused(at) => {
                    assert!(at > from, "{at}");
                    (from, pauses) = (at, pauses + 1);
                }
                found => break found,
            }
        };
        assert_eq!((found, pauses), (expected, 3), "{text}");
    }
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
    let full = Space {
        available: RESERVED_BYTES,
        total: 100 * GIB,
    };
    assert!(
        full.has_room_to_pack(RESERVED_BYTES / 2),
        "recordings left it to give room back"
    );
    assert!(!full.has_room_to_pack(RESERVED_BYTES / 2 + 1));
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_takes_no_more_of_a_recording_but_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let files = TranscriptFiles::without_room(dir.path().to_owned(), signer());
    assert_eq!(append(&files, "a", 0, b"x").await, Appended::NoRoom);
    let last = Chunk {
        is_last: true,
        ..chunk(0, b"")
    };
    let end = files.append(&named("a"), sender(), last, (false, 0)).await;
    assert_eq!(end.unwrap(), Appended::Stored(0, TranscriptState::Plain));
}

mod chained;
