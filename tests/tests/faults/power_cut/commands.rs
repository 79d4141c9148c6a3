//! Many commands, and the machines under them fail at random.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use moorline_tests::{Api, Dice, PATIENCE, kill_process, soak, wait_for};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Moment, PowerSite};

/// Commands of one run, and failures among them; `MOORLINE_SOAK` multiplies both.
const ROUNDS: u64 = 20;
const COMMANDS_PER_ROUND: u64 = 20;
/// Commands without an end that the next failure may find: a slow machine gets its time.
const MOST_UNDER_WAY: usize = 40;
const MOST_STEPS: u64 = 3;
/// One of so many commands has a step that asks for a reboot.
const COMMANDS_PER_REBOOT: u64 = 30;
/// What that step writes in the boot after, behind its number.
const AGAIN: &str = "again";
/// What the daemon says of a command that goes on in the next boot.
const AWAITS_REBOOT: &str = "a command waits for the reboot that it has asked for";

/// A command as its sender knows it.
struct Sent {
    /// What its steps write, with their numbers.
    mark: String,
    kind: Kind,
    /// `None`: the call was not answered, so nothing was promised.
    command_id: Option<String>,
    /// How it ended, as it was first told.
    end: Option<Value>,
}

/// What a command runs.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Steps(u64),
    /// [`MOST_STEPS`], of which the second asks for a reboot and runs again behind it.
    Reboots,
}

impl Kind {
    fn random(dice: &mut Dice) -> Self {
        match dice.below(COMMANDS_PER_REBOOT) {
            0 => Self::Reboots,
            _ => Self::Steps(1 + dice.below(MOST_STEPS)),
        }
    }

    fn steps(self) -> u64 {
        match self {
            Self::Steps(steps) => steps,
            Self::Reboots => MOST_STEPS,
        }
    }

    fn document(self) -> String {
        match self {
            Self::Steps(steps) => format!("Steps{steps}"),
            Self::Reboots => "Reboots".to_owned(),
        }
    }

    /// The step that asks for a reboot.
    fn reboots_in(self) -> Option<u64> {
        match self {
            Self::Steps(_) => None,
            Self::Reboots => Some(2),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Failure {
    DaemonKilled,
    WorkersKilled,
    EndpointKilled,
    NodeCut,
    EndpointCut,
    BothCut,
}

impl Failure {
    fn random(dice: &mut Dice) -> Self {
        match dice.below(8) {
            0 => Self::DaemonKilled,
            1 => Self::WorkersKilled,
            2 => Self::EndpointKilled,
            3 | 4 => Self::NodeCut,
            5 | 6 => Self::EndpointCut,
            _ => Self::BothCut,
        }
    }
}

#[tokio::test]
async fn each_command_has_one_end_and_no_step_runs_twice_whatever_loses_its_power_when() -> Result<()> {
    let mut dice = Dice::of_this_run();
    let Some(mut site) = PowerSite::start().await? else {
        return Ok(());
    };
    make_documents(&site).await?;
    let mut all: Vec<Sent> = Vec::new();
    for round in 0..ROUNDS * soak() {
        let mut sending = JoinSet::new();
        for number in 0..COMMANDS_PER_ROUND {
            let kind = Kind::random(&mut dice);
            let pause = dice.below(300);
            let (api, node) = (site.endpoint.api().clone(), site.node.id().to_owned());
            sending.spawn(send(api, node, format!("{round}-{number}"), kind, pause));
        }
        fail(&mut site, &mut dice)
            .await
            .with_context(|| format!("round {round}"))?;
        while let Some(sent) = sending.join_next().await {
            all.push(sent?);
        }
        settle(&mut site, &mut dice, &mut all, MOST_UNDER_WAY).await?;
    }
    site.node.wait_online().await?;
    settle(&mut site, &mut dice, &mut all, 0).await?;
    check(&site, &all)?;
    // once more, with nothing under way: it stays so
    site.cut_node(&mut dice).await?;
    site.cut_endpoint(&mut dice).await?;
    site.node.wait_online().await?;
    let last = Kind::Reboots;
    let (api, node) = (site.endpoint.api().clone(), site.node.id().to_owned());
    all.push(send(api, node, "last".to_owned(), last, 0).await);
    settle(&mut site, &mut dice, &mut all, 0).await?;
    for sent in &mut all {
        look(site.endpoint.api(), sent).await?;
    }
    let end = all.last().and_then(|sent| sent.end.as_ref());
    ensure!(
        end.is_some_and(|end| end["Status"] == "Success"),
        "a reboot without failures: {end:?}"
    );
    check(&site, &all)
}

/// A document of each kind. A step leaves a line behind, where no power cut takes it.
async fn make_documents(site: &PowerSite) -> Result<()> {
    for kind in (1..=MOST_STEPS).map(Kind::Steps).chain([Kind::Reboots]) {
        let content = json!({
            "schemaVersion": "2.2",
            "parameters": {"Mark": {"type": "String", "allowedPattern": "^[a-z0-9-]+$"}},
            "mainSteps": (1..=kind.steps()).map(|number| step(site, kind, number)).collect::<Vec<_>>(),
        });
        let input = json!({
            "Name": kind.document(), "DocumentType": "Command", "Content": content.to_string(),
        });
        site.endpoint.api().call("CreateDocument", input).await?;
    }
    Ok(())
}

fn step(site: &PowerSite, kind: Kind, number: u64) -> Value {
    let (ran, place) = (site.node.dir().join("ran"), site.node.dir().display());
    let line = |more: &str| format!("echo {{{{Mark}}}}.{number}{more} >> {}", ran.display());
    let pause = "sleep 0.0$(($$ % 5))".to_owned();
    let lines = if kind.reboots_in() == Some(number) {
        let asked = format!("{place}/{{{{Mark}}}}.asked");
        let again = line(AGAIN);
        let first = line("");
        vec![format!(
            "if [ -e {asked} ]; then {again}; {pause}; else touch {asked}; {first}; {pause}; exit 194; fi"
        )]
    } else {
        vec![line(""), pause]
    };
    json!({"action": "aws:runShellScript", "name": format!("s{number}"), "inputs": {"runCommand": lines}})
}

async fn send(api: Api, node: String, mark: String, kind: Kind, pause_millis: u64) -> Sent {
    tokio::time::sleep(std::time::Duration::from_millis(pause_millis)).await;
    let command_id = send_one(&api, &node, &mark, kind).await.ok();
    Sent {
        mark,
        kind,
        command_id,
        end: None,
    }
}

async fn send_one(api: &Api, node: &str, mark: &str, kind: Kind) -> Result<String> {
    let input = json!({
        "DocumentName": kind.document(), "InstanceIds": [node], "Parameters": {"Mark": [mark]},
    });
    let output = api.call("SendCommand", input).await?;
    let command_id = output["Command"]["CommandId"].as_str();
    Ok(command_id.context("SendCommand names no command")?.to_owned())
}

async fn fail(site: &mut PowerSite, dice: &mut Dice) -> Result<()> {
    let (failure, moment) = (Failure::random(dice), Moment::random(dice));
    match failure {
        Failure::DaemonKilled => {
            moment.come(&site.node_disk).await;
            site.node.daemon_pid().into_iter().for_each(kill_process);
            site.node_disk.thaw();
            site.node.kill_daemon().await?;
            site.node.launch()
        }
        Failure::WorkersKilled => {
            moment.come(&site.node_disk).await;
            site.node.kill_children();
            site.node_disk.thaw();
            Ok(())
        }
        Failure::EndpointKilled => {
            moment.come(&site.endpoint_disk).await;
            site.endpoint.pid().into_iter().for_each(kill_process);
            site.endpoint_disk.thaw();
            site.endpoint.kill().await?;
            site.endpoint.start_again().await
        }
        Failure::NodeCut => {
            moment.come(&site.node_disk).await;
            site.cut_node(dice).await
        }
        Failure::EndpointCut => {
            moment.come(&site.endpoint_disk).await;
            site.cut_endpoint(dice).await
        }
        Failure::BothCut => {
            moment.come(&site.node_disk).await;
            site.cut_node(dice).await?;
            site.cut_endpoint(dice).await
        }
    }
}

/// Waits until no more than `most` of the commands that were answered have no end. A node that waits for a reboot gets
/// it, as hard as a power cut.
async fn settle(site: &mut PowerSite, dice: &mut Dice, all: &mut [Sent], most: usize) -> Result<()> {
    let mut open: Vec<&mut Sent> = all
        .iter_mut()
        .filter(|sent| sent.command_id.is_some() && sent.end.is_none())
        .collect();
    wait_for("commands to end", PATIENCE * 5, async || {
        if site.node.log_of_this_start().contains(AWAITS_REBOOT) {
            site.cut_node(dice).await?;
        }
        for sent in &mut open {
            look(site.endpoint.api(), sent).await?;
        }
        open.retain(|sent| sent.end.is_none());
        Ok((open.len() <= most).then_some(()))
    })
    .await
}

/// Whether an end is still the one that was told before. The result of a step that was on its way for longer than the
/// endpoint waits for it when the document has ended is added when it comes; what was told stays.
fn is_kept(end: &Value, now: &Value) -> bool {
    let steps = |of: &Value| of["CommandPlugins"].as_array().cloned().unwrap_or_default();
    let later = steps(now);
    let is_told = |step: &Value| !step["ResponseFinishDateTime"].is_null();
    ["Status", "StatusDetails", "TraceOutput"]
        .iter()
        .all(|member| end[member] == now[member])
        && steps(end)
            .iter()
            .filter(|step| is_told(step))
            .all(|step| later.contains(step))
}

/// Looks whether a command has ended. One that has stays as it is.
async fn look(api: &Api, sent: &mut Sent) -> Result<()> {
    let Some(command_id) = &sent.command_id else {
        return Ok(());
    };
    let now = invocation(api, command_id)
        .await
        .with_context(|| format!("{} was answered, and is lost", sent.mark))?;
    let is_final = matches!(
        now["Status"].as_str(),
        Some("Success" | "Failed" | "Cancelled" | "TimedOut")
    );
    match &sent.end {
        Some(end) => {
            ensure!(is_kept(end, &now), "{} ended twice: {end}\n{now}", sent.mark);
            sent.end = Some(now);
        }
        None if is_final => sent.end = Some(now),
        None => {}
    }
    Ok(())
}

async fn invocation(api: &Api, command_id: &str) -> Result<Value> {
    let input = json!({"CommandId": command_id, "Details": true});
    let mut listed = api.call("ListCommandInvocations", input).await?;
    let invocation = listed["CommandInvocations"][0].take();
    ensure!(invocation.is_object(), "{command_id} has no invocation");
    Ok(invocation)
}

/// What was told of each command is what happened.
fn check(site: &PowerSite, all: &[Sent]) -> Result<()> {
    let text = std::fs::read_to_string(site.node.dir().join("ran"))?;
    let mut ran: BTreeMap<&str, usize> = BTreeMap::new();
    for line in text.lines() {
        *ran.entry(line).or_default() += 1;
    }
    for (line, times) in &ran {
        ensure!(*times == 1, "{line} ran {times} times");
    }
    for sent in all {
        if let Some(end) = &sent.end {
            check_end(sent, end, &ran).with_context(|| format!("{}: {end}", sent.mark))?;
        }
    }
    Ok(())
}

fn check_end(sent: &Sent, end: &Value, ran: &BTreeMap<&str, usize>) -> Result<()> {
    let steps = end["CommandPlugins"].as_array().context("no steps are told")?;
    ensure!(steps.len() as u64 == sent.kind.steps(), "not all steps are told");
    for (step, number) in steps.iter().zip(1..) {
        let again = match sent.kind.reboots_in() {
            Some(reboots) if reboots == number => AGAIN,
            _ => "",
        };
        // of one that runs again behind a reboot it is its second time that ends it
        let has_run = ran.contains_key(format!("{}.{number}{again}", sent.mark).as_str());
        let text = step["Output"].as_str().unwrap_or_default();
        match step["Status"].as_str() {
            Some("Success") => ensure!(has_run, "step {number} is told as run, and was not"),
            Some("Failed") => ensure!(text.contains("unknown"), "step {number} is not told as unknown"),
            Some("Cancelled") => ensure!(!has_run, "step {number} is told as not run, and was"),
            _ => bail!("step {number} has no end"),
        }
    }
    let is_success = steps.iter().all(|step| step["Status"] == "Success");
    match end["Status"].as_str() {
        Some("Success") => ensure!(is_success, "not all steps succeeded"),
        // even if all steps did: then the end was not on record
        Some("Failed") => {}
        _ => bail!("no such end was asked for"),
    }
    Ok(())
}
