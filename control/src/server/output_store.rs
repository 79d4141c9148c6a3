//! The server to whose buckets output of commands is brought.

use super::{
    s3_options::{S3Options, S3OptionsError},
    settings::OutputStorePurpose,
};
use crate::store::OutputStore;

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the store for output of commands cannot be used")]
pub(super) struct OutputStoreError(#[from] S3OptionsError);

/// The server that the settings name, if they name one.
pub(super) fn open(
    settings: &S3Options<OutputStorePurpose>,
) -> Result<Option<OutputStore>, OutputStoreError> {
    if settings.credentials.is_none() {
        return Ok(None);
    }
    Ok(Some(OutputStore::new(settings.server()?)))
}
