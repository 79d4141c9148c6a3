//! Rows of commands, invocations and step results, and back.

use std::collections::BTreeMap;

use moorline_protocol::{
    message::ResultStatus,
    types::{CommandId, InstanceId},
};
use moorline_ssm::command::SendCommandRequest;
use sqlx::sqlite::SqliteRow;

use super::super::{StoreError, column, millis_of};
use crate::engine::{
    command::{CommandStatus, Progress, Tally, command_status},
    invocation::{Deadlines, Delivery, Invocation, Outcome, Stage, Times},
    rate_control::Limit,
};

/// What every decision on an invocation needs of its command.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CommandHead {
    pub(crate) command_id: CommandId,
    pub(crate) deadlines: Deadlines,
    /// How long an invocation that has its turn may take to be delivered.
    pub(crate) delivery_millis: u64,
    pub(crate) step_names: Vec<String>,
    pub(crate) progress: Progress,
}

/// A command, without the content of its job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CommandRow {
    pub(crate) head: CommandHead,
    pub(crate) requested_at: u64,
    /// Who sent it.
    pub(crate) requester: String,
    pub(crate) request: SendCommandRequest,
}

impl CommandRow {
    pub(crate) fn status(&self) -> CommandStatus {
        command_status(&self.head.progress)
    }
}

/// An invocation with what is listed of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct InvocationRow {
    pub(crate) command_id: CommandId,
    pub(crate) instance_id: InstanceId,
    pub(crate) instance_name: String,
    pub(crate) requested_at: u64,
    /// Without its steps.
    pub(crate) invocation: Invocation,
}

/// The result of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StepRow {
    pub(crate) name: String,
    pub(crate) status: ResultStatus,
    pub(crate) code: i64,
    /// As the node wrote them; empty when it did not.
    pub(crate) started_at: String,
    pub(crate) ended_at: String,
    pub(crate) output_s3_bucket_name: String,
    pub(crate) output_s3_key_prefix: String,
    pub(crate) output: String,
    pub(crate) standard_output: String,
    pub(crate) standard_error: String,
}

/// Columns of [`command_head`].
pub(super) const HEAD_COLUMNS: &str = "command.command_id AS command_id, step_names, delivery_deadline, \
    execution_millis, delivery_millis, max_errors, max_concurrency, started, command.cancel_requested AS command_cancel_requested, targets, \
    succeeded, failed, execution_timed_out, delivery_timed_out, cancelled, impossible, \
    terminated";

pub(super) fn command_head(row: &SqliteRow) -> Result<CommandHead, StoreError> {
    let id: String = column(row, "command_id")?;
    let count = |name| -> Result<u64, StoreError> { column(row, name).map(millis_of) };
    let corrupt = |column| StoreError::Corrupt {
        table: "command",
        column,
        row: id.clone(),
    };
    let step_names: String = column(row, "step_names")?;
    let limit = |name| -> Result<Limit, StoreError> {
        let text: String = column(row, name)?;
        text.parse().map_err(|_| corrupt(name))
    };
    Ok(CommandHead {
        command_id: id.parse().map_err(|_| corrupt("command_id"))?,
        deadlines: Deadlines {
            delivery: count("delivery_deadline")?,
            execution_millis: count("execution_millis")?,
        },
        delivery_millis: count("delivery_millis")?,
        step_names: serde_json::from_str(&step_names).map_err(|_| corrupt("step_names"))?,
        progress: Progress {
            tally: Tally {
                targets: count("targets")?,
                succeeded: count("succeeded")?,
                failed: count("failed")?,
                execution_timed_out: count("execution_timed_out")?,
                delivery_timed_out: count("delivery_timed_out")?,
                cancelled: count("cancelled")?,
                impossible: count("impossible")?,
                terminated: count("terminated")?,
            },
            started: column(row, "started")?,
            cancel_requested: column(row, "command_cancel_requested")?,
            max_errors: limit("max_errors")?,
            max_concurrency: limit("max_concurrency")?,
        },
    })
}

pub(super) fn command(row: &SqliteRow) -> Result<CommandRow, StoreError> {
    let head = command_head(row)?;
    let request: String = column(row, "request")?;
    let request = serde_json::from_str(&request).map_err(|_| StoreError::Corrupt {
        table: "command",
        column: "request",
        row: head.command_id.to_string(),
    })?;
    Ok(CommandRow {
        head,
        requested_at: millis_of(column(row, "requested_at")?),
        requester: column(row, "requester")?,
        request,
    })
}

/// Columns of [`invocation`].
pub(super) const INVOCATION_COLUMNS: &str = "invocation.command_id AS command_id, instance_id, instance_name, \
    invocation.requested_at AS requested_at, stage, outcome, delivery, sent_message_id, next_send_at, \
    invocation.cancel_requested AS cancel_requested, cancel_next_send_at, deadline_at, ended_at, trace, released_at, \
    sent_at, taken_at, cancel_requested_at";

pub(super) fn invocation(row: &SqliteRow) -> Result<InvocationRow, StoreError> {
    let command_id: String = column(row, "command_id")?;
    let instance_id: String = column(row, "instance_id")?;
    let corrupt = |column| StoreError::Corrupt {
        table: "invocation",
        column,
        row: format!("{command_id} {instance_id}"),
    };
    let time = |name| -> Result<Option<u64>, StoreError> {
        column::<Option<i64>>(row, name).map(|millis| millis.map(millis_of))
    };
    let stage: String = column(row, "stage")?;
    let outcome: Option<String> = column(row, "outcome")?;
    let delivery: String = column(row, "delivery")?;
    let message_id: Option<String> = column(row, "sent_message_id")?;
    let message_id = message_id
        .map(|id| id.parse())
        .transpose()
        .map_err(|_| corrupt("sent_message_id"))?;
    Ok(InvocationRow {
        command_id: command_id.parse().map_err(|_| corrupt("command_id"))?,
        instance_id: instance_id.parse().map_err(|_| corrupt("instance_id"))?,
        instance_name: column(row, "instance_name")?,
        requested_at: millis_of(column(row, "requested_at")?),
        invocation: Invocation {
            stage: stage_of(&stage, outcome.as_deref()).ok_or_else(|| corrupt("stage"))?,
            delivery: delivery_of(&delivery).ok_or_else(|| corrupt("delivery"))?,
            sent_message_id: message_id,
            next_send_at: time("next_send_at")?,
            cancel_requested: column(row, "cancel_requested")?,
            cancel_next_send_at: time("cancel_next_send_at")?,
            deadline_at: time("deadline_at")?,
            ended_at: time("ended_at")?,
            times: Times {
                released_at: time("released_at")?,
                sent_at: time("sent_at")?,
                taken_at: time("taken_at")?,
                cancel_requested_at: time("cancel_requested_at")?,
            },
            trace: column(row, "trace")?,
            steps: BTreeMap::new(),
        },
    })
}

/// Columns of [`step`].
pub(super) const STEP_COLUMNS: &str = "command_id, instance_id, name, status, code, started_at, ended_at, \
    output_s3_bucket_name, output_s3_key_prefix, output, standard_output, standard_error";

pub(super) fn step(row: &SqliteRow) -> Result<StepRow, StoreError> {
    let name: String = column(row, "name")?;
    let status: String = column(row, "status")?;
    let status = serde_json::from_value(status.into()).map_err(|_| StoreError::Corrupt {
        table: "step_result",
        column: "status",
        row: name.clone(),
    })?;
    Ok(StepRow {
        name,
        status,
        code: column(row, "code")?,
        started_at: column(row, "started_at")?,
        ended_at: column(row, "ended_at")?,
        output_s3_bucket_name: column(row, "output_s3_bucket_name")?,
        output_s3_key_prefix: column(row, "output_s3_key_prefix")?,
        output: column(row, "output")?,
        standard_output: column(row, "standard_output")?,
        standard_error: column(row, "standard_error")?,
    })
}

/// `stage` and `outcome` as the columns have them.
pub(super) fn stage_columns(stage: Stage) -> (&'static str, Option<&'static str>) {
    match stage {
        Stage::Pending => ("Pending", None),
        Stage::Delayed => ("Delayed", None),
        Stage::InProgress => ("InProgress", None),
        Stage::Settling(outcome) => ("Settling", Some(outcome_column(outcome))),
        Stage::Ended(outcome) => ("Ended", Some(outcome_column(outcome))),
    }
}

fn stage_of(stage: &str, outcome: Option<&str>) -> Option<Stage> {
    let outcome = || {
        Outcome::ALL
            .into_iter()
            .find(|candidate| Some(outcome_column(*candidate)) == outcome)
    };
    match stage {
        "Pending" => Some(Stage::Pending),
        "Delayed" => Some(Stage::Delayed),
        "InProgress" => Some(Stage::InProgress),
        "Settling" => outcome().map(Stage::Settling),
        "Ended" => outcome().map(Stage::Ended),
        _ => None,
    }
}

fn outcome_column(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::AccessDenied => "AccessDenied",
        Outcome::Cancelled => "Cancelled",
        Outcome::CancelUnconfirmed => "CancelUnconfirmed",
        Outcome::DeliveryTimedOut => "DeliveryTimedOut",
        Outcome::DeliveryUnconfirmed => "DeliveryUnconfirmed",
        Outcome::ExecutionTimedOut => "ExecutionTimedOut",
        Outcome::Failed => "Failed",
        Outcome::InvalidPlatform => "InvalidPlatform",
        Outcome::ResultUnknown => "ResultUnknown",
        Outcome::Success => "Success",
        Outcome::Terminated => "Terminated",
        Outcome::Undeliverable => "Undeliverable",
    }
}

pub(super) fn delivery_column(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Held => "Held",
        Delivery::Unsent => "Unsent",
        Delivery::Sent => "Sent",
        Delivery::Refused => "Refused",
        Delivery::Taken => "Taken",
    }
}

fn delivery_of(column: &str) -> Option<Delivery> {
    [
        Delivery::Held,
        Delivery::Unsent,
        Delivery::Sent,
        Delivery::Refused,
        Delivery::Taken,
    ]
    .into_iter()
    .find(|candidate| delivery_column(*candidate) == column)
}
