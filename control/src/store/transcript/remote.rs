//! An S3-compatible object store for recordings that are finished. An object never changes once it was verified.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use moorline_protocol::types::TranscriptId;
use object_store::{
    GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutPayload, aws::AmazonS3, path::Path as Key,
};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{
    Content, file_error,
    seekable::{self, MOST_TABLE_BYTES, SeekTable, Sum},
};
use crate::store::{S3Server, StoreError};

/// Every part but the last, in bytes: S3 wants 5 MiB at least, and takes 10,000 parts.
const PART_BYTES: u64 = 8 * 1024 * 1024;
/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Tables of recordings that were read lately.
const MOST_TABLES: usize = 64;

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteStoreError {
    #[error("{0} is not s3://BUCKET or s3://BUCKET/PREFIX")]
    Url(String),
    #[error("failed to set up the client of the object store")]
    Client(#[source] object_store::Error),
}

/// The store.
#[derive(Debug)]
pub(crate) struct RemoteStore {
    client: AmazonS3,
    prefix: String,
    tables: Mutex<BTreeMap<TranscriptId, Arc<SeekTable>>>,
}

impl RemoteStore {
    /// Nothing is asked of the store yet.
    ///
    /// # Errors
    /// The settings are none.
    pub(crate) fn new(url: &str, server: &S3Server) -> Result<Self, RemoteStoreError> {
        let not_s3 = || RemoteStoreError::Url(url.to_owned());
        let place = url.strip_prefix("s3://").ok_or_else(not_s3)?;
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() {
            return Err(not_s3());
        }
        let client = server.bucket(bucket, &server.region, REQUEST_TIMEOUT, |options| options);
        Ok(Self {
            client: client.map_err(RemoteStoreError::Client)?,
            prefix: prefix.trim_matches('/').to_owned(),
            tables: Mutex::default(),
        })
    }

    /// The name of a recording's object.
    pub(super) fn recording(recording: &TranscriptId) -> String {
        format!("{recording}.cast.zst")
    }

    /// The name of the object with the endpoint's lines.
    pub(super) fn signatures(recording: &TranscriptId) -> String {
        format!("{recording}.signatures")
    }

    fn key(&self, name: &str) -> Key {
        Key::from(format!("{}/{name}", self.prefix))
    }

    fn tables(&self) -> MutexGuard<'_, BTreeMap<TranscriptId, Arc<SeekTable>>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table of a recording; `None`: it is not there.
    pub(super) async fn table(&self, recording: &TranscriptId) -> Result<Option<Arc<SeekTable>>, StoreError> {
        if let Some(table) = self.tables().get(recording) {
            return Ok(Some(Arc::clone(table)));
        }
        let name = Self::recording(recording);
        let failed = failed("read the end of", &name);
        let options = GetOptions {
            range: Some(GetRange::Suffix(MOST_TABLE_BYTES as u64)),
            ..GetOptions::default()
        };
        let (stored, tail) = match self.client.get_opts(&self.key(&name), options).await {
            Ok(answer) => (answer.meta.size, answer.bytes().await.map_err(failed)?),
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let table = SeekTable::parse(&tail, stored)
            .map_err(file_error("read the object of the transcript", Path::new(&name)))?;
        let table = Arc::new(table);
        let mut tables = self.tables();
        if tables.len() >= MOST_TABLES {
            // any: each can be read again
            tables.pop_first();
        }
        tables.insert(recording.clone(), Arc::clone(&table));
        Ok(Some(table))
    }

    pub(super) async fn read(
        &self,
        recording: &TranscriptId,
        table: &SeekTable,
        offset: u64,
        limit: u64,
    ) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        let frames = table.covering(offset, limit);
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else {
            return Ok(bytes);
        };
        let name = Self::recording(recording);
        let range = first.stored_at..last.stored_at + last.stored_bytes as u64;
        let stored = self.client.get_range(&self.key(&name), range).await;
        let stored = stored.map_err(failed("read", &name))?;
        for frame in frames {
            let at = usize::try_from(frame.stored_at - first.stored_at).unwrap_or(usize::MAX);
            let stored = stored.get(at..at + frame.stored_bytes).unwrap_or_default();
            let plain = frame
                .open(stored)
                .map_err(file_error("open the object of the transcript", Path::new(&name)))?;
            bytes.extend_from_slice(seekable::part_of(&plain, frame.begin, offset, limit));
        }
        Ok(bytes)
    }

    /// Brings a file there, and reads it back.
    pub(super) async fn put(&self, name: &str, path: &Path) -> Result<(), StoreError> {
        let sent = self.send(name, path).await?;
        let received = self.content(name).await?;
        if sent == received {
            return Ok(());
        }
        Err(StoreError::Object {
            doing: "verify",
            object: name.to_owned(),
            source: object_store::Error::Generic {
                store: "S3",
                source: "what was uploaded reads back as something else".into(),
            },
        })
    }

    async fn send(&self, name: &str, path: &Path) -> Result<Content, StoreError> {
        let unreadable = || file_error("read for the object store", path);
        let mut file = tokio::fs::File::open(path)
            .await
            .map_err(|error| unreadable()(error))?;
        let mut sum = Sum::new();
        let first = part(&mut file).await.map_err(|error| unreadable()(error))?;
        sum.push(&first);
        let key = self.key(name);
        if (first.len() as u64) < PART_BYTES {
            let put = self.client.put(&key, PutPayload::from(first)).await;
            put.map_err(failed("write", name))?;
            return Ok(sum.finish());
        }
        let begun = self.client.put_multipart(&key).await;
        let mut upload = begun.map_err(failed("begin to write", name))?;
        let mut next = first;
        while !next.is_empty() {
            if let Err(error) = upload.put_part(PutPayload::from(next)).await {
                if let Err(error) = upload.abort().await {
                    tracing::warn!(%error, object = name, "parts of an upload that failed are left in the object store");
                }
                return Err(failed("write a part of", name)(error));
            }
            next = part(&mut file).await.map_err(|error| unreadable()(error))?;
            sum.push(&next);
        }
        upload.complete().await.map_err(failed("complete", name))?;
        Ok(sum.finish())
    }

    async fn content(&self, name: &str) -> Result<Content, StoreError> {
        use futures_util::TryStreamExt as _;
        let answer = self.client.get(&self.key(name)).await;
        let mut pieces = answer.map_err(failed("read back", name))?.into_stream();
        let mut sum = Sum::new();
        while let Some(piece) = pieces.try_next().await.map_err(failed("read back", name))? {
            sum.push(&piece);
        }
        Ok(sum.finish())
    }

    /// Removes a recording, if it is there.
    pub(super) async fn remove(&self, recording: &TranscriptId) -> Result<(), StoreError> {
        self.tables().remove(recording);
        for name in [Self::recording(recording), Self::signatures(recording)] {
            match self.client.delete(&self.key(&name)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(failed("delete", &name)(error)),
            }
        }
        Ok(())
    }
}

async fn part(file: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(PART_BYTES).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn failed(doing: &'static str, name: &str) -> impl FnOnce(object_store::Error) -> StoreError {
    let object = name.to_owned();
    move |source| StoreError::Object {
        doing,
        object,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_named_after_its_session_below_the_prefix() {
        let server = S3Server {
            endpoint: None,
            region: "us-east-1".to_owned(),
            access_key_id: "a-key-id".to_owned(),
            secret_access_key: "a-secret".to_owned(),
            session_token: None,
        };
        let name = RemoteStore::recording(&"admin-0123456789abcdef0".parse().unwrap());
        for (url, expected) in [
            ("s3://bucket", "admin-0123456789abcdef0.cast.zst"),
            ("s3://bucket/", "admin-0123456789abcdef0.cast.zst"),
            ("s3://bucket/a/b/", "a/b/admin-0123456789abcdef0.cast.zst"),
        ] {
            let store = RemoteStore::new(url, &server).unwrap();
            assert_eq!(store.key(&name).as_ref(), expected, "{url}");
        }
        for url in ["http://bucket", "s3://", "s3:///prefix"] {
            let refused = RemoteStore::new(url, &server);
            assert!(matches!(refused, Err(RemoteStoreError::Url(_))), "{url}");
        }
    }
}
