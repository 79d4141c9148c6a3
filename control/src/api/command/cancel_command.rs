//! `CancelCommand`: end a command on all its nodes, or on some.
//!
//! AWS: API_CancelCommand. A node that was not sent the command yet never gets it and is `Cancelled` at once; the
//! others are `Cancelling` until they report. What has ended stays as it is.

use moorline_ssm::command::{CancelCommandRequest, CancelCommandResult};
use uuid::Uuid;

use super::{parse_command_id, parse_instance_ids, unknown_command};
use crate::api::{ApiError, ApiResult, RequestContext};

pub(super) async fn cancel_command(
    cx: RequestContext,
    input: CancelCommandRequest,
) -> ApiResult<CancelCommandResult> {
    let id = parse_command_id(input.command_id.as_deref().unwrap_or_default())?;
    let nodes = parse_instance_ids(input.instance_ids.as_deref().unwrap_or_default())?;
    let store = &cx.app.store;
    if store.command(&id).await?.is_none() {
        return Err(unknown_command(id.as_str()));
    }
    if !nodes.is_empty() {
        let of_command = store.nodes_of_command(&id).await?;
        if let Some(stranger) = nodes.iter().find(|node| !of_command.contains(node)) {
            return Err(ApiError::new(
                moorline_ssm::ErrorCode::InvalidInstanceId,
                format!("command {id} was not sent to managed node {stranger}"),
            ));
        }
    }
    let only = (!nodes.is_empty()).then_some(nodes.as_slice());
    let cancel_id = Uuid::new_v4().to_string();
    for node in store.cancel_command(&id, only, &cancel_id, cx.now).await? {
        cx.app.routing.nudge(&node);
    }
    Ok(CancelCommandResult {})
}
