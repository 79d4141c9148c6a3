//! The object store for finished transcripts.

use super::{s3_options::S3OptionsError, settings::StoreArguments};
use crate::store::{RemoteStore, RemoteStoreError};

/// Why there is no object store.
#[derive(Debug, thiserror::Error)]
pub(super) enum TranscriptStoreError {
    #[error("--transcript-store cannot be used")]
    Store(#[from] RemoteStoreError),
    #[error("--transcript-store cannot be used")]
    Server(#[from] S3OptionsError),
}

/// The store that the settings name, if they name one.
pub(super) fn open(settings: &StoreArguments) -> Result<Option<RemoteStore>, TranscriptStoreError> {
    let Some(url) = &settings.url else {
        return Ok(None);
    };
    let server = settings.s3.server()?;
    Ok(Some(RemoteStore::new(url, &server)?))
}
