//! `moorline forward`, as it runs beside the programs that use it.

use std::process::Stdio;

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStderr, ChildStdout},
    time::timeout,
};

use crate::{Cli, wait::PATIENCE};

/// A running `moorline forward`.
#[derive(Debug)]
pub struct Forward {
    _child: Child,
    address: String,
    remarks: Lines<BufReader<ChildStderr>>,
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Forward {
    /// Forwards a port of a node to a local one, until it is dropped.
    ///
    /// # Errors
    /// It does not serve.
    pub async fn start(cli: &Cli, node: &str, spec: &str) -> Result<Self> {
        Self::start_with(cli, node, spec, &[]).await
    }

    /// As [`Self::start`], with further options.
    ///
    /// # Errors
    /// It does not serve.
    pub async fn start_with(cli: &Cli, node: &str, spec: &str, options: &[&str]) -> Result<Self> {
        let words = [&["--json", "forward", node, spec], options].concat();
        let mut child = cli
            .command(&words)?
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("stdout")?).lines();
        let remarks = BufReader::new(child.stderr.take().context("stderr")?).lines();
        let line = timeout(PATIENCE, stdout.next_line()).await??;
        let said: serde_json::Value = serde_json::from_str(&line.context("it ended")?)?;
        Ok(Self {
            address: said["Address"].as_str().context("no address")?.to_owned(),
            _child: child,
            remarks,
            _stdout: stdout,
        })
    }

    /// The local address, as `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The local port.
    pub fn port(&self) -> &str {
        self.address.rsplit_once(':').map_or("", |(_, port)| port)
    }

    /// # Errors
    /// It accepts nothing.
    pub async fn connect(&self) -> Result<TcpStream> {
        Ok(TcpStream::connect(&self.address).await?)
    }

    /// Waits for a line on its standard error that tells of this.
    ///
    /// # Errors
    /// There is none.
    pub async fn remark(&mut self, text: &str) -> Result<()> {
        loop {
            let line = timeout(PATIENCE, self.remarks.next_line()).await??;
            if line.context("it ended without a word")?.contains(text) {
                return Ok(());
            }
        }
    }
}
