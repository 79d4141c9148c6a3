//! The server out of which files are attached to documents.

use super::{
    s3_options::{S3Options, S3OptionsError},
    settings::AttachmentSource,
};
use crate::store::S3Source;

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the source of attachments cannot be used")]
pub(super) struct AttachmentSourceError(#[from] S3OptionsError);

/// The server that the settings name, if they name one.
pub(super) fn open(
    settings: &S3Options<AttachmentSource>,
) -> Result<Option<S3Source>, AttachmentSourceError> {
    if settings.credentials.is_none() {
        return Ok(None);
    }
    Ok(Some(S3Source::new(settings.server()?)))
}
