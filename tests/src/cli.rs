//! `moorline`, as an operator types it after `. admin.env`.

use std::{collections::BTreeMap, path::Path, process::Stdio};

use anyhow::Result;
use tokio::process::{Child, Command};

use crate::{Endpoint, Finished, Terminal, process::run, programs::program, wait::PATIENCE};

/// The operator's command line.
#[derive(Debug, Clone)]
pub struct Cli {
    environment: BTreeMap<String, String>,
}

impl Cli {
    /// An operator of this endpoint.
    pub fn of(endpoint: &Endpoint) -> Self {
        Self {
            environment: endpoint.environment().clone(),
        }
    }

    /// Somebody who has no endpoint, as an auditor with a file.
    pub fn without_endpoint() -> Self {
        let terminal = ("TERM".to_owned(), "xterm-256color".to_owned());
        Self {
            environment: BTreeMap::from([terminal]),
        }
    }

    /// The same operator, who reaches the endpoint at `url`, as through a cable.
    #[must_use]
    pub fn through(mut self, url: &str) -> Self {
        self.environment
            .insert("AWS_ENDPOINT_URL".to_owned(), url.to_owned());
        self
    }

    /// The same operator with another variable set.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Runs `moorline ARGUMENTS` to its end, without a terminal.
    ///
    /// # Errors
    /// It does not end.
    pub async fn run(&self, arguments: &[&str]) -> Result<Finished> {
        run(program("moorline")?, arguments, &self.environment, None, PATIENCE).await
    }

    /// As [`Self::run`], with something at standard input.
    ///
    /// # Errors
    /// It does not end.
    pub async fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Result<Finished> {
        run(
            program("moorline")?,
            arguments,
            &self.environment,
            Some(input),
            PATIENCE,
        )
        .await
    }

    /// Starts it without input, and goes on while it runs; it ends with its handle.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, words: &[&str]) -> Result<Child> {
        let mut command = self.command(words)?;
        let started = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        Ok(started)
    }

    /// `moorline ARGUMENTS`, to be started with other streams.
    ///
    /// # Errors
    /// The program is not built.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(program("moorline")?);
        command.args(arguments).env_clear().envs(&self.environment);
        Ok(command)
    }

    /// Starts `moorline ARGUMENTS` at a terminal of 80 columns and 24 rows.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn at_terminal(&self, arguments: &[&str]) -> Result<Terminal> {
        Terminal::start(&mut self.command(arguments)?, 80, 24)
    }

    /// Opens a shell and gets it ready: no prompt, and no echo that repeats what is typed. What `moorline` itself
    /// has to say, as of a lost connection, does not go to the screen.
    ///
    /// # Errors
    /// No shell answers.
    pub async fn shell(&self, node: &str) -> Result<Terminal> {
        let mut command = self.command(&["shell", node])?;
        let mut terminal = Terminal::start_with(&mut command, 80, 24, Some(tempfile::tempfile()?))?;
        terminal.send("stty -echo; PS1=; echo rea''dy\n")?;
        terminal.expect("ready").await?;
        Ok(terminal)
    }

    /// Makes `moorline` available under the name by which the AWS CLI starts its plugin, in `directory`.
    ///
    /// # Errors
    /// The link cannot be made.
    pub fn link_plugin(directory: &Path) -> Result<()> {
        let link = directory.join("session-manager-plugin");
        std::os::unix::fs::symlink(program("moorline")?, link)?;
        Ok(())
    }
}
