//! Operations of the capability `transcript`: recorded sessions (docs/deviations.md).

mod get_transcript;
mod list_countersignatures;
mod list_transcripts;

use moorline_ssm::transcript as shapes;

use super::Router;
use crate::auth::Resource;

pub(super) fn routes(router: Router) -> Router {
    router
        .on::<shapes::GetTranscript, _, _>(
            |input| Resource::Session(input.session_id.clone().unwrap_or_default()),
            get_transcript::get_transcript,
        )
        .on::<shapes::ListCountersignatures, _, _>(
            |input| Resource::Session(input.session_id.clone().unwrap_or_default()),
            list_countersignatures::list_countersignatures,
        )
        .on::<shapes::ListTranscripts, _, _>(|_| Resource::Any, list_transcripts::list_transcripts)
}
