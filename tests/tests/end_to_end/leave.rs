//! `~.` leaves a session, whatever hangs: the endpoint, the node, the user's own terminal.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use moorline_tests::{Site, Terminal, WorkerKind};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use tokio::time::Instant;

/// Who leaves is gone within three seconds, of which the client may use all; the rest is for a machine that is busy.
/// Whoever waited for what hangs would wait for ever.
const LEFT_WITHIN: Duration = Duration::from_secs(3 + 7);

/// A process that stands still until this is dropped.
pub(crate) struct Stopped(Pid);

impl Stopped {
    pub(crate) fn new(pid: i32) -> Result<Self> {
        let pid = Pid::from_raw(pid);
        kill(pid, Signal::SIGSTOP)?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _gone = kill(self.0, Signal::SIGCONT);
    }
}

/// Returns the exit code.
async fn leave(terminal: &mut Terminal) -> Result<i32> {
    let started = Instant::now();
    terminal.send("\r~.")?;
    let code = terminal.wait().await?;
    let took = started.elapsed();
    ensure!(took <= LEFT_WITHIN, "it took {took:?}: {}", terminal.text());
    Ok(code)
}

async fn used_shell(site: &Site) -> Result<Terminal> {
    let mut terminal = site.cli().at_terminal(&["shell", site.node.id()])?;
    terminal.send("echo first-$((1+1))\n")?;
    terminal.expect("first-2").await?;
    Ok(terminal)
}

#[tokio::test]
async fn a_session_is_left_though_the_endpoint_hangs_and_can_be_attached_to_after_it() -> Result<()> {
    let site = Site::start().await?;
    let mut terminal = used_shell(&site).await?;
    let stopped = Stopped::new(site.endpoint.pid().context("the endpoint runs")?)?;
    let code = leave(&mut terminal).await?;
    ensure!(code == 255, "{code}: {}", terminal.text());
    terminal
        .expect("was not terminated: the endpoint does not answer")
        .await?;
    drop(stopped);
    let mut again = site.cli().at_terminal(&["attach"])?;
    again.expect("first-2").await?;
    again.send("exit 5\n")?;
    ensure!(again.wait().await? == 5, "{}", again.text());
    Ok(())
}

/// Who leaves does not wait long for the endpoint's answer. On a busy machine it may come too late at times, and the
/// session is not ended; not each time.
const ATTEMPTS: u32 = 5;

/// Ends what was left and goes on; whether there was nothing.
async fn all_had_ended(site: &Site) -> Result<bool> {
    let open = site
        .api()
        .call("DescribeSessions", json!({"State": "Active"}))
        .await?;
    let open = open["Sessions"].as_array().context("no list")?;
    for session in open {
        let session = json!({"SessionId": session["SessionId"]});
        site.api().call("TerminateSession", session).await?;
    }
    site.node.wait_workers(WorkerKind::Session, 0).await?;
    Ok(open.is_empty())
}

#[tokio::test]
async fn a_session_is_left_and_ended_though_its_node_hangs() -> Result<()> {
    let site = Site::start().await?;
    for _ in 0..ATTEMPTS {
        let mut terminal = used_shell(&site).await?;
        let worker = site.node.wait_workers(WorkerKind::Session, 1).await?[0];
        let stopped = Stopped::new(worker)?;
        let code = leave(&mut terminal).await?;
        let (expected, said) = match code {
            0 => (0, "session terminated"),
            _ => (255, "was not terminated: the endpoint does not answer"),
        };
        ensure!(code == expected, "{code}: {}", terminal.text());
        terminal.expect(said).await?;
        drop(stopped);
        if all_had_ended(&site).await? && code == 0 {
            return Ok(());
        }
    }
    bail!("no session was ended")
}

/// Nothing that is written to the terminal returns, not even the last word.
#[tokio::test]
async fn a_session_is_left_and_ended_though_the_users_terminal_takes_nothing() -> Result<()> {
    let site = Site::start().await?;
    for _ in 0..ATTEMPTS {
        let mut terminal = used_shell(&site).await?;
        terminal.send("yes\n")?;
        terminal.expect("y\r\ny\r\n").await?;
        terminal.stop_output()?;
        let code = leave(&mut terminal).await?;
        ensure!(code == 255, "{code}: {}", terminal.text());
        if all_had_ended(&site).await? {
            return Ok(());
        }
    }
    bail!("no session was ended")
}
