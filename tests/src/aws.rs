//! The AWS CLI and boto3 from PyPI, unmodified, after `. admin.env`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{Cli, Endpoint, Finished, Terminal, process::run};

/// Where `cargo xtask test` keeps the clients; without it they are sought in `PATH`.
const VENV: &str = "MOORLINE_TEST_VENV";
/// A Python program takes a second to start on a quiet machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The clients, with our plugin in their `PATH`.
#[derive(Debug)]
pub struct Aws {
    environment: BTreeMap<String, String>,
    aws: PathBuf,
    python: PathBuf,
    _plugin: TempDir,
}

impl Aws {
    /// The clients of an operator of this endpoint.
    ///
    /// # Errors
    /// They are not installed.
    pub fn of(endpoint: &Endpoint) -> Result<Self> {
        let plugin = tempfile::tempdir()?;
        Cli::link_plugin(plugin.path())?;
        let mut environment = endpoint.environment().clone();
        let path = environment.get("PATH").cloned().unwrap_or_default();
        environment.insert("PATH".to_owned(), format!("{}:{path}", plugin.path().display()));
        // neither a pager nor a metadata service may hold a test up
        environment.insert("AWS_PAGER".to_owned(), String::new());
        environment.insert("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned());
        environment.insert("AWS_MAX_ATTEMPTS".to_owned(), "1".to_owned());
        Ok(Self {
            aws: python_program("aws")?,
            python: python_program("python3")?,
            environment,
            _plugin: plugin,
        })
    }

    /// The same clients with another variable set.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The same clients with a `session-manager-plugin` of another directory in place of ours.
    #[must_use]
    pub fn with_plugin(self, directory: &Path) -> Self {
        let path = self.environment.get("PATH").cloned().unwrap_or_default();
        self.with("PATH", &format!("{}:{path}", directory.display()))
    }

    /// Another program of the environment that the clients are in, where it has it.
    pub fn tool(&self, name: &str) -> Option<PathBuf> {
        let path = self.python.with_file_name(name);
        path.is_file().then_some(path)
    }

    /// Runs `aws ssm ARGUMENTS --output json`.
    ///
    /// # Errors
    /// It does not end.
    pub async fn ssm(&self, arguments: &[&str]) -> Result<Finished> {
        self.service("ssm", arguments).await
    }

    /// Runs `aws SERVICE ARGUMENTS --output json`.
    ///
    /// # Errors
    /// It does not end.
    pub async fn service(&self, service: &str, arguments: &[&str]) -> Result<Finished> {
        let mut all = vec![service];
        all.extend(arguments);
        all.extend(["--output", "json"]);
        run(&self.aws, &all, &self.environment, None, LIMIT).await
    }

    /// Starts `aws ssm ARGUMENTS` at a terminal.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn at_terminal(&self, arguments: &[&str]) -> Result<Terminal> {
        let mut command = Command::new(&self.aws);
        command
            .arg("ssm")
            .args(arguments)
            .env_clear()
            .envs(&self.environment);
        Terminal::start(&mut command, 80, 24)
    }

    /// As [`Self::python`], in a mount namespace of its own that has another `/etc/hosts`; for root only.
    ///
    /// # Errors
    /// It does not end.
    pub async fn python_with_hosts(
        &self,
        hosts: &Path,
        script: &Path,
        arguments: &[&str],
    ) -> Result<Finished> {
        const IN_NAMESPACE: &str = r#"mount --bind "$1" /etc/hosts && shift && exec "$@""#;
        let (hosts, python, script) = (
            hosts.display().to_string(),
            self.python.display().to_string(),
            script.display().to_string(),
        );
        let mut all = vec![
            "-m",
            "--",
            "sh",
            "-c",
            IN_NAMESPACE,
            "sh",
            &hosts,
            &python,
            &script,
        ];
        all.extend(arguments);
        run("unshare", &all, &self.environment, None, LIMIT).await
    }

    /// Runs a Python script that uses boto3.
    ///
    /// # Errors
    /// It does not end.
    pub async fn python(&self, script: &Path, arguments: &[&str]) -> Result<Finished> {
        let script = script.display().to_string();
        let mut all = vec![script.as_str()];
        all.extend(arguments);
        run(&self.python, &all, &self.environment, None, LIMIT).await
    }
}

/// A program of the Python environment that `cargo xtask test` makes, or one in `PATH`.
///
/// # Errors
/// It is in neither.
pub fn python_program(name: &str) -> Result<PathBuf> {
    let directories: Vec<PathBuf> = match std::env::var_os(VENV) {
        Some(venv) => vec![Path::new(&venv).join("bin")],
        None => std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect(),
    };
    let found = directories
        .iter()
        .map(|directory| directory.join(name))
        .find(|path| path.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!(
            "there is no `{name}` in {directories:?}; `cargo xtask test` makes the environment that has it"
        ),
    }
}
