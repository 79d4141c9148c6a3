//! A git server for one test: `git daemon` on loopback, with one repository.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    ReservedPort,
    process::{Process, bare_environment, run, skipped},
    wait::{PATIENCE, wait_until},
};

/// Where git is on every distribution.
const GIT: &str = "/usr/bin/git";

/// It ends with its value.
#[derive(Debug)]
pub struct GitServer {
    _process: Process,
    port: ReservedPort,
    dir: TempDir,
}

impl GitServer {
    /// Serves a repository with these files (path and text) on its branch `main`. `None`, with the reason said, where
    /// there is no git.
    ///
    /// # Errors
    /// git fails.
    pub async fn start(files: &[(&str, &str)]) -> Result<Option<Self>> {
        if !Path::new(GIT).is_file() {
            skipped("there is no git");
            return Ok(None);
        }
        let dir = tempfile::tempdir()?;
        let environment = bare_environment(dir.path());
        let work = dir.path().join("work");
        fs::create_dir(&work)?;
        for (name, text) in files {
            let path = work.join(name);
            fs::create_dir_all(path.parent().context("a file has a folder")?)?;
            fs::write(path, text)?;
        }
        for arguments in [
            &["init", "--quiet", "--initial-branch", "main"][..],
            &["add", "."],
            &["commit", "--quiet", "--message", "first"],
        ] {
            git(&work, arguments, &environment).await?;
        }
        let port = ReservedPort::new()?;
        let address = port.address();
        let mut command = Command::new(GIT);
        command
            .args(["daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1"])
            .arg(format!("--port={}", address.port()))
            .arg(format!("--base-path={}", dir.path().display()))
            .env_clear()
            .envs(&environment);
        let process = Process::start(&mut command, &dir.path().join("git.log"))?;
        let server = Self {
            _process: process,
            port,
            dir,
        };
        wait_until("git to serve", async || Ok(TcpStream::connect(address).is_ok())).await?;
        Ok(Some(server))
    }

    /// Where the repository is, with its work tree.
    pub fn work_tree(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// Does something in the repository, and returns what git said.
    ///
    /// # Errors
    /// git fails.
    pub async fn git(&self, arguments: &[&str]) -> Result<String> {
        git(&self.work_tree(), arguments, &bare_environment(self.dir.path())).await
    }

    /// Of the repository.
    pub fn url(&self) -> String {
        format!("git://{}/work", self.port.address())
    }
}

async fn git(work: &Path, arguments: &[&str], environment: &BTreeMap<String, String>) -> Result<String> {
    let folder = work.display().to_string();
    let identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"];
    let all = [&["-C", &folder][..], &identity, arguments].concat();
    let done = run(GIT, &all, environment, None, PATIENCE).await?.success()?;
    Ok(done.stdout.trim().to_owned())
}
