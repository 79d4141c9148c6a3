//! Run Command on the node: intake, journal, one worker process per command, replies until they are acknowledged.
//!
//! The promise: a command reaches exactly one final state, whatever is killed when. So every move is in the
//! [`journal`] before anything depends on it: a job is accepted there before its acknowledgement leaves, begun there
//! by the one worker that may run it, and its final result stays there until the endpoint has acknowledged it, or has
//! not come back for 30 days. Everything else here can be forgotten at any moment.

mod drop_folder;
mod executor;
mod intake;
mod journal;
mod local;
mod node;
mod outbox;
mod output;
mod owner_policy;
mod reboot;
mod recording;
mod reply;
mod retention;
mod service;
mod step;
mod step_limits;
mod worker;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use moorline_protocol::message::AgentMessage;
use tokio::sync::{Mutex, mpsc, watch};

use self::service::Mailbox;
use crate::{
    config::Config,
    recording::{Courier, RefusedRecording},
    runtime::NodeContext,
};

pub(crate) use local::{LocalRun, run_document};
pub(crate) use owner_policy::{Question, begin_signed_session, document, explain_command};

/// Jobs and acknowledgements that wait; when it is full, the endpoint delivers again.
const MAILBOX: usize = 256;
/// Before a failed task begins anew.
const RESTART_PAUSE: Duration = Duration::from_secs(5);

/// The daemon's side of Run Command: a handle to its task.
#[derive(Debug, Clone)]
pub(crate) struct CommandService {
    mailbox: mpsc::Sender<AgentMessage>,
    /// Whether the control channel stands. Sent at every change, and at every connection anew.
    line: watch::Sender<bool>,
}

impl CommandService {
    /// Opens the journal, takes over workers that outlived the last daemon, and begins to work. `outgoing` goes to
    /// the control channel; what does not get through is sent again from the journal.
    pub(crate) fn start(
        context: Arc<NodeContext>,
        (courier, refused): (Courier, mpsc::Receiver<RefusedRecording>),
        outgoing: mpsc::Sender<AgentMessage>,
    ) -> Self {
        let (mailbox, messages) = mpsc::channel(MAILBOX);
        let (line, standing) = watch::channel(false);
        let node = Arc::new(node::Node::of(&context, courier));
        let received = Mailbox { messages, refused };
        tokio::spawn(keep_serving(node, outgoing, received, standing));
        Self { mailbox, line }
    }

    /// The same on a machine that is registered nowhere: what is run comes from the owner's folder.
    pub(crate) fn start_alone(config: &Config, state_dir: &Path) -> Self {
        let (mailbox, messages) = mpsc::channel(1);
        let (_, refused) = mpsc::channel(1);
        let received = Mailbox { messages, refused };
        let (line, standing) = watch::channel(false);
        let (outgoing, _) = mpsc::channel(1);
        let node = Arc::new(node::Node::alone(config, state_dir));
        tokio::spawn(keep_serving(node, outgoing, received, standing));
        Self { mailbox, line }
    }

    /// `agent_job` or `agent_job_reply_ack`; never blocks.
    ///
    /// # Errors
    /// The mailbox is full: the message comes back, and the caller answers a job with ProcessorBufferFull.
    pub(crate) fn try_deliver(&self, message: AgentMessage) -> Result<(), AgentMessage> {
        self.mailbox
            .try_send(message)
            .map_err(mpsc::error::TrySendError::into_inner)
    }

    /// The control channel stands again: replies without acknowledgement are due at once.
    pub(crate) fn connected(&self) {
        self.line.send_replace(true);
    }

    /// The control channel is lost: replies wait in the journal, untouched, until it stands again.
    pub(crate) fn disconnected(&self) {
        self.line.send_replace(false);
    }
}

/// Runs the service. Should it panic, it begins anew, as after a restart of the daemon: all it knows is in the journal.
async fn keep_serving(
    node: Arc<node::Node>,
    outgoing: mpsc::Sender<AgentMessage>,
    mailbox: Mailbox,
    line: watch::Receiver<bool>,
) {
    let mailbox = Arc::new(Mutex::new(mailbox));
    loop {
        let received = Arc::clone(&mailbox).lock_owned().await;
        let service = service::Service::new(Arc::clone(&node), outgoing.clone(), received, line.clone());
        match tokio::spawn(service.run()).await {
            Err(error) if error.is_panic() => {
                tracing::error!(%error, "the task for commands failed, and is started anew");
                tokio::time::sleep(RESTART_PAUSE).await;
            }
            // The daemon ends.
            _ => return,
        }
    }
}

/// `moorline-agent worker command`: reads its task from standard input, runs the document, writes the journal.
pub(crate) fn worker_main() -> std::process::ExitCode {
    worker::main()
}

/// Unix milliseconds.
fn now_millis() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
