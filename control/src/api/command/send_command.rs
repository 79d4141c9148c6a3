//! `SendCommand`: run a document on managed nodes.
//!
//! AWS: API_SendCommand. A node that is not connected gets the command when it connects, until `TimeoutSeconds` are
//! over. Targets are resolved now, not when the command is delivered. Deviations: notifications, service roles and
//! alarms are kept and shown, and have no effect.

use moorline_protocol::types::CommandId;
use moorline_ssm::command::{Command, SendCommandRequest, SendCommandResult};
use uuid::Uuid;

use super::{resolution::Resolution, shape};
use crate::{
    api::{ApiError, ApiResult, RequestContext},
    store::CommandRow,
};

pub(super) async fn send_command(
    cx: RequestContext,
    input: SendCommandRequest,
) -> ApiResult<SendCommandResult> {
    let command_id = new_command_id()?;
    let resolution = Resolution::new(&cx, &command_id, &input, None).await?;
    let command = accept(&cx, command_id, input, resolution).await?;
    Ok(SendCommandResult {
        command: Some(command),
    })
}

pub(super) fn new_command_id() -> ApiResult<CommandId> {
    Uuid::new_v4().to_string().parse().map_err(ApiError::internal)
}

/// Stores a command and tells the nodes that get it at once.
pub(super) async fn accept(
    cx: &RequestContext,
    command_id: CommandId,
    request: SendCommandRequest,
    resolution: Resolution,
) -> ApiResult<Command> {
    cx.record
        .is_about_nodes(resolution.nodes.iter().map(|node| node.instance_id.as_str()));
    let new = resolution.into_command(cx, command_id, request);
    cx.app.store.insert_command(&new).await?;
    cx.app.metrics.counter("moorline_commands_total", &[]).increment();
    for waiting in new
        .invocations
        .iter()
        .filter(|new| new.invocation.next_send_at.is_some())
    {
        cx.app.routing.nudge(&waiting.instance_id);
    }
    Ok(shape::command(CommandRow {
        head: new.head,
        requested_at: new.requested_at,
        requester: new.requester,
        request: new.request,
    }))
}
