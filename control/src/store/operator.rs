//! Operators: the users that access keys belong to. They are there as long as they have a key.

use std::collections::BTreeMap;

use super::{Store, StoreError, Tags, column, failed_to, millis_of, tag::read_all_tags};

/// An operator. Nothing here is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OperatorRow {
    pub(crate) user_name: String,
    pub(crate) access_key_ids: Vec<String>,
    /// When the first access key was made.
    pub(crate) created_at: u64,
    pub(crate) tags: Tags,
}

impl Store {
    /// All operators, by name.
    pub(crate) async fn operators(&self) -> Result<Vec<OperatorRow>, StoreError> {
        let mut connection = self
            .readers
            .acquire()
            .await
            .map_err(failed_to("list operators"))?;
        let mut tags = read_all_tags(&mut connection, "Operator").await?;
        let rows = sqlx::query(
            "SELECT user_name, access_key_id, created_at FROM access_key ORDER BY created_at, access_key_id",
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(failed_to("list operators"))?;
        let mut operators: BTreeMap<String, OperatorRow> = BTreeMap::new();
        for row in &rows {
            let user_name: String = column(row, "user_name")?;
            let created_at = millis_of(column(row, "created_at")?);
            let operator = operators.entry(user_name.clone()).or_insert_with(|| OperatorRow {
                tags: tags.remove(&user_name).unwrap_or_default(),
                user_name,
                access_key_ids: Vec::new(),
                created_at,
            });
            operator.access_key_ids.push(column(row, "access_key_id")?);
        }
        Ok(operators.into_values().collect())
    }
}
