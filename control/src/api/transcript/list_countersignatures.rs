//! `ListCountersignatures`: what the endpoint signed of a recording, line by line. Ours, not AWS's.
//!
//! The lines are those that an export has behind the seals (docs/transcript-format.md).

use moorline_protocol::types::SessionId;
use moorline_ssm::{
    ErrorCode,
    transcript::{ListCountersignaturesRequest, ListCountersignaturesResponse},
};

use crate::{
    api::{ApiError, ApiResult, RequestContext},
    store::TranscriptQuery,
};

/// Lines of one answer, which then has half a megabyte.
const MOST_LINES: usize = 1000;

pub(super) async fn list_countersignatures(
    cx: RequestContext,
    input: ListCountersignaturesRequest,
) -> ApiResult<ListCountersignaturesResponse> {
    let given = input.session_id.unwrap_or_default();
    let missing = || {
        let message = format!("there is no transcript of session {given}");
        ApiError::new(ErrorCode::DoesNotExistException, message)
    };
    let session: SessionId = given.parse().map_err(|_| missing())?;
    let query = TranscriptQuery {
        session_id: Some(session.to_string()),
        limit: 1,
        ..TranscriptQuery::default()
    };
    // before the lines: what is closed now gets none
    let row = cx
        .app
        .store
        .transcripts(&query)
        .await?
        .pop()
        .ok_or_else(missing)?;
    let from = usize::try_from(input.start_index.unwrap_or(0)).unwrap_or(0);
    let lines = cx.app.transcripts.signatures(&session, from, MOST_LINES).await?;
    Ok(ListCountersignaturesResponse {
        session_id: Some(given),
        complete: Some(row.completed_at.is_some() && lines.len() < MOST_LINES),
        lines: Some(lines),
    })
}
