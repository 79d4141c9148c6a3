//! The audit log, whatever becomes of the endpoint and its disk.

use std::{collections::BTreeSet, io::Write as _, path::Path};

use anyhow::{Context, Result, ensure};
use moorline_tests::{
    Api, Cli, Dice, Endpoint, PATIENCE, audit_keys, audit_records, is_root, run, skipped, wait_until,
};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet};

/// Kills of one run.
const KILLS: u32 = 10;
/// Operators at the same time.
const OPERATORS: u32 = 4;

/// Makes activations until it is told to stop or is not answered; returns the notes of those that were acknowledged.
async fn make_activations(api: Api, name: String, stop: watch::Receiver<bool>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let note = format!("{name}-{number}");
        let request = json!({"IamRole": "r", "Description": note});
        if *stop.borrow() || api.call("CreateActivation", request).await.is_err() {
            break;
        }
        acknowledged.push(note);
    }
    acknowledged
}

/// The notes of activations in these records.
pub(crate) fn notes(records: &[Value], event: &str) -> BTreeSet<String> {
    let is_meant =
        |record: &&Value| record["event"] == event && record["operation"] == "ssm:CreateActivation";
    let note = |record: &Value| record["parameters"]["Description"].as_str().map(str::to_owned);
    records.iter().filter(is_meant).filter_map(note).collect()
}

pub(crate) async fn check_chain(endpoint: &Endpoint) -> Result<()> {
    let keys = audit_keys(endpoint).await?.display().to_string();
    let chain = endpoint.home().join("audit.chain").display().to_string();
    let cli = Cli::of(endpoint);
    cli.run(&["audit", "export", "--format", "chain", "--out", &chain])
        .await?
        .success()?;
    let verified = cli.run(&["audit", "verify", &chain, "--keys", &keys]).await?;
    ensure!(verified.code == 0, "{verified:?}");
    Ok(())
}

#[tokio::test]
async fn whenever_the_endpoint_is_killed_its_log_verifies_and_holds_every_change() -> Result<()> {
    let mut dice = Dice::of_this_run();
    let mut endpoint = Endpoint::start().await?;
    let mut acknowledged = BTreeSet::new();
    for round in 0..KILLS {
        let (stop, stopped) = watch::channel(false);
        let mut operators = JoinSet::new();
        for number in 0..OPERATORS {
            let name = format!("{round}-{number}");
            operators.spawn(make_activations(endpoint.api().clone(), name, stopped.clone()));
        }
        dice.pause(400).await;
        endpoint.kill().await?;
        stop.send(true)?;
        acknowledged.extend(operators.join_all().await.into_iter().flatten());
        endpoint.start_again().await?;
    }
    ensure!(
        !acknowledged.is_empty(),
        "nothing was acknowledged between the kills"
    );
    let records = audit_records(&endpoint, &["--operation", "CreateActivation"]).await?;
    let (accepted, called) = (notes(&records, "accepted"), notes(&records, "call"));
    let lost: Vec<_> = acknowledged.difference(&called).collect();
    ensure!(lost.is_empty(), "acknowledged, and not in the log: {lost:?}");
    // what was done and not acknowledged is there too
    let mut next = Value::Null;
    let mut made = BTreeSet::new();
    loop {
        let request = json!({"MaxResults": 50, "NextToken": next.as_str().unwrap_or_default()});
        let page = endpoint.api().call("DescribeActivations", request).await?;
        let page_of = page["ActivationList"].as_array().context("no list")?;
        made.extend(
            page_of
                .iter()
                .filter_map(|one| one["Description"].as_str().map(str::to_owned)),
        );
        next = page["NextToken"].clone();
        if next.as_str().is_none_or(str::is_empty) {
            break;
        }
    }
    ensure!(
        made.is_superset(&acknowledged),
        "an acknowledged activation is gone"
    );
    let unrecorded: Vec<_> = made.difference(&accepted).collect();
    ensure!(unrecorded.is_empty(), "done, and not in the log: {unrecorded:?}");
    let starts = audit_records(&endpoint, &["--operation", "log-started"]).await?;
    ensure!(starts.len() == usize::try_from(KILLS + 1)?, "{starts:?}");
    check_chain(&endpoint).await
}

/// A file system for an endpoint, mounted for one test.
struct Disk<'a>(&'a Path);

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _unmounted = nix::mount::umount2(self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn on_a_full_disk_nothing_is_changed_but_sessions_and_reads_go_on() -> Result<()> {
    if !is_root() {
        skipped("only root can mount a small disk");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let state_dir = dir.path().join("control");
    std::fs::create_dir(&state_dir)?;
    let path = state_dir.display().to_string();
    let arguments = ["-t", "tmpfs", "-o", "size=48m,mode=700", "moorline-test", &path];
    run("mount", &arguments, &Default::default(), None, PATIENCE)
        .await?
        .success()?;
    let disk = Disk(&state_dir);
    let endpoint = Endpoint::start_in(&state_dir).await?;
    let mut node = moorline_tests::Node::register(&endpoint, &[]).await?;
    node.start().await?;
    let mut terminal = Cli::of(&endpoint).shell(node.id()).await?;

    let mut filler = std::fs::File::create(state_dir.join("filler"))?;
    // to the last byte but for what the database's journal needs to go on
    while filler.write_all(&[0; 64 * 1024]).is_ok() {}
    let filled = filler.metadata()?.len();
    filler.set_len(filled - 512 * 1024)?;
    let make = json!({"IamRole": "r", "Description": "on a full disk"});
    let refused = endpoint.api().refusal("CreateActivation", make.clone()).await?;
    ensure!(refused.code == "ServiceUnavailableException", "{refused:?}");
    ensure!(
        refused
            .message
            .contains("Free space on the endpoint's file system"),
        "{refused:?}"
    );
    let unsent = Cli::of(&endpoint)
        .run(&["run", "--node", node.id(), "--", "true"])
        .await?;
    ensure!(
        unsent.code != 0
            && unsent.stderr.contains("nothing is changed now")
            && !unsent.stderr.contains("may run"),
        "{unsent:?}"
    );
    let node_list = endpoint
        .api()
        .call("DescribeInstanceInformation", json!({}))
        .await?;
    ensure!(node_list.to_string().contains(node.id()), "{node_list}");
    terminal.send("echo goes-''on\n")?;
    terminal.expect("goes-on").await?;

    drop(filler);
    std::fs::remove_file(state_dir.join("filler"))?;
    endpoint.api().call("CreateActivation", make).await?;
    terminal.send("exit\n")?;
    terminal.wait().await?;
    let refused = audit_records(&endpoint, &["--result", "ServiceUnavailableException"]).await?;
    ensure!(refused.len() == 2, "{refused:?}");
    wait_until("the end of the session in the log", async || {
        Ok(!audit_records(&endpoint, &["--operation", "session-ended"])
            .await?
            .is_empty())
    })
    .await?;
    check_chain(&endpoint).await?;
    drop((node, endpoint, disk));
    Ok(())
}
