//! Ends of commands by their nodes' word, kept with the end itself until the audit log has them on the disk.

use moorline_protocol::types::{CommandId, InstanceId};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    super::{Store, StoreError, column, column_millis, failed_to, millis_of},
    InvocationRow,
};

/// Ends that are told together.
const ENDS: i64 = 200;

/// How a command ended on a node, which the audit log may not have yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UntoldEnd {
    pub(crate) command_id: CommandId,
    pub(crate) instance_id: InstanceId,
    /// Of its status.
    pub(crate) details: String,
    /// It was taken before: its line may stand in this segment of the audit log, or behind.
    pub(crate) segment: Option<u64>,
}

/// To be told, from the transaction on that ends the invocation.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    row: &InvocationRow,
    details: &str,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO untold_end (command_id, instance_id, details, ended_at) VALUES ($1, $2, $3, $4)")
        .bind(row.command_id.as_str())
        .bind(row.instance_id.as_str())
        .bind(details)
        .bind(row.invocation.ended_at.map_or(0, column_millis))
        .execute(connection)
        .await
        .map(drop)
        .map_err(failed_to("store an end for the audit log"))
}

impl Store {
    /// The oldest ends that are to be told, a bounded number. From now on their lines may stand in the audit log, in its
    /// last segment or behind, which is `segment`.
    pub(crate) async fn take_untold_ends(&self, segment: u64) -> Result<Vec<UntoldEnd>, StoreError> {
        const DOING: &str = "look for ends that the audit log does not have";
        let rows =
            sqlx::query("SELECT * FROM untold_end ORDER BY ended_at, command_id, instance_id LIMIT $1")
                .bind(ENDS)
                .fetch_all(&self.readers)
                .await
                .map_err(failed_to(DOING))?;
        let ends: Vec<UntoldEnd> = rows.iter().map(untold_end).collect::<Result<_, _>>()?;
        // a power cut may have taken the segment that was the last one
        let is_behind = |end: &&UntoldEnd| end.segment.is_none_or(|taken| taken > segment);
        let mut behind = ends.iter().filter(is_behind).peekable();
        if behind.peek().is_some() {
            let mut tx = self.writer.begin().await.map_err(failed_to(DOING))?;
            for end in behind {
                sqlx::query("UPDATE untold_end SET segment = $3 WHERE command_id = $1 AND instance_id = $2")
                    .bind(end.command_id.as_str())
                    .bind(end.instance_id.as_str())
                    .bind(column_millis(segment))
                    .execute(&mut *tx)
                    .await
                    .map_err(failed_to(DOING))?;
            }
            tx.commit().await.map_err(failed_to(DOING))?;
        }
        Ok(ends)
    }

    /// The audit log has these, and keeps them through a power cut.
    pub(crate) async fn ends_told(&self, told: &[UntoldEnd]) -> Result<(), StoreError> {
        const DOING: &str = "note what the audit log has";
        let mut tx = self.writer.begin().await.map_err(failed_to(DOING))?;
        for end in told {
            sqlx::query("DELETE FROM untold_end WHERE command_id = $1 AND instance_id = $2")
                .bind(end.command_id.as_str())
                .bind(end.instance_id.as_str())
                .execute(&mut *tx)
                .await
                .map_err(failed_to(DOING))?;
        }
        tx.commit().await.map_err(failed_to(DOING))
    }
}

fn untold_end(row: &SqliteRow) -> Result<UntoldEnd, StoreError> {
    let (command, node): (String, String) = (column(row, "command_id")?, column(row, "instance_id")?);
    let corrupt = |column, row: &str| StoreError::Corrupt {
        table: "untold_end",
        column,
        row: row.to_owned(),
    };
    Ok(UntoldEnd {
        command_id: command.parse().map_err(|_| corrupt("command_id", &command))?,
        instance_id: node.parse().map_err(|_| corrupt("instance_id", &node))?,
        details: column(row, "details")?,
        segment: column::<Option<i64>>(row, "segment")?.map(millis_of),
    })
}
