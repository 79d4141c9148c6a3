//! Operations of the capability `transcript`: recorded sessions and commands (docs/deviations.md).

mod delete_transcript;
mod get_transcript;
mod list_countersignatures;
mod list_transcripts;
mod put_transcript_legal_hold;

use moorline_protocol::types::TranscriptId;
use moorline_ssm::{ErrorCode, transcript as shapes};

use super::{ApiError, ApiResult, RequestContext, Router};
use crate::{
    auth::Resource,
    log_lines::shown,
    store::{TranscriptRow, TranscriptState},
};

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
async fn existing(cx: &RequestContext, id: Option<&str>) -> ApiResult<TranscriptRow> {
    let given = id.unwrap_or_default();
    let id: TranscriptId = given.parse().map_err(|_| missing(given))?;
    let row = cx.app.store.transcript(&id).await?;
    let row = row.ok_or_else(|| missing(given))?;
    match row.deleted {
        Some(deleted) => Err(ApiError::new(
            ErrorCode::DoesNotExistException,
            format!("the transcript {id} was deleted by {}", deleted.by),
        )),
        None => Ok(row),
    }
}

fn state(row: &TranscriptRow) -> shapes::TranscriptState {
    match row.state {
        _ if row.deleted.is_some() => shapes::TranscriptState::Deleted,
        TranscriptState::Open => shapes::TranscriptState::Running,
        TranscriptState::Plain => shapes::TranscriptState::NotVerified,
        TranscriptState::Complete => shapes::TranscriptState::Complete,
        TranscriptState::Cut => shapes::TranscriptState::Cut,
    }
}

fn missing(id: &str) -> ApiError {
    let message = format!("there is no transcript {}", shown(id));
    ApiError::new(ErrorCode::DoesNotExistException, message)
}
