//! `ListCommands`: commands, newest first.
//!
//! AWS: API_ListCommands. Commands are kept for 30 days.

use moorline_ssm::command::{ListCommandsRequest, ListCommandsResult};

use super::{listing, shape, unknown_command};
use crate::{
    api::{ApiResult, RequestContext, pagination},
    store::CommandQuery,
};

pub(super) async fn list_commands(
    cx: RequestContext,
    input: ListCommandsRequest,
) -> ApiResult<ListCommandsResult> {
    let given = input.filters.unwrap_or_default();
    let filters = listing::filters(input.command_id.as_deref(), input.instance_id.as_deref(), &given)?;
    if let Some(id) = &filters.command_id
        && cx.app.store.command(id).await?.is_none()
    {
        return Err(unknown_command(id.as_str()));
    }
    let list = pagination::Listing::new(&cx, "ListCommands", &filters);
    let limit = pagination::limit(input.max_results, listing::DEFAULT_PAGE);
    let after = list
        .position(input.next_token.as_deref())?
        .as_deref()
        .map(cursor)
        .transpose()?;
    let query = CommandQuery {
        filters: filters.clone(),
        after,
        limit: limit + 1,
    };
    let rows = cx.app.store.list_commands(&query).await?;
    let (rows, last) = listing::page(rows, limit, |last| {
        format!("{} {}", last.requested_at, last.head.command_id)
    });
    Ok(ListCommandsResult {
        commands: Some(rows.into_iter().map(shape::command).collect()),
        next_token: last.map(|last| list.token(&last)),
    })
}

/// Time and id of the last command of the page before.
fn cursor(text: &str) -> ApiResult<(u64, String)> {
    let (millis, id) = text.split_once(' ').ok_or_else(listing::foreign_position)?;
    Ok((
        millis.parse().map_err(|_| listing::foreign_position())?,
        id.to_owned(),
    ))
}
