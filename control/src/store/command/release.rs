//! Rate control: invocations that wait for their turn get it, or learn that they never will.

use moorline_protocol::types::{CommandId, InstanceId};
use sqlx::{AssertSqlSafe, SqliteConnection};

use super::{
    super::{Store, StoreError, column, failed_to},
    heads::Heads,
    row::{INVOCATION_COLUMNS, invocation},
};
use crate::engine::command::{Turn, turn};

const DOING: &str = "release held invocations";
/// Invocations that one transaction changes: other writers wait meanwhile.
const RELEASE_ROWS: u64 = 500;
/// Commands that one look goes through.
const COMMANDS: i64 = 100;

impl Store {
    /// Commands with invocations that wait for their turn.
    pub(crate) async fn commands_with_held(&self) -> Result<Vec<CommandId>, StoreError> {
        let rows = sqlx::query(
            "SELECT DISTINCT command_id FROM invocation WHERE delivery = 'Held' AND stage <> 'Ended' LIMIT $1",
        )
        .bind(COMMANDS)
        .fetch_all(&self.readers)
        .await
        .map_err(failed_to("look for held invocations"))?;
        let mut commands = Vec::with_capacity(rows.len());
        for row in &rows {
            let id: String = column(row, "command_id")?;
            commands.extend(id.parse::<CommandId>());
        }
        Ok(commands)
    }

    /// Lets as many held invocations of a command go as may be on their way, or ends them all when there were too
    /// many errors, a bounded part at a time. Returns the nodes that are to be told.
    pub(crate) async fn release_held(&self, id: &CommandId, now: u64) -> Result<Vec<InstanceId>, StoreError> {
        let mut tx = self.writer.begin().await.map_err(failed_to(DOING))?;
        let held = held_count(&mut tx, id).await?;
        let mut heads = Heads::default();
        let Some(head) = heads.get(&mut tx, id).await? else {
            return Ok(Vec::new());
        };
        let delivery_millis = head.delivery_millis;
        let turn = turn(&head.progress, held);
        let rows = match turn {
            Turn::Wait => return Ok(Vec::new()),
            Turn::Release(free) => free.min(RELEASE_ROWS),
            Turn::Terminate => RELEASE_ROWS,
        };
        let sql = format!(
            "SELECT {INVOCATION_COLUMNS} FROM invocation WHERE command_id = $1 AND delivery = 'Held' \
             AND stage <> 'Ended' ORDER BY instance_id LIMIT $2"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(id.as_str())
            .bind(i64::try_from(rows).unwrap_or(i64::MAX))
            .fetch_all(&mut *tx)
            .await
            .map_err(failed_to(DOING))?;
        let mut nodes = Vec::new();
        for row in &rows {
            let mut row = invocation(row)?;
            let before = row.invocation.clone();
            if turn == Turn::Terminate {
                row.invocation.terminate(now);
            } else {
                row.invocation.release(now, delivery_millis);
                nodes.push(row.instance_id.clone());
            }
            heads.save(&mut tx, &before, &row).await?;
        }
        heads.write(&mut tx).await?;
        tx.commit().await.map_err(failed_to(DOING))?;
        Ok(nodes)
    }
}

async fn held_count(connection: &mut SqliteConnection, id: &CommandId) -> Result<u64, StoreError> {
    let count: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM invocation WHERE command_id = $1 AND delivery = 'Held' AND stage <> 'Ended'",
    )
    .bind(id.as_str())
    .fetch_one(connection)
    .await
    .map_err(failed_to(DOING))?;
    Ok(count.unsigned_abs())
}
