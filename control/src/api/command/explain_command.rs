//! `ExplainCommand`: ours. Why a command ran on a node, or did not: what it was sent to and by whom, when what happened
//! on the way to the node, what each step did, and a sentence on how it stands.

#[cfg(test)]
mod tests;

use moorline_protocol::types::InstanceId;
use moorline_ssm::{
    EpochSeconds,
    command::{CommandDelivery, ConnectionStatus, ExplainCommandRequest, ExplainCommandResponse, Tag},
};

use super::{
    output_place::OutputPlace, parse_command_id, parse_instance_id, resolution::criterion, shape,
    unknown_command,
};
use crate::{
    api::{ApiResult, RequestContext},
    engine::{
        invocation::{Circumstances, Delivery, explain},
        target::unmet,
    },
    store::{CommandRow, InvocationRow, NodeRow, StepRow},
};

pub(super) async fn explain_command(
    cx: RequestContext,
    input: ExplainCommandRequest,
) -> ApiResult<ExplainCommandResponse> {
    let id = parse_command_id(input.command_id.as_deref().unwrap_or_default())?;
    let instance_id = parse_instance_id(input.instance_id.as_deref().unwrap_or_default())?;
    let store = &cx.app.store;
    let command = store
        .command(&id)
        .await?
        .ok_or_else(|| unknown_command(id.as_str()))?;
    let node = store.node(&instance_id).await?;
    let is_connected = cx.app.routing.is_connected(&instance_id).await;
    let found = store.invocation(&id, &instance_id).await?;
    let tags = node.as_ref().map(|node| &node.tags).into_iter().flatten();
    let response = ExplainCommandResponse {
        requester: Some(command.requester.clone()),
        node_tags: Some(tags.map(tag).collect()),
        connection_status: Some(if is_connected {
            ConnectionStatus::Connected
        } else {
            ConnectionStatus::Notconnected
        }),
        ..ExplainCommandResponse::default()
    };
    Ok(match found {
        Some((row, steps)) => {
            let place = OutputPlace::find(&cx.app, &command, &row).await?;
            of_invocation(response, command, (row, steps), &place, is_connected)
        }
        None => ExplainCommandResponse {
            targeted: Some(false),
            explanation: Some(why_not(&cx, &command, &instance_id, node.as_ref()).await),
            command: Some(shape::command(command)),
            ..response
        },
    })
}

fn of_invocation(
    response: ExplainCommandResponse,
    command: CommandRow,
    (row, steps): (InvocationRow, Vec<StepRow>),
    place: &OutputPlace,
    is_connected: bool,
) -> ExplainCommandResponse {
    let progress = &command.head.progress;
    let around = Circumstances {
        is_connected,
        errors: progress.tally.errors(),
        max_errors: progress.max_errors.of(progress.tally.targets),
        max_concurrency: progress.max_concurrency.of(progress.tally.targets).max(1),
    };
    let invocation = &row.invocation;
    let time = |millis: Option<u64>| millis.map(EpochSeconds::from_millis);
    ExplainCommandResponse {
        targeted: Some(true),
        instance_name: Some(row.instance_name.clone()),
        delivery: Some(delivery(invocation.delivery)),
        released_date_time: time(invocation.times.released_at),
        sent_date_time: time(invocation.times.sent_at),
        acknowledged_date_time: time(invocation.times.taken_at),
        cancel_requested_date_time: time(invocation.times.cancel_requested_at),
        ended_date_time: time(invocation.ended_at),
        deadline_date_time: time(invocation.deadline_at),
        explanation: Some(explain(invocation, &around)),
        command: Some(shape::command(command.clone())),
        invocation: Some(shape::invocation(row, command, steps, (true, place))),
        ..response
    }
}

/// The command was not sent to the node. Its tags may have been others at that time.
async fn why_not(
    cx: &RequestContext,
    command: &CommandRow,
    id: &InstanceId,
    node: Option<&NodeRow>,
) -> String {
    let Some(node) = node else {
        return format!("The command was not sent to it: there is no managed node {id}.");
    };
    let Some(targets) = &command.request.targets else {
        return "The command was not sent to it: it is none of the nodes that the command names.".to_owned();
    };
    let mut criteria = Vec::with_capacity(targets.len());
    for target in targets {
        // a group that is gone says nothing
        criteria.extend(criterion(cx, target).await);
    }
    match unmet(&criteria, id, &node.tags) {
        Some(why) => format!("The command was not sent to it: {why}."),
        None => {
            "The command was not sent to it: it fits the targets now, but was not registered or had other \
                 tags when the command was sent, or was not in this wave."
                .to_owned()
        }
    }
}

fn delivery(delivery: Delivery) -> CommandDelivery {
    match delivery {
        Delivery::Held => CommandDelivery::Held,
        Delivery::Unsent => CommandDelivery::Unsent,
        Delivery::Sent => CommandDelivery::Sent,
        Delivery::Refused => CommandDelivery::Refused,
        Delivery::Taken => CommandDelivery::Taken,
    }
}

fn tag((key, value): (&String, &String)) -> Tag {
    Tag {
        key: Some(key.clone()),
        value: Some(value.clone()),
    }
}
