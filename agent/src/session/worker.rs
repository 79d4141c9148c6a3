//! The worker process of one session. It needs its daemon to be born and for nothing else.

use std::{
    io::{self, IsTerminal, Read, Write},
    process::ExitCode,
    sync::Arc,
};

use moorline_protocol::{
    channel::{DataChannel, HandshakeOffer, Role},
    document::{DocumentError, SessionDocument, SessionPlan, SessionType},
    types::{InvalidId, SessionId},
};
use ring::rand::{SecureRandom, SystemRandom};

use super::{
    channel_opening::ChannelOpening,
    data_key::KeyService,
    link::Link,
    login::{LoginError, LoginUser, UserRequest},
    program::{Program, ProgramError, Wanted},
    pty::{self, PtyError},
    recorder::{Recorder, Size},
    role_credentials::{CredentialSupply, unix_millis},
    session_lock::SessionLock,
    shell_session::{Parts, ShellSession, Signals, WINDOW_BYTES},
    task::{EXIT_SERVED_ELSEWHERE, SessionOutcome, SessionStatus, SessionTask},
    transcript::{Transcript, TranscriptPlace},
};
use crate::{
    identity::{Registration, RegistrationError},
    runtime::AGENT_VERSION,
};

/// The largest task: a session document and its parameters.
const MAX_TASK_BYTES: u64 = 4 * 1024 * 1024;

/// Why a session did not start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("the session's task could not be read")]
    ReadTask(#[source] io::Error),
    #[error("the session's task is malformed")]
    MalformedTask(#[source] serde_json::Error),
    #[error("failed to start the async runtime")]
    Runtime(#[source] io::Error),
    #[error("failed to set up signals")]
    Signals(#[source] io::Error),
    #[error("the operating system gives no randomness")]
    Randomness,
    #[error("the endpoint names {0:?} as the place of the transcript, which is no path")]
    TranscriptPath(String),
    #[error("another worker serves the session")]
    ServedElsewhere,
    #[error(transparent)]
    SessionId(#[from] InvalidId),
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error(transparent)]
    Pty(#[from] PtyError),
}

/// Reads the task from standard input, serves the session, writes the outcome to standard output.
pub(super) fn main() -> ExitCode {
    start_log();
    let outcome = match serve() {
        Ok(outcome) => outcome,
        Err(StartError::ServedElsewhere) => {
            tracing::info!("another worker serves the session already");
            return ExitCode::from(EXIT_SERVED_ELSEWHERE);
        }
        Err(error) => {
            let reason = format!("{:#}", anyhow::Error::from(error));
            tracing::warn!(reason, "the session did not start");
            SessionOutcome::failed(&reason)
        }
    };
    report(&outcome);
    match outcome.status {
        SessionStatus::Success => ExitCode::SUCCESS,
        SessionStatus::Failed => ExitCode::FAILURE,
    }
}

fn serve() -> Result<SessionOutcome, StartError> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .take(MAX_TASK_BYTES)
        .read_to_end(&mut bytes)
        .map_err(StartError::ReadTask)?;
    let task = serde_json::from_slice(&bytes).map_err(StartError::MalformedTask)?;
    drop(bytes);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?
        .block_on(serve_task(task))
}

async fn serve_task(task: SessionTask) -> Result<SessionOutcome, StartError> {
    let mut signals = Signals::new().map_err(StartError::Signals)?;
    let parts = start(task)?;
    tracing::info!(session_id = %parts.session_id, pid = parts.shell.pid().as_raw(), "session started");
    let session_id = parts.session_id.clone();
    let outcome = ShellSession::new(parts).serve(&mut signals).await;
    tracing::info!(%session_id, status = outcome.status.as_str(), exit_code = outcome.exit_code, "session ended");
    Ok(outcome)
}

/// Starts the shell first: it reads its profiles while the channel is being opened.
fn start(task: SessionTask) -> Result<Parts, StartError> {
    let content = task.content;
    let session_id: SessionId = content.session_id.parse()?;
    let registration = Arc::new(Registration::load(&task.state_dir)?);
    let lock = lock(&registration, &session_id)?;
    let plan = SessionDocument::parse(&content.document_content)?.plan(&content.parameters)?;
    let wanted = Wanted::from_plan(&plan)?;
    let transcript_path = content
        .moorline_transcript_path
        .filter(|_| registration.is_moorline);
    if let Some(path) = transcript_path.as_deref().filter(|path| !is_plain_path(path)) {
        return Err(StartError::TranscriptPath(path.to_owned()));
    }
    let user = LoginUser::resolve(&UserRequest {
        run_as_enabled: plan.run_as_enabled,
        run_as_user: &content.run_as_user,
        run_as_default_user: &plan.run_as_default_user,
        elevated: wanted.is_elevated(),
        default_user: &task.default_user,
    })?;
    let program = Program::new(&wanted, &user, std::env::var_os("LANG"));
    let mut seed = [0; 32];
    SystemRandom::new()
        .fill(&mut seed)
        .map_err(|_| StartError::Randomness)?;
    let (pty, shell) = pty::start(&program, &user, Size::default())?;

    let credentials = Arc::new(CredentialSupply::new(task.credentials.map(Into::into)));
    let transcript = transcript_path.map(|path| {
        let place = TranscriptPlace::new(Arc::clone(&registration), Arc::clone(&credentials), path);
        let recorder = Recorder::new(
            session_id.to_string(),
            program.shown(&content.document_name),
            unix_millis() / 1000,
        );
        Transcript::new(Arc::new(place), recorder)
    });
    let is_moorline = registration.is_moorline;
    let key_service = Arc::new(KeyService {
        registration: Arc::clone(&registration),
        credentials: Arc::clone(&credentials),
        session_id: session_id.clone(),
    });
    let link = Link::new(Arc::new(ChannelOpening {
        registration,
        credentials,
        session_id: session_id.clone(),
    }));
    Ok(Parts {
        session_id,
        is_moorline,
        channel: DataChannel::new(Role::Agent, seed, WINDOW_BYTES),
        link,
        pty,
        shell,
        handshake: handshake(&plan),
        key_service,
        transcript,
        profile: typed_profile(&plan),
        _lock: lock,
    })
}

/// What the client is asked before the session (agent-wire §8.3): nothing, for the types that are shells, unless they
/// are to be encrypted.
fn handshake(plan: &SessionPlan) -> Option<HandshakeOffer> {
    let kms_key_id = Some(plan.kms_key_id.clone()).filter(|id| !id.is_empty());
    kms_key_id.is_some().then(|| HandshakeOffer {
        agent_version: AGENT_VERSION.to_owned(),
        session_type: plan.session_type.as_str().to_owned(),
        kms_key_id,
        ..HandshakeOffer::default()
    })
}

/// Before anything of the session begins. A machine that gives no lock can still be reached, since a second shell
/// harms less than none.
fn lock(registration: &Registration, session_id: &SessionId) -> Result<Option<SessionLock>, StartError> {
    match SessionLock::acquire(&registration.instance_id, session_id) {
        Ok(Some(lock)) => Ok(Some(lock)),
        Ok(None) => Err(StartError::ServedElsewhere),
        Err(error) => {
            tracing::warn!(%error, "the session cannot be kept from being served twice");
            Ok(None)
        }
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

/// `shellProfile` is typed into a shell, as the stock agent does.
fn typed_profile(plan: &SessionPlan) -> Vec<u8> {
    if plan.session_type != SessionType::StandardStream || plan.shell_profile_linux.is_empty() {
        return Vec::new();
    }
    format!("{}\n", plan.shell_profile_linux).into_bytes()
}

/// A daemon that is gone does not read it, and that is no failure.
fn report(outcome: &SessionOutcome) {
    let line = serde_json::to_string(outcome).expect("a struct of texts and numbers is JSON");
    if let Err(error) = writeln!(io::stdout(), "{line}") {
        tracing::debug!(%error, "nobody reads the outcome");
    }
}

/// To standard error, which may go away with the daemon: neither that nor anything else about the log ends a
/// session.
fn start_log() {
    let level = std::env::var("MOORLINE_LOG")
        .ok()
        .and_then(|level| level.parse().ok())
        .unwrap_or(tracing::Level::INFO);
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .log_internal_errors(false)
        .init();
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
