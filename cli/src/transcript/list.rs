//! `moorline transcript list`.

use jiff::Timestamp;
use moorline_ssm::{
    EpochSeconds,
    transcript::{ListTranscripts, ListTranscriptsRequest, Transcript, TranscriptKind, TranscriptState},
};
use serde::Serialize;

use crate::{
    arguments::{self, TranscriptFilter},
    console::{self, one_line},
    error::CliError,
    operator::Operator,
    pick,
};

const PAGE: i32 = 50;

/// A transcript as scripts read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    session_id: String,
    kind: Option<String>,
    command_id: Option<String>,
    target: Option<String>,
    owner: Option<String>,
    document_name: Option<String>,
    start_date: Option<String>,
    end_date: Option<String>,
    length_bytes: i64,
    complete: bool,
    state: Option<String>,
    sha256: Option<String>,
    held_by: Option<String>,
    held_date: Option<String>,
    hold_reason: Option<String>,
    deleted_by: Option<String>,
    deleted_date: Option<String>,
    delete_reason: Option<String>,
}

impl Listed {
    /// Its state, and of one that is held or deleted by whom, when and why.
    fn state_in_words(&self) -> String {
        let state = self.state.as_deref().unwrap_or("-");
        let by = |who: &str, since: &str, date: &Option<String>, reason: &Option<String>| {
            let date = date.as_ref().map(|date| format!(" {since} {date}"));
            let reason = reason.as_ref().map(|reason| format!(": {reason}"));
            format!(
                "by {who}{}{}",
                date.unwrap_or_default(),
                reason.unwrap_or_default()
            )
        };
        match (&self.deleted_by, &self.held_by) {
            (Some(who), _) => {
                let by = by(who, "on", &self.deleted_date, &self.delete_reason);
                format!("{state} {by}")
            }
            (None, Some(who)) => {
                let by = by(who, "since", &self.held_date, &self.hold_reason);
                format!("{state}, held {by}")
            }
            (None, None) => state.to_owned(),
        }
    }
}

/// The exit code: 1 when recordings could not be searched.
pub(super) async fn show(operator: &Operator, filter: &TranscriptFilter, json: bool) -> Result<u8, CliError> {
    let target = match &filter.node {
        Some(node) => Some(pick::node(operator, node).await?),
        None => None,
    };
    let request = ListTranscriptsRequest {
        target,
        max_results: Some(PAGE),
        ..request(filter)
    };
    let Found {
        transcripts,
        not_searched,
    } = list(operator, request).await?;
    let transcripts: Vec<Listed> = transcripts.into_iter().map(Listed::from).collect();
    match json {
        true => console::print_json(&transcripts)?,
        false => print(&transcripts)?,
    }
    for session in &not_searched {
        console::note(&format!(
            "{} was not searched: the endpoint cannot read it, and its log says why",
            one_line(session)
        ));
    }
    Ok(u8::from(!not_searched.is_empty()))
}

fn print(transcripts: &[Listed]) -> Result<(), CliError> {
    let mut table = console::table(&[
        "SESSION", "KIND", "NODE", "OWNER", "DOCUMENT", "STARTED", "BYTES", "STATE",
    ]);
    for transcript in transcripts {
        let text = |value: &Option<String>| one_line(value.as_deref().unwrap_or("-"));
        table.add_row([
            transcript.session_id.clone(),
            text(&transcript.kind),
            text(&transcript.target),
            text(&transcript.owner),
            text(&transcript.document_name),
            text(&transcript.start_date),
            transcript.length_bytes.to_string(),
            one_line(&transcript.state_in_words()),
        ]);
    }
    console::print_table(&table)
}

/// The id of the newest.
pub(super) async fn newest(operator: &Operator) -> Result<String, CliError> {
    let request = ListTranscriptsRequest {
        max_results: Some(1),
        ..ListTranscriptsRequest::default()
    };
    let page = operator.call::<ListTranscripts>(&request).await?;
    let newest = page.transcripts.unwrap_or_default().into_iter().next();
    newest
        .and_then(|transcript| transcript.session_id)
        .ok_or_else(|| CliError::Transcript("there is no transcript yet".to_owned()))
}

/// What there is, newest first.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) transcripts: Vec<Transcript>,
    /// Recordings in which the text was not looked for: they cannot be read.
    not_searched: Vec<String>,
}

/// All of them. A page may be empty while the endpoint still looks for a text.
pub(super) async fn list(
    operator: &Operator,
    mut request: ListTranscriptsRequest,
) -> Result<Found, CliError> {
    let mut found = Found::default();
    loop {
        let page = operator.call::<ListTranscripts>(&request).await?;
        found.transcripts.extend(page.transcripts.unwrap_or_default());
        found.not_searched.extend(page.not_searched.unwrap_or_default());
        request.next_token = page.next_token.filter(|token| !token.is_empty());
        if request.next_token.is_none() {
            return Ok(found);
        }
    }
}

fn request(filter: &TranscriptFilter) -> ListTranscriptsRequest {
    let time = |time: Option<Timestamp>| {
        let millis = time.map(|time| u64::try_from(time.as_millisecond()).unwrap_or(0));
        millis.map(EpochSeconds::from_millis)
    };
    ListTranscriptsRequest {
        owner: filter.operator.clone(),
        document_name: filter.document.clone(),
        command_id: filter.command.clone(),
        kind: filter.kind.map(|kind| match kind {
            arguments::TranscriptKind::Session => TranscriptKind::Session,
            arguments::TranscriptKind::Command => TranscriptKind::Command,
        }),
        started_after: time(filter.since),
        started_before: time(filter.until),
        contains: filter.contains.clone(),
        state: filter.state.map(|state| match state {
            arguments::TranscriptState::Running => TranscriptState::Running,
            arguments::TranscriptState::Complete => TranscriptState::Complete,
            arguments::TranscriptState::Cut => TranscriptState::Cut,
            arguments::TranscriptState::NotVerified => TranscriptState::NotVerified,
            arguments::TranscriptState::Deleted => TranscriptState::Deleted,
        }),
        held: filter.held.then_some(true),
        ..ListTranscriptsRequest::default()
    }
}

impl From<Transcript> for Listed {
    fn from(transcript: Transcript) -> Self {
        Self {
            session_id: transcript.session_id.unwrap_or_default(),
            kind: transcript.kind.map(|kind| kind.to_string()),
            command_id: transcript.command_id,
            target: transcript.target,
            owner: transcript.owner,
            document_name: transcript.document_name,
            start_date: transcript.start_date.and_then(console::timestamp),
            end_date: transcript.end_date.and_then(console::timestamp),
            length_bytes: transcript.length_bytes.unwrap_or(0),
            complete: transcript.complete.unwrap_or(false),
            state: transcript.state.map(|state| state.to_string()),
            sha256: transcript.sha256,
            held_by: transcript.held_by,
            held_date: transcript.held_date.and_then(console::timestamp),
            hold_reason: transcript.hold_reason,
            deleted_by: transcript.deleted_by,
            deleted_date: transcript.deleted_date.and_then(console::timestamp),
            delete_reason: transcript.delete_reason,
        }
    }
}
