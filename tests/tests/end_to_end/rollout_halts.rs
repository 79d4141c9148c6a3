//! What ends a roll-out in waves while its program runs, and what it then says.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use moorline_tests::{Running, Site, wait_until};
use serde_json::{Value, json};

use crate::rollout::{commands, fleet, waves};

fn reason(report: &Value) -> &str {
    report["Reason"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_node_that_goes_away_after_the_last_wave_halts_a_roll_out() -> Result<()> {
    let (site, [mut second, _third]) = fleet().await?;
    let words = waves(&["--json", "--heartbeat-grace", "8s"], "true");
    let mut roll_out = Running::start(&site.cli(), &words)?;
    roll_out
        .tells("all 2 waves are through; watching the heartbeats of 3 nodes for 8 s")
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
    let words = waves(&["--json", "--heartbeat-grace", "30s"], "true");
    let mut roll_out = Running::start(&site.cli(), &words)?;
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
    let roll_out = Running::start(&site.cli(), &waves(&["--json"], &script))?;
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
async fn a_roll_out_that_is_asked_to_end_cancels_as_with_ctrl_c_and_reports() -> Result<()> {
    let (site, _others) = fleet().await?;
    let (started, _go, script) = held(&site);
    let roll_out = Running::start(&site.cli(), &waves(&["--json"], &script))?;
    wait_until("the canary to run it", async || Ok(started.exists())).await?;
    roll_out.terminate()?;
    let (code, report) = roll_out.ends().await?;
    ensure!(code == Some(130) && report["Status"] == "Interrupted", "{report}");
    let id = report["Waves"][0]["CommandId"].as_str().context("no command")?;
    let invocation = site.finished(id).await?;
    ensure!(invocation["Status"] == "Cancelled", "{invocation}");
    Ok(())
}

#[tokio::test]
async fn ctrl_c_after_the_last_wave_ends_the_watching() -> Result<()> {
    let (site, _others) = fleet().await?;
    let words = waves(&["--json", "--heartbeat-grace", "10m"], "true");
    let mut roll_out = Running::start(&site.cli(), &words)?;
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
    let mut roll_out = Running::start(&site.cli(), &waves(&["--json"], &script))?;
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

/// A script that makes the first file, and ends when the second is there.
fn held(site: &Site) -> (PathBuf, PathBuf, String) {
    let (started, go) = (site.node.dir().join("started"), site.node.dir().join("go"));
    let script = format!(
        "touch {}; until [ -e {} ]; do sleep 0.05; done",
        started.display(),
        go.display()
    );
    (started, go, script)
}

#[tokio::test]
async fn a_wave_that_the_endpoint_refuses_halts_a_roll_out_and_what_was_done_is_reported() -> Result<()> {
    let (site, _others) = fleet().await?;
    let (started, go, script) = held(&site);
    let content = json!({"schemaVersion": "2.2", "mainSteps": [{"action": "aws:runShellScript", "name": "s",
        "inputs": {"runCommand": [script]}}]});
    let document = json!({"Name": "ShortLived", "DocumentType": "Command", "Content": content.to_string()});
    site.api().call("CreateDocument", document).await?;
    let words = waves(&["--json", "--document", "ShortLived"], "");
    let words = &words[..words.len() - 2];
    let roll_out = Running::start(&site.cli(), words)?;
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

#[tokio::test]
async fn a_roll_out_that_is_killed_sends_no_other_wave_and_what_was_sent_ends_by_itself() -> Result<()> {
    let (site, _others) = fleet().await?;
    let (started, go, script) = held(&site);
    let mut roll_out = Running::start(&site.cli(), &waves(&[], &script))?;
    roll_out.tells("wave 1 of 2, canary: 1 node, command ").await?;
    wait_until("the canary to run it", async || Ok(started.exists())).await?;
    roll_out.kill().await?;
    std::fs::File::create(&go)?;
    let sent = commands(&site).await?;
    let id = sent[0]["CommandId"].as_str().context("no command")?;
    let invocation = site.finished(id).await?;
    ensure!(invocation["Status"] == "Success", "{invocation}");
    ensure!(commands(&site).await?.len() == 1, "another wave was sent");
    Ok(())
}

#[tokio::test]
async fn at_a_terminal_a_roll_out_shows_its_plan_and_goes_when_it_is_wanted() -> Result<()> {
    let (site, _others) = fleet().await?;
    let words = [
        "run",
        "--tag",
        "Role=test",
        "--wave",
        "canary=tag:Ring=canary,then=all",
        "--health-document",
        "AWS-RunShellScript",
        "--health-param",
        "commands=true",
        "--heartbeat-grace",
        "1s",
        "--",
        "true",
    ];
    let mut terminal = site.cli().at_terminal(&words)?;
    terminal
        .expect("AWS-RunShellScript asks for the health of each wave")
        .await?;
    terminal.expect("begin? [y/N]").await?;
    terminal.send("n\r")?;
    ensure!(terminal.wait().await? == 3, "{}", terminal.text());
    ensure!(commands(&site).await?.is_empty(), "it was not wanted");

    let mut terminal = site.cli().at_terminal(&words)?;
    terminal.expect("begin? [y/N]").await?;
    terminal.send("y\r")?;
    terminal.expect("all 2 waves are through, 0 nodes failed").await?;
    ensure!(terminal.wait().await? == 0, "{}", terminal.text());
    ensure!(commands(&site).await?.len() == 4, "two waves, two probes");
    Ok(())
}

#[tokio::test]
async fn a_wave_whose_nodes_are_all_gone_halts_a_roll_out() -> Result<()> {
    let (site, others) = fleet().await?;
    let (started, go, script) = held(&site);
    let roll_out = Running::start(&site.cli(), &waves(&["--json"], &script))?;
    wait_until("the canary to run it", async || Ok(started.exists())).await?;
    for other in &others {
        untag(&site, other.id()).await?;
    }
    std::fs::File::create(&go)?;
    let (code, report) = roll_out.ends().await?;
    ensure!(code == Some(3) && report["Status"] == "Halted", "{report}");
    ensure!(
        reason(&report) == "wave then: none of its 2 nodes is a target any more",
        "{report}"
    );
    Ok(())
}

#[tokio::test]
async fn a_node_that_is_no_target_any_more_is_named_and_not_waited_for() -> Result<()> {
    let (site, others) = fleet().await?;
    let (started, go, script) = held(&site);
    let roll_out = Running::start(&site.cli(), &waves(&["--json"], &script))?;
    wait_until("the canary to run it", async || Ok(started.exists())).await?;
    let id = others[0].id();
    site.api()
        .call("DeregisterManagedInstance", json!({"InstanceId": id}))
        .await?;
    std::fs::File::create(&go)?;
    let (code, report) = roll_out.ends().await?;
    ensure!(code == Some(0), "{report}");
    ensure!(report["Waves"][1]["NoLongerTargets"] == json!([id]), "{report}");
    Ok(())
}

#[tokio::test]
async fn a_node_that_is_deregistered_after_its_wave_halts_a_roll_out_and_one_that_is_untagged_does_not()
-> Result<()> {
    let (site, [second, third]) = fleet().await?;
    let words = waves(&["--json", "--heartbeat-grace", "8s"], "true");
    let mut roll_out = Running::start(&site.cli(), &words)?;
    roll_out.tells("watching the heartbeats").await?;
    untag(&site, third.id()).await?;
    let id = second.id();
    site.api()
        .call("DeregisterManagedInstance", json!({"InstanceId": id}))
        .await?;
    let (code, report) = roll_out.ends().await?;
    ensure!(code == Some(3) && report["Status"] == "Halted", "{report}");
    let expected = format!("after the last wave: lost the heartbeat of {id} (not connected)");
    ensure!(reason(&report) == expected, "{report}");
    Ok(())
}

async fn untag(site: &Site, node: &str) -> Result<()> {
    let tags = json!({"ResourceType": "ManagedInstance", "ResourceId": node, "TagKeys": ["Role"]});
    site.api().call("RemoveTagsFromResource", tags).await?;
    Ok(())
}
