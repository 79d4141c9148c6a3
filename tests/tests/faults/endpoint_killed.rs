//! `kill -9` of the control endpoint.

use anyhow::{Result, ensure};
use moorline_tests::{Node, Site, finished, wait_until};
use serde_json::json;

use crate::connection_cut::{COUNTED_LINES, check_counted, count_slowly};

#[tokio::test]
async fn commands_survive_the_endpoint() -> Result<()> {
    let mut site = Site::start().await?;
    let (count, go) = (site.node.dir().join("count"), site.node.dir().join("go"));
    let script = format!(
        "echo ran >> {count}; until [ -e {go} ]; do sleep 0.05; done; echo finished",
        count = count.display(),
        go = go.display()
    );
    let running = site.send(&script).await?;
    wait_until("the script to run", async || Ok(count.exists())).await?;
    site.endpoint.kill().await?;
    std::fs::File::create(&go)?;
    site.node
        .wait_workers(moorline_tests::WorkerKind::Command, 0)
        .await?;
    site.endpoint.start_again().await?;
    let invocation = site.finished(&running).await?;
    ensure!(
        invocation["StandardOutputContent"] == "finished\n",
        "{invocation}"
    );
    ensure!(
        std::fs::read_to_string(&count)? == "ran\n",
        "it did not run exactly once"
    );
    // the node's credentials are still good: it did not have to ask for new ones
    site.node.check_alive()?;
    site.check_commands_work().await
}

#[tokio::test]
async fn everything_an_operator_made_is_still_there() -> Result<()> {
    let mut site = Site::start().await?;
    let content = json!({
        "schemaVersion": "2.2",
        "mainSteps": [{"action": "aws:runShellScript", "name": "s", "inputs": {"runCommand": ["echo kept"]}}],
    });
    let document = json!({"Name": "Kept", "DocumentType": "Command", "Content": content.to_string()});
    site.api().call("CreateDocument", document).await?;
    let activation = site
        .api()
        .call("CreateActivation", json!({"IamRole": "r"}))
        .await?;
    let tags = json!({
        "ResourceType": "ManagedInstance", "ResourceId": site.node.id(),
        "Tags": [{"Key": "Kept", "Value": "yes"}],
    });
    site.api().call("AddTagsToResource", tags).await?;
    let command = site.send("echo kept").await?;
    site.finished(&command).await?;
    site.endpoint.kill().await?;
    site.endpoint.start_again().await?;

    let got = site.api().call("GetDocument", json!({"Name": "Kept"})).await?;
    ensure!(got["Content"].as_str() == Some(&content.to_string()), "{got}");
    let listed = site.api().call("DescribeActivations", json!({})).await?;
    ensure!(
        listed
            .to_string()
            .contains(activation["ActivationId"].as_str().unwrap_or("?")),
        "{listed}"
    );
    let resource = json!({"ResourceType": "ManagedInstance", "ResourceId": site.node.id()});
    let tags = site.api().call("ListTagsForResource", resource).await?;
    ensure!(tags.to_string().contains("Kept"), "{tags}");
    let invocation = site.finished(&command).await?;
    ensure!(invocation["StandardOutputContent"] == "kept\n", "{invocation}");
    site.node.wait_online().await
}

#[tokio::test]
async fn a_session_survives_the_endpoint_without_a_lost_or_doubled_byte() -> Result<()> {
    let mut site = Site::start().await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    count_slowly(&mut terminal)?;
    for mark in ["\r\n300\r\n", "\r\n900\r\n"] {
        terminal.expect(mark).await?;
        site.endpoint.kill().await?;
        site.endpoint.start_again().await?;
    }
    check_counted(&mut terminal, COUNTED_LINES).await?;
    terminal.send("echo typed-''after; exit 4\n")?;
    terminal.expect("typed-after").await?;
    ensure!(terminal.wait().await? == 4, "{}", terminal.text());
    Ok(())
}

#[tokio::test]
async fn what_is_typed_while_the_endpoint_is_away_arrives_once_and_in_order() -> Result<()> {
    let mut site = Site::start().await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    terminal.send("n=0; next() { n=$((n+1)); [ $n = $1 ] || echo out-of-order-$1; }; echo pre''pared\n")?;
    terminal.expect("prepared").await?;
    let mut number = 0;
    for _ in 0..3 {
        for _ in 0..5 {
            number += 1;
            terminal.send(&format!("next {number}\n"))?;
        }
        site.endpoint.kill().await?;
        for _ in 0..5 {
            number += 1;
            terminal.send(&format!("next {number}\n"))?;
        }
        site.endpoint.start_again().await?;
    }
    terminal.send("echo count-is-$n; exit 12\n")?;
    terminal.expect(&format!("count-is-{number}")).await?;
    ensure!(!terminal.text().contains("out-of-order"), "{}", terminal.text());
    ensure!(terminal.wait().await? == 12, "{}", terminal.text());
    Ok(())
}

#[tokio::test]
async fn a_transcript_is_whole_after_the_endpoint_was_killed() -> Result<()> {
    let mut site = Site::start().await?;
    let cli = site.cli();
    let mut terminal = cli.shell(site.node.id()).await?;
    count_slowly(&mut terminal)?;
    terminal.expect("\r\n500\r\n").await?;
    site.endpoint.kill().await?;
    site.endpoint.start_again().await?;
    check_counted(&mut terminal, COUNTED_LINES).await?;
    terminal.send("exit\n")?;
    terminal.wait().await?;
    let expected: Vec<String> = (1..=COUNTED_LINES).map(|number| number.to_string()).collect();
    wait_until("the whole transcript", async || {
        let text = cli
            .run(&["transcript", "text", "--no-time"])
            .await?
            .success()?
            .stdout;
        let counted: Vec<&str> = text.lines().filter(|line| line.parse::<u32>().is_ok()).collect();
        ensure!(
            counted == expected,
            "{} lines are in the transcript",
            counted.len()
        );
        Ok(true)
    })
    .await
}

#[tokio::test]
async fn many_kills_in_a_row_lose_no_command() -> Result<()> {
    let mut site = Site::start().await?;
    let count = site.node.dir().join("count");
    let mut commands = Vec::new();
    for number in 0..4 {
        // the answer may be lost with the endpoint; what was answered is promised
        commands.push(
            site.send(&format!("echo {number} >> {}; sleep 0.2", count.display()))
                .await?,
        );
        site.endpoint.kill().await?;
        site.endpoint.start_again().await?;
    }
    for command in &commands {
        let invocation = site.finished(command).await?;
        ensure!(invocation["Status"] == "Success", "{invocation}");
    }
    let text = std::fs::read_to_string(&count)?;
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    ensure!(lines == ["0", "1", "2", "3"], "{lines:?}");
    Ok(())
}

#[tokio::test]
async fn a_roll_out_goes_on_after_the_endpoint_was_killed() -> Result<()> {
    let mut site = Site::start().await?;
    let mut second = Node::register(&site.endpoint, &[("Role", "test")]).await?;
    second.start().await?;
    let (count, go) = (site.node.dir().join("count"), site.node.dir().join("go"));
    let script = format!(
        "echo ran >> {count}; until [ -e {go} ]; do sleep 0.05; done",
        count = count.display(),
        go = go.display()
    );
    let input = json!({
        "DocumentName": "AWS-RunShellScript",
        "Targets": [{"Key": "tag:Role", "Values": ["test"]}],
        "Parameters": {"commands": [script]},
        "MaxConcurrency": "1",
    });
    let sent = site.api().call("SendCommand", input).await?;
    let command = sent["Command"]["CommandId"].as_str().unwrap_or_default();
    wait_until("the script to run on one node", async || Ok(count.exists())).await?;
    site.endpoint.kill().await?;
    std::fs::File::create(&go)?;
    site.endpoint.start_again().await?;
    for node in [site.node.id(), second.id()] {
        let invocation = finished(site.api(), node, command).await?;
        ensure!(invocation["Status"] == "Success", "{invocation}");
    }
    ensure!(std::fs::read_to_string(&count)? == "ran\nran\n");
    Ok(())
}
