//! `ListTranscripts`: recorded sessions and commands, the newest first. Ours, not AWS's.
//!
//! With `Contains` the recordings that the other filters leave are read for the text. A call looks for a bounded time
//! and then answers with what it found, perhaps nothing, and a `NextToken` to go on with. What cannot be read is named in
//! `NotSearched`.

use std::{fmt, time::Duration};

use moorline_protocol::error_chain;
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
    store::{Place, Searched, StoreError, TranscriptQuery, TranscriptRow, TranscriptState},
};

const MOST_RESULTS: usize = 200;
/// How long a call looks for a text; a recording that it then reads it reads on at the next one.
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
    let position = position.as_deref().and_then(Position::parse);
    query.behind = position.as_ref().map(|at| (at.started_at, at.id.clone()));
    query.limit = u32::try_from(limit + 1).unwrap_or(u32::MAX);
    let mut rows = cx.app.store.transcripts(&query).await?;
    let mut from = 0;
    if let Some(Position {
        id,
        inside: Some(offset),
        ..
    }) = position
    {
        let begun = TranscriptQuery {
            session_id: Some(id),
            limit: 1,
            behind: None,
            ..query
        };
        // one that was deleted meanwhile is not there
        let begun = cx.app.store.transcripts(&begun).await?;
        from = if begun.is_empty() { 0 } else { offset };
        rows.splice(0..0, begun);
    }
    let mut last = None;
    if rows.len() > limit {
        rows.truncate(limit);
        last = rows.last().map(|row| Position::behind(row).to_string());
    }
    let mut not_searched = None;
    if let Some(text) = &input.contains {
        let looked = look_for(&cx, text, rows, from).await?;
        last = looked.last.or(last);
        (rows, not_searched) = (looked.found, Some(looked.not_searched));
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
        not_searched: not_searched.filter(|ids| !ids.is_empty()),
        next_token: last.map(|last| listing.token(&last)),
    })
}

/// What a call came to that looks for a text.
#[derive(Default)]
struct Looked {
    found: Vec<TranscriptRow>,
    /// Recordings that could not be read.
    not_searched: Vec<String>,
    /// Where the next call goes on; `None`: all were looked at.
    last: Option<String>,
}

/// Looks for the text in these recordings, in the first of them from an offset on.
async fn look_for(
    cx: &RequestContext,
    text: &str,
    rows: Vec<TranscriptRow>,
    mut from: u64,
) -> ApiResult<Looked> {
    let until = Instant::now() + SEARCH_TIME;
    let mut looked = Looked::default();
    let mut is_store_away = !cx.app.transcripts.has_remote();
    let mut rest = rows.into_iter().peekable();
    while let Some(row) = rest.next() {
        let mut here = Position::behind(&row);
        let from = std::mem::take(&mut from);
        if row.deleted.is_some() {
            continue;
        }
        // the others there would be waited for, each as long, and for nothing
        if is_store_away && row.place == Place::Store {
            if looked.not_searched.is_empty() {
                tracing::error!(recording = %row.id, "not searched: it is in an object store, and there is none now");
            }
            looked.not_searched.push(row.id.to_string());
            continue;
        }
        match cx.app.transcripts.search(&row.id, text, (from, until)).await {
            Ok(Searched::Found) => looked.found.push(row),
            Ok(Searched::NotFound) => {}
            Ok(Searched::Paused(offset)) => here.inside = Some(offset),
            Err(error) => {
                tracing::error!(recording = %row.id, error = %error_chain(&error), "a recording is not searched");
                looked.not_searched.push(row.id.to_string());
                is_store_away |= matches!(error, StoreError::Object { .. });
                continue;
            }
        }
        if here.inside.is_some() || (Instant::now() >= until && rest.peek().is_some()) {
            looked.last = Some(here.to_string());
            break;
        }
    }
    Ok(looked)
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
    let state = super::state(&row);
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

/// Where a page ends.
#[derive(Debug, PartialEq, Eq)]
struct Position {
    started_at: u64,
    id: String,
    /// The recording is not searched through: where that goes on.
    inside: Option<u64>,
}

impl Position {
    fn behind(row: &TranscriptRow) -> Self {
        Self {
            started_at: row.started_at,
            id: row.id.to_string(),
            inside: None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let (started_at, id) = (words.next()?.parse().ok()?, words.next()?.to_owned());
        let inside = words.next().map(str::parse).transpose().ok()?;
        Some(Self {
            started_at,
            id,
            inside,
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.started_at, self.id)?;
        self.inside.map_or(Ok(()), |offset| write!(f, " {offset}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_as_it_is_written_and_one_of_an_earlier_release_is_behind_its_recording() {
        for (text, inside) in [("17 alice-0a", None), ("17 alice-0a 4096", Some(4096))] {
            let position = Position::parse(text).unwrap();
            assert_eq!(position.inside, inside);
            assert_eq!(position.to_string(), text);
        }
        for text in ["", "17", "x alice", "17 alice x"] {
            assert_eq!(Position::parse(text), None, "{text}");
        }
    }
}
