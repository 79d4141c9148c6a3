//! Downloads of large files over networks that break: an attempt goes on where the last one ended.

use std::{fs::File, io::Write as _, time::Duration};

use moorline_transport::{Download, DownloadError, Progress, Trust};

use crate::runtime::{Backoff, random_u32};

/// Attempts in a row that bring nothing, until it is given up.
const ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// What is asked for, for as often as it takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) url: &'a str,
    pub(super) allow_insecure: bool,
    pub(super) max_bytes: u64,
}

/// Writes the file, and returns its length. `headers` are made anew for each attempt: signatures grow old.
///
/// # Errors
/// There is no whole file; what was written is to be thrown away.
pub(super) async fn download(
    source: &Source<'_>,
    trust: &Trust,
    headers: impl Fn() -> Vec<(String, String)>,
    file: &mut File,
) -> Result<u64, DownloadError> {
    let mut progress = Progress::default();
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut fruitless = 0;
    loop {
        let before = progress.written;
        let headers = headers();
        let attempt = Download {
            url: source.url,
            headers: &headers,
            allow_insecure: source.allow_insecure,
            max_bytes: source.max_bytes,
        };
        let result = attempt
            .run(trust, &mut progress, |bytes| file.write_all(bytes))
            .await;
        match result {
            Ok(()) => return Ok(progress.written),
            Err(error) if error.is_passing() => {
                if progress.written > before {
                    fruitless = 0;
                    backoff.reset();
                }
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
