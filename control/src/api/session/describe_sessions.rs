//! `DescribeSessions`: active or ended sessions, the newest first.
//!
//! AWS: API_DescribeSessions. Ended sessions are kept.

use moorline_ssm::session::{
    AccessType, DescribeSessionsRequest, DescribeSessionsResponse, Session, SessionFilter, SessionFilterKey,
    SessionState, SessionStatus,
};
use moorline_ssm::{EpochSeconds, ErrorCode};

use crate::{
    api::{
        ApiError, ApiResult, RequestContext,
        pagination::{self, Listing},
    },
    store::{SessionQuery, SessionRow},
};

const MOST_RESULTS: usize = 200;

pub(super) async fn describe_sessions(
    cx: RequestContext,
    input: DescribeSessionsRequest,
) -> ApiResult<DescribeSessionsResponse> {
    let filters = input.filters.unwrap_or_default();
    let listing = Listing::new(&cx, "DescribeSessions", &(&input.state, &filters));
    let position = listing.position(input.next_token.as_deref())?;
    let limit = pagination::limit(input.max_results, MOST_RESULTS);
    let mut query = SessionQuery {
        ended: input.state == Some(SessionState::History),
        behind: position.as_deref().and_then(place),
        limit: u32::try_from(limit + 1).unwrap_or(u32::MAX),
        ..SessionQuery::default()
    };
    for filter in &filters {
        if !apply(filter, &mut query)? {
            return Ok(DescribeSessionsResponse {
                sessions: Some(Vec::new()),
                next_token: None,
            });
        }
    }
    let mut rows = cx.app.store.sessions(&query).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let last = rows.last().filter(|_| more);
    let next_token = last.map(|last| listing.token(&format!("{} {}", last.started_at, last.session_id)));
    Ok(DescribeSessionsResponse {
        sessions: Some(rows.into_iter().map(shape).collect()),
        next_token,
    })
}

fn place(position: &str) -> Option<(u64, String)> {
    let (started_at, id) = position.split_once(' ')?;
    Some((started_at.parse().ok()?, id.to_owned()))
}

/// `false`: nothing can match.
fn apply(filter: &SessionFilter, query: &mut SessionQuery) -> ApiResult<bool> {
    let (Some(key), Some(value)) = (&filter.key, &filter.value) else {
        return Ok(true);
    };
    let text = Some(value.clone());
    match key {
        SessionFilterKey::InvokedAfter => query.started_after = Some(time(key, value)?),
        SessionFilterKey::InvokedBefore => query.started_before = Some(time(key, value)?),
        SessionFilterKey::Target => query.node = text,
        SessionFilterKey::Owner => query.owner = text,
        SessionFilterKey::Status => query.status = text,
        SessionFilterKey::SessionId => query.session_id = text,
        SessionFilterKey::AccessType => return Ok(value == AccessType::Standard.as_str()),
        SessionFilterKey::Unknown(key) => {
            let message = format!("{key} is not a filter of sessions");
            return Err(ApiError::new(ErrorCode::InvalidFilterKey, message));
        }
    }
    Ok(true)
}

fn time(key: &SessionFilterKey, value: &str) -> ApiResult<u64> {
    let parsed = value.parse::<jiff::Timestamp>().ok();
    let millis = parsed.and_then(|time| u64::try_from(time.as_millisecond()).ok());
    millis.ok_or_else(|| {
        ApiError::validation(format!(
            "filter {key}: {value} is not a time such as 2026-11-22T08:00:00Z"
        ))
    })
}

fn shape(row: SessionRow) -> Session {
    Session {
        session_id: Some(row.session_id.to_string()),
        target: Some(row.node.to_string()),
        status: Some(SessionStatus::from(row.status.as_str())),
        start_date: Some(EpochSeconds::from_millis(row.started_at)),
        end_date: row.ended_at.map(EpochSeconds::from_millis),
        document_name: Some(row.document_name),
        owner: Some(row.owner),
        reason: row.reason,
        details: Some(row.details).filter(|details| !details.is_empty()),
        output_url: None,
        max_session_duration: row
            .max_duration_millis
            .map(|millis| (millis / 60_000).to_string()),
        access_type: Some(AccessType::Standard),
    }
}
