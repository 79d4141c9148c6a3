//! What a command will do, before it does it: which nodes get what, which wait for their turn and which cannot run it.
//! `SendCommand` carries out what is resolved here and `PlanCommand` shows it, so that both cannot differ.

use std::collections::BTreeSet;

use moorline_protocol::types::{CommandId, InstanceId};
use moorline_ssm::{
    ErrorCode,
    command::{SendCommandRequest, Target},
};

use super::{output_place, parse_instance_ids, prepared::Prepared, shape, unknown_node};
use crate::{
    api::{ApiError, ApiResult, RequestContext, node_group},
    engine::{
        command::{Progress, Tally, Turn, runs_on, turn},
        invocation::{Deadlines, Invocation},
        output_upload::unusable,
        rate_control::Limit,
        target::{Criterion, is_target},
    },
    store::{CommandHead, NewCommand, NewInvocation, NodeRow},
};

/// A command that was resolved.
pub(super) struct Resolution {
    pub(super) document: Prepared,
    /// In the order of their invocations.
    pub(super) nodes: Vec<NodeRow>,
    pub(super) invocations: Vec<NewInvocation>,
    pub(super) progress: Progress,
    deadlines: Deadlines,
    delivery_millis: u64,
    job_content: String,
}

impl Resolution {
    /// Resolves a request; of its nodes only those that are in `only`, if that is given.
    pub(super) async fn new(
        cx: &RequestContext,
        command_id: &CommandId,
        input: &SendCommandRequest,
        only: Option<&BTreeSet<InstanceId>>,
    ) -> ApiResult<Self> {
        check_output_place(input)?;
        let document = Prepared::new(cx, input).await?;
        let mut nodes = nodes(cx, input).await?;
        if let Some(only) = only {
            nodes.retain(|node| only.contains(&node.instance_id));
        }
        let max_errors = limit("MaxErrors", input.max_errors.as_deref(), Limit::DEFAULT_ERRORS)?;
        let max_concurrency = limit(
            "MaxConcurrency",
            input.max_concurrency.as_deref(),
            Limit::DEFAULT_CONCURRENCY,
        )?;
        let timeout_seconds = input.timeout_seconds.unwrap_or(shape::DEFAULT_TIMEOUT_SECONDS);
        let delivery_millis = u64::from(timeout_seconds.unsigned_abs()) * 1000;
        let deadlines = Deadlines {
            delivery: cx.now.saturating_add(delivery_millis),
            execution_millis: document.execution_seconds.saturating_mul(1000),
        };
        let job_content = document.job_content((command_id.as_str(), &cx.principal.arn()), input)?;
        let mut invocations = invocations(&document, &nodes, input.targets.is_none(), deadlines, cx.now)?;
        let mut tally = Tally {
            targets: nodes.len() as u64,
            ..Tally::default()
        };
        invocations
            .iter()
            .filter_map(|new| new.invocation.outcome())
            .for_each(|outcome| tally.add(outcome));
        let progress = Progress {
            tally,
            started: false,
            cancel_requested: false,
            max_errors,
            max_concurrency,
        };
        hold_back(&mut invocations, &progress, deadlines, cx.now);
        Ok(Self {
            document,
            nodes,
            invocations,
            progress,
            deadlines,
            delivery_millis,
            job_content,
        })
    }

    /// What nodes get.
    pub(super) fn job_content(&self) -> String {
        self.job_content.clone()
    }

    /// The command as it is stored.
    pub(super) fn into_command(
        self,
        cx: &RequestContext,
        command_id: CommandId,
        mut request: SendCommandRequest,
    ) -> NewCommand {
        request.document_name = Some(self.document.name.clone());
        // whoever may list commands reads this; nodes get theirs in the job
        if let Some(parameters) = &mut request.parameters {
            self.document.mask_secrets(parameters);
        }
        let uploads_output = cx.app.output_store.is_some() && output_place::bucket(&request).is_some();
        NewCommand {
            head: CommandHead {
                command_id,
                deadlines: self.deadlines,
                delivery_millis: self.delivery_millis,
                step_names: self.document.step_names,
                progress: self.progress,
            },
            requested_at: cx.now,
            requester: cx.principal.arn(),
            document_name: self.document.name,
            request,
            job_content: self.job_content,
            taken_parameters: self.document.taken_parameters,
            uploads_output,
            invocations: self.invocations,
        }
    }
}

/// It becomes part of a path at the object store.
fn check_output_place(input: &SendCommandRequest) -> ApiResult<()> {
    let Some(bucket) = output_place::bucket(input) else {
        return Ok(());
    };
    let prefix = input.output_s3_key_prefix.as_deref().unwrap_or_default();
    match unusable(bucket, input.output_s3_region.as_deref(), prefix) {
        None => Ok(()),
        Some(why) => Err(ApiError::new(ErrorCode::InvalidOutputFolder, why)),
    }
}

fn limit(member: &str, given: Option<&str>, default: Limit) -> ApiResult<Limit> {
    let Some(text) = given else { return Ok(default) };
    text.parse()
        .map_err(|error| ApiError::validation(format!("{member}: {error}")))
}

/// The nodes that get the command, each once.
async fn nodes(cx: &RequestContext, input: &SendCommandRequest) -> ApiResult<Vec<NodeRow>> {
    let named = input.instance_ids.as_deref().unwrap_or_default();
    let targets = input.targets.as_deref().unwrap_or_default();
    match (named.is_empty(), targets.is_empty()) {
        (false, false) => Err(ApiError::validation(
            "give either InstanceIds or Targets, not both",
        )),
        (true, true) => Err(ApiError::validation(
            "give InstanceIds or Targets: the command needs a node",
        )),
        (false, true) => named_nodes(cx, &parse_instance_ids(named)?).await,
        (true, false) => target_nodes(cx, targets).await,
    }
}

async fn named_nodes(cx: &RequestContext, ids: &[InstanceId]) -> ApiResult<Vec<NodeRow>> {
    let mut nodes = Vec::with_capacity(ids.len());
    for id in ids {
        nodes.push(
            cx.app
                .store
                .node(id)
                .await?
                .ok_or_else(|| unknown_node(id.as_str()))?,
        );
    }
    Ok(nodes)
}

async fn target_nodes(cx: &RequestContext, targets: &[Target]) -> ApiResult<Vec<NodeRow>> {
    let mut criteria = Vec::with_capacity(targets.len());
    for target in targets {
        criteria.push(criterion(cx, target).await?);
    }
    let mut nodes = cx.app.store.nodes().await?;
    let known: BTreeSet<&InstanceId> = nodes.iter().map(|node| &node.instance_id).collect();
    for criterion in &criteria {
        let Criterion::Nodes(wanted) = criterion else {
            continue;
        };
        if let Some(stranger) = wanted.iter().find(|node| !known.contains(node)) {
            return Err(unknown_node(stranger.as_str()));
        }
    }
    nodes.retain(|node| is_target(&criteria, &node.instance_id, &node.tags));
    Ok(nodes)
}

/// What a target asks of a node. A group is asked for when it is used.
pub(super) async fn criterion(cx: &RequestContext, target: &Target) -> ApiResult<Criterion> {
    let key = target.key.as_deref().unwrap_or_default();
    let values = target.values.as_deref().unwrap_or_default();
    if key == "resource-groups:Name" {
        return node_group::criterion(cx, values).await;
    }
    Criterion::parse(key, values).map_err(|error| ApiError::validation(format!("Targets: {error}")))
}

/// Those behind the first so many wait for their turn.
fn hold_back(invocations: &mut [NewInvocation], progress: &Progress, deadlines: Deadlines, now: u64) {
    let open = invocations
        .iter_mut()
        .filter(|new| new.invocation.outcome().is_none());
    let open: Vec<&mut NewInvocation> = open.collect();
    let first = match turn(progress, open.len() as u64) {
        Turn::Release(first) => usize::try_from(first).unwrap_or(usize::MAX),
        Turn::Terminate | Turn::Wait => 0,
    };
    for new in open.into_iter().skip(first) {
        new.invocation = Invocation::held(now, deadlines);
    }
}

/// One invocation per node. A named node that the document is not for is an error, a tagged one ends at once.
fn invocations(
    document: &Prepared,
    nodes: &[NodeRow],
    are_named: bool,
    deadlines: Deadlines,
    now: u64,
) -> ApiResult<Vec<NewInvocation>> {
    let mut invocations = Vec::with_capacity(nodes.len());
    for node in nodes {
        let platform = node.report.platform_type.as_deref();
        let invocation = match platform.filter(|platform| !runs_on(&document.document, platform)) {
            None => Invocation::accepted(now, deadlines),
            Some(platform) => {
                let id = &node.instance_id;
                let text = format!(
                    "document {} is not for {platform}, which {id} runs",
                    document.name
                );
                if are_named {
                    return Err(ApiError::new(ErrorCode::UnsupportedPlatformType, text));
                }
                Invocation::of_wrong_platform(now, deadlines, text)
            }
        };
        let name = node.name.clone().or_else(|| node.report.computer_name.clone());
        invocations.push(NewInvocation {
            instance_id: node.instance_id.clone(),
            instance_name: name.unwrap_or_default(),
            invocation,
        });
    }
    Ok(invocations)
}
