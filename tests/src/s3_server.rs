//! An S3 server from PyPI, unmodified, which keeps objects in its memory.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    time::timeout,
};

use crate::{
    aws::python_program,
    process::{Process, bare_environment, run},
    wait::{PATIENCE, wait_for},
};

const LINE: &str = "Running on ";

/// A server with one bucket.
#[derive(Debug)]
pub struct S3Server {
    process: Process,
    url: String,
    bucket: String,
    environment: BTreeMap<String, String>,
    dir: TempDir,
}

impl S3Server {
    /// Starts one and makes the bucket.
    ///
    /// # Errors
    /// It is not installed, or does not come up; the error holds its log.
    pub async fn start(bucket: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut environment = bare_environment(dir.path());
        for (name, value) in [
            ("AWS_ACCESS_KEY_ID", "an-id"),
            ("AWS_SECRET_ACCESS_KEY", "a-secret"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_PAGER", ""),
        ] {
            environment.insert(name.to_owned(), value.to_owned());
        }
        let mut command = Command::new(python_program("moto_server")?);
        command
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env_clear()
            .envs(&environment);
        let mut process = Process::start(&mut command, &dir.path().join("s3.log"))?;
        let url = wait_for("the S3 server's line that it listens", PATIENCE, async || {
            let log = process.log_text();
            let line = log.lines().find_map(|line| line.split_once(LINE));
            if line.is_none() {
                process.check_alive()?;
            }
            Ok(line.map(|(_, url)| url.trim().to_owned()))
        })
        .await?;
        let server = Self {
            process,
            url,
            bucket: bucket.to_owned(),
            environment,
            dir,
        };
        server.aws(&["create-bucket", "--bucket", bucket]).await?;
        Ok(server)
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same, for a cable to it.
    ///
    /// # Errors
    /// What it printed is no URL of an address.
    pub fn address(&self) -> Result<SocketAddr> {
        let address = self.url.strip_prefix("http://").unwrap_or(&self.url);
        address
            .parse()
            .with_context(|| format!("{} is no address", self.url))
    }

    /// A file with credentials that it takes, as our endpoint reads them.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn credentials(&self) -> Result<PathBuf> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = self.dir.path().join("credentials");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        std::io::Write::write_all(
            &mut file,
            b"AWS_ACCESS_KEY_ID=an-id\nAWS_SECRET_ACCESS_KEY=a-secret\n",
        )?;
        Ok(path)
    }

    /// The names of all objects, as the AWS CLI sees them.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn objects(&self) -> Result<Vec<String>> {
        let listed = self
            .aws(&["list-objects-v2", "--bucket", &self.bucket, "--output", "json"])
            .await?;
        let listed: Value = match listed.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text)?,
        };
        let objects = listed["Contents"].as_array().cloned().unwrap_or_default();
        objects
            .iter()
            .map(|object| {
                Ok(object["Key"]
                    .as_str()
                    .context("an object without name")?
                    .to_owned())
            })
            .collect()
    }

    /// Makes an object of a file.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn put(&self, key: &str, file: &Path) -> Result<()> {
        let file = file.display().to_string();
        self.aws(&[
            "put-object",
            "--bucket",
            &self.bucket,
            "--key",
            key,
            "--body",
            &file,
        ])
        .await?;
        Ok(())
    }

    /// Lets everybody read an object.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn publish(&self, key: &str) -> Result<()> {
        self.aws(&[
            "put-object-acl",
            "--bucket",
            &self.bucket,
            "--key",
            key,
            "--acl",
            "public-read",
        ])
        .await?;
        Ok(())
    }

    /// Makes an object of each file of a folder, below `prefix`.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn put_folder(&self, prefix: &str, folder: &Path) -> Result<()> {
        let (folder, to) = (
            folder.display().to_string(),
            format!("s3://{}/{prefix}", self.bucket),
        );
        let arguments = [
            "--endpoint-url",
            &self.url,
            "s3",
            "cp",
            "--recursive",
            "--quiet",
            &folder,
            &to,
        ];
        let finished = run(
            python_program("aws")?,
            &arguments,
            &self.environment,
            None,
            PATIENCE,
        )
        .await?;
        finished.success()?;
        Ok(())
    }

    /// The bytes of an object, as `aws s3 cp` brings them.
    ///
    /// # Errors
    /// It is not there.
    pub async fn read(&self, key: &str) -> Result<Vec<u8>> {
        let file = self.dir.path().join("read");
        let to = file.display().to_string();
        let from = format!("s3://{}/{key}", self.bucket);
        let arguments = ["--endpoint-url", &self.url, "s3", "cp", "--quiet", &from, &to];
        run(
            python_program("aws")?,
            &arguments,
            &self.environment,
            None,
            PATIENCE,
        )
        .await?
        .success()?;
        Ok(std::fs::read(&file)?)
    }

    /// Makes another bucket.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn create_bucket(&self, bucket: &str) -> Result<()> {
        self.aws(&["create-bucket", "--bucket", bucket]).await?;
        Ok(())
    }

    /// The ids of uploads in parts that are under way. Asked without the AWS CLI, since they do not last.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn uploads(&self) -> Result<Vec<String>> {
        let address = self.url.strip_prefix("http://").context("another URL")?;
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request = format!("GET /{}?uploads HTTP/1.0\r\nHost: {address}\r\n\r\n", self.bucket);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await??;
        ensure!(answer.contains("ListMultipartUploadsResult"), "{answer}");
        let ids = answer.split("<UploadId>").skip(1);
        Ok(ids
            .filter_map(|rest| Some(rest.split_once("</UploadId>")?.0.to_owned()))
            .collect())
    }

    async fn aws(&self, arguments: &[&str]) -> Result<String> {
        let arguments = [&["--endpoint-url", &self.url, "s3api"], arguments].concat();
        let finished = run(
            python_program("aws")?,
            &arguments,
            &self.environment,
            None,
            PATIENCE,
        )
        .await?;
        Ok(finished.success()?.stdout)
    }

    /// `kill -9`; what it kept is gone.
    ///
    /// # Errors
    /// It was not running.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await
    }
}
