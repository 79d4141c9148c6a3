//! The server out of which files are attached to documents.

use super::{
    settings::SourceArguments,
    transcript_store::{ObjectStoreCredentials, TranscriptStoreError},
};
use crate::store::{S3Source, S3SourceSettings};

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the source of attachments cannot be used")]
pub(super) struct AttachmentSourceError(#[from] TranscriptStoreError);

/// The server that the settings name, if they name one.
pub(super) fn open(settings: &SourceArguments) -> Result<Option<S3Source>, AttachmentSourceError> {
    let Some(path) = settings.credentials.clone() else {
        return Ok(None);
    };
    let credentials = ObjectStoreCredentials::read(Some(path))?;
    Ok(Some(S3Source::new(S3SourceSettings {
        endpoint: settings.endpoint.clone(),
        region: settings.region.clone(),
        access_key_id: credentials.access_key_id,
        secret_access_key: credentials.secret_access_key,
        session_token: credentials.session_token,
    })))
}
