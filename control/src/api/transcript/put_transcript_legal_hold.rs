//! `PutTranscriptLegalHold`: nothing deletes the transcript, neither its age nor an administrator, until that is
//! released. Who holds it first goes on holding it; others are told so. Ours, not AWS's.

use moorline_ssm::{
    EpochSeconds,
    transcript::{PutTranscriptLegalHoldRequest, PutTranscriptLegalHoldResponse},
};

use super::{existing, missing};
use crate::{
    api::{ApiResult, RequestContext},
    store::Hold,
};

pub(super) async fn put_transcript_legal_hold(
    cx: RequestContext,
    input: PutTranscriptLegalHoldRequest,
) -> ApiResult<PutTranscriptLegalHoldResponse> {
    let row = existing(&cx, input.session_id.as_deref()).await?;
    cx.record.is_about_nodes([row.node.as_str()]);
    let (id, by) = (row.id, cx.principal.arn());
    if !input.held.unwrap_or(false) {
        if !cx.app.store.release_transcript(&id).await? {
            return Err(missing(id.as_str()));
        }
        tracing::info!(%id, by, "legal hold of a transcript released");
        return Ok(PutTranscriptLegalHoldResponse::default());
    }
    let hold = Hold {
        by,
        at: cx.now,
        reason: input.reason,
    };
    let held = cx.app.store.hold_transcript(&id, &hold).await?;
    let held = held.ok_or_else(|| missing(id.as_str()))?;
    if held == hold {
        tracing::info!(%id, by = hold.by, "legal hold of a transcript");
        return Ok(PutTranscriptLegalHoldResponse::default());
    }
    Ok(PutTranscriptLegalHoldResponse {
        held_by: Some(held.by),
        held_date: Some(EpochSeconds::from_millis(held.at)),
        hold_reason: held.reason,
    })
}
