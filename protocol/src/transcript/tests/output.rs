//! What the steps of a command wrote.

use super::super::{OutputError, OutputPiece, OutputReader, OutputStep, OutputStream};

const RECORDING: &str = concat!(
    "{\"version\":2,\"width\":80,\"height\":24}\n",
    "[0.000000,\"e\",\"{\\\"event\\\":\\\"step\\\",\\\"name\\\":\\\"one\\\",\\\"action\\\":\\\"aws:a\\\"}\"]\n",
    "[0.100000,\"o\",\"a\\r\\r\\nb\\r\"]\n",
    "[0.200000,\"e\",\"{\\\"event\\\":\\\"stderr\\\",\\\"data\\\":\\\"wrong\\\\r\\\\n\\\"}\"]\n",
    "[0.300000,\"o\",\"\\nc\"]\n",
    "[0.350000,\"e\",\"{\\\"event\\\":\\\"replaced\\\",\\\"bytes\\\":\\\"ff efbfbd e28\\\"}\"]\n",
    "[0.350000,\"o\",\"\u{fffd}\"]\n",
    "[0.350000,\"e\",\"{\\\"event\\\":\\\"replaced\\\",\\\"bytes\\\":\\\"ff e282\\\"}\"]\n",
    "[0.350000,\"o\",\"x\u{fffd}y\u{fffd}z\u{fffd}\"]\n",
    "[0.400000,\"e\",\"{\\\"event\\\":\\\"gap\\\",\\\"bytes\\\":7}\"]\n",
    "[0.500000,\"e\",\"{\\\"event\\\":\\\"step\\\",\\\"name\\\":\\\"one\\\",\\\"status\\\":\\\"Success\\\"}\"]\n",
    "[0.500000,\"e\",\"{\\\"event\\\":\\\"step\\\",\\\"name\\\":\\\"two\\\",\\\"status\\\":\\\"Skipped\\\"}\"]\n",
    "[0.600000,\"o\",\"d\\r\"]\n",
    "[0.700000,\"x\",\"0\"]\n",
);

fn bytes(stream: OutputStream, steps: &[&str], bytes: &[u8]) -> OutputPiece {
    OutputPiece::Bytes {
        stream,
        steps: steps
            .iter()
            .map(|&name| OutputStep {
                name: name.to_owned(),
                action: "aws:a".to_owned(),
            })
            .collect(),
        bytes: bytes.to_vec(),
    }
}

#[test]
fn output_is_as_the_steps_wrote_it_however_the_recording_is_cut() {
    for size in [1, 2, 7, 100, RECORDING.len()] {
        let mut reader = OutputReader::default();
        let mut pieces = Vec::new();
        for chunk in RECORDING.as_bytes().chunks(size) {
            assert!(!reader.has_exited());
            pieces.extend(reader.push(chunk).unwrap());
        }
        let expected = [
            bytes(OutputStream::Output, &["one"], b"a\r\nb"),
            bytes(OutputStream::Errors, &["one"], b"wrong\n"),
            bytes(OutputStream::Output, &["one"], b"\nc"),
            // what is no hex says nothing
            bytes(OutputStream::Output, &["one"], "\u{fffd}".as_bytes()),
            bytes(OutputStream::Output, &["one"], b"x\xffy\xe2\x82z\xef\xbf\xbd"),
            OutputPiece::Gap(7),
            bytes(OutputStream::Output, &[], b"d"),
            bytes(OutputStream::Output, &[], b"\r"),
        ];
        assert_eq!(pieces, expected, "by {size}");
        assert!(reader.has_exited());
    }
}

#[test]
fn a_recording_that_ends_without_an_exit_code_is_not_the_last() {
    let mut reader = OutputReader::default();
    reader
        .push(b"{\"version\":2,\"width\":80,\"height\":24}\n")
        .unwrap();
    reader
        .push(b"[1.000000,\"e\",\"{\\\"event\\\":\\\"end\\\",\\\"reason\\\":\\\"reboot\\\"}\"]\n")
        .unwrap();
    assert!(reader.has_ended() && !reader.has_exited());
}

#[test]
fn what_is_no_recording_is_an_error() {
    for (bad, line) in [
        ("x\n", 1),
        ("{\"version\":1}\n", 1),
        ("[0.000000,\"o\",\"x\"]\n", 1),
        ("{\"version\":2}\n[-1,\"o\",\"x\"]\n", 2),
        ("{\"version\":2}\n[1.000000,\"o\"]\n", 2),
    ] {
        let refused = OutputReader::default().push(bad.as_bytes());
        assert_eq!(refused, Err(OutputError::Form(line)), "{bad}");
    }
}
