//! `moorline`, while it runs.

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStderr},
    time::timeout,
};

use crate::{Cli, wait::PATIENCE};

/// A `moorline` with `--json`, without input; it ends with its handle.
#[derive(Debug)]
pub struct Running {
    process: Child,
    told: Lines<BufReader<ChildStderr>>,
}

impl Running {
    /// # Errors
    /// It cannot be started.
    pub fn start(cli: &Cli, words: &[&str]) -> Result<Self> {
        let mut process = cli.start(words)?;
        let stderr = process.stderr.take().context("no standard error")?;
        Ok(Self {
            process,
            told: BufReader::new(stderr).lines(),
        })
    }

    /// Waits for a line on its standard error that tells of this.
    ///
    /// # Errors
    /// There is none.
    pub async fn tells(&mut self, part: &str) -> Result<()> {
        loop {
            let line = timeout(PATIENCE, self.told.next_line()).await;
            let line = line.with_context(|| format!("it does not tell {part:?}"))??;
            if line
                .with_context(|| format!("it ended without {part:?}"))?
                .contains(part)
            {
                return Ok(());
            }
        }
    }

    /// As Ctrl-C does.
    ///
    /// # Errors
    /// It has ended.
    pub fn interrupt(&self) -> Result<()> {
        self.signal(Signal::SIGINT)
    }

    /// As a supervisor does that wants it to end.
    ///
    /// # Errors
    /// It has ended.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::SIGTERM)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.process.id().context("it has ended")?;
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// It cannot be killed.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.process.kill().await?)
    }

    /// Its exit code, of one that reports nothing.
    ///
    /// # Errors
    /// It does not end.
    pub async fn code(mut self) -> Result<Option<i32>> {
        Ok(timeout(PATIENCE, self.process.wait()).await??.code())
    }

    /// Its exit code, and what it reports as JSON. What it waits for may take its time.
    ///
    /// # Errors
    /// It does not end, or reports nothing.
    pub async fn ends(mut self) -> Result<(Option<i32>, Value)> {
        let mut report = Vec::new();
        let mut stdout = self.process.stdout.take().context("no standard output")?;
        timeout(3 * PATIENCE, stdout.read_to_end(&mut report)).await??;
        let code = timeout(PATIENCE, self.process.wait()).await??.code();
        Ok((code, serde_json::from_slice(&report).context("no report")?))
    }
}
