//! `moorline explain`: why a command ran on a node, or did not.

use moorline_ssm::{
    EpochSeconds,
    command::{Command, CommandPlugin, ExplainCommand, ExplainCommandRequest, ExplainCommandResponse},
};

use crate::{
    console::{self, one_line},
    counted::counted,
    error::CliError,
    operator::Operator,
    pick, run,
};

/// The policy of the node's owner refused it.
const ACCESS_DENIED: &str = "AccessDenied";

pub(crate) async fn execute(
    operator: &Operator,
    command: &str,
    node: &str,
    json: bool,
) -> Result<u8, CliError> {
    pick::command(command)?;
    let request = ExplainCommandRequest {
        command_id: Some(command.to_owned()),
        instance_id: Some(pick::node(operator, node).await?),
    };
    let told = operator.call::<ExplainCommand>(&request).await?;
    if json {
        console::print_json(&told)?;
    } else {
        let node = request.instance_id.unwrap_or_default();
        console::print_line(&lines(&node, &told).join("\n"))?;
    }
    Ok(0)
}

/// The story from the request to the end, each line with its time.
fn lines(node: &str, told: &ExplainCommandResponse) -> Vec<String> {
    let command = told.command.clone().unwrap_or_default();
    let mut lines = vec![at(
        command.requested_date_time,
        &format!(
            "{} sent {} version {} to {}",
            told.requester.as_deref().unwrap_or("somebody"),
            command.document_name.as_deref().unwrap_or("-"),
            command.document_version.as_deref().unwrap_or("-"),
            targets(&command)
        ),
    )];
    if let Some(comment) = command.comment.as_deref().filter(|comment| !comment.is_empty()) {
        lines.push(at(None, &format!("comment: {comment}")));
    }
    for (time, what) in [
        (
            told.released_date_time,
            "had its turn, after other nodes had ended (MaxConcurrency)",
        ),
        (told.sent_date_time, "sent to the node"),
        (told.acknowledged_date_time, "taken by the node"),
        (told.cancel_requested_date_time, "cancelled by an operator"),
    ] {
        if time.is_some() {
            lines.push(at(time, what));
        }
    }
    let invocation = told.invocation.clone().unwrap_or_default();
    let is_refused = invocation.status_details.as_deref() == Some(ACCESS_DENIED);
    for step in invocation.command_plugins.iter().flatten() {
        lines.push(step_line(step, is_refused));
    }
    if let Some(status) = &invocation.status {
        let details = invocation
            .status_details
            .as_deref()
            .filter(|details| *details != status.as_str());
        let details = details.map_or_else(String::new, |details| format!(" ({details})"));
        let ended = told.ended_date_time.map_or("now", |_| "ended");
        lines.push(at(told.ended_date_time, &format!("{ended} {status}{details}")));
    }
    if let Some(trace) = invocation
        .trace_output
        .as_deref()
        .filter(|trace| !trace.is_empty())
    {
        lines.push(at(None, trace));
    }
    lines.push(format!(
        "{node}: {}",
        one_line(told.explanation.as_deref().unwrap_or_default())
    ));
    lines
}

fn targets(command: &Command) -> String {
    let ids = command.instance_ids.as_deref().unwrap_or_default();
    let nodes = counted(command.target_count.unwrap_or(0), "node");
    if !ids.is_empty() {
        return format!("{nodes} by id");
    }
    let targets: Vec<String> = command.targets.iter().flatten().map(run::shown_target).collect();
    format!("{nodes} by {}", targets.join(" and "))
}

fn step_line(step: &CommandPlugin, is_refused: bool) -> String {
    let name = step.name.as_deref().unwrap_or("-");
    let status = step.status.as_ref().map(ToString::to_string).unwrap_or_default();
    let details = step.status_details.as_deref().unwrap_or(&status);
    let code = step.response_code.filter(|code| *code > 0);
    let code = code.map_or_else(String::new, |code| format!(", exit code {code}"));
    // of a step that did not run its output says why
    let why = step
        .output
        .as_deref()
        .filter(|_| details == "Skipped" || is_refused)
        .map(str::trim)
        .unwrap_or_default();
    let why = if why.is_empty() {
        String::new()
    } else {
        format!(": {why}")
    };
    let time = step.response_finish_date_time.or(step.response_start_date_time);
    at(time, &format!("step {name}: {details}{code}{why}"))
}

fn at(time: Option<EpochSeconds>, what: &str) -> String {
    let time = time.and_then(console::timestamp).unwrap_or_default();
    format!("{time:24}  {}", one_line(what))
}

#[cfg(test)]
mod tests {
    use moorline_ssm::command::{CommandInvocation, CommandInvocationStatus, CommandPluginStatus, Target};

    use super::*;

    #[test]
    fn the_story_goes_from_the_request_to_the_sentence() {
        let step = CommandPlugin {
            name: Some("later".to_owned()),
            status: Some(CommandPluginStatus::Success),
            status_details: Some("Skipped".to_owned()),
            response_code: Some(0),
            output: Some("a precondition does not hold".to_owned()),
            ..CommandPlugin::default()
        };
        let failed = CommandPlugin {
            name: Some("first".to_owned()),
            status: Some(CommandPluginStatus::Failed),
            response_code: Some(3),
            response_finish_date_time: Some(EpochSeconds(2.5)),
            ..CommandPlugin::default()
        };
        let told = ExplainCommandResponse {
            command: Some(Command {
                document_name: Some("D".to_owned()),
                document_version: Some("2".to_owned()),
                requested_date_time: Some(EpochSeconds(1.0)),
                target_count: Some(7),
                targets: Some(vec![Target {
                    key: Some("tag:Env".to_owned()),
                    values: Some(vec!["a".to_owned(), "b".to_owned()]),
                }]),
                ..Command::default()
            }),
            requester: Some("arn:x".to_owned()),
            sent_date_time: Some(EpochSeconds(2.0)),
            ended_date_time: Some(EpochSeconds(3.0)),
            invocation: Some(CommandInvocation {
                status: Some(CommandInvocationStatus::Failed),
                status_details: Some("Failed".to_owned()),
                command_plugins: Some(vec![failed, step]),
                ..CommandInvocation::default()
            }),
            explanation: Some("It failed there.".to_owned()),
            ..ExplainCommandResponse::default()
        };
        assert_eq!(
            lines("mi-1", &told),
            [
                "1970-01-01T00:00:01.000Z  arn:x sent D version 2 to 7 nodes by tag:Env=a,b",
                "1970-01-01T00:00:02.000Z  sent to the node",
                "1970-01-01T00:00:02.500Z  step first: Failed, exit code 3",
                "                          step later: Skipped: a precondition does not hold",
                "1970-01-01T00:00:03.000Z  ended Failed",
                "mi-1: It failed there.",
            ]
        );
    }
}
