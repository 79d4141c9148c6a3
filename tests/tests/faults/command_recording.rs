//! Recordings of commands while processes are killed, the endpoint is away, or the disk is full.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use moorline_tests::{
    Cable, Cli, Endpoint, Node, PATIENCE, Recording, Site, WorkerKind, finished, kill_process, send_script,
    wait_for, wait_until,
};

use crate::lost_lines;

/// Counts to this, a line at a time, with a pause after each hundred.
const LINES: u64 = 3000;

fn counting() -> String {
    format!(
        "i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo n=$i; [ $((i % 100)) -ne 0 ] || sleep 0.05; done; \
         echo end-of-count"
    )
}

/// The recording as it is on the endpoint's disk.
fn cast(endpoint: &Endpoint, node: &Node, id: &str) -> PathBuf {
    let name = format!("transcripts/{id}.{}.cast", node.id());
    endpoint.state_dir().join(name)
}

/// Waits until the endpoint has so much of it that the counting goes on.
async fn arriving(endpoint: &Endpoint, node: &Node, id: &str) -> Result<()> {
    wait_until("output to arrive at the endpoint", async || {
        let arrived = std::fs::read_to_string(cast(endpoint, node, id));
        Ok(arrived.is_ok_and(|text| text.contains("n=300")))
    })
    .await
}

/// Waits until the node keeps nothing of any recording.
async fn spool_empty(node: &Node) -> Result<()> {
    wait_until("the spool to be empty", async || {
        Ok(std::fs::read_dir(node.state_dir().join("spool"))?
            .next()
            .is_none())
    })
    .await
}

/// Everything was recorded, once, in order, and without a gap; and the node keeps nothing of it.
async fn check_whole(cli: &Cli, node: &Node, id: &str) -> Result<()> {
    let recording = Recording::of_command(cli, node.dir(), id).await?;
    let shown = recording.texts("o");
    let counted: Vec<u64> = shown
        .lines()
        .filter_map(|line| line.strip_prefix("n=")?.parse().ok())
        .collect();
    ensure!(
        counted == (1..=LINES).collect::<Vec<u64>>(),
        "{} lines",
        counted.len()
    );
    ensure!(shown.contains("end-of-count"), "the end is not recorded");
    ensure!(recording.ours("gap")?.is_empty(), "there is a gap");
    ensure!(recording.texts("x") == "0", "{}", recording.texts("x"));
    spool_empty(node).await
}

#[tokio::test]
async fn a_recording_is_whole_after_the_daemon_was_killed_while_output_flowed() -> Result<()> {
    let mut site = Site::start().await?;
    let id = site.send(&counting()).await?;
    arriving(&site.endpoint, &site.node, &id).await?;
    site.node.kill_daemon().await?;
    site.node.start().await?;
    site.finished(&id).await?;
    check_whole(&site.cli(), &site.node, &id).await
}

#[tokio::test]
async fn a_recording_is_whole_after_the_endpoint_was_killed_while_output_flowed() -> Result<()> {
    let mut site = Site::start().await?;
    let id = site.send(&counting()).await?;
    arriving(&site.endpoint, &site.node, &id).await?;
    site.endpoint.kill().await?;
    site.endpoint.start_again().await?;
    site.finished(&id).await?;
    check_whole(&site.cli(), &site.node, &id).await
}

#[tokio::test]
async fn a_recording_waits_on_the_disk_while_the_endpoint_is_away_and_goes_on_from_its_last_byte()
-> Result<()> {
    let endpoint = Endpoint::start().await?;
    let of_node = Cable::to(endpoint.address()).await?;
    let mut node = Node::register_through(&endpoint, &of_node.url(), &[]).await?;
    node.start().await?;
    let id = send_script(endpoint.api(), node.id(), &counting()).await?;
    arriving(&endpoint, &node, &id).await?;
    of_node.unplug();
    let spool = node.state_dir().join("spool");
    wait_until("the whole recording to be on the disk", async || {
        let mut files = std::fs::read_dir(&spool).into_iter().flatten().flatten();
        Ok(files.any(|file| {
            file.path()
                .extension()
                .is_some_and(|extension| extension == "whole")
        }))
    })
    .await?;
    of_node.plug_in();
    finished(endpoint.api(), node.id(), &id).await?;
    check_whole(&Cli::of(&endpoint), &node, &id).await
}

#[tokio::test]
async fn a_worker_that_is_killed_takes_no_more_of_a_command_s_recording_with_it_than_was_promised()
-> Result<()> {
    let site = Site::start().await?;
    for round in 0..3_u64 {
        let written = site.node.dir().join(format!("written-{round}"));
        let id = site.send(&lost_lines::script(&written)).await?;
        let cast = cast(&site.endpoint, &site.node, &id);
        wait_until("output to arrive at the endpoint", async || {
            Ok(std::fs::read_to_string(&cast).is_ok_and(|text| text.contains("n=")))
        })
        .await?;
        // longer than what may be lost
        let deadline = tokio::time::Instant::now() + Duration::from_millis(1000 + 370 * round);
        wait_for("some time to pass", PATIENCE, async || {
            Ok((tokio::time::Instant::now() >= deadline).then_some(()))
        })
        .await?;
        let killed_at = lost_lines::uptime()?;
        for worker in site.node.workers(WorkerKind::Command) {
            kill_process(worker);
        }
        site.finished(&id).await?;
        spool_empty(&site.node).await?;
        let name = format!("{id}.{}", site.node.id());
        let export = site.cli().run(&["transcript", "export", &name]).await?;
        lost_lines::check(&export.success()?.stdout, &written, killed_at)?;
    }
    Ok(())
}

/// Something else stands at the endpoint than this node sent: from then on it refuses the rest.
fn spoil(cast: &std::path::Path) -> Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().append(true).open(cast)?;
    Ok(file.write_all(&[b'x'; 5000])?)
}

/// Begins a command whose recording the endpoint refuses when there is a file `go`, and that then runs on in silence
/// until there is a file `end`.
async fn refused_midway(site: &Site) -> Result<String> {
    let path = |name: &str| site.node.dir().join(name).display().to_string();
    let script = format!(
        "echo n=1; until [ -e {go} ]; do sleep 0.05; done; echo n=2; until [ -e {end} ]; do sleep 0.05; done; \
         echo n=3",
        go = path("go"),
        end = path("end")
    );
    let id = site.send(&script).await?;
    let cast = cast(&site.endpoint, &site.node, &id);
    wait_until("output to arrive at the endpoint", async || {
        Ok(std::fs::read_to_string(&cast).is_ok_and(|text| text.contains("n=1")))
    })
    .await?;
    spoil(&cast)?;
    std::fs::File::create(path("go"))?;
    // it goes when the worker has been told
    spool_empty(&site.node).await?;
    let log = site.node.log();
    ensure!(
        log.contains("the endpoint does not take the rest of a transcript"),
        "{log}"
    );
    Ok(id)
}

#[tokio::test]
async fn a_command_that_must_be_recorded_ends_when_the_endpoint_refuses_its_recording() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let mut node = Node::register(&endpoint, &[]).await?;
    node.configure("[transcript]\nrequired = \"refuse\"\n")?;
    node.start().await?;
    let site = Site { node, endpoint };
    let id = refused_midway(&site).await?;
    let invocation = site.finished(&id).await?;
    ensure!(invocation["Status"] == "Failed", "{invocation}");
    let said = invocation["StandardErrorContent"].as_str().unwrap_or_default();
    for part in [
        "cannot be recorded any more",
        "transcript.required",
        "HTTP status 409",
    ] {
        ensure!(said.contains(part), "{part} is not in {said}");
    }
    let output = invocation["StandardOutputContent"].as_str().unwrap_or_default();
    ensure!(output.contains("n=2") && !output.contains("n=3"), "{output}");
    wait_until("the recording to be closed", async || {
        let listed = site
            .cli()
            .run(&["transcript", "list", "--json"])
            .await?
            .success()?;
        Ok(listed.json()?[0]["State"] == "Cut")
    })
    .await
}

#[tokio::test]
async fn a_command_that_may_go_on_unrecorded_does_and_says_so() -> Result<()> {
    let site = Site::start().await?;
    let id = refused_midway(&site).await?;
    std::fs::File::create(site.node.dir().join("end"))?;
    let invocation = site.finished(&id).await?;
    ensure!(invocation["Status"] == "Success", "{invocation}");
    ensure!(
        invocation["StandardOutputContent"] == "n=1\nn=2\nn=3\n",
        "{invocation}"
    );
    let said = invocation["StandardErrorContent"].as_str().unwrap_or_default();
    ensure!(
        said.contains("this command is not recorded any more") && said.contains("HTTP status 409"),
        "{said}"
    );
    site.check_commands_work().await
}
