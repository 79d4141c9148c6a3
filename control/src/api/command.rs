//! Operations of the capability `command`: Run Command.

mod cancel_command;
mod explain_command;
mod get_command_invocation;
mod list_command_invocations;
mod list_commands;
mod listing;
mod output_place;
mod parameter_references;
mod plan_command;
mod prepared;
mod resolution;
mod send_command;
mod send_command_wave;
mod shape;
#[cfg(test)]
mod tests;

use moorline_protocol::types::{CommandId, InstanceId};
use moorline_ssm::{
    ErrorCode,
    command::{
        CancelCommand, ExplainCommand, GetCommandInvocation, ListCommandInvocations, ListCommands,
        PlanCommand, SendCommand, SendCommandRequest, SendCommandWave,
    },
};

use super::{ApiError, ApiResult, Router};
use crate::auth::Resource;

pub(super) fn routes(router: Router) -> Router {
    router
        .on::<CancelCommand, _, _>(
            |input| command(input.command_id.as_ref()),
            cancel_command::cancel_command,
        )
        .on::<GetCommandInvocation, _, _>(
            |input| command(input.command_id.as_ref()),
            get_command_invocation::get_command_invocation,
        )
        .on::<ListCommandInvocations, _, _>(
            |_| Resource::Any,
            list_command_invocations::list_command_invocations,
        )
        .on::<ListCommands, _, _>(|_| Resource::Any, list_commands::list_commands)
        .on::<ExplainCommand, _, _>(
            |input| command(input.command_id.as_ref()),
            explain_command::explain_command,
        )
        .on::<PlanCommand, _, _>(
            |input| document(input.command.as_ref()),
            plan_command::plan_command,
        )
        .on::<SendCommand, _, _>(|input| document(Some(input)), send_command::send_command)
        .on::<SendCommandWave, _, _>(
            |input| document(input.command.as_ref()),
            send_command_wave::send_command_wave,
        )
}

fn command(id: Option<&String>) -> Resource {
    Resource::Command(id.cloned().unwrap_or_default())
}

fn document(request: Option<&SendCommandRequest>) -> Resource {
    let name = request.and_then(|request| request.document_name.clone());
    Resource::Document(name.unwrap_or_default())
}

fn parse_command_id(text: &str) -> ApiResult<CommandId> {
    text.parse().map_err(|_| unknown_command(text))
}

fn unknown_command(id: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidCommandId, format!("there is no command {id}"))
}

fn parse_instance_id(text: &str) -> ApiResult<InstanceId> {
    text.parse().map_err(|_| unknown_node(text))
}

fn unknown_node(id: &str) -> ApiError {
    ApiError::new(
        ErrorCode::InvalidInstanceId,
        format!("there is no managed node {id}"),
    )
}

/// Node ids as given, each once.
fn parse_instance_ids(texts: &[String]) -> ApiResult<Vec<InstanceId>> {
    let mut ids = Vec::with_capacity(texts.len());
    for text in texts {
        let id = parse_instance_id(text)?;
        if ids.contains(&id) {
            let message = format!("managed node {id} is named twice");
            return Err(ApiError::new(ErrorCode::DuplicateInstanceId, message));
        }
        ids.push(id);
    }
    Ok(ids)
}
