//! `DescribeParameters`: what parameters there are, without values.
//!
//! AWS: API_DescribeParameters. Deviation: `Shared` finds nothing, since there is one account.

use moorline_ssm::{
    EpochSeconds,
    parameter::{DescribeParametersRequest, DescribeParametersResult, ParameterMetadata},
};

use super::{
    filter::{Filters, List},
    page::Choice,
    wire_policies,
};
use crate::{
    api::{
        ApiError, ApiResult, RequestContext,
        pagination::{Listing, limit},
    },
    engine::parameter::arn,
    store::ParameterRow,
};

const DEFAULT_PAGE: usize = 50;

pub(super) async fn describe_parameters(
    cx: RequestContext,
    input: DescribeParametersRequest,
) -> ApiResult<DescribeParametersResult> {
    let older = input.filters.as_deref().unwrap_or_default();
    let newer = input.parameter_filters.as_deref().unwrap_or_default();
    let filters = match (older.is_empty(), newer.is_empty()) {
        (false, false) => {
            return Err(ApiError::validation(
                "You can use either Filters or ParameterFilters in a single request.",
            ));
        }
        (false, true) => Filters::read_older(older)?,
        (true, _) => Filters::read(List::DescribeParameters, newer)?,
    };
    let is_shared = input.shared.unwrap_or_default();
    let listing = Listing::new(&cx, "DescribeParameters", &(&filters, is_shared));
    let after = listing.position(input.next_token.as_deref())?;
    if is_shared {
        return Ok(DescribeParametersResult {
            parameters: Some(Vec::new()),
            next_token: None,
        });
    }
    let size = limit(input.max_results, DEFAULT_PAGE);
    let choice = Choice {
        hierarchy: None,
        filters: &filters,
    };
    let (rows, more) = choice.page(&cx, after, size).await?;
    let mut parameters = Vec::with_capacity(rows.len());
    for (row, _) in rows {
        parameters.push(metadata(&cx, row).await?);
    }
    Ok(DescribeParametersResult {
        parameters: Some(parameters),
        next_token: more.map(|last| listing.token(&last)),
    })
}

async fn metadata(cx: &RequestContext, row: ParameterRow) -> ApiResult<ParameterMetadata> {
    let policies = cx.app.store.parameter_policies(&row.name).await?;
    Ok(ParameterMetadata {
        arn: Some(arn(&row.name)),
        name: Some(row.name),
        r#type: Some(row.parameter_type),
        key_id: row.key_id,
        last_modified_date: Some(EpochSeconds::from_millis(row.modified_at)),
        last_modified_user: Some(row.modified_by),
        description: row.description,
        allowed_pattern: row.allowed_pattern,
        version: Some(row.version),
        tier: Some(row.tier),
        policies: Some(wire_policies(policies)),
        data_type: Some(row.data_type),
    })
}
