//! `DeleteTranscript`: the recording goes; who deleted it, when, and its length and hash stay. Ours, not AWS's.
//!
//! It is refused while the recording may still grow, and while somebody holds it.

use moorline_ssm::transcript::{DeleteTranscriptRequest, DeleteTranscriptResponse};

use super::{existing, missing};
use crate::{
    api::{ApiError, ApiResult, RequestContext},
    audit::RecordedContent,
    store::{Place, Tombstone},
};

pub(super) async fn delete_transcript(
    cx: RequestContext,
    input: DeleteTranscriptRequest,
) -> ApiResult<DeleteTranscriptResponse> {
    let row = existing(&cx, input.session_id.as_deref()).await?;
    cx.record.is_about_nodes([row.node.as_str()]);
    let mut deleted = RecordedContent::of_row(&row);
    let id = row.id;
    if row.completed_at.is_none() {
        return Err(ApiError::validation(format!(
            "the transcript {id} is not complete; end the session or command, and wait for its node to send the rest"
        )));
    }
    // a tombstone has the hash, which packing makes as well
    let mut content = None;
    if row.place == Place::File {
        match cx.app.transcripts.pack(&id).await {
            Ok(None) => {}
            Ok(Some(packed)) => {
                cx.app.store.transcript_packed(&id, &packed).await?;
                deleted = Some(RecordedContent::new(packed.content));
            }
            // whoever deletes on a full disk may want the room
            Err(error) if error.is_for_want_of_room() => {
                content = cx.app.transcripts.content(&id).await?;
                deleted = content.map(RecordedContent::new);
            }
            Err(error) => return Err(error.into()),
        }
    }
    let tombstone = Tombstone {
        by: cx.principal.arn(),
        at: cx.now,
        reason: input.reason,
    };
    if !cx
        .app
        .store
        .delete_transcript(&id, &tombstone, content.as_ref())
        .await?
    {
        let now = cx.app.store.transcript(&id).await?;
        let hold = now.and_then(|row| row.hold).ok_or_else(|| missing(id.as_str()))?;
        return Err(ApiError::validation(format!(
            "the transcript {id} is held by {}; it can be deleted when the hold is released",
            hold.by
        )));
    }
    cx.record.deleted(deleted);
    cx.app.transcripts.has_come_to_rest();
    tracing::info!(%id, by = cx.principal.arn(), "transcript deleted");
    Ok(DeleteTranscriptResponse {})
}
