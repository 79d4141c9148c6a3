//! `ListTranscripts`: recorded sessions, the newest first. Ours, not AWS's.

use moorline_ssm::{
    EpochSeconds,
    transcript::{ListTranscriptsRequest, ListTranscriptsResponse, Transcript},
};

use crate::{
    api::{
        ApiResult, RequestContext,
        pagination::{self, Listing},
    },
    store::TranscriptQuery,
};

const MOST_RESULTS: usize = 200;

pub(super) async fn list_transcripts(
    cx: RequestContext,
    input: ListTranscriptsRequest,
) -> ApiResult<ListTranscriptsResponse> {
    let listing = Listing::new(&cx, "ListTranscripts", &input.target);
    let position = listing.position(input.next_token.as_deref())?;
    let limit = pagination::limit(input.max_results, MOST_RESULTS);
    let query = TranscriptQuery {
        node: input.target.clone(),
        session_id: None,
        behind: position.as_deref().and_then(place),
        limit: u32::try_from(limit + 1).unwrap_or(u32::MAX),
    };
    let mut rows = cx.app.store.transcripts(&query).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let last = rows.last().filter(|_| more);
    let next_token = last.map(|last| listing.token(&format!("{} {}", last.started_at, last.session_id)));
    let mut transcripts = Vec::with_capacity(rows.len());
    for row in rows {
        let length = cx.app.transcripts.length(&row.session_id).await?.unwrap_or(0);
        transcripts.push(Transcript {
            session_id: Some(row.session_id.to_string()),
            target: Some(row.node),
            owner: row.owner,
            document_name: row.document_name,
            start_date: Some(EpochSeconds::from_millis(row.started_at)),
            end_date: row.ended_at.map(EpochSeconds::from_millis),
            length_bytes: Some(i64::try_from(length).unwrap_or(i64::MAX)),
            complete: Some(row.completed_at.is_some() && !row.is_cut),
        });
    }
    Ok(ListTranscriptsResponse {
        transcripts: Some(transcripts),
        next_token,
    })
}

fn place(position: &str) -> Option<(u64, String)> {
    let (started_at, id) = position.split_once(' ')?;
    Some((started_at.parse().ok()?, id.to_owned()))
}
