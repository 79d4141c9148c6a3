//! Files that are attached out of S3, or of a server that speaks as S3 does: read once, and kept at the endpoint.

use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::{ObjectStoreExt as _, aws::AmazonS3, path::Path as Key};

use super::{AttachmentFiles, Put, S3Server, StoreError, Upload};

/// For a whole file.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(50);

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum S3SourceError {
    #[error("it cannot be read: {0}")]
    Read(#[from] object_store::Error),
    #[error("it has {size} bytes; {most} are possible")]
    Size { size: u64, most: u64 },
    #[error("it does not have the SHA-256 that the content says")]
    OtherHash,
    #[error("it changed while it was read; try again")]
    Changed,
    #[error("there is no more room for attachments at this endpoint")]
    Full,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The server.
#[derive(Debug, Clone)]
pub(crate) struct S3Source {
    server: S3Server,
}

impl S3Source {
    /// Nothing is asked of the server yet.
    pub(crate) fn new(server: S3Server) -> Self {
        Self { server }
    }

    /// Copies an object to the attachments for a principal, and returns its size.
    pub(crate) async fn copy(
        &self,
        (bucket, key): (&str, &str),
        (by, sha256): (&str, &str),
        most: u64,
        files: &AttachmentFiles,
    ) -> Result<u64, S3SourceError> {
        let object = self.client(bucket)?.get(&Key::from(key)).await?;
        let size = object.meta.size;
        if size > most || size == 0 {
            return Err(S3SourceError::Size { size, most });
        }
        let upload = Upload { by, sha256, size };
        let mut offset = 0;
        let mut stream = object.into_stream();
        // What an attempt before this one has left is skipped.
        let Put::Next(mut there) = files.put(upload, 0, Bytes::new()).await? else {
            return Ok(size);
        };
        while let Some(piece) = stream.try_next().await? {
            let end = offset + piece.len() as u64;
            if end > there {
                let skipped = usize::try_from(there.saturating_sub(offset)).unwrap_or(usize::MAX);
                let rest = piece.slice(skipped.min(piece.len())..);
                match files.put(upload, there, rest).await? {
                    Put::Next(next) if next == end => there = next,
                    Put::Next(_) => return Err(S3SourceError::Changed),
                    Put::Whole => return Ok(size),
                    Put::OtherHash => return Err(S3SourceError::OtherHash),
                    Put::Full => return Err(S3SourceError::Full),
                }
            }
            offset = end;
        }
        Err(S3SourceError::Changed)
    }

    fn client(&self, bucket: &str) -> Result<AmazonS3, object_store::Error> {
        let region = &self.server.region;
        self.server
            .bucket(bucket, region, REQUEST_TIMEOUT, |options| options)
    }
}
