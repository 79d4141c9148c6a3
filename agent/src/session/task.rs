//! What daemon and worker tell each other: the task on the worker's standard input, the outcome on its standard
//! output. One process of the same build reads what another wrote, so the forms are ours to change.

use std::path::PathBuf;

use moorline_protocol::{message::StartSessionContent, sigv4::Credentials};
use serde::{Deserialize, Serialize};

use crate::{
    config::{ForwardConfig, SessionConfig, TranscriptConfig},
    identity::Learned,
    runtime::RoleCredentials,
};

/// A session to serve. Holds credentials: it has no `Debug`, and it travels by pipe only.
#[derive(Serialize, Deserialize)]
pub(super) struct SessionTask {
    pub(super) content: StartSessionContent,
    pub(super) state_dir: PathBuf,
    pub(super) credentials: Option<HandedCredentials>,
    pub(super) learned: Learned,
    /// What the node's owner says about sessions.
    pub(super) settings: SessionConfig,
    /// Whether the endpoint knows the key that seals transcripts.
    #[serde(default)]
    pub(super) seals: bool,
    /// Folder of the owner's policy.
    pub(super) policy_folder: PathBuf,
    /// Where port sessions may lead.
    pub(super) forward: ForwardConfig,
    /// How sessions are recorded.
    #[serde(default)]
    pub(super) transcript: TranscriptConfig,
}

/// Role credentials on their way into a worker.
#[derive(Serialize, Deserialize)]
pub(super) struct HandedCredentials {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expires_at: u64,
}

impl From<RoleCredentials> for HandedCredentials {
    fn from(role: RoleCredentials) -> Self {
        Self {
            access_key_id: role.credentials.access_key_id,
            secret_access_key: role.credentials.secret_access_key,
            session_token: role.credentials.session_token,
            expires_at: role.expires_at,
        }
    }
}

impl From<HandedCredentials> for RoleCredentials {
    fn from(handed: HandedCredentials) -> Self {
        Self {
            credentials: Credentials {
                access_key_id: handed.access_key_id,
                secret_access_key: handed.secret_access_key,
                session_token: handed.session_token,
            },
            expires_at: handed.expires_at,
        }
    }
}

/// Exit code of a worker that serves nothing, since another one does; it says nothing else.
pub(super) const EXIT_SERVED_ELSEWHERE: u8 = 75;

/// How a session ended, as `agent_task_complete` will say it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SessionOutcome {
    pub(super) status: SessionStatus,
    /// Why it failed; empty on success.
    pub(super) output: String,
    /// Exit code of the shell, 128 + signal when a signal ended it.
    pub(super) exit_code: Option<i32>,
}

/// `FinalTaskStatus` of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SessionStatus {
    Failed,
    Success,
}

impl SessionStatus {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "Failed",
            Self::Success => "Success",
        }
    }
}

/// The longest reason that is told; it ends up on a terminal.
const MAX_OUTPUT_CHARS: usize = 2000;

impl SessionOutcome {
    pub(super) fn success(exit_code: Option<i32>) -> Self {
        Self {
            status: SessionStatus::Success,
            output: String::new(),
            exit_code,
        }
    }

    /// By nobody's fault, and nobody's who used it.
    pub(super) fn stopped(reason: &str) -> Self {
        Self {
            status: SessionStatus::Success,
            ..Self::failed(reason)
        }
    }

    pub(super) fn failed(reason: &str) -> Self {
        Self {
            status: SessionStatus::Failed,
            output: reason.chars().take(MAX_OUTPUT_CHARS).collect(),
            exit_code: None,
        }
    }

    /// The outcome in the last line of what a worker wrote.
    pub(super) fn from_last_line(stdout: &[u8]) -> Option<Self> {
        let line = stdout
            .rsplit(|byte| *byte == b'\n')
            .find(|line| !line.trim_ascii().is_empty())?;
        serde_json::from_slice(line).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_is_the_last_line_whatever_came_before() {
        let outcome = SessionOutcome::success(Some(7));
        let line = serde_json::to_string(&outcome).unwrap();
        assert_eq!(line, r#"{"status":"Success","output":"","exit_code":7}"#);
        for stdout in [line.clone(), format!("{line}\n"), format!("chatter\n{line}\n \n")] {
            assert_eq!(
                SessionOutcome::from_last_line(stdout.as_bytes()),
                Some(outcome.clone())
            );
        }
        assert_eq!(SessionOutcome::from_last_line(b""), None);
        assert_eq!(
            SessionOutcome::from_last_line(format!("{line}\nlast words").as_bytes()),
            None
        );
    }

    #[test]
    fn a_reason_is_cut() {
        let outcome = SessionOutcome::failed(&"é".repeat(5000));
        assert_eq!(outcome.output.chars().count(), MAX_OUTPUT_CHARS);
    }
}
