//! Jobs on their way to nodes, and commands that are old enough to be forgotten.

use moorline_protocol::types::{CommandId, InstanceId};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{
    super::{Store, StoreError, column, column_millis, failed_to},
    group_commit::{Change, Group, Turn},
    row::{INVOCATION_COLUMNS, invocation},
};

/// Jobs that one look hands out: bounds the memory of a node's backlog.
pub(crate) const DUE_JOBS: usize = 16;
/// Nodes that one look for jobs to be sent again names.
const RESEND_NODES: i64 = if cfg!(test) { 10 } else { 1000 };
/// Invocations that one retention pass deletes.
const FORGET_ROWS: i64 = 500;

/// A job that is to be sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DueJob {
    pub(crate) command_id: CommandId,
    /// Of the frame that carries it.
    pub(crate) message_id: Uuid,
    pub(crate) kind: DueJobKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DueJobKind {
    /// Run the command; with the job's content.
    Send { content: String },
    /// Cancel it; with the id of the cancel job.
    Cancel { cancel_id: String },
}

impl Store {
    /// Jobs for this node whose time has come, noted as sent: that they may have reached the node is on disk before
    /// they leave.
    pub(crate) async fn take_due_jobs(
        &self,
        node: &InstanceId,
        now: u64,
        message_id: impl FnMut() -> Uuid + Send + 'static,
    ) -> Result<Vec<DueJob>, StoreError> {
        if !self.has_due_jobs(node, now).await? {
            return Ok(Vec::new());
        }
        let change = TakeDueJobs {
            node: node.clone(),
            now,
            message_id,
        };
        self.changes.change(Turn::Delivery, change).await
    }

    async fn has_due_jobs(&self, node: &InstanceId, now: u64) -> Result<bool, StoreError> {
        let row = sqlx::query(
            "SELECT 1 FROM invocation WHERE instance_id = $1 AND next_send_at <= $2 AND deadline_at > $2 \
             UNION ALL SELECT 1 FROM invocation WHERE instance_id = $1 AND cancel_next_send_at <= $2 LIMIT 1",
        )
        .bind(node.as_str())
        .bind(column_millis(now))
        .fetch_optional(&self.readers)
        .await
        .map_err(failed_to("look for jobs of a node"))?;
        Ok(row.is_some())
    }

    /// The node has a new control channel: what it has not answered is to be sent again at once.
    pub(crate) async fn resend_at_once(&self, node: &InstanceId, now: u64) -> Result<(), StoreError> {
        const DOING: &str = "look for unanswered jobs of a node";
        let waiting = sqlx::query(
            "SELECT 1 FROM invocation WHERE instance_id = $1 AND next_send_at > $2 \
             UNION ALL SELECT 1 FROM invocation WHERE instance_id = $1 AND cancel_next_send_at > $2 LIMIT 1",
        )
        .bind(node.as_str())
        .bind(column_millis(now))
        .fetch_optional(&self.readers)
        .await
        .map_err(failed_to(DOING))?;
        if waiting.is_none() {
            return Ok(());
        }
        let mut tx = self.writer.begin().await.map_err(failed_to(DOING))?;
        for sql in [
            "UPDATE invocation SET next_send_at = $2 WHERE instance_id = $1 AND next_send_at > $2",
            "UPDATE invocation SET cancel_next_send_at = $2 WHERE instance_id = $1 AND cancel_next_send_at > $2",
        ] {
            sqlx::query(sql)
                .bind(node.as_str())
                .bind(column_millis(now))
                .execute(&mut *tx)
                .await
                .map_err(failed_to(DOING))?;
        }
        tx.commit().await.map_err(failed_to(DOING))
    }

    /// A place in the node's queue may be free: the oldest job that it refused for now is to be sent at once.
    pub(crate) async fn resend_refused(&self, node: &InstanceId, now: u64) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE invocation SET next_send_at = $2 WHERE instance_id = $1 AND command_id = \
             (SELECT command_id FROM invocation WHERE instance_id = $1 AND next_send_at > $2 \
             AND stage = 'Delayed' ORDER BY requested_at, command_id LIMIT 1)",
        )
        .bind(node.as_str())
        .bind(column_millis(now))
        .execute(&self.writer)
        .await
        .map_err(failed_to("send a refused job again"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Whether the node refused jobs that wait to be sent again.
    pub(crate) async fn has_refused_jobs(&self, node: &InstanceId) -> Result<bool, StoreError> {
        let row = sqlx::query(
            "SELECT 1 FROM invocation WHERE instance_id = $1 AND next_send_at IS NOT NULL \
             AND stage = 'Delayed' LIMIT 1",
        )
        .bind(node.as_str())
        .fetch_optional(&self.readers)
        .await
        .map_err(failed_to("look for refused jobs"))?;
        Ok(row.is_some())
    }

    /// Nodes with jobs that were sent before and are to be sent again since `after`: a bounded number of them, in the
    /// order of their ids, behind `behind`.
    pub(crate) async fn nodes_to_resend(
        &self,
        (after, now): (u64, u64),
        behind: &str,
    ) -> Result<Vec<InstanceId>, StoreError> {
        let rows = sqlx::query(
            "SELECT instance_id FROM invocation WHERE next_send_at > $1 AND next_send_at <= $2 \
             AND delivery <> 'Unsent' AND instance_id > $3 \
             UNION SELECT instance_id FROM invocation WHERE cancel_next_send_at > $1 \
             AND cancel_next_send_at <= $2 AND instance_id > $3 ORDER BY instance_id LIMIT $4",
        )
        .bind(column_millis(after))
        .bind(column_millis(now))
        .bind(behind)
        .bind(RESEND_NODES)
        .fetch_all(&self.readers)
        .await
        .map_err(failed_to("look for jobs to send again"))?;
        let mut nodes = Vec::with_capacity(rows.len());
        for row in &rows {
            let id: String = column(row, "instance_id")?;
            nodes.extend(id.parse::<InstanceId>());
        }
        Ok(nodes)
    }

    /// The wall clock was set by this much: what is open keeps the time it had. Commands that were requested
    /// between the two times know the clock as it is now.
    pub(crate) async fn move_deadlines(
        &self,
        millis: i64,
        (since, until): (u64, u64),
    ) -> Result<(), StoreError> {
        const DOING: &str = "move deadlines";
        let mut tx = self.writer.begin().await.map_err(failed_to(DOING))?;
        for sql in [
            "UPDATE command SET delivery_deadline = delivery_deadline + $1 \
             WHERE NOT (requested_at >= $2 AND requested_at <= $3) \
             AND command_id IN (SELECT command_id FROM invocation WHERE deadline_at IS NOT NULL)",
            "UPDATE invocation SET deadline_at = deadline_at + $1, \
             next_send_at = next_send_at + $1 \
             WHERE deadline_at IS NOT NULL AND NOT (requested_at >= $2 AND requested_at <= $3)",
            "UPDATE invocation SET cancel_next_send_at = cancel_next_send_at + $1 \
             WHERE cancel_next_send_at IS NOT NULL AND NOT (requested_at >= $2 AND requested_at <= $3)",
        ] {
            sqlx::query(sql)
                .bind(millis)
                .bind(column_millis(since))
                .bind(column_millis(until))
                .execute(&mut *tx)
                .await
                .map_err(failed_to(DOING))?;
        }
        tx.commit().await.map_err(failed_to(DOING))
    }

    /// The oldest command that was requested before `cutoff` and of which nothing is waited for any more: it has ended on
    /// every node before `ended`, and its recordings are closed.
    pub(crate) async fn old_command(
        &self,
        cutoff: u64,
        ended: u64,
    ) -> Result<Option<OldCommand>, StoreError> {
        const DOING: &str = "look for old commands";
        let row = sqlx::query(
            "SELECT command_id, targets, (SELECT COUNT(*) FROM invocation \
             WHERE invocation.command_id = command.command_id) AS left_of_them FROM command \
             WHERE requested_at < $1 AND status IN ('Success', 'Cancelled', 'Failed', 'TimedOut') \
             AND NOT EXISTS (SELECT 1 FROM invocation i WHERE i.command_id = command.command_id AND i.ended_at >= $2) \
             AND NOT EXISTS (SELECT 1 FROM transcript t WHERE t.command_id = command.command_id \
             AND t.completed_at IS NULL) ORDER BY requested_at LIMIT 1",
        )
        .bind(column_millis(cutoff))
        .bind(column_millis(ended))
        .fetch_optional(&self.readers)
        .await
        .map_err(failed_to(DOING))?;
        let Some(row) = row else { return Ok(None) };
        let (targets, left): (i64, i64) = (column(&row, "targets")?, column(&row, "left_of_them")?);
        Ok(Some(OldCommand {
            id: column(&row, "command_id")?,
            is_whole: left >= targets,
        }))
    }

    /// Deletes a command, a bounded part at a time. `false`: there is more of it.
    pub(crate) async fn forget_command(&self, id: &str) -> Result<bool, StoreError> {
        const DOING: &str = "delete an old command";
        let mut tx = self.writer.begin().await.map_err(failed_to(DOING))?;
        let invocations = sqlx::query(
            "DELETE FROM invocation WHERE command_id = $1 AND instance_id IN \
             (SELECT instance_id FROM invocation WHERE command_id = $1 LIMIT $2)",
        )
        .bind(id)
        .bind(FORGET_ROWS)
        .execute(&mut *tx)
        .await
        .map_err(failed_to(DOING))?;
        let is_last_part = invocations.rows_affected() < FORGET_ROWS.unsigned_abs();
        if is_last_part {
            sqlx::query("DELETE FROM command WHERE command_id = $1")
                .bind(id)
                .execute(&mut *tx)
                .await
                .map_err(failed_to(DOING))?;
        }
        tx.commit().await.map_err(failed_to(DOING))?;
        Ok(is_last_part)
    }
}

/// A command that is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OldCommand {
    pub(crate) id: String,
    /// Nothing of it is deleted yet.
    pub(crate) is_whole: bool,
}

struct TakeDueJobs<F> {
    node: InstanceId,
    now: u64,
    message_id: F,
}

impl<F: FnMut() -> Uuid + Send + 'static> Change for TakeDueJobs<F> {
    type Answer = Vec<DueJob>;

    async fn apply(&mut self, group: &mut Group) -> Result<Vec<DueJob>, StoreError> {
        const DOING: &str = "take the jobs of a node";
        let to_cancel = format!(
            "SELECT {INVOCATION_COLUMNS}, cancel_id FROM invocation \
             WHERE instance_id = $1 AND cancel_next_send_at <= $2 ORDER BY cancel_next_send_at LIMIT $3"
        );
        let to_send = format!(
            "SELECT {INVOCATION_COLUMNS}, job_content FROM invocation \
             JOIN command ON command.command_id = invocation.command_id \
             WHERE instance_id = $1 AND next_send_at <= $2 AND deadline_at > $2 \
             ORDER BY invocation.requested_at, invocation.command_id LIMIT $3"
        );
        let now = self.now;
        let mut jobs = Vec::new();
        for (sql, is_cancel) in [(to_cancel, true), (to_send, false)] {
            let rows = sqlx::query(AssertSqlSafe(sql))
                .bind(self.node.as_str())
                .bind(column_millis(now))
                .bind(i64::try_from(DUE_JOBS).unwrap_or(i64::MAX))
                .fetch_all(&mut *group.tx)
                .await
                .map_err(failed_to(DOING))?;
            for row in &rows {
                let message_id = (self.message_id)();
                let kind = if is_cancel {
                    DueJobKind::Cancel {
                        cancel_id: column(row, "cancel_id")?,
                    }
                } else {
                    DueJobKind::Send {
                        content: column(row, "job_content")?,
                    }
                };
                let mut row = invocation(row)?;
                let before = row.invocation.clone();
                if is_cancel {
                    row.invocation.cancel_sent(now);
                } else {
                    row.invocation.sent(message_id, now);
                }
                group.heads.save(&mut group.tx, &before, &row).await?;
                jobs.push(DueJob {
                    command_id: row.command_id,
                    message_id,
                    kind,
                });
            }
        }
        Ok(jobs)
    }
}
