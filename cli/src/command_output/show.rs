//! `moorline output`: all that a command put out on a node.

use std::{borrow::Cow, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use moorline_protocol::transcript::{OutputPiece, OutputStream};
use moorline_ssm::command::{
    CommandInvocation, CommandInvocationStatus, ListCommandInvocations, ListCommandInvocationsRequest,
};
use serde::Serialize;
use tokio::time::sleep;

use super::follower::{Follower, News};
use crate::{
    arguments::OutputOptions,
    console,
    counted::{agreeing, counted},
    error::CliError,
    operator::{Operator, is_passing},
    pick,
};

/// A recording reaches the endpoint within a moment of the command's begin.
const BEGIN_WAIT_MILLIS: i32 = 2000;
/// Shorter than an endpoint holds a request.
const WAIT_MILLIS: i32 = 15_000;
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A piece of the output, as programs read it: one line each.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown<'a> {
    stream: &'static str,
    /// The last is the one that wrote it.
    steps: Vec<&'a str>,
    text: Cow<'a, str>,
    /// Where the text is not all that it is: the bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// Exit code 0, or 1 when some of the output is missing.
pub(crate) async fn execute(
    operator: &Operator,
    options: &OutputOptions,
    json: bool,
) -> Result<u8, CliError> {
    pick::command(&options.command)?;
    let invocation = invocation(operator, options).await?;
    let node = invocation.instance_id.unwrap_or_default();
    let mut follower = Follower::new(operator, &options.command, &node);
    let is_running = invocation.status.as_ref().is_some_and(is_running);
    let mut wait_millis = if is_running && options.follow {
        WAIT_MILLIS
    } else {
        BEGIN_WAIT_MILLIS
    };
    let mut missing = 0;
    loop {
        let (pieces, is_last) = match follower.look(wait_millis).await {
            Ok(News::Output(pieces)) => (pieces, false),
            Ok(News::Last(pieces)) => (pieces, true),
            Err(CliError::Call(error)) if is_passing(&error) && options.follow => {
                sleep(RETRY_PAUSE).await;
                continue;
            }
            Err(CliError::Call(error)) if error.code() == Some("DoesNotExistException") => {
                return Err(unrecorded(&options.command, &node));
            }
            Err(error) => return Err(error),
        };
        let is_empty = pieces.is_empty();
        for piece in pieces {
            missing += show(&piece, options.step.as_deref(), json)?;
        }
        if is_last {
            break;
        }
        if !options.follow {
            if is_empty && is_running {
                console::note("the command goes on; --follow shows what comes");
                break;
            }
            wait_millis = 0;
        }
    }
    if follower.is_cut() {
        console::note(
            "the command was not recorded to its end: its worker on the node died, or was not let go on",
        );
    }
    if missing > 0 {
        console::note(&format!(
            "{} of it {} not in the recording: the node had no room for {}",
            counted(missing, "byte"),
            agreeing(missing, "is", "are"),
            agreeing(missing, "it", "them")
        ));
    }
    Ok(u8::from(missing > 0 || follower.is_cut()))
}

/// Which invocation is meant: of a command for one node its node need not be said.
async fn invocation(operator: &Operator, options: &OutputOptions) -> Result<CommandInvocation, CliError> {
    let instance_id = match &options.node {
        Some(node) => Some(pick::node(operator, node).await?),
        None => None,
    };
    let request = ListCommandInvocationsRequest {
        command_id: Some(options.command.clone()),
        instance_id,
        ..Default::default()
    };
    let page = operator.call::<ListCommandInvocations>(&request).await?;
    let mut found = page.command_invocations.unwrap_or_default();
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        (None, _) => Err(CliError::Usage(format!(
            "command {} was sent to no such node",
            options.command
        ))),
        (Some(last), false) => {
            found.push(last);
            let nodes: Vec<String> = found.into_iter().filter_map(|one| one.instance_id).collect();
            Err(CliError::Usage(format!(
                "command {} was sent to several nodes; name one of them: {}",
                options.command,
                nodes.join(" ")
            )))
        }
    }
}

fn is_running(status: &CommandInvocationStatus) -> bool {
    matches!(
        status,
        CommandInvocationStatus::Pending
            | CommandInvocationStatus::InProgress
            | CommandInvocationStatus::Delayed
            | CommandInvocationStatus::Cancelling
    )
}

/// Returns how many bytes are missing.
fn show(piece: &OutputPiece, wanted: Option<&str>, json: bool) -> Result<u64, CliError> {
    let (stream, steps, bytes) = match piece {
        OutputPiece::Bytes { stream, steps, bytes } => (*stream, steps, bytes),
        OutputPiece::Gap(bytes) => return Ok(*bytes),
    };
    if wanted.is_some_and(|wanted| !steps.iter().any(|step| step.name == wanted)) {
        return Ok(0);
    }
    if json {
        let text = String::from_utf8_lossy(bytes);
        let is_lossy = matches!(text, Cow::Owned(_));
        let shown = Shown {
            stream: stream.name(),
            steps: steps.iter().map(|step| step.name.as_str()).collect(),
            text,
            base64: is_lossy.then(|| BASE64_STANDARD.encode(bytes)),
        };
        let line =
            serde_json::to_string(&shown).map_err(|source| CliError::io("write JSON", source.into()))?;
        console::print_line(&line)?;
    } else {
        match stream {
            OutputStream::Output => console::print_output(bytes)?,
            OutputStream::Errors => console::print_error_output(bytes),
        }
    }
    Ok(0)
}

fn unrecorded(command: &str, node: &str) -> CliError {
    CliError::Transcript(format!(
        "there is no recording of command {command} on {node}: it has not begun there, its node runs another agent, or \
         the recording was deleted; `aws ssm get-command-invocation` has the begin and the end of the output"
    ))
}
