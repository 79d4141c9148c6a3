//! `GetCommandInvocation`: what became of a command on one node, with its output.
//!
//! AWS: API_GetCommandInvocation. Deviations: without `PluginName`, a document of several steps gives the output of
//! all of them, one after the other, and the code of the first step that did not succeed; standard error has the same
//! bound as standard output, 24,000 bytes.

use jiff::SignedDuration;
use moorline_ssm::{
    ErrorCode,
    command::{CommandInvocationStatus, GetCommandInvocationRequest, GetCommandInvocationResult},
};

use super::{output_place::OutputPlace, parse_command_id, parse_instance_id, shape};
use crate::{
    api::{ApiError, ApiResult, RequestContext},
    engine::reply::{STREAM_BYTES, cut, unix_millis},
    store::{InvocationRow, StepRow},
};

pub(super) async fn get_command_invocation(
    cx: RequestContext,
    input: GetCommandInvocationRequest,
) -> ApiResult<GetCommandInvocationResult> {
    let id = parse_command_id(input.command_id.as_deref().unwrap_or_default())?;
    let node = parse_instance_id(input.instance_id.as_deref().unwrap_or_default())?;
    let missing = || {
        let message = format!("command {id} was not sent to managed node {node}");
        ApiError::new(ErrorCode::InvocationDoesNotExist, message)
    };
    let store = &cx.app.store;
    let command = store.command(&id).await?.ok_or_else(missing)?;
    let (row, steps) = store.invocation(&id, &node).await?.ok_or_else(missing)?;
    let place = OutputPlace::find(&cx.app, &command, &row).await?;
    let steps = shape::in_document_order(steps, &command.head.step_names);
    let names = &command.head.step_names;
    let part = match input.plugin_name {
        Some(name) => one_step(name, names, &row, steps)?,
        None => all_steps(names, &row, steps),
    };
    let (output_url, error_url) = (place.url(&part.name, "stdout"), place.url(&part.name, "stderr"));
    let request = command.request;
    Ok(GetCommandInvocationResult {
        command_id: Some(row.command_id.into()),
        instance_id: Some(row.instance_id.into()),
        comment: Some(request.comment.unwrap_or_default()),
        document_name: request.document_name,
        document_version: Some(
            request
                .document_version
                .unwrap_or_else(|| shape::DEFAULT_VERSION.to_owned()),
        ),
        plugin_name: Some(part.name),
        response_code: Some(part.code),
        execution_start_date_time: Some(part.started_at),
        execution_elapsed_time: Some(part.elapsed),
        execution_end_date_time: Some(part.ended_at),
        status: Some(CommandInvocationStatus::from(part.status)),
        status_details: Some(part.details.to_owned()),
        standard_output_content: Some(part.standard_output),
        standard_output_url: Some(output_url),
        standard_error_content: Some(part.standard_error),
        standard_error_url: Some(error_url),
        cloud_watch_output_config: Some(shape::cloud_watch(request.cloud_watch_output_config)),
    })
}

/// What of the invocation is shown.
struct Part {
    name: String,
    status: &'static str,
    details: &'static str,
    code: i32,
    started_at: String,
    ended_at: String,
    elapsed: String,
    standard_output: String,
    standard_error: String,
}

impl Part {
    /// Nothing was reported yet.
    fn silent(name: String, row: &InvocationRow) -> Self {
        Self {
            name,
            status: row.invocation.status(),
            details: row.invocation.status_details(),
            code: -1,
            started_at: String::new(),
            ended_at: String::new(),
            elapsed: String::new(),
            standard_output: String::new(),
            standard_error: String::new(),
        }
    }
}

/// The step that was asked for.
fn one_step(name: String, names: &[String], row: &InvocationRow, steps: Vec<StepRow>) -> ApiResult<Part> {
    let Some(step) = steps.into_iter().find(|step| step.name == name) else {
        if names.contains(&name) {
            return Ok(Part::silent(name, row));
        }
        let message = format!(
            "the document has no step {name}; its steps are: {}",
            names.join(", ")
        );
        return Err(ApiError::new(ErrorCode::InvalidPluginName, message));
    };
    let (status, details) = shape::step_status(step.status);
    let elapsed = elapsed(&step.started_at, &step.ended_at);
    Ok(Part {
        name: step.name,
        status,
        details,
        code: if step.status.is_terminal() {
            shape::response_code(step.code)
        } else {
            -1
        },
        started_at: step.started_at,
        ended_at: step.ended_at,
        elapsed,
        standard_output: step.standard_output,
        standard_error: step.standard_error,
    })
}

/// The invocation as a whole: its status, the output of all steps.
fn all_steps(names: &[String], row: &InvocationRow, steps: Vec<StepRow>) -> Part {
    let name = match names {
        [only] => only.clone(),
        _ => String::new(),
    };
    let mut part = Part::silent(name, row);
    let is_over = row.invocation.outcome().is_some();
    let first_bad = steps
        .iter()
        .find(|step| shape::step_status(step.status).0 != "Success");
    if let (true, Some(telling)) = (is_over, first_bad.or_else(|| steps.last())) {
        part.code = shape::response_code(telling.code);
    }
    let earliest = steps
        .iter()
        .filter_map(|step| Some((unix_millis(&step.started_at)?, &step.started_at)))
        .min();
    if let Some((_, text)) = earliest {
        part.started_at.clone_from(text);
    }
    let latest = steps
        .iter()
        .filter_map(|step| Some((unix_millis(&step.ended_at)?, &step.ended_at)))
        .max();
    if let (true, Some((_, text))) = (is_over, latest) {
        part.ended_at.clone_from(text);
    }
    part.elapsed = elapsed(&part.started_at, &part.ended_at);
    for step in steps {
        part.standard_output.push_str(&step.standard_output);
        part.standard_error.push_str(&step.standard_error);
    }
    part.standard_output = cut(part.standard_output, STREAM_BYTES);
    part.standard_error = cut(part.standard_error, STREAM_BYTES);
    part
}

/// As ISO 8601 writes it: `PT0.05S`; empty unless both times are known.
fn elapsed(started_at: &str, ended_at: &str) -> String {
    let (Some(start), Some(end)) = (unix_millis(started_at), unix_millis(ended_at)) else {
        return String::new();
    };
    SignedDuration::from_millis(end.saturating_sub(start).max(0)).to_string()
}

#[cfg(test)]
mod tests {
    use super::elapsed;

    #[test]
    fn elapsed_time_is_an_iso_8601_duration() {
        let start = "2026-11-22T06:08:52.800Z";
        for (end, expected) in [
            ("2026-11-22T06:08:52.850Z", "PT0.05S"),
            ("2026-11-22T06:09:54.800Z", "PT1M2S"),
            ("2026-11-22T06:08:52.800Z", "PT0S"),
            ("2026-11-22T06:08:52.000Z", "PT0S"),
            ("", ""),
        ] {
            assert_eq!(elapsed(start, end), expected, "{end}");
        }
    }
}
