//! `GET /v1/attachments/TOKEN/NAME`: the bytes of an attachment, for whoever got the URL out of GetDocument.
//!
//! A part of it can be asked for by `Range: bytes=N-`, with which a download that broke off goes on.

use std::{
    io::{self, SeekFrom},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use tokio::{
    fs::File,
    io::{AsyncRead as _, AsyncSeekExt as _, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep_until},
};

use crate::app::App;

/// Downloads at the same time; more are told to come back.
const MOST_DOWNLOADS: usize = 256;
/// For one download. Who reads more slowly goes on with another.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// What is read from the disk at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Before the path's token.
pub(super) const PATH: &str = "/v1/attachments/";

/// The body of an answer: in memory, or of a file.
#[derive(Debug)]
pub(crate) enum ReplyBody {
    Whole(Full<Bytes>),
    File(Box<FileBody>),
}

impl From<Full<Bytes>> for ReplyBody {
    fn from(body: Full<Bytes>) -> Self {
        Self::Whole(body)
    }
}

/// A file, or its end, read as its reader takes it.
#[derive(Debug)]
pub(crate) struct FileBody {
    file: File,
    left: u64,
    deadline: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

/// Answers such requests.
#[derive(Debug)]
pub(super) struct Attachments {
    places: Arc<Semaphore>,
}

impl Default for Attachments {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(MOST_DOWNLOADS)),
        }
    }
}

impl Attachments {
    /// `path` begins with [`PATH`].
    pub(super) async fn answer(&self, app: &App, path: &str, headers: &HeaderMap) -> Response<ReplyBody> {
        let token = path.strip_prefix(PATH).and_then(|rest| rest.split('/').next());
        let sha256 = token.and_then(|token| app.keys.open_attachment_token(token, app.clock.unix_millis()));
        let Some(sha256) = sha256 else {
            let text = "this URL leads to no attachment, or is too old; get a new one with GetDocument\n";
            return plain(StatusCode::FORBIDDEN, text);
        };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "too many downloads; try again\n");
        };
        match open(app, &sha256).await {
            Ok((file, size)) => {
                let mut response = body(file, size, headers, place).await;
                // With it a download goes on behind what it has: whatever has this sum is these bytes.
                if let Ok(etag) = HeaderValue::from_str(&format!("\"{sha256}\"")) {
                    response.headers_mut().insert(header::ETAG, etag);
                }
                response
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                plain(StatusCode::NOT_FOUND, "the attachment is not there any more\n")
            }
            Err(error) => failed(&error),
        }
    }
}

async fn open(app: &App, sha256: &str) -> io::Result<(File, u64)> {
    let file = File::open(app.attachments.path_of(sha256)).await?;
    let size = file.metadata().await?.len();
    Ok((file, size))
}

async fn body(
    mut file: File,
    size: u64,
    headers: &HeaderMap,
    place: OwnedSemaphorePermit,
) -> Response<ReplyBody> {
    let begin = match range_begin(headers) {
        None => 0,
        Some(begin) if begin < size => begin,
        Some(_) => {
            return plain(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "the attachment ends before that\n",
            );
        }
    };
    if let Err(error) = file.seek(SeekFrom::Start(begin)).await {
        return failed(&error);
    }
    file.set_max_buf_size(PIECE_BYTES);
    let mut response = Response::new(ReplyBody::File(Box::new(FileBody {
        file,
        left: size - begin,
        deadline: Box::pin(sleep_until(Instant::now() + DOWNLOAD_TIMEOUT)),
        _place: place,
    })));
    let headers = response.headers_mut();
    let content_type = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if begin > 0 {
        let range = format!("bytes {begin}-{}/{size}", size - 1);
        let range = HeaderValue::from_str(&range).expect("numbers are visible ASCII");
        headers.insert(header::CONTENT_RANGE, range);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

/// N of `bytes=N-`; other forms may be ignored (RFC 9110 §14.2).
fn range_begin(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

fn failed(error: &io::Error) -> Response<ReplyBody> {
    tracing::error!(%error, "failed to read an attachment");
    plain(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the attachment cannot be read; see the endpoint's log\n",
    )
}

fn plain(status: StatusCode, text: &'static str) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Whole(Full::from(text)));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

impl FileBody {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        }
        let most = usize::try_from(self.left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let mut piece = BytesMut::zeroed(most);
        let mut buffer = ReadBuf::new(&mut piece);
        if let Err(error) = ready!(Pin::new(&mut self.file).poll_read(cx, &mut buffer)) {
            return Poll::Ready(Some(Err(error)));
        }
        let count = buffer.filled().len();
        if count == 0 {
            // Whoever waits for the rest must not take it for whole.
            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
        }
        piece.truncate(count);
        self.left -= count as u64;
        Poll::Ready(Some(Ok(Frame::data(piece.freeze()))))
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            Self::File(body) => body.poll_piece(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::File(body) => body.left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::File(body) => SizeHint::with_exact(body.left),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::{auth::ATTACHMENT_URL_LIFETIME_MILLIS, store::Upload, test_support::TestApp};

    const SUM: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    async fn put(app: &App) {
        let upload = Upload {
            by: "me",
            sha256: SUM,
            size: 3,
        };
        app.attachments.put(upload, 0, "abc".into()).await.unwrap();
    }

    async fn get(
        attachments: &Attachments,
        app: &App,
        path: &str,
        range: Option<&'static str>,
    ) -> (u16, Bytes) {
        let mut headers = HeaderMap::new();
        if let Some(range) = range {
            headers.insert(header::RANGE, HeaderValue::from_static(range));
        }
        let response = attachments.answer(app, path, &headers).await;
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn a_url_leads_to_the_bytes_or_to_their_end_while_it_is_young() {
        let test = TestApp::new().await;
        let app = &test.app;
        put(app).await;
        let attachments = Attachments::default();
        let token = app.keys.attachment_token(SUM, app.clock.unix_millis());
        let path = format!("{PATH}{token}/x.zip");
        let got = async |path: &str, range| get(&attachments, app, path, range).await;
        assert_eq!(got(&path, None).await, (200, Bytes::from("abc")));
        assert_eq!(got(&path, Some("bytes=2-")).await, (206, Bytes::from("c")));
        assert_eq!(got(&path, Some("bytes=3-")).await.0, 416);
        assert_eq!(got(&path, Some("bytes=-2")).await, (200, Bytes::from("abc")));
        for other in [
            PATH.to_owned(),
            format!("{PATH}{SUM}/x.zip"),
            format!("{PATH}{SUM}"),
        ] {
            assert_eq!(got(&other, None).await.0, 403, "{other}");
        }
        test.advance_millis(ATTACHMENT_URL_LIFETIME_MILLIS);
        assert_eq!(got(&path, None).await.0, 403);
    }

    #[tokio::test]
    async fn a_part_says_of_which_bytes_it_is_one() {
        let test = TestApp::new().await;
        let app = &test.app;
        put(app).await;
        let token = app.keys.attachment_token(SUM, app.clock.unix_millis());
        let path = format!("{PATH}{token}/x.zip");
        for range in ["bytes=0-", "bytes=2-"] {
            let headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static(range))]);
            let response = Attachments::default().answer(app, &path, &headers).await;
            assert_eq!(response.headers()[header::ETAG], format!("\"{SUM}\""), "{range}");
        }
    }

    #[tokio::test]
    async fn more_downloads_than_there_is_room_for_are_told_to_come_back() {
        let test = TestApp::new().await;
        let app = &test.app;
        put(app).await;
        let attachments = Attachments {
            places: Arc::new(Semaphore::new(1)),
        };
        let token = app.keys.attachment_token(SUM, app.clock.unix_millis());
        let path = format!("{PATH}{token}/x.zip");
        let headers = HeaderMap::new();
        let first = attachments.answer(app, &path, &headers).await;
        assert_eq!(get(&attachments, app, &path, None).await.0, 503);
        drop(first);
        assert_eq!(get(&attachments, app, &path, None).await.0, 200);
    }
}
