//! Both verifiers, on every case.

use std::{fs, path::Path, process::Stdio};

use anyhow::{Context, Result, ensure};
use moorline_protocol::{
    public_keys::Keys,
    transcript::{Finding, Verdict, Verifier},
};
use moorline_tests::python_program;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

use crate::{
    alterations::{Case, bits, rearrangements, splices, truncations},
    recording::{Recording, keys, keys_of},
};

/// What a verifier says of a file.
#[derive(Debug, PartialEq)]
struct Judgement {
    verdict: String,
    places: Vec<(u64, u64)>,
}

fn ours(keys: &Keys, file: &[u8]) -> Judgement {
    let mut verifier = Verifier::new(keys.clone());
    verifier.push(file);
    let outcome = verifier.finish();
    let verdict = match outcome.verdict {
        Verdict::Intact(_) => "intact",
        Verdict::Altered => "altered",
        Verdict::Unreadable(_) => "unreadable",
    };
    let place = |finding: &Finding| (finding.line, finding.record);
    Judgement {
        verdict: verdict.to_owned(),
        places: outcome.findings.iter().map(place).collect(),
    }
}

/// What the verifier in Python says of each file, by one process.
async fn pythons(keys: &Keys, files: Vec<Vec<u8>>) -> Result<Vec<Judgement>> {
    let folder = tempfile::tempdir()?;
    let keys_path = folder.path().join("keys.json");
    fs::write(&keys_path, keys.to_file())?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("verifier/verify_transcript.py");
    let mut python = Command::new(python_program("python3")?)
        .arg(script)
        .args(["--cases", "--keys"])
        .arg(&keys_path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = python.stdin.take().context("no standard input")?;
    let mut stdout = python.stdout.take().context("no standard output")?;
    let feed = async move {
        for file in files {
            stdin.write_all(format!("{}\n", file.len()).as_bytes()).await?;
            stdin.write_all(&file).await?;
        }
        drop(stdin);
        anyhow::Ok(())
    };
    let mut said = String::new();
    let (fed, read) = tokio::join!(feed, stdout.read_to_string(&mut said));
    fed?;
    read?;
    ensure!(python.wait().await?.success());
    let judgement = |line: &str| {
        let (verdict, places) = serde_json::from_str(line)?;
        anyhow::Ok(Judgement { verdict, places })
    };
    said.lines().map(judgement).collect()
}

/// Our verifier finds each case where it was made, and the other one the same places.
async fn check(cases: Vec<Case>) -> Result<()> {
    let keys = keys();
    let mut judged = Vec::new();
    for case in &cases {
        let judgement = ours(&keys, &case.file);
        if let Some((line, record)) = judgement.places.first() {
            ensure!(
                case.lines.contains(line) && case.records.contains(record),
                "{}: found in line {line}, record {record}; expected in {:?}, {:?}",
                case.what,
                case.lines,
                case.records
            );
        } else {
            let is_header = judgement.verdict == "unreadable" && *case.lines.start() == 1;
            ensure!(is_header, "{}: {judgement:?}", case.what);
        }
        judged.push(judgement);
    }
    let (whats, files): (Vec<String>, Vec<Vec<u8>>) =
        cases.into_iter().map(|case| (case.what, case.file)).unzip();
    let others = pythons(&keys, files).await?;
    ensure!(others.len() == judged.len());
    for ((ours, other), what) in judged.iter().zip(&others).zip(&whats) {
        ensure!(ours == other, "{what}: we say {ours:?}, the other {other:?}");
    }
    Ok(())
}

fn recordings() -> [Recording; 2] {
    [Recording::new("alice-1", false), Recording::new("alice-1", true)]
}

#[tokio::test]
async fn what_was_not_altered_is_intact_for_both_verifiers() -> Result<()> {
    let files: Vec<Vec<u8>> = recordings().iter().map(Recording::bytes).collect();
    let others = pythons(&keys(), files.clone()).await?;
    for (file, other) in files.iter().zip(others) {
        assert_eq!(ours(&keys(), file).verdict, "intact");
        assert_eq!(other, ours(&keys(), file));
    }
    Ok(())
}

#[tokio::test]
async fn every_bit_that_is_turned_is_found_and_named_alike_by_both_verifiers() -> Result<()> {
    let [complete, cut] = recordings();
    check(bits(&complete, 0)).await?;
    // up to its end it is like the other
    check(bits(&cut, cut.lines.len() - 2)).await
}

#[tokio::test]
async fn of_a_command_s_recording_too_every_bit_and_every_byte_that_is_cut_off_is_found_and_named()
-> Result<()> {
    let command = Recording::of_command();
    assert_eq!(ours(&keys(), &command.bytes()).verdict, "intact");
    check(bits(&command, 0)).await?;
    check(truncations(&command)).await?;
    check(rearrangements(&command)).await
}

#[tokio::test]
async fn every_truncation_is_found_and_named_alike_by_both_verifiers() -> Result<()> {
    for recording in recordings() {
        check(truncations(&recording)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn lines_and_records_that_are_missing_doubled_or_moved_are_found_and_named_alike() -> Result<()> {
    for recording in recordings() {
        check(rearrangements(&recording)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn parts_of_another_recording_and_replays_are_found_and_named_alike() -> Result<()> {
    for recording in recordings() {
        check(splices(&recording, &Recording::new("bob-2", false))).await?;
    }
    Ok(())
}

#[tokio::test]
async fn with_the_keys_of_others_nothing_is_intact() -> Result<()> {
    let file = Recording::new("alice-1", false).bytes();
    for (keys, line) in [(keys_of(3, 2), 1), (keys_of(1, 3), 5), (keys_of(3, 3), 1)] {
        let judgement = ours(&keys, &file);
        assert_eq!(judgement.verdict, "altered");
        assert_eq!(judgement.places.first(), Some(&(line, 1)));
        assert_eq!(pythons(&keys, vec![file.clone()]).await?, [judgement]);
    }
    Ok(())
}

/// What JSON leaves open, in a member that means nothing and in one that does.
#[tokio::test]
async fn whatever_stands_in_a_header_both_verifiers_read_the_same() -> Result<()> {
    let mut cases = vec![
        "1e308",
        "1e309",
        "-1e999",
        "-0",
        "1e400",
        "0.1e-400",
        "NaN",
        "Infinity",
        "01",
        "+1",
        "1.",
        ".5",
        "tru",
        "\"\\ud83d\\ude00\"",
        "\"\\ud83d\"",
        "\"\\ude00\\ud83d\"",
        "\"\\uD800x\"",
        "\"\\u0000\"",
        "\"\t\"",
        "{\"\\udc00\":1}",
        "{\"a\":1,\"a\":\"\\udc00\"}",
        "{\"a\":\"\\udc00\",\"a\":1}",
        "[1,]",
        "{}",
        "[]",
        "'x'",
        "\u{feff}1",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect::<Vec<_>>();
    for depth in [125, 126, 127, 128, 900, 100_000] {
        cases.push("[".repeat(depth) + &"]".repeat(depth));
        cases.push("{\"a\":".repeat(depth) + "1" + &"}".repeat(depth));
    }
    for digits in [19, 20, 299, 301, 308, 309, 310, 5000] {
        cases.push("9".repeat(digits));
        cases.push(format!("-{}", "9".repeat(digits)));
    }
    let recording = Recording::new("alice-1", false);
    let with = |header: String| [header.into_bytes(), recording.lines[1..].concat()].concat();
    let header = String::from_utf8(recording.lines[0].clone())?;
    let mut files = Vec::new();
    for value in &cases {
        files.push(with(header.replacen('{', &format!("{{\"x\":{value},"), 1)));
        files.push(with(header.replacen(
            "\"width\":80",
            &format!("\"width\":{value}"),
            1,
        )));
        files.push(with(header.replacen(
            "\"width\":80",
            &format!("\"width\":{value},\"width\":80"),
            1,
        )));
    }
    let others = pythons(&keys(), files.clone()).await?;
    ensure!(others.len() == files.len());
    let is_read = |one: &Judgement| one.verdict != "unreadable";
    ensure!(others.iter().any(is_read) && !others.iter().all(is_read));
    for (file, other) in files.iter().zip(others) {
        let what = String::from_utf8_lossy(file)
            .chars()
            .take(100)
            .collect::<String>();
        let ours = ours(&keys(), file);
        ensure!(ours == other, "{what}: we say {ours:?}, the other {other:?}");
    }
    Ok(())
}
