//! Records in the shape of CloudTrail's, for what reads such files.
//!
//! A call becomes an `AwsApiCall`; what happens without one becomes an `AwsServiceEvent`. Ids are made of the record's
//! hash, so that a record has the same one in every export.

use std::collections::BTreeMap;

use moorline_protocol::audit::{Actor, ActorKind, Body, Digest, Event, EventKind, Line};
use serde_json::{Map, Value, json};

/// Of the shape.
const EVENT_VERSION: &str = "1.11";
/// There are no AWS accounts here.
const ACCOUNT: &str = "000000000000";
/// Acceptances that wait for their call.
const MOST_ACCEPTED: usize = 4096;

/// Turns lines into records, an acceptance and its call into one.
#[derive(Debug)]
pub(super) struct CloudTrail {
    region: String,
    accepted: BTreeMap<String, Value>,
    unreadable: u64,
}

impl CloudTrail {
    pub(super) fn new(region: &str) -> Self {
        Self {
            region: region.to_owned(),
            accepted: BTreeMap::new(),
            unreadable: 0,
        }
    }

    /// Lines that were none of an audit log, of which there is no record.
    pub(super) fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// The records that a line completes.
    pub(super) fn add(&mut self, line: &str) -> Vec<Value> {
        let bytes = format!("{line}\n").into_bytes();
        let Ok(parsed) = Line::parse(&bytes) else {
            self.unreadable += 1;
            return Vec::new();
        };
        let Body::Event(event) = &parsed.body else {
            return Vec::new();
        };
        let record = self.record(&parsed, event, &Digest::of_line(&bytes));
        let id = event.request_id.clone().unwrap_or_default();
        match event.event {
            EventKind::Accepted => {
                self.accepted.insert(id, record);
                let is_too_many = self.accepted.len() > MOST_ACCEPTED;
                let first = is_too_many.then(|| self.accepted.pop_first()).flatten();
                first.map(|(_, record)| pending(record)).into_iter().collect()
            }
            // of what the process before had accepted nothing more will be told
            EventKind::LogStarted => {
                let accepted = std::mem::take(&mut self.accepted);
                accepted.into_values().map(lost).chain([record]).collect()
            }
            _ => {
                self.accepted.remove(&id);
                vec![record]
            }
        }
    }

    /// What was accepted and of whose outcome nothing is known yet.
    pub(super) fn finish(self) -> impl Iterator<Item = Value> {
        self.accepted.into_values().map(pending)
    }

    fn record(&self, line: &Line, event: &Event, hash: &Digest) -> Value {
        let (service, name) = match &event.operation {
            Some(operation) => operation.split_once(':').unwrap_or(("", operation)),
            None => ("", event.event.as_str()),
        };
        let is_call = matches!(event.event, EventKind::Accepted | EventKind::Call);
        let mut record = Map::new();
        let mut put = |name: &str, value: Value| {
            record.insert(name.to_owned(), value);
        };
        put("eventVersion", EVENT_VERSION.into());
        put("userIdentity", identity(&event.by));
        put("eventTime", to_the_second(&line.time.to_string()).into());
        put("eventSource", source(service).into());
        put("eventName", name.into());
        put("awsRegion", self.region.clone().into());
        put(
            "sourceIPAddress",
            event.peer.clone().unwrap_or_else(|| "moorline".to_owned()).into(),
        );
        put("userAgent", event.user_agent.clone().unwrap_or_default().into());
        match (event.result.as_deref(), &event.event) {
            (Some("ok"), _) => {}
            (Some(code), EventKind::Call | EventKind::ChannelRefused) => {
                put("errorCode", code.into());
                put("errorMessage", event.message.clone().unwrap_or_default().into());
            }
            _ => {}
        }
        put("requestParameters", parameters(event.parameters.as_ref()));
        put("responseElements", response(event));
        put("additionalEventData", additional(line, event));
        put("requestID", event.request_id.clone().unwrap_or_default().into());
        put("eventID", uuid_of(hash).into());
        put("readOnly", event.read_only.unwrap_or(false).into());
        let event_type = if is_call { "AwsApiCall" } else { "AwsServiceEvent" };
        put("eventType", event_type.into());
        put("managementEvent", true.into());
        put("recipientAccountId", ACCOUNT.into());
        put("eventCategory", "Management".into());
        Value::Object(record)
    }
}

/// Accepted by a process that has ended.
fn lost(record: Value) -> Value {
    without_outcome(
        record,
        "OutcomeUnknown",
        "accepted; the endpoint ended before the outcome was recorded",
    )
}

/// Accepted, and perhaps under way.
fn pending(record: Value) -> Value {
    without_outcome(
        record,
        "OutcomePending",
        "accepted; no outcome is in what was exported, so it may be under way",
    )
}

fn without_outcome(mut record: Value, code: &str, message: &str) -> Value {
    if let Some(members) = record.as_object_mut() {
        members.insert("errorCode".to_owned(), code.into());
        members.insert("errorMessage".to_owned(), message.into());
    }
    record
}

fn identity(by: &Actor) -> Value {
    let mut identity = match by.kind {
        ActorKind::Operator => json!({
            "type": "IAMUser",
            "principalId": by.access_key,
            "arn": format!("arn:moorline:iam:::user/{}", by.name),
            "accountId": ACCOUNT,
            "userName": by.name,
        }),
        ActorKind::Node => json!({
            "type": "AssumedRole",
            "principalId": by.name,
            "arn": format!("arn:moorline:ssm:::managed-instance/{}", by.name),
            "accountId": ACCOUNT,
        }),
        ActorKind::Endpoint => json!({"type": "AWSService", "invokedBy": "moorline"}),
        ActorKind::Anonymous => json!({"type": "Unknown", "principalId": "Anonymous"}),
    };
    if let (Some(key), Some(members)) = (&by.access_key, identity.as_object_mut()) {
        members.insert("accessKeyId".to_owned(), key.clone().into());
    }
    identity
}

fn source(service: &str) -> String {
    match service {
        "ssm" | "kms" | "ec2messages" => format!("{service}.amazonaws.com"),
        // ours: AWS has no such service
        _ => "moorline".to_owned(),
    }
}

/// Names of members begin with a small letter there; those of a document's parameters are its author's.
fn parameters(given: Option<&Map<String, Value>>) -> Value {
    let Some(given) = given.filter(|given| !given.is_empty()) else {
        return Value::Null;
    };
    let named = given.iter().map(|(name, value)| {
        let value = if name == "Parameters" {
            value.clone()
        } else {
            small(value.clone())
        };
        (small_name(name), value)
    });
    Value::Object(named.collect())
}

fn small(value: Value) -> Value {
    match value {
        Value::Array(values) => values.into_iter().map(small).collect(),
        Value::Object(members) => {
            let named = members
                .into_iter()
                .map(|(name, value)| (small_name(&name), small(value)));
            Value::Object(named.collect())
        }
        other => other,
    }
}

fn small_name(name: &str) -> String {
    let mut characters = name.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => String::new(),
    }
}

/// What was made.
fn response(event: &Event) -> Value {
    let is_made = event.event == EventKind::Call && event.result.as_deref() == Some("ok");
    match (
        is_made && event.read_only == Some(false),
        &event.session,
        &event.command,
    ) {
        (true, _, Some(command)) => json!({"command": {"commandId": command}}),
        (true, Some(session), None) => json!({"sessionId": session}),
        _ => Value::Null,
    }
}

/// What CloudTrail has no member for.
fn additional(line: &Line, event: &Event) -> Value {
    let mut data = Map::new();
    data.insert("auditIndex".to_owned(), line.index.into());
    if !event.nodes.is_empty() {
        data.insert("nodes".to_owned(), event.nodes.clone().into());
    }
    let texts = [("sessionId", &event.session), ("commandId", &event.command)];
    for (name, value) in texts {
        data.extend(value.clone().map(|value| (name.to_owned(), value.into())));
    }
    data.extend(event.count.map(|count| ("count".to_owned(), count.into())));
    if !matches!(
        event.event,
        EventKind::Call | EventKind::Accepted | EventKind::ChannelRefused
    ) {
        data.extend(
            event
                .result
                .clone()
                .map(|result| ("result".to_owned(), result.into())),
        );
        data.extend(
            event
                .message
                .clone()
                .map(|message| ("message".to_owned(), message.into())),
        );
    }
    data.extend(
        event
            .details
            .clone()
            .map(|details| ("details".to_owned(), Value::Object(details))),
    );
    Value::Object(data)
}

fn to_the_second(time: &str) -> String {
    time.split_once('.')
        .map_or_else(|| time.to_owned(), |(seconds, _)| format!("{seconds}Z"))
}

fn uuid_of(hash: &Digest) -> String {
    let [bytes @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = hash.0;
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use moorline_protocol::audit::Chain;

    use super::*;

    /// Lines of a log with these events: what, and its request.
    fn log(events: &[(EventKind, Option<&str>)]) -> Vec<String> {
        let mut chain = Chain::new();
        let line = |(kind, request): &(EventKind, Option<&str>)| {
            let mut event = Event::new(kind.clone(), Actor::endpoint());
            event.request_id = request.map(str::to_owned);
            event.result = (*kind == EventKind::Call).then(|| "ok".to_owned());
            chain.append(0, &event).trim_end().to_owned()
        };
        events.iter().map(line).collect()
    }

    /// Request and error code of each record.
    fn exported(lines: &[String]) -> Vec<(String, Option<String>)> {
        let mut trail = CloudTrail::new("us-east-1");
        let mut records: Vec<Value> = lines.iter().flat_map(|line| trail.add(line)).collect();
        records.extend(trail.finish());
        let text = |record: &Value, name: &str| record[name].as_str().map(str::to_owned);
        let shown = |record: &Value| (text(record, "requestID").unwrap(), text(record, "errorCode"));
        records.iter().map(shown).collect()
    }

    #[test]
    fn a_call_that_is_under_way_is_not_told_as_one_whose_endpoint_ended() {
        let lines = log(&[
            (EventKind::LogStarted, None),
            (EventKind::Accepted, Some("lost")),
            (EventKind::Accepted, Some("answered")),
            (EventKind::Call, Some("answered")),
            (EventKind::LogStarted, None),
            (EventKind::Accepted, Some("under way")),
        ]);
        let shown = |request: &str, code: Option<&str>| (request.to_owned(), code.map(str::to_owned));
        assert_eq!(
            exported(&lines),
            [
                shown("", None),
                shown("answered", None),
                shown("lost", Some("OutcomeUnknown")),
                shown("", None),
                shown("under way", Some("OutcomePending")),
            ]
        );
    }

    #[test]
    fn what_is_no_line_of_the_log_is_counted_and_not_passed_over() {
        let mut trail = CloudTrail::new("us-east-1");
        assert_eq!(trail.add("{\"index\":1}"), [Value::Null; 0]);
        assert_eq!(trail.unreadable(), 1);
    }
}
