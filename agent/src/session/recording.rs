//! Whether and how a session is recorded: what the endpoint wants, what the node's owner says (`[transcript]`), and what
//! this node can do.

use std::{path::Path, sync::Arc};

use moorline_protocol::{
    document::{DocumentError, SessionDocument, SessionPlan, SessionType},
    message::StartSessionContent,
    transcript::{HeaderError, RecordingId, RecordingKind},
    types::SessionId,
};
use moorline_transport::unix_millis;
use tokio::time::Instant;

use super::transcript::Transcript;
use crate::{
    config::TranscriptConfig,
    identity::{CredentialSupply, Registration},
    recording::{About, Deliverer, MASK, Means, Missing, Spool, SpoolLimits, TranscriptPlace, is_plain_path},
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
    let means = Means {
        state_dir: wish.state_dir,
        config: wish.config,
        seals: wish.seals,
    };
    let recorder = match means.recorder(about(&wish)?) {
        Ok(recorder) => recorder.masking(&wish.document.secrets(&wish.content.parameters)?),
        Err(missing) => return without(&wish, missing, true),
    };
    let place = TranscriptPlace::new(Arc::clone(wish.registration), Arc::clone(wish.credentials));
    let spool = Spool::new(
        wish.state_dir,
        (wish.session_id.as_str(), path.clone()),
        Deliverer::Worker,
        SpoolLimits::new(wish.config),
    );
    let place = (Arc::new(place), path, wish.config.strict);
    Ok(Recording {
        transcript: Some(Transcript::new(place, recorder, spool, Instant::now())),
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
        document_version: None,
        operator: Some(content.session_owner.clone()),
        reason: content.moorline_reason.clone(),
        user: wish.user.clone(),
        parameters: wish.document.masked(&content.parameters, MASK),
        command: wish.command.clone(),
        follows: None,
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
