//! One request of the API, from its first byte to its answer, as the log will have it.

use std::{
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use moorline_protocol::audit::{Actor, ActorKind, Event, EventKind};
use moorline_ssm::{ErrorCode, Operation};
use serde_json::{Map, Value};

use super::{
    AuditLog, NotRecorded,
    mask::masked,
    occurrence::RecordedContent,
    repeats::Key,
    rule::{Rule, rule},
};
use crate::{
    api::ApiError,
    auth::{Principal, Resource},
    log_lines::shown,
};

/// Nodes that are listed in a record; of the others it says how many there are.
const MOST_NODES: usize = 1000;
/// Of what an error says.
const MOST_MESSAGE_CHARACTERS: usize = 1024;
/// Members that say which part of a list is read, and not which list.
const PAGING: [&str; 5] = ["MaxBytes", "MaxResults", "NextToken", "Offset", "WaitMillis"];

/// Where a request came from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) peer: Option<IpAddr>,
    pub(crate) user_agent: Option<String>,
    /// The access key that the request names, proven or not.
    pub(crate) claimed_key: Option<String>,
    pub(crate) request_id: String,
    /// `X-Amz-Target`.
    pub(crate) target: String,
}

/// Follows one request. When it goes before its answer is known (the client has gone, or the handler panicked) that is
/// recorded.
#[derive(Debug)]
pub(crate) struct CallRecord {
    log: AuditLog,
    source: Source,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    by: Option<Actor>,
    called: Option<Called>,
    nodes: Vec<String>,
    more_nodes: usize,
    session: Option<String>,
    command: Option<String>,
    details: Option<Map<String, Value>>,
    is_accepted: bool,
    is_finished: bool,
}

#[derive(Debug, Clone)]
struct Called {
    /// `service:Operation`.
    name: String,
    rule: Rule,
    parameters: Map<String, Value>,
}

impl CallRecord {
    pub(crate) fn new(log: AuditLog, source: Source) -> Self {
        Self {
            log,
            source,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who it is from is proven.
    pub(crate) fn is_by(&self, principal: &Principal) {
        self.state().by = Some(actor(principal));
    }

    /// What it asks for, which has been read and not checked.
    pub(crate) fn is_call_of<O: Operation>(&self, action: &str, input: &O::Input, resource: &Resource) {
        let parameters = serde_json::from_slice(&O::encode_input(input)).unwrap_or_default();
        let mut state = self.state();
        state.called = Some(Called {
            name: action.to_owned(),
            rule: rule(O::ID),
            parameters: masked(O::ID, parameters),
        });
        match resource {
            Resource::Node(node) | Resource::SessionKey { node } => state.nodes.push(cut(node)),
            Resource::Session(session) => state.session = Some(cut(session)),
            Resource::Command(command) => state.command = Some(cut(command)),
            Resource::Any
            | Resource::Activation(_)
            | Resource::AuditLog
            | Resource::Document(_)
            | Resource::Key(_)
            | Resource::Operator(_)
            | Resource::Parameter(_) => {}
        }
    }

    /// What the log will show of the request; `None`: it is not known what it asks for.
    pub(super) fn with_parameters<T>(&self, look: impl FnOnce(&mut Map<String, Value>) -> T) -> Option<T> {
        let mut state = self.state();
        let called = state.called.as_mut()?;
        Some(look(&mut called.parameters))
    }

    /// Managed nodes that it turned out to be about.
    pub(crate) fn is_about_nodes<'a>(&self, nodes: impl IntoIterator<Item = &'a str>) {
        let mut state = self.state();
        for node in nodes {
            if state.nodes.len() >= MOST_NODES {
                state.more_nodes += 1;
            } else if !state.nodes.iter().any(|known| known == node) {
                state.nodes.push(node.to_owned());
            }
        }
    }

    /// It deleted a recording with this in it.
    pub(crate) fn deleted(&self, content: Option<RecordedContent>) {
        self.state().details = content.map(RecordedContent::details);
    }

    /// It is about to be carried out. What changes something waits here until that is on disk.
    ///
    /// # Errors
    /// It cannot be recorded, so it may not be carried out.
    pub(crate) async fn accept(&self) -> Result<(), ApiError> {
        let (is_anonymous, called) = {
            let state = self.state();
            let is_anonymous = state.by.as_ref().is_none_or(|by| by.kind == ActorKind::Anonymous);
            (is_anonymous, state.called.clone())
        };
        let Some(called) = called else {
            return Ok(());
        };
        match called.rule {
            Rule::Read | Rule::Omitted => return Ok(()),
            Rule::Change if !self.log.has_room() => return Err(no_room()),
            // Whoever is not proven could fill the disk with these. What comes of it is on disk before the answer.
            Rule::Change | Rule::Urgent if is_anonymous => return Ok(()),
            Rule::Change | Rule::Urgent => {}
        }
        let recorded = self.log.sync(self.event(EventKind::Accepted)).await;
        self.state().is_accepted = true;
        match (called.rule, recorded) {
            (Rule::Change, Err(NotRecorded)) => Err(no_room()),
            _ => Ok(()),
        }
    }

    /// What comes of it. When this returns it can be answered.
    pub(crate) async fn finish(&self, result: &Result<Vec<u8>, ApiError>) {
        let (rule, is_accepted) = {
            let mut state = self.state();
            state.is_finished = true;
            let rule = state.called.as_ref().map(|called| called.rule);
            if let (Some(Rule::Change | Rule::Urgent), Ok(reply)) = (rule, result) {
                state.learn(reply);
            }
            (rule, state.is_accepted)
        };
        let mut event = self.event(EventKind::Call);
        match result {
            Ok(_) => event.result = Some("ok".to_owned()),
            Err(error) => {
                event.result = Some(error.code.as_str().to_owned());
                event.message = Some(error.message.chars().take(MOST_MESSAGE_CHARACTERS).collect());
            }
        }
        let recorded = match (rule, result) {
            (Some(Rule::Omitted), Ok(_)) => Ok(()),
            (Some(Rule::Omitted), Err(error)) if !is_refusal(error.code) => Ok(()),
            (Some(Rule::Change | Rule::Urgent), Ok(_)) if !is_accepted => self.log.sync(event).await,
            (Some(Rule::Change | Rule::Urgent), _) if is_accepted => self.log.write(event).await,
            _ => {
                self.log.record_or_count(self.key(&event), event);
                Ok(())
            }
        };
        if recorded.is_err() {
            // it has happened; its acceptance is in the log
            tracing::error!(
                request_id = self.source.request_id,
                "the outcome of an operation is not in the audit log"
            );
        }
    }

    fn event(&self, kind: EventKind) -> Event {
        let state = self.state();
        let is_proven = state
            .by
            .as_ref()
            .is_some_and(|by| by.kind != ActorKind::Anonymous);
        let by = state.by.clone().unwrap_or_else(|| Actor {
            kind: ActorKind::Anonymous,
            name: String::new(),
            access_key: self.source.claimed_key.as_deref().map(cut),
        });
        let mut event = Event::new(kind, by);
        event.peer = self.source.peer.map(|peer| peer.to_canonical().to_string());
        event.user_agent = self.source.user_agent.as_deref().map(cut);
        event.request_id = Some(self.source.request_id.clone());
        event.nodes.clone_from(&state.nodes);
        event.session.clone_from(&state.session);
        event.command.clone_from(&state.command);
        match &state.called {
            Some(called) => {
                event.operation = Some(called.name.clone());
                event.read_only = called.rule.is_read_only();
                // of what nobody signed only what can do something
                let is_shown = is_proven || event.read_only == Some(false);
                event.parameters = is_shown.then(|| called.parameters.clone());
            }
            None if !self.source.target.is_empty() => event.operation = Some(cut(&self.source.target)),
            None => {}
        }
        event.details.clone_from(&state.details);
        if state.more_nodes > 0 {
            let details = event.details.get_or_insert_default();
            details.insert("more_nodes".to_owned(), state.more_nodes.into());
        }
        event
    }

    /// What counts as the same. Of those who are not proven only where they come from and how it ended: everything else
    /// is theirs to vary.
    fn key(&self, event: &Event) -> Key {
        let Actor {
            kind,
            name,
            access_key,
        } = &event.by;
        let (peer, result) = (&event.peer, &event.result);
        if *kind == ActorKind::Anonymous {
            return Key(format!("{kind:?} {peer:?} {result:?}"));
        }
        let operation = &event.operation;
        let mut key = format!("{kind:?} {name:?} {access_key:?} {peer:?} {operation:?} {result:?}");
        if result.as_deref() == Some("ok")
            && let Some(parameters) = &event.parameters
        {
            let mut which = parameters.clone();
            PAGING.iter().for_each(|name| {
                which.shift_remove(*name);
            });
            let which = serde_json::to_vec(&which).unwrap_or_default();
            key += &format!(" {}", moorline_protocol::audit::Digest::of_line(&which));
        }
        Key(key)
    }
}

impl State {
    /// What a reply says about what was made.
    fn learn(&mut self, reply: &[u8]) {
        let reply: Value = serde_json::from_slice(reply).unwrap_or_default();
        let text = |pointer| reply.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        self.session = self.session.take().or_else(|| text("/SessionId"));
        self.command = self.command.take().or_else(|| text("/Command/CommandId"));
        if self.nodes.is_empty() {
            self.nodes.extend(text("/InstanceId"));
        }
        if let (Some(id), Some(called)) = (text("/ActivationId"), &mut self.called) {
            called.parameters.insert("ActivationId".to_owned(), id.into());
        }
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        let (is_finished, is_known) = {
            let state = self.state();
            (state.is_finished, state.called.is_some())
        };
        if is_finished || !is_known {
            return;
        }
        let mut event = self.event(EventKind::Call);
        event.result = Some("Unanswered".to_owned());
        event.message =
            Some("the client went away, or the endpoint failed, before there was an answer".to_owned());
        self.log.record_or_count(self.key(&event), event);
    }
}

fn actor(principal: &Principal) -> Actor {
    let (kind, name, access_key) = match principal {
        Principal::Administrator {
            access_key_id,
            user_name,
        } => (
            ActorKind::Operator,
            user_name.clone(),
            Some(access_key_id.clone()),
        ),
        Principal::Anonymous => (ActorKind::Anonymous, String::new(), None),
        Principal::Node(id) | Principal::NodeKey(id) => (ActorKind::Node, id.to_string(), None),
    };
    Actor {
        kind,
        name,
        access_key,
    }
}

/// A value of a peer.
fn cut(text: &str) -> String {
    shown(text).to_string()
}

/// Who asked may not do this, or did not prove who it is.
fn is_refusal(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::AccessDeniedException
            | ErrorCode::ExpiredTokenException
            | ErrorCode::IncompleteSignature
            | ErrorCode::InvalidSignatureException
            | ErrorCode::MissingAuthenticationToken
            | ErrorCode::UnrecognizedClientException
    )
}

fn no_room() -> ApiError {
    ApiError::new(
        ErrorCode::ServiceUnavailable,
        "nothing is changed now: the endpoint's disk is nearly full, or its audit log cannot be written, and what is \
         changed must be recorded first. Open sessions and reading go on. Free space on the endpoint's file system",
    )
}
