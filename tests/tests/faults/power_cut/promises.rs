//! What was answered or acknowledged is there after a power cut, and nothing is left that somebody must repair by hand.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use moorline_tests::{
    Api, CrashDisk, Dice, Endpoint, Node, Recording, audit_records, register_agent, skipped, soak,
};
use serde_json::json;
use tokio::task::JoinSet;

use super::{Moment, PowerSite};
use crate::audit_log::{check_chain, notes};

/// Cuts of one run; `MOORLINE_SOAK` multiplies them.
const CUTS: u64 = 6;
/// Operators at the same time.
const OPERATORS: u64 = 4;

/// Puts parameters and makes activations until it is not answered; returns the names and notes that were.
async fn change(api: Api, name: String) -> Vec<String> {
    let mut answered = Vec::new();
    for number in 0.. {
        let name = format!("{name}-{number}");
        let parameter = json!({"Name": name, "Type": "String", "Value": format!("value of {name}")});
        let activation = json!({"IamRole": "r", "Description": name});
        let made = async {
            api.call("PutParameter", parameter).await?;
            api.call("CreateActivation", activation).await
        };
        if made.await.is_err() {
            break;
        }
        answered.push(name);
    }
    answered
}

#[tokio::test]
async fn what_the_endpoint_answered_is_there_after_a_power_cut_and_in_its_audit_log() -> Result<()> {
    let mut dice = Dice::of_this_run();
    let Some(mut site) = PowerSite::start().await? else {
        return Ok(());
    };
    let mut answered = BTreeSet::new();
    for round in 0..CUTS * soak() {
        let mut operators = JoinSet::new();
        for number in 0..OPERATORS {
            let api = site.endpoint.api().clone();
            operators.spawn(change(api, format!("cut-{round}-{number}")));
        }
        let moment = Moment::random(&mut dice);
        moment.come(&site.endpoint_disk).await;
        site.cut_endpoint(&mut dice).await?;
        answered.extend(operators.join_all().await.into_iter().flatten());
        check_chain(&site.endpoint)
            .await
            .with_context(|| format!("round {round}"))?;
    }
    ensure!(!answered.is_empty(), "nothing was answered between the cuts");
    for name in &answered {
        let got = site
            .endpoint
            .api()
            .call("GetParameter", json!({"Name": name}))
            .await?;
        ensure!(
            got["Parameter"]["Value"] == format!("value of {name}"),
            "{name}: {got}"
        );
    }
    let records = audit_records(&site.endpoint, &["--operation", "CreateActivation"]).await?;
    let accepted = notes(&records, "accepted");
    let lost: Vec<_> = answered.difference(&accepted).collect();
    ensure!(lost.is_empty(), "answered, and not in the log: {lost:?}");
    site.node.wait_online().await
}

#[tokio::test]
async fn what_a_strict_session_showed_is_recorded_though_the_endpoint_loses_its_power() -> Result<()> {
    let mut dice = Dice::of_this_run();
    let Some(mut site) = PowerSite::start().await? else {
        return Ok(());
    };
    site.node.kill_daemon().await?;
    site.node.configure(
        "[session]\ncreate_user = false\ndefault_user = \"root\"\n[transcript]\nstrict = true\n",
    )?;
    site.node.start().await?;
    let cli = moorline_tests::Cli::of(&site.endpoint);
    let mut terminal = cli.shell(site.node.id()).await?;
    let stop = site.node.dir().join("stop");
    terminal.send(&format!(
        "i=0; until [ -e {} ]; do i=$((i+1)); echo shown-$i-; sleep 0.01; done; echo the-''end; exit 7\n",
        stop.display()
    ))?;
    for cut in 1..=3 {
        terminal.expect(&format!("shown-{}-", cut * 40)).await?;
        Moment::AfterChanges(1 + dice.below(60))
            .come(&site.endpoint_disk)
            .await;
        site.cut_endpoint(&mut dice).await?;
    }
    terminal.expect("shown-160-").await?;
    std::fs::File::create(&stop)?;
    terminal.expect("the-end").await?;
    ensure!(terminal.wait().await? == 7, "{}", terminal.text());
    let recording = Recording::newest(&cli, site.node.dir()).await?;
    let recorded = recording.texts("o");
    let lines = |text: &str| -> BTreeSet<u64> {
        text.split("shown-")
            .filter_map(|rest| rest.split_once('-')?.0.parse().ok())
            .collect()
    };
    let (shown, recorded) = (lines(&terminal.text()), lines(&recorded));
    let lost: Vec<_> = shown.difference(&recorded).collect();
    ensure!(lost.is_empty(), "shown, and not recorded: {lost:?}");
    Ok(())
}

async fn activation(endpoint: &Endpoint) -> Result<(String, String)> {
    let input = json!({"IamRole": "r", "RegistrationLimit": 2});
    let made = endpoint.api().call("CreateActivation", input).await?;
    let text = |name: &str| made[name].as_str().map(str::to_owned).context("no activation");
    Ok((text("ActivationId")?, text("ActivationCode")?))
}

#[tokio::test]
async fn a_registration_that_loses_its_power_is_whole_or_can_be_made_again() -> Result<()> {
    if let Some(why) = CrashDisk::missing() {
        skipped(why);
        return Ok(());
    }
    let mut dice = Dice::of_this_run();
    let endpoint = Endpoint::start().await?;
    let url = endpoint.url();
    for round in 0..CUTS * soak() {
        let (id, code) = activation(&endpoint).await?;
        let mut disk = CrashDisk::mount()?;
        let state_dir = disk.path().join("agent");
        let dir = tempfile::tempdir()?;
        // the last rounds of six: the power goes when it has said that the node is registered
        let is_answered = round % CUTS >= CUTS - 2;
        let ca = endpoint.ca();
        let register = register_agent(dir.path(), &state_dir, &url, &ca, (&id, &code));
        if is_answered {
            register.await?.success()?;
        } else {
            tokio::select! {
                done = register => drop(done?),
                () = Moment::AfterChanges(1 + dice.below(12)).come(&disk) => {}
            }
        }
        disk.off();
        disk.on_again(&mut dice)?;
        let stored = state_dir.join("registration.json").exists();
        ensure!(stored || !is_answered, "round {round}: it was told, and is lost");
        let again = register_agent(dir.path(), &state_dir, &url, &endpoint.ca(), (&id, &code)).await?;
        if stored {
            ensure!(
                again.code != 0 && again.stderr.contains("already registered"),
                "round {round}: {again:?}"
            );
        } else {
            again.success().with_context(|| format!("round {round}"))?;
        }
        let mut node = Node::registered(&endpoint, dir, state_dir)?;
        node.start().await.with_context(|| format!("round {round}"))?;
        drop((node, disk));
    }
    Ok(())
}

#[tokio::test]
async fn a_node_keeps_the_key_of_its_recordings_through_power_cuts() -> Result<()> {
    let mut dice = Dice::of_this_run();
    let Some(mut site) = PowerSite::start().await? else {
        return Ok(());
    };
    let key = site.node.state_dir().join("transcript.key");
    let before = std::fs::read(&key)?;
    for _ in 0..3 {
        site.cut_node(&mut dice).await?;
        site.node.wait_online().await?;
        ensure!(std::fs::read(&key)? == before, "the node has another key");
    }
    let command = moorline_tests::send_script(site.endpoint.api(), site.node.id(), "echo sealed").await?;
    let ended = moorline_tests::finished(site.endpoint.api(), site.node.id(), &command).await?;
    ensure!(ended["Status"] == "Success", "{ended}");
    let cli = moorline_tests::Cli::of(&site.endpoint);
    let recording = Recording::of_command(&cli, site.node.dir(), &command).await?;
    ensure!(recording.texts("o").contains("sealed"));
    Ok(())
}
