//! `PlanCommand`: ours. What `SendCommand` would do with the same request now: which nodes would run what, which would
//! have to wait, and how the document ended on each of them last. Nothing is sent and nothing is stored.
//!
//! What a node's owner forbids is known on the node only: it is asked if the caller wishes, for a few seconds, and nothing
//! of its answer is kept.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{StreamExt as _, stream};
use moorline_protocol::{message::PolicyAnswer, types::InstanceId};
use moorline_ssm::{
    EpochSeconds,
    command::{
        CommandInvocationStatus, PlanCommandRequest, PlanCommandResponse, PlannedLastRun, PlannedNode,
        PlannedState, PlannedVerdict,
    },
};

use tokio::time::{Instant, timeout_at};

use super::{resolution::Resolution, send_command::new_command_id};
use crate::{
    api::{ApiResult, RequestContext, pagination},
    app::{App, NotAnswered, QUESTION_PATIENCE},
    engine::invocation::Delivery,
    store::{InvocationRow, NewInvocation, NodeRow},
};

/// Nodes of a page when the request does not say.
const DEFAULT_PAGE: usize = 1000;
/// Nodes that are asked at the same time: each question may have a megabyte.
const MOST_ASKED: usize = 32;

pub(super) async fn plan_command(
    cx: RequestContext,
    input: PlanCommandRequest,
) -> ApiResult<PlanCommandResponse> {
    let request = input.command.unwrap_or_default();
    let resolution = Resolution::new(&cx, &new_command_id()?, &request, None).await?;
    let document = &resolution.document;
    let list = pagination::Listing::new(&cx, "PlanCommand", &request);
    let limit = pagination::limit(input.max_results, DEFAULT_PAGE);
    let targets = resolution.progress.tally.targets;
    let mut response = PlanCommandResponse {
        document_name: Some(document.name.clone()),
        document_version: Some(document.version.to_string()),
        document_hash: Some(document.hash.clone()),
        parameters: Some(document.shown_parameters()),
        step_names: Some(document.step_names.clone()),
        read_parameters: Some(
            document
                .taken_parameters
                .iter()
                .filter(|taken| taken.version.is_none())
                .map(|taken| taken.name.clone())
                .collect(),
        ),
        max_concurrency: Some(count(resolution.progress.max_concurrency.of(targets).max(1))),
        max_errors: Some(count(resolution.progress.max_errors.of(targets))),
        target_count: Some(count(targets)),
        ..PlanCommandResponse::default()
    };
    let name = document.name.clone();
    let content: Arc<str> = resolution.job_content().into();
    let mut planned: Vec<(NodeRow, NewInvocation)> =
        resolution.nodes.into_iter().zip(resolution.invocations).collect();
    planned.sort_by(|(a, _), (b, _)| a.instance_id.cmp(&b.instance_id));
    let position = |(node, _): &(NodeRow, NewInvocation)| node.instance_id.to_string();
    let (page, next_token) = list.page(planned, position, input.next_token.as_deref(), limit)?;
    let ids: Vec<InstanceId> = page.iter().map(|(node, _)| node.instance_id.clone()).collect();
    let mut last_runs = cx.app.store.last_runs(&name, &ids).await?;
    let mut nodes = Vec::with_capacity(page.len());
    let mut answers = match input.ask_nodes.unwrap_or_default() {
        true => ask(&cx.app, &page, &content).await,
        false => BTreeMap::new(),
    };
    for (node, new) in page {
        let answer = answers.remove(&node.instance_id);
        let last_run = last_runs.remove(&node.instance_id);
        let is_connected = cx.app.routing.is_connected(&node.instance_id).await;
        nodes.push(PlannedNode {
            policy: answer.as_ref().map(verdict),
            policy_reason: answer.as_ref().map(|answer| match answer {
                Ok(answer) => answer.reason.clone(),
                Err(error) => error.to_string(),
            }),
            needs_signature: answer
                .as_ref()
                .map(|answer| matches!(answer, Ok(answer) if answer.needs_signature)),
            ..planned_node(&node, new, is_connected, last_run)
        });
    }
    response.nodes = Some(nodes);
    response.next_token = next_token;
    Ok(response)
}

type Answers = BTreeMap<InstanceId, Result<PolicyAnswer, NotAnswered>>;

/// Asks those nodes that would run it, many at a time; all together they have as long as one alone.
async fn ask(app: &Arc<App>, page: &[(NodeRow, NewInvocation)], content: &Arc<str>) -> Answers {
    let open = page.iter().filter(|(_, new)| new.invocation.outcome().is_none());
    let ids: Vec<InstanceId> = open.map(|(node, _)| node.instance_id.clone()).collect();
    // who is not reached in time counts as silent
    let silent = |id: &InstanceId| (id.clone(), Err(NotAnswered::Silent));
    let mut answers: Answers = ids.iter().map(silent).collect();
    let questions = ids
        .into_iter()
        .map(|id| ask_one(Arc::clone(app), id, Arc::clone(content)));
    let mut asked = stream::iter(questions).buffer_unordered(MOST_ASKED);
    let over = Instant::now() + QUESTION_PATIENCE;
    while let Ok(Some((id, answer))) = timeout_at(over, asked.next()).await {
        answers.insert(id, answer);
    }
    answers
}

async fn ask_one(
    app: Arc<App>,
    id: InstanceId,
    content: Arc<str>,
) -> (InstanceId, Result<PolicyAnswer, NotAnswered>) {
    let answer = app.routing.ask_policy(&id, &content).await;
    (id, answer)
}

fn verdict(answer: &Result<PolicyAnswer, NotAnswered>) -> PlannedVerdict {
    match answer {
        Ok(answer) if answer.is_allowed => PlannedVerdict::Allows,
        Ok(_) => PlannedVerdict::Refuses,
        Err(_) => PlannedVerdict::NotKnown,
    }
}

fn planned_node(
    node: &NodeRow,
    new: NewInvocation,
    is_connected: bool,
    last_run: Option<InvocationRow>,
) -> PlannedNode {
    let invocation = new.invocation;
    let (state, reason) = match (invocation.outcome(), is_connected) {
        (Some(_), _) => (PlannedState::WrongPlatform, invocation.trace),
        (None, false) => (
            PlannedState::Waits,
            "not connected: it would get the command when it connects, until the delivery time-out"
                .to_owned(),
        ),
        (None, true) => (PlannedState::Runs, String::new()),
    };
    PlannedNode {
        instance_id: Some(new.instance_id.into()),
        instance_name: Some(new.instance_name),
        state: Some(state),
        held: Some(invocation.delivery == Delivery::Held),
        reason: Some(reason),
        policy: None,
        policy_reason: None,
        needs_signature: None,
        last_ping_date_time: node.last_ping_at.map(EpochSeconds::from_millis),
        last_run: last_run.map(|row| PlannedLastRun {
            command_id: Some(row.command_id.into()),
            status: Some(CommandInvocationStatus::from(row.invocation.status())),
            status_details: Some(row.invocation.status_details().to_owned()),
            requested_date_time: Some(EpochSeconds::from_millis(row.requested_at)),
            ended_date_time: row.invocation.ended_at.map(EpochSeconds::from_millis),
            trace_output: Some(row.invocation.trace),
        }),
    }
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
