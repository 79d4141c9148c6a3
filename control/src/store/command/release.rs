//! Rate control: invocations that wait for their turn get it, or learn that they never will.

use moorline_protocol::types::{CommandId, InstanceId};
use sqlx::{AssertSqlSafe, SqliteConnection};

use super::{
    super::{Store, StoreError, column, failed_to},
    heads::Heads,
    row::{HEAD_COLUMNS, INVOCATION_COLUMNS, command_head, invocation},
};
use crate::engine::command::{Turn, turn};

const DOING: &str = "release held invocations";
/// Invocations that one transaction changes: other writers wait meanwhile.
const RELEASE_ROWS: u64 = 500;
/// Commands that one look goes through.
const COMMANDS: u8 = if cfg!(test) { 10 } else { 100 };

impl Store {
    /// Commands with invocations that have their turn, or never will, of a bounded part of all that hold some; and
    /// behind which the next part begins, if there is one.
    pub(crate) async fn commands_with_turn(
        &self,
        behind: &str,
    ) -> Result<(Vec<CommandId>, Option<String>), StoreError> {
        const DOING: &str = "look for held invocations";
        let sql = format!(
            "SELECT {HEAD_COLUMNS}, held FROM (SELECT command_id AS holder, COUNT(*) AS held FROM invocation \
             WHERE delivery = 'Held' AND stage <> 'Ended' AND command_id > $1 \
             GROUP BY command_id ORDER BY command_id LIMIT $2) JOIN command ON command.command_id = holder \
             ORDER BY holder"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(behind)
            .bind(i64::from(COMMANDS))
            .fetch_all(&self.readers)
            .await
            .map_err(failed_to(DOING))?;
        let is_last = rows.len() < usize::from(COMMANDS);
        let (mut commands, mut last) = (Vec::new(), None);
        for row in &rows {
            let head = command_head(row)?;
            let held: i64 = column(row, "held")?;
            last = Some(head.command_id.to_string());
            if turn(&head.progress, held.unsigned_abs()) != Turn::Wait {
                commands.push(head.command_id);
            }
        }
        Ok((commands, last.filter(|_| !is_last)))
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
