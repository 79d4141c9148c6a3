//! `moorline run`: commands on nodes, by our client.

use anyhow::{Context, Result, ensure};
use moorline_tests::{Cli, Endpoint, Node, Site};
use serde_json::json;

#[tokio::test]
async fn a_command_on_a_node_shows_its_output_and_succeeds() -> Result<()> {
    let site = Site::start().await?;
    let ran = site
        .cli()
        .run(&[
            "run",
            "--node",
            site.node.id(),
            "--",
            "echo one; echo two >&2; id -u",
        ])
        .await?
        .success()?;
    let shown = format!("{}{}", ran.stdout, ran.stderr);
    ensure!(shown.contains("one") && shown.contains("two"), "{ran:?}");
    // the words of a command stay one command, whatever is in them
    let ran = site
        .cli()
        .run(&[
            "run",
            "--node",
            site.node.id(),
            "--",
            "printf",
            "<%s>",
            "a b",
            "$HOME",
            "c'd",
        ])
        .await?
        .success()?;
    ensure!(ran.stdout.contains("<a b><$HOME><c'd>"), "{ran:?}");
    Ok(())
}

#[tokio::test]
async fn a_command_that_fails_on_any_node_ends_with_1() -> Result<()> {
    let site = Site::start().await?;
    let mut second = Node::register(&site.endpoint, &[("Role", "test")]).await?;
    second.start().await?;
    let (first, cli) = (site.node.id(), site.cli());
    cli.run(&["run", "--node", first, "--", "exit 3"])
        .await?
        .with_code(1)?;

    // by tag, on both: it fails where a file is missing
    let marker = site.node.state_dir().join("marker");
    std::fs::File::create(&marker)?;
    let script = format!("echo on $AWS_SSM_INSTANCE_ID; [ $AWS_SSM_INSTANCE_ID = {first} ]");
    let ran = cli
        .run(&["run", "--tag", "Role=test", "--", &script])
        .await?
        .with_code(1)?;
    for node in [first, second.id()] {
        let line = format!("on {node}");
        ensure!(ran.stdout.contains(&line), "no output of {node}: {ran:?}");
    }
    let ran = cli.run(&["run", "--tag", "Role=test", "--", "true"]).await?;
    ran.success()?;
    Ok(())
}

#[tokio::test]
async fn json_tells_scripts_each_nodes_status_and_output() -> Result<()> {
    let site = Site::start().await?;
    let ran = site
        .cli()
        .run(&[
            "run",
            "--node",
            site.node.id(),
            "--json",
            "--",
            "echo out; echo err >&2; exit 5",
        ])
        .await?
        .with_code(1)?
        .json()?;
    ensure!(ran["Status"] == "Failed", "{ran}");
    ensure!(ran["CommandId"].is_string(), "{ran}");
    let invocation = &ran["Invocations"][0];
    ensure!(invocation["InstanceId"] == site.node.id(), "{ran}");
    ensure!(invocation["Status"] == "Failed", "{ran}");
    ensure!(ran.to_string().contains("out\\n"), "{ran}");
    Ok(())
}

#[tokio::test]
async fn a_document_with_parameters_runs_step_by_step() -> Result<()> {
    let site = Site::start().await?;
    let content = json!({
        "schemaVersion": "2.2",
        "description": "two steps",
        "parameters": {
            "Name": {"type": "String", "allowedPattern": "^[a-z]{1,8}$"},
            "Count": {"type": "String", "default": "2", "allowedValues": ["1", "2"]},
        },
        "mainSteps": [
            {"action": "aws:runShellScript", "name": "greet", "inputs": {"runCommand": ["echo hello {{ Name }} {{Count}}"]}},
            {"action": "aws:runShellScript", "name": "leave", "inputs": {"runCommand": ["echo bye", "exit 4"]}},
        ],
    });
    let document = json!({"Name": "Greeting", "DocumentType": "Command", "Content": content.to_string()});
    site.api().call("CreateDocument", document).await?;
    let cli = site.cli();
    let ran = cli
        .run(&[
            "run",
            "--node",
            site.node.id(),
            "--document",
            "Greeting",
            "--param",
            "Name=ada",
        ])
        .await?
        .with_code(1)?;
    ensure!(
        ran.stdout.contains("hello ada 2") && ran.stdout.contains("bye"),
        "{ran:?}"
    );
    let refused = cli
        .run(&[
            "run",
            "--node",
            site.node.id(),
            "--document",
            "Greeting",
            "--param",
            "Name=ADA",
        ])
        .await?;
    ensure!(
        refused.code != 0 && refused.stderr.contains("Name"),
        "{refused:?}"
    );

    let commands = site
        .api()
        .call("ListCommandInvocations", json!({"Details": true}))
        .await?;
    let plugins = commands["CommandInvocations"][0]["CommandPlugins"]
        .as_array()
        .context("no plugins")?;
    let steps: Vec<_> = plugins
        .iter()
        .map(|plugin| (plugin["Name"].as_str(), plugin["ResponseCode"].as_i64()))
        .collect();
    ensure!(
        steps == [(Some("greet"), Some(0)), (Some("leave"), Some(4))],
        "{steps:?}"
    );
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_done_is_said_with_what_to_do() -> Result<()> {
    let endpoint = Endpoint::start().await?;
    let cli = Cli::of(&endpoint);
    let unknown = cli
        .run(&["run", "--node", "mi-0123456789abcdef0", "--", "true"])
        .await?;
    ensure!(
        unknown.code != 0 && unknown.stderr.contains("mi-0123456789abcdef0"),
        "{unknown:?}"
    );
    let no_credentials = cli
        .clone()
        .with("AWS_ACCESS_KEY_ID", "")
        .with("AWS_SECRET_ACCESS_KEY", "")
        .run(&["nodes"])
        .await?;
    ensure!(
        no_credentials.code != 0 && no_credentials.stderr.contains("AWS_ACCESS_KEY_ID"),
        "{no_credentials:?}"
    );
    let nobody = cli.through("https://127.0.0.1:1").run(&["nodes"]).await?;
    ensure!(
        nobody.code != 0 && nobody.stderr.contains("127.0.0.1:1"),
        "{nobody:?}"
    );
    Ok(())
}

#[tokio::test]
async fn long_output_keeps_its_head_and_its_tail_and_says_that_it_was_cut() -> Result<()> {
    let site = Site::start().await?;
    let command = site.send("seq 1 100000").await?;
    let invocation = site.finished(&command).await?;
    ensure!(invocation["Status"] == "Success", "{}", invocation["Status"]);
    let output = invocation["StandardOutputContent"]
        .as_str()
        .context("no output")?;
    ensure!(
        output.starts_with("1\n2\n") && output.len() <= 24_000,
        "{} bytes",
        output.len()
    );
    ensure!(
        output.ends_with("99999\n100000\n") && output.contains("\n--output truncated--\n"),
        "{:?}",
        output.get(output.len() - 40..)
    );
    Ok(())
}

#[tokio::test]
async fn a_cancelled_command_ends_with_all_that_it_started() -> Result<()> {
    let site = Site::start().await?;
    let pid_file = site.node.dir().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; wait", pid_file.display());
    let command = site.send(&script).await?;
    moorline_tests::wait_until("the script to start", async || {
        Ok(std::fs::read_to_string(&pid_file)?.ends_with('\n'))
    })
    .await?;
    site.api()
        .call("CancelCommand", json!({"CommandId": command}))
        .await?;
    let invocation = site.finished(&command).await?;
    ensure!(invocation["Status"] == "Cancelled", "{invocation}");
    let pid = std::fs::read_to_string(&pid_file)?;
    moorline_tests::wait_until("the script's child to be gone", async || {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        Ok(state.map_or(true, |state| state.contains(") Z ")))
    })
    .await?;
    site.check_commands_work().await
}

#[tokio::test]
async fn a_slow_command_delays_no_other() -> Result<()> {
    let site = Site::start().await?;
    let slow = site.send("sleep 1000").await?;
    site.in_progress(&slow).await?;
    site.check_commands_work().await?;
    let shell = site.cli().shell(site.node.id()).await?;
    drop(shell);
    site.api()
        .call("CancelCommand", json!({"CommandId": slow}))
        .await?;
    site.finished(&slow).await?;
    Ok(())
}

/// An endpoint with three nodes.
async fn three_nodes() -> Result<(Site, Node, Node)> {
    let site = Site::start().await?;
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut node = Node::register(&site.endpoint, &[("Role", "test")]).await?;
        node.start().await?;
        others.push(node);
    }
    let (third, second) = (others.pop(), others.pop());
    let missing = "two nodes were started";
    Ok((site, second.context(missing)?, third.context(missing)?))
}

#[tokio::test]
async fn a_command_is_on_its_way_to_no_more_nodes_than_allowed() -> Result<()> {
    let (site, _second, _third) = three_nodes().await?;
    // a second one that runs it at the same time finds the directory
    let place = site.node.dir().join("alone");
    let script = format!(
        "mkdir {place} && i=0 && while [ $i -lt 20000 ]; do i=$((i+1)); done && rmdir {place} && echo alone",
        place = place.display()
    );
    let ran = site
        .cli()
        .run(&[
            "run",
            "--tag",
            "Role=test",
            "--max-concurrency",
            "1",
            "--",
            &script,
        ])
        .await?
        .success()?;
    ensure!(ran.stdout.matches("alone").count() == 3, "{ran:?}");
    Ok(())
}

#[tokio::test]
async fn after_too_many_errors_no_further_node_gets_the_command() -> Result<()> {
    let (site, _second, _third) = three_nodes().await?;
    let counted = site.node.dir().join("counted");
    let script = format!("echo ran >> {}; exit 1", counted.display());
    let ran = site
        .cli()
        .run(&[
            "run",
            "--tag",
            "Role=test",
            "--max-concurrency",
            "1",
            "--max-errors",
            "1",
            "--",
            &script,
        ])
        .await?
        .with_code(1)?;
    let shown = format!("{}{}", ran.stdout, ran.stderr);
    ensure!(shown.contains("Terminated"), "{ran:?}");
    ensure!(std::fs::read_to_string(&counted)? == "ran\nran\n", "{ran:?}");
    let commands = site.api().call("ListCommands", json!({})).await?;
    let command = &commands["Commands"][0];
    ensure!(
        command["Status"] == "Failed" && command["ErrorCount"] == 2 && command["CompletedCount"] == 3,
        "{command}"
    );
    Ok(())
}
