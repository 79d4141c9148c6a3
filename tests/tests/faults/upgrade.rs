//! The agent's program is replaced while it serves.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use moorline_tests::{Endpoint, Node, Site, WorkerKind, is_root, skipped};

use crate::connection_cut::{COUNTED_LINES, check_counted, count_slowly};

/// What a process executes; a file that was replaced is named as deleted.
fn program_of(pid: i32) -> Result<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/exe")).with_context(|| format!("the program of process {pid}"))
}

fn is_replaced(program: &Path) -> bool {
    program.to_string_lossy().ends_with(" (deleted)")
}

#[tokio::test]
async fn an_upgrade_of_the_daemon_costs_an_open_session_no_byte_and_types_nothing_twice() -> Result<()> {
    if !is_root() {
        skipped("only root sees which program the agent's processes are");
        return Ok(());
    }
    let endpoint = Endpoint::start().await?;
    let mut node = Node::register(&endpoint, &[]).await?;
    let program = node.install()?;
    node.start().await?;
    let mut site = Site { node, endpoint };
    let mut terminal = site.cli().shell(site.node.id()).await?;
    let worker = site.node.wait_workers(WorkerKind::Session, 1).await?[0];
    terminal.send("n=0; next() { n=$((n+1)); [ $n = $1 ] || echo out-of-order-$1; }\n")?;
    count_slowly(&mut terminal)?;
    terminal.expect("\r\n100\r\n").await?;

    site.node.install()?;
    ensure!(is_replaced(&program_of(worker)?));
    terminal.send("next 1\n")?;
    // the old daemon goes on, with what is left of its program
    let mut between = site.cli().shell(site.node.id()).await?;
    terminal.expect("\r\n300\r\n").await?;
    site.node.stop_daemon().await?;
    terminal.send("next 2\n")?;
    site.node.start().await?;
    terminal.send("next 3\n")?;

    let daemon = site.node.daemon_pid().context("the new daemon runs")?;
    ensure!(
        program_of(daemon)? == program,
        "the new daemon is the old program"
    );
    check_counted(&mut terminal, COUNTED_LINES).await?;
    terminal.send("echo count-is-$n; exit 5\n")?;
    terminal.expect("count-is-3").await?;
    ensure!(!terminal.text().contains("out-of-order"), "{}", terminal.text());
    ensure!(terminal.wait().await? == 5, "{}", terminal.text());
    between.send("echo from-''between; exit 6\n")?;
    between.expect("from-between").await?;
    ensure!(between.wait().await? == 6);
    site.node.wait_workers(WorkerKind::Session, 0).await?;

    let mut after = site.cli().shell(site.node.id()).await?;
    let worker = site.node.wait_workers(WorkerKind::Session, 1).await?[0];
    ensure!(
        program_of(worker)? == program,
        "a new session is served by the old program"
    );
    after.send("exit 7\n")?;
    ensure!(after.wait().await? == 7);
    Ok(())
}
