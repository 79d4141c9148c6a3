//! Follows a command until every node has ended it.

use std::{collections::BTreeMap, time::Duration};

use moorline_ssm::command::{
    CancelCommand, CancelCommandRequest, CommandInvocation, CommandInvocationStatus, CommandStatus,
    GetCommandInvocation, GetCommandInvocationRequest, GetCommandInvocationResult, ListCommandInvocations,
    ListCommandInvocationsRequest, ListCommands, ListCommandsRequest,
};
use moorline_transport::CallError;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep},
};

use super::report::{Invocation, Report};
use crate::{
    console,
    error::{self, CliError},
    operator::{Operator, is_passing},
};

const PAGE: i32 = 50;
/// The first and the longest pause between two looks, and how a pause grows.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const GROWTH: f32 = 1.3;
/// How long an endpoint may be out of reach while we wait: the command goes on without us.
const PATIENCE: Duration = Duration::from_secs(300);

/// How a command ended.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) status: CommandStatus,
    /// The user pressed Ctrl-C.
    pub(super) is_interrupted: bool,
}

/// What is known of one node.
#[derive(Debug)]
enum Progress {
    Running(CommandInvocationStatus),
    Ended(CommandInvocationStatus),
}

/// A command under way.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    operator: &'a Operator,
    id: &'a str,
    /// Nodes that must show up before the command can be over; 0 when the endpoint has not told.
    expected: usize,
    nodes: BTreeMap<String, Progress>,
    is_interrupted: bool,
    unreachable_since: Option<Instant>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(operator: &'a Operator, id: &'a str, expected: usize) -> Self {
        Self {
            operator,
            id,
            expected,
            nodes: BTreeMap::new(),
            is_interrupted: false,
            unreachable_since: None,
        }
    }

    /// Hands every node's result to `report` as soon as it is there, and returns when all have ended, or when the
    /// user pressed Ctrl-C a second time.
    ///
    /// # Errors
    /// The endpoint refused, or was out of reach for too long.
    pub(super) async fn run(mut self, report: &mut Report) -> Result<Outcome, CliError> {
        let mut interrupts =
            signal(SignalKind::interrupt()).map_err(|source| CliError::io("watch for Ctrl-C", source))?;
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::select! {
                () = interrupted(&mut interrupts) => {
                    if self.interrupt(report).await {
                        return Ok(self.outcome(CommandStatus::Cancelling));
                    }
                    pause = FIRST_PAUSE;
                }
                over = self.look(report) => {
                    if let Some(status) = self.bear(over)?.flatten() {
                        return Ok(self.outcome(status));
                    }
                    report.progress(&self.summary());
                    tokio::select! {
                        () = interrupted(&mut interrupts) => {
                            if self.interrupt(report).await {
                                return Ok(self.outcome(CommandStatus::Cancelling));
                            }
                            pause = FIRST_PAUSE;
                        }
                        () = sleep(pause) => pause = pause.mul_f32(GROWTH).min(LONGEST_PAUSE),
                    }
                }
            }
        }
    }

    fn outcome(&self, status: CommandStatus) -> Outcome {
        Outcome {
            status,
            is_interrupted: self.is_interrupted,
        }
    }

    /// Ctrl-C: the first cancels the command, which we then see end; the second leaves. Returns whether to leave.
    async fn interrupt(&mut self, report: &Report) -> bool {
        if self.is_interrupted {
            return true;
        }
        self.is_interrupted = true;
        report.note("cancelling; press Ctrl-C again to leave at once");
        let request = CancelCommandRequest {
            command_id: Some(self.id.to_owned()),
            instance_ids: None,
        };
        if let Err(error) = self.operator.call::<CancelCommand>(&request).await {
            report.note(&format!(
                "the command was not cancelled: {}",
                error::chain(&error)
            ));
            return true;
        }
        false
    }

    /// An endpoint out of reach is waited for.
    fn bear<T>(&mut self, result: Result<T, CliError>) -> Result<Option<T>, CliError> {
        match result {
            Ok(value) => {
                if self.unreachable_since.take().is_some() {
                    console::note("the endpoint answers again");
                }
                Ok(Some(value))
            }
            Err(CliError::Call(error)) if is_passing(&error) => {
                let now = Instant::now();
                let since = *self.unreachable_since.get_or_insert_with(|| {
                    console::note(&format!("{}; still trying", error::chain(&error)));
                    now
                });
                if now.duration_since(since) > PATIENCE {
                    return Err(error.into());
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Looks once; returns the command's status when it is over.
    async fn look(&mut self, report: &mut Report) -> Result<Option<CommandStatus>, CliError> {
        let invocations = self.invocations().await?;
        for listed in invocations {
            let (Some(node), Some(status)) = (listed.instance_id, listed.status) else {
                continue;
            };
            if matches!(self.nodes.get(&node), Some(Progress::Ended(_))) {
                continue;
            }
            if is_final(&status) {
                let result = result_of(self.operator, self.id, &node).await?;
                let name = listed.instance_name.filter(|name| !name.is_empty());
                report.ended(Invocation::new(&node, name, result))?;
                self.nodes.insert(node, Progress::Ended(status));
            } else {
                self.nodes.insert(node, Progress::Running(status));
            }
        }
        let ended = self.ended();
        if ended < self.nodes.len() || ended < self.expected {
            return Ok(None);
        }
        // all we know of have ended; whether that is all there are, only the command itself tells
        self.status().await
    }

    fn ended(&self) -> usize {
        self.nodes
            .values()
            .filter(|node| matches!(node, Progress::Ended(_)))
            .count()
    }

    async fn invocations(&self) -> Result<Vec<CommandInvocation>, CallError> {
        let mut invocations = Vec::new();
        let mut next_token = None;
        loop {
            let request = ListCommandInvocationsRequest {
                command_id: Some(self.id.to_owned()),
                max_results: Some(PAGE),
                next_token,
                ..Default::default()
            };
            let page = self.operator.call::<ListCommandInvocations>(&request).await?;
            invocations.extend(page.command_invocations.unwrap_or_default());
            next_token = page.next_token.filter(|token| !token.is_empty());
            if next_token.is_none() {
                return Ok(invocations);
            }
        }
    }

    /// The command's status, if it is final. It also tells of how many nodes there are.
    async fn status(&mut self) -> Result<Option<CommandStatus>, CliError> {
        let request = ListCommandsRequest {
            command_id: Some(self.id.to_owned()),
            ..Default::default()
        };
        let page = self.operator.call::<ListCommands>(&request).await?;
        let Some(command) = page.commands.unwrap_or_default().into_iter().next() else {
            return Ok(None);
        };
        let targets = usize::try_from(command.target_count.unwrap_or(0)).unwrap_or(0);
        if targets > self.expected {
            self.expected = targets;
        }
        Ok(command.status.filter(|status| {
            matches!(
                status,
                CommandStatus::Success
                    | CommandStatus::Cancelled
                    | CommandStatus::Failed
                    | CommandStatus::TimedOut
            )
        }))
    }

    /// One line for the user.
    fn summary(&self) -> String {
        let total = self.nodes.len().max(self.expected);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for node in self.nodes.values() {
            let (Progress::Running(status) | Progress::Ended(status)) = node;
            *counts.entry(status.as_str()).or_default() += 1;
        }
        let counts: Vec<String> = counts
            .iter()
            .map(|(status, count)| format!("{count} {status}"))
            .collect();
        format!("{} of {total} ended: {}", self.ended(), counts.join(", "))
    }
}

/// A signal's next time; never, when it cannot be watched any more.
async fn interrupted(interrupts: &mut Signal) {
    if interrupts.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

fn is_final(status: &CommandInvocationStatus) -> bool {
    matches!(
        status,
        CommandInvocationStatus::Success
            | CommandInvocationStatus::Cancelled
            | CommandInvocationStatus::Failed
            | CommandInvocationStatus::TimedOut
    )
}

/// What a node has put out. Of a document with several steps the API gives the output of each step for its name.
async fn result_of(
    operator: &Operator,
    id: &str,
    node: &str,
) -> Result<GetCommandInvocationResult, CliError> {
    let request = GetCommandInvocationRequest {
        command_id: Some(id.to_owned()),
        instance_id: Some(node.to_owned()),
        plugin_name: None,
    };
    match operator.call::<GetCommandInvocation>(&request).await {
        Err(error) if error.code() == Some("InvalidPluginName") => steps_of(operator, &request).await,
        result => Ok(result?),
    }
}

/// The results of all steps in one: their output in order, and the response code of the last that has one.
async fn steps_of(
    operator: &Operator,
    request: &GetCommandInvocationRequest,
) -> Result<GetCommandInvocationResult, CliError> {
    let list = ListCommandInvocationsRequest {
        command_id: request.command_id.clone(),
        instance_id: request.instance_id.clone(),
        details: Some(true),
        ..Default::default()
    };
    let page = operator.call::<ListCommandInvocations>(&list).await?;
    let invocation = page.command_invocations.unwrap_or_default().into_iter().next();
    let invocation = invocation.unwrap_or_default();
    let mut whole = GetCommandInvocationResult {
        status: invocation.status,
        status_details: invocation.status_details,
        ..Default::default()
    };
    for step in invocation.command_plugins.unwrap_or_default() {
        let request = GetCommandInvocationRequest {
            plugin_name: step.name,
            ..request.clone()
        };
        let result = operator.call::<GetCommandInvocation>(&request).await?;
        append(&mut whole.standard_output_content, result.standard_output_content);
        append(&mut whole.standard_error_content, result.standard_error_content);
        // a step that never ran has -1
        whole.response_code = result
            .response_code
            .filter(|code| *code != -1)
            .or(whole.response_code);
    }
    Ok(whole)
}

fn append(whole: &mut Option<String>, part: Option<String>) {
    whole.get_or_insert_default().push_str(&part.unwrap_or_default());
}
