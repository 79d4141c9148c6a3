//! Documents: those of operators, and the built-in ones. A document has one or more versions.

mod attachment;
mod permission;
mod version;

#[cfg(test)]
mod tests;

pub(crate) use attachment::AttachmentRow;
pub(crate) use permission::ShareRow;
pub(crate) use version::{Update, UpdateRefusal, VersionChoice, VersionRefusal, VersionRow};

use moorline_protocol::document::{DocumentError, TextFormat};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    Store, StoreError, TaggedResource, Tags, column, column_millis, failed_to, millis_of,
    tag::{delete_all_tags, insert_tags, read_all_tags, read_tags},
};

/// Who owns the documents that come with the endpoint.
pub(crate) const BUILT_IN_OWNER: &str = "Moorline";

/// A document in one of its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DocumentRow {
    pub(crate) name: String,
    pub(crate) version: i64,
    /// Used where a request names no version.
    pub(crate) default_version: i64,
    /// The newest that there is.
    pub(crate) latest_version: i64,
    /// `Command`, `Package` or `Session`.
    pub(crate) document_type: String,
    /// `JSON` or `YAML`.
    pub(crate) document_format: String,
    pub(crate) schema_version: String,
    pub(crate) owner: String,
    pub(crate) display_name: Option<String>,
    pub(crate) version_name: Option<String>,
    pub(crate) target_type: Option<String>,
    pub(crate) description: Option<String>,
    /// As it was given.
    pub(crate) content: String,
    /// Lower-case hex.
    pub(crate) sha256: String,
    /// When this version was made.
    pub(crate) created_at: u64,
    pub(crate) tags: Tags,
}

impl DocumentRow {
    /// The content as a value, whatever it is written in.
    ///
    /// # Errors
    /// It cannot be read, so it was not stored by us.
    pub(crate) fn value(&self) -> Result<serde_json::Value, DocumentError> {
        TextFormat::from_name(&self.document_format)
            .unwrap_or(TextFormat::Json)
            .read(&self.content)
    }

    pub(crate) fn is_built_in(&self) -> bool {
        self.owner == BUILT_IN_OWNER
    }
}

/// A document to be stored, with its first version.
#[derive(Debug, Clone)]
pub(crate) struct NewDocument {
    pub(crate) name: String,
    pub(crate) document_type: String,
    pub(crate) owner: String,
    pub(crate) tags: Tags,
    pub(crate) version: NewVersion,
}

/// A version to be stored.
#[derive(Debug, Clone)]
pub(crate) struct NewVersion {
    /// `JSON` or `YAML`.
    pub(crate) document_format: String,
    pub(crate) schema_version: String,
    pub(crate) display_name: Option<String>,
    pub(crate) version_name: Option<String>,
    pub(crate) target_type: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) content: String,
    pub(crate) sha256: String,
    pub(crate) attachments: Vec<AttachmentRow>,
}

/// Every version of every document, with what they share.
const ROWS: &str = "SELECT d.name, d.document_type, d.owner, d.default_version, v.version, v.document_format, \
    v.schema_version, v.display_name, v.version_name, v.target_type, v.description, v.content, v.sha256, v.created_at, \
    (SELECT MAX(l.version) FROM document_version l WHERE l.name = d.name) AS latest_version \
    FROM document d JOIN document_version v ON v.name = d.name ";

impl Store {
    /// A document in its default version.
    pub(crate) async fn document(&self, name: &str) -> Result<Option<DocumentRow>, StoreError> {
        self.document_version(name, VersionChoice::Default).await
    }

    /// Every document in its default version, by name.
    pub(crate) async fn documents(&self) -> Result<Vec<DocumentRow>, StoreError> {
        let mut connection = self
            .readers
            .acquire()
            .await
            .map_err(failed_to("list documents"))?;
        let mut tags = read_all_tags(&mut connection, "Document").await?;
        let sql = format!("{ROWS} WHERE v.version = d.default_version ORDER BY d.name");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .fetch_all(&mut *connection)
            .await
            .map_err(failed_to("list documents"))?;
        rows.iter()
            .map(|row| {
                let name: String = column(row, "name")?;
                document(row, tags.remove(&name).unwrap_or_default())
            })
            .collect()
    }

    /// How many documents operators have.
    pub(crate) async fn operator_document_count(&self) -> Result<i64, StoreError> {
        sqlx::query_scalar("SELECT COUNT(*) FROM document WHERE owner <> $1")
            .bind(BUILT_IN_OWNER)
            .fetch_one(&self.readers)
            .await
            .map_err(failed_to("count documents"))
    }

    /// Stores a document. `false`: the name is taken. A built-in document gives way, if `over_built_in`.
    pub(crate) async fn insert_document(
        &self,
        new: &NewDocument,
        over_built_in: bool,
        now: u64,
    ) -> Result<bool, StoreError> {
        let mut tx = self.writer.begin().await.map_err(failed_to("store a document"))?;
        if let Some(present) = version::find(&mut tx, &new.name, VersionChoice::Default).await? {
            if !(over_built_in && present.is_built_in()) {
                return Ok(false);
            }
            delete(&mut tx, &new.name).await?;
        }
        insert(&mut tx, new, now).await?;
        tx.commit().await.map_err(failed_to("store a document"))?;
        Ok(true)
    }

    /// Brings the built-in documents up to date; a document of an operator with the same name stays.
    pub(crate) async fn seed_documents(&self, built_in: &[NewDocument], now: u64) -> Result<(), StoreError> {
        let mut tx = self
            .writer
            .begin()
            .await
            .map_err(failed_to("seed the documents"))?;
        for new in built_in {
            match version::find(&mut tx, &new.name, VersionChoice::Default).await? {
                Some(present) if !present.is_built_in() || present.sha256 == new.version.sha256 => continue,
                Some(_) => {
                    delete(&mut tx, &new.name).await?;
                }
                None => {}
            }
            insert(&mut tx, new, now).await?;
        }
        tx.commit().await.map_err(failed_to("seed the documents"))
    }

    /// Deletes a document with its versions and tags. `false`: it was not there.
    pub(crate) async fn delete_document(&self, name: &str) -> Result<bool, StoreError> {
        let mut tx = self
            .writer
            .begin()
            .await
            .map_err(failed_to("delete a document"))?;
        let was_there = delete(&mut tx, name).await?;
        tx.commit().await.map_err(failed_to("delete a document"))?;
        Ok(was_there)
    }
}

async fn insert(connection: &mut SqliteConnection, new: &NewDocument, now: u64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO document (name, document_type, owner, default_version, last_version) \
         VALUES ($1, $2, $3, 1, 1)",
    )
    .bind(&new.name)
    .bind(&new.document_type)
    .bind(&new.owner)
    .execute(&mut *connection)
    .await
    .map_err(failed_to("store a document"))?;
    version::insert(connection, &new.name, 1, &new.version, now).await?;
    insert_tags(connection, TaggedResource::Document(&new.name), &new.tags).await
}

/// Its versions go with it, by the schema.
async fn delete(connection: &mut SqliteConnection, name: &str) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM document WHERE name = $1")
        .bind(name)
        .execute(&mut *connection)
        .await
        .map_err(failed_to("delete a document"))?;
    delete_all_tags(connection, TaggedResource::Document(name)).await?;
    Ok(done.rows_affected() > 0)
}

fn document(row: &SqliteRow, tags: Tags) -> Result<DocumentRow, StoreError> {
    Ok(DocumentRow {
        name: column(row, "name")?,
        version: column(row, "version")?,
        default_version: column(row, "default_version")?,
        latest_version: column(row, "latest_version")?,
        document_type: column(row, "document_type")?,
        document_format: column(row, "document_format")?,
        schema_version: column(row, "schema_version")?,
        owner: column(row, "owner")?,
        display_name: column(row, "display_name")?,
        version_name: column(row, "version_name")?,
        target_type: column(row, "target_type")?,
        description: column(row, "description")?,
        content: column(row, "content")?,
        sha256: column(row, "sha256")?,
        created_at: millis_of(column(row, "created_at")?),
        tags,
    })
}
