//! Filters and pages of the two lists.

use moorline_ssm::{
    ErrorCode,
    command::{CommandFilter, CommandFilterKey},
};

use super::{parse_command_id, parse_instance_id};
use crate::{
    api::{ApiError, ApiResult},
    engine::reply::unix_millis,
    store::ListFilters,
};

/// What a page has when the request does not say.
pub(super) const DEFAULT_PAGE: usize = 50;

pub(super) fn filters(
    command_id: Option<&str>,
    instance_id: Option<&str>,
    given: &[CommandFilter],
) -> ApiResult<ListFilters> {
    let mut filters = ListFilters {
        command_id: command_id.map(parse_command_id).transpose()?,
        instance_id: instance_id.map(parse_instance_id).transpose()?,
        ..ListFilters::default()
    };
    for filter in given {
        let value = filter.value.clone().unwrap_or_default();
        match &filter.key {
            Some(CommandFilterKey::InvokedAfter) => {
                filters.invoked_after = Some(time("InvokedAfter", &value)?);
            }
            Some(CommandFilterKey::InvokedBefore) => {
                filters.invoked_before = Some(time("InvokedBefore", &value)?);
            }
            Some(CommandFilterKey::Status) => filters.statuses = Some(statuses(&value)?),
            Some(CommandFilterKey::ExecutionStage) => filters.is_complete = Some(is_complete(&value)?),
            Some(CommandFilterKey::DocumentName) => filters.document_name = Some(value),
            Some(CommandFilterKey::Unknown(key)) => {
                let message = format!(
                    "there is no filter {key}; filters are {}",
                    CommandFilterKey::VALUES.join(", ")
                );
                return Err(ApiError::new(ErrorCode::InvalidFilterKey, message));
            }
            None => {}
        }
    }
    Ok(filters)
}

fn time(key: &str, value: &str) -> ApiResult<u64> {
    unix_millis(value)
        .and_then(|millis| u64::try_from(millis).ok())
        .ok_or_else(|| {
            ApiError::validation(format!(
                "filter {key} has the value {value:?}, which is not a time like 2026-11-22T06:00:00Z"
            ))
        })
}

fn statuses(value: &str) -> ApiResult<Vec<String>> {
    const KNOWN: [&str; 8] = [
        "Pending",
        "InProgress",
        "Delayed",
        "Success",
        "Cancelled",
        "Failed",
        "TimedOut",
        "Cancelling",
    ];
    if KNOWN.contains(&value) {
        return Ok(vec![value.to_owned()]);
    }
    Err(ApiError::validation(format!(
        "filter Status has the value {value:?}, which is none of {}",
        KNOWN.join(", ")
    )))
}

fn is_complete(value: &str) -> ApiResult<bool> {
    match value {
        "Complete" => Ok(true),
        "Executing" => Ok(false),
        _ => Err(ApiError::validation(format!(
            "filter ExecutionStage has the value {value:?}, which is neither Executing nor Complete"
        ))),
    }
}

/// Cuts what was asked for with one row more than the page has. The position of the last row, if there are more.
pub(super) fn page<T>(
    mut rows: Vec<T>,
    limit: usize,
    position: impl FnOnce(&T) -> String,
) -> (Vec<T>, Option<String>) {
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let last = rows.last().filter(|_| has_more).map(position);
    (rows, last)
}

/// A sealed position that this version does not read: one of another version.
pub(super) fn foreign_position() -> ApiError {
    ApiError::new(
        ErrorCode::InvalidNextToken,
        "the NextToken is of another version; begin again without it",
    )
}
