//! What the control channel says about sessions: start one, end one, the end of one is known.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use moorline_protocol::{
    message::{
        AgentMessage, AgentTaskAcknowledge, ChannelClosed, InteractiveShell, MessageType, StartSessionContent,
    },
    types::SessionId,
};
use moorline_transport::Service;
use serde_json::Value;
use tokio::{
    sync::mpsc,
    task::{Id, JoinSet},
};
use uuid::Uuid;

use super::{
    owner_policy,
    session_lock::SessionLock,
    supervision::{Notice, Start, Supervision},
};
use crate::{recording::Courier, runtime::NodeContext};

/// Sessions that have ended, or never began, and whose end the endpoint does not know yet, beside those that run.
const MAX_UNREPORTED: usize = 256;
/// A message may have waited; one that was made this long from now was not made by this clock.
const FAR_MILLIS: u64 = 10 * 60 * 1000;
/// An acknowledgement and an order to end is all that is ever said to one.
const NOTICES: usize = 4;

/// Takes session messages and keeps one task for each session.
pub(super) struct Intake {
    context: Arc<NodeContext>,
    outgoing: mpsc::Sender<AgentMessage>,
    courier: Courier,
    /// Sessions that this daemon started and that still run.
    active: Arc<AtomicUsize>,
    sessions: BTreeMap<SessionId, Entry>,
    supervised: JoinSet<()>,
}

struct Entry {
    task: Id,
    /// Message id of its `agent_task_complete`.
    completion: Uuid,
    notices: mpsc::Sender<Notice>,
}

impl Entry {
    /// Each notice counts once, so one that finds no room was said before.
    fn tell(&self, notice: Notice) {
        if let Err(error) = self.notices.try_send(notice) {
            tracing::debug!(%error, ?notice, "session not told");
        }
    }
}

impl Intake {
    pub(super) fn new(
        context: Arc<NodeContext>,
        outgoing: mpsc::Sender<AgentMessage>,
        courier: Courier,
    ) -> Self {
        Self {
            context,
            outgoing,
            courier,
            active: Arc::default(),
            sessions: BTreeMap::new(),
            supervised: JoinSet::new(),
        }
    }

    /// Until the daemon lets go of its handle. Workers go on without us.
    pub(super) async fn run(mut self, mut messages: mpsc::Receiver<AgentMessage>) {
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.take(&message),
                    None => return,
                },
                Some(ended) = self.supervised.join_next_with_id() => {
                    let task = match ended {
                        Ok((task, ())) => task,
                        Err(error) => {
                            tracing::error!(%error, "the supervision of a session failed");
                            error.id()
                        }
                    };
                    self.sessions.retain(|_, entry| entry.task != task);
                }
            }
        }
    }

    fn take(&mut self, message: &AgentMessage) {
        match &message.message_type {
            MessageType::InteractiveShell => {
                self.learn_time(message.created_date);
                self.start(&message.payload);
            }
            MessageType::ChannelClosed => match serde_json::from_slice::<ChannelClosed>(&message.payload) {
                Ok(closed) => self.close(&closed.session_id),
                Err(error) => tracing::warn!(%error, "channel_closed cannot be read"),
            },
            MessageType::AgentTaskAcknowledge => {
                match serde_json::from_slice::<AgentTaskAcknowledge>(&message.payload) {
                    Ok(acknowledge) => self.acknowledge(&acknowledge.message_id),
                    Err(error) => tracing::warn!(%error, "agent_task_acknowledge cannot be read"),
                }
            }
            other => tracing::warn!(message_type = other.as_str(), "not a message about sessions"),
        }
    }

    /// The endpoint has just made the message: where its time is far from ours, ours is wrong, and the session's worker
    /// is spared a refusal.
    fn learn_time(&self, created: u64) {
        let endpoint = self.context.registration.services.endpoint(Service::SsmMessages);
        if created.abs_diff(endpoint.unix_millis()) > FAR_MILLIS {
            endpoint.learn_time(created);
        }
    }

    fn start(&mut self, payload: &[u8]) {
        let request = match Request::read(payload) {
            Ok(request) => request,
            Err(Unreadable { session_id, reason }) => {
                tracing::warn!(reason, "interactive_shell cannot be read");
                let Some(session_id) = session_id else { return };
                return self.supervise(session_id, Start::Refused(reason));
            }
        };
        let limit = self.context.config.session.limit;
        let leave = owner_policy::foresee(
            &request.content,
            &self.context.config.policy.folder,
            self.context.instance_id().as_str(),
        );
        let start = if let Err(refusal) = leave {
            tracing::warn!(session_id = %request.session_id, %refusal, "session refused");
            Start::Refused(refusal.to_string())
        } else if self.active.load(Ordering::Relaxed) < limit {
            Start::Worker(Box::new(request.content))
        } else {
            tracing::warn!(session_id = %request.session_id, limit, "session refused: the limit is reached");
            Start::Refused(format!(
                "this node already serves {limit} sessions, which is its limit (session.limit)"
            ))
        };
        self.supervise(request.session_id, start);
    }

    fn supervise(&mut self, session_id: SessionId, start: Start) {
        if self.sessions.contains_key(&session_id) {
            tracing::info!(%session_id, "session runs already");
            return;
        }
        if self.sessions.len() >= self.context.config.session.limit.saturating_add(MAX_UNREPORTED) {
            tracing::warn!(%session_id, "session dropped: too many wait for the endpoint");
            return;
        }
        let completion = Uuid::new_v4();
        let (notices, inbox) = mpsc::channel(NOTICES);
        let supervision = Supervision::new(
            Arc::clone(&self.context),
            (self.outgoing.clone(), self.courier.clone()),
            session_id.clone(),
            completion,
            inbox,
        );
        // Counted here and not when the task runs: the next message may come first.
        let running = matches!(start, Start::Worker(_)).then(|| Running::begin(&self.active));
        let task = self.supervised.spawn(supervision.run(start, running)).id();
        self.sessions.insert(
            session_id,
            Entry {
                task,
                completion,
                notices,
            },
        );
    }

    fn close(&mut self, session_id: &str) {
        let Ok(session_id) = session_id.parse::<SessionId>() else {
            return tracing::warn!("channel_closed names no session");
        };
        if let Some(entry) = self.sessions.get(&session_id) {
            return entry.tell(Notice::Close);
        }
        match SessionLock::acquire(self.context.instance_id(), &session_id) {
            Ok(Some(_)) => self.supervise(session_id, Start::Over),
            // of an earlier daemon, or not to be known: a worker hears it on the data channel
            Ok(None) | Err(_) => {
                tracing::debug!(%session_id, "the end of a session that is not supervised here");
            }
        }
    }

    fn acknowledge(&self, message_id: &str) {
        let Ok(message_id) = Uuid::parse_str(message_id) else {
            return;
        };
        for entry in self
            .sessions
            .values()
            .filter(|entry| entry.completion == message_id)
        {
            entry.tell(Notice::Acknowledged);
        }
    }
}

/// Counts a session for as long as it lives.
#[derive(Debug)]
pub(super) struct Running(Arc<AtomicUsize>);

impl Running {
    fn begin(active: &Arc<AtomicUsize>) -> Self {
        active.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(active))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A readable `interactive_shell`.
#[derive(Debug, PartialEq)]
struct Request {
    session_id: SessionId,
    content: StartSessionContent,
}

/// Why it is not readable, and which session it would have been, if that can be read.
#[derive(Debug, PartialEq, Eq)]
struct Unreadable {
    session_id: Option<SessionId>,
    reason: String,
}

impl Request {
    fn read(payload: &[u8]) -> Result<Self, Unreadable> {
        let shell: InteractiveShell = serde_json::from_slice(payload).map_err(|error| Unreadable {
            session_id: None,
            reason: format!("the session request is malformed: {error}"),
        })?;
        let content: StartSessionContent =
            serde_json::from_str(&shell.content).map_err(|error| Unreadable {
                session_id: session_id_of(&shell),
                reason: format!("the session request's content is malformed: {error}"),
            })?;
        let session_id = content.session_id.parse().map_err(|error| Unreadable {
            session_id: None,
            reason: format!("{error}"),
        })?;
        Ok(Self { session_id, content })
    }
}

fn session_id_of(shell: &InteractiveShell) -> Option<SessionId> {
    let content: Value = serde_json::from_str(&shell.content).unwrap_or_default();
    let inside = content.get("SessionId").and_then(Value::as_str);
    [inside, Some(shell.task_id.as_str())]
        .into_iter()
        .flatten()
        .find_map(|id| id.parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(content: &str, task_id: &str) -> Result<Request, Unreadable> {
        let shell = json!({"Content": content, "TaskId": task_id, "Topic": "t", "SchemaVersion": 1});
        Request::read(shell.to_string().as_bytes())
    }

    #[test]
    fn a_request_is_read_with_its_session() {
        let content = json!({"DocumentName": "SSM-SessionManagerRunShell", "SessionId": "me-0abc",
                             "DocumentContent": {"schemaVersion": "1.0", "sessionType": "Standard_Stream"},
                             "Parameters": {}, "RunAsUser": "", "SessionOwner": "arn:x", "Later": 1});
        let request = read(&content.to_string(), "me-0abc").unwrap();
        assert_eq!(request.session_id.as_str(), "me-0abc");
    }

    #[test]
    fn a_request_that_cannot_be_read_names_its_session_if_it_can() {
        for (content, task_id, expected) in [
            (r#"{"SessionId":"me-1"}"#, "me-2", Some("me-1")),
            (r#"{"SessionId":7}"#, "me-2", Some("me-2")),
            ("no json", "me-2", Some("me-2")),
            ("no json", "../etc", None),
            (r#"{"SessionId":"a/b"}"#, "", None),
        ] {
            let unreadable = read(content, task_id).unwrap_err();
            let id = unreadable.session_id.as_ref().map(SessionId::as_str);
            assert_eq!(id, expected, "{content}");
            assert!(unreadable.reason.contains("malformed"), "{}", unreadable.reason);
        }
        assert_eq!(Request::read(b"{}").unwrap_err().session_id, None);
    }
}
