//! `ListTranscripts`: recorded sessions and commands, the newest first. Ours, not AWS's.
//!
//! With `Contains` the recordings that the other filters leave are read for the text. A call looks for a bounded time
//! and then answers with what it found, perhaps nothing, and a `NextToken` to go on with.

use std::time::Duration;

use moorline_ssm::{
    EpochSeconds,
    transcript::{
        ListTranscriptsRequest, ListTranscriptsResponse, Transcript, TranscriptKind, TranscriptState as State,
    },
};
use tokio::time::Instant;

use crate::{
    api::{
        ApiResult, RequestContext,
        pagination::{self, Listing},
    },
    store::{TranscriptQuery, TranscriptRow, TranscriptState},
};

const MOST_RESULTS: usize = 200;
/// How long a call looks for a text; it ends with the recording that it then reads.
const SEARCH_TIME: Duration = Duration::from_secs(2);

pub(super) async fn list_transcripts(
    cx: RequestContext,
    input: ListTranscriptsRequest,
) -> ApiResult<ListTranscriptsResponse> {
    // a text is left out of what a request shows of itself
    let filters = ListTranscriptsRequest {
        max_results: None,
        next_token: None,
        ..input.clone()
    };
    let listing = Listing::new(&cx, "ListTranscripts", &(filters, &input.contains));
    let position = listing.position(input.next_token.as_deref())?;
    let limit = pagination::limit(input.max_results, MOST_RESULTS);
    let mut query = query(&input);
    query.behind = position.as_deref().and_then(place);
    query.limit = u32::try_from(limit + 1).unwrap_or(u32::MAX);
    let mut rows = cx.app.store.transcripts(&query).await?;
    let mut last = None;
    if rows.len() > limit {
        rows.truncate(limit);
        last = rows.last().map(position_of);
    }
    if let Some(text) = &input.contains {
        let until = Instant::now() + SEARCH_TIME;
        let mut found = Vec::new();
        let mut rest = rows.into_iter().peekable();
        while let Some(row) = rest.next() {
            let here = position_of(&row);
            if row.deleted.is_none() && cx.app.transcripts.contains(&row.id, text).await? {
                found.push(row);
            }
            if Instant::now() >= until && rest.peek().is_some() {
                last = Some(here);
                break;
            }
        }
        rows = found;
    }
    let mut transcripts = Vec::with_capacity(rows.len());
    for row in rows {
        let length = match row.length {
            Some(length) => length,
            None => cx.app.transcripts.length(&row.id).await?.unwrap_or(0),
        };
        transcripts.push(shape(row, length));
    }
    Ok(ListTranscriptsResponse {
        transcripts: Some(transcripts),
        next_token: last.map(|last| listing.token(&last)),
    })
}

fn query(input: &ListTranscriptsRequest) -> TranscriptQuery {
    let state = match &input.state {
        // the model was checked before
        None | Some(State::Deleted | State::Unknown(_)) => None,
        Some(State::Running) => Some(TranscriptState::Open),
        Some(State::Complete) => Some(TranscriptState::Complete),
        Some(State::Cut) => Some(TranscriptState::Cut),
        Some(State::NotVerified) => Some(TranscriptState::Plain),
    };
    TranscriptQuery {
        node: input.target.clone(),
        owner: input.owner.clone(),
        document_name: input.document_name.clone(),
        command_id: input.command_id.clone(),
        is_of_command: match &input.kind {
            // the model was checked before
            None | Some(TranscriptKind::Unknown(_)) => None,
            Some(TranscriptKind::Command) => Some(true),
            Some(TranscriptKind::Session) => Some(false),
        },
        started_after: input.started_after.map(EpochSeconds::millis),
        started_before: input.started_before.map(EpochSeconds::millis),
        state,
        is_held: input.held,
        is_deleted: Some(input.state == Some(State::Deleted)),
        ..TranscriptQuery::default()
    }
}

fn shape(row: TranscriptRow, length: u64) -> Transcript {
    let state = match row.state {
        _ if row.deleted.is_some() => State::Deleted,
        TranscriptState::Open => State::Running,
        TranscriptState::Plain => State::NotVerified,
        TranscriptState::Complete => State::Complete,
        TranscriptState::Cut => State::Cut,
    };
    let (hold, deleted) = (row.hold, row.deleted);
    Transcript {
        session_id: Some(row.id.to_string()),
        kind: Some(match row.command_id {
            Some(_) => TranscriptKind::Command,
            None => TranscriptKind::Session,
        }),
        command_id: row.command_id,
        target: Some(row.node),
        owner: row.owner,
        document_name: row.document_name,
        start_date: Some(EpochSeconds::from_millis(row.started_at)),
        end_date: row.ended_at.map(EpochSeconds::from_millis),
        length_bytes: Some(i64::try_from(length).unwrap_or(i64::MAX)),
        complete: Some(row.completed_at.is_some() && row.state != TranscriptState::Cut),
        state: Some(state),
        sha256: row.sha256,
        held_date: hold.as_ref().map(|hold| EpochSeconds::from_millis(hold.at)),
        held_by: hold.as_ref().map(|hold| hold.by.clone()),
        hold_reason: hold.and_then(|hold| hold.reason),
        deleted_date: deleted
            .as_ref()
            .map(|deleted| EpochSeconds::from_millis(deleted.at)),
        deleted_by: deleted.as_ref().map(|deleted| deleted.by.clone()),
        delete_reason: deleted.and_then(|deleted| deleted.reason),
    }
}

fn position_of(row: &TranscriptRow) -> String {
    format!("{} {}", row.started_at, row.id)
}

fn place(position: &str) -> Option<(u64, String)> {
    let (started_at, id) = position.split_once(' ')?;
    Some((started_at.parse().ok()?, id.to_owned()))
}
