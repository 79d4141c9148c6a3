//! Whether and how a session is recorded: what the endpoint wants, what the node's owner says (`[transcript]`), and what
//! this node can do.

use std::{io, path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use moorline_protocol::{
    document::{DocumentError, SessionDocument, SessionPlan, SessionType},
    message::StartSessionContent,
    transcript::{DataKey, Encryption, HeaderError, RecordingId, RecordingKind},
    types::SessionId,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::time::Instant;

use super::{
    recorder::{About, MASK, Recorder},
    role_credentials::{CredentialSupply, unix_millis},
    transcript::{SpoolLimits, Transcript, TranscriptPlace},
};
use crate::{
    config::{ConfigError, TranscriptConfig},
    identity::{Registration, TranscriptKey},
    runtime::seal_to,
};

/// Why a session must not begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordingError {
    #[error("the endpoint names {0:?} as the place of the transcript, which is no path")]
    Path(String),
    #[error("the session's id cannot name a recording")]
    Id(#[source] HeaderError),
    #[error(
        "the session cannot be recorded, and this node's owner wants it to be (transcript.required): {0}"
    )]
    Required(Missing),
    #[error(transparent)]
    Document(#[from] DocumentError),
}

/// Why there is no recorder.
#[derive(Debug, thiserror::Error)]
pub(super) enum Missing {
    #[error("the endpoint takes no recordings")]
    NotWanted,
    #[error("the endpoint does not know the key of this node that seals recordings")]
    NotRegistered,
    #[error("there is no key to seal it with: {0}")]
    Key(io::Error),
    #[error("it cannot be encrypted to its recipients: {0}")]
    Recipients(String),
}

/// A session that may be recorded.
pub(super) struct Wish<'a> {
    pub(super) content: &'a StartSessionContent,
    pub(super) document: &'a SessionDocument,
    pub(super) plan: &'a SessionPlan,
    pub(super) session_id: &'a SessionId,
    pub(super) registration: &'a Arc<Registration>,
    pub(super) credentials: &'a Arc<CredentialSupply>,
    pub(super) state_dir: &'a Path,
    pub(super) config: &'a TranscriptConfig,
    /// Whether the endpoint knows the key that seals.
    pub(super) seals: bool,
    /// `None`: nobody's, as of a port session.
    pub(super) user: Option<String>,
    /// What runs.
    pub(super) command: String,
}

/// How it is recorded, if it is.
pub(super) struct Recording {
    pub(super) transcript: Option<Transcript>,
    /// For who uses the session.
    pub(super) notice: Option<String>,
}

/// Makes the recorder. Without one the session is opened or refused, as the node's owner wants.
///
/// # Errors
/// The session must not begin.
pub(super) fn begin(wish: Wish<'_>) -> Result<Recording, RecordingError> {
    let Some(path) = transcript_path(&wish)? else {
        // an endpoint of another kind never records, and nobody who uses it thinks so
        return without(&wish, Missing::NotWanted, wish.registration.is_moorline);
    };
    let recorder = match recorder(&wish)? {
        Ok(recorder) => recorder,
        Err(missing) => return without(&wish, missing, true),
    };
    let place = TranscriptPlace::new(
        Arc::clone(wish.registration),
        Arc::clone(wish.credentials),
        path,
        wish.config.strict,
    );
    let session = (wish.state_dir, wish.session_id.clone());
    let limits = SpoolLimits::new(wish.config);
    Ok(Recording {
        transcript: Some(Transcript::new(
            Arc::new(place),
            recorder,
            session,
            limits,
            Instant::now(),
        )),
        notice: None,
    })
}

fn without(wish: &Wish<'_>, missing: Missing, tells: bool) -> Result<Recording, RecordingError> {
    if wish.config.is_required() {
        return Err(RecordingError::Required(missing));
    }
    tracing::warn!(session_id = %wish.session_id, %missing, "the session is not recorded");
    Ok(Recording {
        transcript: None,
        notice: tells.then(|| format!("this session is not recorded: {missing}")),
    })
}

/// What is not sealed proves nothing, and what must be encrypted is not sent otherwise; only without either wish an
/// unsealed recording is better than none.
fn recorder(wish: &Wish<'_>) -> Result<Result<Recorder, Missing>, RecordingError> {
    let about = about(wish)?;
    let id = about.id.clone();
    let key = match sealing_key(wish) {
        Ok(key) => Some(key),
        Err(missing) if wish.config.is_required() || !wish.config.recipients.is_empty() => {
            return Ok(Err(missing));
        }
        Err(missing) => {
            tracing::warn!(session_id = %id.as_str(), %missing, "the recording is not sealed");
            None
        }
    };
    let recorder = Recorder::new(about, key).masking(&wish.document.secrets(&wish.content.parameters)?);
    if wish.config.recipients.is_empty() {
        return Ok(Ok(recorder));
    }
    Ok(match data_key(wish.config) {
        Ok((key, header)) => Ok(recorder.encrypted(&key, header)),
        Err(reason) => Err(Missing::Recipients(reason)),
    })
}

/// A key for this recording alone, and the header's member that lets its recipients have it.
fn data_key(config: &TranscriptConfig) -> Result<(DataKey, Encryption), String> {
    let recipients = config
        .parsed_recipients()
        .map_err(|error: ConfigError| error.to_string())?;
    let mut bytes = [0; 32];
    let file = SystemRandom::new()
        .fill(&mut bytes)
        .and_then(|()| seal_to(&recipients, &bytes))
        .map_err(|_| "a recipient is no key, or the operating system gives no randomness".to_owned())?;
    let header = Encryption {
        recipients: config.recipients.clone(),
        key: STANDARD.encode(file),
    };
    Ok((DataKey::new(bytes), header))
}

fn sealing_key(wish: &Wish<'_>) -> Result<TranscriptKey, Missing> {
    if !wish.seals {
        return Err(Missing::NotRegistered);
    }
    match TranscriptKey::load(wish.state_dir) {
        Ok(Some(key)) => Ok(key),
        Ok(None) => Err(Missing::Key(io::ErrorKind::NotFound.into())),
        Err(error) => Err(Missing::Key(error)),
    }
}

/// What the recording says of the session.
fn about(wish: &Wish<'_>) -> Result<About, RecordingError> {
    let content = wish.content;
    Ok(About {
        id: RecordingId::parse(wish.session_id.as_str()).map_err(RecordingError::Id)?,
        node: wish.registration.instance_id.to_string(),
        kind: match wish.plan.session_type {
            SessionType::StandardStream => RecordingKind::StandardStream,
            SessionType::InteractiveCommands => RecordingKind::InteractiveCommands,
            SessionType::NonInteractiveCommands => RecordingKind::NonInteractiveCommands,
            SessionType::Port => RecordingKind::Port,
        },
        document: content.document_name.clone(),
        operator: content.session_owner.clone(),
        reason: content.moorline_reason.clone(),
        user: wish.user.clone(),
        parameters: wish.document.masked(&content.parameters, MASK),
        command: wish.command.clone(),
        unix_secs: unix_millis() / 1000,
    })
}

/// Where our endpoint wants the recording, if it wants one.
fn transcript_path(wish: &Wish<'_>) -> Result<Option<String>, RecordingError> {
    let wanted = wish.content.moorline_transcript_path.clone();
    match wanted.filter(|_| wish.registration.is_moorline) {
        Some(path) if !is_plain_path(&path) => Err(RecordingError::Path(path)),
        path => Ok(path),
    }
}

/// A path of an HTTP request that needs no escape: what is appended to it stays where it belongs.
fn is_plain_path(path: &str) -> bool {
    path.len() <= 256
        && path.starts_with('/')
        && path
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_goes_to_a_path_and_nowhere_else() {
        assert!(is_plain_path("/v1/transcript/me-0abc.1_2"));
        for bad in [
            "",
            "v1",
            "https://h/x",
            "/a?offset=0",
            "/a b",
            "/a\r\nx: y",
            "/%2e",
            "/é",
        ] {
            assert!(!is_plain_path(bad), "{bad}");
        }
        assert!(!is_plain_path(&"/a".repeat(200)));
    }
}
