//! The process: settings, first start, listener, drain.

mod admin;
mod attachment;
mod attachment_source;
mod body;
mod certificate;
mod kms_key_file;
mod listener;
mod long_polls;
mod metrics;
mod output_store;
mod peer_share;
mod request;
mod s3_options;
mod settings;
mod socket;
mod state_dir;
mod transcript_store;

pub(crate) use body::{Bodies, BodyError, MOST_BODY_BYTES};
pub(crate) use long_polls::LongPolls;
pub(crate) use metrics::{Counter, Gauge, Held, Metrics};
pub(crate) use peer_share::Newcomer;

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use moorline_protocol::error_chain;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

use crate::{
    api,
    app::{App, Clock, Routing},
    audit::AuditLog,
    auth::LatelyRegistered,
    gateway::Gateway,
    log_lines::NodeLines,
    server::{
        certificate::ServerCertificate, listener::Listener, request::Service, settings::Settings,
        state_dir::StateDir,
    },
    store::Store,
};

/// How long requests that are under way may take to end once the process was asked to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Filter directives for the log, as `tracing_subscriber::EnvFilter` reads them.
const LOG_VARIABLE: &str = "MOORLINE_LOG";
const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;
/// Usage and configuration errors, as in sysexits.h: systemd does not restart after this one.
const EXIT_USAGE: u8 = 64;

/// `moorline-control serve …`
pub(crate) fn main() -> ExitCode {
    let settings = match Settings::from_arguments() {
        Ok(settings) => settings,
        Err(error) => {
            let code = if error.use_stderr() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::SUCCESS
            };
            // Nothing can be done about a closed terminal.
            let _printed = error.print();
            return code;
        }
    };
    start_log();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "failed to start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(serve(&settings));
    // Tasks of channels that are still open end here; their peers come back.
    runtime.shutdown_timeout(Duration::from_millis(500));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("failed to serve: {}", error_chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn start_log() {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_env_var(LOG_VARIABLE)
        .with_default_directive(tracing::Level::INFO.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}

async fn serve(settings: &Settings) -> anyhow::Result<()> {
    let clock = Clock::system();
    let state_dir = StateDir::open(&settings.state_dir)?;
    let keys = state_dir.master_key()?;
    let kms_path = settings.kms_key_file.clone();
    let kms = kms_key_file::open(&kms_path.unwrap_or_else(|| state_dir.kms_key_path()))?;
    let signing_key = Arc::new(state_dir.signing_key()?);
    let metrics = Metrics::default();
    let audit = AuditLog::open(
        &state_dir.audit_path(),
        Arc::clone(&signing_key),
        clock.clone(),
        metrics.counter("moorline_audit_failures_total", &[]),
    )
    .context("failed to open the audit log")?;
    let authority = state_dir.authority()?;
    let certificate = ServerCertificate::issue(authority, settings.names.clone(), &clock)?;
    let store = Store::open(state_dir.path())
        .await
        .context("failed to open the store")?;
    store
        .seed_documents(&api::built_in_documents(), clock.unix_millis())
        .await?;
    let socket = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("failed to listen on {}", settings.listen))?;
    let address = socket
        .local_addr()
        .context("failed to learn the address listened on")?;
    admin::write_environment(&state_dir, &store, &keys, settings, address.port(), &clock).await?;

    let gateway = Arc::new(Gateway::new());
    let app = Arc::new(App {
        attachments: state_dir.attachments()?,
        attachment_source: attachment_source::open(&settings.attachment_source)?,
        audit,
        bodies: Bodies::default(),
        clock,
        keys,
        kms,
        lately_registered: LatelyRegistered::default(),
        metrics,
        node_lines: NodeLines::default(),
        output_store: output_store::open(&settings.output_store)?.map(Arc::new),
        polls: LongPolls::default(),
        region: settings.region.clone(),
        routing: Arc::clone(&gateway) as Arc<dyn Routing>,
        transcript_retention_millis: settings
            .transcript_retention_days
            .map(|days| u64::from(days) * DAY_MILLIS),
        transcripts: state_dir
            .transcripts(Arc::clone(&signing_key))?
            .with_remote(transcript_store::open(&settings.transcript_store)?),
        signing_key,
        store: store.clone(),
    });
    gateway.attach(&app);
    let service = Arc::new(Service::new(Arc::clone(&app), gateway, address));
    let (stop, stopping) = watch::channel(false);
    let listener = Listener::new(socket, certificate.tls_settings()?, service, stopping);
    let mut signals = Signals::new()?;
    announce(&format!(
        "moorline-control listening on https://{address} (state in {})",
        state_dir.path().display()
    ));
    let mut connections = JoinSet::new();
    tokio::select! {
        () = listener.run(&mut connections) => {}
        () = certificate.keep_fresh(&app.clock) => {}
        name = signals.wait() => tracing::info!(signal = name, "stopping"),
    }
    drop(listener);
    // Nobody may be listening any more, then there is nothing to drain.
    let _listening = stop.send(true);
    app.polls.stop();
    drain(connections).await;
    let closed = tokio::task::spawn_blocking(move || app.audit.close());
    if tokio::time::timeout(DRAIN_TIMEOUT, closed).await.is_err() {
        tracing::warn!(
            "the audit log was still being written when the process ended; it is repaired at the next start"
        );
    }
    if tokio::time::timeout(DRAIN_TIMEOUT, store.close()).await.is_err() {
        tracing::warn!("the store was still busy when the process ended; it recovers at the next start");
    }
    Ok(())
}

/// The one line on stdout, for whoever waits for the start. A closed stdout is no reason to stop.
fn announce(line: &str) {
    let mut out = io::stdout();
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        tracing::warn!(%error, "failed to write the start line to stdout");
    }
    tracing::info!("{line}");
}

async fn drain(mut connections: JoinSet<()>) {
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIMEOUT, all).await.is_err() {
        tracing::warn!("some requests were still under way when the process ended");
    }
}

/// Signals that end the process. SIGHUP is taken and ignored: the terminal that started it may go.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let take = |kind| signal(kind).context("failed to install a signal handler");
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            hangup: take(SignalKind::hangup())?,
        })
    }

    async fn wait(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {}
            }
        }
    }
}
