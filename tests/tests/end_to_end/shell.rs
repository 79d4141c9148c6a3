//! `moorline shell`: a terminal on a node.

use std::{collections::BTreeMap, fs::File, process::Stdio, time::Duration};

use anyhow::{Result, ensure};
use moorline_tests::{PATIENCE, Site, WorkerKind, run};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::timeout;

#[tokio::test]
async fn a_shell_ends_with_the_exit_code_of_the_shell() -> Result<()> {
    let site = Site::start().await?;
    let mut terminal = site.cli().at_terminal(&["shell", site.node.id()])?;
    terminal.send("echo h''i; exit 7\n")?;
    terminal.expect("hi").await?;
    ensure!(terminal.wait().await? == 7, "{}", terminal.text());
    site.node.wait_workers(WorkerKind::Session, 0).await?;
    moorline_tests::wait_until("the session to be history", async || {
        let history = json!({"State": "History"});
        let sessions = site.api().call("DescribeSessions", history).await?;
        let session = &sessions["Sessions"][0];
        Ok(session["Status"] == "Terminated" && session["Target"] == site.node.id())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn what_is_typed_after_a_terminal_got_another_size_meets_it_on_the_node() -> Result<()> {
    let site = Site::start().await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    terminal.send("stty size\n")?;
    terminal.expect("24 80").await?;
    for rows in 30..50 {
        // both wait for the program when it goes on
        terminal.signal(Signal::SIGSTOP)?;
        terminal.resize(132, rows)?;
        terminal.send("echo \"size $(stty size).\"\n")?;
        terminal.signal(Signal::SIGCONT)?;
        terminal.expect("size ").await?;
        terminal.expect(".").await?;
        ensure!(
            terminal.text().contains(&format!("size {rows} 132.")),
            "{}",
            terminal.text()
        );
    }
    terminal.send("exit\n")?;
    ensure!(terminal.wait().await? == 0);
    Ok(())
}

#[tokio::test]
async fn the_escape_leaves_the_shell_and_ends_it_on_the_node() -> Result<()> {
    let site = Site::start().await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    site.node.wait_workers(WorkerKind::Session, 1).await?;
    terminal.send("\r~.")?;
    terminal.wait().await?;
    site.node.wait_workers(WorkerKind::Session, 0).await?;
    let sessions = site
        .api()
        .call("DescribeSessions", json!({"State": "Active"}))
        .await?;
    ensure!(sessions["Sessions"] == json!([]), "{sessions}");
    Ok(())
}

#[tokio::test]
async fn a_shell_is_a_login_shell_at_home_on_a_terminal() -> Result<()> {
    let site = Site::start().await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    terminal.send("[ -t 0 ] && [ -t 1 ] && echo on-a-''terminal\n")?;
    terminal.expect("on-a-terminal").await?;
    terminal.send("[ \"$PWD\" = \"$HOME\" ] && [ \"$HOME\" = ~$(id -un) ] || [ \"$(eval echo ~$(id -un))\" = \"$HOME\" ] && echo at-''home\n")?;
    terminal.expect("at-home").await?;
    terminal.send("case $0 in -*) echo log''in;; esac; echo term-$TERM\n")?;
    terminal.expect("login").await?;
    terminal.expect("term-xterm-256color").await?;
    // nothing of the agent's leaks into it
    terminal.send("env | grep -c -i -e AWS_SECRET -e MOORLINE_TEST; echo count''ed\n")?;
    terminal.expect("0\r\n").await?;
    terminal.expect("counted").await?;
    // Ctrl-C reaches the program, not the session
    terminal.send(
        "sh -c 'trap \"echo interrupted; exit 3\" INT; echo waiting; while :; do sleep 0.05; done'\n",
    )?;
    terminal.expect("waiting").await?;
    terminal.send("\x03")?;
    terminal.expect("interrupted").await?;
    terminal.send("kill -TERM $$; exit 3\n")?;
    terminal.wait().await?;
    Ok(())
}

#[tokio::test]
async fn two_sessions_on_one_node_do_not_mix() -> Result<()> {
    let site = Site::start().await?;
    let cli = site.cli();
    let mut first = cli.shell(site.node.id()).await?;
    let mut second = cli.shell(site.node.id()).await?;
    site.node.wait_workers(WorkerKind::Session, 2).await?;
    first.send("echo from-''first\n")?;
    second.send("echo from-''second\n")?;
    first.expect("from-first").await?;
    second.expect("from-second").await?;
    ensure!(!first.text().contains("from-second") && !second.text().contains("from-first"));
    first.send("exit 1\n")?;
    ensure!(first.wait().await? == 1);
    second.send("exit 2\n")?;
    ensure!(second.wait().await? == 2);
    Ok(())
}

#[tokio::test]
async fn a_shell_to_a_node_that_is_not_connected_is_refused_at_once() -> Result<()> {
    let mut site = Site::start().await?;
    site.node.kill_daemon().await?;
    site.node.wait_offline().await?;
    let refused = site.cli().run(&["shell", site.node.id()]).await?.with_code(255)?;
    ensure!(refused.stderr.contains("not connected"), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn much_output_arrives_whole() -> Result<()> {
    let site = Site::start().await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    terminal.send("seq 1 200000; echo all-''done\n")?;
    terminal
        .expect_within("all-done", Duration::from_secs(120))
        .await?;
    let text = terminal.text();
    let (_, output) = text.split_once("ready\r\n").unwrap_or_default();
    let mut expected: String = (1..=200_000).map(|number| format!("{number}\r\n")).collect();
    expected.push_str("all-done");
    ensure!(
        output.contains(&expected),
        "{} bytes came, {} were sent",
        output.len(),
        expected.len()
    );
    Ok(())
}

#[tokio::test]
async fn without_a_terminal_standard_input_goes_to_the_shell() -> Result<()> {
    let site = Site::start().await?;
    let ran = site
        .cli()
        .run_with_input(&["shell", site.node.id()], b"echo pi''ped; exit 4\n")
        .await?;
    ensure!(ran.code == 4 && ran.stdout.contains("piped"), "{ran:?}");
    Ok(())
}

#[tokio::test]
async fn an_output_that_takes_no_more_ends_the_shell_on_the_node() -> Result<()> {
    let site = Site::start().await?;
    let mut shell = site
        .cli()
        .command(&["shell", site.node.id()])?
        .stdin(Stdio::piped())
        .stdout(File::options().write(true).open("/dev/full")?)
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let input = shell.stdin.take();
    let status = timeout(PATIENCE, shell.wait()).await??;
    drop(input);
    ensure!(!status.success(), "{status}");
    site.node.wait_workers(WorkerKind::Session, 0).await?;
    Ok(())
}

/// As by an endpoint that still waits for the node, to a daemon that began anew meanwhile.
#[tokio::test]
async fn a_session_that_is_told_again_is_not_served_twice() -> Result<()> {
    let site = Site::start().await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    let sessions = site
        .api()
        .call("DescribeSessions", json!({"State": "Active"}))
        .await?;
    let task = json!({
        "content": {
            "DocumentName": "Shell",
            "DocumentContent": {"schemaVersion": "1.0", "sessionType": "Standard_Stream"},
            "SessionId": sessions["Sessions"][0]["SessionId"],
        },
        "state_dir": site.node.state_dir(),
        "credentials": null,
        "settings": {},
        "forward": {},
        "policy_folder": site.node.dir(),
        "learned": {"addresses": {}, "clock_ahead_millis": 0, "name_lookup_fails": false},
    });
    let task = task.to_string();
    let again = run(
        site.node.program()?,
        &["worker", "session"],
        &BTreeMap::new(),
        Some(task.as_bytes()),
        PATIENCE,
    )
    .await?
    .with_code(75)?;
    ensure!(
        again.stdout.is_empty(),
        "the end of a session is told that has not ended: {again:?}"
    );
    terminal.send("echo still-''here; exit 5\n")?;
    terminal.expect("still-here").await?;
    ensure!(terminal.wait().await? == 5);
    Ok(())
}
