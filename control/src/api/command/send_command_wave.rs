//! `SendCommandWave`: ours. Runs a command on some of the nodes that it is for: a wave of a roll-out.
//!
//! A wave names its nodes, and only those that the command's targets still have get it. Whoever sends it chooses the
//! command's id, so that it may be sent again when the answer was lost: a command is accepted once.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use moorline_protocol::types::InstanceId;
use moorline_ssm::{
    ErrorCode,
    command::{SendCommandRequest, SendCommandWaveRequest, SendCommandWaveResponse},
};

use super::{parse_command_id, parse_instance_ids, resolution::Resolution, send_command::accept, shape};
use crate::{
    api::{ApiError, ApiResult, RequestContext},
    audit::MASKED,
    store::CommandRow,
};

pub(super) async fn send_command_wave(
    cx: RequestContext,
    input: SendCommandWaveRequest,
) -> ApiResult<SendCommandWaveResponse> {
    let id = parse_command_id(input.command_id.as_deref().unwrap_or_default())?;
    let request = input.command.unwrap_or_default();
    if let Some(known) = cx.app.store.command(&id).await? {
        return again(&cx, known, &request);
    }
    let only = parse_instance_ids(input.only_instance_ids.as_deref().unwrap_or_default())?;
    let only: BTreeSet<InstanceId> = only.into_iter().collect();
    let resolution = Resolution::new(&cx, &id, &request, Some(&only)).await?;
    Ok(SendCommandWaveResponse {
        command: Some(accept(&cx, id, request, resolution).await?),
        already_accepted: Some(false),
    })
}

/// The command was accepted before. That it is the same is told by who sent it and what it says, but for the secrets in
/// it, which are not kept.
fn again(
    cx: &RequestContext,
    known: CommandRow,
    request: &SendCommandRequest,
) -> ApiResult<SendCommandWaveResponse> {
    let mut given = request.clone();
    given.document_name.clone_from(&known.request.document_name);
    for (name, kept) in known.request.parameters.iter().flatten() {
        if *kept == [MASKED]
            && let Some(values) = given.parameters.as_mut().and_then(|given| given.get_mut(name))
        {
            values.clone_from(kept);
        }
    }
    if known.requester != cx.principal.arn() || known.request != given {
        let message = format!(
            "there is another command {}; a new one needs an id of its own",
            known.head.command_id
        );
        return Err(ApiError::new(ErrorCode::IdempotentParameterMismatch, message));
    }
    Ok(SendCommandWaveResponse {
        command: Some(shape::command(known)),
        already_accepted: Some(true),
    })
}
