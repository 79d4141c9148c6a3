//! Operations of the capability `transcript`: recorded sessions (docs/deviations.md).

mod delete_transcript;
mod get_transcript;
mod list_countersignatures;
mod list_transcripts;
mod put_transcript_legal_hold;

use moorline_protocol::types::SessionId;
use moorline_ssm::{ErrorCode, transcript as shapes};

use super::{ApiError, ApiResult, RequestContext, Router};
use crate::{auth::Resource, log_lines::shown, store::TranscriptRow};

pub(super) fn routes(router: Router) -> Router {
    router
        .on::<shapes::DeleteTranscript, _, _>(
            |input| Resource::Session(input.session_id.clone().unwrap_or_default()),
            delete_transcript::delete_transcript,
        )
        .on::<shapes::GetTranscript, _, _>(
            |input| Resource::Session(input.session_id.clone().unwrap_or_default()),
            get_transcript::get_transcript,
        )
        .on::<shapes::ListCountersignatures, _, _>(
            |input| Resource::Session(input.session_id.clone().unwrap_or_default()),
            list_countersignatures::list_countersignatures,
        )
        .on::<shapes::ListTranscripts, _, _>(|_| Resource::Any, list_transcripts::list_transcripts)
        .on::<shapes::PutTranscriptLegalHold, _, _>(
            |input| Resource::Session(input.session_id.clone().unwrap_or_default()),
            put_transcript_legal_hold::put_transcript_legal_hold,
        )
}

/// What is known of a transcript whose recording is there.
async fn existing(cx: &RequestContext, session: Option<&str>) -> ApiResult<TranscriptRow> {
    let given = session.unwrap_or_default();
    let session: SessionId = given.parse().map_err(|_| missing(given))?;
    let row = cx.app.store.transcript(&session).await?;
    let row = row.ok_or_else(|| missing(given))?;
    match row.deleted {
        Some(deleted) => Err(ApiError::new(
            ErrorCode::DoesNotExistException,
            format!(
                "the transcript of session {session} was deleted by {}",
                deleted.by
            ),
        )),
        None => Ok(row),
    }
}

fn missing(session: &str) -> ApiError {
    let message = format!("there is no transcript of session {}", shown(session));
    ApiError::new(ErrorCode::DoesNotExistException, message)
}
