//! What a command would do, as the endpoint resolves it: `moorline run --dry-run`, and the beginning of a roll-out.

use jiff::Timestamp;
use moorline_ssm::command::{
    PlanCommand, PlanCommandRequest, PlanCommandResponse, PlannedLastRun, PlannedNode, PlannedState,
    PlannedVerdict, SendCommandRequest,
};
use moorline_transport::CallError;
use serde::Serialize;

use crate::{
    console::{self, one_line},
    counted::counted,
    error::CliError,
    operator::Operator,
};

/// Of nodes that cannot be asked.
const NOT_KNOWN: &str =
    "what a node's owner forbids is known on the node only: a refusal is then the command's result there";

/// Who is asked what the policies of nodes' owners would make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Nodes,
    Nobody,
}

/// The whole plan: all its pages in one.
///
/// # Errors
/// The endpoint refuses the command, or is out of reach.
pub(crate) async fn fetch(
    operator: &Operator,
    command: &SendCommandRequest,
    ask: Ask,
) -> Result<PlanCommandResponse, CallError> {
    let mut whole: Option<PlanCommandResponse> = None;
    let mut next_token = None;
    loop {
        let request = PlanCommandRequest {
            command: Some(command.clone()),
            ask_nodes: Some(ask == Ask::Nodes),
            max_results: None,
            next_token,
        };
        let mut page = operator.call::<PlanCommand>(&request).await?;
        next_token = page.next_token.take().filter(|token| !token.is_empty());
        match &mut whole {
            None => whole = Some(page),
            Some(whole) => {
                let nodes = whole.nodes.get_or_insert_default();
                nodes.extend(page.nodes.unwrap_or_default());
            }
        }
        if next_token.is_none() {
            return Ok(whole.unwrap_or_default());
        }
    }
}

/// Shows what would happen.
pub(crate) fn show(plan: &PlanCommandResponse, json: bool) -> Result<(), CliError> {
    if json {
        return console::print_json(&Planned::new(plan));
    }
    console::print_line(&heading(plan))?;
    let nodes = plan.nodes.as_deref().unwrap_or_default();
    if nodes.is_empty() {
        console::note("no node has these tags");
        return Ok(());
    }
    let now = Timestamp::now();
    let mut table = console::table(&["ID", "NAME", "WOULD", "LAST RUN"]);
    for node in nodes {
        table.add_row([
            one_line(node.instance_id.as_deref().unwrap_or("-")),
            one_line(
                node.instance_name
                    .as_deref()
                    .filter(|name| !name.is_empty())
                    .unwrap_or("-"),
            ),
            one_line(&would(node)),
            one_line(&last_run(node.last_run.as_ref(), now)),
        ]);
    }
    console::print_table(&table)?;
    if nodes.iter().any(|node| not_known(node).is_some()) {
        console::note(NOT_KNOWN);
    }
    Ok(())
}

/// Document, steps, parameters and limits.
fn heading(plan: &PlanCommandResponse) -> String {
    let text = |value: &Option<String>| one_line(value.as_deref().unwrap_or("-"));
    let mut lines = vec![format!(
        "document {} version {}, SHA-256 {}",
        text(&plan.document_name),
        text(&plan.document_version),
        text(&plan.document_hash)
    )];
    let steps = plan.step_names.as_deref().unwrap_or_default();
    lines.push(format!("steps {}", one_line(&steps.join(", "))));
    for (name, values) in plan.parameters.iter().flatten() {
        let values: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
        lines.push(one_line(&format!("parameter {name} = {}", values.join(", "))));
    }
    for name in plan.read_parameters.iter().flatten() {
        lines.push(one_line(&format!("the nodes read {name} of the Parameter Store")));
    }
    lines.push(format!(
        "{}, at most {} at the same time, no further one after more than {}",
        counted(plan.target_count.unwrap_or(0), "node"),
        plan.max_concurrency.unwrap_or(0),
        counted(plan.max_errors.unwrap_or(0), "error")
    ));
    lines.join("\n")
}

/// Why it is not known whether the node's owner forbids it.
fn not_known(node: &PlannedNode) -> Option<&str> {
    let is_known = node.policy.as_ref() != Some(&PlannedVerdict::NotKnown);
    (!is_known).then(|| node.policy_reason.as_deref().unwrap_or_default())
}

/// What it would do, and what its owner makes of that.
fn would(node: &PlannedNode) -> String {
    let reason = node.policy_reason.as_deref().unwrap_or_default();
    let owner = match (&node.policy, node.needs_signature.unwrap_or_default()) {
        (Some(PlannedVerdict::Refuses), _) => return format!("refuse: {reason}"),
        (Some(PlannedVerdict::Allows), true) => ", if it is signed".to_owned(),
        (Some(PlannedVerdict::NotKnown), _) => match node.state {
            Some(PlannedState::Waits) => "; its policy is not known".to_owned(),
            _ => format!("; its policy is not known: {reason}"),
        },
        (Some(PlannedVerdict::Allows | PlannedVerdict::Unknown(_)) | None, _) => String::new(),
    };
    format!("{}{owner}", would_by_itself(node))
}

fn would_by_itself(node: &PlannedNode) -> String {
    let reason = node.reason.as_deref().unwrap_or_default();
    match (&node.state, node.held.unwrap_or_default()) {
        (Some(PlannedState::Runs), false) => "run".to_owned(),
        (Some(PlannedState::Runs), true) => "run, when others have ended".to_owned(),
        (Some(PlannedState::Waits), _) => "wait: not connected".to_owned(),
        (Some(PlannedState::WrongPlatform), _) => format!("not run: {reason}"),
        (Some(PlannedState::Unknown(other)), _) => format!("{other}: {reason}"),
        (None, _) => reason.to_owned(),
    }
}

fn last_run(last: Option<&PlannedLastRun>, now: Timestamp) -> String {
    let Some(last) = last else {
        return "never".to_owned();
    };
    let status = last.status.as_ref().map(ToString::to_string).unwrap_or_default();
    let details = last
        .status_details
        .as_deref()
        .filter(|details| *details != status);
    let details = details.map_or_else(String::new, |details| format!(" ({details})"));
    let when = last.ended_date_time.or(last.requested_date_time);
    let when = when.map_or_else(String::new, |time| format!(", {}", console::ago(time, now)));
    let trace = last.trace_output.as_deref().unwrap_or_default();
    let trace = if trace.is_empty() {
        String::new()
    } else {
        format!(": {trace}")
    };
    format!("{status}{details}{when}{trace}")
}

/// The plan as scripts read it, in the API's own words.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Planned<'a> {
    #[serde(flatten)]
    plan: &'a PlanCommandResponse,
    /// What the plan cannot say.
    not_known: &'static str,
}

impl<'a> Planned<'a> {
    fn new(plan: &'a PlanCommandResponse) -> Self {
        Self {
            plan,
            not_known: NOT_KNOWN,
        }
    }
}

#[cfg(test)]
mod tests {
    use moorline_ssm::{EpochSeconds, command::CommandInvocationStatus};

    use super::*;

    fn node(state: PlannedState, held: bool) -> PlannedNode {
        PlannedNode {
            state: Some(state),
            held: Some(held),
            reason: Some("it is Windows".to_owned()),
            ..PlannedNode::default()
        }
    }

    #[test]
    fn each_node_says_what_it_would_do() {
        for (state, held, expected) in [
            (PlannedState::Runs, false, "run"),
            (PlannedState::Runs, true, "run, when others have ended"),
            (PlannedState::Waits, false, "wait: not connected"),
            (PlannedState::WrongPlatform, false, "not run: it is Windows"),
        ] {
            assert_eq!(would(&node(state, held)), expected);
        }
    }

    #[test]
    fn what_a_nodes_owner_makes_of_it_is_told_as_far_as_it_is_known() {
        let with = |state, policy, needs_signature| PlannedNode {
            policy: Some(policy),
            policy_reason: Some("rule \"r\"".to_owned()),
            needs_signature: Some(needs_signature),
            ..node(state, false)
        };
        for (node, expected) in [
            (with(PlannedState::Runs, PlannedVerdict::Allows, false), "run"),
            (
                with(PlannedState::Runs, PlannedVerdict::Allows, true),
                "run, if it is signed",
            ),
            (
                with(PlannedState::Runs, PlannedVerdict::Refuses, false),
                "refuse: rule \"r\"",
            ),
            (
                with(PlannedState::Runs, PlannedVerdict::NotKnown, false),
                "run; its policy is not known: rule \"r\"",
            ),
            (
                with(PlannedState::Waits, PlannedVerdict::NotKnown, false),
                "wait: not connected; its policy is not known",
            ),
        ] {
            assert_eq!(would(&node), expected);
        }
    }

    #[test]
    fn the_last_run_is_told_with_its_time_and_what_the_node_said() {
        let now = Timestamp::from_second(1000).unwrap();
        assert_eq!(last_run(None, now), "never");
        let last = PlannedLastRun {
            status: Some(CommandInvocationStatus::TimedOut),
            status_details: Some("ExecutionTimedOut".to_owned()),
            ended_date_time: Some(EpochSeconds(940.0)),
            trace_output: Some("the owner refuses".to_owned()),
            ..PlannedLastRun::default()
        };
        assert_eq!(
            last_run(Some(&last), now),
            "TimedOut (ExecutionTimedOut), 60 s ago: the owner refuses"
        );
    }
}
