//! Downloads of large files over networks that break: an attempt goes on where the last one ended, if the server says
//! that the file is still the same, byte for byte. A server that sends little at a time, and has no end, is left.

use std::{fs::File, os::unix::fs::FileExt as _, time::Duration};

use moorline_transport::{Download, DownloadError, Progress, Trust};

use super::room;
use crate::runtime::{Backoff, random_u32};

/// A download with all its attempts (docs/documents.md).
pub(super) const MOST_TIME: Duration = Duration::from_hours(12);
/// Attempts in a row that bring nothing worth an attempt, until it is given up.
const ATTEMPTS: u32 = 6;
/// An attempt that brings less and does not end the file has brought nothing.
const FAIR_BYTES: u64 = 16 * 1024;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// What is asked for, for as often as it takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) url: &'a str,
    pub(super) allow_insecure: bool,
    pub(super) max_bytes: u64,
    /// Bytes of other files that the same download has brought.
    pub(super) before: u64,
}

/// Writes the file, and returns its length. `headers` are made anew for each attempt: signatures grow old.
///
/// # Errors
/// There is no whole file; what was written is to be thrown away.
pub(super) async fn download(
    source: &Source<'_>,
    trust: &Trust,
    headers: impl Fn() -> Vec<(String, String)>,
    file: &File,
) -> Result<u64, DownloadError> {
    within(MOST_TIME, attempts(source, trust, headers, file)).await
}

/// What a server sends may have an end or not: this has one.
pub(super) async fn within<T>(
    time: Duration,
    work: impl Future<Output = Result<T, DownloadError>>,
) -> Result<T, DownloadError> {
    tokio::time::timeout(time, work)
        .await
        .unwrap_or(Err(DownloadError::TooLong(time)))
}

async fn attempts(
    source: &Source<'_>,
    trust: &Trust,
    headers: impl Fn() -> Vec<(String, String)>,
    file: &File,
) -> Result<u64, DownloadError> {
    let mut progress = Progress::default();
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut fruitless = 0;
    let mut furthest = 0;
    loop {
        let headers = headers();
        let attempt = Download {
            url: source.url,
            headers: &headers,
            allow_insecure: source.allow_insecure,
            max_bytes: source.max_bytes,
        };
        let write = |position, bytes: &[u8]| {
            room::check_disk(file, source.before + position)?;
            file.write_all_at(bytes, position)
        };
        let result = attempt.run(trust, &mut progress, write).await;
        match result {
            Ok(()) => {
                file.set_len(progress.written).map_err(DownloadError::Write)?;
                return Ok(progress.written);
            }
            Err(error) if error.is_passing() => {
                if progress.written >= furthest + FAIR_BYTES {
                    fruitless = 0;
                    backoff.reset();
                }
                furthest = furthest.max(progress.written);
                fruitless += 1;
                if fruitless >= ATTEMPTS {
                    return Err(error);
                }
                tracing::info!(%error, bytes = progress.written, "a download broke off and goes on");
                tokio::time::sleep(backoff.next(random_u32())).await;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, SeekFrom};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// A server that answers one connection after the other with these bytes, whatever is asked, and hangs up. Gives
    /// its URL, and in the end what it was asked.
    async fn serve(answers: Vec<String>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(socket.read_u8().await.unwrap());
                }
                requests.push(String::from_utf8(request).unwrap());
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
            requests
        });
        (url, served)
    }

    /// The head of an answer, and its body, which may be shorter than was announced.
    fn answer(status: &str, headers: &str, length: usize, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
    }

    #[tokio::test]
    async fn a_server_that_sends_a_byte_at_a_time_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let drips = async |is_for_ever: bool| {
            let mut sent = 0;
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                while socket.read_u8().await.unwrap() != b'\n' || socket.read_u8().await.unwrap() != b'\r' {}
                let range = format!("ETag: \"1\"\r\nContent-Range: bytes {sent}-9999/10000\r\n");
                let head = answer("206 Part", &range, 10_000 - sent, "x");
                let mut drip = socket.write_all(head.as_bytes()).await;
                sent += 1;
                while is_for_ever && drip.is_ok() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    drip = socket.write_all(b"x").await;
                }
                assert!(sent <= 2 * ATTEMPTS as usize, "it has no end");
            }
        };
        let source = Source {
            url: &url,
            allow_insecure: true,
            max_bytes: 10_000,
            before: 0,
        };
        let trust = Trust::system().unwrap();
        let file = tempfile::tempfile().unwrap();
        let byte_by_byte = tokio::select! {
            never = drips(false) => never,
            ended = attempts(&source, &trust, Vec::new, &file) => ended,
        };
        assert!(
            matches!(byte_by_byte, Err(DownloadError::Http(_))),
            "{byte_by_byte:?}"
        );
        let time = Duration::from_millis(300);
        let in_one_attempt = tokio::select! {
            never = drips(true) => never,
            ended = within(time, attempts(&source, &trust, Vec::new, &file)) => ended,
        };
        let has_ended = matches!(in_one_attempt, Err(DownloadError::TooLong(limit)) if limit == time);
        assert!(has_ended, "{in_one_attempt:?}");
    }

    async fn get(answers: Vec<String>) -> (Result<String, DownloadError>, Vec<String>) {
        let (url, served) = serve(answers).await;
        let source = Source {
            url: &url,
            allow_insecure: true,
            max_bytes: 100,
            before: 0,
        };
        let mut file = tempfile::tempfile().unwrap();
        let trust = Trust::system().unwrap();
        let result = download(&source, &trust, Vec::new, &file).await;
        let patience = Duration::from_secs(20);
        let served = tokio::time::timeout(patience, served).await;
        let requests = served.expect("it is asked as often as it can answer").unwrap();
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut text).unwrap();
        (result.map(|_| text), requests)
    }

    #[tokio::test]
    async fn a_download_that_breaks_off_goes_on_where_it_stood() {
        let (text, requests) = get(vec![
            answer("200 OK", "ETag: \"1\"\r\n", 10, "01234"),
            answer("503 Busy", "", 0, ""),
            answer(
                "206 Part",
                "ETag: \"1\"\r\nContent-Range: bytes 5-9/10\r\n",
                5,
                "567",
            ),
            answer(
                "206 Part",
                "ETag: \"1\"\r\nContent-Range: bytes 8-9/10\r\n",
                2,
                "89",
            ),
        ])
        .await;
        assert_eq!(text.unwrap(), "0123456789");
        assert!(!requests[0].contains("range"), "{requests:?}");
        for (request, begin) in requests[1..].iter().zip([5, 5, 8]) {
            assert!(
                request.contains(&format!("range: bytes={begin}-\r\n")),
                "{requests:?}"
            );
            assert!(request.contains("if-match: \"1\"\r\n"), "{requests:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_sends_everything_again_makes_the_same_file() {
        let (text, _) = get(vec![
            answer("200 OK", "", 10, "01234"),
            answer("200 OK", "", 10, "0123456789"),
        ])
        .await;
        assert_eq!(text.unwrap(), "0123456789");
    }

    #[tokio::test]
    async fn a_part_is_not_taken_for_the_whole() {
        let part = |range: &str, body: &str| {
            let headers = format!("ETag: \"1\"\r\nContent-Range: bytes {range}\r\n");
            answer("206 Part", &headers, body.len(), body)
        };
        // A server may send less than it was asked for, also of what it was not asked to part.
        let (text, requests) = get(vec![
            part("0-3/10", "0123"),
            part("4-5/10", "45"),
            part("6-9/10", "6789"),
        ])
        .await;
        assert_eq!(text.unwrap(), "0123456789");
        assert!(requests[2].contains("range: bytes=6-\r\n"), "{requests:?}");
        let begin = || answer("200 OK", "ETag: \"1\"\r\n", 10, "01234");
        let shrunk = answer("416 Beyond", "Content-Range: bytes */3\r\n", 0, "");
        let (result, _) = get(vec![begin(), shrunk]).await;
        assert!(matches!(result, Err(DownloadError::Changed)), "{result:?}");
        let all = answer("416 Beyond", "Content-Range: bytes */5\r\n", 0, "");
        let (text, _) = get(vec![begin(), all]).await;
        assert_eq!(text.unwrap(), "01234");
    }

    #[tokio::test]
    async fn a_file_whose_state_the_server_does_not_name_is_got_from_its_begin_again() {
        for state in [
            "",
            "ETag: W/\"1\"\r\n",
            "Last-Modified: Fri, 27 Nov 2026 11:00:00 GMT\r\n",
        ] {
            let (text, requests) = get(vec![
                answer("200 OK", state, 30, "an older version of it"),
                answer("200 OK", state, 10, "0123456789"),
            ])
            .await;
            assert_eq!(text.unwrap(), "0123456789", "{state}");
            assert!(!requests[1].contains("range"), "{requests:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_never_comes_further_is_left() {
        let fair = "x".repeat(17 * 1024);
        let answers = (0..ATTEMPTS).map(|_| answer("200 OK", "", 20 * 1024, &fair));
        let (url, served) = serve(answers.collect()).await;
        let source = Source {
            url: &url,
            allow_insecure: true,
            max_bytes: 20 * 1024,
            before: 0,
        };
        let file = tempfile::tempfile().unwrap();
        let ended = download(&source, &Trust::system().unwrap(), Vec::new, &file).await;
        assert!(matches!(ended, Err(DownloadError::Http(_))), "{ended:?}");
        assert_eq!(served.await.unwrap().len(), ATTEMPTS as usize);
    }

    #[tokio::test]
    async fn a_file_that_has_changed_is_no_file() {
        let first = || answer("200 OK", "ETag: \"1\"\r\n", 10, "01234");
        for second in [
            answer("412 Changed", "", 0, ""),
            answer(
                "206 Part",
                "ETag: \"2\"\r\nContent-Range: bytes 5-9/10\r\n",
                5,
                "56789",
            ),
            answer("200 OK", "ETag: \"2\"\r\n", 10, "0123456789"),
            answer(
                "206 Part",
                "ETag: \"1\"\r\nContent-Range: bytes 4-9/10\r\n",
                6,
                "456789",
            ),
        ] {
            let (result, _) = get(vec![first(), second.clone()]).await;
            assert!(
                matches!(result, Err(DownloadError::Changed)),
                "{second}: {result:?}"
            );
        }
    }

    #[tokio::test]
    async fn what_is_refused_or_too_large_is_not_tried_again() {
        let (result, _) = get(vec![answer("404 Not Found", "", 0, "")]).await;
        assert!(matches!(result, Err(DownloadError::Status(404))), "{result:?}");
        let (result, _) = get(vec![answer("200 OK", "", 200, &"x".repeat(200))]).await;
        assert!(matches!(result, Err(DownloadError::TooLarge(100))), "{result:?}");
    }
}
