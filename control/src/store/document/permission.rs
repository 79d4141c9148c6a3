//! With which accounts a document is shared.

use super::{Store, StoreError, column, failed_to};

/// An account that a document is shared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShareRow {
    /// Twelve digits, or `all`.
    pub(crate) account_id: String,
    /// `None`: the default version.
    pub(crate) version: Option<String>,
}

impl Store {
    /// The accounts that a document is shared with, in order.
    pub(crate) async fn document_shares(&self, name: &str) -> Result<Vec<ShareRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT account_id, version FROM document_permission WHERE name = $1 ORDER BY account_id",
        )
        .bind(name)
        .fetch_all(&self.readers)
        .await
        .map_err(failed_to("list the accounts of a document"))?;
        let share = |row| {
            Ok(ShareRow {
                account_id: column(row, "account_id")?,
                version: column(row, "version")?,
            })
        };
        rows.iter().map(share).collect()
    }

    /// Shares a document with accounts, and no longer with others; with at most `limit` in the end. `false`: they
    /// would be more, and nothing changes.
    pub(crate) async fn share_document(
        &self,
        name: &str,
        added: &[ShareRow],
        removed: &[String],
        limit: i64,
    ) -> Result<bool, StoreError> {
        let doing = "share a document";
        let mut tx = self.writer.begin().await.map_err(failed_to(doing))?;
        for account_id in removed {
            sqlx::query("DELETE FROM document_permission WHERE name = $1 AND account_id = $2")
                .bind(name)
                .bind(account_id)
                .execute(&mut *tx)
                .await
                .map_err(failed_to(doing))?;
        }
        for share in added {
            sqlx::query(
                "INSERT INTO document_permission (name, account_id, version) VALUES ($1, $2, $3) \
                 ON CONFLICT (name, account_id) DO UPDATE SET version = excluded.version",
            )
            .bind(name)
            .bind(&share.account_id)
            .bind(&share.version)
            .execute(&mut *tx)
            .await
            .map_err(failed_to(doing))?;
        }
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM document_permission WHERE name = $1")
            .bind(name)
            .fetch_one(&mut *tx)
            .await
            .map_err(failed_to(doing))?;
        if count > limit {
            return Ok(false);
        }
        tx.commit().await.map_err(failed_to(doing))?;
        Ok(true)
    }
}
