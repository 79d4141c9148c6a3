//! Sessions: first prompt, keystroke, throughput.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use moorline_ssm::command::{CancelCommand, CancelCommandRequest, SendCommand, SendCommandRequest};
use moorline_tests::{Cli, Endpoint, Node};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin},
};

use crate::{
    client::{Session, api},
    report::{Bound, Report},
};

const PROMPTS: usize = 40;
const KEYSTROKES: usize = 500;
const TRANSFERS: usize = 3;
const TRANSFER_BYTES: usize = 200_000_000;
const BURN_A_CORE: &str = "while :; do :; done";

pub(crate) async fn first_prompt(report: &mut Report, endpoint: &Endpoint, node: &Node) -> Result<()> {
    let what = "StartSession to first prompt byte at the client";
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
    let median = format!("{what} (median)");
    report.row(&median, "ms", Bound::AtMost(40.0), 0.5, samples.clone());
    report.row(
        &format!("{what} (p99)"),
        "ms",
        Bound::AtMost(120.0),
        0.99,
        samples,
    );
    Ok(())
}

pub(crate) async fn keystroke(report: &mut Report, endpoint: &Endpoint, node: &Node) -> Result<()> {
    let what = "keystroke to its echo through agent and endpoint";
    let beside = "keystroke to its echo beside a bulk stream and a command that burns a core (p99)";
    if report.wants(what) {
        let samples = echoes(endpoint, node).await?;
        let median = format!("{what} (median)");
        report.row(&median, "ms", Bound::AtMost(1.0), 0.5, samples.clone());
        report.row(&format!("{what} (p99)"), "ms", Bound::AtMost(5.0), 0.99, samples);
    }
    if report.wants(beside) {
        let client = api(endpoint);
        let burning = send_script(endpoint, node, BURN_A_CORE).await?;
        let mut bulk = bulk_output(endpoint, node).await?;
        let samples = echoes(endpoint, node).await?;
        report.row(beside, "ms", Bound::AtMost(20.0), 0.99, samples);
        bulk.kill().await?;
        let cancel = CancelCommandRequest {
            command_id: Some(burning),
            ..Default::default()
        };
        let credentials = Some(endpoint.api().credentials());
        client.call::<CancelCommand>(credentials, &cancel).await?;
    }
    Ok(())
}

pub(crate) async fn echoes(endpoint: &Endpoint, node: &Node) -> Result<Vec<f64>> {
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
    session.end(&client, endpoint).await?;
    Ok(samples)
}

/// A command on the node that does nothing else for as long as it is let.
async fn send_script(endpoint: &Endpoint, node: &Node, script: &str) -> Result<String> {
    let input = SendCommandRequest {
        document_name: Some("AWS-RunShellScript".to_owned()),
        instance_ids: Some(vec![node.id().to_owned()]),
        parameters: Some([("commands".to_owned(), vec![script.to_owned()])].into()),
        ..Default::default()
    };
    let credentials = Some(endpoint.api().credentials());
    let sent = api(endpoint).call::<SendCommand>(credentials, &input).await?;
    let command = sent.command.context("no command")?;
    command.command_id.context("no command id")
}

/// Another session, whose program puts out as much as is taken; to a pipe that nobody holds up.
async fn bulk_output(endpoint: &Endpoint, node: &Node) -> Result<Child> {
    let mut shell = shell(endpoint, node)?;
    let mut stdin = shell.stdin.take().context("no standard input")?;
    let mut stdout = shell.stdout.take().context("no standard output")?;
    stdin.write_all(b"tr '\\0' x < /dev/zero\n").await?;
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    while total < 10 * 1024 * 1024 {
        let length = stdout.read(&mut buffer).await?;
        ensure!(length > 0, "the shell ended early");
        total += length;
    }
    tokio::spawn(async move {
        let _stdin = stdin;
        while let Ok(1..) = stdout.read(&mut buffer).await {}
    });
    Ok(shell)
}

fn shell(endpoint: &Endpoint, node: &Node) -> Result<Child> {
    let mut command = Cli::of(endpoint).command(&["shell", node.id()])?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::null()).kill_on_drop(true);
    Ok(command.spawn()?)
}

pub(crate) async fn throughput(report: &mut Report, endpoint: &Endpoint, node: &Node) -> Result<()> {
    let what = "`cat` of 200 MB through the endpoint to our CLI, recorded (median)";
    if !report.wants(what) {
        return Ok(());
    }
    let file = node.dir().join("200-megabytes");
    tokio::fs::write(&file, vec![b'x'; TRANSFER_BYTES]).await?;
    let mut samples = Vec::new();
    for _ in 0..TRANSFERS {
        let transfer = Transfer::of(endpoint, node, &file, TRANSFER_BYTES).await?;
        samples.push(transfer.end().await?);
    }
    report.row(what, "MB/s", Bound::AtLeast(40.0), 0.5, samples);
    Ok(())
}

/// Output of a program on the node, to a pipe here, when all of it has come.
pub(crate) struct Transfer {
    /// MB/s.
    rate: f64,
    shell: Child,
    stdin: ChildStdin,
}

impl Transfer {
    /// Of a file in which this byte stands so often: `x`.
    pub(crate) async fn of(endpoint: &Endpoint, node: &Node, file: &Path, count: usize) -> Result<Self> {
        let mut shell = shell(endpoint, node)?;
        let mut stdin = shell.stdin.take().context("no standard input")?;
        let mut stdout = shell.stdout.take().context("no standard output")?;
        let cat = file.display();
        let line = format!("stty -echo; echo beg''in; cat {cat}; read -r it; exit\n");
        stdin.write_all(line.as_bytes()).await?;
        let mut buffer = vec![0; 256 * 1024];
        let mut seen = Vec::new();
        while !seen.windows(5).any(|window| window == b"begin") {
            let length = stdout.read(&mut buffer).await?;
            ensure!(length > 0, "the shell ended early");
            seen.extend_from_slice(buffer.get(..length).unwrap_or_default());
        }
        let began = Instant::now();
        // what came with the word
        let mut found = count_x(&seen);
        let mut bytes = 0;
        while found < count {
            let length = stdout.read(&mut buffer).await?;
            ensure!(length > 0, "the shell ended after {found} of {count}");
            found += count_x(buffer.get(..length).unwrap_or_default());
            bytes += length;
        }
        let seconds = began.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a size below 2^52")]
        let rate = bytes as f64 / 1e6 / seconds;
        tokio::spawn(async move { while let Ok(1..) = stdout.read(&mut buffer).await {} });
        Ok(Self { rate, shell, stdin })
    }

    /// Lets the shell end, and with it the session. Returns the rate, in MB/s.
    pub(crate) async fn end(mut self) -> Result<f64> {
        self.stdin.write_all(b"\n").await?;
        self.shell.wait().await?;
        Ok(self.rate)
    }
}

fn count_x(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'x').count()
}
