//! `moorline run` that is waited for, and Ctrl-C.

use anyhow::{Context, Result, ensure};
use moorline_tests::{Cable, Running, Site, wait_until};
use serde_json::json;

use crate::leave::Stopped;

/// A site, and a command on its node that does not end by itself.
async fn running() -> Result<(Site, Running)> {
    let site = Site::start().await?;
    let started = site.node.dir().join("started");
    let script = format!("touch {}; sleep 1000", started.display());
    let words = ["run", "--node", site.node.id(), "--json", "--", &script];
    let running = Running::start(&site.cli(), &words)?;
    wait_until("the command to run", async || Ok(started.exists())).await?;
    Ok((site, running))
}

#[tokio::test]
async fn ctrl_c_cancels_a_command_and_shows_its_end() -> Result<()> {
    let (_site, mut running) = running().await?;
    running.interrupt()?;
    running.tells("press Ctrl-C again to leave at once").await?;
    let (code, report) = running.ends().await?;
    ensure!(
        code == Some(130) && report["Status"] == "Cancelled",
        "{code:?} {report}"
    );
    ensure!(report["Invocations"][0]["Status"] == "Cancelled", "{report}");
    Ok(())
}

#[tokio::test]
async fn a_second_ctrl_c_leaves_a_command_though_the_endpoint_hangs_and_says_that_it_may_run() -> Result<()> {
    let (site, mut running) = running().await?;
    let _stopped = Stopped::new(site.endpoint.pid().context("it runs")?)?;
    running.interrupt()?;
    running.tells("press Ctrl-C again to leave at once").await?;
    running.interrupt()?;
    running.tells("was not cancelled, and may still run").await?;
    let (code, report) = running.ends().await?;
    ensure!(
        code == Some(130) && report["Status"] == "Cancelling",
        "{code:?} {report}"
    );
    Ok(())
}

/// A site, and a command that is on its way to the endpoint: the cable holds it back.
async fn sending() -> Result<(Site, Cable, Running)> {
    let site = Site::start().await?;
    let cable = Cable::to(site.endpoint.address()).await?;
    cable.stall(true);
    let cli = site.cli().through(&cable.url());
    let words = ["run", "--tag", "Role=test", "--json", "--", "sleep 1000"];
    let running = Running::start(&cli, &words)?;
    wait_until("the command to be on its way", async || {
        Ok(cable.connections() > 0)
    })
    .await?;
    Ok((site, cable, running))
}

const ON_ITS_WAY: &str = "is cancelled as soon as the endpoint has answered";

#[tokio::test]
async fn ctrl_c_cancels_a_command_also_while_it_is_being_sent() -> Result<()> {
    let (_site, cable, mut running) = sending().await?;
    running.interrupt()?;
    running.tells(ON_ITS_WAY).await?;
    cable.stall(false);
    let (code, report) = running.ends().await?;
    ensure!(
        code == Some(130) && report["Status"] == "Cancelled",
        "{code:?} {report}"
    );
    Ok(())
}

#[tokio::test]
async fn a_second_ctrl_c_leaves_a_command_that_is_being_sent_and_says_that_it_may_run() -> Result<()> {
    let (site, _cable, mut running) = sending().await?;
    running.interrupt()?;
    running.tells(ON_ITS_WAY).await?;
    running.interrupt()?;
    running.tells("the command may run all the same").await?;
    ensure!(running.code().await? == Some(130));
    let listed = site.api().call("ListCommands", json!({})).await?;
    ensure!(listed["Commands"] == json!([]), "{listed}");
    Ok(())
}

#[tokio::test]
async fn who_waits_for_a_node_that_is_away_is_told_so_without_a_terminal_too() -> Result<()> {
    let mut site = Site::start().await?;
    site.node.stop_daemon().await?;
    site.node.wait_offline().await?;
    let words = ["run", "--node", site.node.id(), "--json", "--", "true"];
    let mut running = Running::start(&site.cli(), &words)?;
    let told = format!(
        "waiting for 1 node that has not taken the command for 15 s, and may be away: {};",
        site.node.id()
    );
    running.tells(&told).await?;
    running.interrupt()?;
    let (code, report) = running.ends().await?;
    ensure!(
        code == Some(130) && report["Status"] == "Cancelled",
        "{code:?} {report}"
    );
    Ok(())
}
