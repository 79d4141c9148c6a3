//! What is recorded besides calls: what becomes of sessions and commands, refused channels, what the endpoint deletes by itself.

use std::net::IpAddr;

use moorline_protocol::{
    audit::{Actor, ActorKind, Event, EventKind},
    types::{CommandId, InstanceId, SessionId, TranscriptId},
};
use serde_json::Map;

use super::{AuditLog, NotRecorded, repeats::Key};
use crate::{app::App, log_lines::shown};

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

    /// The same of a recording, because of its age.
    pub(crate) async fn transcript_deleted(&self, id: &TranscriptId, why: &str) -> Result<(), NotRecorded> {
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
        self.sync(event).await
    }

    /// The same of a command, because of its age.
    pub(crate) async fn command_deleted(&self, command: &str, why: &str) -> Result<(), NotRecorded> {
        let mut event = Event::new(EventKind::Deleted, Actor::endpoint());
        event.command = Some(command.to_owned());
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

/// A session has ended, whoever said so first; the store knows how.
pub(crate) async fn session_ended(app: &App, session: &SessionId) {
    let mut event = of_session(EventKind::SessionEnded, Actor::endpoint(), session);
    match app.store.session(session).await {
        Ok(Some(row)) => {
            event.nodes = vec![row.node.to_string()];
            event.result = Some(row.status.as_str().to_owned());
            event.message = Some(shown(&row.details).to_string()).filter(|text| !text.is_empty());
            let mut details = Map::new();
            details.insert("owner".to_owned(), row.owner.into());
            details.insert("document".to_owned(), row.document_name.into());
            if let Some(code) = row.exit_code {
                details.insert("exit_code".to_owned(), code.into());
            }
            event.details = Some(details);
        }
        Ok(None) => {}
        Err(error) => {
            tracing::error!(%session, error = &error as &dyn std::error::Error, "failed to learn how a session ended, for the audit log");
        }
    }
    app.audit.record(event);
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
