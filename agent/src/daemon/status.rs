//! What `status` shows: a small file that the daemon keeps, best effort, in its state directory.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::{identity::Registration, runtime::ProcessKey};

/// Whether the control channel stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Channel {
    Connected { since_unix_millis: u64 },
    Connecting { last_error: Option<String> },
}

/// The file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StatusFile {
    process: ProcessKey,
    channel: Channel,
}

/// Writes the status whenever it changes. A full disk costs only the freshness of `status`.
#[derive(Debug)]
pub(super) struct StatusWriter {
    path: PathBuf,
}

impl StatusWriter {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            path: status_path(state_dir),
        }
    }

    pub(super) fn write(&self, channel: Channel) {
        let Some(process) = i32::try_from(std::process::id()).ok().and_then(ProcessKey::of) else {
            return;
        };
        if let Err(error) = self.replace(&StatusFile { process, channel }) {
            tracing::debug!(%error, path = %self.path.display(), "status file not written");
        }
    }

    fn replace(&self, status: &StatusFile) -> std::io::Result<()> {
        let temporary = self.path.with_extension("json.new");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&serde_json::to_vec(status)?)?;
        fs::rename(&temporary, &self.path)
    }
}

fn status_path(state_dir: &Path) -> PathBuf {
    state_dir.join("status.json")
}

/// `moorline-agent status`.
#[expect(clippy::print_stdout, reason = "this is what a command line answers on")]
pub(super) fn show(state_dir: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let registration = Registration::load(state_dir)?;
    let status = fs::read(status_path(state_dir))
        .ok()
        .and_then(|text| serde_json::from_slice::<StatusFile>(&text).ok())
        .filter(|status| status.process.is_alive());
    let connected = matches!(
        &status,
        Some(StatusFile {
            channel: Channel::Connected { .. },
            ..
        })
    );
    let endpoint = registration
        .services
        .endpoint(moorline_transport::Service::SsmMessages)
        .url();
    if json {
        let since = status.as_ref().and_then(|status| match status.channel {
            Channel::Connected { since_unix_millis } => Some(since_unix_millis),
            Channel::Connecting { .. } => None,
        });
        let last_error = status.as_ref().and_then(|status| match &status.channel {
            Channel::Connecting { last_error } => last_error.clone(),
            Channel::Connected { .. } => None,
        });
        let report = serde_json::json!({
            "InstanceId": registration.instance_id,
            "Endpoint": endpoint,
            "Running": status.is_some(),
            "ProcessId": status.as_ref().map(|status| status.process.pid),
            "Connected": connected,
            "ConnectedSinceUnixMillis": since,
            "LastError": last_error,
        });
        println!(
            "{}",
            serde_json::to_string_pretty(&report).context("failed to write JSON")?
        );
    } else {
        println!("managed node  {}", registration.instance_id);
        println!("endpoint      {endpoint}");
        println!("agent         {}", describe(status.as_ref()));
    }
    Ok(if connected {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn describe(status: Option<&StatusFile>) -> String {
    match status {
        None => "not running".to_owned(),
        Some(StatusFile { process, channel }) => match channel {
            Channel::Connected { since_unix_millis } => {
                let since = i64::try_from(*since_unix_millis)
                    .ok()
                    .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
                let since = since.map_or_else(|| "?".to_owned(), |since| format!("{since:.0}"));
                format!("running (process {}), connected since {since}", process.pid)
            }
            Channel::Connecting { last_error: None } => {
                format!("running (process {}), connecting", process.pid)
            }
            Channel::Connecting {
                last_error: Some(error),
            } => {
                format!("running (process {}), not connected: {error}", process.pid)
            }
        },
    }
}
