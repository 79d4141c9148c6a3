//! `ListAuditRecords`: lines of the audit log, in its order. Ours, not AWS's.
//!
//! There is always a `NextToken`: behind the last page (`Complete`) it goes on with what comes then, and with
//! `WaitMillis` it waits for that. With `IncludeCheckpoints` and no filter the pages together are the log, which can be
//! verified. A page may be empty and not the last one: there is a bound on what one looks at.

use std::time::Duration;

use moorline_ssm::{
    EpochSeconds,
    audit::{ListAuditRecordsRequest, ListAuditRecordsResponse},
};
use tokio::time::{Instant, timeout_at};

use crate::{
    api::{
        ApiError, ApiResult, RequestContext,
        pagination::{Listing, limit},
    },
    audit::{AuditFilter, AuditPage, Position},
};

const DEFAULT_PAGE: usize = 100;

pub(super) async fn list_audit_records(
    cx: RequestContext,
    input: ListAuditRecordsRequest,
) -> ApiResult<ListAuditRecordsResponse> {
    let filter = AuditFilter {
        since: input.since.map(EpochSeconds::millis),
        until: input.until.map(EpochSeconds::millis),
        operator: input.operator,
        node: input.node,
        operation: input.operation,
        result: input.result,
        session: input.session_id,
        command: input.command_id,
        with_checkpoints: input.include_checkpoints == Some(true),
    };
    let listing = Listing::new(&cx, "ListAuditRecords", &filter);
    let mut from: Option<Position> = listing.parsed_position(input.next_token.as_deref())?;
    let limit = limit(input.max_results, DEFAULT_PAGE);
    let wait = input.wait_millis.and_then(|millis| u64::try_from(millis).ok());
    let until = Instant::now() + Duration::from_millis(wait.unwrap_or(0));
    loop {
        // before the look, so that nothing is missed in between
        let change = cx.app.audit.change();
        tokio::pin!(change);
        change.as_mut().enable();
        let page = cx.app.audit.page(filter.clone(), from, limit).await;
        let AuditPage {
            records,
            next,
            is_end,
        } = page.map_err(ApiError::internal)?;
        let is_worth_waiting = records.is_empty() && is_end && wait.is_some();
        if !is_worth_waiting || timeout_at(until, change).await.is_err() {
            return Ok(ListAuditRecordsResponse {
                records: Some(records),
                complete: Some(is_end),
                next_token: Some(listing.token(&next.to_string())),
            });
        }
        from = Some(next);
    }
}
