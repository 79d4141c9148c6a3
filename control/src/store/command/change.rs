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
    CommandHead, InvocationRow,
    group_commit::{Change, Group, Turn},
    heads::Heads,
    load,
    row::{INVOCATION_COLUMNS, invocation},
    step::{load_ranks, upsert_step},
};
use crate::engine::{
    command::may_hold,
    invocation::{Invocation, StepRank},
    reply::Reply,
};

/// Invocations that one transaction ends because of the time: other writers wait meanwhile.
const SWEEP_ROWS: i64 = 200;

impl Store {
    /// The node answered a delivery of the job. `None`: there is no such invocation.
    pub(crate) async fn acknowledge_job(
        &self,
        id: &CommandId,
        node: &InstanceId,
        (code, message_id): (JobAckCode, Option<Uuid>),
        now: u64,
    ) -> Result<Option<Recorded>, StoreError> {
        self.change(id, node, move |invocation, head| {
            invocation.job_acknowledged(code, message_id, head.deadlines, now);
        })
        .await
    }

    /// The node answered a delivery of the cancel job. `None`: there is no such invocation.
    pub(crate) async fn acknowledge_cancel(
        &self,
        id: &CommandId,
        node: &InstanceId,
        code: JobAckCode,
        now: u64,
    ) -> Result<Option<Recorded>, StoreError> {
        self.change(id, node, move |invocation, _| {
            invocation.cancel_acknowledged(code, now);
        })
        .await
    }

    /// The node reported something that cannot be read. `None`: there is no such invocation.
    pub(crate) async fn note_unreadable_reply(
        &self,
        id: &CommandId,
        node: &InstanceId,
    ) -> Result<Option<Recorded>, StoreError> {
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

    /// Stores what a node reports. `None`: there is no such invocation.
    pub(crate) async fn record_reply(
        &self,
        id: &CommandId,
        node: &InstanceId,
        reply: Reply,
        now: u64,
    ) -> Result<Option<Recorded>, StoreError> {
        let change = RecordReply {
            id: id.clone(),
            node: node.clone(),
            reply,
            now,
        };
        self.changes.change(Turn::Report, change).await
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
        let sql =
            format!("SELECT {INVOCATION_COLUMNS} FROM invocation WHERE command_id = $1 AND stage <> 'Ended'");
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(id.as_str())
            .fetch_all(&mut *tx)
            .await
            .map_err(failed_to(DOING))?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut heads = Heads::default();
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
            heads.save(&mut tx, &before, &row).await?;
        }
        if nodes.is_none() {
            heads.cancel(&mut tx, id).await?;
        }
        heads.write(&mut tx).await?;
        tx.commit().await.map_err(failed_to(DOING))?;
        Ok(to_tell)
    }

    /// Decides what ran out of time, as many invocations as fit one transaction.
    pub(crate) async fn expire_invocations(&self, now: u64) -> Result<Expired, StoreError> {
        const DOING: &str = "end invocations that ran out of time";
        const DUE: &str = "SELECT command_id, instance_id FROM invocation WHERE deadline_at <= $1 LIMIT $2";
        let due = sqlx::query(DUE)
            .bind(column_millis(now))
            .bind(SWEEP_ROWS)
            .fetch_all(&self.readers)
            .await
            .map_err(failed_to(DOING))?;
        let mut expired = Expired::default();
        if due.is_empty() {
            return Ok(expired);
        }
        let mut tx = self.writer.begin().await.map_err(failed_to(DOING))?;
        let mut heads = Heads::default();
        for row in &due {
            let (Ok(id), Ok(node)) = (
                column::<String>(row, "command_id")?.parse(),
                column::<String>(row, "instance_id")?.parse(),
            ) else {
                continue;
            };
            let Some(mut row) = load(&mut tx, &id, &node).await? else {
                continue;
            };
            let before = row.invocation.clone();
            if row.invocation.time_passed(now) {
                heads.save(&mut tx, &before, &row).await?;
                expired.changed += 1;
                expired.told += usize::from(row.invocation.told_end().is_some());
            }
        }
        heads.write(&mut tx).await?;
        tx.commit().await.map_err(failed_to(DOING))?;
        Ok(expired)
    }

    async fn change(
        &self,
        id: &CommandId,
        node: &InstanceId,
        decide: impl FnMut(&mut Invocation, &CommandHead) + Send + 'static,
    ) -> Result<Option<Recorded>, StoreError> {
        let change = Decide {
            id: id.clone(),
            node: node.clone(),
            decide,
        };
        self.changes.change(Turn::Report, change).await
    }
}

/// What became of a node's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// It ended the invocation.
    pub(crate) has_ended: bool,
    /// Other invocations of the command may wait for their turn.
    pub(crate) may_hold: bool,
}

impl Recorded {
    fn new(before: &Invocation, after: &Invocation, may_hold: bool) -> Self {
        Self {
            has_ended: before.outcome().is_none() && after.told_end().is_some(),
            may_hold,
        }
    }
}

/// What ran out of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Expired {
    /// How many invocations changed.
    pub(crate) changed: usize,
    /// Those of them whose node had said how they end.
    pub(crate) told: usize,
}

struct RecordReply {
    id: CommandId,
    node: InstanceId,
    reply: Reply,
    now: u64,
}

impl Change for RecordReply {
    type Answer = Option<Recorded>;

    async fn apply(&mut self, group: &mut Group) -> Result<Self::Answer, StoreError> {
        let Self { id, node, reply, now } = self;
        let Group { tx, heads } = group;
        let Some(mut row) = load(tx, id, node).await? else {
            return Ok(None);
        };
        let Some(head) = heads.get(tx, id).await? else {
            return Ok(None);
        };
        load_ranks(tx, &mut row).await?;
        let before = row.invocation.clone();
        let kept = row
            .invocation
            .replied(reply, &head.step_names, head.deadlines, *now);
        let may_hold = may_hold(&head.progress);
        for (name, step) in kept.iter().filter_map(|index| reply.steps.get(*index)) {
            let rank = row.invocation.steps.get(name).copied();
            let rank = rank.unwrap_or(StepRank {
                is_final: false,
                made_at: reply.made_at,
            });
            upsert_step(tx, &row, (name, rank), step).await?;
        }
        heads.save(tx, &before, &row).await?;
        Ok(Some(Recorded::new(&before, &row.invocation, may_hold)))
    }
}

/// A change that needs nothing but the invocation and its command. `None`: there is no such invocation.
struct Decide<F> {
    id: CommandId,
    node: InstanceId,
    decide: F,
}

impl<F: FnMut(&mut Invocation, &CommandHead) + Send + 'static> Change for Decide<F> {
    type Answer = Option<Recorded>;

    async fn apply(&mut self, group: &mut Group) -> Result<Self::Answer, StoreError> {
        let Group { tx, heads } = group;
        let Some(mut row) = load(tx, &self.id, &self.node).await? else {
            return Ok(None);
        };
        let Some(head) = heads.get(tx, &self.id).await? else {
            return Ok(None);
        };
        let before = row.invocation.clone();
        (self.decide)(&mut row.invocation, head);
        let may_hold = may_hold(&head.progress);
        heads.save(tx, &before, &row).await?;
        Ok(Some(Recorded::new(&before, &row.invocation, may_hold)))
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
    let mut heads = Heads::default();
    for row in &open {
        let Ok(id) = column::<String>(row, "command_id")?.parse() else {
            continue;
        };
        let Some(mut row) = load(connection, &id, node).await? else {
            continue;
        };
        let before = row.invocation.clone();
        row.invocation.node_left(now);
        heads.save(connection, &before, &row).await?;
    }
    heads.write(connection).await
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
