//! Named groups of nodes: queries over tags.

use moorline_ssm::command::Target;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, column, column_millis, failed_to, millis_of};

/// A group; which nodes are in it is asked when it is used.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NodeGroupRow {
    pub(crate) name: String,
    /// A node must meet all of them.
    pub(crate) targets: Vec<Target>,
    pub(crate) updated_at: u64,
}

impl Store {
    /// Makes a group, or replaces the one of that name.
    pub(crate) async fn put_node_group(&self, group: &NodeGroupRow) -> Result<(), StoreError> {
        let targets = serde_json::to_string(&group.targets).expect("structures of texts can be written");
        sqlx::query(
            "INSERT INTO node_group (name, targets, updated_at) VALUES ($1, $2, $3) \
             ON CONFLICT (name) DO UPDATE SET targets = excluded.targets, updated_at = excluded.updated_at",
        )
        .bind(&group.name)
        .bind(targets)
        .bind(column_millis(group.updated_at))
        .execute(&self.writer)
        .await
        .map_err(failed_to("store a group of nodes"))?;
        Ok(())
    }

    pub(crate) async fn node_group(&self, name: &str) -> Result<Option<NodeGroupRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM node_group WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.readers)
            .await
            .map_err(failed_to("look a group of nodes up"))?;
        row.as_ref().map(group).transpose()
    }

    /// All groups, by name.
    pub(crate) async fn node_groups(&self) -> Result<Vec<NodeGroupRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM node_group ORDER BY name")
            .fetch_all(&self.readers)
            .await
            .map_err(failed_to("list groups of nodes"))?;
        rows.iter().map(group).collect()
    }

    /// Whether it was there.
    pub(crate) async fn delete_node_group(&self, name: &str) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM node_group WHERE name = $1")
            .bind(name)
            .execute(&self.writer)
            .await
            .map_err(failed_to("delete a group of nodes"))?;
        Ok(done.rows_affected() > 0)
    }
}

fn group(row: &SqliteRow) -> Result<NodeGroupRow, StoreError> {
    let name: String = column(row, "name")?;
    let targets: String = column(row, "targets")?;
    Ok(NodeGroupRow {
        targets: serde_json::from_str(&targets).map_err(|_| StoreError::Corrupt {
            table: "node_group",
            column: "targets",
            row: name.clone(),
        })?,
        updated_at: millis_of(column(row, "updated_at")?),
        name,
    })
}
