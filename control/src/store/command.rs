//! Commands, their invocations and the results of their steps.

mod change;
mod delivery;
mod group_commit;
mod heads;
mod list;
mod release;
mod row;
mod step;
#[cfg(test)]
mod tests;
mod untold;

pub(crate) use change::Expired;
pub(super) use change::end_invocations_of_node;
pub(crate) use delivery::{DUE_JOBS, DueJob, DueJobKind, OldCommand};
pub(super) use group_commit::GroupCommit;
pub(crate) use list::{CommandQuery, InvocationCursor, InvocationQuery, ListFilters};
pub(crate) use row::{CommandHead, CommandRow, InvocationRow, StepRow};
pub(crate) use untold::UntoldEnd;

use moorline_protocol::types::{CommandId, InstanceId};
use moorline_ssm::command::SendCommandRequest;
use sqlx::{AssertSqlSafe, QueryBuilder, Sqlite, SqliteConnection};

use super::{Store, StoreError, column_millis, failed_to, output_upload};
use crate::engine::{command::command_status, invocation::Invocation};
use row::{
    HEAD_COLUMNS, INVOCATION_COLUMNS, STEP_COLUMNS, command, delivery_column, invocation, stage_columns, step,
};

/// Rows of one INSERT: well below the number of values that a statement may bind.
const INSERT_ROWS: usize = 500;

/// A command to be accepted.
#[derive(Debug, Clone)]
pub(crate) struct NewCommand {
    pub(crate) head: CommandHead,
    pub(crate) requested_at: u64,
    /// Who sent it.
    pub(crate) requester: String,
    pub(crate) document_name: String,
    pub(crate) request: SendCommandRequest,
    /// JSON that nodes get.
    pub(crate) job_content: String,
    pub(crate) taken_parameters: Vec<TakenParameter>,
    /// Its output is to be brought to the bucket that the request names.
    pub(crate) uploads_output: bool,
    pub(crate) invocations: Vec<NewInvocation>,
}

/// What a command takes from the Parameter Store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TakenParameter {
    /// Of what the node reads with the version or label that the command names: it may read no other.
    pub(crate) name: String,
    /// That was put in. `None`: a SecureString, which the node reads.
    pub(crate) version: Option<i64>,
}

/// An invocation of a command to be accepted.
#[derive(Debug, Clone)]
pub(crate) struct NewInvocation {
    pub(crate) instance_id: InstanceId,
    pub(crate) instance_name: String,
    pub(crate) invocation: Invocation,
}

impl Store {
    /// Accepts a command: it and its invocations are on disk, or nothing is.
    pub(crate) async fn insert_command(&self, new: &NewCommand) -> Result<(), StoreError> {
        const DOING: &str = "store a command";
        let mut tx = self.writer.begin().await.map_err(failed_to(DOING))?;
        insert_head(&mut tx, new).await?;
        for taken in &new.taken_parameters {
            sqlx::query(
                "INSERT INTO command_parameter (command_id, name, version) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            )
            .bind(new.head.command_id.as_str())
            .bind(&taken.name)
            .bind(taken.version.unwrap_or(0))
            .execute(&mut *tx)
            .await
            .map_err(failed_to(DOING))?;
        }
        for chunk in new.invocations.chunks(INSERT_ROWS) {
            let mut insert: QueryBuilder<Sqlite> = QueryBuilder::new(
                "INSERT INTO invocation (command_id, instance_id, instance_name, requested_at, document_name, \
                 stage, outcome, status, delivery, next_send_at, cancel_requested, deadline_at, ended_at, trace) ",
            );
            insert.push_values(chunk, |mut values, new_invocation| {
                let invocation = &new_invocation.invocation;
                let (stage, outcome) = stage_columns(invocation.stage);
                values
                    .push_bind(new.head.command_id.as_str())
                    .push_bind(new_invocation.instance_id.as_str())
                    .push_bind(&new_invocation.instance_name)
                    .push_bind(column_millis(new.requested_at))
                    .push_bind(&new.document_name)
                    .push_bind(stage)
                    .push_bind(outcome)
                    .push_bind(invocation.status())
                    .push_bind(delivery_column(invocation.delivery))
                    .push_bind(invocation.next_send_at.map(column_millis))
                    .push_bind(invocation.cancel_requested)
                    .push_bind(invocation.deadline_at.map(column_millis))
                    .push_bind(invocation.ended_at.map(column_millis))
                    .push_bind(&invocation.trace);
            });
            insert.build().execute(&mut *tx).await.map_err(failed_to(DOING))?;
        }
        if new.uploads_output {
            output_upload::insert(&mut tx, &new.head.command_id, new.requested_at).await?;
        }
        tx.commit().await.map_err(failed_to(DOING))
    }

    pub(crate) async fn command(&self, id: &CommandId) -> Result<Option<CommandRow>, StoreError> {
        let sql = format!(
            "SELECT {HEAD_COLUMNS}, requested_at, requester, request FROM command WHERE command_id = $1"
        );
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(id.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(failed_to("look a command up"))?;
        row.as_ref().map(command).transpose()
    }

    /// One invocation with the results of its steps, in no order.
    pub(crate) async fn invocation(
        &self,
        id: &CommandId,
        node: &InstanceId,
    ) -> Result<Option<(InvocationRow, Vec<StepRow>)>, StoreError> {
        const DOING: &str = "look an invocation up";
        // one snapshot, so that a final state is never shown without the output that came with it
        let mut tx = self.readers.begin().await.map_err(failed_to(DOING))?;
        let sql =
            format!("SELECT {INVOCATION_COLUMNS} FROM invocation WHERE command_id = $1 AND instance_id = $2");
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(id.as_str())
            .bind(node.as_str())
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed_to(DOING))?;
        let Some(row) = row else { return Ok(None) };
        let steps = step_rows(&mut tx, id, node).await?;
        tx.commit().await.map_err(failed_to(DOING))?;
        Ok(Some((invocation(&row)?, steps)))
    }
}

async fn insert_head(connection: &mut SqliteConnection, new: &NewCommand) -> Result<(), StoreError> {
    let head = &new.head;
    let progress = &head.progress;
    let status = command_status(progress);
    sqlx::query(
        "INSERT INTO command (command_id, requested_at, requester, document_name, step_names, \
         delivery_deadline, execution_millis, max_errors, status, status_details, started, cancel_requested, \
         targets, succeeded, failed, execution_timed_out, delivery_timed_out, cancelled, impossible, request, \
         job_content, delivery_millis, max_concurrency) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 0, 0, 0, 0, 0, $14, $15, $16, $17, $18)",
    )
    .bind(head.command_id.as_str())
    .bind(column_millis(new.requested_at))
    .bind(&new.requester)
    .bind(&new.document_name)
    .bind(json_text(&head.step_names))
    .bind(column_millis(head.deadlines.delivery))
    .bind(column_millis(head.deadlines.execution_millis))
    .bind(progress.max_errors.to_string())
    .bind(status.status)
    .bind(status.details)
    .bind(progress.started)
    .bind(progress.cancel_requested)
    .bind(column_millis(progress.tally.targets))
    .bind(column_millis(progress.tally.impossible))
    .bind(json_text(&new.request))
    .bind(&new.job_content)
    .bind(column_millis(head.delivery_millis))
    .bind(progress.max_concurrency.to_string())
    .execute(connection)
    .await
    .map_err(failed_to("store a command"))?;
    Ok(())
}

fn json_text<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("lists of texts and structures of the model have no non-text keys")
}

/// The results of an invocation's steps.
async fn step_rows(
    connection: &mut SqliteConnection,
    id: &CommandId,
    node: &InstanceId,
) -> Result<Vec<StepRow>, StoreError> {
    let sql = format!("SELECT {STEP_COLUMNS} FROM step_result WHERE command_id = $1 AND instance_id = $2");
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(id.as_str())
        .bind(node.as_str())
        .fetch_all(connection)
        .await
        .map_err(failed_to("read the results of steps"))?;
    rows.iter().map(step).collect()
}

/// An invocation, to be changed in the same transaction. Without its steps.
async fn load(
    connection: &mut SqliteConnection,
    id: &CommandId,
    node: &InstanceId,
) -> Result<Option<InvocationRow>, StoreError> {
    let sql =
        format!("SELECT {INVOCATION_COLUMNS} FROM invocation WHERE command_id = $1 AND instance_id = $2");
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(id.as_str())
        .bind(node.as_str())
        .fetch_optional(connection)
        .await
        .map_err(failed_to("look an invocation up"))?;
    row.as_ref().map(invocation).transpose()
}
