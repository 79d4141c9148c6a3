//! Run Command on the node: intake, journal, one worker process per command, replies until they are acknowledged.

use std::sync::Arc;

use moorline_protocol::message::AgentMessage;
use tokio::sync::mpsc;

use crate::runtime::NodeContext;

/// The daemon's side of Run Command: a handle to its task.
#[derive(Debug, Clone)]
pub(crate) struct CommandService {
    _mailbox: mpsc::Sender<AgentMessage>,
}

impl CommandService {
    /// Opens the journal, takes over workers that outlived the last daemon, and begins to work. `outgoing` goes to
    /// the control channel; what does not get through is sent again from the journal.
    pub(crate) fn start(context: Arc<NodeContext>, outgoing: mpsc::Sender<AgentMessage>) -> Self {
        let _ = (context, outgoing);
        todo!()
    }

    /// `agent_job` or `agent_job_reply_ack`; never blocks.
    ///
    /// # Errors
    /// The mailbox is full: the message comes back, and the caller answers a job with ProcessorBufferFull.
    pub(crate) fn try_deliver(&self, message: AgentMessage) -> Result<(), AgentMessage> {
        let _ = message;
        todo!()
    }

    /// The control channel stands again: replies without acknowledgement are due at once.
    pub(crate) fn connected(&self) {
        todo!()
    }
}

/// `moorline-agent worker command`: reads its task from standard input, runs the document, writes the journal.
pub(crate) fn worker_main() -> std::process::ExitCode {
    todo!()
}
