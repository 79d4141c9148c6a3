//! The memory of the agent's own processes is closed, and what they start is as if they had not been there.

use std::fs;

use anyhow::{Context, Result, ensure};
use moorline_tests::{Site, WorkerKind, is_root, wait_until};

/// Bytes that a core file may have where the daemon is started.
const CORE_BYTES: &str = "4096";

/// The soft limit of a process's core files.
fn core_limit(pid: i32) -> Result<String> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let limit = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"));
    let limit = limit.and_then(|limits| limits.split_whitespace().next());
    Ok(limit.context("no limit of core files")?.to_owned())
}

#[tokio::test]
async fn nobody_looks_into_daemon_and_workers_and_steps_and_shells_have_the_limits_of_the_machine()
-> Result<()> {
    let mut site = Site::start().await?;
    site.node.kill_daemon().await?;
    // root alone would be let in by this capability, so here root has it not
    let without = [
        "setpriv",
        "--bounding-set",
        "-sys_ptrace",
        "--inh-caps",
        "-sys_ptrace",
    ];
    let mut launcher = Vec::new();
    if is_root() {
        launcher.extend(without);
    }
    // in blocks of 512 bytes
    launcher.extend(["/bin/sh", "-c", "ulimit -S -c 8 && exec \"$@\"", "sh"]);
    site.node.start_by(&launcher);
    site.node.start().await?;
    let daemon = site.node.daemon_pid().context("no daemon")?;
    ensure!(core_limit(daemon)? == "0", "the daemon may leave a core file");

    let (worker, begun) = (site.node.dir().join("worker"), site.node.dir().join("begun"));
    let look = "readlink /proc/$pid/exe > /dev/null || echo -n closed";
    let script = format!(
        "grep '^Max core' /proc/self/limits; sleep 300 & for pid in $! {daemon}; do {look}; echo; done; \
         touch {1}; until [ -e {0} ]; do sleep 0.05; done; pid=$(cat {0}); {look}; kill $!",
        worker.display(),
        begun.display()
    );
    let command = site.send(&script).await?;
    wait_until("the script to run", async || Ok(begun.exists())).await?;
    let workers = site.node.wait_workers(WorkerKind::Command, 1).await?;
    let pid = *workers.first().context("no worker")?;
    ensure!(
        core_limit(pid)? == "0",
        "the command's worker may leave a core file"
    );
    let unfinished = worker.with_extension("new");
    fs::write(&unfinished, pid.to_string())?;
    fs::rename(&unfinished, &worker)?;
    let told = site.finished(&command).await?["StandardOutputContent"].clone();
    let told = told.as_str().context("no output")?;
    let (limit, looks) = told.split_once('\n').context("no limit")?;
    ensure!(limit.split_whitespace().nth(4) == Some(CORE_BYTES), "{told}");
    ensure!(looks == "\nclosed\nclosed", "{told}");

    let mut terminal = site.cli().shell(site.node.id()).await?;
    terminal.send("grep '^Max core' /proc/self/limits\n")?;
    terminal.expect(&format!("size {:7}{CORE_BYTES}", "")).await?;
    let workers = site.node.wait_workers(WorkerKind::Session, 1).await?;
    let pid = *workers.first().context("no worker")?;
    ensure!(
        core_limit(pid)? == "0",
        "the session's worker may leave a core file"
    );
    terminal.send("exit\n")?;
    terminal.wait().await?;
    Ok(())
}
