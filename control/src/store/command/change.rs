//! Changes of invocations: load, let the engine decide, write back, in one transaction with the command's roll-up.
//!
//! The engine lets an invocation end once; the statements here say so again (`stage <> 'Ended'`), so that even two
//! writers could not end it twice or count it twice.

use moorline_protocol::{
    message::JobAckCode,
    types::{CommandId, InstanceId},
};
use sqlx::{AssertSqlSafe, SqliteConnection};
use uuid::Uuid;

use super::{
    super::{Store, StoreError, column, column_millis, failed_to},
    CommandHead, InvocationRow, load,
    row::{HEAD_COLUMNS, INVOCATION_COLUMNS, command_head, delivery_column, invocation, stage_columns},
    step::{load_ranks, upsert_step},
};
use crate::engine::{
    command::command_status,
    invocation::{Invocation, Stage, StepRank},
    reply::Reply,
};

/// Invocations that one transaction ends because of the time: other writers wait meanwhile.
const SWEEP_ROWS: i64 = 200;

impl Store {
    /// The node answered a delivery of the job. `false`: there is no such invocation.
    pub(crate) async fn acknowledge_job(
        &self,
        id: &CommandId,
        node: &InstanceId,
        (code, message_id): (JobAckCode, Option<Uuid>),
        now: u64,
    ) -> Result<bool, StoreError> {
        self.change(id, node, |invocation, head| {
            invocation.job_acknowledged(code, message_id, head.deadlines, now);
        })
        .await
    }

    /// The node answered a delivery of the cancel job. `false`: there is no such invocation.
    pub(crate) async fn acknowledge_cancel(
        &self,
        id: &CommandId,
        node: &InstanceId,
        code: JobAckCode,
        now: u64,
    ) -> Result<bool, StoreError> {
        self.change(id, node, |invocation, _| {
            invocation.cancel_acknowledged(code, now);
        })
        .await
    }

    /// The node reported something that cannot be read. `false`: there is no such invocation.
    pub(crate) async fn note_unreadable_reply(
        &self,
        id: &CommandId,
        node: &InstanceId,
    ) -> Result<bool, StoreError> {
        self.change(id, node, |invocation, _| invocation.unreadable_reply())
            .await
    }

    /// The command that this cancel job cancels on this node.
    pub(crate) async fn command_of_cancel(
        &self,
        cancel_id: &str,
        node: &InstanceId,
    ) -> Result<Option<CommandId>, StoreError> {
        let row = sqlx::query("SELECT command_id FROM invocation WHERE cancel_id = $1 AND instance_id = $2")
            .bind(cancel_id)
            .bind(node.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(failed_to("look a cancel job up"))?;
        let Some(row) = row else { return Ok(None) };
        let id: String = column(&row, "command_id")?;
        id.parse().map(Some).map_err(|_| StoreError::Corrupt {
            table: "invocation",
            column: "command_id",
            row: id,
        })
    }

    /// Stores what a node reports. `None`: there is no such invocation; else whether this ended it.
    pub(crate) async fn record_reply(
        &self,
        id: &CommandId,
        node: &InstanceId,
        reply: &Reply,
        now: u64,
    ) -> Result<Option<bool>, StoreError> {
        const DOING: &str = "record a reply";
        let mut tx = self.writer.begin().await.map_err(failed_to(DOING))?;
        let Some((mut head, mut row)) = load(&mut tx, id, node).await? else {
            return Ok(None);
        };
        load_ranks(&mut tx, &mut row).await?;
        let before = row.invocation.clone();
        let kept = row
            .invocation
            .replied(reply, &head.step_names, head.deadlines, now);
        for (name, step) in kept.iter().filter_map(|index| reply.steps.get(*index)) {
            let rank = row.invocation.steps.get(name).copied();
            let rank = rank.unwrap_or(StepRank {
                is_final: false,
                made_at: reply.made_at,
            });
            upsert_step(&mut tx, &row, (name, rank), step).await?;
        }
        save(&mut tx, &mut head, &before, &row).await?;
        tx.commit().await.map_err(failed_to(DOING))?;
        Ok(Some(
            before.outcome().is_none() && row.invocation.outcome().is_some(),
        ))
    }

    /// Cancels a command on all its nodes, or on `nodes` only. Returns the nodes that are to be told.
    pub(crate) async fn cancel_command(
        &self,
        id: &CommandId,
        nodes: Option<&[InstanceId]>,
        cancel_id: &str,
        now: u64,
    ) -> Result<Vec<InstanceId>, StoreError> {
        const DOING: &str = "cancel a command";
        let mut tx = self.writer.begin().await.map_err(failed_to(DOING))?;
        let sql = format!(
            "SELECT {HEAD_COLUMNS}, {INVOCATION_COLUMNS} FROM invocation \
             JOIN command ON command.command_id = invocation.command_id \
             WHERE invocation.command_id = $1 AND stage <> 'Ended'"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(id.as_str())
            .fetch_all(&mut *tx)
            .await
            .map_err(failed_to(DOING))?;
        let Some(first) = rows.first() else {
            return Ok(Vec::new());
        };
        let mut head = command_head(first)?;
        let mut to_tell = Vec::new();
        for row in &rows {
            let mut row = invocation(row)?;
            if nodes.is_some_and(|nodes| !nodes.contains(&row.instance_id)) {
                continue;
            }
            let before = row.invocation.clone();
            row.invocation.cancel(now);
            if row.invocation.cancel_requested && !before.cancel_requested {
                set_cancel_id(&mut tx, &row, cancel_id).await?;
                to_tell.push(row.instance_id.clone());
            }
            save(&mut tx, &mut head, &before, &row).await?;
        }
        if nodes.is_none() {
            head.progress.cancel_requested = true;
        }
        save_head(&mut tx, &head).await?;
        tx.commit().await.map_err(failed_to(DOING))?;
        Ok(to_tell)
    }

    /// Decides what ran out of time. Returns how many invocations changed: as many as fit one transaction.
    pub(crate) async fn expire_invocations(&self, now: u64) -> Result<usize, StoreError> {
        const DOING: &str = "end invocations that ran out of time";
        const DUE: &str = "SELECT command_id, instance_id FROM invocation WHERE deadline_at <= $1 LIMIT $2";
        let due = sqlx::query(DUE)
            .bind(column_millis(now))
            .bind(SWEEP_ROWS)
            .fetch_all(&self.readers)
            .await
            .map_err(failed_to(DOING))?;
        if due.is_empty() {
            return Ok(0);
        }
        let mut tx = self.writer.begin().await.map_err(failed_to(DOING))?;
        let mut changed = 0;
        for row in &due {
            let (Ok(id), Ok(node)) = (
                column::<String>(row, "command_id")?.parse(),
                column::<String>(row, "instance_id")?.parse(),
            ) else {
                continue;
            };
            let Some((mut head, mut row)) = load(&mut tx, &id, &node).await? else {
                continue;
            };
            let before = row.invocation.clone();
            if row.invocation.time_passed(now) {
                save(&mut tx, &mut head, &before, &row).await?;
                changed += 1;
            }
        }
        tx.commit().await.map_err(failed_to(DOING))?;
        Ok(changed)
    }

    async fn change(
        &self,
        id: &CommandId,
        node: &InstanceId,
        decide: impl FnOnce(&mut Invocation, &CommandHead) + Send,
    ) -> Result<bool, StoreError> {
        const DOING: &str = "change an invocation";
        let mut tx = self.writer.begin().await.map_err(failed_to(DOING))?;
        let Some((mut head, mut row)) = load(&mut tx, id, node).await? else {
            return Ok(false);
        };
        let before = row.invocation.clone();
        decide(&mut row.invocation, &head);
        save(&mut tx, &mut head, &before, &row).await?;
        tx.commit().await.map_err(failed_to(DOING))?;
        Ok(true)
    }
}

/// The node was deregistered: ends what is open on it.
pub(in crate::store) async fn end_invocations_of_node(
    connection: &mut SqliteConnection,
    node: &InstanceId,
    now: u64,
) -> Result<(), StoreError> {
    let open = sqlx::query("SELECT command_id FROM invocation WHERE instance_id = $1 AND stage <> 'Ended'")
        .bind(node.as_str())
        .fetch_all(&mut *connection)
        .await
        .map_err(failed_to("end the invocations of a node"))?;
    for row in &open {
        let Ok(id) = column::<String>(row, "command_id")?.parse() else {
            continue;
        };
        let Some((mut head, mut row)) = load(connection, &id, node).await? else {
            continue;
        };
        let before = row.invocation.clone();
        row.invocation.node_left(now);
        save(connection, &mut head, &before, &row).await?;
    }
    Ok(())
}

/// Writes an invocation back, if it changed, and carries what it means for the command into `head` and the store.
pub(super) async fn save(
    connection: &mut SqliteConnection,
    head: &mut CommandHead,
    before: &Invocation,
    row: &InvocationRow,
) -> Result<(), StoreError> {
    const DOING: &str = "write an invocation";
    let after = &row.invocation;
    if before == after {
        return Ok(());
    }
    if before.outcome().is_some() {
        // its end stands: only the note and the cancellation may still change
        return sqlx::query(
            "UPDATE invocation SET trace = $3, cancel_next_send_at = $4 \
             WHERE command_id = $1 AND instance_id = $2",
        )
        .bind(row.command_id.as_str())
        .bind(row.instance_id.as_str())
        .bind(&after.trace)
        .bind(after.cancel_next_send_at.map(column_millis))
        .execute(connection)
        .await
        .map(drop)
        .map_err(failed_to(DOING));
    }
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
    .execute(&mut *connection)
    .await
    .map_err(failed_to(DOING))?;
    if done.rows_affected() == 0 {
        return Ok(());
    }
    let progress = head.progress;
    head.progress.started |= !matches!(after.stage, Stage::Pending);
    if let Some(outcome) = after.outcome() {
        head.progress.tally.add(outcome);
    }
    if head.progress == progress {
        Ok(())
    } else {
        save_head(connection, head).await
    }
}

async fn save_head(connection: &mut SqliteConnection, head: &CommandHead) -> Result<(), StoreError> {
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
    .map_err(failed_to("write a command's status"))?;
    Ok(())
}

async fn set_cancel_id(
    connection: &mut SqliteConnection,
    row: &InvocationRow,
    cancel_id: &str,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE invocation SET cancel_id = $3 WHERE command_id = $1 AND instance_id = $2")
        .bind(row.command_id.as_str())
        .bind(row.instance_id.as_str())
        .bind(cancel_id)
        .execute(connection)
        .await
        .map_err(failed_to("write a cancel job"))?;
    Ok(())
}
