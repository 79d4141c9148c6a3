//! Sessions that change hands, and that are watched: `moorline attach`, `moorline watch`, and `~d`.

use std::{fs::Permissions, os::unix::fs::PermissionsExt};

use anyhow::{Context, Result, ensure};
use moorline_tests::{Site, Terminal, wait_until};
use serde_json::json;

/// The one session that is open.
async fn open_session(site: &Site) -> Result<String> {
    let sessions = site
        .api()
        .call("DescribeSessions", json!({"State": "Active"}))
        .await?;
    let id = sessions["Sessions"][0]["SessionId"].as_str();
    Ok(id.context("no session is open")?.to_owned())
}

/// A shell that has said something.
async fn used_shell(site: &Site) -> Result<(Terminal, String)> {
    let mut terminal = site.cli().at_terminal(&["shell", site.node.id()])?;
    terminal.send("echo first-$((1+1))\n")?;
    terminal.expect("first-2").await?;
    let session = open_session(site).await?;
    Ok((terminal, session))
}

#[tokio::test]
async fn a_session_that_was_left_goes_on_and_is_attached_to_with_what_it_showed() -> Result<()> {
    let site = Site::start().await?;
    let (mut terminal, session) = used_shell(&site).await?;
    terminal.send("place=kept\n~d")?;
    terminal.expect(&format!("moorline attach {session}")).await?;
    ensure!(terminal.wait().await? == 0, "{}", terminal.text());

    let mut again = site.cli().at_terminal(&["attach", &session])?;
    again.expect("first-2").await?;
    again.send("echo $place-$((2+2)); exit 5\n")?;
    again.expect("kept-4").await?;
    ensure!(again.wait().await? == 5, "{}", again.text());
    site.check_commands_work().await
}

#[tokio::test]
async fn who_attaches_takes_the_session_from_the_client_that_has_it() -> Result<()> {
    let site = Site::start().await?;
    let (mut terminal, session) = used_shell(&site).await?;
    // the only open one needs no name
    let mut other = site.cli().at_terminal(&["attach"])?;
    other.expect("first-2").await?;
    terminal.expect("taken over").await?;
    ensure!(terminal.wait().await? == 255, "{}", terminal.text());
    other.send("echo second-$((1+1)); exit 6\n")?;
    other.expect("second-2").await?;
    ensure!(other.wait().await? == 6, "{}", other.text());
    ensure!(!terminal.text().contains("second-2"), "{session} went on in both");
    Ok(())
}

#[tokio::test]
async fn a_session_outlives_a_killed_client_and_nothing_is_typed_twice() -> Result<()> {
    let site = Site::start().await?;
    let (mut terminal, session) = used_shell(&site).await?;
    // where the user of a session may write, whoever that is on this machine
    let place = tempfile::tempdir()?;
    std::fs::set_permissions(place.path(), Permissions::from_mode(0o777))?;
    let typed = place.path().join("typed");
    let go = place.path().join("go");
    terminal.send(&format!(
        "echo x >> {typed}; until [ -e {go} ]; do sleep 0.05; done; seq 1 3000; echo end-of-''count\n",
        typed = typed.display(),
        go = go.display()
    ))?;
    wait_until("the line to be typed", async || Ok(typed.exists())).await?;
    terminal.kill().await?;
    std::fs::File::create(&go)?;
    let mut again = site.cli().at_terminal(&["attach", &session])?;
    again.expect("end-of-count").await?;
    let lines: String = (1..=3000).map(|number| format!("{number}\r\n")).collect();
    ensure!(
        again.text().contains(&lines),
        "lines are missing:\n{}",
        again.text()
    );
    ensure!(std::fs::read_to_string(&typed)? == "x\n");
    again.send("exit\n")?;
    ensure!(again.wait().await? == 0);
    Ok(())
}

#[tokio::test]
async fn a_session_is_watched_live_by_any_number() -> Result<()> {
    let site = Site::start().await?;
    let (mut terminal, session) = used_shell(&site).await?;
    let mut first = site.cli().at_terminal(&["watch", &session])?;
    let mut second = site.cli().at_terminal(&["watch", &session])?;
    for watcher in [&mut first, &mut second] {
        watcher.expect("first-2").await?;
    }
    // a watcher's keys go nowhere
    first.send("echo not-''typed\n")?;
    terminal.send("echo second-$((1+1))\n")?;
    for watcher in [&mut first, &mut second] {
        watcher.expect("second-2").await?;
    }
    second.send("\u{3}")?;
    second.wait().await?;
    terminal.send("exit\n")?;
    ensure!(terminal.wait().await? == 0);
    ensure!(first.wait().await? == 0, "{}", first.text());
    ensure!(!terminal.text().contains("not-typed"), "{}", terminal.text());
    Ok(())
}

#[tokio::test]
async fn a_session_without_a_terminal_changes_no_hands() -> Result<()> {
    let site = Site::start().await?;
    let (document, go) = ("AWS-StartNonInteractiveCommand", site.node.dir().join("go"));
    let command = format!("sh -c 'until [ -e {} ]; do sleep 0.05; done'", go.display());
    let parameter = format!("command={command}");
    let words = [
        "shell",
        site.node.id(),
        "--document",
        document,
        "--param",
        &parameter,
    ];
    let mut terminal = site.cli().at_terminal(&words)?;
    wait_until("the session to be open", async || {
        let sessions = site
            .api()
            .call("DescribeSessions", json!({"State": "Active"}))
            .await?;
        Ok(sessions["Sessions"][0]["Status"] == "Connected")
    })
    .await?;
    let refused = site.cli().run(&["attach"]).await?.with_code(255)?;
    ensure!(refused.stderr.contains("NonInteractiveCommands"), "{refused:?}");
    std::fs::File::create(&go)?;
    ensure!(terminal.wait().await? == 0, "{}", terminal.text());
    Ok(())
}
