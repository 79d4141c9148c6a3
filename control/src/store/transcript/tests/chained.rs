//! Recordings whose chain is verified as they arrive, and what an auditor says to them.

use moorline_protocol::{
    public_keys::{Keys, NodeKey, PublicKey},
    transcript::{Blocks, Verdict, Verifier, Weaver},
};
use std::io::Write as _;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::store::transcript::fixture::{Key, sealed_recording};

const NODE: &str = "mi-0123456789abcdef0";
const ID: &str = "admin-0123456789abcdef0";

/// As [`sealed_recording`], of this node's session.
fn recording(key: &Key, records: u64, is_cut: bool) -> Vec<u8> {
    sealed_recording(key, (NODE, ID), records, is_cut)
}

struct Endpoint {
    files: TranscriptFiles,
    signer: Arc<EndpointSigningKey>,
    dir: tempfile::TempDir,
    keys: Vec<PublicKey>,
}

impl Endpoint {
    fn new(keys: &[&Key]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let signer = signer();
        Self {
            files: TranscriptFiles::new(dir.path().join("transcripts"), Arc::clone(&signer)),
            signer,
            dir,
            keys: keys.iter().map(|key| key.public()).collect(),
        }
    }

    /// Another process, with what is on the disk.
    fn restart(&mut self) {
        self.files = TranscriptFiles::new(self.dir.path().join("transcripts"), Arc::clone(&self.signer));
    }

    fn sender(&self) -> Sender {
        Sender {
            node: NODE.to_owned(),
            keys: self.keys.clone(),
        }
    }

    fn put(&self, offset: usize, bytes: &[u8], is_last: bool) -> Appended {
        // every other one in blocks, so that what is wrong may be in any of them
        let (head, tail) = bytes.split_at(bytes.len() / 2);
        let body = match offset % 2 {
            0 => ChunkBody::Plain(Bytes::copy_from_slice(bytes)),
            _ => ChunkBody::Blocks(Blocks::joined(&[Blocks::new(head), Blocks::new(tail)])),
        };
        let chunk = Chunk {
            offset: offset as u64,
            body,
            is_last,
            is_durable: false,
        };
        self.files
            .append_now(&named(ID), &self.sender(), &chunk, (false, 7))
            .unwrap()
    }

    /// What an export gives, and what an auditor says to it.
    fn exported(&self) -> (Vec<u8>, Verdict) {
        let path = self.files.path(&named(ID));
        let signatures = std::fs::read_to_string(self.files.signatures_path(&named(ID)));
        let lines = signatures.unwrap_or_default();
        let mut weaver = Weaver::new(lines.lines().map(|line| format!("{line}\n")));
        let mut woven = Vec::new();
        weaver.push(&std::fs::read(path).unwrap(), &mut woven);
        weaver.finish(&mut woven);
        let mut verifier = Verifier::new(Keys {
            endpoint: vec![self.signer.public()],
            nodes: self
                .keys
                .iter()
                .map(|key| NodeKey {
                    node: NODE.parse().unwrap(),
                    key: *key,
                })
                .collect(),
        });
        verifier.push(&woven);
        (woven, verifier.finish().verdict)
    }
}

#[test]
fn a_sealed_recording_is_countersigned_when_it_is_on_the_disk_and_closed_at_its_end() {
    let key = Key::new(1);
    let endpoint = Endpoint::new(&[&key]);
    let bytes = recording(&key, 3, false);
    assert!(matches!(
        endpoint.put(0, &bytes, false),
        Appended::Stored(_, TranscriptState::Open)
    ));
    assert!(
        !endpoint.files.signatures_path(&named(ID)).exists(),
        "not before it is synced"
    );
    endpoint.files.sync_one(&named(ID), 9).unwrap();
    let (_, verdict) = endpoint.exported();
    assert_eq!(verdict, Verdict::Altered, "it may go on");
    let length = bytes.len() as u64;
    assert_eq!(
        endpoint.put(bytes.len(), b"", true),
        Appended::Stored(length, TranscriptState::Complete)
    );
    let (woven, verdict) = endpoint.exported();
    assert_eq!(verdict, Verdict::Intact(Ending::Complete));
    let text = String::from_utf8(woven).unwrap();
    assert_eq!(text.matches("\"countersign ").count(), 1, "{text}");
    assert!(text.lines().last().unwrap().contains("\"close 2 3 "), "{text}");
    assert_eq!(endpoint.put(bytes.len(), b"x", false), Appended::Closed(length));
}

/// Where the first record ends, behind its seal.
fn first_record(bytes: &[u8]) -> usize {
    let seal = bytes.windows(6).position(|window| window == b"\"seal ").unwrap();
    seal + bytes[seal..].iter().position(|byte| *byte == b'\n').unwrap() + 1
}

#[tokio::test]
async fn only_its_own_node_adds_to_a_recording_without_being_looked_up_and_only_while_it_grows() {
    let key = Key::new(1);
    let mut endpoint = Endpoint::new(&[&key]);
    let bytes = recording(&key, 3, false);
    let (length, first) = (bytes.len() as u64, first_record(&bytes));
    let rest = |endpoint: &Endpoint, node: &'static str, is_durable| {
        let chunk = Chunk {
            offset: first as u64,
            body: ChunkBody::Plain(Bytes::copy_from_slice(&bytes[first..])),
            is_last: false,
            is_durable,
        };
        let (files, node) = (endpoint.files.clone(), node.parse().unwrap());
        async move { files.append_to_known(&named(ID), &node, chunk, 8).await.unwrap() }
    };
    assert_eq!(
        rest(&endpoint, NODE, false).await,
        None,
        "of which nothing is known"
    );
    endpoint.put(0, &bytes[..first], false);
    assert_eq!(rest(&endpoint, "mi-00000000000000009", false).await, None);
    endpoint.restart();
    assert_eq!(rest(&endpoint, NODE, false).await, None, "which is not in memory");
    endpoint.put(first, b"", false);
    let stored = Appended::Stored(length, TranscriptState::Open);
    assert_eq!(rest(&endpoint, NODE, true).await, Some(stored));
    assert_eq!(endpoint.files.durable(&named(ID)), length);
    endpoint.put(bytes.len(), b"", true);
    assert_eq!(endpoint.exported().1, Verdict::Intact(Ending::Complete));
    assert_eq!(rest(&endpoint, NODE, false).await, None, "which is closed");
}

#[test]
fn what_came_while_the_disk_was_at_work_is_not_signed_before_the_next_time() {
    let key = Key::new(1);
    let endpoint = Endpoint::new(&[&key]);
    let bytes = recording(&key, 3, false);
    let first = first_record(&bytes);
    let signed = || {
        let lines = std::fs::read_to_string(endpoint.files.signatures_path(&named(ID)));
        let lines = lines.unwrap_or_default();
        let records = lines.lines().filter_map(|line| line.split("countersign ").nth(1));
        let records = records.filter_map(|words| words.split(' ').nth(1)?.parse::<u64>().ok());
        records.collect::<Vec<_>>()
    };
    endpoint.put(0, &bytes[..first], false);
    let synced = match endpoint.files.chains().get(&named(ID)) {
        Some(Chain::Sealed(sealed)) => sealed.signable().unwrap(),
        other => panic!("{other:?}"),
    };
    endpoint.put(first, &bytes[first..], false);
    endpoint.files.sign_synced(&named(ID), (&synced, 9)).unwrap();
    assert_eq!(signed(), [1]);
    endpoint.files.sync_one(&named(ID), 10).unwrap();
    assert_eq!(signed(), [1, 3]);
    endpoint.put(bytes.len(), b"", true);
    assert_eq!(endpoint.exported().1, Verdict::Intact(Ending::Complete));
}

/// As in strict mode, where every chunk is one of these.
#[tokio::test]
async fn what_was_on_the_disk_with_its_answer_is_countersigned_within_a_second_as_well() {
    let key = Key::new(1);
    let endpoint = Endpoint::new(&[&key]);
    let bytes = recording(&key, 1, false);
    let chunk = Chunk {
        offset: 0,
        body: ChunkBody::Plain(bytes.into()),
        is_last: false,
        is_durable: true,
    };
    let sender = endpoint.sender();
    endpoint
        .files
        .append_now(&named(ID), &sender, &chunk, (false, 7))
        .unwrap();
    endpoint.files.sync(8).await.unwrap();
    let signed = std::fs::read_to_string(endpoint.files.signatures_path(&named(ID)));
    assert!(signed.unwrap_or_default().contains("\"countersign 1 1 "));
}

/// What is read again from the disk is all that was not countersigned, and a node may ask for that as often as it likes.
#[tokio::test]
async fn what_is_refused_before_it_is_looked_at_leaves_the_chain_in_memory() {
    let key = Key::new(1);
    let mut endpoint = Endpoint::new(&[&key]);
    let bytes = recording(&key, 2, false);
    let half = bytes.len() / 2;
    endpoint.put(0, &bytes[..half], false);
    let node = endpoint.sender().node.parse().unwrap();
    let rest = || ChunkBody::Plain(bytes[half..].to_vec().into());
    let refused = async |endpoint: &Endpoint, offset: usize, body: ChunkBody| {
        let chunk = Chunk {
            offset: offset as u64,
            body,
            is_last: false,
            is_durable: false,
        };
        let appended = endpoint.files.append_to_known(&named(ID), &node, chunk, 7).await;
        assert!(endpoint.files.chains().contains_key(&named(ID)), "{appended:?}");
        appended.unwrap().unwrap()
    };
    let length = half as u64;
    assert_eq!(refused(&endpoint, 7, rest()).await, Appended::WrongOffset(length));
    let good = Blocks::new(&bytes[half..half + 9]);
    let mut garbled = Blocks::joined(&[good, Blocks::new(&[b'x'; 5000])])
        .blocks()
        .to_vec();
    // the first length that the block begins with: it is that of other bytes
    garbled[8 + 9 + 8] ^= 0xff;
    let garbled = ChunkBody::Blocks(Blocks::parse(garbled.into()).unwrap());
    assert!(matches!(
        refused(&endpoint, half, garbled).await,
        Appended::Garbled(_)
    ));
    let space = endpoint.files.space;
    endpoint.files.space = |_| {
        let (available, total) = (0, u64::MAX);
        Ok(Space { available, total })
    };
    assert_eq!(refused(&endpoint, half, rest()).await, Appended::NoRoom);
    endpoint.files.space = space;
    assert!(matches!(
        refused(&endpoint, half, rest()).await,
        Appended::Stored(_, TranscriptState::Open)
    ));
    // of one that somebody altered it is made anew: the node has not done that
    let path = endpoint.files.path(&named(ID));
    std::fs::write(&path, &bytes[..half]).unwrap();
    let chunk = Chunk {
        offset: bytes.len() as u64,
        body: ChunkBody::Plain(Bytes::new()),
        is_last: false,
        is_durable: false,
    };
    let appended = endpoint.files.append_to_known(&named(ID), &node, chunk, 7).await;
    assert_eq!(appended.unwrap(), Some(Appended::WrongOffset(length)));
    assert!(!endpoint.files.chains().contains_key(&named(ID)));
}

/// The look of each second sees a length, and tells it when a chunk behind it is on the disk already.
#[test]
fn what_is_on_the_disk_is_not_called_back() {
    let key = Key::new(1);
    let endpoint = Endpoint::new(&[&key]);
    for length in [20, 10] {
        endpoint.files.is_durable_to(&named(ID), length);
    }
    assert_eq!(endpoint.files.durable(&named(ID)), 20);
}

#[test]
fn a_recording_whose_end_never_comes_is_closed_as_cut_and_verifies() {
    let key = Key::new(1);
    let mut endpoint = Endpoint::new(&[&key]);
    let mut bytes = recording(&key, 3, true);
    let whole = bytes.len();
    bytes.extend_from_slice(b"[4.000000,\"o\",\"ha");
    assert!(matches!(endpoint.put(0, &bytes, false), Appended::Stored(..)));
    endpoint.restart();
    let state = endpoint.files.give_up_now(&named(ID), &endpoint.sender(), 11);
    assert_eq!(state.unwrap(), TranscriptState::Cut);
    let (woven, verdict) = endpoint.exported();
    assert_eq!(verdict, Verdict::Intact(Ending::Cut));
    assert!(String::from_utf8(woven).unwrap().contains(" cut "));
    assert_eq!(
        std::fs::metadata(endpoint.files.path(&named(ID))).unwrap().len(),
        whole as u64
    );
    let again = endpoint.files.give_up_now(&named(ID), &endpoint.sender(), 12);
    assert_eq!(again.unwrap(), TranscriptState::Cut);
    assert_eq!(endpoint.exported().1, Verdict::Intact(Ending::Cut), "closed once");
}

/// The endpoint is killed between its last line and the row that says so.
#[test]
fn how_a_recording_ended_is_what_was_signed_whoever_asks_again() {
    let key = Key::new(1);
    let bytes = recording(&key, 3, false);
    let length = bytes.len() as u64;
    let mut endpoint = Endpoint::new(&[&key]);
    endpoint.put(0, &bytes, false);
    let given_up = |endpoint: &Endpoint| {
        let state = endpoint.files.give_up_now(&named(ID), &endpoint.sender(), 11);
        state.unwrap()
    };
    assert_eq!(given_up(&endpoint), TranscriptState::Cut);
    endpoint.restart();
    let stored = endpoint.put(bytes.len(), b"", true);
    assert_eq!(stored, Appended::Stored(length, TranscriptState::Cut));

    let mut endpoint = Endpoint::new(&[&key]);
    endpoint.put(0, &bytes, true);
    endpoint.restart();
    assert_eq!(given_up(&endpoint), TranscriptState::Complete);
    assert_eq!(endpoint.exported().1, Verdict::Intact(Ending::Complete));
}

#[test]
fn lines_without_end_of_many_recordings_take_a_bounded_part_of_the_memory() {
    let key = Key::new(1);
    let endpoint = Endpoint::new(&[&key]);
    for number in 0..20 {
        let id = format!("admin-{number:017x}");
        let mut bytes = sealed_recording(&key, (NODE, &id), 1, false);
        bytes.extend_from_slice(format!("[9.000000,\"o\",\"{}", "x".repeat(200_000)).as_bytes());
        let chunk = Chunk {
            offset: 0,
            body: ChunkBody::Plain(bytes.into()),
            is_last: false,
            is_durable: false,
        };
        let stored = endpoint
            .files
            .append_now(&named(&id), &endpoint.sender(), &chunk, (false, 7));
        assert!(matches!(stored.unwrap(), Appended::Stored(..)));
    }
    let chains = endpoint.files.chains();
    let held = chains.values().map(|chain| match chain {
        Chain::Sealed(sealed) => sealed.held_bytes(),
        Chain::Undecided | Chain::Plain => 0,
    });
    let held: usize = held.sum();
    assert!((200_000..=MOST_HELD_BYTES).contains(&held), "{held}");
}

/// A backup of the recordings was put back, and not of all of them.
#[test]
fn a_recording_that_is_shorter_than_what_was_signed_waits_to_be_put_back() {
    let key = Key::new(1);
    let bytes = recording(&key, 3, false);
    let mut endpoint = Endpoint::new(&[&key]);
    endpoint.put(0, &bytes, false);
    endpoint.files.sync_one(&named(ID), 9).unwrap();
    let path = endpoint.files.path(&named(ID));
    std::fs::write(&path, &bytes[..300]).unwrap();
    endpoint.restart();
    let chunk = Chunk {
        offset: 300,
        body: ChunkBody::Plain(Bytes::copy_from_slice(&bytes[300..])),
        is_last: true,
        is_durable: false,
    };
    let put = |endpoint: &Endpoint| {
        endpoint
            .files
            .append_now(&named(ID), &endpoint.sender(), &chunk, (false, 7))
    };
    assert!(put(&endpoint).unwrap_err().to_string().contains("put it back"));
    assert_eq!(std::fs::read(&path).unwrap(), &bytes[..300], "it stays as it is");
    // where its node is, which would be told that it sent what is not there; with the chain in memory, and without
    let goes_on = || {
        let chunk = Chunk {
            offset: bytes.len() as u64,
            body: ChunkBody::Plain(Bytes::new()),
            ..chunk.clone()
        };
        let files = &endpoint.files;
        files.append_now(&named(ID), &endpoint.sender(), &chunk, (false, 7))
    };
    assert!(goes_on().unwrap_err().to_string().contains("put it back"));
    std::fs::remove_file(&path).unwrap();
    assert!(goes_on().unwrap_err().to_string().contains("put it back"));
    assert!(!path.exists(), "it is not begun again");
    std::fs::write(&path, &bytes).unwrap();
    let stored = endpoint.put(bytes.len(), b"", true);
    assert!(
        matches!(stored, Appended::Stored(_, TranscriptState::Complete)),
        "{stored:?}"
    );
    assert_eq!(endpoint.exported().1, Verdict::Intact(Ending::Complete));
}

/// Its begin lies in a block that was not written, its end in one that was.
#[test]
fn a_countersignature_that_a_power_cut_tore_is_written_anew() {
    let key = Key::new(1);
    let bytes = recording(&key, 3, false);
    // header, two events, the seal
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let first: usize = lines.take(4).map(<[u8]>::len).sum();
    for torn in [&b"\0\0\0\0aa55 0102\"]\n"[..], b"\0\0\0", b"[1.0000"] {
        let mut endpoint = Endpoint::new(&[&key]);
        endpoint.put(0, &bytes[..first], false);
        endpoint.files.sync_one(&named(ID), 9).unwrap();
        let path = endpoint.files.signatures_path(&named(ID));
        let signed = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&signed, torn].concat()).unwrap();
        endpoint.restart();
        let stored = endpoint.put(first, &bytes[first..], true);
        assert!(
            matches!(stored, Appended::Stored(_, TranscriptState::Complete)),
            "{stored:?}"
        );
        assert!(std::fs::read(&path).unwrap().starts_with(&signed));
        assert_eq!(endpoint.exported().1, Verdict::Intact(Ending::Complete));
    }
}

/// Bytes that never were on disk read as zeros, whatever was written before and behind them.
#[test]
fn what_a_power_cut_left_in_pieces_is_asked_for_again_and_nobody_is_blamed() {
    let key = Key::new(1);
    let bytes = recording(&key, 4, false);
    let lines: Vec<usize> = bytes
        .iter()
        .enumerate()
        .filter_map(|(at, byte)| (*byte == b'\n').then_some(at + 1))
        .collect();
    for (synced, hole) in [
        (false, 0..20),
        (false, 5..bytes.len()),
        (false, lines[1] + 3..lines[1] + 4),
        (true, lines[6] + 9..lines[7] - 2),
        (true, lines[6]..bytes.len()),
    ] {
        let mut endpoint = Endpoint::new(&[&key]);
        let first = lines[3];
        endpoint.put(0, &bytes[..first], false);
        if synced {
            endpoint.files.sync_one(&named(ID), 9).unwrap();
        }
        endpoint.put(first, &bytes[first..], false);
        let path = endpoint.files.path(&named(ID));
        let mut torn = std::fs::read(&path).unwrap();
        torn[hole.clone()].fill(0);
        std::fs::write(&path, &torn).unwrap();
        endpoint.restart();
        let good = hole.start;
        assert_eq!(
            endpoint.put(bytes.len(), b"", true),
            Appended::WrongOffset(good as u64),
            "{hole:?}"
        );
        assert!(matches!(
            endpoint.put(good, &bytes[good..], true),
            Appended::Stored(_, TranscriptState::Complete)
        ));
        assert_eq!(endpoint.exported().1, Verdict::Intact(Ending::Complete));
    }
}

/// The node was told that it is there, and may have forgotten it.
#[test]
fn what_was_on_the_disk_before_a_power_cut_left_zeros_behind_it_stays_also_of_half_a_line() {
    let key = Key::new(1);
    let bytes = recording(&key, 2, false);
    let mut endpoint = Endpoint::new(&[&key]);
    let durable = bytes.len() - 9;
    endpoint.put(0, &bytes[..durable], false);
    endpoint.files.sync_one(&named(ID), 9).unwrap();
    assert_eq!(endpoint.files.durable(&named(ID)), durable as u64);
    endpoint.put(durable, &bytes[durable..], false);
    let path = endpoint.files.path(&named(ID));
    let mut torn = std::fs::read(&path).unwrap();
    torn[durable..].fill(0);
    std::fs::write(&path, &torn).unwrap();
    endpoint.restart();
    assert_eq!(
        endpoint.put(bytes.len(), b"", true),
        Appended::WrongOffset(durable as u64)
    );
    assert!(matches!(
        endpoint.put(durable, &bytes[durable..], true),
        Appended::Stored(_, TranscriptState::Complete)
    ));
    assert_eq!(endpoint.exported().1, Verdict::Intact(Ending::Complete));
}

#[test]
fn what_a_node_alters_is_refused_and_what_stands_before_it_stays_and_verifies() {
    let key = Key::new(1);
    let good = recording(&key, 3, false);
    let seal_of_two = good.windows(8).position(|window| window == b"\"seal 2 ").unwrap();
    let mut flipped = good.clone();
    flipped[seal_of_two - 60] ^= 1;
    let forged = recording(&Key::new(2), 3, false);
    let mut forked = good.clone();
    forked.extend_from_slice(&good[good.len() - 400..]);
    let table: [(&str, &[u8], &[&Key]); 4] = [
        ("an event that was changed", &flipped, &[&key]),
        ("a key that is not registered", &forged, &[&key]),
        ("another's seals under this key's name", &good, &[]),
        ("a record once more", &forked, &[&key]),
    ];
    for (what, bytes, keys) in table {
        for size in [bytes.len(), 97] {
            let mut endpoint = Endpoint::new(keys);
            let mut at = 0;
            let mut broken = None;
            while at < bytes.len() && broken.is_none() {
                let piece = &bytes[at..bytes.len().min(at + size)];
                match endpoint.put(at, piece, false) {
                    Appended::Stored(length, _) => at = usize::try_from(length).unwrap(),
                    Appended::Broken(reason) => broken = Some(reason),
                    other => panic!("{what}: {other:?}"),
                }
            }
            assert!(broken.is_some(), "{what}");
            let length = std::fs::metadata(endpoint.files.path(&named(ID))).unwrap().len();
            if length > 0 {
                let (_, verdict) = endpoint.exported();
                assert_eq!(verdict, Verdict::Intact(Ending::Cut), "{what}: what stood before");
                endpoint.restart();
                let length = usize::try_from(length).unwrap();
                assert!(
                    matches!(endpoint.put(length, b"x", false), Appended::Closed(_)),
                    "{what}"
                );
            }
        }
    }
}

#[test]
fn a_recording_without_seals_is_kept_and_nobody_vouches_for_it() {
    let endpoint = Endpoint::new(&[]);
    let cast = b"{\"version\":2,\"width\":80,\"height\":24}\n[0.5,\"o\",\"x\"]\n";
    assert!(matches!(
        endpoint.put(0, &cast[..10], false),
        Appended::Stored(10, TranscriptState::Open)
    ));
    assert_eq!(
        endpoint.put(10, &cast[10..], true),
        Appended::Stored(cast.len() as u64, TranscriptState::Plain)
    );
    assert!(!endpoint.files.signatures_path(&named(ID)).exists());
}

proptest! {
    // each case waits for the disk some dozens of times
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Chunks cut anywhere, syncs and deaths between them, and a signature that a power cut tore.
    #[test]
    fn it_verifies_whatever_is_killed_between_any_chunks(
        cuts in prop::collection::vec((1_usize..700, any::<bool>(), any::<bool>(), any::<bool>()), 1..40)
    ) {
        let key = Key::new(1);
        let mut endpoint = Endpoint::new(&[&key]);
        let bytes = recording(&key, 6, false);
        let mut at = 0;
        for (size, sync, kill, tear) in cuts {
            let piece = &bytes[at..bytes.len().min(at + size)];
            let appended = endpoint.put(at, piece, false);
            prop_assert!(matches!(appended, Appended::Stored(_, TranscriptState::Open)), "{appended:?}");
            at += piece.len();
            if sync {
                endpoint.files.sync_one(&named(ID), 9).unwrap();
            }
            if kill {
                endpoint.restart();
                if tear {
                    let path = endpoint.files.signatures_path(&named(ID));
                    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
                    file.write_all(b"[1.0000").unwrap();
                }
            }
        }
        endpoint.put(at, &bytes[at..], true);
        prop_assert_eq!(endpoint.exported().1, Verdict::Intact(Ending::Complete));
    }

    /// What was not said to be durable goes with the machine's power, to any byte, and the node sends it again.
    #[test]
    fn it_verifies_whatever_of_what_is_not_durable_a_power_cut_takes(
        cuts in prop::collection::vec((1_usize..700, any::<bool>(), any::<Option<u16>>()), 1..40)
    ) {
        let key = Key::new(1);
        let mut endpoint = Endpoint::new(&[&key]);
        let bytes = recording(&key, 6, false);
        let (mut at, mut durable) = (0, 0);
        for (size, sync, power_cut) in cuts {
            let piece = &bytes[at..bytes.len().min(at + size)];
            let appended = endpoint.put(at, piece, false);
            prop_assert!(matches!(appended, Appended::Stored(_, TranscriptState::Open)), "{appended:?}");
            at += piece.len();
            if sync {
                endpoint.files.sync_one(&named(ID), 9).unwrap();
                durable = at;
                prop_assert_eq!(endpoint.files.durable(&named(ID)), at as u64);
            }
            if let Some(kept) = power_cut {
                prop_assert!(endpoint.files.durable(&named(ID)) <= durable as u64);
                endpoint.restart();
                let left = durable + usize::from(kept) % (at - durable + 1);
                let file = OpenOptions::new().write(true).open(endpoint.files.path(&named(ID))).unwrap();
                file.set_len(left as u64).unwrap();
                if left < at {
                    let answer = endpoint.put(at, b"", false);
                    prop_assert_eq!(answer, Appended::WrongOffset(left as u64));
                }
                at = left;
            }
        }
        endpoint.put(at, &bytes[at..], true);
        prop_assert_eq!(endpoint.exported().1, Verdict::Intact(Ending::Complete));
    }
}
