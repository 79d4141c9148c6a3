//! A control endpoint of one test.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use moorline_protocol::sigv4::Credentials;
use moorline_transport::{Endpoint as Host, Trust};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    Api, CrashDisk, ReservedPort,
    process::{Process, bare_environment, kill_process, run},
    programs::program,
    raw_http::raw_request,
    wait::{PATIENCE, wait_until},
};

/// A real `moorline-control`, with its state in a temporary directory.
#[derive(Debug)]
pub struct Endpoint {
    /// The process goes before its directory.
    process: Option<Process>,
    arguments: Vec<String>,
    state_dir: PathBuf,
    home: PathBuf,
    /// Its own also while it is down.
    port: ReservedPort,
    environment: BTreeMap<String, String>,
    api: Api,
    _dir: TempDir,
}

impl Endpoint {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    /// It does not come up; the error holds its log.
    pub async fn start() -> Result<Self> {
        Self::start_named(&[]).await
    }

    /// Starts one that operators and nodes reach by these names, the first of which `admin.env` has; none: by its
    /// own default.
    ///
    /// # Errors
    /// It does not come up; the error holds its log.
    pub async fn start_named(names: &[&str]) -> Result<Self> {
        let arguments: Vec<&str> = names.iter().flat_map(|name| ["--name", name]).collect();
        Self::start_serving(&arguments).await
    }

    /// Starts one with more arguments to `serve`.
    ///
    /// # Errors
    /// It does not come up; the error holds its log.
    pub async fn start_serving(arguments: &[&str]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let state_dir = dir.path().join("control");
        Self::start_with(arguments, dir, state_dir).await
    }

    /// Starts one whose state lies in a directory of the test's, which outlives it.
    ///
    /// # Errors
    /// It does not come up; the error holds its log.
    pub async fn start_in(state_dir: &Path) -> Result<Self> {
        Self::start_with(&[], tempfile::tempdir()?, state_dir.to_owned()).await
    }

    async fn start_with(arguments: &[&str], dir: TempDir, state_dir: PathBuf) -> Result<Self> {
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let home = dir.path().join("home");
        std::fs::create_dir_all(&home)?;
        let port = ReservedPort::new()?;
        let process = serve(&state_dir, dir.path(), &arguments, port.address()).await?;
        let environment = operator_environment(&state_dir, &home).await?;
        let api = api(&environment, &state_dir, port.address())?;
        Ok(Self {
            process: Some(process),
            arguments,
            state_dir,
            home,
            port,
            environment,
            api,
            _dir: dir,
        })
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// It was not running.
    pub async fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the endpoint is not running")?;
        process.kill().await
    }

    /// Its machine loses its power: it ends at once, and its disk does no more.
    ///
    /// # Errors
    /// It was not running.
    pub async fn lose_power(&mut self, disk: &CrashDisk) -> Result<()> {
        let mut process = self.process.take().context("the endpoint is not running")?;
        disk.freeze();
        kill_process(process.pid());
        disk.off();
        process.kill().await
    }

    /// Asks it to stop, as a service manager does, and waits until it has.
    ///
    /// # Errors
    /// It was not running, or does not end.
    pub async fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the endpoint is not running")?;
        process.stop().await
    }

    /// Starts it again at the same port with the same state, and waits until it listens.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn start_again(&mut self) -> Result<()> {
        let directory = self
            .home
            .parent()
            .context("the home lies in the test's directory")?;
        let process = serve(&self.state_dir, directory, &self.arguments, self.address()).await?;
        self.process = Some(process);
        Ok(())
    }

    /// Fails when the process has ended by itself.
    ///
    /// # Errors
    /// It has.
    pub fn check_alive(&mut self) -> Result<()> {
        self.process
            .as_mut()
            .context("the endpoint is not running")?
            .check_alive()
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<i32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The URL by which nodes and operators reach it directly.
    pub fn url(&self) -> String {
        format!("https://{}", self.address())
    }

    /// The certificate of its CA.
    pub fn ca(&self) -> PathBuf {
        self.state_dir.join("ca.pem")
    }

    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// A home directory for clients, with nothing in it.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// What a shell has after `. DIR/admin.env`, and nothing else.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// The first administrator's client.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// What `/metrics` says.
    ///
    /// # Errors
    /// It does not answer with 200.
    pub async fn metrics(&self) -> Result<String> {
        self.get("/metrics").await
    }

    /// An unsigned GET of a page for operators' machinery.
    ///
    /// # Errors
    /// It does not answer with 200.
    pub async fn get(&self, path: &str) -> Result<String> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address()
        );
        let answer = raw_request(self, request.as_bytes()).await?;
        ensure!(answer.status == 200, "{path}: {}", answer.text);
        Ok(answer.text)
    }

    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log_text).unwrap_or_default()
    }
}

async fn serve(
    state_dir: &Path,
    directory: &Path,
    arguments: &[String],
    listen: SocketAddr,
) -> Result<Process> {
    let mut command = Command::new(program("moorline-control")?);
    command
        .args(["serve", "--listen", &listen.to_string(), "--state-dir"])
        .arg(state_dir)
        .args(arguments)
        .env_clear()
        .envs(bare_environment(directory));
    let log = directory.join("control.log");
    let before = std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
    let before = usize::try_from(before)?;
    let mut process = Process::start(&mut command, &log)?;
    wait_until("the endpoint's line that it listens", async || {
        let log = process.log_text();
        let is_there = log.get(before..).is_some_and(|log| listens(log, listen));
        if !is_there {
            process.check_alive()?;
        }
        Ok(is_there)
    })
    .await?;
    Ok(process)
}

/// Whether the endpoint has printed that it listens there.
fn listens(log: &str, address: SocketAddr) -> bool {
    let address = address.to_string();
    log.lines()
        .any(|line| line.contains("listen") && line.contains(&address))
}

/// Sources `admin.env` in a shell, as an operator does.
async fn operator_environment(state_dir: &Path, home: &Path) -> Result<BTreeMap<String, String>> {
    let bare = bare_environment(home);
    let file = state_dir.join("admin.env").display().to_string();
    let arguments = ["-c", ". \"$1\" && exec env -0", "sh", &file];
    let sourced = run("/bin/sh", &arguments, &bare, None, PATIENCE)
        .await?
        .success()?;
    let pairs = sourced.stdout.split('\0').filter_map(|pair| pair.split_once('='));
    Ok(pairs
        .filter(|(name, _)| !matches!(*name, "PWD" | "SHLVL" | "_" | "OLDPWD"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

fn api(environment: &BTreeMap<String, String>, state_dir: &Path, address: SocketAddr) -> Result<Api> {
    let variable = |name: &str| {
        let value = environment.get(name).cloned();
        value.with_context(|| format!("admin.env does not export {name}"))
    };
    let credentials = Credentials {
        access_key_id: variable("AWS_ACCESS_KEY_ID")?,
        secret_access_key: variable("AWS_SECRET_ACCESS_KEY")?,
        session_token: None,
    };
    let trust = Trust::ca_file(&state_dir.join("ca.pem"))?;
    let host = Host::parse(&format!("https://{address}"))?;
    Ok(Api::new(
        host,
        trust,
        credentials,
        &variable("AWS_DEFAULT_REGION")?,
    ))
}
