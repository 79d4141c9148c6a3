//! The real stock agent, for who has it: unmodified, in namespaces of its own, since its directories are fixed and it
//! makes users.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    Endpoint,
    process::{Process, bare_environment},
};

/// What the kernel calls the agent, and the one of its workers that speaks to the endpoint: at most 15 bytes.
const AGENT: [&str; 2] = ["amazon-ssm-agen", "ssm-agent-worke"];

/// A running `amazon-ssm-agent`. It ends, with its workers, when it is dropped: their process namespace goes.
#[derive(Debug)]
pub struct StockProcess {
    process: Process,
    _dir: TempDir,
}

impl StockProcess {
    /// Registers and starts the agent of `directory` with a script that sets up its surroundings. `url` is how it
    /// reaches the endpoint.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        script: &Path,
        directory: &Path,
        endpoint: &Endpoint,
        url: &str,
        (activation_id, activation_code): (&str, &str),
    ) -> Result<Self> {
        ensure!(
            directory.join("amazon-ssm-agent").is_file(),
            "there is no amazon-ssm-agent in {}",
            directory.display()
        );
        let dir = tempfile::tempdir()?;
        let mut command = Command::new("unshare");
        command
            .args([
                "-m",
                "-p",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "--",
                "/bin/sh",
            ])
            .arg(script)
            .arg(directory)
            .env_clear()
            .envs(bare_environment(dir.path()))
            .env("SSL_CERT_FILE", endpoint.ca())
            .env("ENDPOINT", url)
            .env("ACTIVATION_ID", activation_id)
            .env("ACTIVATION_CODE", activation_code);
        Ok(Self {
            process: Process::start(&mut command, &dir.path().join("stock-agent.log"))?,
            _dir: dir,
        })
    }

    /// `kill -9` of the agent and of the worker that speaks to the endpoint. Both are started again at once; the
    /// workers that run commands and sessions live on, as under the agent's own unit.
    ///
    /// # Errors
    /// They do not run.
    pub fn kill_agent(&self) -> Result<()> {
        let mut killed = 0;
        for pid in descendants(self.process.pid())? {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if AGENT.contains(&name.trim_end()) {
                kill(Pid::from_raw(pid), Signal::SIGKILL)?;
                killed += 1;
            }
        }
        ensure!(killed == AGENT.len(), "{killed} processes of the agent ran");
        Ok(())
    }
}

/// What a process has started, and what that has started.
fn descendants(of: i32) -> Result<Vec<i32>> {
    let mut found = vec![of];
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        // a process may end meanwhile; what follows its name, which may hold anything, is its state and its parent
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if let Some((_, rest)) = stat.rsplit_once(')') {
            let parent = rest.split_whitespace().nth(1).context("no parent")?;
            parents.push((pid, parent.parse::<i32>()?));
        }
    }
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        at += 1;
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
    }
    Ok(found)
}
