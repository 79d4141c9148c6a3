//! Which files belong to a version of a document.

use std::collections::BTreeSet;

use sqlx::SqliteConnection;

use super::{Store, StoreError, column, failed_to};

/// A file of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AttachmentRow {
    pub(crate) file_name: String,
    /// Lower-case hex.
    pub(crate) sha256: String,
    /// In bytes.
    pub(crate) size: i64,
}

impl Store {
    /// The files of a version, by name.
    pub(crate) async fn attachments(
        &self,
        name: &str,
        version: i64,
    ) -> Result<Vec<AttachmentRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT file_name, sha256, size FROM document_attachment WHERE name = $1 AND version = $2 \
             ORDER BY file_name",
        )
        .bind(name)
        .bind(version)
        .fetch_all(&self.readers)
        .await
        .map_err(failed_to("look up the attachments of a document"))?;
        let attachment = |row| {
            Ok(AttachmentRow {
                file_name: column(row, "file_name")?,
                sha256: column(row, "sha256")?,
                size: column(row, "size")?,
            })
        };
        rows.iter().map(attachment).collect()
    }

    /// What the files are called that some version has.
    pub(crate) async fn attached_files(&self) -> Result<BTreeSet<String>, StoreError> {
        let names: Vec<String> = sqlx::query_scalar("SELECT DISTINCT sha256 FROM document_attachment")
            .fetch_all(&self.readers)
            .await
            .map_err(failed_to("list the attachments of all documents"))?;
        Ok(names.into_iter().collect())
    }
}

pub(super) async fn insert(
    connection: &mut SqliteConnection,
    name: &str,
    version: i64,
    attachments: &[AttachmentRow],
) -> Result<(), StoreError> {
    for attachment in attachments {
        sqlx::query(
            "INSERT INTO document_attachment (name, version, file_name, sha256, size) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(name)
        .bind(version)
        .bind(&attachment.file_name)
        .bind(&attachment.sha256)
        .bind(attachment.size)
        .execute(&mut *connection)
        .await
        .map_err(failed_to("store an attachment of a document"))?;
    }
    Ok(())
}
