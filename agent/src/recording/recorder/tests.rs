use moorline_protocol::transcript::{OutputPiece, OutputReader, OutputStream, Position, Receiver};
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn about() -> About {
    About {
        follows: None,
        id: RecordingId::parse("s-1").unwrap(),
        node: "mi-0123456789abcdef0".to_owned(),
        kind: RecordingKind::StandardStream,
        document: "SSM-SessionManagerRunShell".to_owned(),
        document_version: None,
        operator: Some("arn:moorline:iam:::user/alice".to_owned()),
        reason: Some("ticket 4711".to_owned()),
        user: Some("app".to_owned()),
        parameters: Map::new(),
        command: "/bin/sh".to_owned(),
        unix_secs: 1_700_000_000,
    }
}

fn recorder() -> Recorder {
    Recorder::new(about(), None)
}

fn lines(recorder: &Recorder) -> Vec<Value> {
    std::str::from_utf8(&recorder.written)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn shown(recorder: &Recorder) -> String {
    let texts = lines(recorder);
    texts
        .iter()
        .skip(1)
        .filter(|event| event[1] == "o")
        .map(|event| event[2].as_str().unwrap())
        .collect()
}

#[test]
fn the_header_has_the_size_that_was_set_before_the_first_output() {
    let mut recorder = recorder();
    recorder.resize(Duration::from_millis(1), Size { cols: 120, rows: 40 });
    assert!(recorder.written.is_empty());
    recorder.output(Duration::from_micros(1_000_042), b"$ ");
    recorder.resize(Duration::from_secs(2), Size { cols: 120, rows: 40 });
    recorder.resize(Duration::from_secs(3), Size { cols: 90, rows: 30 });
    assert_eq!(
        std::str::from_utf8(&recorder.written).unwrap(),
        concat!(
            r#"{"version":2,"width":120,"height":40,"timestamp":1700000000,"command":"/bin/sh","title":"s-1"}"#,
            "\n[1.000042,\"o\",\"$ \"]\n[3.000000,\"r\",\"90x30\"]\n"
        )
    );
}

#[test]
fn a_recording_without_output_still_has_its_header() {
    let mut recorder = recorder();
    recorder.finish(Duration::ZERO, None, None, 0);
    assert_eq!(lines(&recorder).len(), 1);
}

#[test]
fn a_character_that_is_cut_waits_for_its_end() {
    let mut recorder = recorder();
    let bytes = "a€🚢".as_bytes();
    for byte in bytes {
        recorder.output(Duration::ZERO, &[*byte]);
    }
    let events: Vec<String> = lines(&recorder)
        .iter()
        .skip(1)
        .map(|e| e[2].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(events, ["a", "€", "🚢"]);
}

#[test]
fn a_character_that_never_ends_is_replaced_when_the_session_ends() {
    let mut recorder = recorder();
    recorder.output(Duration::ZERO, b"x\xe2\x82");
    assert_eq!(shown(&recorder), "x");
    recorder.finish(Duration::from_secs(1), None, None, 0);
    assert_eq!(shown(&recorder), "x\u{fffd}");
}

#[test]
fn control_characters_quotes_and_backslashes_are_escaped() {
    let mut recorder = recorder();
    let all: Vec<u8> = (0..=0x7f).collect();
    recorder.output(Duration::ZERO, &all);
    assert_eq!(shown(&recorder).as_bytes(), all);
}

#[test]
fn an_event_never_grows_beyond_its_stated_bound() {
    let mut recorder = recorder();
    recorder.output(Duration::ZERO, b"$");
    for bytes in [vec![1_u8; 1000], vec![0xff; 1000], vec![b'x'; 1000]] {
        let before = recorder.written.len();
        recorder.output(Duration::from_secs(86_400), &bytes);
        let grown = recorder.written.len() - before;
        assert!(grown <= 6 * bytes.len() + 64, "{grown}");
    }
}

/// Bytes that are text, nearly text, or no text.
fn output() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<char>().prop_map(|c| c.to_string().into_bytes()),
        proptest::collection::vec(any::<u8>(), 0..6),
        proptest::collection::vec(0x80_u8..=0xff, 0..5),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn the_events_together_are_the_lossy_text_of_the_output(
        bytes in output(),
        cuts in proptest::collection::vec(1_usize..7, 0..80),
    ) {
        let mut recorder = recorder();
        let mut rest = bytes.as_slice();
        for cut in cuts {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            recorder.output(Duration::ZERO, now);
            rest = later;
        }
        recorder.output(Duration::ZERO, rest);
        recorder.finish(Duration::ZERO, None, None, 0);
        prop_assert_eq!(shown(&recorder), String::from_utf8_lossy(&bytes));
    }
}

/// A key, and a recorder that seals with it.
fn sealing() -> (tempfile::TempDir, Recorder) {
    let dir = tempfile::tempdir().unwrap();
    let key = TranscriptKey::make(dir.path()).unwrap();
    (dir, Recorder::new(about(), Some(key)))
}

/// What the endpoint says to a recording.
fn receive(dir: &tempfile::TempDir, recorder: &Recorder) -> Vec<Position> {
    let key = TranscriptKey::load(dir.path()).unwrap().unwrap().public();
    let mut receiver = Receiver::new(about().id, about().node, vec![key]);
    let mut seals = Vec::new();
    receiver.push(&recorder.written, |seal| seals.push(seal)).unwrap();
    seals
}

#[test]
fn a_record_is_closed_after_a_second_of_activity_and_there_is_none_at_rest() {
    let (dir, mut recorder) = sealing();
    assert_eq!(recorder.seal_due(), None);
    let at = Duration::from_millis;
    recorder.output(at(300), b"$ ");
    recorder.output(at(900), b"l");
    assert_eq!(recorder.seal_due(), Some(at(1300)));
    recorder.seal_if_due(at(1299), 1);
    assert!(receive(&dir, &recorder).is_empty());
    recorder.seal_if_due(at(1300), 2);
    assert_eq!(recorder.seal_due(), None);
    recorder.seal_if_due(at(86_400_000), 3);
    assert_eq!(receive(&dir, &recorder).len(), 1);
    recorder.finish(at(86_400_001), Some(0), None, 4);
    let seals = receive(&dir, &recorder);
    assert_eq!(seals.last().unwrap().length, recorder.written.len() as u64);
    assert!(
        recorder.written.len() < 2_000,
        "a day at rest: {}",
        recorder.written.len()
    );
}

#[test]
fn a_record_is_closed_when_it_is_long() {
    let (dir, mut recorder) = sealing();
    for _ in 0..256 {
        recorder.output(Duration::from_millis(1), &[b'x'; 32 * 1024]);
        recorder.seal_if_due(Duration::from_millis(1), 1);
    }
    recorder.finish(Duration::from_millis(2), None, None, 1);
    let seals = receive(&dir, &recorder);
    assert!((7..=9).contains(&seals.len()), "{}", seals.len());
}

#[test]
fn the_header_tells_who_did_what_where_and_why() {
    let (dir, mut recorder) = sealing();
    recorder.resize(Duration::ZERO, Size { cols: 120, rows: 40 });
    recorder.finish(Duration::ZERO, Some(3), Some("the node is shutting down"), 1);
    let key = TranscriptKey::load(dir.path()).unwrap().unwrap().public().id();
    let header = &lines(&recorder)[0];
    let expected = serde_json::json!({
        "format": 1, "id": "s-1", "node": "mi-0123456789abcdef0", "node_key": key.to_string(),
        "kind": "Standard_Stream", "document": "SSM-SessionManagerRunShell",
        "operator": "arn:moorline:iam:::user/alice", "reason": "ticket 4711", "user": "app",
    });
    assert_eq!(header["moorline"], expected);
    assert_eq!(
        (header["width"].clone(), header["height"].clone()),
        (120.into(), 40.into())
    );
    let events: Vec<Value> = lines(&recorder)[1..3]
        .iter()
        .map(|line| line[2].clone())
        .collect();
    assert_eq!(
        events,
        ["3", r#"{"event":"end","reason":"the node is shutting down"}"#]
    );
}

#[test]
fn what_there_was_no_room_for_is_a_sealed_gap_that_says_how_much() {
    let (dir, mut recorder) = sealing();
    recorder.output(Duration::ZERO, b"before");
    recorder.skip(100);
    recorder.skip(23);
    recorder.output(Duration::from_secs(1), b"after");
    recorder.skip(7);
    recorder.finish(Duration::from_secs(2), None, None, 1);
    assert_eq!(receive(&dir, &recorder).len(), 1);
    let gaps: Vec<u64> = lines(&recorder)
        .iter()
        .filter(|line| line[1] == "e")
        .map(|line| {
            let event: Value = serde_json::from_str(line[2].as_str().unwrap()).unwrap();
            assert_eq!(event["event"], "gap");
            event["bytes"].as_u64().unwrap()
        })
        .collect();
    assert_eq!(gaps, [123, 7]);
    assert_eq!(shown(&recorder), "beforeafter");
}

proptest! {
    #[test]
    fn whatever_is_shown_the_endpoint_takes_every_record(
        pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..200), 0_u64..1_500), 0..40)
    ) {
        let (dir, mut recorder) = sealing();
        let mut at = Duration::ZERO;
        for (piece, pause) in pieces {
            recorder.output(at, &piece);
            at += Duration::from_millis(pause);
            recorder.seal_if_due(at, 1);
        }
        recorder.finish(at, Some(0), None, 1);
        let seals = receive(&dir, &recorder);
        prop_assert_eq!(seals.last().unwrap().length, recorder.written.len() as u64);
    }
}

/// The codes and texts of all events, seals left out.
fn events(lines: &[Value]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    lines
        .iter()
        .filter(|line| line.is_array() && line[1] != "s")
        .map(|line| (text(&line[1]), text(&line[2])))
        .collect()
}

fn event(code: &str, text: &str) -> (String, String) {
    (code.to_owned(), text.to_owned())
}

#[test]
fn a_secret_is_hidden_in_output_input_and_errors_and_counted() {
    let mut recorder = recorder().masking(&["hunter2".to_owned()]);
    let at = Duration::ZERO;
    recorder.output(at, b"pw is hun");
    recorder.output(at, b"ter2.");
    recorder.input(at, b"hunter2");
    recorder.errors(at, "ü hunter2 hu".as_bytes());
    assert_eq!(recorder.held_bytes(), 2);
    recorder.finish(at, Some(1), None, 0);
    let masked = event("e", r#"{"event":"masked","bytes":7}"#);
    assert_eq!(
        events(&lines(&recorder)),
        [
            event("o", "pw is "),
            event("o", MASK),
            masked.clone(),
            event("o", "."),
            event("i", MASK),
            masked.clone(),
            event("e", r#"{"event":"stderr","data":"ü "}"#),
            event("e", r#"{"event":"stderr","data":"***"}"#),
            masked,
            event("e", r#"{"event":"stderr","data":" "}"#),
            event("e", r#"{"event":"stderr","data":"hu"}"#),
            event("x", "1"),
        ]
    );
}

#[test]
fn output_that_waits_to_be_no_secret_is_recorded_when_it_is_wanted() {
    let mut recorder = recorder().masking(&["hunter2".to_owned()]);
    recorder.output(Duration::ZERO, b"hunt");
    assert_eq!((shown(&recorder), recorder.held_bytes()), (String::new(), 4));
    recorder.release(Duration::ZERO);
    assert_eq!((shown(&recorder), recorder.held_bytes()), ("hunt".to_owned(), 0));
}

#[test]
fn an_encrypted_recording_is_sealed_shows_nothing_and_opens_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let key = TranscriptKey::make(dir.path()).unwrap();
    let data_key = DataKey::new([9; 32]);
    let encryption = Encryption {
        recipients: vec!["age1example".to_owned()],
        key: "AAAA".to_owned(),
    };
    let mut recorder = Recorder::new(about(), Some(key)).encrypted(&data_key, encryption);
    for number in 0..5_000_u32 {
        let at = Duration::from_millis(u64::from(number));
        recorder.output(
            at,
            format!("secret line {number} of the plain text\r\n").as_bytes(),
        );
        recorder.seal_if_due(at, 1);
    }
    recorder.finish(Duration::from_secs(6), Some(0), None, 1);
    let seals = receive(&dir, &recorder);
    assert!((5..=7).contains(&seals.len()), "{}", seals.len());
    assert_eq!(seals.last().unwrap().length, recorder.written.len() as u64);
    assert_eq!(recorder.waiting(), recorder.written.len());
    let written = lines(&recorder);
    assert!(written[0]["title"].is_null() && written[0]["command"].is_null());
    assert!(written[1..].iter().all(|line| line[1] == "z" || line[1] == "s"));
    let mut decryptor = moorline_protocol::transcript::Decryptor::new(&data_key, about().id);
    let mut plain = Vec::new();
    for (_, text) in events(&written) {
        plain.extend(decryptor.decrypt(&text).unwrap());
    }
    let plain = String::from_utf8(plain).unwrap();
    assert_eq!(plain.lines().count(), 5_001);
    assert!(plain.contains("secret line 4999 of") && plain.ends_with("[6.000000,\"x\",\"0\"]\n"));
}

#[test]
fn a_recorded_line_ends_as_on_a_terminal() {
    assert_eq!(as_on_terminal(b"a\nb\n\n"), b"a\r\nb\r\n\r\n");
}

proptest! {
    #[test]
    fn what_a_command_wrote_is_read_from_its_recording_byte_for_byte(
        chunks in proptest::collection::vec(
            (
                any::<bool>(),
                prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..40),
                    proptest::collection::vec(
                        prop_oneof![Just(b'\r'), Just(b'\n'), Just(0xef), Just(0xbf), Just(0xbd), Just(b'a')],
                        0..40,
                    ),
                ],
            ),
            0..12,
        ),
        cut in 1_usize..200,
    ) {
        let about = About { kind: RecordingKind::Command, ..about() };
        let mut recorder = Recorder::new(about, None);
        recorder.begin(Duration::ZERO);
        let mut written = [Vec::new(), Vec::new()];
        for (is_error, bytes) in &chunks {
            let shown = as_on_terminal(bytes);
            match is_error {
                false => recorder.output(Duration::ZERO, &shown),
                true => recorder.errors(Duration::ZERO, &shown),
            }
            written[usize::from(*is_error)].extend_from_slice(bytes);
        }
        recorder.finish(Duration::ZERO, Some(0), None, 0);
        let mut reader = OutputReader::default();
        let mut read = [Vec::new(), Vec::new()];
        for piece in recorder.written.chunks(cut) {
            for piece in reader.push(piece).unwrap() {
                let OutputPiece::Bytes { stream, bytes, .. } = piece else {
                    panic!("{piece:?}");
                };
                read[usize::from(stream == OutputStream::Errors)].extend_from_slice(&bytes);
            }
        }
        prop_assert!(reader.has_exited());
        prop_assert_eq!(read, written);
    }
}
