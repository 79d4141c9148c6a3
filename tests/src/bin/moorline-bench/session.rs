//! Sessions: first prompt, keystroke, throughput.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use moorline_tests::{Cli, Endpoint, Node};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    client::{Session, api},
    report::{Bound, Report},
};

const PROMPTS: usize = 40;
const KEYSTROKES: usize = 500;
const TRANSFERS: usize = 3;
const TRANSFER_BYTES: usize = 64 * 1024 * 1024;

pub(crate) async fn first_prompt(report: &mut Report, endpoint: &Endpoint, node: &Node) -> Result<()> {
    let what = "StartSession to first prompt byte at the client (median)";
    if !report.wants(what) {
        return Ok(());
    }
    let client = api(endpoint);
    let mut samples = Vec::new();
    for _ in 0..PROMPTS {
        let began = Instant::now();
        let mut session = Session::start(&client, endpoint, node.id(), "sh").await?;
        session.output().await?;
        samples.push(began.elapsed().as_secs_f64() * 1000.0);
        session.end(&client, endpoint).await?;
    }
    report.row(what, "ms", Bound::AtMost(60.0), 0.5, samples);
    Ok(())
}

pub(crate) async fn keystroke(report: &mut Report, endpoint: &Endpoint, node: &Node) -> Result<()> {
    let what = "keystroke to its echo through agent and endpoint (p99)";
    if !report.wants(what) {
        return Ok(());
    }
    let client = api(endpoint);
    let mut session = Session::start(&client, endpoint, node.id(), "echo ready; exec cat").await?;
    session.until(b"ready").await?;
    let mut samples = Vec::new();
    for index in 0..KEYSTROKES {
        // A person types with pauses; so that none of them is measured with what the last one left.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let key = [b'a' + u8::try_from(index % 26)?];
        let began = Instant::now();
        session.type_text(&key).await?;
        session.until(&key).await?;
        samples.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    report.row(what, "ms", Bound::AtMost(5.0), 0.99, samples);
    session.end(&client, endpoint).await
}

pub(crate) async fn throughput(report: &mut Report, endpoint: &Endpoint, node: &Node) -> Result<()> {
    let what = "session output through the endpoint to our CLI (median)";
    if !report.wants(what) {
        return Ok(());
    }
    let mut samples = Vec::new();
    for _ in 0..TRANSFERS {
        samples.push(transfer(endpoint, node).await?);
    }
    report.row(what, "MB/s", Bound::AtLeast(20.0), 0.5, samples);
    Ok(())
}

/// Recorded output of a program on the node, to a pipe here.
async fn transfer(endpoint: &Endpoint, node: &Node) -> Result<f64> {
    let mut command = Cli::of(endpoint).command(&["shell", node.id()])?;
    let mut shell = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = shell.stdin.take().context("no standard input")?;
    let mut stdout = shell.stdout.take().context("no standard output")?;
    let line =
        format!("stty -echo; echo beg''in; head -c {TRANSFER_BYTES} /dev/zero | tr '\\0' x; echo; exit\n");
    stdin.write_all(line.as_bytes()).await?;
    let mut buffer = vec![0; 256 * 1024];
    let mut seen = Vec::new();
    while !seen.windows(5).any(|window| window == b"begin") {
        let length = stdout.read(&mut buffer).await?;
        ensure!(length > 0, "the shell ended early");
        seen.extend_from_slice(buffer.get(..length).unwrap_or_default());
    }
    let began = Instant::now();
    let mut total = 0;
    while total < TRANSFER_BYTES {
        let length = stdout.read(&mut buffer).await?;
        ensure!(
            length > 0,
            "the shell ended after {total} of {TRANSFER_BYTES} bytes"
        );
        total += buffer
            .get(..length)
            .unwrap_or_default()
            .iter()
            .filter(|byte| **byte == b'x')
            .count();
    }
    let seconds = began.elapsed().as_secs_f64();
    drop(stdin);
    #[expect(clippy::cast_precision_loss, reason = "a size below 2^52")]
    let megabytes = TRANSFER_BYTES as f64 / 1e6;
    shell.kill().await.ok();
    Ok(megabytes / seconds)
}
