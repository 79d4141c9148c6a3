//! What recording costs: beside a node whose owner lets sessions go on that cannot be recorded, and where they cannot.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, BufWriter, Write as _},
    path::Path,
};

use anyhow::{Context, Result};
use moorline_tests::{Cli, Endpoint, Node, PATIENCE, WorkerKind, finished, send_script, wait_for};

use crate::{
    footprint::peak_memory,
    report::{Bound, Report},
    session::{Transfer, echoes},
};

/// One run with and one without, and again: what else the machine does falls on both.
const ROUNDS: usize = 5;
const COMMAND_ROUNDS: usize = 3;
/// What Linux tells processor time in, on every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;
const TRANSFER_BYTES: usize = 200_000_000;
const LONG_BYTES: usize = 1_000_000_000;
/// Nobody's; the node has no key to seal with, so that what is for somebody cannot be recorded.
const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

pub(crate) async fn cost(report: &mut Report, endpoint: &Endpoint, recorded: &Node) -> Result<()> {
    let one_letter = [
        "output with recording, as part of what there is without (median)",
        "processor time that recording 200 MB of it adds to the session's worker (median)",
        "the same of the session's endpoint, which verifies it (median)",
    ];
    let log = [
        "a log shown with recording, as part of what there is without (median)",
        "processor time that recording 200 MB of a log adds to the session's worker (median)",
        "the same of the endpoint of the log's session (median)",
    ];
    let echo = "what recording adds to an echo (median)";
    let wants = |rows: [&str; 3]| rows.iter().any(|row| report.wants(row));
    let (of_letter, of_log) = (wants(one_letter), wants(log));
    if !(of_letter || of_log || report.wants(echo)) {
        return Ok(());
    }
    let unrecorded = unrecorded(endpoint).await?;
    let nodes = (&unrecorded, recorded);
    let file = recorded.dir().join("output");
    if of_letter {
        fs::write(&file, vec![b'x'; TRANSFER_BYTES])?;
        cost_of_showing(report, endpoint, nodes, (&file, TRANSFER_BYTES), one_letter).await?;
    }
    if of_log {
        let count = write_log(&file, TRANSFER_BYTES)?;
        cost_of_showing(report, endpoint, nodes, (&file, count), log).await?;
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

/// Shows a file, in which an `x` stands so often, on the one node and on the other.
async fn cost_of_showing(
    report: &mut Report,
    endpoint: &Endpoint,
    (unrecorded, recorded): (&Node, &Node),
    file: (&Path, usize),
    [throughput, worker, taker]: [&'static str; 3],
) -> Result<()> {
    let (mut parts, mut of_worker, mut of_endpoint) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let without = Shown::on(endpoint, unrecorded, file).await?;
        let with = Shown::on(endpoint, recorded, file).await?;
        // what is still on its way would fall on the next one without
        closed_recording(endpoint).await?;
        at_rest(endpoint).await?;
        parts.push(100.0 * with.rate / without.rate);
        of_worker.push(with.worker_cpu - without.worker_cpu);
        of_endpoint.push(with.endpoint_cpu - without.endpoint_cpu);
    }
    report.row(throughput, "%", Bound::AtLeast(90.0), 0.5, parts);
    report.row(worker, "s", Bound::AtMost(0.6), 0.5, of_worker);
    report.row(taker, "s", Bound::AtMost(1.2), 0.5, of_endpoint);
    Ok(())
}

/// Lines as of a web server, none like another, with one `x` at the end of each, of so many bytes together; how many.
fn write_log(file: &Path, bytes: usize) -> Result<usize> {
    let mut log = BufWriter::new(File::create(file)?);
    let (mut written, mut count, mut state) = (0, 0, 1_u64);
    while written < bytes {
        // Knuth's constants: any numbers will do that do not repeat
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let [host, path, size, took, request] = [56, 48, 40, 32, 8].map(|shift| state >> shift);
        let line = format!(
            "2026-03-{:02}T10:{:02}:{:02}Z info 10.0.{}.{} GET /api/v1/orders/{}/items status=200 bytes={} took={}us \
             request={request:014X} x\n",
            count / 900_000 % 28 + 1,
            count / 15_000 % 60,
            count / 250 % 60,
            host % 4,
            host,
            path % 5000,
            size % 40_000,
            took % 90_000,
        );
        log.write_all(line.as_bytes())?;
        written += line.len();
        count += 1;
    }
    log.flush()?;
    Ok(count)
}

/// What recording costs a command whose step prints a gigabyte: time, and the processor of all who have to do with it.
pub(crate) async fn cost_of_command(report: &mut Report, endpoint: &Endpoint, recorded: &Node) -> Result<()> {
    let throughput = "1 GB of a command's output with recording, as part of the speed without (median)";
    let worker = "processor time that recording 1 GB adds to a command's worker (median)";
    let daemon = "the same of the node's daemon, which delivers it (median)";
    let taker = "the same of the endpoint, which verifies it (median)";
    if ![throughput, worker, daemon, taker]
        .iter()
        .any(|row| report.wants(row))
    {
        return Ok(());
    }
    let unrecorded = unrecorded(endpoint).await?;
    let (mut parts, mut added) = (Vec::new(), Vec::new());
    let (mut of_daemon, mut of_endpoint) = (Vec::new(), Vec::new());
    for _ in 0..COMMAND_ROUNDS {
        let without = Printed::on(endpoint, &unrecorded).await?;
        let before = Others::of(endpoint, recorded)?;
        let with = Printed::on(endpoint, recorded).await?;
        // what is still on its way would fall on the next one without
        closed_recording(endpoint).await?;
        let after = Others::of(endpoint, recorded)?;
        at_rest(endpoint).await?;
        parts.push(100.0 * without.seconds / with.seconds);
        added.push(with.worker_cpu - without.worker_cpu);
        of_daemon.push(after.daemon - before.daemon);
        of_endpoint.push(after.endpoint - before.endpoint);
    }
    report.row(throughput, "%", Bound::AtLeast(90.0), 0.5, parts);
    report.row(worker, "s", Bound::AtMost(3.0), 0.5, added);
    report.row(daemon, "s", Bound::AtMost(3.0), 0.5, of_daemon);
    report.row(taker, "s", Bound::AtMost(6.0), 0.5, of_endpoint);
    Ok(())
}

/// Processor time of those who bring a command's recording to where it is kept, in seconds.
struct Others {
    daemon: f64,
    endpoint: f64,
}

impl Others {
    fn of(endpoint: &Endpoint, node: &Node) -> Result<Self> {
        let daemon = node.daemon_pid().context("the daemon does not run")?;
        let endpoint = endpoint.pid().context("the endpoint does not run")?;
        Ok(Self {
            daemon: processor_time(daemon)?,
            endpoint: processor_time(endpoint)?,
        })
    }
}

/// The newest recording, when the endpoint has all of it.
async fn closed_recording(endpoint: &Endpoint) -> Result<serde_json::Value> {
    let cli = Cli::of(endpoint);
    wait_for("the transcript to be closed", PATIENCE * 6, async || {
        let listed = cli.run(&["transcript", "list", "--json"]).await?;
        let listed = listed.success()?.json()?;
        Ok((listed[0]["Complete"] == true).then(|| listed[0].clone()))
    })
    .await
}

/// Waits until the endpoint has compressed what is closed.
async fn at_rest(endpoint: &Endpoint) -> Result<()> {
    wait_for("the transcripts to be compressed", PATIENCE * 6, async || {
        let mut files = fs::read_dir(endpoint.state_dir().join("transcripts"))?;
        let is_growing =
            files.any(|file| file.is_ok_and(|file| file.path().extension() == Some("cast".as_ref())));
        Ok((!is_growing).then_some(()))
    })
    .await
}

/// A session has shown a file.
struct Shown {
    /// MB/s.
    rate: f64,
    /// Until all of it was here; in seconds.
    worker_cpu: f64,
    endpoint_cpu: f64,
}

impl Shown {
    async fn on(endpoint: &Endpoint, node: &Node, (file, count): (&Path, usize)) -> Result<Self> {
        let pid = endpoint.pid().context("the endpoint does not run")?;
        let before = processor_time(pid)?;
        let transfer = Transfer::of(endpoint, node, file, count).await?;
        let endpoint_cpu = processor_time(pid)? - before;
        let worker = *node.workers(WorkerKind::Session).first().context("no worker")?;
        let worker_cpu = processor_time(worker)?;
        Ok(Self {
            rate: transfer.end().await?,
            worker_cpu,
            endpoint_cpu,
        })
    }
}

/// A step has printed a gigabyte.
struct Printed {
    seconds: f64,
    /// Of the worker, in seconds.
    worker_cpu: f64,
}

impl Printed {
    async fn on(endpoint: &Endpoint, node: &Node) -> Result<Self> {
        let path = |name: &str| node.dir().join(name).display().to_string();
        let (took, go) = (path("took"), path("go"));
        let script = format!(
            "a=$(date +%s%N); head -c {LONG_BYTES} /dev/zero | tr '\\0' '\\170' | fold -w 99; b=$(date +%s%N); \
             echo $((b - a)) > {took}.new; mv {took}.new {took}; until [ -e {go} ]; do sleep 0.05; done"
        );
        let command = send_script(endpoint.api(), node.id(), &script).await?;
        let took = wait_for("a gigabyte to be printed", PATIENCE * 6, async || {
            Ok(fs::read_to_string(&took).ok())
        })
        .await?;
        let worker = *node.workers(WorkerKind::Command).first().context("no worker")?;
        let worker_cpu = processor_time(worker)?;
        File::create(&go)?;
        finished(endpoint.api(), node.id(), &command).await?;
        for file in ["took", "go"] {
            fs::remove_file(path(file))?;
        }
        let nanos: f64 = took.trim().parse()?;
        Ok(Self {
            seconds: nanos / 1e9,
            worker_cpu,
        })
    }
}

/// User and system time of a process and all of its threads, in seconds.
fn processor_time(pid: i32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    // the name before may hold anything
    let (_, fields) = stat.rsplit_once(')').context("no name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    let ticks: f64 = ticks.sum::<Result<_, _>>()?;
    Ok(ticks / TICKS_PER_SECOND)
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
    let shown = write_log(&file, LONG_BYTES)?;
    let transfer = Transfer::of(endpoint, node, &file, shown).await?;
    let worker = *node.workers(WorkerKind::Session).first().context("no worker")?;
    let peak = peak_memory(worker)?;
    transfer.end().await?;
    fs::remove_file(&file)?;
    report.row(memory, "MB", Bound::AtMost(12.0), 1.0, vec![peak]);
    let recording = closed_recording(endpoint).await?;
    let session = recording["SessionId"].as_str().context("no session")?;
    let text = node.dir().join("recording.cast");
    let name = text.to_str().context("a path")?;
    Cli::of(endpoint)
        .run(&["transcript", "export", session, "--out", name])
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
