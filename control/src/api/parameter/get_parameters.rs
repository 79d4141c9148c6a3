//! `GetParameter` and `GetParameters`: parameters by name, with version or label if need be.
//!
//! AWS: API_GetParameter, API_GetParameters. A node reads only what a command that is open on it names as
//! `{{ssm-secure:…}}`.

use moorline_ssm::{
    ErrorCode,
    parameter::{GetParameterRequest, GetParameterResult, GetParametersRequest, GetParametersResult},
};

use super::{not_found, wire_parameter};
use crate::{
    api::{ApiError, ApiResult, RequestContext},
    auth::{Denied, Principal, Resource},
    engine::parameter::{Selected, Selector},
    log_lines::shown,
};

pub(super) async fn get_parameter(
    cx: RequestContext,
    input: GetParameterRequest,
) -> ApiResult<GetParameterResult> {
    let text = input.name.unwrap_or_default();
    let selected = Selected::parse(&text).ok_or_else(|| {
        ApiError::validation(format!(
            "{} is no name of a parameter with at most one version or label",
            shown(&text)
        ))
    })?;
    may_read(&cx, "ssm:GetParameter", &selected).await?;
    let Some(row) = cx.app.store.parameter(&selected, cx.now).await? else {
        return Err(missing(&cx, selected).await?);
    };
    let with_decryption = input.with_decryption.unwrap_or_default();
    Ok(GetParameterResult {
        parameter: Some(wire_parameter(&cx, row, &selected.selector, with_decryption)?),
    })
}

pub(super) async fn get_parameters(
    cx: RequestContext,
    input: GetParametersRequest,
) -> ApiResult<GetParametersResult> {
    let with_decryption = input.with_decryption.unwrap_or_default();
    let (mut parameters, mut invalid) = (Vec::new(), Vec::new());
    for text in input.names.unwrap_or_default() {
        let row = match Selected::parse(&text) {
            None => None,
            Some(selected) => {
                may_read(&cx, "ssm:GetParameters", &selected).await?;
                let row = cx.app.store.parameter(&selected, cx.now).await?;
                row.map(|row| (row, selected.selector))
            }
        };
        match row {
            None => invalid.push(text),
            Some((row, selector)) => parameters.push(wire_parameter(&cx, row, &selector, with_decryption)?),
        }
    }
    Ok(GetParametersResult {
        parameters: Some(parameters),
        invalid_parameters: Some(invalid),
    })
}

/// Which part of an operator's question has no answer.
async fn missing(cx: &RequestContext, selected: Selected) -> ApiResult<ApiError> {
    let Selected { name, selector } = selected;
    let latest = Selected {
        name: name.clone(),
        selector: Selector::Latest,
    };
    let is_there = cx.app.store.parameter(&latest, cx.now).await?.is_some();
    let what = match selector {
        Selector::Version(version) if is_there => format!("version {version} of {name}. Verify the version"),
        Selector::Label(label) if is_there => {
            format!("label {} for parameter {name}. Verify the label", shown(&label))
        }
        _ => return Ok(not_found(&name)),
    };
    Ok(ApiError::new(
        ErrorCode::ParameterVersionNotFound,
        format!("Systems Manager could not find {what} and try again."),
    ))
}

/// A node's role is good for no parameter by itself: a captured node reads what its commands need, and nothing else.
async fn may_read(cx: &RequestContext, action: &str, selected: &Selected) -> ApiResult<()> {
    let Principal::Node(node) = &cx.principal else {
        return Ok(());
    };
    if cx.app.store.is_parameter_of_open_command(node, selected).await? {
        return Ok(());
    }
    Err(ApiError::from(Denied {
        principal: cx.principal.arn(),
        action: action.to_owned(),
        resource: Resource::Parameter(selected.name.clone()),
    }))
}
