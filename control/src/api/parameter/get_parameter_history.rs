//! `GetParameterHistory`: the versions of a parameter, oldest first.
//!
//! AWS: API_GetParameterHistory. Policies belong to the parameter and stand at its latest version.

use moorline_ssm::{
    EpochSeconds,
    parameter::{GetParameterHistoryRequest, GetParameterHistoryResult, ParameterHistory},
};

use super::{not_found, value, wire_policies};
use crate::{
    api::{
        ApiResult, RequestContext,
        pagination::{Listing, limit},
    },
    engine::parameter::{Selected, Selector},
    store::ParameterRow,
};

const DEFAULT_PAGE: usize = 50;

pub(super) async fn get_parameter_history(
    cx: RequestContext,
    input: GetParameterHistoryRequest,
) -> ApiResult<GetParameterHistoryResult> {
    let name = input.name.unwrap_or_default();
    let latest = match Selected::parse(&name) {
        Some(selected) if selected.selector == Selector::Latest => {
            cx.app.store.parameter(&selected, cx.now).await?
        }
        _ => None,
    };
    let latest = latest.ok_or_else(|| not_found(&name))?;
    let with_decryption = input.with_decryption.unwrap_or_default();
    let listing = Listing::new(&cx, "GetParameterHistory", &(&latest.name, with_decryption));
    let after: i64 = listing.parsed_position(input.next_token.as_deref())?.unwrap_or(0);
    let size = limit(input.max_results, DEFAULT_PAGE).max(1);
    let wanted = i64::try_from(size).unwrap_or(i64::MAX).saturating_add(1);
    let mut rows = cx
        .app
        .store
        .parameter_versions(&latest.name, after, wanted, cx.now)
        .await?;
    let has_more = rows.len() > size;
    rows.truncate(size);
    let next_token = rows
        .last()
        .filter(|_| has_more)
        .map(|last| listing.token(&last.version.to_string()));
    let mut parameters = Vec::with_capacity(rows.len());
    for row in rows {
        let is_latest = row.version == latest.version;
        parameters.push(history(&cx, row, with_decryption, is_latest).await?);
    }
    Ok(GetParameterHistoryResult {
        parameters: Some(parameters),
        next_token,
    })
}

async fn history(
    cx: &RequestContext,
    row: ParameterRow,
    with_decryption: bool,
    is_latest: bool,
) -> ApiResult<ParameterHistory> {
    let labels = cx.app.store.parameter_labels(&row.name, row.version).await?;
    let policies = match is_latest {
        true => cx.app.store.parameter_policies(&row.name).await?,
        false => Vec::new(),
    };
    Ok(ParameterHistory {
        value: Some(value::shown(cx, &row, with_decryption)?),
        name: Some(row.name),
        r#type: Some(row.parameter_type),
        key_id: row.key_id,
        last_modified_date: Some(EpochSeconds::from_millis(row.modified_at)),
        last_modified_user: Some(row.modified_by),
        description: row.description,
        allowed_pattern: row.allowed_pattern,
        version: Some(row.version),
        labels: Some(labels),
        tier: Some(row.tier),
        policies: Some(wire_policies(policies)),
        data_type: Some(row.data_type),
    })
}
