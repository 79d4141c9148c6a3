//! `run`: one daemon per registration, until a signal ends it. Workers are left alone when it ends.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Mutex, Notify, mpsc, watch},
};
use tracing_subscriber::EnvFilter;

use super::{control_channel, health, status::StatusWriter};
use crate::{
    command::CommandService,
    config::Config,
    identity::{Registration, RegistrationError, keep_fresh, recall},
    recording::{Courier, Recorders},
    runtime::{NodeContext, Platform, lock_state_dir},
    session::{self, SessionService},
};

/// Messages that wait for the control channel. When full, a message is dropped: each has an owner that sends again.
const OUTGOING_MESSAGES: usize = 256;
/// Commands that are told at once that they are not recorded any more. The courier waits for room.
const REFUSED_RECORDINGS: usize = 16;

/// One thread is enough, and the smallest: all work happens in worker processes.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the async runtime")
}

/// `closed`: whether the memory of this process is closed to others.
pub(super) fn run(config: Config, state_dir: PathBuf, closed: nix::Result<()>) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_env("MOORLINE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    if let Err(error) = closed {
        tracing::warn!(%error, "other processes of this user may read this one's memory, or a core file of it");
    }
    let _lock = lock_state_dir(&state_dir)?;
    let registration = match Registration::load(&state_dir) {
        // What the owner puts into the folder needs no endpoint.
        Err(RegistrationError::Missing { .. }) if !config.local.drop_folder.as_os_str().is_empty() => {
            return runtime()?.block_on(serve_alone(&config, &state_dir));
        }
        registration => Arc::new(registration?),
    };
    recall(&registration, &state_dir);
    runtime()?.block_on(serve(config, state_dir, registration))
}

/// Runs documents from the owner's folder, on a machine that is registered nowhere.
async fn serve_alone(config: &Config, state_dir: &Path) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let commands = CommandService::start_alone(config, state_dir);
    tracing::info!(
        drop_folder = %config.local.drop_folder.display(),
        "moorline-agent started without an endpoint: it is not registered"
    );
    signals.end().await;
    drop(commands);
    tracing::info!("moorline-agent stopped; running commands go on");
    Ok(())
}

/// What ends a daemon.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn end(&mut self) {
        loop {
            tokio::select! {
                biased;
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => tracing::info!("SIGHUP ignored; settings are read at start"),
            }
        }
    }
}

async fn serve(config: Config, state_dir: PathBuf, registration: Arc<Registration>) -> anyhow::Result<()> {
    // Signals before anything else: a SIGHUP at boot must not end the agent.
    let mut signals = Signals::listen()?;

    let (publish, credentials) = watch::channel(None);
    let status = StatusWriter::new(&state_dir);
    let credentials_rejected = Arc::new(Notify::new());
    let context = Arc::new(NodeContext {
        config,
        state_dir,
        registration: Arc::clone(&registration),
        credentials,
        credentials_rejected: Arc::clone(&credentials_rejected),
        platform: Platform::detect(),
        seals: Arc::default(),
        key_teller: Mutex::default(),
    });
    let (outgoing, to_send) = mpsc::channel(OUTGOING_MESSAGES);
    let (refused, refusals) = mpsc::channel(REFUSED_RECORDINGS);
    let recorders = Recorders {
        is_session_served: session::is_served,
        refused,
    };
    let courier = Courier::start(Arc::clone(&context), recorders);
    let recordings = (courier.clone(), refusals);
    let commands = CommandService::start(Arc::clone(&context), recordings, outgoing.clone());
    let sessions = SessionService::start(Arc::clone(&context), outgoing, courier);
    tracing::info!(instance_id = %context.instance_id(), "moorline-agent started");

    let work = async {
        tokio::join!(
            keep_fresh(registration, publish, credentials_rejected),
            health::keep_reporting(Arc::clone(&context)),
            control_channel::keep_connected(Arc::clone(&context), commands, sessions, to_send, status),
        );
    };
    tokio::pin!(work);
    tokio::select! {
        biased;
        () = signals.end() => {}
        () = &mut work => bail!("the agent's tasks ended"),
    }
    tracing::info!("moorline-agent stopped; running commands and sessions go on");
    Ok(())
}
