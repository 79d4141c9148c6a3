//! `ListCommandInvocations`: commands on nodes, newest first.
//!
//! AWS: API_ListCommandInvocations. Steps are listed with `Details` only.

use moorline_ssm::command::{ListCommandInvocationsRequest, ListCommandInvocationsResult};

use super::{listing, output_place::OutputPlace, shape, unknown_command};
use crate::{
    api::{ApiResult, RequestContext, pagination},
    store::{InvocationCursor, InvocationQuery},
};

pub(super) async fn list_command_invocations(
    cx: RequestContext,
    input: ListCommandInvocationsRequest,
) -> ApiResult<ListCommandInvocationsResult> {
    let given = input.filters.unwrap_or_default();
    let filters = listing::filters(input.command_id.as_deref(), input.instance_id.as_deref(), &given)?;
    if let Some(id) = &filters.command_id
        && cx.app.store.command(id).await?.is_none()
    {
        return Err(unknown_command(id.as_str()));
    }
    let list = pagination::Listing::new(&cx, "ListCommandInvocations", &filters);
    let limit = pagination::limit(input.max_results, listing::DEFAULT_PAGE);
    let after = list
        .position(input.next_token.as_deref())?
        .as_deref()
        .map(cursor)
        .transpose()?;
    let query = InvocationQuery {
        filters: filters.clone(),
        after,
        limit: limit + 1,
    };
    let with_steps = input.details.unwrap_or_default();
    let rows = cx.app.store.list_invocations(&query, with_steps).await?;
    let (rows, last) = listing::page(rows, limit, |(last, _, _)| {
        format!("{} {} {}", last.requested_at, last.command_id, last.instance_id)
    });
    let mut invocations = Vec::with_capacity(rows.len());
    for (row, command, steps) in rows {
        let place = OutputPlace::find(&cx.app, &command, &row).await?;
        invocations.push(shape::invocation(row, command, steps, (with_steps, &place)));
    }
    Ok(ListCommandInvocationsResult {
        command_invocations: Some(invocations),
        next_token: last.map(|last| list.token(&last)),
    })
}

fn cursor(text: &str) -> ApiResult<InvocationCursor> {
    let mut parts = text.split(' ');
    let (Some(millis), Some(command_id), Some(instance_id)) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(listing::foreign_position());
    };
    Ok(InvocationCursor {
        requested_at: millis.parse().map_err(|_| listing::foreign_position())?,
        command_id: command_id.to_owned(),
        instance_id: instance_id.to_owned(),
    })
}
