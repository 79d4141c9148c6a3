//! `LabelParameterVersion` and `UnlabelParameterVersion`: names for versions.
//!
//! AWS: API_LabelParameterVersion, API_UnlabelParameterVersion. A label that another version has moves.

use moorline_ssm::{
    ErrorCode,
    parameter::{
        LabelParameterVersionRequest, LabelParameterVersionResult, UnlabelParameterVersionRequest,
        UnlabelParameterVersionResult,
    },
};

use super::not_found;
use crate::{
    api::{ApiError, ApiResult, RequestContext},
    engine::parameter::check_label,
    store::{Labelling, Unlabelled},
};

/// Labels of a version.
const MOST_LABELS: usize = 10;

pub(super) async fn label_parameter_version(
    cx: RequestContext,
    input: LabelParameterVersionRequest,
) -> ApiResult<LabelParameterVersionResult> {
    let name = input.name.unwrap_or_default();
    let (labels, invalid): (Vec<String>, Vec<String>) = input
        .labels
        .unwrap_or_default()
        .into_iter()
        .partition(|label| check_label(label));
    let version = input.parameter_version;
    let labelled = cx
        .app
        .store
        .label_parameter(&name, version, &labels, MOST_LABELS, cx.now)
        .await?;
    match labelled {
        Labelling::Done(version) => Ok(LabelParameterVersionResult {
            invalid_labels: Some(invalid),
            parameter_version: Some(version),
        }),
        Labelling::NoSuchParameter => Err(not_found(&name)),
        Labelling::NoSuchVersion => Err(no_such_version(&name, version.unwrap_or_default())),
        Labelling::TooMany => Err(ApiError::new(
            ErrorCode::ParameterVersionLabelLimitExceeded,
            "A parameter version can have maximum 10 labels. Move one or more labels to another version and try again.",
        )),
    }
}

pub(super) async fn unlabel_parameter_version(
    cx: RequestContext,
    input: UnlabelParameterVersionRequest,
) -> ApiResult<UnlabelParameterVersionResult> {
    let name = input.name.unwrap_or_default();
    let labels = input.labels.unwrap_or_default();
    let version = input.parameter_version.unwrap_or_default();
    match cx
        .app
        .store
        .unlabel_parameter(&name, version, &labels, cx.now)
        .await?
    {
        Unlabelled::Removed(removed) => {
            let invalid = labels
                .into_iter()
                .filter(|label| !removed.contains(label))
                .collect();
            Ok(UnlabelParameterVersionResult {
                removed_labels: Some(removed.into_iter().collect()),
                invalid_labels: Some(invalid),
            })
        }
        Unlabelled::NoSuchParameter => Err(not_found(&name)),
        Unlabelled::NoSuchVersion => Err(no_such_version(&name, version)),
    }
}

fn no_such_version(name: &str, version: i64) -> ApiError {
    ApiError::new(
        ErrorCode::ParameterVersionNotFound,
        format!(
            "Systems Manager could not find version {version} of {name}. Verify the version and try again."
        ),
    )
}
