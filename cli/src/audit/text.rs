//! A record as a line for people.

use std::collections::BTreeMap;

use moorline_protocol::audit::{Actor, ActorKind, Body, Event, EventKind, Line};

use crate::{console::one_line, counted::counted};

/// Of parameters and messages.
const MOST_CHARACTERS: usize = 200;
/// Acceptances that wait for their call.
const MOST_ACCEPTED: usize = 256;

/// Makes lines. That something was accepted is told only when nothing tells what came of it.
#[derive(Debug, Default)]
pub(super) struct Lines {
    accepted: BTreeMap<String, String>,
}

impl Lines {
    /// The line of a record, if it is to be shown now.
    pub(super) fn add(&mut self, record: &str) -> Option<String> {
        let Ok(line) = Line::parse(format!("{record}\n").as_bytes()) else {
            return Some(format!("(no line of an audit log) {}", one_line(record)));
        };
        let Body::Event(event) = &line.body else {
            return None;
        };
        let text = text(&line, event);
        match (&event.event, &event.request_id) {
            (EventKind::Accepted, Some(id)) => {
                self.accepted.insert(id.clone(), text);
                // so many at a time are never under way: what comes of the others is not in what is listed
                if self.accepted.len() > MOST_ACCEPTED {
                    return self.accepted.pop_first().map(|(_, text)| text);
                }
                None
            }
            (_, id) => {
                if let Some(id) = id {
                    self.accepted.remove(id);
                }
                Some(text)
            }
        }
    }

    /// What was accepted and of which nothing was told.
    pub(super) fn finish(self) -> impl Iterator<Item = String> {
        self.accepted.into_values()
    }
}

fn text(line: &Line, event: &Event) -> String {
    let what = match event.event {
        EventKind::Call => event.operation.clone().unwrap_or_default(),
        EventKind::Accepted => format!("{} (accepted, outcome not recorded)", operation(event)),
        _ => {
            let operation = event.operation.as_deref();
            operation.map_or_else(
                || event.event.to_string(),
                |path| format!("{} {path}", event.event),
            )
        }
    };
    let mut words = vec![line.time.to_string(), who(&event.by)];
    words.extend(event.peer.as_ref().map(|peer| format!("from {peer}")));
    words.push(what);
    match event.nodes.as_slice() {
        [] => {}
        [node] => words.push(format!("on {node}")),
        [first, others @ ..] => words.push(format!("on {first} and {} more", others.len())),
    }
    words.extend(event.session.as_ref().map(|session| format!("session {session}")));
    words.extend(event.command.as_ref().map(|command| format!("command {command}")));
    words.extend(event.count.map(|count| counted(count, "time")));
    words.extend(event.result.clone());
    words.extend(
        event
            .message
            .as_ref()
            .map(|message| format!("({})", cut(message))),
    );
    if let Some(parameters) = &event.parameters {
        words.push(cut(&serde_json::to_string(parameters).unwrap_or_default()));
    }
    one_line(&words.join("  "))
}

fn operation(event: &Event) -> &str {
    event.operation.as_deref().unwrap_or_default()
}

fn who(by: &Actor) -> String {
    match by.kind {
        ActorKind::Anonymous => by
            .access_key
            .as_ref()
            .map_or_else(|| "anonymous".to_owned(), |key| format!("anonymous ({key})")),
        ActorKind::Endpoint => "endpoint".to_owned(),
        ActorKind::Node | ActorKind::Operator => by.name.clone(),
    }
}

fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(MOST_CHARACTERS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
