//! Files that are attached out of S3, or of a server that speaks as S3 does: read once, and kept at the endpoint.

use std::{fmt, time::Duration};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::{
    ClientOptions, ObjectStoreExt as _,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path as Key,
};

use super::{AttachmentFiles, Put, StoreError};

/// For a whole file.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(50);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Which server, and with which credentials. The bucket is the request's to name.
#[derive(Clone)]
pub(crate) struct S3SourceSettings {
    /// Of a server other than Amazon's.
    pub(crate) endpoint: Option<String>,
    pub(crate) region: String,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) session_token: Option<String>,
}

impl fmt::Debug for S3SourceSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3SourceSettings")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

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
    settings: S3SourceSettings,
}

impl S3Source {
    /// Nothing is asked of the server yet.
    pub(crate) fn new(settings: S3SourceSettings) -> Self {
        Self { settings }
    }

    /// Copies an object to the attachments, and returns its size.
    pub(crate) async fn copy(
        &self,
        bucket: &str,
        key: &str,
        sha256: &str,
        most: u64,
        files: &AttachmentFiles,
    ) -> Result<u64, S3SourceError> {
        let object = self.client(bucket)?.get(&Key::from(key)).await?;
        let size = object.meta.size;
        if size > most || size == 0 {
            return Err(S3SourceError::Size { size, most });
        }
        let mut offset = 0;
        let mut stream = object.into_stream();
        // What an attempt before this one has left is skipped.
        let Put::Next(mut there) = files.put(sha256, size, 0, Bytes::new()).await? else {
            return Ok(size);
        };
        while let Some(piece) = stream.try_next().await? {
            let end = offset + piece.len() as u64;
            if end > there {
                let skipped = usize::try_from(there.saturating_sub(offset)).unwrap_or(usize::MAX);
                let rest = piece.slice(skipped.min(piece.len())..);
                match files.put(sha256, size, there, rest).await? {
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
        // its HTTP client takes the process's own
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
        let settings = &self.settings;
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&settings.region)
            .with_access_key_id(&settings.access_key_id)
            .with_secret_access_key(&settings.secret_access_key)
            .with_client_options(
                ClientOptions::new()
                    .with_timeout(REQUEST_TIMEOUT)
                    .with_connect_timeout(CONNECT_TIMEOUT),
            );
        if let Some(token) = &settings.session_token {
            builder = builder.with_token(token);
        }
        if let Some(endpoint) = &settings.endpoint {
            builder = builder
                .with_endpoint(endpoint)
                .with_allow_http(endpoint.starts_with("http://"));
        }
        builder.build()
    }
}
