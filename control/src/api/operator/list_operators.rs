//! `ListOperators`: who has access keys, by name. Secrets are never shown.

use moorline_ssm::{
    EpochSeconds,
    operator::{ListOperatorsRequest, ListOperatorsResponse, Operator},
};

use super::wire_tags;
use crate::{
    api::{
        ApiResult, RequestContext,
        pagination::{Listing, limit},
    },
    store::OperatorRow,
};

const DEFAULT_PAGE: usize = 50;

pub(super) async fn list_operators(
    cx: RequestContext,
    input: ListOperatorsRequest,
) -> ApiResult<ListOperatorsResponse> {
    let rows = cx.app.store.operators().await?;
    let (page, next_token) = Listing::new(&cx, "ListOperators", &()).page(
        rows,
        |row| row.user_name.clone(),
        input.next_token.as_deref(),
        limit(input.max_results, DEFAULT_PAGE),
    )?;
    Ok(ListOperatorsResponse {
        operators: Some(page.into_iter().map(shape).collect()),
        next_token,
    })
}

fn shape(row: OperatorRow) -> Operator {
    Operator {
        user_name: Some(row.user_name),
        tags: Some(wire_tags(row.tags)),
        access_key_ids: Some(row.access_key_ids),
        created_date: Some(EpochSeconds::from_millis(row.created_at)),
    }
}
