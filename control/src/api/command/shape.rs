//! Commands, invocations and steps in the API's shapes.

use moorline_protocol::message::ResultStatus;
use moorline_ssm::{
    EpochSeconds,
    command::{
        CloudWatchOutputConfig, Command, CommandInvocation, CommandInvocationStatus, CommandPlugin,
        CommandPluginStatus, CommandStatus, NotificationConfig, SendCommandRequest,
    },
};

use super::output_place::OutputPlace;
use crate::{
    engine::{rate_control::Limit, reply::unix_millis},
    store::{CommandRow, InvocationRow, StepRow},
};

/// What SSM takes when `TimeoutSeconds` is not given.
pub(super) const DEFAULT_TIMEOUT_SECONDS: i32 = 3600;
/// What SSM takes when `DocumentVersion` is not given.
pub(super) const DEFAULT_VERSION: &str = "$DEFAULT";

pub(super) fn command(row: CommandRow) -> Command {
    let status = row.status();
    let head = row.head;
    let tally = head.progress.tally;
    let request = row.request;
    let limit = |given: Option<String>, default: Limit| Some(given.unwrap_or_else(|| default.to_string()));
    Command {
        command_id: Some(head.command_id.into()),
        document_name: request.document_name,
        document_version: Some(
            request
                .document_version
                .unwrap_or_else(|| DEFAULT_VERSION.to_owned()),
        ),
        comment: Some(request.comment.unwrap_or_default()),
        expires_after: Some(EpochSeconds::from_millis(
            head.deadlines
                .delivery
                .saturating_add(head.deadlines.execution_millis),
        )),
        parameters: Some(request.parameters.unwrap_or_default()),
        instance_ids: Some(request.instance_ids.unwrap_or_default()),
        targets: Some(request.targets.unwrap_or_default()),
        requested_date_time: Some(EpochSeconds::from_millis(row.requested_at)),
        status: Some(CommandStatus::from(status.status)),
        status_details: Some(status.details.to_owned()),
        output_s3_region: request.output_s3_region,
        output_s3_bucket_name: Some(request.output_s3_bucket_name.unwrap_or_default()),
        output_s3_key_prefix: Some(request.output_s3_key_prefix.unwrap_or_default()),
        max_concurrency: limit(request.max_concurrency, Limit::DEFAULT_CONCURRENCY),
        max_errors: limit(request.max_errors, Limit::DEFAULT_ERRORS),
        target_count: Some(count(tally.targets)),
        completed_count: Some(count(tally.completed())),
        error_count: Some(count(tally.errors())),
        delivery_timed_out_count: Some(count(tally.delivery_timed_out)),
        service_role: Some(request.service_role_arn.unwrap_or_default()),
        notification_config: Some(notification(request.notification_config)),
        cloud_watch_output_config: Some(cloud_watch(request.cloud_watch_output_config)),
        timeout_seconds: Some(request.timeout_seconds.unwrap_or(DEFAULT_TIMEOUT_SECONDS)),
        alarm_configuration: request.alarm_configuration,
        triggered_alarms: Some(Vec::new()),
    }
}

/// Without `with_steps` the list of plugins is empty, as in SSM.
pub(super) fn invocation(
    row: InvocationRow,
    command: CommandRow,
    steps: Vec<StepRow>,
    (with_steps, place): (bool, &OutputPlace),
) -> CommandInvocation {
    let request = command.request;
    // as in SSM, of the only step or of none
    let url = |stream| match command.head.step_names.as_slice() {
        [only] => place.url(only, stream),
        _ => String::new(),
    };
    let (output_url, error_url) = (url("stdout"), url("stderr"));
    let plugins = if with_steps {
        plugins(&row, &command.head.step_names, steps, (&request, place))
    } else {
        Vec::new()
    };
    let status = row.invocation.status();
    CommandInvocation {
        command_id: Some(row.command_id.into()),
        instance_id: Some(row.instance_id.into()),
        instance_name: Some(row.instance_name),
        comment: Some(request.comment.unwrap_or_default()),
        document_name: request.document_name,
        document_version: Some(
            request
                .document_version
                .unwrap_or_else(|| DEFAULT_VERSION.to_owned()),
        ),
        requested_date_time: Some(EpochSeconds::from_millis(row.requested_at)),
        status: Some(CommandInvocationStatus::from(status)),
        status_details: Some(row.invocation.status_details().to_owned()),
        trace_output: Some(place.told_with(row.invocation.trace)),
        standard_output_url: Some(output_url),
        standard_error_url: Some(error_url),
        command_plugins: Some(plugins),
        service_role: Some(request.service_role_arn.unwrap_or_default()),
        notification_config: Some(notification(request.notification_config)),
        cloud_watch_output_config: Some(cloud_watch(request.cloud_watch_output_config)),
    }
}

/// The document's steps in their order; what else the node reported comes last.
pub(super) fn in_document_order(mut steps: Vec<StepRow>, step_names: &[String]) -> Vec<StepRow> {
    let place = |step: &StepRow| step_names.iter().position(|name| *name == step.name);
    steps.sort_by_key(|step| (place(step).unwrap_or(usize::MAX), step.name.clone()));
    steps
}

/// Status and its details of a step. SSM knows no skipped step: it is a success that did nothing.
pub(super) fn step_status(status: ResultStatus) -> (&'static str, &'static str) {
    match status {
        ResultStatus::NotStarted => ("Pending", "Pending"),
        ResultStatus::InProgress | ResultStatus::SuccessAndReboot | ResultStatus::PassedAndReboot => {
            ("InProgress", "InProgress")
        }
        ResultStatus::Success => ("Success", "Success"),
        ResultStatus::Skipped => ("Success", "Skipped"),
        ResultStatus::Failed => ("Failed", "Failed"),
        ResultStatus::Cancelled => ("Cancelled", "Cancelled"),
        ResultStatus::TimedOut => ("TimedOut", "ExecutionTimedOut"),
    }
}

fn plugins(
    row: &InvocationRow,
    step_names: &[String],
    steps: Vec<StepRow>,
    of: (&SendCommandRequest, &OutputPlace),
) -> Vec<CommandPlugin> {
    let mut listed = in_document_order(steps, step_names);
    let reported: Vec<String> = listed.iter().map(|step| step.name.clone()).collect();
    let mut plugins: Vec<_> = listed.drain(..).map(|step| plugin(step, of)).collect();
    let silent = step_names.iter().filter(|name| !reported.contains(name));
    plugins.extend(silent.map(|name| silent_plugin(name, row)));
    plugins
}

fn plugin(step: StepRow, (request, place): (&SendCommandRequest, &OutputPlace)) -> CommandPlugin {
    let (status, details) = step_status(step.status);
    let time = |text: &str| {
        let millis = unix_millis(text).and_then(|millis| u64::try_from(millis).ok());
        millis.map(EpochSeconds::from_millis)
    };
    // what an agent says that uploads by itself, or where the endpoint has brought it
    let (bucket, prefix) = place
        .place(&step.name)
        .unwrap_or((step.output_s3_bucket_name, step.output_s3_key_prefix));
    CommandPlugin {
        standard_output_url: Some(place.url(&step.name, "stdout")),
        standard_error_url: Some(place.url(&step.name, "stderr")),
        name: Some(step.name),
        status: Some(CommandPluginStatus::from(status)),
        status_details: Some(details.to_owned()),
        response_code: Some(response_code(step.code)),
        response_start_date_time: time(&step.started_at),
        response_finish_date_time: time(&step.ended_at),
        output: Some(step.output),
        output_s3_region: request.output_s3_region.clone(),
        output_s3_bucket_name: Some(bucket),
        output_s3_key_prefix: Some(prefix),
    }
}

/// A step of which the node has said nothing: it stands as the invocation stands.
fn silent_plugin(name: &str, row: &InvocationRow) -> CommandPlugin {
    let status = match row.invocation.status() {
        "Delayed" => "Pending",
        "Cancelling" => "InProgress",
        status => status,
    };
    CommandPlugin {
        name: Some(name.to_owned()),
        status: Some(CommandPluginStatus::from(status)),
        status_details: Some(row.invocation.status_details().to_owned()),
        response_code: Some(-1),
        ..CommandPlugin::default()
    }
}

pub(super) fn response_code(code: i64) -> i32 {
    i32::try_from(code).unwrap_or(-1)
}

pub(super) fn cloud_watch(config: Option<CloudWatchOutputConfig>) -> CloudWatchOutputConfig {
    let config = config.unwrap_or_default();
    CloudWatchOutputConfig {
        cloud_watch_log_group_name: Some(config.cloud_watch_log_group_name.unwrap_or_default()),
        cloud_watch_output_enabled: Some(config.cloud_watch_output_enabled.unwrap_or_default()),
    }
}

fn notification(config: Option<NotificationConfig>) -> NotificationConfig {
    config.unwrap_or_else(|| NotificationConfig {
        notification_arn: Some(String::new()),
        notification_events: Some(Vec::new()),
        notification_type: None,
    })
}

/// A counter of the model is 32 bits wide.
fn count(number: u64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
