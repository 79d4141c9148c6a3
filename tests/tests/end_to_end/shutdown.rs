//! The node goes down: `moorline-agent end-sessions`, which systemd runs before it takes the network away.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    time::Duration,
};

use anyhow::{Result, ensure};
use moorline_tests::{Node, Site, Terminal, WorkerKind, is_root, skipped, wait_until};
use tokio::{process::Command, time::timeout};

use crate::session_processes::Mark;

/// Whoever uses a session knows why it ended within two seconds, whatever runs in it; the rest is for a machine that is
/// busy. Told when all of it has ended it would take four seconds at the least.
const TOLD_WITHIN: Duration = Duration::from_millis(3900);

/// Refuses everything that can be refused: the shell itself, a job in front, and one in a session of its own.
const STUBBORN: &str = "trap '' HUP TERM; (setsid sleep 1000 &); sleep 1000\n";

/// A shell on whose screen is also what `moorline` itself says; its children have the mark.
async fn shell(site: &Site, node: &Node, mark: &Mark) -> Result<Terminal> {
    let mut terminal = site.cli().at_terminal(&["shell", node.id()])?;
    terminal.send(&format!("export {}; echo rea''dy\n", mark.0))?;
    terminal.expect("ready").await?;
    Ok(terminal)
}

#[tokio::test]
async fn a_shutdown_is_told_at_once_and_ends_even_what_refuses_to_end() -> Result<()> {
    let site = Site::start().await?;
    let mark = Mark::new();
    let mut terminal = shell(&site, &site.node, &mark).await?;
    terminal.send(STUBBORN)?;
    mark.wait_for_sleeping(2).await?;
    let reason = site.node.state_dir().join("shutdown-reason.json");
    let telling = async {
        // the sessions are told when it is there, and not when the program is started
        wait_until("the shutdown to begin", async || Ok(reason.exists())).await?;
        timeout(TOLD_WITHIN, terminal.wait()).await?
    };
    let (ended, told) = tokio::join!(site.node.agent("end-sessions", &["--wait", "30"]), telling);
    ensure!(told? != 0, "an end that was not wanted looks like one that was");
    terminal
        .expect("session ended: the node is shutting down\r\n")
        .await?;
    ensure!(ended?.success()?.stdout == "1 session ended\n");
    ensure!(mark.processes().is_empty(), "the session left something");
    site.node.wait_workers(WorkerKind::Session, 0).await?;
    Ok(())
}

#[tokio::test]
async fn the_sessions_of_one_node_end_with_the_reason_that_was_given_though_its_daemon_is_gone() -> Result<()>
{
    let mut site = Site::start().await?;
    let mark = Mark::new();
    let mut other = Node::register(&site.endpoint, &[]).await?;
    other.start().await?;
    let mut terminal = shell(&site, &site.node, &mark).await?;
    let mut untouched = shell(&site, &other, &mark).await?;
    site.node.kill_daemon().await?;
    let ended = site
        .node
        .agent("end-sessions", &["--reason", "new disks at noon"]);
    ensure!(ended.await?.success()?.stdout == "1 session ended\n");
    terminal.expect("session ended: new disks at noon\r\n").await?;
    terminal.wait().await?;
    untouched.send("echo still-''here; exit 4\n")?;
    untouched.expect("still-here").await?;
    ensure!(untouched.wait().await? == 4);
    let ended = site.node.agent("end-sessions", &[]).await?;
    ensure!(ended.success()?.stdout == "0 sessions ended\n");
    Ok(())
}

#[tokio::test]
async fn a_user_who_may_not_end_the_sessions_of_a_node_is_told_so_and_ends_none() -> Result<()> {
    if !is_root() {
        skipped("only root can be another user");
        return Ok(());
    }
    let site = Site::start().await?;
    let mut terminal = site.cli().shell(site.node.id()).await?;
    let state_dir = site.node.state_dir().display().to_string();
    // a place where everybody may execute it
    let public = tempfile::tempdir()?;
    fs::set_permissions(public.path(), Permissions::from_mode(0o755))?;
    let program = public.path().join("moorline-agent");
    let copied = Command::new("cp")
        .arg(site.node.program()?)
        .arg(&program)
        .status()
        .await?;
    ensure!(copied.success(), "the program cannot be copied");
    // a stranger who does not see the state directory, and one who does
    for mode in [0o700, 0o755] {
        fs::set_permissions(site.node.dir(), Permissions::from_mode(mode))?;
        let mut stranger = Command::new(&program);
        let ended = stranger
            .args(["end-sessions", "--state-dir", &state_dir])
            .uid(65_534)
            .gid(65_534);
        let ended = ended.output().await?;
        let told = String::from_utf8_lossy(&ended.stderr);
        ensure!(
            ended.status.code() == Some(1) && ended.stdout.is_empty(),
            "{ended:?}"
        );
        let expected = format!("you may not end the sessions of {state_dir}: run this as root, or as");
        ensure!(told.contains(&expected), "{told}");
    }
    terminal.send("echo still-''here; exit 4\n")?;
    terminal.expect("still-here").await?;
    ensure!(terminal.wait().await? == 4);
    Ok(())
}

/// With programs that are there in the place of those that a package installs.
#[tokio::test]
async fn systemd_understands_the_units() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let units = concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd");
    let mut copies = Vec::new();
    for entry in fs::read_dir(units)? {
        let entry = entry?;
        let text = fs::read_to_string(entry.path())?;
        let copy = dir.path().join(entry.file_name());
        fs::write(&copy, text.replace("/usr/bin/moorline-", "/bin/true "))?;
        copies.push(copy);
    }
    ensure!(copies.len() >= 3, "{copies:?}");
    let Ok(verified) = Command::new("systemd-analyze")
        .arg("verify")
        .args(copies)
        .output()
        .await
    else {
        skipped("there is no systemd-analyze");
        return Ok(());
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    // systemd before 254 ignores it and says so
    let is_fault =
        |line: &&str| line.contains("moorline") && !line.contains("Unknown key 'DelegateSubgroup'");
    let ours: Vec<&str> = said.lines().filter(is_fault).collect();
    ensure!(ours.is_empty(), "{ours:?}");
    Ok(())
}
