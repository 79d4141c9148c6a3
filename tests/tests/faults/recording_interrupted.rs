//! Recordings while the endpoint is away and when their worker is killed: what was promised arrives, once and in order.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use moorline_tests::{
    Cable, Cli, Endpoint, Node, PATIENCE, Recording, Site, WorkerKind, kill_process, wait_for, wait_until,
};

/// What a recording may lack when its worker is killed (docs/transcripts.md), and what a loaded machine adds to it.
const MOST_LOST: Duration = Duration::from_millis(200);
const SCHEDULING: Duration = Duration::from_millis(800);

/// Numbers of the lines of a shell that counts, as far as this text has them.
fn last_counted(text: &str) -> u64 {
    text.split("n=")
        .skip(1)
        .filter_map(|rest| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        })
        .max()
        .unwrap_or_default()
}

/// Hundredths of a second since the machine started.
fn uptime() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/uptime")?;
    let seconds = text.split_ascii_whitespace().next().context("no time")?;
    Ok(seconds.replace('.', "").parse()?)
}

#[tokio::test]
async fn a_worker_that_is_killed_takes_no_more_of_the_recording_with_it_than_was_promised() -> Result<()> {
    let site = Site::start().await?;
    for round in 0..3_u64 {
        let mut terminal = site.cli().shell(site.node.id()).await?;
        // each line says when it was written
        terminal
            .send("while :; do read -r up _ </proc/uptime; echo n=${up%.*}${up#*.}; sleep 0.02; done\n")?;
        terminal.expect("n=").await?;
        let deadline = tokio::time::Instant::now() + Duration::from_millis(700 + 370 * round);
        let what = "some time to pass at the terminal";
        wait_for(what, PATIENCE, async || {
            Ok((tokio::time::Instant::now() >= deadline).then_some(()))
        })
        .await?;
        let killed_at = uptime()?;
        for worker in site.node.workers(WorkerKind::Session) {
            kill_process(worker);
        }
        terminal.wait().await?;
        let recorded = site.cli().run(&["transcript", "export"]).await?.success()?.stdout;
        let lacks = Duration::from_millis(10 * killed_at.saturating_sub(last_counted(&recorded)));
        ensure!(
            lacks <= MOST_LOST + SCHEDULING,
            "the last {lacks:?} before the kill are not recorded"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_recording_is_whole_and_intact_after_the_endpoint_was_away() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let of_node = Cable::to(endpoint.address()).await?;
    let mut node = Node::register_through(&endpoint, &of_node.url(), &[]).await?;
    node.start().await?;
    let cli = Cli::of(&endpoint);
    let mut terminal = cli.shell(node.id()).await?;
    let go = node.dir().join("go");
    let script = format!(
        "echo wait''ing; until [ -e {} ]; do sleep 0.05; done; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo n=$i; done; touch {}; echo end-of-''count\n",
        go.display(),
        node.dir().join("done").display()
    );
    terminal.send(&script)?;
    terminal.expect("waiting").await?;
    of_node.unplug();
    std::fs::File::create(&go)?;
    wait_until("the shell to have counted", async || {
        Ok(node.dir().join("done").exists())
    })
    .await?;
    let spool = node.state_dir().join("spool");
    wait_until("the recording to be on the disk", async || {
        let mut files = std::fs::read_dir(&spool).into_iter().flatten().flatten();
        Ok(files.any(|file| std::fs::read_to_string(file.path()).is_ok_and(|text| text.contains("n=3000"))))
    })
    .await?;
    of_node.plug_in();
    terminal
        .expect_within("end-of-count", Duration::from_secs(60))
        .await?;
    terminal.send("exit\n")?;
    terminal.wait().await?;
    let recording = Recording::newest(&cli, node.dir()).await?;
    let shown = recording.texts("o");
    let counted: Vec<u64> = shown
        .lines()
        .filter_map(|line| line.strip_prefix("n=")?.parse().ok())
        .collect();
    ensure!(
        counted == (1..=3000).collect::<Vec<u64>>(),
        "{} lines",
        counted.len()
    );
    ensure!(recording.ours("gap")?.is_empty());
    wait_until("the spool to be empty", async || {
        Ok(std::fs::read_dir(&spool)?.next().is_none())
    })
    .await
}

#[tokio::test]
async fn what_a_killed_worker_left_on_the_disk_is_delivered_by_the_daemon() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let of_node = Cable::to(endpoint.address()).await?;
    let mut node = Node::register_through(&endpoint, &of_node.url(), &[]).await?;
    node.start().await?;
    let mut terminal = Cli::of(&endpoint).shell(node.id()).await?;
    let go = node.dir().join("go");
    let wait = format!(
        "echo wait''ing; until [ -e {} ]; do sleep 0.05; done",
        go.display()
    );
    terminal.send(&format!("{wait}; echo last-''words\n"))?;
    terminal.expect("waiting").await?;
    of_node.unplug();
    std::fs::File::create(&go)?;
    let spool = node.state_dir().join("spool");
    wait_until("the recording to be on the disk", async || {
        let mut files = std::fs::read_dir(&spool).into_iter().flatten().flatten();
        Ok(files
            .any(|file| std::fs::read_to_string(file.path()).is_ok_and(|text| text.contains("last-words"))))
    })
    .await?;
    for worker in node.workers(WorkerKind::Session) {
        kill_process(worker);
    }
    of_node.plug_in();
    let cli = Cli::of(&endpoint);
    wait_for("the recording to arrive", Duration::from_secs(90), async || {
        let recorded = cli.run(&["transcript", "export"]).await?.success()?.stdout;
        Ok(recorded.contains("last-words").then_some(()))
    })
    .await?;
    wait_until("the spool to be empty", async || {
        Ok(std::fs::read_dir(&spool)?.next().is_none())
    })
    .await
}
