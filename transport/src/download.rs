//! Downloads of any size from any host: GET, with redirects, the body piece by piece.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use crate::{
    Endpoint, EndpointError, HttpError, Trust,
    dial::{dial, dial_plain},
};

/// Redirects that are followed.
const MOST_REDIRECTS: usize = 5;
/// A server that sends nothing for this long is given up.
const STALL: Duration = Duration::from_secs(60);
/// hyper's read buffer of the connection.
const BUFFER_BYTES: usize = 64 * 1024;

/// Why there is no whole file.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error("the URL cannot be used")]
    Url(#[from] EndpointError),
    #[error("{0} is not encrypted, and insecure downloads are not allowed")]
    Insecure(String),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("Failed to download file: Status: {0}")]
    Status(u16),
    #[error("more than {MOST_REDIRECTS} redirects, or one that leads nowhere")]
    Redirects,
    #[error("the file is larger than {0} bytes")]
    TooLarge(u64),
    #[error("the server sent nothing for {} s", STALL.as_secs())]
    Stalled,
    #[error("it has taken {} s, and is not at its end", .0.as_secs())]
    TooLong(Duration),
    #[error("the server sent {0} of {1} bytes")]
    Short(u64, u64),
    #[error("the file changed while it was downloaded")]
    Changed,
    #[error("failed to write what was downloaded")]
    Write(#[source] std::io::Error),
}

/// What to download, and within which bounds.
#[derive(Debug, Clone, Copy)]
pub struct Download<'a> {
    /// `https://…`, or `http://…` if that is allowed.
    pub url: &'a str,
    /// Further headers, for this scheme, host and port only: a redirect elsewhere goes without them.
    pub headers: &'a [(String, String)],
    /// Whether a URL or a redirect may lead over an unencrypted connection.
    pub allow_insecure: bool,
    pub max_bytes: u64,
}

/// How far a download has come: what another attempt needs to go on behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that were written.
    pub written: u64,
    /// What the server calls the state of the file, byte for byte. Without it, parts may be of different states.
    etag: Option<String>,
}

impl DownloadError {
    /// Whether another attempt may succeed, which goes on where this one ended.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Http(_) | Self::Stalled | Self::Short(..) => true,
            Self::Status(status) => *status >= 500 || *status == 429,
            Self::Url(_)
            | Self::Insecure(_)
            | Self::Redirects
            | Self::TooLarge(_)
            | Self::TooLong(_)
            | Self::Changed
            | Self::Write(_) => false,
        }
    }
}

impl Download<'_> {
    /// Gives the file to `write`, piece by piece, each with its place in the file: from where `progress` stands, or
    /// from the begin again where the server does not say which state of the file it has. In the end the file has as
    /// many bytes as `progress` says; what was written behind that is of an earlier attempt.
    ///
    /// # Errors
    /// There is no whole file: unless an attempt that goes on succeeds, what `write` has got is to be thrown away.
    pub async fn run(
        &self,
        trust: &Trust,
        progress: &mut Progress,
        mut write: impl FnMut(u64, &[u8]) -> std::io::Result<()>,
    ) -> Result<(), DownloadError> {
        if progress.etag.is_none() {
            progress.written = 0;
        }
        let mut url = self.url.to_owned();
        let first = origin(&url);
        for _ in 0..=MOST_REDIRECTS {
            let headers = match origin(&url) == first {
                true => self.headers,
                false => &[],
            };
            let response = self.get(&url, headers, progress, trust).await?;
            match response.status().as_u16() {
                status @ (200 | 206) => {
                    let etag = strong_etag(response.headers());
                    if progress.written == 0 {
                        progress.etag = etag;
                    } else if etag != progress.etag {
                        return Err(DownloadError::Changed);
                    }
                    if status == 206 && !begins_at(response.headers(), progress.written) {
                        return Err(DownloadError::Changed);
                    }
                    let whole = length_of_whole(response.headers());
                    // A server need not send a part: then what is there already comes again.
                    let begin = if status == 206 { progress.written } else { 0 };
                    self.body(response.into_body(), begin, progress, &mut write)
                        .await?;
                    // Nor need a part be all that was asked for.
                    return match whole.filter(|whole| status == 206 && progress.written < *whole) {
                        Some(whole) => Err(DownloadError::Short(progress.written, whole)),
                        None => Ok(()),
                    };
                }
                412 => return Err(DownloadError::Changed),
                // There is nothing behind what is there, unless the file is another by now.
                416 if progress.written > 0 => {
                    let whole = length_of_whole(response.headers());
                    return match whole.is_none_or(|whole| whole == progress.written) {
                        true => Ok(()),
                        false => Err(DownloadError::Changed),
                    };
                }
                301 | 302 | 303 | 307 | 308 => {
                    let location = response.headers().get(http::header::LOCATION);
                    let location = location.and_then(|location| location.to_str().ok());
                    url = location
                        .and_then(|to| follow(&url, to))
                        .ok_or(DownloadError::Redirects)?;
                }
                status => return Err(DownloadError::Status(status)),
            }
        }
        Err(DownloadError::Redirects)
    }

    async fn get(
        &self,
        url: &str,
        headers: &[(String, String)],
        progress: &Progress,
        trust: &Trust,
    ) -> Result<http::Response<Incoming>, DownloadError> {
        let (endpoint, is_encrypted, path) = Endpoint::parse_download_url(url)?;
        if !is_encrypted && !self.allow_insecure {
            return Err(DownloadError::Insecure(without_query(url).to_owned()));
        }
        let mut request = http::Request::get(path).header("host", authority(url));
        for (name, value) in [("accept", "*/*"), ("user-agent", "moorline")] {
            request = request.header(name, value);
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if progress.written > 0 {
            request = request.header("range", format!("bytes={}-", progress.written));
            if let Some(etag) = &progress.etag {
                request = request.header("if-match", etag);
            }
        }
        let request = request.body(Empty::new()).map_err(HttpError::Malformed)?;
        if is_encrypted {
            let stream = dial(&endpoint, trust).await.map_err(HttpError::Dial)?;
            exchange(stream, request, &endpoint).await
        } else {
            let stream = dial_plain(&endpoint).await.map_err(HttpError::Dial)?;
            exchange(stream, request, &endpoint).await
        }
    }

    async fn body(
        &self,
        mut body: Incoming,
        begin: u64,
        progress: &mut Progress,
        write: &mut impl FnMut(u64, &[u8]) -> std::io::Result<()>,
    ) -> Result<(), DownloadError> {
        let mut position = begin;
        loop {
            let frame = timeout(STALL, body.frame())
                .await
                .map_err(|_| DownloadError::Stalled)?;
            let Some(frame) = frame else { return Ok(()) };
            let frame = frame.map_err(|source| HttpError::Broken {
                endpoint: without_query(self.url).to_owned(),
                source,
            })?;
            let Ok(bytes) = frame.into_data() else { continue };
            let end = position + bytes.len() as u64;
            if end > self.max_bytes {
                return Err(DownloadError::TooLarge(self.max_bytes));
            }
            let known = progress.written.saturating_sub(position);
            let known = usize::try_from(known).map_or(bytes.len(), |known| known.min(bytes.len()));
            write(position + known as u64, bytes.get(known..).unwrap_or_default())
                .map_err(DownloadError::Write)?;
            position = end;
            progress.written = progress.written.max(end);
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: http::Request<Empty<Bytes>>,
    endpoint: &Endpoint,
) -> Result<http::Response<Incoming>, DownloadError> {
    let broken = |source| HttpError::Broken {
        endpoint: endpoint.url(),
        source,
    };
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "download connection ended");
        }
    });
    let response = timeout(STALL, sender.send_request(request))
        .await
        .map_err(|_| DownloadError::Stalled)?;
    Ok(response.map_err(broken)?)
}

/// What the server calls the state of the file, if that means the same bytes (RFC 9110 §8.8.1).
fn strong_etag(headers: &http::HeaderMap) -> Option<String> {
    let etag = headers.get(http::header::ETAG)?.to_str().ok()?;
    (!etag.starts_with("W/")).then(|| etag.to_owned())
}

/// Whether a part of a file is the one from `offset` on.
fn begins_at(headers: &http::HeaderMap, offset: u64) -> bool {
    let range = headers.get(http::header::CONTENT_RANGE);
    let range = range.and_then(|range| range.to_str().ok()).unwrap_or_default();
    range.starts_with(&format!("bytes {offset}-"))
}

/// How long the file is of which this is a part, where the server says so.
fn length_of_whole(headers: &http::HeaderMap) -> Option<u64> {
    let range = headers.get(http::header::CONTENT_RANGE)?.to_str().ok()?;
    let (_, whole) = range.rsplit_once('/')?;
    whole.trim().parse().ok()
}

/// A URL without its query, which may hold the signature of somebody's rights.
fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

fn authority(url: &str) -> String {
    let parsed = url.parse::<http::Uri>().ok();
    let authority = parsed.as_ref().and_then(http::Uri::authority);
    // A name and password before the host are for nobody.
    authority.map_or_else(String::new, |authority| {
        let text = authority.as_str();
        text.rsplit('@').next().unwrap_or(text).to_owned()
    })
}

/// Whom a URL speaks to, and how: what is meant for one is for no other.
fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri: http::Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let usual_port = if scheme == "https" { 443 } else { 80 };
    let port = uri.port_u16().unwrap_or(usual_port);
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

/// Where a redirect leads: to another URL, or to a path of the same host.
fn follow(from: &str, to: &str) -> Option<String> {
    if to.starts_with("https://") || to.starts_with("http://") {
        return Some(to.to_owned());
    }
    // Another scheme leads to no file of a web server.
    if to.split('/').next().is_some_and(|first| first.contains(':')) {
        return None;
    }
    let uri: http::Uri = from.parse().ok()?;
    let scheme = uri.scheme_str()?;
    if let Some(rest) = to.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    let base = match to.starts_with('/') {
        true => "",
        false => uri.path().rsplit_once('/').map_or("", |(folder, _)| folder),
    };
    let to = to.strip_prefix('/').unwrap_or(to);
    Some(format!("{scheme}://{}{base}/{to}", authority(from)))
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// A request without a body, which gets this answer.
    async fn answer(mut socket: impl AsyncRead + AsyncWrite + Unpin, answer: &str) -> String {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(socket.read_u8().await.unwrap());
        }
        socket.write_all(answer.as_bytes()).await.unwrap();
        socket.flush().await.unwrap();
        String::from_utf8(request).unwrap()
    }

    #[tokio::test]
    async fn a_secret_does_not_follow_a_redirect_to_the_same_host_without_tls() {
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap();
        let serve = async {
            let (socket, _) = listener.accept().await.unwrap();
            let redirect =
                format!("HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://{place}/b\r\n\r\n");
            let first = answer(acceptor.accept(socket).await.unwrap(), &redirect).await;
            let (socket, _) = listener.accept().await.unwrap();
            let second = answer(socket, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            (first, second)
        };
        let download = Download {
            url: &format!("https://{place}/a"),
            headers: &[("authorization".to_owned(), "Basic secret".to_owned())],
            allow_insecure: true,
            max_bytes: 10,
        };
        let trust = Trust::ca_pem(own.cert.pem().as_bytes(), Path::new("its own")).unwrap();
        let mut progress = Progress::default();
        let (downloaded, (first, second)) =
            tokio::join!(download.run(&trust, &mut progress, |_, _| Ok(())), serve);
        downloaded.unwrap();
        assert!(first.contains("secret"), "{first}");
        assert!(!second.contains("secret"), "{second}");
    }

    #[test]
    fn a_redirect_leads_to_a_url_or_to_a_path() {
        let from = "https://u:p@h.example:8443/a/b?c=d";
        let table = [
            ("https://other/x", "https://other/x"),
            ("http://other/x", "http://other/x"),
            ("//other/x", "https://other/x"),
            ("/x?y", "https://h.example:8443/x?y"),
            ("x", "https://h.example:8443/a/x"),
        ];
        for (to, expected) in table {
            assert_eq!(follow(from, to).as_deref(), Some(expected), "{to}");
        }
        assert_eq!(follow(from, "ftp://other/x"), None);
    }

    #[test]
    fn only_the_same_scheme_host_and_port_are_the_same_place() {
        let from = origin("https://u:p@Host.example/a");
        for same in ["https://host.example/b?c", "https://host.EXAMPLE:443/"] {
            assert_eq!(origin(same), from, "{same}");
        }
        for other in [
            "http://host.example/a",
            "http://host.example:443/a",
            "https://host.example:8443/a",
            "https://host.example.org/a",
            "https://www.host.example/a",
        ] {
            assert_ne!(origin(other), from, "{other}");
        }
    }

    #[test]
    fn an_error_does_not_tell_the_query() {
        assert_eq!(without_query("https://h/a?X-Amz-Signature=secret"), "https://h/a");
    }
}
