//! Sessions on the node: one worker process each, which opens its own data channel.
//!
//! The daemon starts a worker with its task on standard input and reads the outcome from its standard output; that
//! is all it has to do with a session. So the daemon can be killed, restarted or upgraded and every shell goes on,
//! and a session that goes wrong touches nothing else. Nothing on this path writes to a disk: a node whose disk is
//! full can still be repaired.

mod attachment;
mod channel_opening;
mod condition;
mod data_key;
mod default_user;
mod end_sessions;
mod ending;
mod environment;
mod intake;
mod leftovers;
mod link;
mod login;
mod login_process;
mod login_record;
mod members;
mod owner_policy;
mod pam;
mod pipes;
mod plain_shell;
mod port_session;
mod process;
mod program;
mod program_io;
mod pty;
mod recording;
mod session_lock;
mod shell_session;
mod shell_start;
mod shutdown;
mod supervision;
mod task;
mod transcript;
mod worker;

use std::{process::ExitCode, sync::Arc};

use moorline_protocol::message::AgentMessage;
use tokio::sync::mpsc;

pub(crate) use self::end_sessions::end_sessions;
use self::intake::Intake;
use self::session_lock::SessionLock;
use crate::{recording::Courier, runtime::NodeContext};

/// Messages that wait to be looked at. Each costs a process start at most, so a long queue would help nobody.
const MAILBOX_MESSAGES: usize = 64;

/// Whether a worker serves the session of this name, as far as can be known.
pub(crate) fn is_served(context: &NodeContext, session: &str) -> bool {
    // what has no such name is no session
    session.parse().is_ok_and(|session| {
        let lock = SessionLock::acquire(context.instance_id(), &session);
        !matches!(lock, Ok(Some(_)))
    })
}

/// The daemon's side of sessions: a handle to its task.
#[derive(Debug, Clone)]
pub(crate) struct SessionService {
    mailbox: mpsc::Sender<AgentMessage>,
}

impl SessionService {
    /// Begins to take session messages. `outgoing` goes to the control channel.
    pub(crate) fn start(
        context: Arc<NodeContext>,
        outgoing: mpsc::Sender<AgentMessage>,
        courier: Courier,
    ) -> Self {
        let (mailbox, messages) = mpsc::channel(MAILBOX_MESSAGES);
        tokio::spawn(Intake::new(context, outgoing, courier).run(messages));
        Self { mailbox }
    }

    /// `interactive_shell`, `channel_closed` or `agent_task_acknowledge`; never blocks.
    ///
    /// # Errors
    /// The mailbox is full: the message comes back.
    pub(crate) fn try_deliver(&self, message: AgentMessage) -> Result<(), AgentMessage> {
        self.mailbox
            .try_send(message)
            .map_err(mpsc::error::TrySendError::into_inner)
    }
}

/// `moorline-agent worker session`: reads its task from standard input and serves one session.
pub(crate) fn worker_main() -> ExitCode {
    worker::main()
}

/// `moorline-agent worker login`: becomes a shell by way of PAM.
pub(crate) fn login_main() -> ExitCode {
    login_process::main()
}
