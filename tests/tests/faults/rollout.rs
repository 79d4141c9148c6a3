//! A roll-out in waves whose endpoint is killed, or that is killed itself.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use moorline_tests::{Node, Running, Site, wait_until};
use serde_json::json;

/// A site with three nodes, and a script that waits on each for a file.
async fn fleet() -> Result<(Site, Vec<Node>, String)> {
    let site = Site::start().await?;
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut node = Node::register(&site.endpoint, &[("Role", "test")]).await?;
        node.start().await?;
        others.push(node);
    }
    let script = format!(
        "echo $AWS_SSM_INSTANCE_ID >> {ran}; until [ -e {go} ]; do sleep 0.05; done",
        ran = site.node.dir().join("ran").display(),
        go = site.node.dir().join("go").display()
    );
    Ok((site, others, script))
}

/// Every node ran it, once.
fn check_ran_once(ran: &Path, site: &Site, others: &[Node]) -> Result<()> {
    let ran = std::fs::read_to_string(ran)?;
    let mut nodes: Vec<&str> = ran.lines().collect();
    nodes.sort_unstable();
    let mut expected: Vec<&str> = others.iter().map(Node::id).chain([site.node.id()]).collect();
    expected.sort_unstable();
    ensure!(nodes == expected, "each node runs it once: {nodes:?}");
    Ok(())
}

#[tokio::test]
async fn a_roll_out_in_waves_goes_on_when_its_endpoint_was_killed_in_the_middle_of_one() -> Result<()> {
    let (mut site, others, script) = fleet().await?;
    let (ran, go) = (site.node.dir().join("ran"), site.node.dir().join("go"));
    let words = [
        "run",
        "--tag",
        "Role=test",
        "--wave",
        "first=1,then=all",
        "--health-command",
        "true",
        // nodes come back to an endpoint after a pause that grows with the time for which it was away
        "--heartbeat-grace",
        "20s",
        "--yes",
        "--json",
        "--",
        &script,
    ];
    let roll_out = site.cli().start(&words)?;
    wait_until("the first wave to run", async || Ok(ran.exists())).await?;
    site.endpoint.kill().await?;
    std::fs::File::create(&go)?;
    site.endpoint.start_again().await?;
    let ended = roll_out.wait_with_output().await?;
    let told = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{told}");
    let report: serde_json::Value = serde_json::from_slice(&ended.stdout)?;
    ensure!(report["Status"] == "Complete", "{report}");
    check_ran_once(&ran, &site, &others)
}

#[tokio::test]
async fn what_a_killed_roll_out_has_sent_is_found_by_its_id_and_the_rest_can_be_gone_on_with() -> Result<()> {
    let (site, others, script) = fleet().await?;
    let (ran, go) = (site.node.dir().join("ran"), site.node.dir().join("go"));
    let waves = ["--heartbeat-grace", "1s", "--yes", "--json", "--", &script];
    let begin = ["run", "--tag", "Role=test", "--wave", "first=1,then=all"];
    let mut roll_out = Running::start(&site.cli(), &[&begin[..], &waves].concat())?;
    roll_out
        .tells("begins; when this program dies no further wave is sent")
        .await?;
    wait_until("the first wave to run", async || Ok(ran.exists())).await?;
    roll_out.kill().await?;
    std::fs::File::create(&go)?;
    let first = std::fs::read_to_string(&ran)?.trim().to_owned();
    let sent = async || {
        let sent = site.api().call("ListCommands", json!({})).await?;
        sent["Commands"].as_array().cloned().context("no commands")
    };
    wait_until("what was sent to end by itself", async || {
        Ok(sent().await?.iter().all(|command| command["Status"] == "Success"))
    })
    .await?;
    let commands = sent().await?;
    let [command] = commands.as_slice() else {
        anyhow::bail!("another wave was sent: {commands:?}")
    };
    let comment = command["Comment"].as_str().context("no comment")?;
    ensure!(
        comment.starts_with("roll-out ") && comment.contains(", wave 1 of 2 first"),
        "{command}"
    );
    let all = others.iter().map(Node::id).chain([site.node.id()]);
    let rest: Vec<&str> = all.filter(|node| *node != first).collect();
    let rest = format!("InstanceIds={}", rest.join(","));
    let go_on = ["run", "--targets", &rest, "--wave", "then=all"];
    site.cli().run(&[&go_on[..], &waves].concat()).await?.success()?;
    check_ran_once(&ran, &site, &others)
}
