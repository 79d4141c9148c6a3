//! How fast what is signed is verified: the program on a transcript of full records, each countersigned, and on the log
//! of an endpoint with much to do.

use std::{
    fs,
    io::{BufWriter, Write},
    time::Instant,
};

use anyhow::{Context, Result};
use moorline_protocol::{
    audit::{self, Actor, ActorKind, Checkpoint, EventKind},
    public_keys::{Keys, NodeKey, PublicKey},
    transcript::{
        Code, Countersigner, Ending, Header, Origin, Receiver, RecordingId, RecordingKind, Sealer, Time,
        Weaver, event_line,
    },
};
use moorline_tests::Cli;
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::report::{Bound, Report};

const RUNS: usize = 5;
const RECORDS: u64 = 1600;
/// As the node closes a record, in bytes.
const RECORD_BYTES: usize = 256 * 1024;
/// A log with so many events to each checkpoint, of which a busy endpoint makes about one a second.
const AUDIT_SECONDS: u64 = 8000;
const AUDIT_CALLS: u64 = 50;
const NODE: &str = "mi-0123456789abcdef0";

/// In megabytes of the file for each second that the program runs, its start included.
pub(crate) async fn verify(report: &mut Report) -> Result<()> {
    let what = "verifying a transcript";
    if !report.wants(what) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (file, keys) = (folder.path().join("a.cast"), folder.path().join("keys"));
    let megabytes = write(&mut fs::File::create(&file)?, &keys)?;
    let (file, keys) = (file.to_str().context("a path")?, keys.to_str().context("a path")?);
    let mut rates = Vec::new();
    for _ in 0..RUNS {
        let began = Instant::now();
        Cli::without_endpoint()
            .run(&["transcript", "verify", file, "--keys", keys])
            .await?
            .success()?;
        rates.push(megabytes / began.elapsed().as_secs_f64());
    }
    report.row(what, "MB/s", Bound::AtLeast(200.0), 0.5, rates);
    Ok(())
}

/// The same of an audit log.
pub(crate) async fn verify_audit(report: &mut Report) -> Result<()> {
    let what = "verifying an audit log";
    if !report.wants(what) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (file, keys) = (folder.path().join("audit.jsonl"), folder.path().join("keys"));
    let endpoint = Ed25519KeyPair::from_seed_unchecked(&[2; 32])?;
    fs::write(&keys, keys_of(&endpoint, None)?.to_file())?;
    let megabytes = write_audit(&mut BufWriter::new(fs::File::create(&file)?), &endpoint)?;
    let (file, keys) = (file.to_str().context("a path")?, keys.to_str().context("a path")?);
    let mut rates = Vec::new();
    for _ in 0..RUNS {
        let began = Instant::now();
        Cli::without_endpoint()
            .run(&["audit", "verify", file, "--keys", keys])
            .await?
            .success()?;
        rates.push(megabytes / began.elapsed().as_secs_f64());
    }
    report.row(what, "MB/s", Bound::AtLeast(200.0), 0.5, rates);
    Ok(())
}

/// Writes an audit log; returns its megabytes.
fn write_audit(file: &mut impl Write, endpoint: &Ed25519KeyPair) -> Result<f64> {
    let mut call = audit::Event::new(
        EventKind::Call,
        Actor {
            kind: ActorKind::Operator,
            name: "alice".to_owned(),
            access_key: Some("AKIAIOSFODNN7EXAMPLE".to_owned()),
        },
    );
    call.peer = Some("192.0.2.7".to_owned());
    call.user_agent = Some("Boto3/1.40.0 md/Botocore#1.40.0 lang/python#3.13".to_owned());
    call.operation = Some("ssm:SendCommand".to_owned());
    call.read_only = Some(false);
    let parameters = serde_json::json!({
        "DocumentName": "AWS-RunShellScript",
        "InstanceIds": [NODE],
        "Parameters": {"commands": ["systemctl restart \"app\"\n"]},
        "TimeoutSeconds": 600,
    });
    call.parameters = parameters.as_object().cloned();
    call.nodes = vec![NODE.to_owned()];
    call.result = Some("ok".to_owned());
    call.request_id = Some("7c1b2f0e-4f0a-4b5e-9a43-3d2a0c7d9e11".to_owned());
    let key = public(endpoint)?.id();
    let (mut chain, mut length) = (audit::Chain::new(), 0);
    for second in 0..AUDIT_SECONDS {
        let millis = 1_795_305_600_000 + second * 1000;
        for at in 0..AUDIT_CALLS {
            let line = chain.append(millis + at, &call);
            length += line.len();
            file.write_all(line.as_bytes())?;
        }
        let sign = |text: &[u8]| sign(endpoint, text);
        let line = chain.checkpoint(millis + 999, Checkpoint { key, sign });
        length += line.len();
        file.write_all(line.as_bytes())?;
    }
    file.flush()?;
    Ok(length as f64 / 1e6)
}

fn public(key: &Ed25519KeyPair) -> Result<PublicKey> {
    Ok(PublicKey(key.public_key().as_ref().try_into()?))
}

fn sign(key: &Ed25519KeyPair, text: &[u8]) -> [u8; 64] {
    let signature = key.sign(text);
    signature
        .as_ref()
        .try_into()
        .expect("an Ed25519 signature has 64 bytes")
}

fn keys_of(endpoint: &Ed25519KeyPair, node: Option<&Ed25519KeyPair>) -> Result<Keys> {
    let node = node.map(|key| {
        anyhow::Ok(NodeKey {
            node: NODE.parse()?,
            key: public(key)?,
        })
    });
    Ok(Keys {
        endpoint: vec![public(endpoint)?],
        nodes: node.transpose()?.into_iter().collect(),
    })
}

/// Writes a transcript; returns its megabytes.
fn write(file: &mut fs::File, keys_path: &std::path::Path) -> Result<f64> {
    let node = Ed25519KeyPair::from_seed_unchecked(&[1; 32])?;
    let endpoint = Ed25519KeyPair::from_seed_unchecked(&[2; 32])?;
    fs::write(keys_path, keys_of(&endpoint, Some(&node))?.to_file())?;
    let header = header(public(&node)?)?;
    let id = header.origin.id.clone();
    let mut sealer = Sealer::new(id.clone());
    let mut receiver = Receiver::new(id.clone(), NODE.to_owned(), vec![public(&node)?]);
    let mut countersigner = Countersigner::new(id, public(&endpoint)?.id(), 0, None);
    let mut length = 0;
    let mut lines = header.to_line();
    for record in 0..=RECORDS {
        let mut time = Time::from_micros(record * 1_000_000);
        while record < RECORDS && lines.len() < RECORD_BYTES {
            time = Time::from_micros(time.as_micros() + 100);
            let output = "\u{1b}[01;34mdrwxr-xr-x\u{1b}[0m  2 root root 4096 \u{dc}bung.txt\r\n".repeat(60);
            lines.push_str(&event_line(time, Code::Output, &output));
        }
        sealer.push(lines.as_bytes());
        let seal = sealer.seal(time, record * 1000, |text| sign(&node, text));
        lines.push_str(&seal.unwrap_or_default());
        let mut taken = None;
        receiver.push(lines.as_bytes(), |position| taken = Some(position))?;
        let mut signatures: Vec<String> = taken
            .iter()
            .map(|at| countersigner.countersign(at, record * 1000, |text| sign(&endpoint, text)))
            .collect();
        if record == RECORDS {
            let end = receiver.end().context("no header")?;
            let close = countersigner.close(&end, record * 1000, Ending::Complete, |text| {
                sign(&endpoint, text)
            });
            signatures.push(close);
        }
        let mut export = Vec::new();
        let mut weaver = Weaver::new(signatures);
        weaver.push(lines.as_bytes(), &mut export);
        weaver.finish(&mut export);
        file.write_all(&export)?;
        length += export.len();
        lines.clear();
    }
    Ok(length as f64 / 1e6)
}

fn header(node_key: PublicKey) -> Result<Header> {
    Ok(Header {
        width: 80,
        height: 24,
        timestamp: None,
        title: None,
        command: None,
        origin: Origin {
            id: RecordingId::parse("bench-1")?,
            node: NODE.to_owned(),
            node_key: node_key.id(),
            kind: RecordingKind::StandardStream,
            document: None,
            document_version: None,
            operator: None,
            reason: None,
            user: None,
            parameters: None,
            follows: None,
            encryption: None,
        },
    })
}
