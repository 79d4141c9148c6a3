//! Objects of S3, or of a server that speaks as S3 does: one, or all below a folder.
//!
//! [`place`] reads what a document calls them, [`listing`] what the server says is there; here they are got. The
//! node's owner says in `agent.toml` which server and as whom; without, it is Amazon's, and nobody.

mod credentials;
mod listing;
mod place;

use std::{
    ffi::OsStr,
    path::{Component, Path, PathBuf},
};

use moorline_protocol::{
    error_chain,
    sigv4::{self, Credentials, SignableRequest, SigningScope},
};
use moorline_transport::{Download, DownloadError, Progress, Trust, unix_millis};

use self::{listing::Listing, place::Place};
use super::{
    super::{
        resumable::{self, Source},
        room::MOST_BYTES,
    },
    Destination,
    folder::Folder,
};
use crate::config::S3Config;

/// Objects of a folder.
const MAX_OBJECTS: usize = 10_000;
/// Pages of a folder's list. A server may leave pages short, or empty, but not for ever.
const MAX_PAGES: usize = 1000;
/// Of SHA-256 of nothing: a GET has no body.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What to get, from where and as whom.
#[derive(Debug)]
pub(super) struct Objects {
    place: Place,
    server: Server,
}

#[derive(Debug)]
struct Server {
    /// Of a bucket, without a slash at its end.
    url: String,
    region: String,
    credentials: Option<Credentials>,
    /// The owner's own server may be one without TLS.
    is_insecure: bool,
}

impl Objects {
    pub(super) fn read(path: &str, config: &S3Config, node_region: &str) -> Result<Self, String> {
        if path.is_empty() {
            return Err("S3 source path in SourceInfo must be specified".to_owned());
        }
        let place = Place::parse(path, &config.endpoint)?;
        let region = [
            place.region.as_deref().unwrap_or_default(),
            &config.region,
            node_region,
        ]
        .into_iter()
        .find(|region| !region.is_empty())
        .unwrap_or("us-east-1")
        .to_owned();
        let url = match config.endpoint.trim_end_matches('/') {
            "" => place.amazon_url(&region),
            endpoint => format!("{endpoint}/{}", place.bucket),
        };
        let credentials = match config.credentials_file.as_str() {
            "" => None,
            file => Some(credentials::read(Path::new(file))?),
        };
        Ok(Self {
            place,
            server: Server {
                is_insecure: url.starts_with("http://"),
                url,
                region,
                credentials,
            },
        })
    }
}

/// Gets them, and says where they are.
pub(super) async fn download(objects: &Objects, destination: &Destination) -> Result<PathBuf, String> {
    tokio::time::timeout(resumable::MOST_TIME, get(objects, destination))
        .await
        .unwrap_or_else(|_| Err(error_chain(&DownloadError::TooLong(resumable::MOST_TIME))))
}

async fn get(objects: &Objects, destination: &Destination) -> Result<PathBuf, String> {
    let Objects { place, server } = objects;
    let trust = Trust::system().map_err(|error| error_chain(&error))?;
    let folder = match place.key.as_str() {
        "" => String::new(),
        key => format!("{}/", key.trim_end_matches('/')),
    };
    match server.list(&folder, &trust).await {
        Ok(listed) if !listed.is_empty() => server.get_all(&listed, &folder, destination, &trust).await,
        Ok(_) if folder.is_empty() || place.key.ends_with('/') => {
            Err(format!("there is nothing in s3://{}/{folder}", place.bucket))
        }
        // Who may not look what is there may still get one object (documents.md §2.3).
        Ok(_) | Err(ListError::Forbidden) => {
            let name = place.key.rsplit('/').next().unwrap_or_default();
            let (folder, name) = destination
                .file(OsStr::new(name))
                .map_err(unwritten(&destination.path))?;
            let size = server.get(&place.key, &folder, &name, MOST_BYTES, &trust).await?;
            tracing::debug!(size, key = place.key, "got an object");
            Ok(folder.path_of(&name))
        }
        Err(ListError::Other(reason)) => Err(reason),
    }
}

/// Why a folder was not listed.
enum ListError {
    Forbidden,
    Other(String),
}

impl Server {
    /// The objects below a folder, by their keys; what stands for folders is none.
    async fn list(&self, folder: &str, trust: &Trust) -> Result<Vec<String>, ListError> {
        let mut keys = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let mut url = format!(
                "{}?encoding-type=url&list-type=2&max-keys=500&prefix={}",
                self.url,
                place::encoded(folder, false)
            );
            if let Some(token) = &next {
                url.push_str("&continuation-token=");
                url.push_str(&place::encoded(token, false));
            }
            let page = self.page(&url, trust).await?;
            keys.extend(page.keys.into_iter().filter(|key| !key.ends_with('/')));
            if keys.len() > MAX_OBJECTS {
                return Err(ListError::Other(format!(
                    "there are more than {MAX_OBJECTS} objects in {folder}"
                )));
            }
            match page.next {
                // A server that says the same again would be listed for ever.
                Some(token) if Some(&token) != next.as_ref() => next = Some(token),
                _ => return Ok(keys),
            }
        }
        Err(ListError::Other(format!(
            "the server's list of {folder} has no end: {MAX_PAGES} pages have {} objects",
            keys.len()
        )))
    }

    async fn page(&self, url: &str, trust: &Trust) -> Result<Listing, ListError> {
        let mut text = Vec::new();
        let headers = self.headers(url);
        let download = Download {
            url,
            headers: &headers,
            allow_insecure: self.is_insecure,
            max_bytes: listing::MAX_BYTES,
        };
        let take = |_, bytes: &[u8]| {
            text.extend_from_slice(bytes);
            Ok(())
        };
        match download.run(trust, &mut Progress::default(), take).await {
            Ok(()) => {}
            Err(DownloadError::Status(403)) => return Err(ListError::Forbidden),
            Err(error) => return Err(ListError::Other(error_chain(&error))),
        }
        Listing::parse(&text).ok_or_else(|| ListError::Other("the server's list is not one of S3".to_owned()))
    }

    async fn get_all(
        &self,
        keys: &[String],
        folder: &str,
        destination: &Destination,
        trust: &Trust,
    ) -> Result<PathBuf, String> {
        let mut left = MOST_BYTES;
        for key in keys {
            let name = key.strip_prefix(folder).unwrap_or_default();
            let path = Path::new(name);
            let is_inside = !name.is_empty()
                && !name.contains('\0')
                && path.components().all(|part| matches!(part, Component::Normal(_)));
            if !is_inside {
                return Err(format!(
                    "the key {key:?} is no name of a file in a folder; nothing more is got"
                ));
            }
            let above = path.parent().unwrap_or_else(|| Path::new(""));
            let place = destination.folder().and_then(|folder| folder.below(above));
            let place = place.map_err(unwritten(&destination.path.join(path)))?;
            let name = path.file_name().unwrap_or_default();
            left -= self.get(key, &place, name, left, trust).await?;
        }
        Ok(destination.path.clone())
    }

    /// Gets one object, and says how large it is.
    async fn get(
        &self,
        key: &str,
        folder: &Folder,
        name: &OsStr,
        most: u64,
        trust: &Trust,
    ) -> Result<u64, String> {
        let path = folder.path_of(name);
        let new = folder.create(name).map_err(unwritten(&path))?;
        let url = format!("{}/{}", self.url, place::encoded(key, true));
        let source = Source {
            url: &url,
            allow_insecure: self.is_insecure,
            max_bytes: most,
            before: MOST_BYTES.saturating_sub(most),
        };
        let size = resumable::download(&source, trust, || self.headers(&url), &new.file)
            .await
            .map_err(|error| format!("{key}: {}", error_chain(&error)))?;
        new.finish().map_err(unwritten(&path))?;
        Ok(size)
    }

    /// The signature of a GET; none for nobody.
    fn headers(&self, url: &str) -> Vec<(String, String)> {
        let Some(credentials) = &self.credentials else {
            return Vec::new();
        };
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let host = rest.split('/').next().unwrap_or_default();
        let request = SignableRequest {
            method: "GET",
            uri: url,
            headers: &[("host", host), ("x-amz-content-sha256", EMPTY_SHA256)],
            body: b"",
        };
        let scope = SigningScope {
            region: &self.region,
            service: "s3",
            unix_millis: unix_millis(),
        };
        let mut headers = sigv4::sign(&request, &scope, credentials);
        headers.push(("x-amz-content-sha256".to_owned(), EMPTY_SHA256.to_owned()));
        headers
    }
}

fn unwritten(path: &Path) -> impl FnOnce(std::io::Error) -> String {
    let path = path.to_owned();
    move |error| format!("failed to write {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn a_list_that_turns_in_a_circle_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = S3Config {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            ..S3Config::default()
        };
        // Empty pages, and the next is never the one that was asked for.
        let turns = async {
            for page in 0.. {
                let (socket, _) = listener.accept().await.unwrap();
                let mut socket = BufReader::new(socket);
                let mut line = String::from("more");
                while !line.trim().is_empty() {
                    line.clear();
                    socket.read_line(&mut line).await.unwrap();
                }
                let body = format!(
                    "<ListBucketResult><IsTruncated>true</IsTruncated>\
                     <NextContinuationToken>{}</NextContinuationToken></ListBucketResult>",
                    page % 2
                );
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let objects = Objects::read("s3://bucket/folder/", &config, "").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let destination = Destination::new(dir.path(), "");
        let listed = tokio::select! {
            () = turns => unreachable!("it never ends by itself"),
            listed = tokio::time::timeout(Duration::from_secs(60), download(&objects, &destination)) => listed,
        };
        let refused = listed.expect("the list is left").unwrap_err();
        assert!(refused.contains("1000 pages"), "{refused}");
    }
}
