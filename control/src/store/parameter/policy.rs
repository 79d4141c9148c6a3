//! Policies of parameters, and what is due by them.

use super::{Store, StoreError, column, column_millis, failed_to};

/// A policy as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyRow {
    pub(crate) policy_type: String,
    pub(crate) policy_text: String,
    pub(crate) is_done: bool,
}

/// A notification that is to be given now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DuePolicy {
    pub(crate) name: String,
    pub(crate) policy_type: String,
    pub(crate) policy_text: String,
}

impl Store {
    /// The policies of a parameter, in the order given.
    pub(crate) async fn parameter_policies(&self, name: &str) -> Result<Vec<PolicyRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT policy_type, policy_text, is_done FROM parameter_policy WHERE name = $1 ORDER BY position",
        )
        .bind(name)
        .fetch_all(&self.readers)
        .await
        .map_err(failed_to("read the policies of a parameter"))?;
        rows.iter()
            .map(|row| {
                Ok(PolicyRow {
                    policy_type: column(row, "policy_type")?,
                    policy_text: column(row, "policy_text")?,
                    is_done: column::<i64>(row, "is_done")? != 0,
                })
            })
            .collect()
    }

    /// Takes the notifications that are due, each once, a bounded part at a time.
    pub(crate) async fn take_due_parameter_policies(&self, now: u64) -> Result<Vec<DuePolicy>, StoreError> {
        let rows = sqlx::query(
            "UPDATE parameter_policy SET is_done = 1 WHERE (name, position) IN (SELECT name, position \
             FROM parameter_policy WHERE is_done = 0 AND due_at <= $1 ORDER BY due_at LIMIT 100) \
             RETURNING name, policy_type, policy_text",
        )
        .bind(column_millis(now))
        .fetch_all(&self.writer)
        .await
        .map_err(failed_to("take the policies that are due"))?;
        rows.iter()
            .map(|row| {
                Ok(DuePolicy {
                    name: column(row, "name")?,
                    policy_type: column(row, "policy_type")?,
                    policy_text: column(row, "policy_text")?,
                })
            })
            .collect()
    }
}
