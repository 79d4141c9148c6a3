//! `moorline run --dry-run` and `--wave`, `moorline explain`: by our client, on real nodes.

use anyhow::{Context, Result, ensure};
use moorline_tests::{Node, Site, wait_until};
use serde_json::{Value, json};

/// An endpoint with a canary and two other nodes, all with the tag Role=test.
pub(crate) async fn fleet() -> Result<(Site, [Node; 2])> {
    let site = Site::start().await?;
    let tag = ["tag", "add", site.node.id(), "Ring=canary"];
    site.cli().run(&tag).await?.success()?;
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut node = Node::register(&site.endpoint, &[("Role", "test")]).await?;
        node.start().await?;
        others.push(node);
    }
    let others = others.try_into().ok().context("two nodes were started")?;
    Ok((site, others))
}

pub(crate) async fn commands(site: &Site) -> Result<Vec<Value>> {
    let listed = site.api().call("ListCommands", json!({})).await?;
    Ok(listed["Commands"].as_array().cloned().unwrap_or_default())
}

#[tokio::test]
async fn a_dry_run_shows_what_each_node_would_do_and_runs_nothing() -> Result<()> {
    let (site, [second, mut third]) = fleet().await?;
    let cli = site.cli();
    cli.run(&["run", "--node", second.id(), "--", "exit 3"])
        .await?
        .with_code(1)?;
    third.stop_daemon().await?;
    third.wait_offline().await?;
    let before = commands(&site).await?.len();
    let words = ["run", "--targets", "tag:Role=test", "--dry-run"];
    let shown = cli
        .run(&[&words[..], &["--", "echo", "never"]].concat())
        .await?
        .success()?;
    let line = |node: &str| {
        let line = shown
            .stdout
            .lines()
            .find(|line| line.trim_start().starts_with(node));
        line.with_context(|| format!("no line of {node}: {shown:?}"))
    };
    let (ran, away) = (line(second.id())?, line(third.id())?);
    ensure!(ran.contains("run") && ran.contains("Failed"), "{ran}");
    ensure!(
        away.contains("wait: not connected") && away.contains("never"),
        "{away}"
    );
    ensure!(
        shown.stdout.contains("parameter commands = \"echo never\""),
        "{shown:?}"
    );
    ensure!(shown.stderr.contains("known on the node only"), "{shown:?}");
    ensure!(away.contains("its policy is not known"), "{away}");
    let json = cli
        .run(&[&words[..], &["--json", "--", "true"]].concat())
        .await?
        .success()?
        .json()?;
    ensure!(
        json["TargetCount"] == 3 && json["Nodes"].as_array().is_some_and(|n| n.len() == 3),
        "{json}"
    );
    ensure!(commands(&site).await?.len() == before, "a dry run sent a command");
    Ok(())
}

#[tokio::test]
async fn a_plan_names_the_rule_by_which_a_nodes_owner_would_refuse() -> Result<()> {
    let (site, [mut second, mut third]) = fleet().await?;
    let rule = "[[rule]]\nname = \"no scripts\"\neffect = \"deny\"\nfor = \"command\"\nactions = [\"aws:runShellScript\"]\n";
    // a daemon that was started without a policy looks for it elsewhere
    second.stop_daemon().await?;
    second.set_policy(rule)?;
    second.start().await?;
    third.stop_daemon().await?;
    third.wait_offline().await?;
    let words = ["run", "--targets", "tag:Role=test", "--dry-run"];
    let json = site
        .cli()
        .run(&[&words[..], &["--json", "--", "true"]].concat())
        .await?
        .success()?
        .json()?;
    let verdict = |id: &str| {
        let mut nodes = json["Nodes"].as_array().into_iter().flatten();
        let node = nodes.find(|node| node["InstanceId"] == id);
        node.map(|node| {
            let text = |member: &str| node[member].as_str().unwrap_or_default().to_owned();
            (text("Policy"), text("PolicyReason"))
        })
        .unwrap_or_default()
    };
    let (first, refuses) = (verdict(site.node.id()), verdict(second.id()));
    ensure!(
        first == ("Allows".into(), "no rule holds, and there is no [default]".into()),
        "{json}"
    );
    ensure!(
        refuses.0 == "Refuses"
            && refuses.1.contains("rule \"no scripts\" of ")
            && refuses.1.ends_with("line 1"),
        "{json}"
    );
    ensure!(
        verdict(third.id()) == ("NotKnown".into(), "not connected".into()),
        "{json}"
    );
    let shown = site
        .cli()
        .run(&[&words[..], &["--wave", "all=all", "--", "true"]].concat())
        .await?
        .success()?;
    ensure!(
        shown
            .stdout
            .contains("1 node is left out, where the owner refuses it"),
        "{shown:?}"
    );
    ensure!(commands(&site).await?.is_empty(), "a plan sent a command");
    ensure!(
        !second.state_dir().join("commands").exists(),
        "a plan left something"
    );

    let signer = "[[signer]]\nname = \"ops\"\npublic_key = \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOpKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs\"\n";
    let plan = [&words[..], &["--", "true"]].concat();
    for (signers, expected) in [
        (signer.to_owned(), "run, if it is signed"),
        (
            format!("{signer}documents = [\"AWS-RunPatchBaseline\"]\n"),
            "no signer of this policy may sign a command with \"AWS-RunShellScript\"",
        ),
    ] {
        second.set_policy(&format!("require_signature = true\n{signers}"))?;
        let shown = site.cli().run(&plan).await?.success()?;
        ensure!(shown.stdout.contains(expected), "{expected}: {shown:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_health_probe_that_cannot_be_or_is_refused_is_known_before_the_first_wave() -> Result<()> {
    let (site, [mut second, _third]) = fleet().await?;
    let content = json!({"schemaVersion": "2.2", "mainSteps": [{"action": "aws:runShellScript", "name": "s",
        "inputs": {"runCommand": ["true"]}}]});
    let document = json!({"Name": "Probe", "DocumentType": "Command", "Content": content.to_string()});
    site.api().call("CreateDocument", document).await?;
    second.stop_daemon().await?;
    let rule =
        "[[rule]]\nname = \"no probes\"\neffect = \"deny\"\nfor = \"command\"\ndocuments = [\"Probe\"]\n";
    second.set_policy(rule)?;
    second.start().await?;
    let ran = site
        .cli()
        .run(&waves(&["--health-document", "Probe", "--json"], "true"))
        .await?
        .success()?
        .json()?;
    ensure!(ran["Refusing"] == json!([second.id()]), "{ran}");
    ensure!(
        ran["Status"] == "Complete" && ran["Waves"][1]["Nodes"].as_array().is_some_and(|n| n.len() == 1),
        "{ran}"
    );
    let before = commands(&site).await?.len();
    let words = waves(&["--health-document", "Prope"], "true");
    let refused = site.cli().run(&words).await?.with_code(1)?;
    ensure!(
        refused.stderr.contains("there is no document Prope"),
        "{refused:?}"
    );
    ensure!(
        commands(&site).await?.len() == before,
        "a wave was sent without its probe"
    );
    Ok(())
}

/// A roll-out to all three nodes, the canary first.
pub(crate) fn waves<'a>(more: &[&'a str], script: &'a str) -> Vec<&'a str> {
    let words = [
        "run",
        "--tag",
        "Role=test",
        "--wave",
        "canary=tag:Ring=canary,then=all",
        "--yes",
    ];
    let grace: &[&str] = match more.contains(&"--heartbeat-grace") {
        true => &[],
        false => &["--heartbeat-grace", "1s"],
    };
    [&words[..], grace, more, &["--", script]].concat()
}

#[tokio::test]
async fn waves_follow_each_other_and_each_command_names_its_wave() -> Result<()> {
    let (site, others) = fleet().await?;
    let log = site.node.dir().join("order");
    let script = format!("echo $AWS_SSM_INSTANCE_ID >> {}", log.display());
    let words = waves(&["--health-command", "true", "--json"], &script);
    let ran = site.cli().run(&words).await?.success()?.json()?;
    ensure!(
        ran["Status"] == "Complete" && ran["Waves"][1]["Nodes"].as_array().is_some_and(|n| n.len() == 2),
        "{ran}"
    );
    let order = std::fs::read_to_string(&log)?;
    let order: Vec<&str> = order.lines().collect();
    ensure!(
        order.len() == 3 && order.first() == Some(&site.node.id()),
        "{order:?}"
    );
    for other in &others {
        ensure!(order.contains(&other.id()), "{order:?}");
    }
    let comments: Vec<String> = commands(&site)
        .await?
        .iter()
        .map(|command| command["Comment"].as_str().unwrap_or_default().to_owned())
        .collect();
    let id = ran["RolloutId"].as_str().context("no id")?;
    for what in [
        "wave 1 of 2 canary",
        "wave 1 of 2 canary health",
        "wave 2 of 2 then",
        "wave 2 of 2 then health",
    ] {
        let expected = format!("roll-out {id}, {what}");
        ensure!(comments.contains(&expected), "{expected}: {comments:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_failure_in_the_first_wave_leaves_the_others_untouched() -> Result<()> {
    let (site, others) = fleet().await?;
    let ran = site.cli().run(&waves(&[], "exit 1")).await?.with_code(3)?;
    ensure!(
        ran.stderr
            .contains("wave canary: the command failed on 1 node, and 0 are allowed")
            && ran.stderr.contains("2 nodes were not touched"),
        "{ran:?}"
    );
    let sent = commands(&site).await?;
    ensure!(sent.len() == 1 && sent[0]["TargetCount"] == 1, "{sent:?}");
    // one more may fail: the next wave goes out, and the exit code tells
    let script = format!("[ $AWS_SSM_INSTANCE_ID != {} ]", others[0].id());
    let ran = site
        .cli()
        .run(&waves(&["--max-errors", "1"], &script))
        .await?
        .with_code(1)?;
    ensure!(
        ran.stdout.contains("all 2 waves are through, 1 node failed"),
        "{ran:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_failed_probe_halts_a_roll_out_and_says_where() -> Result<()> {
    let (site, _others) = fleet().await?;
    let words = waves(&["--health-command", "echo sick; exit 7", "--json"], "true");
    let ran = site.cli().run(&words).await?.with_code(3)?.json()?;
    let reason = ran["Reason"].as_str().context("no reason")?;
    ensure!(
        reason.contains("health probe failed") && reason.contains(site.node.id()),
        "{ran}"
    );
    ensure!(
        ran["Status"] == "Halted" && ran["Waves"][1]["CommandId"].is_null(),
        "{ran}"
    );
    Ok(())
}

#[tokio::test]
async fn a_lost_heartbeat_halts_a_roll_out() -> Result<()> {
    let (mut site, _others) = fleet().await?;
    let started = site.node.dir().join("started");
    let script = format!("touch {}; sleep 1000", started.display());
    let words = waves(&[], &script);
    let roll_out = site.cli().start(&words)?;
    wait_until("the canary to run it", async || Ok(started.exists())).await?;
    site.node.kill_daemon().await?;
    let ended = roll_out.wait_with_output().await?;
    let told = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.code() == Some(3), "{told}");
    ensure!(
        told.contains("lost the heartbeat of") && told.contains(site.node.id()),
        "{told}"
    );
    ensure!(told.contains("2 nodes were not touched"), "{told}");
    let rest = told.split_once("in place of its targets: --targets InstanceIds=");
    let (_, rest) = rest.with_context(|| format!("no way on: {told}"))?;
    let rest = rest.lines().next().unwrap_or_default();
    ensure!(
        rest.split(',').count() == 2 && !rest.contains(site.node.id()),
        "{told}"
    );
    Ok(())
}

#[tokio::test]
async fn without_a_terminal_a_roll_out_asks_for_yes_and_sends_nothing() -> Result<()> {
    let site = Site::start().await?;
    let words = ["run", "--tag", "Role=test", "--wave", "all=all"];
    let refused = site
        .cli()
        .run(&[&words[..], &["--", "true"]].concat())
        .await?
        .with_code(64)?;
    ensure!(refused.stderr.contains("--yes"), "{refused:?}");
    let shown = site
        .cli()
        .run(&[&words[..], &["--dry-run", "--", "true"]].concat())
        .await?
        .success()?;
    ensure!(shown.stdout.contains("no health probe"), "{shown:?}");
    ensure!(commands(&site).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn explain_tells_why_a_command_ran_on_a_node_or_did_not() -> Result<()> {
    let (site, others) = fleet().await?;
    let ran = site
        .cli()
        .run(&["run", "--tag", "Ring=canary", "--json", "--", "exit 5"])
        .await?
        .with_code(1)?
        .json()?;
    let command = ran["CommandId"].as_str().context("no id")?;
    let told = site
        .cli()
        .run(&["explain", command, site.node.id()])
        .await?
        .success()?
        .stdout;
    for part in [
        "to 1 node by tag:Ring=canary",
        "sent to the node",
        "taken by the node",
        "exit code 5",
        "ended Failed",
        "it failed there",
    ] {
        ensure!(told.contains(part), "no {part:?}: {told}");
    }
    let told = site
        .cli()
        .run(&["explain", command, others[0].id()])
        .await?
        .success()?
        .stdout;
    ensure!(
        told.contains("it has no tag Ring, and the command is for canary"),
        "{told}"
    );
    let json = site
        .cli()
        .run(&["--json", "explain", command, site.node.id()])
        .await?
        .success()?
        .json()?;
    ensure!(
        json["Delivery"] == "Taken" && json["SentDateTime"].is_number(),
        "{json}"
    );
    Ok(())
}

#[tokio::test]
async fn a_group_of_nodes_is_a_target() -> Result<()> {
    let site = Site::start().await?;
    let cli = site.cli();
    cli.run(&["group", "put", "testers", "--targets", "tag:Role=test,other"])
        .await?
        .success()?;
    let listed = cli.run(&["group", "list"]).await?.success()?;
    ensure!(listed.stdout.contains("tag:Role=test,other"), "{listed:?}");
    let words = [
        "run",
        "--targets",
        "resource-groups:Name=testers",
        "--json",
        "--",
        "echo in-the-group",
    ];
    let ran = cli.run(&words).await?.success()?.json()?;
    ensure!(ran["Invocations"][0]["InstanceId"] == site.node.id(), "{ran}");
    cli.run(&["group", "delete", "testers"]).await?.success()?;
    let refused = cli.run(&words).await?.with_code(1)?;
    ensure!(
        refused.stderr.contains("there is no group of nodes testers"),
        "{refused:?}"
    );
    Ok(())
}
