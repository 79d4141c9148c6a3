//! What is ended from outside: `moorline cancel` and `moorline terminate`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use moorline_tests::{Node, Running, Site, WorkerKind, finished, send_script, wait_until};
use serde_json::{Value, json};

/// A site with a second node.
async fn two_nodes() -> Result<(Site, Node)> {
    let site = Site::start().await?;
    let mut other = Node::register(&site.endpoint, &[("Role", "other")]).await?;
    other.start().await?;
    Ok((site, other))
}

/// Sends a script to both nodes, and returns the command's id.
async fn send_to_both(site: &Site, other: &Node, script: &str) -> Result<String> {
    let input = json!({
        "DocumentName": "AWS-RunShellScript",
        "InstanceIds": [site.node.id(), other.id()],
        "Parameters": {"commands": [script]},
    });
    let sent = site.api().call("SendCommand", input).await?;
    let id = sent["Command"]["CommandId"].as_str();
    Ok(id.context("SendCommand's answer names no command")?.to_owned())
}

async fn wait_for_file(path: PathBuf) -> Result<()> {
    wait_until("the script to run", async || Ok(path.exists())).await
}

/// Status and whether it had ended, of a node in the report of `moorline cancel --json`.
fn of_node<'a>(report: &'a Value, node: &str) -> Option<(&'a str, bool)> {
    let mut nodes = report["Invocations"].as_array()?.iter();
    let found = nodes.find(|one| one["InstanceId"] == node)?;
    Some((found["Status"].as_str()?, found["HadEnded"].as_bool()?))
}

#[tokio::test]
async fn a_command_is_cancelled_where_it_runs_and_what_had_ended_is_told_apart() -> Result<()> {
    let (site, other) = two_nodes().await?;
    let started = site.node.dir().join("started");
    let script = format!(
        "[ $AWS_SSM_INSTANCE_ID = {} ] || {{ touch {}; sleep 1000; }}",
        other.id(),
        started.display()
    );
    let id = send_to_both(&site, &other, &script).await?;
    wait_for_file(started).await?;
    ensure!(finished(site.api(), other.id(), &id).await?["Status"] == "Success");
    let cancelled = site.cli().run(&["cancel", &id]).await?.success()?;
    let expected = format!("command {id}: cancelled on 1 node; had ended before on 1 node (1 Success)\n");
    ensure!(cancelled.stdout == expected, "{cancelled:?}");
    ensure!(site.finished(&id).await?["Status"] == "Cancelled");
    site.node.wait_workers(WorkerKind::Command, 0).await?;

    let again = site.cli().run(&["cancel", &id]).await?.success()?;
    ensure!(
        again
            .stdout
            .contains(": nothing was left to cancel; had ended before on 2 nodes"),
        "{again:?}"
    );
    let again = site
        .cli()
        .run(&["cancel", &id, "--json"])
        .await?
        .success()?
        .json()?;
    ensure!(
        again["CommandId"] == id.as_str() && again["Status"] == "Cancelled",
        "{again}"
    );
    ensure!(
        of_node(&again, site.node.id()) == Some(("Cancelled", true)),
        "{again}"
    );
    ensure!(of_node(&again, other.id()) == Some(("Success", true)), "{again}");
    Ok(())
}

#[tokio::test]
async fn a_command_that_is_cancelled_on_one_node_goes_on_on_the_others() -> Result<()> {
    let (site, other) = two_nodes().await?;
    let go_on = other.dir().join("go-on");
    let script = format!("until [ -e {} ]; do sleep 0.1; done", go_on.display());
    let id = send_to_both(&site, &other, &script).await?;
    site.in_progress(&id).await?;
    let report = site.cli().run(&["cancel", &id, site.node.id(), "--json"]).await?;
    let report = report.success()?.json()?;
    ensure!(report["Status"] == "InProgress", "{report}");
    ensure!(
        of_node(&report, site.node.id()) == Some(("Cancelled", false)),
        "{report}"
    );
    ensure!(of_node(&report, other.id()).is_none(), "{report}");
    std::fs::write(go_on, "")?;
    ensure!(finished(site.api(), other.id(), &id).await?["Status"] == "Success");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_cancelled_is_an_error_that_says_why() -> Result<()> {
    let site = Site::start().await?;
    let id = send_script(site.api(), site.node.id(), "true").await?;
    let unknown = "00000000-0000-4000-8000-000000000000";
    for (words, part) in [
        (&["cancel", unknown][..], unknown),
        (&["cancel", "mi-1"], "\"mi-1\" is no command id"),
        (
            &["cancel", &id, "mi-00000000000000000"],
            "was not sent to managed node mi-00000000000000000",
        ),
        (
            &["terminate", "nobody-1"],
            "no open session has an id that begins with \"nobody-1\"",
        ),
    ] {
        let refused = site.cli().run(words).await?.with_code(1)?;
        ensure!(
            refused.stderr.contains(part) && refused.stdout.is_empty(),
            "{refused:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn who_cancels_on_a_node_that_is_away_is_told_so_and_may_leave() -> Result<()> {
    let mut site = Site::start().await?;
    let id = site.send("sleep 1000").await?;
    site.in_progress(&id).await?;
    site.node.kill_daemon().await?;
    let mut running = Running::start(&site.cli(), &["cancel", &id, "--json"])?;
    let told = format!(
        "waiting for 1 node that has not ended the cancelled command for 15 s, and may be away: {}",
        site.node.id()
    );
    running.tells(&told).await?;
    running.interrupt()?;
    running.tells("is left, and may still run").await?;
    let (code, report) = running.ends().await?;
    ensure!(code == Some(130), "{code:?} {report}");
    ensure!(
        of_node(&report, site.node.id()) == Some(("Cancelling", false)),
        "{report}"
    );
    site.node.start().await?;
    ensure!(site.finished(&id).await?["Status"] == "Cancelled");
    Ok(())
}

#[tokio::test]
async fn a_session_is_terminated_and_its_user_told_by_whom_and_one_that_is_over_is_told_as_such() -> Result<()>
{
    let site = Site::start().await?;
    let mut terminal = site.cli().at_terminal(&["shell", site.node.id()])?;
    terminal.send("echo rea''dy\n")?;
    terminal.expect("ready").await?;
    let sessions = site.cli().run(&["sessions", "--json"]).await?.success()?.json()?;
    let id = sessions[0]["SessionId"].as_str().context("no session")?;
    let terminated = site.cli().run(&["terminate", id]).await?.success()?;
    let on = format!("session {id} on {}", site.node.id());
    ensure!(
        terminated.stdout == format!("{on} was terminated\n"),
        "{terminated:?}"
    );
    terminal.expect("session ended: terminated by").await?;
    ensure!(terminal.wait().await? != 0);
    site.node.wait_workers(WorkerKind::Session, 0).await?;
    wait_until("the recording to say by whom", async || {
        let shown = site.cli().run(&["transcript", "text", id]).await?.success()?;
        Ok(shown
            .stdout
            .contains("-- end: the endpoint ended the session: terminated by admin"))
    })
    .await?;

    let again = site.cli().run(&["terminate", id]).await?.success()?;
    ensure!(
        again
            .stdout
            .starts_with(&format!("{on} had ended before: terminated by")),
        "{again:?}"
    );
    let again = site
        .cli()
        .run(&["terminate", id, "--json"])
        .await?
        .success()?
        .json()?;
    ensure!(
        again["SessionId"] == id && again["Status"] == "Terminated" && again["HadEnded"] == true,
        "{again}"
    );
    Ok(())
}
