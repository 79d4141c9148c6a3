//! Parameter Store: values that documents, scripts and operators name, secret ones sealed.

mod delete_parameters;
mod describe_parameters;
mod filter;
mod get_parameter_history;
mod get_parameters;
mod get_parameters_by_path;
mod label_parameter_version;
mod page;
mod put_parameter;
mod value;

#[cfg(test)]
mod tests;

use moorline_ssm::{
    EpochSeconds, ErrorCode,
    parameter::{
        DeleteParameter, DeleteParameters, DescribeParameters, GetParameter, GetParameterHistory,
        GetParameters, GetParametersByPath, LabelParameterVersion, Parameter, ParameterInlinePolicy,
        PutParameter, UnlabelParameterVersion,
    },
};

use super::{ApiError, ApiResult, RequestContext, Router};
use crate::{
    auth::Resource,
    engine::parameter::{NameError, Selector, arn},
    store::{ParameterRow, PolicyRow},
};

pub(super) fn routes(router: Router) -> Router {
    router
        .on::<DeleteParameter, _, _>(
            |input| one(input.name.as_ref()),
            delete_parameters::delete_parameter,
        )
        .on::<DeleteParameters, _, _>(
            |input| several(input.names.as_deref()),
            delete_parameters::delete_parameters,
        )
        .on::<DescribeParameters, _, _>(|_| Resource::Any, describe_parameters::describe_parameters)
        .on::<GetParameter, _, _>(|input| one(input.name.as_ref()), get_parameters::get_parameter)
        .on::<GetParameterHistory, _, _>(
            |input| one(input.name.as_ref()),
            get_parameter_history::get_parameter_history,
        )
        .on::<GetParameters, _, _>(
            |input| several(input.names.as_deref()),
            get_parameters::get_parameters,
        )
        .on::<GetParametersByPath, _, _>(
            |input| one(input.path.as_ref()),
            get_parameters_by_path::get_parameters_by_path,
        )
        .on::<LabelParameterVersion, _, _>(
            |input| one(input.name.as_ref()),
            label_parameter_version::label_parameter_version,
        )
        .on::<PutParameter, _, _>(|input| one(input.name.as_ref()), put_parameter::put_parameter)
        .on::<UnlabelParameterVersion, _, _>(
            |input| one(input.name.as_ref()),
            label_parameter_version::unlabel_parameter_version,
        )
}

fn one(name: Option<&String>) -> Resource {
    Resource::Parameter(name.cloned().unwrap_or_default())
}

fn several(names: Option<&[String]>) -> Resource {
    Resource::Parameter(names.unwrap_or_default().join(", "))
}

fn invalid_name(error: &NameError) -> ApiError {
    let code = match error {
        NameError::Reserved(_) => ErrorCode::AccessDeniedException,
        NameError::Levels(_) => ErrorCode::HierarchyLevelLimitExceededException,
        NameError::Form | NameError::Long | NameError::NotQualified | NameError::Path => {
            ErrorCode::ValidationException
        }
    };
    ApiError::new(code, error.to_string())
}

fn not_found(name: &str) -> ApiError {
    ApiError::new(
        ErrorCode::ParameterNotFound,
        format!("Parameter {} not found.", crate::log_lines::shown(name)),
    )
}

/// A parameter as replies have it.
fn wire_parameter(
    cx: &RequestContext,
    row: ParameterRow,
    selector: &Selector,
    with_decryption: bool,
) -> ApiResult<Parameter> {
    Ok(Parameter {
        value: Some(value::shown(cx, &row, with_decryption)?),
        arn: Some(arn(&row.name)),
        name: Some(row.name),
        r#type: Some(row.parameter_type),
        version: Some(row.version),
        selector: selector.text(),
        last_modified_date: Some(EpochSeconds::from_millis(row.modified_at)),
        data_type: Some(row.data_type),
        source_result: None,
    })
}

fn wire_policies(policies: Vec<PolicyRow>) -> Vec<ParameterInlinePolicy> {
    let policy = |row: PolicyRow| ParameterInlinePolicy {
        policy_text: Some(row.policy_text),
        policy_type: Some(row.policy_type),
        policy_status: Some(if row.is_done { "Finished" } else { "Pending" }.to_owned()),
    };
    policies.into_iter().map(policy).collect()
}
