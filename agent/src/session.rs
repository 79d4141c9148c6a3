//! Sessions on the node: one worker process each, which opens its own data channel.

use std::sync::Arc;

use moorline_protocol::message::AgentMessage;
use tokio::sync::mpsc;

use crate::runtime::NodeContext;

/// The daemon's side of sessions: a handle to its task.
#[derive(Debug, Clone)]
pub(crate) struct SessionService {
    _mailbox: mpsc::Sender<AgentMessage>,
}

impl SessionService {
    /// Begins to take session messages. `outgoing` goes to the control channel.
    pub(crate) fn start(context: Arc<NodeContext>, outgoing: mpsc::Sender<AgentMessage>) -> Self {
        let _ = (context, outgoing);
        todo!()
    }

    /// `interactive_shell`, `channel_closed` or `agent_task_acknowledge`; never blocks.
    ///
    /// # Errors
    /// The mailbox is full: the message comes back.
    pub(crate) fn try_deliver(&self, message: AgentMessage) -> Result<(), AgentMessage> {
        let _ = message;
        todo!()
    }

    /// Sessions that this daemon started and that still run.
    pub(crate) fn active(&self) -> usize {
        todo!()
    }
}

/// `moorline-agent worker session`: reads its task from standard input and serves one session.
pub(crate) fn worker_main() -> std::process::ExitCode {
    todo!()
}
