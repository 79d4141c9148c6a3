//! `kill -9` of one worker process.

use anyhow::{Context, Result, ensure};
use moorline_tests::{Site, WorkerKind, kill_process, wait_until};

#[tokio::test]
async fn a_killed_command_worker_fails_its_command_and_no_other() -> Result<()> {
    let site = Site::start().await?;
    let (count, go) = (site.node.dir().join("count"), site.node.dir().join("go"));
    let victim = site
        .send(&format!("echo ran >> {}; sleep 1000", count.display()))
        .await?;
    let doomed = site.node.wait_workers(WorkerKind::Command, 1).await?;
    wait_until("the script to run", async || Ok(count.exists())).await?;
    let script = format!(
        "until [ -e {} ]; do sleep 0.05; done; echo unharmed",
        go.display()
    );
    let other = site.send(&script).await?;
    site.node.wait_workers(WorkerKind::Command, 2).await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;

    kill_process(*doomed.first().context("no worker")?);
    let invocation = site.finished(&victim).await?;
    ensure!(invocation["Status"] == "Failed", "{invocation}");
    let told = format!(
        "{}{}",
        invocation["StandardErrorContent"], invocation["StandardOutputContent"]
    );
    ensure!(
        told.contains("unknown") || told.contains("killed") || told.contains("ended"),
        "{invocation}"
    );
    std::fs::File::create(&go)?;
    let invocation = site.finished(&other).await?;
    ensure!(invocation["Status"] == "Success", "{invocation}");
    terminal.send("echo shell-''unharmed\n")?;
    terminal.expect("shell-unharmed").await?;
    ensure!(std::fs::read_to_string(&count)? == "ran\n", "it was run again");
    Ok(())
}

#[tokio::test]
async fn a_command_whose_processes_all_died_is_told_as_unknown_and_not_run_again() -> Result<()> {
    let mut site = Site::start().await?;
    let count = site.node.dir().join("count");
    let command = site
        .send(&format!("echo ran >> {}; sleep 1000", count.display()))
        .await?;
    wait_until("the script to run", async || Ok(count.exists())).await?;
    // as when the power goes
    let processes = site.node.processes();
    site.node.kill_daemon().await?;
    processes.into_iter().for_each(kill_process);
    site.node.wait_offline().await?;
    site.node.start().await?;
    let invocation = site.finished(&command).await?;
    ensure!(invocation["Status"] == "Failed", "{invocation}");
    let told = format!(
        "{}{}",
        invocation["StandardErrorContent"], invocation["StandardOutputContent"]
    );
    ensure!(told.contains("unknown"), "{invocation}");
    ensure!(std::fs::read_to_string(&count)? == "ran\n", "it was run again");
    site.check_commands_work().await
}

#[tokio::test]
async fn a_killed_session_worker_ends_its_session_and_no_other() -> Result<()> {
    let site = Site::start().await?;
    let mut first = site.cli().shell(site.node.id()).await?;
    let doomed = site.node.wait_workers(WorkerKind::Session, 1).await?;
    let mut second = site.cli().shell(site.node.id()).await?;
    site.node.wait_workers(WorkerKind::Session, 2).await?;
    let command = site.send("sleep 1; echo unharmed").await?;
    kill_process(*doomed.first().context("no worker")?);
    // the client is told, and does not hang
    ensure!(first.wait().await? != 0, "{}", first.text());
    second.send("echo still-''here; exit 3\n")?;
    second.expect("still-here").await?;
    ensure!(second.wait().await? == 3);
    let invocation = site.finished(&command).await?;
    ensure!(
        invocation["StandardOutputContent"] == "unharmed\n",
        "{invocation}"
    );
    Ok(())
}
