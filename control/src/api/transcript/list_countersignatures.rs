//! `ListCountersignatures`: what the endpoint signed of a recording, line by line. Ours, not AWS's.
//!
//! The lines are those that an export has behind the seals (docs/transcript-format.md).

use moorline_ssm::transcript::{ListCountersignaturesRequest, ListCountersignaturesResponse};

use super::existing;
use crate::api::{ApiResult, RequestContext};

/// Lines of one answer, which then has half a megabyte.
const MOST_LINES: usize = 1000;

pub(super) async fn list_countersignatures(
    cx: RequestContext,
    input: ListCountersignaturesRequest,
) -> ApiResult<ListCountersignaturesResponse> {
    // before the lines: what is closed now gets none
    let row = existing(&cx, input.session_id.as_deref()).await?;
    cx.record.is_about_nodes([row.node.as_str()]);
    let id = row.id;
    let from = usize::try_from(input.start_index.unwrap_or(0)).unwrap_or(0);
    let lines = cx.app.transcripts.signatures(&id, from, MOST_LINES).await?;
    Ok(ListCountersignaturesResponse {
        session_id: Some(id.to_string()),
        complete: Some(row.completed_at.is_some() && lines.len() < MOST_LINES),
        lines: Some(lines),
    })
}
