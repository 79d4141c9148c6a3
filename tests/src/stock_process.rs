//! The real stock agent, for who has it: unmodified, in namespaces of its own, since its directories are fixed and it
//! makes users.

use std::path::Path;

use anyhow::{Result, ensure};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    Endpoint,
    process::{Process, bare_environment},
};

/// A running `amazon-ssm-agent`. It ends, with its workers, when it is dropped: their process namespace goes.
#[derive(Debug)]
pub struct StockProcess {
    _process: Process,
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
            _process: Process::start(&mut command, &dir.path().join("stock-agent.log"))?,
            _dir: dir,
        })
    }
}
