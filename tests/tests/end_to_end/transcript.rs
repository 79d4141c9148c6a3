//! What was on the screen stays readable afterwards.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use moorline_tests::{Cli, PATIENCE, Site, python_program, wait_for};
use serde_json::Value;
use tokio::{process::Command, time::sleep};

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
    let go = site.node.dir().join("go");
    let begun = Instant::now();
    terminal.send(&format!(
        "echo mark''er-1; until [ -e {} ]; do sleep 0.05; done; echo mark''er-2 ünïcödé; exit\n",
        go.display()
    ))?;
    terminal.expect("marker-1").await?;
    let shown = Instant::now();
    // the time that passes is what is tested
    sleep(Duration::from_secs(1)).await;
    let shortest = shown.elapsed();
    fs::write(&go, "")?;
    terminal.expect("marker-2 ünïcödé").await?;
    let longest = begun.elapsed();
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
    let pause = at("marker-2 ")? - at("marker-1")?;
    let rounding = 0.01;
    ensure!(
        (shortest.as_secs_f64() - rounding..longest.as_secs_f64() + rounding).contains(&pause),
        "from {shortest:?} to {longest:?} are {pause} s in the transcript"
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

/// Its id, once it is complete.
async fn recorded(site: &Site, line: &str) -> Result<String> {
    let cli = site.cli();
    let mut terminal = cli.at_terminal(&["shell", site.node.id()])?;
    terminal.send(&format!("{line}; exit\n"))?;
    terminal.wait().await?;
    wait_for("the transcript to be complete", PATIENCE, async || {
        let listed = cli
            .run(&[
                "transcript",
                "list",
                "--operator",
                "admin",
                "--since",
                "1h",
                "--json",
            ])
            .await?
            .success()?
            .json()?;
        let newest = listed.get(0).filter(|newest| newest["Complete"] == true);
        Ok(newest.and_then(|newest| newest["SessionId"].as_str().map(str::to_owned)))
    })
    .await
}

/// A program that needs nothing but files, and its exit code.
async fn verdict(program: &mut Command) -> Result<(Option<i32>, String)> {
    let output = program.kill_on_drop(true).output().await?;
    Ok((
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    ))
}

#[tokio::test]
async fn an_exported_transcript_is_verified_by_public_keys_alone() -> Result<()> {
    let site = Site::start().await?;
    let session = recorded(&site, "echo evi''dence").await?;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (file, keys, bundle) = (path("a.cast"), path("keys"), path("a.tar"));
    let cli = site.cli();
    let transcript = async |arguments: &[&str]| {
        let arguments = [&["transcript"], arguments].concat();
        cli.run(&arguments).await?.success()
    };
    transcript(&["export", &session, "--out", &file]).await?;
    transcript(&["export", &session, "--bundle", "--out", &bundle]).await?;
    transcript(&["keys", "--out", &keys]).await?;

    let auditor = Cli::without_endpoint();
    let verify =
        async |file: &str, keys: &str| auditor.run(&["transcript", "verify", file, "--keys", keys]).await;
    let said = verify(&file, &keys).await?.success()?.stdout;
    ensure!(
        said.contains("intact") && said.contains(&session) && said.contains("complete"),
        "{said}"
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("verifier/verify_transcript.py");
    let mut python = Command::new(python_program("python3")?);
    python.arg(script).args([&file, "--keys", &keys]);
    let (code, said) = verdict(&mut python).await?;
    ensure!(code == Some(0), "{said}");
    let mut player = Command::new(python_program("asciinema")?);
    let (_, shown) = verdict(player.args(["cat", &file]).env("LC_ALL", "C.UTF-8")).await?;
    ensure!(shown.contains("evidence"), "{shown:?}");

    let altered = fs::read_to_string(&file)?.replacen("evidence", "evidance", 1);
    fs::write(&file, altered)?;
    let said = verify(&file, &keys).await?.with_code(1)?.stdout;
    ensure!(
        said.contains("the events of this record are not those that the node sealed"),
        "{said}"
    );

    let (code, said) = verdict(Command::new("tar").args(["-xf", &bundle, "-C", &path("")])).await?;
    ensure!(code == Some(0), "{said}");
    verify(&path("transcript/session.cast"), &path("transcript/keys.json"))
        .await?
        .success()?;
    let audit = fs::read_to_string(path("transcript/audit.jsonl"))?;
    ensure!(
        audit.contains("StartSession") && audit.lines().all(|line| line.contains(&session)),
        "{audit}"
    );
    let page = fs::read_to_string(path("transcript/README.md"))?;
    ensure!(
        page.contains(&session) && page.contains("verify_transcript.py"),
        "{page}"
    );
    Ok(())
}
