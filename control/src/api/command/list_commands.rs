//! `ListCommands`: commands, newest first.
//!
//! AWS: API_ListCommands. Commands are kept for 30 days.

use moorline_ssm::command::{ListCommandsRequest, ListCommandsResult};

use super::{
    listing::{self, Page, invalid_token},
    shape, unknown_command,
};
use crate::{
    api::{ApiResult, RequestContext},
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
    let page = Page::open(
        "ListCommands",
        &filters,
        input.max_results,
        input.next_token.as_deref(),
    )?;
    let after = match page.cursor() {
        None => None,
        Some(cursor) => {
            let (millis, id) = cursor.split_once(' ').ok_or_else(invalid_token)?;
            Some((millis.parse().map_err(|_| invalid_token())?, id.to_owned()))
        }
    };
    let query = CommandQuery {
        filters,
        after,
        limit: page.limit() + 1,
    };
    let rows = cx.app.store.list_commands(&query).await?;
    let (rows, next_token) = page.close(rows, |last| {
        format!("{} {}", last.requested_at, last.head.command_id)
    });
    Ok(ListCommandsResult {
        commands: Some(rows.into_iter().map(shape::command).collect()),
        next_token,
    })
}
