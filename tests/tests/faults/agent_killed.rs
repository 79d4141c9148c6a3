//! `kill -9` of the agent's daemon.

use anyhow::{Result, ensure};
use moorline_tests::{Site, WorkerKind, wait_until};

#[tokio::test]
async fn a_command_outlives_the_daemon_and_its_result_is_delivered_once_it_is_back() -> Result<()> {
    let mut site = Site::start().await?;
    let (count, go) = (site.node.dir().join("count"), site.node.dir().join("go"));
    let script = format!(
        "echo ran >> {count}; until [ -e {go} ]; do sleep 0.05; done; echo finished",
        count = count.display(),
        go = go.display()
    );
    let command = site.send(&script).await?;
    wait_until("the script to run", async || Ok(count.exists())).await?;
    let worker = site.node.wait_workers(WorkerKind::Command, 1).await?;
    site.node.kill_daemon().await?;
    site.node.wait_offline().await?;
    ensure!(
        site.node.workers(WorkerKind::Command) == worker,
        "the worker went with the daemon"
    );
    std::fs::File::create(&go)?;
    // it ends while nobody watches
    site.node.wait_workers(WorkerKind::Command, 0).await?;
    site.node.start().await?;
    let invocation = site.finished(&command).await?;
    ensure!(invocation["Status"] == "Success", "{invocation}");
    ensure!(
        invocation["StandardOutputContent"] == "finished\n",
        "{invocation}"
    );
    ensure!(
        std::fs::read_to_string(&count)? == "ran\n",
        "it did not run exactly once"
    );
    Ok(())
}

#[tokio::test]
async fn a_daemon_takes_over_the_command_that_its_predecessor_started() -> Result<()> {
    let mut site = Site::start().await?;
    let (count, go) = (site.node.dir().join("count"), site.node.dir().join("go"));
    let script = format!(
        "echo ran >> {count}; until [ -e {go} ]; do sleep 0.05; done; exit 6",
        count = count.display(),
        go = go.display()
    );
    let command = site.send(&script).await?;
    wait_until("the script to run", async || Ok(count.exists())).await?;
    for _ in 0..3 {
        site.node.kill_daemon().await?;
        site.node.start().await?;
    }
    ensure!(site.node.workers(WorkerKind::Command).len() == 1);
    std::fs::File::create(&go)?;
    let invocation = site.finished(&command).await?;
    ensure!(
        invocation["Status"] == "Failed" && invocation["ResponseCode"] == 6,
        "{invocation}"
    );
    ensure!(
        std::fs::read_to_string(&count)? == "ran\n",
        "it did not run exactly once"
    );
    // and it can still be cancelled
    let command = site.send("sleep 1000").await?;
    site.in_progress(&command).await?;
    site.node.wait_workers(WorkerKind::Command, 1).await?;
    site.node.kill_daemon().await?;
    site.node.start().await?;
    site.api()
        .call("CancelCommand", serde_json::json!({"CommandId": command}))
        .await?;
    let invocation = site.finished(&command).await?;
    ensure!(invocation["Status"] == "Cancelled", "{invocation}");
    Ok(())
}

#[tokio::test]
async fn commands_sent_while_the_agent_is_away_run_once_when_it_is_back() -> Result<()> {
    let mut site = Site::start().await?;
    site.node.kill_daemon().await?;
    site.node.wait_offline().await?;
    let count = site.node.dir().join("count");
    let mut commands = Vec::new();
    for number in 0..8 {
        commands.push(
            site.send(&format!("echo {number} >> {}", count.display()))
                .await?,
        );
    }
    site.node.start().await?;
    for command in &commands {
        let invocation = site.finished(command).await?;
        ensure!(invocation["Status"] == "Success", "{invocation}");
    }
    let text = std::fs::read_to_string(&count)?;
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    ensure!(lines == ["0", "1", "2", "3", "4", "5", "6", "7"], "{lines:?}");
    Ok(())
}

#[tokio::test]
async fn an_open_session_does_not_notice_that_the_daemon_is_killed() -> Result<()> {
    let mut site = Site::start().await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    terminal.send("echo before-$((1+1))\n")?;
    terminal.expect("before-2").await?;
    site.node.kill_daemon().await?;
    site.node.wait_offline().await?;
    terminal.send("echo while-''away\n")?;
    terminal.expect("while-away").await?;
    site.node.start().await?;
    terminal.send("echo after-''wards; exit 9\n")?;
    terminal.expect("after-wards").await?;
    ensure!(terminal.wait().await? == 9, "{}", terminal.text());
    site.node.wait_workers(WorkerKind::Session, 0).await?;
    // what its worker did not bring to the endpoint before its end the daemon does
    wait_until("all of it to be in the transcript", async || {
        let text = site.cli().run(&["transcript", "text"]).await?.success()?.stdout;
        for line in ["before-2", "while-away", "after-wards"] {
            ensure!(text.contains(line), "{line} is not in the transcript: {text:?}");
        }
        Ok(true)
    })
    .await
}

#[tokio::test]
async fn a_session_that_ends_while_the_daemon_is_away_ends_at_the_client_too() -> Result<()> {
    let mut site = Site::start().await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    site.node.kill_daemon().await?;
    site.node.wait_offline().await?;
    terminal.send("exit 11\n")?;
    ensure!(terminal.wait().await? == 11, "{}", terminal.text());
    site.node.start().await?;
    site.check_commands_work().await
}
