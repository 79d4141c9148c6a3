//! Buckets that output of commands is brought to. Which bucket the command says; the server and the credentials are the
//! endpoint's owner's.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use object_store::{
    Error, ObjectStoreExt as _, PutPayload,
    aws::AmazonS3,
    multipart::{MultipartStore as _, PartId},
    path::Path as Key,
};
use tokio::sync::{Notify, futures::Notified};

use super::S3Server;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Buckets whose connections are kept.
const MOST_BUCKETS: usize = 16;
/// What the original says of such objects.
const CONTENT_TYPE: &str = "text/plain";

/// The server.
#[derive(Debug)]
pub(crate) struct OutputStore {
    server: S3Server,
    /// By bucket and region: each has connections that are used again.
    buckets: Mutex<BTreeMap<(String, String), OutputBucket>>,
    changed: Notify,
}

/// One of its buckets.
#[derive(Debug, Clone)]
pub(crate) struct OutputBucket {
    client: AmazonS3,
    /// The bucket's own.
    url: String,
}

impl OutputStore {
    /// Nothing is asked of the server yet.
    pub(crate) fn new(server: S3Server) -> Self {
        Self {
            server,
            buckets: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// A bucket, in the owner's region unless it is said to be in another.
    ///
    /// # Errors
    /// The settings make no client.
    pub(crate) fn bucket(&self, name: &str, region: Option<&str>) -> Result<OutputBucket, Error> {
        let region = region.unwrap_or(&self.server.region);
        let place = (name.to_owned(), region.to_owned());
        if let Some(bucket) = self.buckets().get(&place) {
            return Ok(bucket.clone());
        }
        let client = self.server.bucket(name, region, REQUEST_TIMEOUT, |options| {
            options.with_default_content_type(CONTENT_TYPE)
        })?;
        let url = match &self.server.endpoint {
            Some(endpoint) => format!("{endpoint}/{name}"),
            None => format!("https://s3.{region}.amazonaws.com/{name}"),
        };
        let bucket = OutputBucket { client, url };
        let mut buckets = self.buckets();
        if buckets.len() >= MOST_BUCKETS {
            // any: each can be made again
            buckets.pop_first();
        }
        buckets.insert(place, bucket.clone());
        Ok(bucket)
    }

    fn buckets(&self) -> MutexGuard<'_, BTreeMap<(String, String), OutputBucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There may be output to be brought there.
    pub(crate) fn has_work(&self) {
        self.changed.notify_one();
    }

    /// Ends when there may be work since the last call.
    pub(crate) fn work(&self) -> Notified<'_> {
        self.changed.notified()
    }
}

impl OutputBucket {
    /// Where an object is, as the API tells it.
    pub(crate) fn url_of(&self, key: &str) -> String {
        let mut url = format!("{}/", self.url);
        for byte in key.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                    url.push(char::from(byte));
                }
                // Writing into a String cannot fail.
                other => write!(url, "%{other:02X}").unwrap_or_default(),
            }
        }
        url
    }

    pub(crate) async fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), Error> {
        self.client
            .put(&Key::parse(key)?, PutPayload::from(bytes))
            .await?;
        Ok(())
    }

    /// Begins an object that is brought in parts; the id of its upload.
    pub(crate) async fn begin(&self, key: &str) -> Result<String, Error> {
        self.client.create_multipart(&Key::parse(key)?).await
    }

    /// A part, counted from 0; its entity tag.
    pub(crate) async fn put_part(
        &self,
        key: &str,
        upload: &str,
        part: usize,
        bytes: Vec<u8>,
    ) -> Result<String, Error> {
        let (key, upload) = (Key::parse(key)?, upload.to_owned());
        let payload = PutPayload::from(bytes);
        Ok(self
            .client
            .put_part(&key, &upload, part, payload)
            .await?
            .content_id)
    }

    pub(crate) async fn complete(&self, key: &str, upload: &str, parts: &[String]) -> Result<(), Error> {
        let (key, upload) = (Key::parse(key)?, upload.to_owned());
        let parts = parts.iter().map(|tag| PartId {
            content_id: tag.clone(),
        });
        self.client
            .complete_multipart(&key, &upload, parts.collect())
            .await?;
        Ok(())
    }

    /// The parts of an upload that is given up go.
    pub(crate) async fn abort(&self, key: &str, upload: &str) -> Result<(), Error> {
        self.client
            .abort_multipart(&Key::parse(key)?, &upload.to_owned())
            .await
    }
}
