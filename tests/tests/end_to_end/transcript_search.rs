//! A text is looked for in recordings that are longer than one call may read.

use std::{fs::OpenOptions, io::Write as _};

use anyhow::{Result, ensure};
use moorline_tests::{Site, wait_until};
use serde_json::{Value, json};

const MIB: usize = 1024 * 1024;
/// More than any machine reads within the time of a call, debug or not.
const MOST_BYTES: usize = 4096 * MIB;

/// Starts a command that prints this and goes on; the name of its recording.
async fn recorded(site: &Site, text: &str) -> Result<String> {
    let command = site.send(&format!("echo {text}; sleep 1000")).await?;
    let recording = format!("{command}.{}", site.node.id());
    let cast = site
        .endpoint
        .state_dir()
        .join(format!("transcripts/{recording}.cast"));
    wait_until("the output to arrive", async || {
        Ok(std::fs::read_to_string(&cast).is_ok_and(|cast| cast.contains(&format!("\"o\",\"{text}"))))
    })
    .await?;
    Ok(recording)
}

/// Adds output without the text to the recording, at the endpoint.
fn prolong(site: &Site, recording: &str, bytes: usize) -> Result<()> {
    let cast = site
        .endpoint
        .state_dir()
        .join(format!("transcripts/{recording}.cast"));
    let line = format!("[9.000000,\"o\",\"{}\"]\n", "hay ".repeat(250));
    let piece = line.repeat(MIB / line.len());
    let mut file = OpenOptions::new().append(true).open(cast)?;
    for _ in 0..bytes / MIB {
        file.write_all(piece.as_bytes())?;
    }
    Ok(())
}

/// All that is found, page by page, and how many pages before the last found nothing.
async fn search(site: &Site, text: &str) -> Result<(Vec<String>, usize)> {
    let mut found = Vec::new();
    let mut empty = 0;
    let mut token = Value::Null;
    loop {
        let mut request = json!({"Contains": text});
        if !token.is_null() {
            request["NextToken"] = token;
        }
        let body = request.to_string().into_bytes();
        let answer = site.api().post("Moorline.ListTranscripts", body).await?;
        ensure!(answer.status == 200, "{answer:?}");
        let page: Value = serde_json::from_slice(&answer.body)?;
        let names = page["Transcripts"].as_array().into_iter().flatten();
        let before = found.len();
        found.extend(names.filter_map(|one| one["SessionId"].as_str().map(str::to_owned)));
        token = page["NextToken"].clone();
        if token.is_null() {
            return Ok((found, empty));
        }
        empty += usize::from(found.len() == before);
    }
}

#[tokio::test]
async fn a_search_that_pauses_inside_a_recording_goes_on_by_its_token_and_finds_all() -> Result<()> {
    let mut site = Site::start().await?;
    let older = recorded(&site, "needle-1").await?;
    let long = recorded(&site, "straw").await?;
    let newer = recorded(&site, "needle-2").await?;
    // it would find that the endpoint has more than it sent
    site.node.kill_daemon().await?;
    let expected = [newer.clone(), older.clone()];
    let (found, _) = search(&site, "NEEDLE-").await?;
    ensure!(found == expected, "{found:?}");
    let (mut length, mut step) = (0, 32 * MIB);
    loop {
        prolong(&site, &long, step)?;
        (length, step) = (length + step, length + step);
        let (found, empty) = search(&site, "NEEDLE-").await?;
        ensure!(found == expected, "{found:?}");
        if empty > 0 {
            break;
        }
        ensure!(length < MOST_BYTES, "no search ever pauses");
    }
    // twice as long, so that a search that finds it in memory pauses as well
    prolong(&site, &long, length)?;
    // what stands behind the place where it paused is found, and once
    let cast = site.endpoint.state_dir().join(format!("transcripts/{long}.cast"));
    let end = "[9.000000,\"o\",\"nee\"]\n[9.000000,\"o\",\"\\u001b[1mdle-3\\r\\n\"]\n";
    OpenOptions::new()
        .append(true)
        .open(cast)?
        .write_all(end.as_bytes())?;
    let (found, empty) = search(&site, "NEEDLE-").await?;
    ensure!(
        found == [newer, long, older] && empty > 0,
        "{found:?}, {empty} empty pages"
    );
    let listed = site
        .cli()
        .run(&["transcript", "list", "--contains", "needle-", "--json"])
        .await?;
    let listed = listed.success()?.json()?;
    ensure!(listed.as_array().is_some_and(|all| all.len() == 3), "{listed}");
    Ok(())
}
