//! Recordings whose maker died: the node says so, and they are closed as cut at once.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use moorline_tests::{Cli, PATIENCE, Site, WorkerKind, kill_process, wait_for, wait_until};
use serde_json::Value;

/// What `transcript list` says of this recording.
async fn listed(cli: &Cli, recording: &str) -> Result<Value> {
    let all = cli
        .run(&["transcript", "list", "--json"])
        .await?
        .success()?
        .json()?;
    let found = all.as_array().into_iter().flatten();
    let found = found.into_iter().find(|one| one["SessionId"] == recording);
    Ok(found.context("it is not listed")?.clone())
}

/// Waits until the endpoint has closed it as cut, and has it verified with public keys alone.
async fn check_cut(site: &Site, recording: &str) -> Result<()> {
    let cli = site.cli();
    wait_for("the recording to be closed as cut", PATIENCE, async || {
        Ok((listed(&cli, recording).await?["State"] == "Cut").then_some(()))
    })
    .await?;
    let path = |name: &str| site.node.dir().join(name).display().to_string();
    let (file, keys) = (path("cut.cast"), path("cut.keys"));
    cli.run(&["transcript", "keys", "--out", &keys])
        .await?
        .success()?;
    let export = ["transcript", "export", recording, "--out", &file];
    cli.run(&export).await?.success()?;
    let verified = Cli::without_endpoint()
        .run(&["transcript", "verify", &file, "--keys", &keys])
        .await?
        .success()?;
    ensure!(
        verified.stdout.contains("intact") && verified.stdout.contains("cut"),
        "{verified:?}"
    );
    wait_until("the spool to be empty", async || {
        Ok(files(&site.node.state_dir().join("spool")).is_empty())
    })
    .await
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Starts a command that prints and goes on for ever; the name of its recording, and the command's id.
async fn begun_command(site: &Site) -> Result<(String, String)> {
    let command = site.send("echo begun; sleep 1000").await?;
    let recording = format!("{command}.{}", site.node.id());
    arrived(site, &recording).await?;
    Ok((recording, command))
}

async fn arrived(site: &Site, recording: &str) -> Result<()> {
    let cast = site
        .endpoint
        .state_dir()
        .join(format!("transcripts/{recording}.cast"));
    wait_until("output to arrive at the endpoint", async || {
        Ok(std::fs::read_to_string(&cast).is_ok_and(|text| text.contains("begun")))
    })
    .await
}

/// The name of the recording of the only session, or of the only other one.
async fn session_beside(site: &Site, other: &str) -> Result<String> {
    let list = ["transcript", "list", "--kind", "session", "--json"];
    wait_for("a session's recording", PATIENCE, async || {
        let listed = site.cli().run(&list).await?.success()?.json()?;
        let mut names = listed.as_array().into_iter().flatten();
        let new = names.find_map(|one| one["SessionId"].as_str().filter(|name| *name != other));
        Ok(new.map(str::to_owned))
    })
    .await
}

#[tokio::test]
async fn a_killed_worker_s_recording_of_a_command_is_cut_at_once_and_nobody_says_that_it_runs() -> Result<()>
{
    let site = Site::start().await?;
    let (recording, command) = begun_command(&site).await?;
    site.node
        .workers(WorkerKind::Command)
        .into_iter()
        .for_each(kill_process);
    site.finished(&command).await?;
    check_cut(&site, &recording).await?;
    let output = site.cli().run(&["output", &command]).await?;
    ensure!(output.stdout.contains("begun"), "{output:?}");
    ensure!(!output.stderr.contains("goes on"), "{output:?}");
    ensure!(output.stderr.contains("not recorded to its end"), "{output:?}");
    let text = site
        .cli()
        .run(&["transcript", "text", &command])
        .await?
        .success()?;
    ensure!(text.stdout.contains("begun"), "{text:?}");
    Ok(())
}

#[tokio::test]
async fn a_killed_worker_s_recording_of_a_session_is_cut_at_once() -> Result<()> {
    let site = Site::start().await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    terminal.send("echo beg''un\n")?;
    terminal.expect("begun").await?;
    let recording = session_beside(&site, "").await?;
    arrived(&site, &recording).await?;
    site.node
        .workers(WorkerKind::Session)
        .into_iter()
        .for_each(kill_process);
    terminal.wait().await?;
    check_cut(&site, &recording).await?;
    for reading in ["text", "play"] {
        let read = site
            .cli()
            .run(&["transcript", reading, &recording])
            .await?
            .success()?;
        let said = format!("{}{}", read.stdout, read.stderr);
        ensure!(said.trim_end().ends_with("it was cut"), "{reading}: {read:?}");
    }
    Ok(())
}

/// As after its state was put back from a backup, or its disk was written to by somebody.
#[tokio::test]
async fn a_recording_that_its_session_gave_up_is_cut_when_the_session_ends() -> Result<()> {
    let mut site = Site::start().await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    terminal.send("echo beg''un\n")?;
    terminal.expect("begun").await?;
    let recording = session_beside(&site, "").await?;
    arrived(&site, &recording).await?;
    site.endpoint.kill().await?;
    let cast = site
        .endpoint
        .state_dir()
        .join(format!("transcripts/{recording}.cast"));
    let mut bytes = std::fs::read(&cast)?;
    bytes.extend(b"[9.000000,\"o\",\"nobody sent this\"]\n".repeat(10_000));
    std::fs::write(&cast, bytes)?;
    site.endpoint.start_again().await?;
    terminal.send("echo ag''ain\n")?;
    terminal.expect("this session is not recorded any more").await?;
    terminal.send("exit\n")?;
    terminal.wait().await?;
    wait_for("the recording to be closed as cut", PATIENCE, async || {
        Ok((listed(&site.cli(), &recording).await?["State"] == "Cut").then_some(()))
    })
    .await
}

#[tokio::test]
async fn recordings_that_a_power_cut_ended_are_cut_when_the_node_is_back_and_those_that_go_on_are_not()
-> Result<()> {
    let mut site = Site::start().await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    terminal.send("echo beg''un\n")?;
    terminal.expect("begun").await?;
    let session = session_beside(&site, "").await?;
    arrived(&site, &session).await?;
    let (recording, command) = begun_command(&site).await?;
    let doomed = [
        site.node.workers(WorkerKind::Session),
        site.node.workers(WorkerKind::Command),
    ]
    .concat();
    // these outlive the daemon
    let mut survivor = site.cli().shell(site.node.id()).await?;
    survivor.send("echo beg''un\n")?;
    survivor.expect("begun").await?;
    let surviving_session = session_beside(&site, &session).await?;
    arrived(&site, &surviving_session).await?;
    let (surviving_command, _) = begun_command(&site).await?;

    site.node.kill_daemon().await?;
    doomed.into_iter().for_each(kill_process);
    // what was not synced is gone with the power
    let spool = site.node.state_dir().join("spool");
    for file in files(&spool) {
        if file.display().to_string().contains(&recording) {
            std::fs::remove_file(file)?;
        }
    }
    site.node.start().await?;
    site.finished(&command).await?;
    let cli = site.cli();
    for ended in [&recording, &session] {
        wait_for("the recording to be closed as cut", PATIENCE, async || {
            Ok((listed(&cli, ended).await?["State"] == "Cut").then_some(()))
        })
        .await?;
    }
    for going_on in [&surviving_session, &surviving_command] {
        let found = listed(&cli, going_on).await?;
        ensure!(found["State"] == "Running", "{found}");
    }
    survivor.send("echo recorded-''still; exit\n")?;
    survivor.wait().await?;
    wait_for("the session's recording to be whole", PATIENCE, async || {
        Ok((listed(&cli, &surviving_session).await?["State"] == "Complete").then_some(()))
    })
    .await
}

/// The spool of this recording, as a power cut leaves it: zeros in the place of what was not on the disk.
fn make_hole(spool: &Path, recording: &str, behind: &str) -> Result<()> {
    let found = files(spool);
    let path = found
        .iter()
        .find(|path| path.display().to_string().contains(recording))
        .with_context(|| format!("no spool in {found:?}"))?;
    let mut bytes = std::fs::read(path)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let at = text.find(behind).context("the output is not in the spool")?;
    bytes.get_mut(at..).context("no bytes")?.fill(0);
    Ok(std::fs::write(path, bytes)?)
}

#[tokio::test]
async fn what_a_power_cut_damaged_of_a_recording_is_left_out_and_a_signed_gap_says_so() -> Result<()> {
    let mut site = Site::start().await?;
    let gates = ["first", "second"].map(|name| site.node.dir().join(name));
    let [first, second] = gates
        .each_ref()
        .map(|gate| format!("until [ -e {} ]; do sleep 0.05; done", gate.display()));
    let script = format!("echo begun; {first}; echo kept; {second}; echo damaged; sleep 1000");
    let command = site.send(&script).await?;
    let recording = format!("{command}.{}", site.node.id());
    arrived(&site, &recording).await?;
    site.endpoint.kill().await?;
    let spool = site.node.state_dir().join("spool");
    // what is not sealed is no part of what verifies, with or without a hole
    for (gate, [text, then]) in gates
        .iter()
        .zip([["kept\\r\\n", "\"seal "], ["damaged\\r\\n", ""]])
    {
        std::fs::write(gate, "")?;
        wait_until("the output to be in the spool", async || {
            Ok(files(&spool).into_iter().any(|path| {
                let bytes = std::fs::read(path).unwrap_or_default();
                let spooled = String::from_utf8_lossy(&bytes);
                spooled
                    .split_once(text)
                    .is_some_and(|(_, rest)| rest.contains(then))
            }))
        })
        .await?;
    }
    site.node.kill_daemon().await?;
    site.node
        .workers(WorkerKind::Command)
        .into_iter()
        .for_each(kill_process);
    make_hole(&spool, &recording, "damaged\\r\\n")?;
    site.endpoint.start_again().await?;
    site.node.start().await?;
    check_cut(&site, &recording).await?;
    let text = site
        .cli()
        .run(&["transcript", "text", &command])
        .await?
        .success()?;
    for expected in ["kept", "-- gap: ", "it lost its power", "-- end: "] {
        ensure!(text.stdout.contains(expected), "{expected}: {text:?}");
    }
    ensure!(!text.stdout.contains("damaged\n"), "{text:?}");
    let broken = "moorline_transcripts_broken_total";
    let metrics = site.endpoint.metrics().await?;
    let told = metrics.lines().find(|line| line.starts_with(broken));
    ensure!(told.is_none_or(|line| line.ends_with(" 0")), "{told:?}");
    Ok(())
}
