//! Operations of the capability `public_key`: what an auditor verifies signatures with (docs/audit-log.md).

mod get_public_keys;
mod register_transcript_key;

use moorline_ssm::public_key as shapes;

use super::Router;
use crate::auth::Resource;

pub(super) fn routes(router: Router) -> Router {
    router
        .on::<shapes::GetPublicKeys, _, _>(|_| Resource::Any, get_public_keys::get_public_keys)
        .on::<shapes::RegisterTranscriptKey, _, _>(
            |input| Resource::Node(input.instance_id.clone().unwrap_or_default()),
            register_transcript_key::register_transcript_key,
        )
}
