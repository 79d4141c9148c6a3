//! Verification of the audit log: every alteration is found, at the same lines, by our verifier and by the one in Python
//! that was written from docs/audit-log.md alone.

use std::{fs, path::Path, process::Stdio};

use anyhow::{Context, Result, ensure};
use moorline_protocol::{
    audit::{Actor, ActorKind, Chain, Checkpoint, Event, EventKind, MAX_LINE_BYTES, Verifier},
    public_keys::{Keys, PublicKey},
};
use moorline_tests::python_program;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

/// 2026-11-22T00:00:00Z.
const START: u64 = 1_795_305_600_000;

/// A key that is the same in every run.
fn signer(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("32 bytes are a seed")
}

fn public(signer: &Ed25519KeyPair) -> PublicKey {
    PublicKey(
        signer
            .public_key()
            .as_ref()
            .try_into()
            .expect("a key has 32 bytes"),
    )
}

fn keys() -> Keys {
    Keys {
        endpoint: vec![public(&signer(1))],
        nodes: Vec::new(),
    }
}

fn event(text: &str) -> Event {
    let mut event = Event::new(
        EventKind::Call,
        Actor {
            kind: ActorKind::Operator,
            name: "alice".to_owned(),
            access_key: Some("AKIA".to_owned()),
        },
    );
    event.operation = Some("ssm:SendCommand".to_owned());
    event.read_only = Some(false);
    let parameters = json!({"Parameters": {"commands": [text]}, "TimeoutSeconds": -1, "Large": u64::MAX});
    event.parameters = parameters.as_object().cloned();
    event.nodes = vec!["mi-0123456789abcdef0".to_owned()];
    event.count = Some(3);
    event
}

/// Two events and a checkpoint, an event and a checkpoint.
fn log(seed: u8, word: &str) -> Vec<Vec<u8>> {
    let signer = signer(seed);
    let key = public(&signer).id();
    let mut chain = Chain::new();
    let mut lines = Vec::new();
    for (number, events) in [(1, 2), (2, 1)] {
        for _ in 0..events {
            let text = format!("{word} \"\\\u{8}\u{1f}é\u{7f}\u{2028}😀/ {}", lines.len());
            lines.push(chain.append(START + number, &event(&text)).into_bytes());
        }
        let sign = |text: &[u8]| {
            signer
                .sign(text)
                .as_ref()
                .try_into()
                .expect("a signature has 64 bytes")
        };
        lines.push(chain.checkpoint(START, Checkpoint { key, sign }).into_bytes());
    }
    lines
}

/// What a verifier says of a log.
#[derive(Debug, PartialEq)]
struct Judgement {
    verdict: String,
    lines: Vec<u64>,
}

fn ours(log: &[u8]) -> Judgement {
    let keys = keys();
    let mut verifier = Verifier::new(&keys);
    verifier.push(log);
    let outcome = verifier.finish();
    let verdict = if outcome.is_no_log {
        "unreadable"
    } else if outcome.is_intact() {
        "intact"
    } else {
        "altered"
    };
    let found = outcome.findings.iter().map(|finding| finding.line);
    Judgement {
        verdict: verdict.to_owned(),
        lines: if outcome.is_no_log {
            Vec::new()
        } else {
            found.collect()
        },
    }
}

/// What the verifier in Python says of each log, by one process.
async fn pythons(logs: Vec<Vec<u8>>) -> Result<Vec<Judgement>> {
    let folder = tempfile::tempdir()?;
    let keys_path = folder.path().join("keys.json");
    fs::write(&keys_path, keys().to_file())?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("verifier/verify_audit.py");
    let mut python = Command::new(python_program("python3")?)
        .arg(script)
        .arg("--cases")
        .arg("--keys")
        .arg(&keys_path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = python.stdin.take().context("no standard input")?;
    let mut stdout = python.stdout.take().context("no standard output")?;
    let feed = async move {
        for log in logs {
            stdin.write_all(format!("{}\n", log.len()).as_bytes()).await?;
            stdin.write_all(&log).await?;
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
        let (verdict, lines) = serde_json::from_str(line)?;
        anyhow::Ok(Judgement { verdict, lines })
    };
    said.lines().map(judgement).collect()
}

/// Both verifiers say the same of each case, and that it was altered.
async fn check(cases: Vec<(String, Vec<u8>)>) -> Result<()> {
    let (whats, logs): (Vec<String>, Vec<Vec<u8>>) = cases.into_iter().unzip();
    let judged: Vec<Judgement> = logs.iter().map(|log| ours(log)).collect();
    let others = pythons(logs).await?;
    ensure!(
        others.len() == judged.len(),
        "{} of {}",
        others.len(),
        judged.len()
    );
    for ((ours, other), what) in judged.iter().zip(&others).zip(&whats) {
        ensure!(ours == other, "{what}: we say {ours:?}, the other {other:?}");
        ensure!(ours.verdict != "intact", "{what}");
    }
    Ok(())
}

#[tokio::test]
async fn what_was_not_altered_is_intact_for_both() -> Result<()> {
    let log = log(1, "a").concat();
    let intact = ours(&log);
    assert_eq!(
        (intact.verdict.as_str(), intact.lines.as_slice()),
        ("intact", [].as_slice())
    );
    assert_eq!(pythons(vec![log]).await?, [intact]);
    Ok(())
}

#[tokio::test]
async fn every_bit_that_is_turned_is_found_by_both_at_the_same_lines() -> Result<()> {
    let log = log(1, "a").concat();
    let mut cases = Vec::new();
    for index in 0..log.len() {
        for bit in 0..8 {
            let mut altered = log.clone();
            altered[index] ^= 1 << bit;
            cases.push((format!("bit {bit} of byte {index}"), altered));
        }
    }
    check(cases).await
}

#[tokio::test]
async fn every_truncation_is_found_by_both_unless_it_ends_with_a_checkpoint() -> Result<()> {
    let lines = log(1, "a");
    let log = lines.concat();
    let signed = lines[..3].concat().len();
    let lengths = (0..log.len()).filter(|length| *length != signed);
    check(
        lengths
            .map(|length| (format!("{length} bytes"), log[..length].to_vec()))
            .collect(),
    )
    .await?;
    let cut = log[..signed].to_vec();
    let judged = ours(&cut);
    assert_eq!(judged.verdict, "intact");
    assert_eq!(pythons(vec![cut]).await?, [judged]);
    Ok(())
}

#[tokio::test]
async fn whatever_is_done_to_lines_is_found_by_both_at_the_same_lines() -> Result<()> {
    let (lines, other, forged) = (log(1, "a"), log(1, "b"), log(2, "a"));
    let mut cases = vec![
        ("signed by another key".to_owned(), forged.concat()),
        ("two logs".to_owned(), [lines.concat(), other.concat()].concat()),
        ("the second half".to_owned(), lines[3..].concat()),
    ];
    for at in 0..lines.len() {
        let mut case =
            |what: &str, altered: Vec<Vec<u8>>| cases.push((format!("{what} {at}"), altered.concat()));
        let mut without = lines.clone();
        let line = without.remove(at);
        case("without line", without.clone());
        for to in (0..lines.len()).filter(|to| *to != at) {
            let mut moved = without.clone();
            moved.insert(to, line.clone());
            case(&format!("to {to} was moved line"), moved);
        }
        let mut twice = lines.clone();
        twice.insert(at, line.clone());
        case("twice line", twice);
        for (whose, from) in [("another log", &other), ("a forger", &forged)] {
            let mut spliced = lines.clone();
            spliced[at].clone_from(&from[at]);
            if spliced != lines {
                case(&format!("from {whose} is line"), spliced);
            }
        }
        if at > 0 {
            case("joined at line", [&lines[..at], &other[at..]].concat());
        }
        let mut long = lines.clone();
        long.insert(at, [vec![b' '; MAX_LINE_BYTES], b"\n".to_vec()].concat());
        case("too long is line", long);
        let mut longest = lines.clone();
        longest.insert(at, [vec![b' '; MAX_LINE_BYTES - 1], b"\n".to_vec()].concat());
        case("as long as may be is line", longest);
    }
    for (this, that) in [
        ("\"index\":2", "\"index\":02"),
        ("00.001Z", "60.001Z"),
        ("11-22T", "02-30T"),
        ("2026-", "1969-"),
        ("-1,", "-0,"),
        ("-1,", "1e3,"),
        ("-1,", "1.0,"),
        ("-1,", "NaN,"),
        ("18446744073709551615", "18446744073709551616"),
        ("\\b", "\\u0008"),
        ("\\u001f", "\\u001F"),
        ("é", "\\u00e9"),
        ("é", "\\ud800"),
        ("/ 0", "\\/ 0"),
        ("\"count\":3", "\"count\":-3"),
        ("\"count\":3", "\"count\":null"),
        ("\"count\":3", "\"count\": 3"),
        ("\"count\":3", "\"count\":3,\"count\":3"),
        ("\"count\":3", "\"new\":3"),
        ("\"operator\"", "\"owner\""),
        ("\"name\":\"alice\"", "\"name\":1"),
        ("\"access_key\":\"AKIA\"", "\"access_key\":null"),
        ("\"nodes\":[\"", "\"nodes\":[1,\""),
        ("}\n", "}\r\n"),
    ] {
        let text = String::from_utf8(lines.concat())?;
        let altered = text.replacen(this, that, 1);
        ensure!(altered != text, "{this} is not there");
        cases.push((format!("{that} for {this}"), altered.into_bytes()));
    }
    check(cases).await
}
