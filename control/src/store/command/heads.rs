//! The commands that one transaction changes: each is read once and written once, however many of its invocations the
//! transaction is about.

use std::collections::BTreeMap;

use moorline_protocol::types::CommandId;
use sqlx::{AssertSqlSafe, SqliteConnection};

use super::{
    super::{StoreError, column_millis, failed_to},
    CommandHead, InvocationRow,
    row::{HEAD_COLUMNS, command_head, delivery_column, stage_columns},
    untold,
};
use crate::engine::{
    command::command_status,
    invocation::{Invocation, Stage},
};

/// Good for one transaction: what is changed must be written by [`Heads::write`] before it is committed.
#[derive(Debug, Default)]
pub(super) struct Heads {
    heads: BTreeMap<CommandId, Head>,
}

#[derive(Debug)]
struct Head {
    head: CommandHead,
    is_changed: bool,
}

impl Heads {
    /// What is decided by a command. `None`: there is no such command.
    pub(super) async fn get(
        &mut self,
        connection: &mut SqliteConnection,
        id: &CommandId,
    ) -> Result<Option<&CommandHead>, StoreError> {
        Ok(self.load(connection, id).await?.map(|head| &head.head))
    }

    async fn load(
        &mut self,
        connection: &mut SqliteConnection,
        id: &CommandId,
    ) -> Result<Option<&mut Head>, StoreError> {
        if !self.heads.contains_key(id) {
            let sql = format!("SELECT {HEAD_COLUMNS} FROM command WHERE command_id = $1");
            let row = sqlx::query(AssertSqlSafe(sql))
                .bind(id.as_str())
                .fetch_optional(connection)
                .await
                .map_err(failed_to("look a command up"))?;
            let Some(row) = row else { return Ok(None) };
            let head = Head {
                head: command_head(&row)?,
                is_changed: false,
            };
            self.heads.insert(id.clone(), head);
        }
        Ok(self.heads.get_mut(id))
    }

    /// The whole command is to be cancelled.
    pub(super) async fn cancel(
        &mut self,
        connection: &mut SqliteConnection,
        id: &CommandId,
    ) -> Result<(), StoreError> {
        if let Some(head) = self.load(connection, id).await? {
            head.head.progress.cancel_requested = true;
            head.is_changed = true;
        }
        Ok(())
    }

    /// Writes an invocation back, if it changed, and carries into its command what that means for it.
    pub(super) async fn save(
        &mut self,
        connection: &mut SqliteConnection,
        before: &Invocation,
        row: &InvocationRow,
    ) -> Result<(), StoreError> {
        let after = &row.invocation;
        if before == after {
            return Ok(());
        }
        if before.outcome().is_some() {
            return write_after_end(connection, row).await;
        }
        if !write(connection, row).await? {
            return Ok(());
        }
        if let Some(told) = after.told_end() {
            untold::insert(connection, row, told.details()).await?;
        }
        if let Some(head) = self.load(connection, &row.command_id).await? {
            let progress = head.head.progress;
            head.head.progress.started |= !matches!(after.stage, Stage::Pending);
            if let Some(outcome) = after.outcome() {
                head.head.progress.tally.add(outcome);
            }
            head.is_changed |= head.head.progress != progress;
        }
        Ok(())
    }

    /// Writes the commands that changed.
    pub(super) async fn write(self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        for Head { head, is_changed } in self.heads.values() {
            if *is_changed {
                write_head(connection, head).await?;
            }
        }
        Ok(())
    }
}

/// `false`: it had ended already.
async fn write(connection: &mut SqliteConnection, row: &InvocationRow) -> Result<bool, StoreError> {
    let after = &row.invocation;
    let (stage, outcome) = stage_columns(after.stage);
    let done = sqlx::query(
        "UPDATE invocation SET stage = $3, outcome = $4, status = $5, delivery = $6, sent_message_id = $7, \
         next_send_at = $8, cancel_requested = $9, cancel_next_send_at = $10, deadline_at = $11, \
         ended_at = $12, trace = $13, released_at = $14, sent_at = $15, taken_at = $16, \
         cancel_requested_at = $17 \
         WHERE command_id = $1 AND instance_id = $2 AND stage <> 'Ended'",
    )
    .bind(row.command_id.as_str())
    .bind(row.instance_id.as_str())
    .bind(stage)
    .bind(outcome)
    .bind(after.status())
    .bind(delivery_column(after.delivery))
    .bind(after.sent_message_id.map(|id| id.to_string()))
    .bind(after.next_send_at.map(column_millis))
    .bind(after.cancel_requested)
    .bind(after.cancel_next_send_at.map(column_millis))
    .bind(after.deadline_at.map(column_millis))
    .bind(after.ended_at.map(column_millis))
    .bind(&after.trace)
    .bind(after.times.released_at.map(column_millis))
    .bind(after.times.sent_at.map(column_millis))
    .bind(after.times.taken_at.map(column_millis))
    .bind(after.times.cancel_requested_at.map(column_millis))
    .execute(connection)
    .await
    .map_err(failed_to("write an invocation"))?;
    Ok(done.rows_affected() > 0)
}

/// Its end stands: only the note and the cancellation may still change.
async fn write_after_end(connection: &mut SqliteConnection, row: &InvocationRow) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE invocation SET trace = $3, cancel_next_send_at = $4 WHERE command_id = $1 AND instance_id = $2",
    )
    .bind(row.command_id.as_str())
    .bind(row.instance_id.as_str())
    .bind(&row.invocation.trace)
    .bind(row.invocation.cancel_next_send_at.map(column_millis))
    .execute(connection)
    .await
    .map(drop)
    .map_err(failed_to("write an invocation"))
}

async fn write_head(connection: &mut SqliteConnection, head: &CommandHead) -> Result<(), StoreError> {
    let progress = &head.progress;
    let tally = &progress.tally;
    let status = command_status(progress);
    sqlx::query(
        "UPDATE command SET status = $2, status_details = $3, started = $4, cancel_requested = $5, \
         succeeded = $6, failed = $7, execution_timed_out = $8, delivery_timed_out = $9, cancelled = $10, \
         impossible = $11, terminated = $12 WHERE command_id = $1",
    )
    .bind(head.command_id.as_str())
    .bind(status.status)
    .bind(status.details)
    .bind(progress.started)
    .bind(progress.cancel_requested)
    .bind(column_millis(tally.succeeded))
    .bind(column_millis(tally.failed))
    .bind(column_millis(tally.execution_timed_out))
    .bind(column_millis(tally.delivery_timed_out))
    .bind(column_millis(tally.cancelled))
    .bind(column_millis(tally.impossible))
    .bind(column_millis(tally.terminated))
    .execute(connection)
    .await
    .map(drop)
    .map_err(failed_to("write a command's status"))
}
