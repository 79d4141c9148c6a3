//! An SSH server for one test: the real `sshd` on loopback, and a key that it takes.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
};

use anyhow::Result;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    ReservedPort,
    process::{Process, is_root, run, skipped},
    wait::{PATIENCE, wait_until},
};

const SERVER: &str = "/usr/sbin/sshd";
const KEYGEN: &str = "/usr/bin/ssh-keygen";

/// It ends with its value.
#[derive(Debug)]
pub struct SshServer {
    _process: Process,
    port: ReservedPort,
    dir: TempDir,
}

impl SshServer {
    /// Lets root in with a key of its own. `None`, with the reason said, where it cannot run, or one of these programs
    /// is missing.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(environment: &BTreeMap<String, String>, programs: &[&str]) -> Result<Option<Self>> {
        let mut all = [SERVER, KEYGEN].iter().chain(programs);
        if let Some(missing) = all.find(|program| !Path::new(program).exists()) {
            skipped(&format!("there is no {missing}"));
            return Ok(None);
        }
        if !is_root() {
            skipped("only root can run an SSH server");
            return Ok(None);
        }
        let dir = tempfile::tempdir()?;
        for key in ["host", "user"] {
            let path = dir.path().join(key).display().to_string();
            let words = ["-q", "-t", "ed25519", "-N", "", "-f", &path];
            run(KEYGEN, &words, environment, None, PATIENCE)
                .await?
                .success()?;
        }
        let port = ReservedPort::new()?;
        let config = dir.path().join("sshd_config");
        let place = dir.path().display();
        fs::write(
            &config,
            format!(
                "ListenAddress 127.0.0.1\nPort {}\nHostKey {place}/host\nPidFile none\nStrictModes no\n\
                 AuthorizedKeysFile {place}/user.pub\nUsePAM no\nSubsystem sftp internal-sftp\n",
                port.number()
            ),
        )?;
        fs::create_dir_all("/run/sshd")?;
        let mut command = Command::new(SERVER);
        command
            .args(["-D", "-e", "-f"])
            .arg(&config)
            .env_clear()
            .envs(environment);
        let process = Process::start(&mut command, &dir.path().join("sshd.log"))?;
        wait_until("the SSH server to listen", async || {
            Ok(TcpStream::connect(port.address()).is_ok())
        })
        .await?;
        Ok(Some(Self {
            _process: process,
            port,
            dir,
        }))
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The private key that it takes.
    pub fn key(&self) -> PathBuf {
        self.dir.path().join("user")
    }
}
