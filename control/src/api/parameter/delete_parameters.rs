//! `DeleteParameter` and `DeleteParameters`.
//!
//! AWS: API_DeleteParameter, API_DeleteParameters.

use moorline_ssm::parameter::{
    DeleteParameterRequest, DeleteParameterResult, DeleteParametersRequest, DeleteParametersResult,
};

use super::not_found;
use crate::{
    api::{ApiResult, RequestContext},
    engine::parameter::{Selected, Selector},
};

pub(super) async fn delete_parameter(
    cx: RequestContext,
    input: DeleteParameterRequest,
) -> ApiResult<DeleteParameterResult> {
    let name = input.name.unwrap_or_default();
    if delete(&cx, &name).await? {
        return Ok(DeleteParameterResult {});
    }
    Err(not_found(&name))
}

pub(super) async fn delete_parameters(
    cx: RequestContext,
    input: DeleteParametersRequest,
) -> ApiResult<DeleteParametersResult> {
    let (mut deleted, mut invalid) = (Vec::new(), Vec::new());
    for name in input.names.unwrap_or_default() {
        let was_there = delete(&cx, &name).await?;
        if was_there { &mut deleted } else { &mut invalid }.push(name);
    }
    Ok(DeleteParametersResult {
        deleted_parameters: Some(deleted),
        invalid_parameters: Some(invalid),
    })
}

/// A parameter is deleted with all its versions, so a name with a selector names nothing.
async fn delete(cx: &RequestContext, text: &str) -> ApiResult<bool> {
    match Selected::parse(text) {
        Some(Selected {
            name,
            selector: Selector::Latest,
        }) => Ok(cx.app.store.delete_parameter(&name, cx.now).await?),
        _ => Ok(false),
    }
}
