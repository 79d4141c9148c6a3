//! Recordings while the endpoint is away and when their worker is killed: what was promised arrives, once and in order.

use std::time::Duration;

use anyhow::{Result, ensure};
use moorline_tests::{
    Cable, Cli, Endpoint, Node, PATIENCE, Recording, Site, WorkerKind, kill_process, wait_for, wait_until,
};

use crate::lost_lines;

#[tokio::test]
async fn a_worker_that_is_killed_takes_no_more_of_the_recording_with_it_than_was_promised() -> Result<()> {
    let site = Site::start().await?;
    let mut known = Vec::new();
    for round in 0..3_u64 {
        let written = site.node.dir().join(format!("written-{round}"));
        let mut terminal = site.cli().shell(site.node.id()).await?;
        terminal.send(&format!("{}\n", lost_lines::script(&written)))?;
        terminal.expect("n=").await?;
        // longer than what may be lost
        let deadline = tokio::time::Instant::now() + Duration::from_millis(1300 + 370 * round);
        let what = "some time to pass at the terminal";
        wait_for(what, PATIENCE, async || {
            Ok((tokio::time::Instant::now() >= deadline).then_some(()))
        })
        .await?;
        let killed_at = lost_lines::uptime()?;
        for worker in site.node.workers(WorkerKind::Session) {
            kill_process(worker);
        }
        terminal.wait().await?;
        let list = ["transcript", "list", "--state", "cut", "--json"];
        let recording = wait_for("the recording to be closed", PATIENCE, async || {
            let listed = site.cli().run(&list).await?.success()?.json()?;
            let mut names = listed.as_array().into_iter().flatten();
            Ok(names.find_map(|one| {
                let name = one["SessionId"].as_str()?;
                (!known.iter().any(|known| known == name)).then(|| name.to_owned())
            }))
        })
        .await?;
        let export = ["transcript", "export", &recording];
        let recorded = site.cli().run(&export).await?.success()?.stdout;
        lost_lines::check(&recorded, &written, killed_at)?;
        known.push(recording);
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
