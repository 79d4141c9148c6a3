//! What ends a roll-out in waves while its program runs, and what it then says.

use anyhow::{Context, Result, ensure};
use moorline_tests::{Cli, Site, wait_until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStderr},
};

use crate::rollout::{commands, fleet, waves};

/// A roll-out under way.
struct RollOut {
    process: Child,
    told: Lines<BufReader<ChildStderr>>,
}

impl RollOut {
    fn start(cli: &Cli, words: &[&str]) -> Result<Self> {
        let mut process = cli.start(words)?;
        let stderr = process.stderr.take().context("no standard error")?;
        Ok(Self {
            process,
            told: BufReader::new(stderr).lines(),
        })
    }

    async fn tells(&mut self, part: &str) -> Result<()> {
        while let Some(line) = self.told.next_line().await? {
            if line.contains(part) {
                return Ok(());
            }
        }
        anyhow::bail!("it ended without {part:?}")
    }

    /// As Ctrl-C does.
    fn interrupt(&self) -> Result<()> {
        let pid = self.process.id().context("it has ended")?;
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGINT)?)
    }

    /// Its exit code, and what it reports as JSON.
    async fn ends(mut self) -> Result<(Option<i32>, Value)> {
        let mut report = Vec::new();
        let mut stdout = self.process.stdout.take().context("no standard output")?;
        stdout.read_to_end(&mut report).await?;
        let code = self.process.wait().await?.code();
        Ok((code, serde_json::from_slice(&report).context("no report")?))
    }
}

fn reason(report: &Value) -> &str {
    report["Reason"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_node_that_goes_away_after_the_last_wave_halts_a_roll_out() -> Result<()> {
    let (site, [mut second, _third]) = fleet().await?;
    let words = waves(&["--json", "--heartbeat-grace", "3s"], "true");
    let mut roll_out = RollOut::start(&site.cli(), &words)?;
    roll_out
        .tells("all 2 waves are through; watching the heartbeats of 3 nodes for 3 s")
        .await?;
    second.kill_daemon().await?;
    let (code, report) = roll_out.ends().await?;
    ensure!(code == Some(3) && report["Status"] == "Halted", "{report}");
    let expected = format!(
        "after the last wave: lost the heartbeat of {} (not connected)",
        second.id()
    );
    ensure!(reason(&report) == expected, "{report}");
    ensure!(report["Waves"][1]["Progress"] == "Ended", "{report}");
    Ok(())
}

#[tokio::test]
async fn a_node_that_comes_back_after_the_last_wave_halts_nothing() -> Result<()> {
    let (site, [mut second, _third]) = fleet().await?;
    let words = waves(&["--json", "--heartbeat-grace", "20s"], "true");
    let mut roll_out = RollOut::start(&site.cli(), &words)?;
    roll_out.tells("watching the heartbeats").await?;
    second.kill_daemon().await?;
    second.wait_offline().await?;
    second.start().await?;
    let (code, report) = roll_out.ends().await?;
    ensure!(code == Some(0) && report["Status"] == "Complete", "{report}");
    Ok(())
}

#[tokio::test]
async fn ctrl_c_cancels_the_wave_under_way_and_sends_no_other() -> Result<()> {
    let (site, _others) = fleet().await?;
    let started = site.node.dir().join("started");
    let script = format!("touch {}; sleep 1000", started.display());
    let roll_out = RollOut::start(&site.cli(), &waves(&["--json"], &script))?;
    wait_until("the canary to run it", async || Ok(started.exists())).await?;
    roll_out.interrupt()?;
    let (code, report) = roll_out.ends().await?;
    ensure!(code == Some(130) && report["Status"] == "Interrupted", "{report}");
    ensure!(
        reason(&report) == "wave canary: interrupted by the user",
        "{report}"
    );
    let waves = &report["Waves"];
    ensure!(
        waves[0]["Progress"] == "Running" && waves[1]["Progress"] == "NotSent",
        "{report}"
    );
    let id = waves[0]["CommandId"].as_str().context("no command")?;
    let invocation = site.finished(id).await?;
    ensure!(invocation["Status"] == "Cancelled", "{invocation}");
    ensure!(commands(&site).await?.len() == 1, "another wave was sent");
    Ok(())
}

#[tokio::test]
async fn ctrl_c_after_the_last_wave_ends_the_watching() -> Result<()> {
    let (site, _others) = fleet().await?;
    let words = waves(&["--json", "--heartbeat-grace", "10m"], "true");
    let mut roll_out = RollOut::start(&site.cli(), &words)?;
    roll_out.tells("watching the heartbeats").await?;
    roll_out.interrupt()?;
    let (code, report) = roll_out.ends().await?;
    ensure!(code == Some(130), "{report}");
    ensure!(
        reason(&report) == "after the last wave: interrupted by the user",
        "{report}"
    );
    Ok(())
}

#[tokio::test]
async fn ctrl_c_leaves_a_roll_out_whose_endpoint_is_away() -> Result<()> {
    let (mut site, _others) = fleet().await?;
    let started = site.node.dir().join("started");
    let script = format!("touch {}; sleep 1000", started.display());
    let mut roll_out = RollOut::start(&site.cli(), &waves(&["--json"], &script))?;
    wait_until("the canary to run it", async || Ok(started.exists())).await?;
    site.endpoint.kill().await?;
    roll_out.tells("still trying").await?;
    roll_out.interrupt()?;
    roll_out.tells("cancelling what is under way").await?;
    roll_out.interrupt()?;
    roll_out.tells("may still run").await?;
    let (code, report) = roll_out.ends().await?;
    ensure!(code == Some(130), "{report}");
    ensure!(report["Waves"][0]["Progress"] == "Running", "{report}");
    Ok(())
}

#[tokio::test]
async fn a_wave_that_the_endpoint_refuses_halts_a_roll_out_and_what_was_done_is_reported() -> Result<()> {
    let (site, _others) = fleet().await?;
    let (started, go) = (site.node.dir().join("started"), site.node.dir().join("go"));
    let script = format!(
        "touch {}; until [ -e {} ]; do sleep 0.05; done",
        started.display(),
        go.display()
    );
    let content = json!({"schemaVersion": "2.2", "mainSteps": [{"action": "aws:runShellScript", "name": "s",
        "inputs": {"runCommand": [script]}}]});
    let document = json!({"Name": "ShortLived", "DocumentType": "Command", "Content": content.to_string()});
    site.api().call("CreateDocument", document).await?;
    let words = waves(&["--json", "--document", "ShortLived"], "");
    let words = &words[..words.len() - 2];
    let roll_out = RollOut::start(&site.cli(), words)?;
    wait_until("the canary to run it", async || Ok(started.exists())).await?;
    let name = json!({"Name": "ShortLived"});
    site.api().call("DeleteDocument", name).await?;
    std::fs::File::create(&go)?;
    let (code, report) = roll_out.ends().await?;
    ensure!(code == Some(3) && report["Status"] == "Halted", "{report}");
    ensure!(
        reason(&report).contains("there is no document ShortLived"),
        "{report}"
    );
    let waves = &report["Waves"];
    ensure!(
        waves[0]["Progress"] == "Ended" && waves[1]["Progress"] == "NotSent",
        "{report}"
    );
    Ok(())
}

#[tokio::test]
async fn waves_that_cannot_be_told_apart_or_asked_for_are_refused() -> Result<()> {
    let site = Site::start().await?;
    let words = ["run", "--tag", "Role=test", "--wave", "a=1,a=all", "--yes"];
    let refused = site.cli().run(&[&words[..], &["--", "true"]].concat()).await?;
    ensure!(
        refused.code == 64 && refused.stderr.contains("two waves have the name a"),
        "{refused:?}"
    );
    let words = ["run", "--tag", "Role=test", "--wave", "a=all", "--json"];
    let refused = site.cli().run(&[&words[..], &["--", "true"]].concat()).await?;
    ensure!(
        refused.code == 64 && refused.stderr.contains("--yes"),
        "{refused:?}"
    );
    ensure!(commands(&site).await?.is_empty());
    Ok(())
}
