//! What recording costs: beside a node whose owner lets sessions go on that cannot be recorded, and where they cannot.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::Path,
};

use anyhow::{Context, Result};
use moorline_tests::{Cli, Endpoint, Node, PATIENCE, WorkerKind, wait_for};

use crate::{
    footprint::peak_memory,
    report::{Bound, Report},
    session::{Transfer, echoes},
};

/// One run with and one without, and again: what else the machine does falls on both.
const ROUNDS: usize = 5;
const TRANSFER_BYTES: usize = 200_000_000;
const LONG_BYTES: usize = 1_000_000_000;
/// Nobody's; the node has no key to seal with, so that what is for somebody cannot be recorded.
const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

pub(crate) async fn cost(report: &mut Report, endpoint: &Endpoint, recorded: &Node) -> Result<()> {
    let throughput = "output with recording, as part of what there is without (median)";
    let echo = "what recording adds to an echo (median)";
    if !(report.wants(throughput) || report.wants(echo)) {
        return Ok(());
    }
    let unrecorded = unrecorded(endpoint).await?;
    if report.wants(throughput) {
        let file = recorded.dir().join("output");
        fs::write(&file, vec![b'x'; TRANSFER_BYTES])?;
        let mut parts = Vec::new();
        for _ in 0..ROUNDS {
            let without = Transfer::of(endpoint, &unrecorded, &file, TRANSFER_BYTES)
                .await?
                .end()
                .await?;
            let with = Transfer::of(endpoint, recorded, &file, TRANSFER_BYTES)
                .await?
                .end()
                .await?;
            parts.push(100.0 * with / without);
        }
        report.row(throughput, "%", Bound::AtLeast(90.0), 0.5, parts);
    }
    if report.wants(echo) {
        let mut added = Vec::new();
        for _ in 0..ROUNDS {
            let without = median(echoes(endpoint, &unrecorded).await?);
            added.push(median(echoes(endpoint, recorded).await?) - without);
        }
        report.row(echo, "ms", Bound::AtMost(0.5), 0.5, added);
    }
    Ok(())
}

/// No output before the endpoint has it on its disk: what a disk takes to sync is in it.
pub(crate) async fn strict(report: &mut Report, endpoint: &Endpoint) -> Result<()> {
    let what = "keystroke to its echo in strict mode";
    if !report.wants(what) {
        return Ok(());
    }
    let node = node(endpoint, "[transcript]\nstrict = true\n").await?;
    let samples = echoes(endpoint, &node).await?;
    report.row(
        &format!("{what} (median)"),
        "ms",
        Bound::AtMost(20.0),
        0.5,
        samples,
    );
    Ok(())
}

pub(crate) async fn long_output(report: &mut Report, endpoint: &Endpoint, node: &Node) -> Result<()> {
    let memory = "worker that recorded 1 GB of output, resident at its most";
    let lost = "of 1 GB of output not in its recording";
    if !(report.wants(memory) || report.wants(lost)) {
        return Ok(());
    }
    let file = node.dir().join("output");
    let line =
        "a line of a log that goes on and on, as logs do; with \"quotes\" and \ttabs xxxxxxxxxxxxxxxxxxxxx\n";
    fs::write(&file, line.repeat(LONG_BYTES / line.len()))?;
    let shown = line.matches('x').count() * (LONG_BYTES / line.len());
    let transfer = Transfer::of(endpoint, node, &file, shown).await?;
    let worker = *node.workers(WorkerKind::Session).first().context("no worker")?;
    let peak = peak_memory(worker)?;
    transfer.end().await?;
    fs::remove_file(&file)?;
    report.row(memory, "MB", Bound::AtMost(12.0), 1.0, vec![peak]);
    let cli = Cli::of(endpoint);
    let recording = wait_for("the transcript to be closed", PATIENCE * 6, async || {
        let listed = cli.run(&["transcript", "list", "--json"]).await?;
        let listed = listed.success()?.json()?;
        Ok((listed[0]["Complete"] == true).then(|| listed[0].clone()))
    })
    .await?;
    let session = recording["SessionId"].as_str().context("no session")?;
    let text = node.dir().join("recording.cast");
    let name = text.to_str().context("a path")?;
    cli.run(&["transcript", "export", session, "--out", name])
        .await?
        .success()?;
    #[expect(clippy::cast_precision_loss, reason = "a size below 2^52")]
    let missing = 100.0 * (shown as f64 - recorded_x(&text)? as f64) / shown as f64;
    report.row(lost, "%", Bound::AtMost(0.0), 1.0, vec![missing]);
    fs::remove_file(&text)?;
    Ok(())
}

/// How many `x` were shown.
fn recorded_x(recording: &Path) -> Result<usize> {
    let mut lines = BufReader::new(File::open(recording)?).lines();
    lines.next().context("no header")??;
    let mut count = 0;
    for line in lines {
        let (_, code, text): (f64, String, String) = serde_json::from_str(&line?)?;
        if code == "o" {
            count += text.matches('x').count();
        }
    }
    Ok(count)
}

async fn unrecorded(endpoint: &Endpoint) -> Result<Node> {
    let node = node(
        endpoint,
        &format!("[transcript]\nrecipients = [\"{RECIPIENT}\"]\n"),
    )
    .await?;
    fs::write(node.state_dir().join("transcript.key"), "damaged")?;
    Ok(node)
}

async fn node(endpoint: &Endpoint, settings: &str) -> Result<Node> {
    let mut node = Node::register(endpoint, &[]).await?;
    node.configure(&format!("[session]\ncreate_user = false\n{settings}"))?;
    node.start().await?;
    Ok(node)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}
