//! The worker process of one session. It needs its daemon to be born and for nothing else.

use std::{
    io::{self, Read, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use moorline_protocol::{
    channel::{DataChannel, HandshakeOffer, NEWEST_MUX_VERSION, Role},
    document::{DocumentError, SessionDocument, SessionPlan, SessionType},
    error_chain,
    types::{InvalidId, SessionId},
};
use moorline_transport::Service;
use nix::unistd::Pid;
use ring::rand::{SecureRandom, SystemRandom};

use super::{
    attachment::Attachment,
    channel_opening::ChannelOpening,
    condition::{self, Condition},
    data_key::KeyService,
    environment::{Environment, plain_operator},
    link::Link,
    login::{Login, LoginError, LoginUser, UserRequest},
    login_record::LoginRecord,
    members::{Members, adopt_orphans},
    owner_policy::Leave,
    pipes::Pipes,
    plain_shell,
    port_session::{self, ForwardPolicy, PortSession, Target, TargetError, texts},
    process::{Launch, Process, TerminalLaunch},
    program::{Program, ProgramError, Wanted},
    program_io::ProgramIo,
    pty::PtyError,
    recording::{self, RecordingError, Wish},
    session_lock::SessionLock,
    shell_session::{Parts, ShellSession, Signals, WINDOW_BYTES},
    shell_start::{OnTerminal, ShellStart},
    task::{EXIT_SERVED_ELSEWHERE, SessionOutcome, SessionStatus, SessionTask},
};
use crate::{
    command,
    config::{ConfigError, ForwardConfig},
    identity::{CredentialSupply, Registration, RegistrationError},
    policy::{Once, Refusal},
    runtime::{AGENT_VERSION, start_worker_log, user_database},
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
    #[error("failed to make pipes for the program's output")]
    Pipes(#[source] io::Error),
    #[error(transparent)]
    Recording(#[from] RecordingError),
    #[error(transparent)]
    Settings(#[from] ConfigError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A session that can be served.
enum Started {
    Program(Box<(Attachment, Parts)>),
    Port(Box<(Attachment, port_session::Parts)>),
}

/// Reads the task from standard input, serves the session, writes the outcome to standard output.
pub(super) fn main() -> ExitCode {
    start_worker_log();
    let outcome = match serve() {
        Ok(outcome) => outcome,
        Err(StartError::ServedElsewhere) => {
            tracing::info!("another worker serves the session already");
            return ExitCode::from(EXIT_SERVED_ELSEWHERE);
        }
        Err(error) => {
            let reason = error_chain(&error);
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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    // as a task: what this thread itself wakes so needs no call to the system, as what is blocked on would each time
    let served = runtime.block_on(async { tokio::spawn(Box::pin(serve_task(task))).await });
    // a name server that does not answer holds nobody up
    runtime.shutdown_background();
    served.unwrap_or_else(|ended| match ended.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(cancelled) => Err(StartError::Runtime(io::Error::other(cancelled))),
    })
}

async fn serve_task(task: SessionTask) -> Result<SessionOutcome, StartError> {
    let mut signals = Signals::new(task.state_dir.clone()).map_err(StartError::Signals)?;
    let (session_id, outcome) = match start(task).await? {
        Started::Program(session) => {
            let (attachment, parts) = *session;
            let session_id = attachment.session_id.clone();
            let session = ShellSession::new(attachment, parts);
            (session_id, session.serve(&mut signals).await)
        }
        Started::Port(session) => {
            let (attachment, parts) = *session;
            let session_id = attachment.session_id.clone();
            tracing::info!(%session_id, "session started");
            let session = PortSession::new(attachment, parts);
            (session_id, session.serve(&mut signals).await)
        }
    };
    tracing::info!(%session_id, status = outcome.status.as_str(), exit_code = outcome.exit_code, "session ended");
    Ok(outcome)
}

/// Starts a shell first, unless it is to be encrypted: it reads its profiles while the channel is being opened.
async fn start(task: SessionTask) -> Result<Started, StartError> {
    let content = task.content;
    let session_id: SessionId = content.session_id.parse()?;
    let registration = Arc::new(Registration::load(&task.state_dir)?);
    task.learned.hand_to(&registration);
    let lock = lock(&registration, &session_id)?;
    let document = SessionDocument::parse(&content.document_content)?;
    let plan = document.plan(&content.parameters)?;
    let node = registration.instance_id.as_str();
    let (leave, once) = Leave::ask(&content, plan.session_type, (&task.policy_folder, node))?;
    note_signature(once, &task.state_dir, &session_id)?;
    let credentials = Arc::new(CredentialSupply::new(task.credentials.map(Into::into)));
    let wish = Wish {
        content: &content,
        document: &document,
        plan: &plan,
        session_id: &session_id,
        registration: &registration,
        credentials: &credentials,
        state_dir: &task.state_dir,
        config: &task.transcript,
        seals: task.seals,
        user: None,
        command: String::new(),
    };
    let Some(wanted) = Wanted::from_plan(&plan)? else {
        return start_port_session(wish, leave, &task.forward, lock);
    };
    let condition = look_around(&registration, &task.state_dir).await;
    let request = UserRequest {
        run_as_enabled: plan.run_as_enabled,
        run_as_user: &content.run_as_user,
        run_as_default_user: &plan.run_as_default_user,
        elevated: wanted.is_elevated(),
        default_user: &task.settings.default_user,
    };
    let Login { user, notice } = LoginUser::resolve(&request, &task.settings, &task.state_dir).await?;
    leave.permit_user(&user.name)?;
    let operator = plain_operator(&content.session_owner);
    let environment = Environment::of_login(&user, std::env::var_os("LANG"))
        .with_system()
        .with_session(session_id.as_str(), &operator);
    let mut program = Program::new(&wanted, &user, environment);
    let is_bare = condition.is_short_of_processes() || user_database::hangs();
    let troubles = adapt(&mut program, &wanted, is_bare);
    let recording = recording::begin(Wish {
        user: Some(user.name.clone()),
        command: wanted.shown(&user, &content.document_name),
        ..wish
    })?;
    let notices = condition
        .text(troubles)
        .into_iter()
        .chain(notice)
        .chain(recording.notice)
        .collect();
    if !task.settings.linger {
        adopt_orphans();
    }
    let channel = new_channel(WINDOW_BYTES).map_err(|_| StartError::Randomness)?;
    let user_name = user.name.clone();
    let start = ShellStart {
        program,
        user,
        settings: task.settings.clone(),
        operator: operator.clone(),
        is_bare,
    };
    let handshake = handshake(&plan, registration.is_moorline);
    let (io, process, record) = start_program(&wanted, start, notices, handshake.is_some()).await?;
    tracing::info!(
        %session_id,
        pid = process.pid().map(Pid::as_raw),
        user = user_name,
        operator,
        document = %content.document_name.escape_default(),
        "session started"
    );
    let is_moorline = registration.is_moorline;
    let key_service = Arc::new(KeyService {
        registration: Arc::clone(&registration),
        credentials: Arc::clone(&credentials),
        session_id: session_id.clone(),
    });
    let link = link(registration, credentials, &session_id);
    let attachment = Attachment::new(session_id, is_moorline, channel, link, handshake).changing_hands();
    let parts = Parts {
        io,
        process,
        members: Members::new(task.settings.linger),
        key_service,
        record,
        transcript: recording.transcript,
        is_recording_required: task.transcript.is_required(),
        records_input: task.transcript.input,
        profile: typed_profile(&plan),
        _lock: lock,
    };
    Ok(Started::Program(Box::new((attachment, parts))))
}

/// A signature that was asked for is good for one session: on the disk before there is a program.
fn note_signature(once: Option<Once>, state_dir: &Path, session_id: &SessionId) -> Result<(), Refusal> {
    once.map_or(Ok(()), |once| {
        command::begin_signed_session(state_dir, &once, session_id.as_str())
    })
}

/// A port session needs no user and no program.
fn start_port_session(
    wish: Wish<'_>,
    leave: Leave,
    forward: &ForwardConfig,
    lock: Option<SessionLock>,
) -> Result<Started, StartError> {
    let policy = ForwardPolicy::new(forward)?.asking(leave);
    let target = Target::new(&texts(&wish.plan.properties), policy)?;
    target.foresee()?;
    let (registration, session_id) = (Arc::clone(wish.registration), wish.session_id.clone());
    let credentials = Arc::clone(wish.credentials);
    let is_moorline = registration.is_moorline;
    let handshake = handshake(wish.plan, is_moorline);
    let is_recording_required = wish.config.is_required();
    let recording = recording::begin(Wish {
        command: target.to_string(),
        ..wish
    })?;
    let channel = new_channel(port_session::WINDOW_BYTES).map_err(|_| StartError::Randomness)?;
    let link = link(registration, credentials, &session_id);
    let parts = port_session::Parts {
        target: Arc::new(target),
        connections: forward.connections,
        transcript: recording.transcript,
        is_recording_required,
        _lock: lock,
    };
    let attachment = Attachment::new(session_id, is_moorline, channel, link, handshake);
    Ok(Started::Port(Box::new((attachment, parts))))
}

fn link(registration: Arc<Registration>, credentials: Arc<CredentialSupply>, session_id: &SessionId) -> Link {
    Link::new(Arc::new(ChannelOpening {
        registration,
        credentials,
        session_id: session_id.clone(),
    }))
}

/// A stream that nothing was said on: each has message ids of its own.
///
/// # Errors
/// The operating system gives no randomness.
pub(super) fn new_channel(window_bytes: usize) -> Result<DataChannel, ring::error::Unspecified> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed)?;
    Ok(DataChannel::new(Role::Agent, seed, window_bytes))
}

/// The machine as it is. Where a process more may be one too many, none is taken for the asking of users.
async fn look_around(registration: &Registration, state_dir: &Path) -> Condition {
    let endpoint = registration.services.endpoint(Service::SsmMessages);
    let condition = condition::gather(endpoint, state_dir).await;
    if condition.is_short_of_processes() {
        user_database::read_files_only();
    }
    condition
}

/// Makes of a shell what this machine can run, and says what had to give.
fn adapt(program: &mut Program, wanted: &Wanted, is_bare: bool) -> Vec<String> {
    let mut troubles = Vec::from_iter(user_database::trouble());
    if !matches!(wanted, Wanted::Words { .. }) {
        troubles.extend(plain_shell::replace_missing(program));
    }
    if is_bare && *wanted == Wanted::LoginShell {
        plain_shell::simplify(program);
        troubles.push("this shell is a plain one without its profiles and PAM".to_owned());
    }
    troubles
}

/// A program whose client has to answer a handshake first only gets ready: see [`Process`].
async fn start_program(
    wanted: &Wanted,
    start: ShellStart,
    notices: Vec<String>,
    waits: bool,
) -> Result<(ProgramIo, Process, Option<LoginRecord>), StartError> {
    let Wanted::Words { separation, .. } = wanted else {
        if waits {
            let launch = Box::new(TerminalLaunch { start, notices });
            return Ok((ProgramIo::Later, Process::WaitingForTerminal(launch), None));
        }
        let OnTerminal { pty, shell, record } = start.start(notices).await?;
        return Ok((ProgramIo::Terminal(pty), Process::Running(shell), record));
    };
    let (pipes, write_ends) = Pipes::new(separation.as_ref()).map_err(StartError::Pipes)?;
    let launch = Launch {
        program: start.program,
        user: start.user,
        write_ends,
    };
    Ok((ProgramIo::Pipes(pipes), Process::Waiting(Box::new(launch)), None))
}

/// What the client is asked before the session (agent-wire §8.3): nothing, for the types that are shells, unless they
/// are to be encrypted. Port sessions never are.
fn handshake(plan: &SessionPlan, is_moorline: bool) -> Option<HandshakeOffer> {
    let offer = HandshakeOffer {
        agent_version: AGENT_VERSION.to_owned(),
        session_type: plan.session_type.as_str().to_owned(),
        ..HandshakeOffer::default()
    };
    let kms_key_id = Some(plan.kms_key_id.clone()).filter(|id| !id.is_empty());
    match plan.session_type {
        SessionType::StandardStream | SessionType::InteractiveCommands if kms_key_id.is_none() => None,
        SessionType::StandardStream
        | SessionType::InteractiveCommands
        | SessionType::NonInteractiveCommands => Some(HandshakeOffer { kms_key_id, ..offer }),
        SessionType::Port => Some(HandshakeOffer {
            properties: texts(&plan.properties).into(),
            moorline_mux_version: is_moorline.then_some(NEWEST_MUX_VERSION),
            ..offer
        }),
    }
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
