use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn recorder() -> Recorder {
    Recorder::new("s-1".to_owned(), "/bin/sh".to_owned(), 1_700_000_000)
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
    recorder.finish(Duration::ZERO);
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
    recorder.finish(Duration::from_secs(1));
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
        assert!(
            grown <= LARGEST_EXPANSION * bytes.len() + EVENT_OVERHEAD_BYTES,
            "{grown}"
        );
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
        recorder.finish(Duration::ZERO);
        prop_assert_eq!(shown(&recorder), String::from_utf8_lossy(&bytes));
    }
}
