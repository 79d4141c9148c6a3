//! Follows a command until every node has ended it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use moorline_ssm::command::{
    Command, CommandInvocation, CommandInvocationStatus, CommandStatus, GetCommandInvocation,
    GetCommandInvocationRequest, GetCommandInvocationResult, ListCommandInvocations,
    ListCommandInvocationsRequest, ListCommands, ListCommandsRequest,
};
use moorline_transport::CallError;
use tokio::time::{Instant, sleep};

use super::{
    cancel,
    hold_up::HoldUp,
    interrupts::Interrupts,
    live::{Live, Shown},
    report::{Invocation, Report},
};
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
/// What runs for less is shown when it has ended, which is one request.
const FOLLOW_AFTER: Duration = Duration::from_millis(300);
/// How long after a node's end the rest of its output is waited for.
const REST_PATIENCE: Duration = Duration::from_secs(10);
/// Results that one look brings: they are shown then.
const MOST_RESULTS: usize = 50;

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
    Running {
        status: CommandInvocationStatus,
        since: Instant,
    },
    /// The rest of its output is still shown.
    Ending {
        invocation: Box<Invocation>,
        status: CommandInvocationStatus,
        since: Instant,
    },
    Ended(CommandInvocationStatus),
}

/// A command under way.
pub(super) struct Watch<'a> {
    operator: &'a Operator,
    id: &'a str,
    /// Nodes that must show up before the command can be over; 0 when the endpoint has not told.
    expected: usize,
    /// The only nodes that are waited for; `None`: all, and the command itself.
    only: Option<BTreeSet<String>>,
    nodes: BTreeMap<String, Progress>,
    is_interrupted: bool,
    unreachable_since: Option<Instant>,
    hold_up: HoldUp,
}

/// What one look brings.
#[derive(Debug, Default)]
struct Looked {
    running: Vec<(String, CommandInvocationStatus)>,
    ended: Vec<(String, CommandInvocationStatus, Invocation)>,
    /// Others have ended as well.
    has_more: bool,
    /// Of the command, when all its nodes that we know have ended.
    command: Option<Command>,
}

type Looking<'a> = BoxFuture<'a, Result<Looked, CliError>>;

impl<'a> Watch<'a> {
    pub(super) fn new(operator: &'a Operator, id: &'a str, expected: usize) -> Self {
        Self {
            operator,
            id,
            expected,
            only: None,
            nodes: BTreeMap::new(),
            is_interrupted: false,
            unreachable_since: None,
            hold_up: HoldUp::default(),
        }
    }

    /// Of a command that was cancelled on these nodes: the end there is waited for, and Ctrl-C leaves at once.
    pub(super) fn of_cancelled(operator: &'a Operator, id: &'a str, nodes: BTreeSet<String>) -> Self {
        Self {
            only: Some(nodes),
            is_interrupted: true,
            hold_up: HoldUp::of_cancelled(),
            ..Self::new(operator, id, 0)
        }
    }

    /// Hands what nodes put out to `report` while they run, if it shows that, and every node's result as soon as it is
    /// there. Returns when all have ended, or when the user pressed Ctrl-C a second time; the first was before this if
    /// `is_interrupted`.
    ///
    /// # Errors
    /// The endpoint refused, or was out of reach for too long.
    pub(super) async fn run(
        mut self,
        report: &mut Report,
        (mut interrupts, is_interrupted): (Interrupts, bool),
    ) -> Result<Outcome, CliError> {
        if is_interrupted && self.interrupt(report, &mut interrupts).await {
            return Ok(self.outcome(CommandStatus::Cancelling));
        }
        let mut live = Live::new(self.operator, self.id);
        let mut pause = FIRST_PAUSE;
        let mut looking = self.look(Duration::ZERO);
        let mut over = None;
        loop {
            tokio::select! {
                () = interrupts.next() => {
                    if self.interrupt(report, &mut interrupts).await {
                        return Ok(self.outcome(CommandStatus::Cancelling));
                    }
                    pause = FIRST_PAUSE;
                    looking = self.look(pause);
                }
                (node, pieces) = live.next() => report.output(&node, &pieces)?,
                looked = &mut looking => {
                    let looked = self.bear(looked)?;
                    let has_more = looked.as_ref().is_some_and(|looked| looked.has_more);
                    if let Some(looked) = looked {
                        over = self.learn(looked, report, &mut live)?;
                    }
                    if has_more {
                        looking = self.look(Duration::ZERO);
                    } else {
                        looking = self.look(pause);
                        pause = pause.mul_f32(GROWTH).min(LONGEST_PAUSE);
                    }
                    report.progress(&self.summary());
                }
            }
            self.end_shown(report, &live)?;
            if self.ended() == self.nodes.len()
                && let Some(status) = over.take()
            {
                return Ok(self.outcome(status));
            }
        }
    }

    /// Takes in what a look brought; the command's status when it is over.
    fn learn(
        &mut self,
        looked: Looked,
        report: &mut Report,
        live: &mut Live<'a>,
    ) -> Result<Option<CommandStatus>, CliError> {
        let now = Instant::now();
        for (node, status) in looked.running {
            let since = match self.nodes.get(&node) {
                Some(Progress::Running { since, .. }) if status != CommandInvocationStatus::Pending => *since,
                _ => now,
            };
            let is_shown = report.shows_output() && now.duration_since(since) >= FOLLOW_AFTER;
            if is_shown && status != CommandInvocationStatus::Pending {
                live.follow(&node);
            }
            self.nodes.insert(node, Progress::Running { status, since });
        }
        for (node, status, invocation) in looked.ended {
            let progress = match live.shown(&node) {
                Shown::Nothing => {
                    report.ended(invocation, false)?;
                    Progress::Ended(status)
                }
                Shown::Begun | Shown::All => Progress::Ending {
                    invocation: Box::new(invocation),
                    status,
                    since: now,
                },
            };
            self.nodes.insert(node, progress);
        }
        if let Some(text) = self.hold_up.looked(now, &waiting(&self.nodes, &self.hold_up))
            && !report.shows_progress()
        {
            report.note(&text);
        }
        let Some(command) = looked.command else {
            return Ok(None);
        };
        if self.only.is_some() {
            return Ok(command.status);
        }
        let targets = usize::try_from(command.target_count.unwrap_or(0)).unwrap_or(0);
        self.expected = self.expected.max(targets);
        Ok(command.status.filter(is_over))
    }

    /// Nodes that have ended, and whose output was shown as far as it came.
    fn end_shown(&mut self, report: &mut Report, live: &Live<'_>) -> Result<(), CliError> {
        for (node, progress) in &mut self.nodes {
            let Progress::Ending {
                invocation,
                status,
                since,
            } = progress
            else {
                continue;
            };
            let is_all = live.shown(node) == Shown::All;
            if is_all || since.elapsed() >= REST_PATIENCE {
                if !is_all {
                    report.note(&format!(
                        "the rest of the output of {node} is still on its way: moorline output {} {node}",
                        self.id
                    ));
                }
                report.ended((**invocation).clone(), true)?;
                *progress = Progress::Ended(status.clone());
            }
        }
        Ok(())
    }

    fn outcome(&self, status: CommandStatus) -> Outcome {
        Outcome {
            status,
            is_interrupted: self.is_interrupted,
        }
    }

    /// Ctrl-C: the first cancels the command, which we then see end; the second leaves. Returns whether to leave.
    async fn interrupt(&mut self, report: &Report, interrupts: &mut Interrupts) -> bool {
        if self.is_interrupted {
            report.note(&format!("command {} is left, and may still run", self.id));
            return true;
        }
        self.is_interrupted = true;
        report.note("cancelling; press Ctrl-C again to leave at once");
        self.hold_up = HoldUp::of_cancelled();
        match cancel::ask(self.operator, self.id, None, interrupts).await {
            Ok(()) => false,
            Err(why) => {
                report.note(&why.told(self.id));
                true
            }
        }
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

    /// Looks once, after a pause.
    fn look(&self, pause: Duration) -> Looking<'a> {
        let known = |progress: &Progress| !matches!(progress, Progress::Running { .. });
        let known = self.nodes.iter().filter(|(_, progress)| known(progress));
        let known = known.map(|(node, _)| node.clone()).collect();
        let (operator, id, expected, only) = (self.operator, self.id, self.expected, self.only.clone());
        async move {
            sleep(pause).await;
            look(operator, id, known, (expected, only)).await
        }
        .boxed()
    }

    fn ended(&self) -> usize {
        self.nodes
            .values()
            .filter(|node| matches!(node, Progress::Ended(_)))
            .count()
    }

    /// One line for the user.
    fn summary(&self) -> String {
        let total = self.nodes.len().max(self.expected);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for node in self.nodes.values() {
            let (Progress::Running { status, .. }
            | Progress::Ending { status, .. }
            | Progress::Ended(status)) = node;
            *counts.entry(status.as_str()).or_default() += 1;
        }
        let counts: Vec<String> = counts
            .iter()
            .map(|(status, count)| format!("{count} {status}"))
            .collect();
        format!("{} of {total} ended: {}", self.ended(), counts.join(", "))
    }
}

/// The nodes that give no sign, if those are all that are waited for.
fn waiting<'a>(nodes: &'a BTreeMap<String, Progress>, hold_up: &HoldUp) -> Vec<&'a str> {
    let mut waiting = Vec::new();
    for (node, progress) in nodes {
        match progress {
            Progress::Running { status, .. } if hold_up.is_one(status) => waiting.push(node.as_str()),
            Progress::Running { .. } | Progress::Ending { .. } => return Vec::new(),
            Progress::Ended(_) => {}
        }
    }
    waiting
}

/// What the endpoint says of the command now. Of nodes that are known to have ended nothing is asked, nor of any but
/// `only` these.
async fn look(
    operator: &Operator,
    id: &str,
    known: BTreeSet<String>,
    (expected, only): (usize, Option<BTreeSet<String>>),
) -> Result<Looked, CliError> {
    let mut looked = Looked::default();
    let mut count = 0;
    for listed in invocations(operator, id).await? {
        let (Some(node), Some(status)) = (listed.instance_id, listed.status) else {
            continue;
        };
        if only.as_ref().is_some_and(|only| !only.contains(&node)) {
            continue;
        }
        count += 1;
        if known.contains(&node) {
            continue;
        }
        if !is_final(&status) {
            looked.running.push((node, status));
        } else if looked.ended.len() == MOST_RESULTS {
            looked.has_more = true;
        } else {
            let result = result_of(operator, id, &node).await?;
            let name = listed.instance_name.filter(|name| !name.is_empty());
            let invocation = Invocation::new(&node, name, result);
            looked.ended.push((node, status, invocation));
        }
    }
    let all_ended = looked.running.is_empty() && !looked.has_more && count >= expected;
    // whether those are all that there are, only the command itself tells
    if all_ended {
        looked.command = command(operator, id).await?;
    }
    Ok(looked)
}

pub(super) async fn command(operator: &Operator, id: &str) -> Result<Option<Command>, CallError> {
    let request = ListCommandsRequest {
        command_id: Some(id.to_owned()),
        ..Default::default()
    };
    let page = operator.call::<ListCommands>(&request).await?;
    Ok(page.commands.unwrap_or_default().into_iter().next())
}

/// Of all nodes that the command was sent to.
///
/// # Errors
/// A page could not be had; there is no such command.
pub(super) async fn invocations(operator: &Operator, id: &str) -> Result<Vec<CommandInvocation>, CallError> {
    let mut invocations = Vec::new();
    let mut next_token = None;
    loop {
        let request = ListCommandInvocationsRequest {
            command_id: Some(id.to_owned()),
            max_results: Some(PAGE),
            next_token,
            ..Default::default()
        };
        let page = operator.call::<ListCommandInvocations>(&request).await?;
        invocations.extend(page.command_invocations.unwrap_or_default());
        next_token = page.next_token.filter(|token| !token.is_empty());
        if next_token.is_none() {
            return Ok(invocations);
        }
    }
}

fn is_over(status: &CommandStatus) -> bool {
    matches!(
        status,
        CommandStatus::Success | CommandStatus::Cancelled | CommandStatus::Failed | CommandStatus::TimedOut
    )
}

pub(super) fn is_final(status: &CommandInvocationStatus) -> bool {
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
