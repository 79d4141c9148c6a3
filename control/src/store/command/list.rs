//! Lists of commands and of invocations, newest first.

use std::collections::BTreeMap;

use moorline_protocol::types::{CommandId, InstanceId};
use sqlx::{QueryBuilder, Sqlite};

use super::{
    super::{Store, StoreError, column, column_millis, failed_to},
    CommandRow, InvocationRow, StepRow,
    row::{HEAD_COLUMNS, INVOCATION_COLUMNS, command, invocation},
    step_rows,
};
use crate::engine::command::FINAL_COMMAND_STATUSES;

/// Nodes that one statement asks for: well below the number of values that it may bind.
const LAST_RUN_NODES: usize = 500;

/// Filters that both lists know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ListFilters {
    pub(crate) command_id: Option<CommandId>,
    pub(crate) instance_id: Option<InstanceId>,
    pub(crate) invoked_after: Option<u64>,
    pub(crate) invoked_before: Option<u64>,
    /// One of these values of `Status`.
    pub(crate) statuses: Option<Vec<String>>,
    /// Ended or not.
    pub(crate) is_complete: Option<bool>,
    pub(crate) document_name: Option<String>,
}

/// A page of commands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CommandQuery {
    pub(crate) filters: ListFilters,
    /// Time and id of the last command of the page before.
    pub(crate) after: Option<(u64, String)>,
    pub(crate) limit: usize,
}

/// Where a page of invocations ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InvocationCursor {
    pub(crate) requested_at: u64,
    pub(crate) command_id: String,
    pub(crate) instance_id: String,
}

/// A page of invocations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InvocationQuery {
    pub(crate) filters: ListFilters,
    pub(crate) after: Option<InvocationCursor>,
    pub(crate) limit: usize,
}

impl Store {
    pub(crate) async fn list_commands(&self, query: &CommandQuery) -> Result<Vec<CommandRow>, StoreError> {
        let filters = &query.filters;
        let mut sql: QueryBuilder<Sqlite> = QueryBuilder::new(format!(
            "SELECT {HEAD_COLUMNS}, requested_at, requester, request FROM command WHERE 1 = 1"
        ));
        if let Some(id) = &filters.command_id {
            sql.push(" AND command.command_id = ").push_bind(id.as_str());
        }
        if let Some(node) = &filters.instance_id {
            sql.push(
                " AND EXISTS (SELECT 1 FROM invocation WHERE invocation.command_id = command.command_id \
                 AND instance_id = ",
            )
            .push_bind(node.as_str())
            .push(")");
        }
        push_filters(&mut sql, "command", filters);
        if let Some((requested_at, id)) = &query.after {
            sql.push(" AND (requested_at, command.command_id) < (")
                .push_bind(column_millis(*requested_at))
                .push(", ")
                .push_bind(id)
                .push(")");
        }
        sql.push(" ORDER BY requested_at DESC, command.command_id DESC LIMIT ")
            .push_bind(limit(query.limit));
        let rows = sql
            .build()
            .fetch_all(&self.readers)
            .await
            .map_err(failed_to("list commands"))?;
        rows.iter().map(command).collect()
    }

    /// Invocations with their commands; with the results of their steps, if asked for.
    pub(crate) async fn list_invocations(
        &self,
        query: &InvocationQuery,
        with_steps: bool,
    ) -> Result<Vec<(InvocationRow, CommandRow, Vec<StepRow>)>, StoreError> {
        const DOING: &str = "list invocations";
        let filters = &query.filters;
        let mut sql: QueryBuilder<Sqlite> = QueryBuilder::new(format!(
            "SELECT {HEAD_COLUMNS}, {INVOCATION_COLUMNS}, requester, request FROM invocation \
             JOIN command ON command.command_id = invocation.command_id WHERE 1 = 1"
        ));
        if let Some(id) = &filters.command_id {
            sql.push(" AND invocation.command_id = ").push_bind(id.as_str());
        }
        if let Some(node) = &filters.instance_id {
            sql.push(" AND invocation.instance_id = ")
                .push_bind(node.as_str());
        }
        push_filters(&mut sql, "invocation", filters);
        if let Some(after) = &query.after {
            let requested_at = column_millis(after.requested_at);
            sql.push(" AND (invocation.requested_at < ")
                .push_bind(requested_at)
                .push(" OR (invocation.requested_at = ")
                .push_bind(requested_at)
                .push(" AND (invocation.command_id < ")
                .push_bind(&after.command_id)
                .push(" OR (invocation.command_id = ")
                .push_bind(&after.command_id)
                .push(" AND instance_id > ")
                .push_bind(&after.instance_id)
                .push("))))");
        }
        sql.push(" ORDER BY invocation.requested_at DESC, invocation.command_id DESC, instance_id LIMIT ")
            .push_bind(limit(query.limit));
        // one snapshot, so that a final state is never shown without the output that came with it
        let mut tx = self.readers.begin().await.map_err(failed_to(DOING))?;
        let rows = sql.build().fetch_all(&mut *tx).await.map_err(failed_to(DOING))?;
        let mut listed = Vec::with_capacity(rows.len());
        for row in &rows {
            let invocation = invocation(row)?;
            let steps = if with_steps {
                step_rows(&mut tx, &invocation.command_id, &invocation.instance_id).await?
            } else {
                Vec::new()
            };
            listed.push((invocation, command(row)?, steps));
        }
        tx.commit().await.map_err(failed_to(DOING))?;
        Ok(listed)
    }

    /// The newest invocation of a document on each of these nodes.
    pub(crate) async fn last_runs(
        &self,
        document_name: &str,
        nodes: &[InstanceId],
    ) -> Result<BTreeMap<InstanceId, InvocationRow>, StoreError> {
        const DOING: &str = "look for the last runs of a document";
        let mut last_runs = BTreeMap::new();
        for chunk in nodes.chunks(LAST_RUN_NODES) {
            let mut sql: QueryBuilder<Sqlite> = QueryBuilder::new(format!(
                "SELECT {INVOCATION_COLUMNS} FROM invocation WHERE document_name = "
            ));
            sql.push_bind(document_name);
            sql.push(
                " AND requested_at = (SELECT MAX(other.requested_at) FROM invocation AS other \
                 WHERE other.instance_id = invocation.instance_id \
                 AND other.document_name = invocation.document_name) AND instance_id IN (",
            );
            let mut list = sql.separated(", ");
            for node in chunk {
                list.push_bind(node.as_str());
            }
            sql.push(") ORDER BY command_id");
            let rows = sql
                .build()
                .fetch_all(&self.readers)
                .await
                .map_err(failed_to(DOING))?;
            for row in &rows {
                let row = invocation(row)?;
                last_runs.insert(row.instance_id.clone(), row);
            }
        }
        Ok(last_runs)
    }

    /// The nodes of a command, ended or not.
    pub(crate) async fn nodes_of_command(&self, id: &CommandId) -> Result<Vec<InstanceId>, StoreError> {
        let rows =
            sqlx::query("SELECT instance_id FROM invocation WHERE command_id = $1 ORDER BY instance_id")
                .bind(id.as_str())
                .fetch_all(&self.readers)
                .await
                .map_err(failed_to("list the nodes of a command"))?;
        rows.iter()
            .map(|row| {
                let id: String = column(row, "instance_id")?;
                id.parse().map_err(|_| StoreError::Corrupt {
                    table: "invocation",
                    column: "instance_id",
                    row: id,
                })
            })
            .collect()
    }
}

/// What both lists filter by, on columns that both tables have.
fn push_filters(sql: &mut QueryBuilder<Sqlite>, table: &'static str, filters: &ListFilters) {
    if let Some(after) = filters.invoked_after {
        sql.push(format!(" AND {table}.requested_at > "))
            .push_bind(column_millis(after));
    }
    if let Some(before) = filters.invoked_before {
        sql.push(format!(" AND {table}.requested_at < "))
            .push_bind(column_millis(before));
    }
    if let Some(name) = &filters.document_name {
        sql.push(format!(" AND {table}.document_name = "))
            .push_bind(name.clone());
    }
    if let Some(statuses) = &filters.statuses {
        push_statuses(sql, table, statuses.iter().cloned());
    }
    if let Some(is_complete) = filters.is_complete {
        sql.push(if is_complete {
            " AND (1 = 1"
        } else {
            " AND NOT (1 = 1"
        });
        push_statuses(sql, table, FINAL_COMMAND_STATUSES.into_iter().map(str::to_owned));
        sql.push(")");
    }
}

fn push_statuses(
    sql: &mut QueryBuilder<Sqlite>,
    table: &'static str,
    statuses: impl Iterator<Item = String>,
) {
    sql.push(format!(" AND {table}.status IN ("));
    let mut list = sql.separated(", ");
    for status in statuses {
        list.push_bind(status);
    }
    sql.push(")");
}

fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
