//! `PutTranscriptLegalHold`: nothing deletes the transcript, neither its age nor an administrator, until that is
//! released. Ours, not AWS's.

use moorline_ssm::transcript::{PutTranscriptLegalHoldRequest, PutTranscriptLegalHoldResponse};

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
    let id = row.id;
    let is_held = input.held.unwrap_or(false);
    let hold = is_held.then(|| Hold {
        by: cx.principal.arn(),
        at: cx.now,
        reason: input.reason,
    });
    if !cx.app.store.hold_transcript(&id, hold.as_ref()).await? {
        return Err(missing(id.as_str()));
    }
    tracing::info!(%id, is_held, by = cx.principal.arn(), "legal hold of a transcript");
    Ok(PutTranscriptLegalHoldResponse {})
}
