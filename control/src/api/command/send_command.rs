//! `SendCommand`: run a document on managed nodes.
//!
//! AWS: API_SendCommand. A node that is not connected gets the command when it connects, until `TimeoutSeconds` are
//! over. Targets are resolved now, not when the command is delivered. Deviations: notifications, service roles and
//! alarms are kept and shown, and have no effect.

use std::collections::BTreeSet;

use moorline_protocol::{
    document::{CommandDocument, Platform},
    message::{MAX_FRAME_BYTES, SendCommandContent},
    types::InstanceId,
};
use moorline_ssm::{
    ErrorCode,
    command::{DocumentHashType, SendCommandRequest, SendCommandResult, Target},
};
use ring::digest;
use serde_json::Value;
use uuid::Uuid;

use super::{parameter_references, parse_instance_ids, shape, unknown_node};
use crate::{
    api::{ApiError, ApiResult, RequestContext, document},
    engine::{
        command::{Progress, Tally, Turn, execution_seconds, runs_on, turn},
        invocation::{Deadlines, Invocation},
        rate_control::Limit,
        target::{Criterion, is_target},
    },
    store::{CommandHead, CommandRow, DocumentRow, NewCommand, NewInvocation, NodeRow, TakenParameter},
};

/// A job must fit one frame of the control channel, with its ids and topic.
const MOST_JOB_BYTES: usize = MAX_FRAME_BYTES - 4096;

pub(super) async fn send_command(
    cx: RequestContext,
    input: SendCommandRequest,
) -> ApiResult<SendCommandResult> {
    let document = Prepared::new(&cx, &input).await?;
    let nodes = nodes(&cx, &input).await?;
    cx.record
        .is_about_nodes(nodes.iter().map(|node| node.instance_id.as_str()));
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
    let command_id = Uuid::new_v4().to_string();
    let job_content = document.job_content(&command_id, &input)?;
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
    let head = CommandHead {
        command_id: command_id.parse().map_err(ApiError::internal)?,
        deadlines,
        delivery_millis,
        step_names: document.step_names,
        progress,
    };
    let mut request = input;
    request.document_name = Some(document.name.clone());
    let new = NewCommand {
        head,
        requested_at: cx.now,
        requester: cx.principal.arn(),
        document_name: document.name,
        request,
        job_content,
        taken_parameters: document.taken_parameters,
        invocations,
    };
    cx.app.store.insert_command(&new).await?;
    cx.app.metrics.counter("moorline_commands_total", &[]).increment();
    for waiting in new
        .invocations
        .iter()
        .filter(|new| new.invocation.next_send_at.is_some())
    {
        cx.app.routing.nudge(&waiting.instance_id);
    }
    let row = CommandRow {
        head: new.head,
        requested_at: new.requested_at,
        request: new.request,
    };
    Ok(SendCommandResult {
        command: Some(shape::command(row)),
    })
}

/// The document with its parameters, ready for nodes.
struct Prepared {
    name: String,
    document: CommandDocument,
    content: Value,
    parameters: serde_json::Map<String, Value>,
    taken_parameters: Vec<TakenParameter>,
    step_names: Vec<String>,
    execution_seconds: u64,
}

impl Prepared {
    async fn new(cx: &RequestContext, input: &SendCommandRequest) -> ApiResult<Self> {
        let invalid = |message: String| ApiError::new(ErrorCode::InvalidDocument, message);
        let version = input.document_version.as_deref();
        let row = document::find(cx, input.document_name.as_deref(), version, None).await?;
        let name = &row.name;
        if row.document_type != "Command" {
            return Err(invalid(format!(
                "document {name} is of type {}; SendCommand runs documents of type Command",
                row.document_type
            )));
        }
        check_hash(&row, input)?;
        let content = row
            .value()
            .map_err(|error| invalid(format!("document {name} cannot be read: {error}")))?;
        let document = CommandDocument::parse(&content)
            .map_err(|error| invalid(format!("document {name} cannot run: {error}")))?;
        let refused = |error: &dyn std::fmt::Display| {
            ApiError::new(ErrorCode::InvalidParameters, format!("document {name}: {error}"))
        };
        let empty = std::collections::BTreeMap::new();
        let given = input.parameters.as_ref().unwrap_or(&empty);
        let resolved = parameter_references::resolve(cx, &document, &content, given).await?;
        let parameters = document
            .parameters
            .resolve_lists(&resolved.parameters)
            .map_err(|error| refused(&error))?;
        let parameters = parameters.as_map().clone();
        let actions: Vec<&str> = document.step_names().map(|(action, _)| action).collect();
        let platform = Platform {
            platform_type: "Linux",
            handled_actions: &actions,
        };
        let steps = document
            .plan(&parameters, platform)
            .map_err(|error| refused(&error))?;
        let step_names = document.step_names().map(|(_, name)| name.to_owned()).collect();
        let execution_seconds = execution_seconds(&steps);
        Ok(Self {
            name: row.name,
            document,
            content,
            parameters,
            taken_parameters: resolved.taken,
            step_names,
            execution_seconds,
        })
    }

    /// What a node gets (agent-wire §6.2). It must read it by itself: the document may change meanwhile.
    fn job_content(&self, command_id: &str, input: &SendCommandRequest) -> ApiResult<String> {
        let cloud_watch = shape::cloud_watch(input.cloud_watch_output_config.clone());
        let is_enabled = cloud_watch.cloud_watch_output_enabled.unwrap_or_default();
        let content = SendCommandContent {
            command_id: command_id.to_owned(),
            document_name: self.name.clone(),
            document_content: self.content.clone(),
            parameters: self.parameters.clone(),
            output_s3_bucket_name: input.output_s3_bucket_name.clone().unwrap_or_default(),
            output_s3_key_prefix: input.output_s3_key_prefix.clone().unwrap_or_default(),
            cloud_watch_log_group_name: cloud_watch.cloud_watch_log_group_name.unwrap_or_default(),
            cloud_watch_output_enabled: is_enabled.to_string(),
        };
        let content =
            serde_json::to_string(&content).expect("a structure of texts and JSON values can be written");
        // it travels as a text in JSON, where quotes count twice
        let on_the_wire = Value::from(content.as_str()).to_string().len();
        if on_the_wire > MOST_JOB_BYTES {
            let message = format!(
                "the document with its parameters has {on_the_wire} bytes on the wire, above the limit of \
                 {MOST_JOB_BYTES}; pass large data as a file or by an address"
            );
            return Err(ApiError::new(ErrorCode::InvalidParameters, message));
        }
        Ok(content)
    }
}

/// The caller may insist on the content that it has seen.
fn check_hash(row: &DocumentRow, input: &SendCommandRequest) -> ApiResult<()> {
    let Some(wanted) = input.document_hash.as_deref().filter(|hash| !hash.is_empty()) else {
        return Ok(());
    };
    let actual = match &input.document_hash_type {
        Some(DocumentHashType::Sha1) => {
            let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, row.content.as_bytes());
            hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
        }
        Some(DocumentHashType::Sha256 | DocumentHashType::Unknown(_)) | None => row.sha256.clone(),
    };
    if actual.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    let message = format!("document {} has the hash {actual}, not {wanted}", row.name);
    Err(ApiError::new(ErrorCode::InvalidDocument, message))
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
    let criteria: Result<Vec<Criterion>, _> = targets
        .iter()
        .map(|target| {
            let values = target.values.as_deref().unwrap_or_default();
            Criterion::parse(target.key.as_deref().unwrap_or_default(), values)
        })
        .collect();
    let criteria = criteria.map_err(|error| ApiError::validation(format!("Targets: {error}")))?;
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
