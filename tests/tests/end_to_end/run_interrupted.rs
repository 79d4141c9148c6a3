//! Ctrl-C of `moorline run`.

use anyhow::{Context, Result, ensure};
use moorline_tests::{Running, Site, wait_until};

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
