//! `kill -9` at random moments: of daemon, workers and endpoint, while commands and a session run.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use moorline_tests::{Dice, Site, WorkerKind, kill_process, soak};

use crate::connection_cut::{COUNTED_LINES, check_counted, count_slowly};

/// Rounds of one run; `MOORLINE_SOAK` multiplies them.
const ROUNDS: u32 = 6;

#[tokio::test]
async fn nothing_is_lost_or_done_twice_whatever_is_killed_when() -> Result<()> {
    let mut dice = Dice::of_this_run();
    let rounds = ROUNDS * u32::try_from(soak())?;
    let mut site = Site::start().await?;
    let count = site.node.dir().join("count");
    let mut commands = BTreeMap::new();
    for round in 0..rounds {
        let script = format!(
            "echo {round} >> {}; sleep 0.{}; echo done-{round}",
            count.display(),
            dice.below(9)
        );
        commands.insert(round, site.send(&script).await?);
        dice.pause(400).await;
        match dice.below(3) {
            0 => {
                site.node.kill_daemon().await?;
                dice.pause(300).await;
                site.node.launch()?;
            }
            1 => {
                site.endpoint.kill().await?;
                dice.pause(300).await;
                site.endpoint.start_again().await?;
            }
            _ => {
                site.endpoint.kill().await?;
                site.node.kill_daemon().await?;
                dice.pause(300).await;
                site.node.launch()?;
                site.endpoint.start_again().await?;
            }
        }
    }
    for (round, command) in &commands {
        let invocation = site.finished(command).await?;
        ensure!(invocation["Status"] == "Success", "round {round}: {invocation}");
        ensure!(
            invocation["StandardOutputContent"] == format!("done-{round}\n"),
            "round {round}: {invocation}"
        );
    }
    let text = std::fs::read_to_string(&count)?;
    let mut ran: Vec<u32> = text.lines().map(str::parse).collect::<Result<_, _>>()?;
    ran.sort_unstable();
    ensure!(ran == (0..rounds).collect::<Vec<_>>(), "{ran:?}");
    site.node.wait_online().await?;
    site.check_commands_work().await
}

#[tokio::test]
async fn each_command_ends_in_one_status_though_workers_are_killed_at_random() -> Result<()> {
    let mut dice = Dice::of_this_run();
    let rounds = ROUNDS * u32::try_from(soak())?;
    let site = Site::start().await?;
    let count = site.node.dir().join("count");
    for round in 0..rounds {
        let command = site
            .send(&format!("echo {round} >> {}; sleep 0.2", count.display()))
            .await?;
        dice.pause(400).await;
        for worker in site.node.workers(WorkerKind::Command) {
            kill_process(worker);
        }
        let invocation = site.finished(&command).await?;
        ensure!(
            invocation["Status"] == "Success" || invocation["Status"] == "Failed",
            "{invocation}"
        );
    }
    let text = std::fs::read_to_string(&count).unwrap_or_default();
    for round in 0..rounds {
        let times = text.lines().filter(|line| *line == round.to_string()).count();
        ensure!(times <= 1, "command {round} ran {times} times");
    }
    site.check_commands_work().await
}

#[tokio::test]
async fn a_session_counts_on_whatever_is_killed_around_it() -> Result<()> {
    let mut dice = Dice::of_this_run();
    let mut site = Site::start().await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    count_slowly(&mut terminal)?;
    for _ in 0..4 {
        dice.pause(500).await;
        if dice.below(2) == 0 {
            site.node.kill_daemon().await?;
            site.node.launch()?;
        } else {
            site.endpoint.kill().await?;
            dice.pause(300).await;
            site.endpoint.start_again().await?;
        }
    }
    check_counted(&mut terminal, COUNTED_LINES).await?;
    terminal.send("exit 8\n")?;
    ensure!(terminal.wait().await? == 8, "{}", terminal.text());
    Ok(())
}
