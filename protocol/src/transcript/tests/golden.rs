//! The bytes of the format. Ed25519 signatures are the same each time, so that whole files are.

use super::*;

#[test]
fn the_bytes_of_a_whole_transcript_are_those_of_format_1() {
    let site = Site::new();
    let recording = site.recording(&[vec![output(12_345, "a\u{1b}[0m\"\\\u{7f}\u{e9}\r\n")]], false);
    let lines = site.countersignatures(&recording, recording.len(), Ending::Complete);
    let export = String::from_utf8(weave(&recording, &lines, 100)).unwrap();
    let expected = include_str!("golden.cast");
    assert_eq!(export, expected);
}

#[test]
fn a_header_reads_as_it_was_written() {
    let site = Site::new();
    let mut header = site.header();
    header.title = Some("a title".to_owned());
    header.command = Some("top".to_owned());
    header.origin.reason = Some("ticket \"4711\"".to_owned());
    header.origin.parameters = Some(serde_json::Map::from_iter([("command".to_owned(), "***".into())]));
    header.origin.encryption = Some(Encryption {
        recipients: vec!["age1xyz".to_owned()],
        key: "YWdl".to_owned(),
    });
    let line = header.to_line();
    assert!(
        line.starts_with("{\"version\":2,\"width\":80,\"height\":24,\"timestamp\":1795000000,"),
        "{line}"
    );
    assert_eq!(Header::parse(line.as_bytes()), Ok(header));
}

#[test]
fn every_code_is_known_by_its_letter() {
    let codes = [
        (Code::Output, 'o'),
        (Code::Input, 'i'),
        (Code::Resize, 'r'),
        (Code::Marker, 'm'),
        (Code::Exit, 'x'),
        (Code::Ours, 'e'),
        (Code::Encrypted, 'z'),
    ];
    for (code, letter) in codes {
        let line = event_line(Time::from_micros(1_000_001), code, "text");
        assert_eq!(line, format!("[1.000001,\"{letter}\",\"text\"]\n"));
        let Ok(Line::Event(event)) = Line::parse(line.as_bytes()) else {
            panic!("{line}");
        };
        assert_eq!((event.code, event.text().as_str()), (Some(code), "text"));
    }
    let unknown = Line::parse(b"[0.000000,\"q\",\"\"]\n").unwrap();
    assert!(matches!(unknown, Line::Event(Event { code: None, .. })));
}

#[test]
fn a_line_has_one_spelling() {
    for bad in [
        "",
        "\n",
        "[]\n",
        "[0.000000,\"o\",\"x\"]",
        "[0.000000,\"o\",\"x\"]\r\n",
        "[ 0.000000,\"o\",\"x\"]\n",
        "[0.000000, \"o\",\"x\"]\n",
        "[0.00000,\"o\",\"x\"]\n",
        "[0.0000000,\"o\",\"x\"]\n",
        "[00.000000,\"o\",\"x\"]\n",
        "[.000000,\"o\",\"x\"]\n",
        "[-1.000000,\"o\",\"x\"]\n",
        "[12345678901.000000,\"o\",\"x\"]\n",
        "[0.000000,\"oo\",\"x\"]\n",
        "[0.000000,\"O\",\"x\"]\n",
        "[0.000000,\"o\",x]\n",
        "[0.000000,\"o\",\"]\n",
        "[0.000000,\"o\",\"x\"y\"]\n",
        "[0.000000,\"o\",\"\t\"]\n",
        "[0.000000,\"o\",\"\\x\"]\n",
        "[0.000000,\"o\",\"\\\"]\n",
        "[0.000000,\"o\",\"\\u12\"]\n",
        "[0.000000,\"o\",\"\\ud800\"]\n",
        "[0.000000,\"o\",\"\\uDfff\"]\n",
    ] {
        assert_eq!(Line::parse(bad.as_bytes()), Err(FormError::Event), "{bad}");
    }
    assert_eq!(Line::parse(b"[0.000000,\"o\",\"\xff\"]\n"), Err(FormError::Event));
    for good in [
        "\\u001b\\uD7ff\\ue000\\\"\\\\\\/\\b\\f\\n\\r\\t",
        "",
        "\u{1F600}",
        "]\u{7f}",
    ] {
        let line = format!("[9999999999.999999,\"o\",\"{good}\"]\n");
        assert!(Line::parse(line.as_bytes()).is_ok(), "{line}");
    }
}

#[test]
fn seals_and_countersignatures_have_one_spelling() {
    let export = include_str!("golden.cast");
    let lines: Vec<&str> = export.split_inclusive('\n').collect();
    for (line, error) in [
        (lines[2], FormError::Seal),
        (lines[3], FormError::Endpoint),
        (lines[4], FormError::Endpoint),
    ] {
        assert!(Line::parse(line.as_bytes()).is_ok());
        let words: Vec<&str> = line.split(' ').collect();
        let mut spellings = vec![line.replacen(' ', "  ", 1), line.replace("\"]", " \"]")];
        for index in 1..words.len() - 1 {
            for other in [
                format!("0{}", words[index]),
                words[index].to_uppercase(),
                String::new(),
            ] {
                if other != words[index] {
                    let mut changed = words.clone();
                    changed[index] = &other;
                    spellings.push(changed.join(" "));
                }
            }
        }
        for spelling in spellings {
            assert_eq!(Line::parse(spelling.as_bytes()), Err(error), "{spelling}");
        }
    }
}
