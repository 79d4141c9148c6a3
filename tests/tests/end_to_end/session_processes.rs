//! What a session started ends with it, wherever it went, unless the node's owner lets it linger.

use anyhow::{Context, Result, ensure};
use moorline_tests::{Site, Terminal, WorkerKind, wait_until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

/// A variable by which all that a test's sessions start is found.
pub(crate) struct Mark(pub(crate) String);

impl Mark {
    pub(crate) fn new() -> Self {
        Self(format!("SESSION_MARK={}", uuid::Uuid::new_v4()))
    }

    /// Living processes that have it in their environment.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let Ok(entries) = std::fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                environment
                    .split(|byte| *byte == 0)
                    .any(|variable| variable == self.0.as_bytes())
            })
            .collect()
    }

    pub(crate) async fn wait_for(&self, count: usize) -> Result<()> {
        wait_until(&format!("{count} processes of the sessions"), async || {
            Ok(self.processes().len() == count)
        })
        .await
    }

    /// Waits until there are so many, and all of them are what they are to become: a `nohup` or `setsid` that has not got
    /// that far can still be hung up.
    pub(crate) async fn wait_for_sleeping(&self, count: usize) -> Result<()> {
        wait_until(&format!("{count} processes that sleep"), async || {
            let processes = self.processes();
            let sleeps = |pid: &i32| {
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
                name.is_ok_and(|name| name.trim_end() == "sleep")
            };
            Ok(processes.len() == count && processes.iter().all(sleeps))
        })
        .await
    }

    /// A shell whose children have it.
    pub(crate) async fn shell(&self, site: &Site) -> Result<Terminal> {
        let mut terminal = site.cli().shell(site.node.id()).await?;
        terminal.send(&format!("export {}\n", self.0))?;
        Ok(terminal)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        for pid in self.processes() {
            // it may have ended meanwhile
            let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// A job, one that ignores the hang-up, one with a session of its own, and a daemon: two forks, a session, no
/// terminal, deaf to everything that can be refused.
const LEAVERS: &str = "sleep 1000 & nohup sleep 1000 > /dev/null 2>&1 & setsid sleep 1000 & \
    (setsid sh -c '(trap \"\" HUP TERM; exec sleep 1000) > /dev/null 2>&1 < /dev/null &' &)\n";

#[tokio::test]
async fn whatever_a_session_started_ends_with_it_wherever_it_went() -> Result<()> {
    let site = Site::start().await?;
    let mark = Mark::new();
    let mut terminal = mark.shell(&site).await?;
    terminal.send(LEAVERS)?;
    mark.wait_for_sleeping(4).await?;
    terminal.send("exit 5\n")?;
    ensure!(terminal.wait().await? == 5);
    ensure!(mark.processes().is_empty(), "the end is told when all is over");
    site.node.wait_workers(WorkerKind::Session, 0).await?;
    Ok(())
}

#[tokio::test]
async fn a_worker_is_told_from_its_daemon_by_its_name() -> Result<()> {
    let site = Site::start().await?;
    let _terminal = site.cli().shell(site.node.id()).await?;
    site.send("sleep 60").await?;
    for kind in [WorkerKind::Session, WorkerKind::Command] {
        let worker = site.node.wait_workers(kind, 1).await?[0];
        wait_until("the worker's name", async || {
            let name = std::fs::read_to_string(format!("/proc/{worker}/comm"))?;
            Ok(name == "moorline-worker\n")
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_orphan_that_ends_is_no_zombie_and_costs_no_exit_code() -> Result<()> {
    let site = Site::start().await?;
    let mark = Mark::new();
    let mut terminal = mark.shell(&site).await?;
    let worker = site.node.wait_workers(WorkerKind::Session, 1).await?[0];
    terminal.send("for n in 1 2 3 4 5; do (setsid sleep 1000 &); done\n")?;
    mark.wait_for_sleeping(5).await?;
    for pid in mark.processes() {
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    }
    let children = format!("/proc/{worker}/task/{worker}/children");
    wait_until(
        "the worker to have its shell for a child and no other",
        async || Ok(std::fs::read_to_string(&children)?.split_whitespace().count() == 1),
    )
    .await?;
    terminal.send("exit 6\n")?;
    ensure!(terminal.wait().await? == 6);
    Ok(())
}

#[tokio::test]
async fn sessions_that_are_terminated_leave_nothing_though_their_clients_vanished() -> Result<()> {
    const SESSIONS: usize = 12;
    let site = Site::start().await?;
    let mark = Mark::new();
    for opened in 1..=SESSIONS {
        let mut terminal = mark.shell(&site).await?;
        terminal.send("(setsid sh -c 'trap \"\" HUP; sleep 1000' > /dev/null 2>&1 &)\nsleep 1000\n")?;
        // the shell of the daemon, its sleep, and the one in front; then the client is killed
        mark.wait_for(3 * opened).await?;
        drop(terminal);
    }
    let active = json!({"State": "Active"});
    let sessions = site.api().call("DescribeSessions", active).await?;
    let sessions = sessions["Sessions"].as_array().context("no sessions")?.clone();
    ensure!(sessions.len() == SESSIONS, "{sessions:?}");
    for session in sessions {
        let session = json!({"SessionId": session["SessionId"]});
        site.api().call("TerminateSession", session).await?;
    }
    mark.wait_for(0).await?;
    site.node.wait_workers(WorkerKind::Session, 0).await?;
    Ok(())
}

#[tokio::test]
async fn what_the_owner_lets_linger_stays_and_the_terminal_is_hung_up_all_the_same() -> Result<()> {
    let mut site = Site::start().await?;
    site.node.kill_daemon().await?;
    site.node
        .configure("[session]\ncreate_user = false\nlinger = true\n")?;
    site.node.start().await?;
    let mark = Mark::new();
    let mut terminal = mark.shell(&site).await?;
    terminal.send(LEAVERS)?;
    mark.wait_for_sleeping(4).await?;
    terminal.send("exit 5\n")?;
    ensure!(terminal.wait().await? == 5);
    site.node.wait_workers(WorkerKind::Session, 0).await?;
    // the plain job went with the terminal
    mark.wait_for(3).await?;

    // Whatever the shell refuses, it ends when it is told to.
    let mut deaf = site.cli().shell(site.node.id()).await?;
    deaf.send("trap '' HUP TERM; echo de''af\n")?;
    deaf.expect("deaf").await?;
    deaf.send("\r~.")?;
    deaf.wait().await?;
    site.node.wait_workers(WorkerKind::Session, 0).await?;
    ensure!(mark.processes().len() == 3);
    Ok(())
}
