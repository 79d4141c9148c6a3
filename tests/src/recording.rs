//! A transcript as an auditor gets it: exported, and verified with public keys.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{Cli, PATIENCE, wait_for};

/// A recording that was verified.
#[derive(Debug)]
pub struct Recording {
    pub session: String,
    pub header: Value,
    /// Seconds, code, text.
    pub events: Vec<(f64, String, String)>,
    /// The file.
    pub text: String,
}

impl Recording {
    /// Waits until the newest transcript is closed, exports it into this folder and has it verified.
    ///
    /// # Errors
    /// It is not closed in time, or not intact.
    pub async fn newest(cli: &Cli, folder: &Path) -> Result<Self> {
        Self::complete(cli, folder, &[]).await
    }

    /// The same of the newest transcript of this command.
    ///
    /// # Errors
    /// It is not closed in time, or not intact.
    pub async fn of_command(cli: &Cli, folder: &Path, command_id: &str) -> Result<Self> {
        Self::complete(cli, folder, &["--command", command_id]).await
    }

    async fn complete(cli: &Cli, folder: &Path, filter: &[&str]) -> Result<Self> {
        let arguments = [&["transcript", "list", "--json"], filter].concat();
        let session = wait_for("the transcript to be complete", PATIENCE, async || {
            let listed = cli.run(&arguments).await?;
            let listed = listed.success()?.json()?;
            let newest = &listed[0];
            let session = newest["SessionId"].as_str().map(str::to_owned);
            Ok(session.filter(|_| newest["Complete"] == true))
        })
        .await?;
        let (file, keys) = (folder.join("session.cast"), folder.join("keys.json"));
        let (file_name, keys_name) = (file.display().to_string(), keys.display().to_string());
        cli.run(&["transcript", "keys", "--out", &keys_name])
            .await?
            .success()?;
        cli.run(&["transcript", "export", &session, "--out", &file_name])
            .await?
            .success()?;
        Cli::without_endpoint()
            .run(&["transcript", "verify", &file_name, "--keys", &keys_name])
            .await?
            .success()?;
        let text = std::fs::read_to_string(&file)?;
        std::fs::remove_file(&file)?;
        std::fs::remove_file(&keys)?;
        let mut lines = text.lines();
        let header = serde_json::from_str(lines.next().context("the transcript is empty")?)?;
        let events = lines
            .map(|line| Ok(serde_json::from_str(line)?))
            .collect::<Result<_>>()?;
        Ok(Self {
            session,
            header,
            events,
            text,
        })
    }

    /// The texts of all events with this code, one behind the other.
    pub fn texts(&self, code: &str) -> String {
        let events = self.events.iter().filter(|(_, known, _)| known == code);
        events.map(|(_, _, text)| text.as_str()).collect()
    }

    /// The events of ours with this name.
    ///
    /// # Errors
    /// One is no JSON.
    pub fn ours(&self, name: &str) -> Result<Vec<Value>> {
        let mut found = Vec::new();
        for (_, _, text) in self.events.iter().filter(|(_, code, _)| code == "e") {
            let event: Value = serde_json::from_str(text)?;
            if event["event"] == name {
                found.push(event);
            }
        }
        ensure!(
            found.iter().all(Value::is_object),
            "an event of ours is no object: {found:?}"
        );
        Ok(found)
    }
}
