//! `GetParametersByPath`: the parameters of a hierarchy.
//!
//! AWS: API_GetParametersByPath. The root `/` has the parameters without a slash as well.

use moorline_ssm::parameter::{GetParametersByPathRequest, GetParametersByPathResult};

use super::{
    filter::{Filters, List},
    invalid_name,
    page::Choice,
    wire_parameter,
};
use crate::{
    api::{
        ApiResult, RequestContext,
        pagination::{Listing, limit},
    },
    engine::parameter::check_path,
};

const DEFAULT_PAGE: usize = 10;

pub(super) async fn get_parameters_by_path(
    cx: RequestContext,
    input: GetParametersByPathRequest,
) -> ApiResult<GetParametersByPathResult> {
    let path = check_path(input.path.as_deref().unwrap_or_default()).map_err(|error| invalid_name(&error))?;
    let is_recursive = input.recursive.unwrap_or_default();
    let with_decryption = input.with_decryption.unwrap_or_default();
    let filters = Filters::read(
        List::GetParametersByPath,
        input.parameter_filters.as_deref().unwrap_or_default(),
    )?;
    let listing = Listing::new(
        &cx,
        "GetParametersByPath",
        &(&path, is_recursive, with_decryption, &filters),
    );
    let after = listing.position(input.next_token.as_deref())?;
    let choice = Choice {
        hierarchy: Some((&path, is_recursive)),
        filters: &filters,
    };
    let size = limit(input.max_results, DEFAULT_PAGE);
    let (found, more) = choice.page(&cx, after, size).await?;
    let parameters: ApiResult<Vec<_>> = found
        .into_iter()
        .map(|(row, selector)| wire_parameter(&cx, row, &selector, with_decryption))
        .collect();
    Ok(GetParametersByPathResult {
        parameters: Some(parameters?),
        next_token: more.map(|last| listing.token(&last)),
    })
}
