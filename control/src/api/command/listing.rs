//! Filters and pages of the two lists.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use moorline_ssm::{
    ErrorCode,
    command::{CommandFilter, CommandFilterKey},
};
use ring::digest;

use super::{parse_command_id, parse_instance_id};
use crate::{
    api::{ApiError, ApiResult},
    engine::reply::unix_millis,
    store::ListFilters,
};

/// What a page has when the request does not say.
const DEFAULT_PAGE: i32 = 50;

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
                filters.invoked_after = Some(time("InvokedAfter", &value)?)
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

/// One page of a list: where it begins, how long it is. Its token is bound to the list and its filters, so that it
/// never continues another one.
pub(super) struct Page {
    binding: String,
    cursor: Option<String>,
    limit: usize,
}

impl Page {
    pub(super) fn open(
        list: &str,
        filters: &ListFilters,
        max_results: Option<i32>,
        token: Option<&str>,
    ) -> ApiResult<Self> {
        let hash = digest::digest(&digest::SHA256, format!("{list} {filters:?}").as_bytes());
        let binding = BASE64_URL_SAFE_NO_PAD.encode(hash.as_ref().get(..12).unwrap_or_default());
        let cursor = match token.filter(|token| !token.is_empty()) {
            None => None,
            Some(token) => {
                let bytes = BASE64_URL_SAFE_NO_PAD
                    .decode(token)
                    .map_err(|_| invalid_token())?;
                let text = String::from_utf8(bytes).map_err(|_| invalid_token())?;
                let cursor = text
                    .strip_prefix(&binding)
                    .and_then(|rest| rest.strip_prefix(' '));
                Some(cursor.ok_or_else(invalid_token)?.to_owned())
            }
        };
        let limit = usize::try_from(max_results.unwrap_or(DEFAULT_PAGE))
            .unwrap_or(1)
            .max(1);
        Ok(Self {
            binding,
            cursor,
            limit,
        })
    }

    /// The last entry of the page before, as `close` described it.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// The rows of this page and, if there are more, the token of the next one. One row more than the limit was
    /// asked for, to know.
    pub(super) fn close<T>(
        &self,
        mut rows: Vec<T>,
        describe: impl FnOnce(&T) -> String,
    ) -> (Vec<T>, Option<String>) {
        let has_more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let token = rows.last().filter(|_| has_more).map(|last| {
            let text = format!("{} {}", self.binding, describe(last));
            BASE64_URL_SAFE_NO_PAD.encode(text)
        });
        (rows, token)
    }
}

pub(super) fn invalid_token() -> ApiError {
    ApiError::new(
        ErrorCode::InvalidNextToken,
        "the NextToken is not of this list with these filters; begin without one",
    )
}
