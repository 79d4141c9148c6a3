//! Access keys of operators.

use sqlx::Row as _;

use super::{Store, StoreError, column, column_millis, failed_to};

/// An operator's access key; its secret is sealed with the endpoint's master key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccessKeyRow {
    pub(crate) access_key_id: String,
    pub(crate) user_name: String,
    pub(crate) sealed_secret: String,
}

impl Store {
    pub(crate) async fn access_key(&self, access_key_id: &str) -> Result<Option<AccessKeyRow>, StoreError> {
        let row = sqlx::query(
            "SELECT access_key_id, user_name, sealed_secret FROM access_key WHERE access_key_id = $1",
        )
        .bind(access_key_id)
        .fetch_optional(&self.readers)
        .await
        .map_err(failed_to("look an access key up"))?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(AccessKeyRow {
            access_key_id: column(&row, "access_key_id")?,
            user_name: column(&row, "user_name")?,
            sealed_secret: column(&row, "sealed_secret")?,
        }))
    }

    pub(crate) async fn insert_access_key(&self, key: &AccessKeyRow, now: u64) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO access_key (access_key_id, user_name, sealed_secret, created_at) VALUES ($1, $2, $3, $4)",
        )
        .bind(&key.access_key_id)
        .bind(&key.user_name)
        .bind(&key.sealed_secret)
        .bind(column_millis(now))
        .execute(&self.writer)
        .await
        .map_err(failed_to("store an access key"))?;
        Ok(())
    }

    /// The oldest access key: the administrator that the first start made.
    pub(crate) async fn first_access_key(&self) -> Result<Option<String>, StoreError> {
        let row =
            sqlx::query("SELECT access_key_id FROM access_key ORDER BY created_at, access_key_id LIMIT 1")
                .fetch_optional(&self.readers)
                .await
                .map_err(failed_to("look for the first access key"))?;
        row.map(|row| row.try_get(0).map_err(failed_to("read the first access key")))
            .transpose()
    }
}
