//! What is recorded besides calls: what becomes of sessions and commands, refused channels, what the endpoint deletes by itself.

use std::net::IpAddr;

use moorline_protocol::{
    audit::{Actor, ActorKind, Event, EventKind},
    types::{CommandId, InstanceId, SessionId, TranscriptId},
};
use serde_json::{Map, Value};

use super::{AuditLog, NotRecorded, repeats::Key};
use crate::{
    app::App,
    log_lines::shown,
    store::{Content, SessionRow, StoreError, TranscriptRow},
};

/// What was in a recording that is deleted, to know a copy of it again.
#[derive(Debug)]
pub(crate) struct RecordedContent {
    length: u64,
    sha256: String,
}

impl RecordedContent {
    pub(crate) fn new(content: Content) -> Self {
        Self {
            length: content.length,
            sha256: content.hash.to_string(),
        }
    }

    /// `None`: it was never packed.
    pub(crate) fn of_row(row: &TranscriptRow) -> Option<Self> {
        let sha256 = row.sha256.clone()?;
        row.length.map(|length| Self { length, sha256 })
    }

    pub(super) fn details(self) -> Map<String, Value> {
        let mut details = Map::new();
        details.insert("length".to_owned(), self.length.into());
        details.insert("sha256".to_owned(), self.sha256.into());
        details
    }
}

impl AuditLog {
    /// A client joined its session, perhaps again: a network that comes and goes makes one record a minute.
    pub(crate) fn session_joined(&self, session: &SessionId, node: &str, operator: &str, peer: IpAddr) {
        let mut event = of_session(EventKind::SessionJoined, named(operator), session);
        event.nodes = vec![node.to_owned()];
        event.peer = Some(peer.to_canonical().to_string());
        let key = format!("joined {session} {operator} {:?}", event.peer);
        self.record_or_count(Key(key), event);
    }

    /// Another client has a session now.
    pub(crate) fn session_taken_over(&self, session: &SessionId, node: &str, operator: &str) {
        let mut event = of_session(EventKind::SessionTakenOver, named(operator), session);
        event.nodes = vec![node.to_owned()];
        self.record(event);
    }

    /// A request for a channel was refused. `code` is one of ours; what the request says is the peer's to vary.
    pub(crate) fn channel_refused(
        &self,
        peer: IpAddr,
        path: &str,
        claimed_key: Option<&str>,
        code: &str,
        message: &str,
    ) {
        let by = Actor {
            kind: ActorKind::Anonymous,
            name: String::new(),
            access_key: claimed_key.map(|key| shown(key).to_string()),
        };
        let mut event = Event::new(EventKind::ChannelRefused, by);
        let peer = peer.to_canonical().to_string();
        let key = format!("channel {peer} {code}");
        event.peer = Some(peer);
        event.operation = Some(shown(path).to_string());
        event.result = Some(code.to_owned());
        event.message = Some(shown(message).to_string());
        self.record_or_count(Key(key), event);
    }

    /// The endpoint is about to delete a session that was over, because its time was over. Nothing else tells that it was
    /// there, so this outlives a power cut when it returns.
    pub(crate) async fn session_deleted(&self, session: &SessionId, why: &str) -> Result<(), NotRecorded> {
        let mut event = of_session(EventKind::Deleted, Actor::endpoint(), session);
        event.message = Some(why.to_owned());
        self.sync(event).await
    }

    /// A session has ended. This outlives a power cut when it returns; otherwise it is told again.
    async fn session_ended(&self, session: &SessionRow) -> Result<(), NotRecorded> {
        let mut event = of_session(EventKind::SessionEnded, Actor::endpoint(), &session.session_id);
        event.nodes = vec![session.node.to_string()];
        event.result = Some(session.status.as_str().to_owned());
        event.message = Some(shown(&session.details).to_string()).filter(|text| !text.is_empty());
        let mut details = Map::new();
        details.insert("owner".to_owned(), session.owner.clone().into());
        details.insert("document".to_owned(), session.document_name.clone().into());
        if let Some(code) = session.exit_code {
            details.insert("exit_code".to_owned(), code.into());
        }
        event.details = Some(details);
        self.sync_or_keep(event).await
    }

    /// The same as [`Self::session_deleted`], of a recording, because of its age.
    pub(crate) async fn transcript_deleted(
        &self,
        id: &TranscriptId,
        content: Option<RecordedContent>,
        why: &str,
    ) -> Result<(), NotRecorded> {
        let mut event = Event::new(EventKind::Deleted, Actor::endpoint());
        match id.command() {
            Some((command, node)) => {
                event.command = Some(command.to_string());
                event.nodes = vec![node.to_string()];
            }
            None => event.session = Some(id.to_string()),
        }
        event.operation = Some("DeleteTranscript".to_owned());
        event.message = Some(why.to_owned());
        event.details = content.map(RecordedContent::details);
        self.sync(event).await
    }

    /// The same of a command, because of its age.
    pub(crate) async fn command_deleted(&self, command: &str, why: &str) -> Result<(), NotRecorded> {
        let mut event = Event::new(EventKind::Deleted, Actor::endpoint());
        event.command = Some(command.to_owned());
        event.message = Some(why.to_owned());
        self.sync(event).await
    }

    /// The same of a parameter, because a policy of its own says so.
    pub(crate) async fn parameter_deleted(&self, name: &str, why: &str) -> Result<(), NotRecorded> {
        let mut event = Event::new(EventKind::Deleted, Actor::endpoint());
        event.operation = Some("DeleteParameter".to_owned());
        event.parameters = Some([("Name".to_owned(), name.into())].into_iter().collect());
        event.message = Some(why.to_owned());
        self.sync(event).await
    }

    /// A node has said how a command ended there: also that it refused it. This outlives a power cut when it returns;
    /// otherwise it is told again, unless it is in the log all the same ([`Self::ended_commands`]).
    pub(crate) async fn command_ended(
        &self,
        command: &CommandId,
        node: &InstanceId,
        details: &str,
    ) -> Result<(), NotRecorded> {
        let by = Actor {
            kind: ActorKind::Node,
            name: node.to_string(),
            access_key: None,
        };
        let mut event = Event::new(EventKind::CommandEnded, by);
        event.command = Some(command.to_string());
        event.nodes = vec![node.to_string()];
        event.result = Some(details.to_owned());
        self.sync_or_keep(event).await
    }
}

/// Tells the log of the sessions that have ended, whoever said so first, and of which it does not have that yet: just now,
/// or before the endpoint died, or while the log could not be written.
pub(crate) async fn tell_ends_of_sessions(app: &App) -> Result<(), StoreError> {
    // or a line would be there twice
    let _one_at_a_time = app.audit.telling().lock().await;
    loop {
        let ended = app.store.untold_sessions().await?;
        // together, so that they wait for the disk once
        let recorded = ended.iter().map(|session| app.audit.session_ended(session));
        let recorded = futures_util::future::join_all(recorded).await;
        let is_told = ended
            .iter()
            .zip(recorded)
            .filter(|(_, recorded)| recorded.is_ok());
        let told: Vec<&SessionId> = is_told.map(|(session, _)| &session.session_id).collect();
        // the log of the process says why one is not; it is tried again
        if told.is_empty() {
            return Ok(());
        }
        app.store.sessions_told(&told).await?;
    }
}

fn of_session(kind: EventKind, by: Actor, session: &SessionId) -> Event {
    let mut event = Event::new(kind, by);
    event.session = Some(session.to_string());
    event
}

/// The token of a channel names its operator, and not the access key.
fn named(operator: &str) -> Actor {
    Actor {
        kind: ActorKind::Operator,
        name: operator.to_owned(),
        access_key: None,
    }
}
