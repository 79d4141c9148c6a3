//! The machine of the endpoint loses its power: of recordings it has less afterwards than it said that it had, and the
//! nodes send that again.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use moorline_tests::{Endpoint, PATIENCE, Recording, Site, wait_for, wait_until};

/// A recording is synced a second after it began to be synced before, or later, and that may have taken a while itself.
const UNSYNCED: Duration = Duration::from_millis(600);
/// What is there beyond that when the power goes: some lines.
const LEAST_LOST: u64 = 400;
/// Counts until it is told to stop, slowly.
const COUNTING: &str =
    "i=0; while ! [ -e GO ]; do i=$((i+1)); echo n=$i; sleep 0.01; done; echo end-of-''count=$i";

/// Where the power cut leaves a recording.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// Behind a line.
    AfterLine,
    InsideLine,
}

fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |file| file.len())
}

/// Kills the endpoint and takes from the files of the one recording that grows what a power cut may take; starts it again.
async fn cut_power(endpoint: &mut Endpoint, cut: Cut) -> Result<()> {
    let cast = wait_for("a recording", PATIENCE, async || growing(endpoint)).await?;
    let signatures = cast.with_extension("signatures");
    loop {
        let signed = length(&signatures);
        // when it was not yet countersigned: how late that is seen is not known
        let mut begun = Instant::now();
        wait_until("the recording to be synced and countersigned", async || {
            let looked = Instant::now();
            let is_signed = length(&signatures) > signed;
            if !is_signed {
                begun = looked;
            }
            Ok(is_signed)
        })
        .await?;
        let synced = length(&cast);
        wait_until("more of the recording", async || {
            Ok(length(&cast) > synced + LEAST_LOST)
        })
        .await?;
        endpoint.kill().await?;
        if begun.elapsed() < UNSYNCED {
            take(&cast, synced, cut)?;
            let torn = OpenOptions::new().write(true).open(&signatures)?;
            torn.set_len(length(&signatures) - 20)?;
            return endpoint.start_again().await;
        }
        // too slow: it may have been synced since
        endpoint.start_again().await?;
    }
}

fn growing(endpoint: &Endpoint) -> Result<Option<PathBuf>> {
    let Ok(entries) = std::fs::read_dir(endpoint.state_dir().join("transcripts")) else {
        return Ok(None);
    };
    let mut casts = entries.flatten().map(|entry| entry.path());
    Ok(casts.find(|path| path.extension().is_some_and(|extension| extension == "cast")))
}

/// Takes the end of a recording beyond what was synced.
fn take(cast: &Path, synced: u64, cut: Cut) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(cast)?;
    let left = match cut {
        Cut::AfterLine => line_end(&file, synced)?,
        // a line of it has more than 20 bytes
        Cut::InsideLine => line_end(&file, synced)? + 7,
    };
    ensure!(left < length(cast), "there is nothing to lose");
    Ok(file.set_len(left)?)
}

fn line_end(file: &File, from: u64) -> Result<u64> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len() - from)?];
    file.read_exact_at(&mut bytes, from)?;
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .context("no line ends")?;
    Ok(from + end as u64 + 1)
}

/// Everything that was counted is in it, once and in order.
fn check_whole(recording: &Recording) -> Result<()> {
    let shown = recording.texts("o");
    let counted: Vec<u64> = shown
        .lines()
        .filter_map(|line| line.strip_prefix("n=")?.parse().ok())
        .collect();
    let last = *counted.last().context("nothing was counted")?;
    ensure!(
        counted == (1..=last).collect::<Vec<u64>>(),
        "{} of {last} lines",
        counted.len()
    );
    ensure!(
        shown.contains(&format!("end-of-count={last}")),
        "the end is not recorded"
    );
    ensure!(recording.ours("gap")?.is_empty(), "there is a gap");
    Ok(())
}

#[tokio::test]
async fn a_session_s_recording_is_whole_after_the_endpoint_lost_what_it_had_not_on_its_disk() -> Result<()> {
    for cut in [Cut::AfterLine, Cut::InsideLine] {
        let mut site = Site::start().await?;
        let go = site.node.dir().join("go");
        let mut terminal = site.cli().shell(site.node.id()).await?;
        terminal.send(&format!(
            "{}\n",
            COUNTING.replace("GO", &go.display().to_string())
        ))?;
        terminal.expect("n=50").await?;
        cut_power(&mut site.endpoint, cut).await?;
        File::create(&go)?;
        terminal
            .expect_within("end-of-count", Duration::from_secs(60))
            .await?;
        terminal.send("exit\n")?;
        terminal.wait().await?;
        let recording = Recording::newest(&site.cli(), site.node.dir()).await?;
        check_whole(&recording).with_context(|| format!("{cut:?}"))?;
        let log = site.node.log();
        ensure!(
            log.contains("the endpoint lost the end of the transcript"),
            "nothing was lost: {log}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_command_s_recording_is_whole_after_the_endpoint_lost_what_it_had_not_on_its_disk() -> Result<()> {
    for cut in [Cut::AfterLine, Cut::InsideLine] {
        let mut site = Site::start().await?;
        let go = site.node.dir().join("go");
        let id = site
            .send(&COUNTING.replace("GO", &go.display().to_string()))
            .await?;
        cut_power(&mut site.endpoint, cut).await?;
        File::create(&go)?;
        site.finished(&id).await?;
        let recording = Recording::of_command(&site.cli(), site.node.dir(), &id).await?;
        check_whole(&recording).with_context(|| format!("{cut:?}"))?;
    }
    Ok(())
}
