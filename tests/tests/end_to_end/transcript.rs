//! What was on the screen stays readable afterwards.

use anyhow::{Context, Result, ensure};
use moorline_tests::{PATIENCE, Site, wait_for};
use serde_json::Value;

/// Seconds, kind, data.
type CastEvent = (f64, String, String);

/// Reads an asciicast v2: its header and its events.
fn read_cast(text: &str) -> Result<(Value, Vec<CastEvent>)> {
    let mut lines = text.lines();
    let header: Value = serde_json::from_str(lines.next().context("the transcript is empty")?)?;
    let events = lines
        .map(|line| Ok(serde_json::from_str(line)?))
        .collect::<Result<_>>()?;
    Ok((header, events))
}

#[tokio::test]
async fn a_transcript_holds_what_was_shown_and_when() -> Result<()> {
    let site = Site::start().await?;
    let cli = site.cli();
    let mut terminal = cli.at_terminal(&["shell", site.node.id()])?;
    terminal.send("echo mark''er-1; sleep 1; echo mark''er-2 ünïcödé; exit\n")?;
    terminal.expect("marker-2 ünïcödé").await?;
    terminal.wait().await?;

    let session = wait_for("the transcript to be complete", PATIENCE, async || {
        let listed = cli
            .run(&["transcript", "list", "--json"])
            .await?
            .success()?
            .json()?;
        let transcript = listed.get(0).context("no transcript is listed")?;
        let session = transcript["SessionId"].as_str().map(str::to_owned);
        ensure!(transcript["Target"] == site.node.id(), "{listed}");
        Ok(session.filter(|_| transcript["Complete"] == true))
    })
    .await?;

    let cast = cli
        .run(&["transcript", "export", &session])
        .await?
        .success()?
        .stdout;
    let (header, events) = read_cast(&cast)?;
    ensure!(
        header["version"] == 2 && header["width"] == 80 && header["height"] == 24,
        "{header}"
    );
    ensure!(
        header["title"] == session.as_str() && header["timestamp"].is_number(),
        "{header}"
    );
    ensure!(
        events.is_sorted_by(|one, next| one.0 <= next.0),
        "time runs backwards: {events:?}"
    );
    let output: String = events
        .iter()
        .filter(|(_, kind, _)| kind == "o")
        .map(|(_, _, data)| data.as_str())
        .collect();
    ensure!(
        terminal.text().contains(&output),
        "{output:?} is not what was shown: {:?}",
        terminal.text()
    );
    let at = |text: &str| {
        let found = events
            .iter()
            .find(|(_, kind, data)| kind == "o" && data.contains(text));
        found
            .map(|(seconds, _, _)| *seconds)
            .context("not in the transcript")
    };
    let pause = at("marker-2 ")? - at("marker-1\r")?;
    ensure!(
        (0.9..5.0).contains(&pause),
        "one second of sleep is {pause} s in the transcript"
    );

    // the newest is the default, and text is text
    let text = cli.run(&["transcript", "text"]).await?.success()?.stdout;
    ensure!(
        text.contains("marker-1") && text.contains("marker-2 ünïcödé") && !text.contains('\x1b'),
        "{text:?}"
    );
    let played = cli
        .run(&["transcript", "play", "--speed", "1000", &session])
        .await?
        .success()?
        .stdout;
    ensure!(played.contains("marker-2"), "{played:?}");
    let table = cli.run(&["transcript", "list"]).await?.success()?.stdout;
    ensure!(table.contains(&session), "{table}");
    Ok(())
}

#[tokio::test]
async fn a_transcript_can_be_read_while_the_session_runs_and_survives_the_worker() -> Result<()> {
    let site = Site::start().await?;
    let cli = site.cli();
    let mut terminal = cli.shell(site.node.id()).await?;
    terminal.send("echo before-''the-end\n")?;
    terminal.expect("before-the-end").await?;
    let text = async || Ok(cli.run(&["transcript", "text"]).await?.success()?.stdout);
    let what = "the transcript of a running session";
    wait_for(what, PATIENCE, async || {
        Ok(text().await?.contains("before-the-end").then_some(()))
    })
    .await?;
    for worker in site.node.workers(moorline_tests::WorkerKind::Session) {
        moorline_tests::kill_process(worker);
    }
    terminal.wait().await?;
    let text: Result<String> = text().await;
    ensure!(text?.contains("before-the-end"));
    Ok(())
}
