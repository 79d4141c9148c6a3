//! Versions of documents: found by number or name, added, made the default, deleted.

use sqlx::SqliteConnection;

use super::{
    DocumentRow, NewVersion, ROWS, Store, StoreError, TaggedResource, attachment, column, column_millis,
    document, failed_to, millis_of, read_tags,
};

/// Which version of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VersionChoice<'a> {
    Default,
    Latest,
    Named(&'a str),
    Number(i64),
}

/// A version as the list of them has it: without the content, since there may be a thousand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VersionRow {
    pub(crate) version: i64,
    pub(crate) is_default: bool,
    pub(crate) document_format: String,
    pub(crate) display_name: Option<String>,
    pub(crate) version_name: Option<String>,
    pub(crate) created_at: u64,
}

/// A new version of a document, and what it asks of the document.
#[derive(Debug, Clone)]
pub(crate) struct Update<'a> {
    pub(crate) name: &'a str,
    /// What the content was checked as.
    pub(crate) document_type: &'a str,
    /// The caller saw this one, which must still be the latest.
    pub(crate) over: VersionChoice<'a>,
    pub(crate) version: NewVersion,
    /// Becomes the owner of a built-in document.
    pub(crate) owner: String,
    /// Most versions of a document.
    pub(crate) limit: i64,
}

/// Why a version was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpdateRefusal {
    NoSuchDocument,
    /// It is of another type than the content was checked as: it was deleted and made anew.
    OtherType,
    NotTheLatest,
    SameContent,
    NameTaken,
    TooMany,
}

/// Why a version was not made the default one, or not deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VersionRefusal {
    NoSuchVersion,
    IsDefault,
}

impl Store {
    /// A document in the version asked for. `None`: there is no such document, or no such version of it.
    pub(crate) async fn document_version(
        &self,
        name: &str,
        choice: VersionChoice<'_>,
    ) -> Result<Option<DocumentRow>, StoreError> {
        let mut connection = self
            .readers
            .acquire()
            .await
            .map_err(failed_to("look a document up"))?;
        find(&mut connection, name, choice).await
    }

    /// All versions of a document, the newest first. Empty: there is no such document.
    pub(crate) async fn document_versions(&self, name: &str) -> Result<Vec<VersionRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT v.version, v.version = d.default_version AS is_default, v.document_format, v.display_name, \
             v.version_name, v.created_at FROM document d JOIN document_version v ON v.name = d.name \
             WHERE d.name = $1 ORDER BY v.version DESC",
        )
        .bind(name)
        .fetch_all(&self.readers)
        .await
        .map_err(failed_to("list the versions of a document"))?;
        let version = |row| {
            Ok(VersionRow {
                version: column(row, "version")?,
                is_default: column(row, "is_default")?,
                document_format: column(row, "document_format")?,
                display_name: column(row, "display_name")?,
                version_name: column(row, "version_name")?,
                created_at: millis_of(column(row, "created_at")?),
            })
        };
        rows.iter().map(version).collect()
    }

    /// Adds a version behind the latest one, and returns it.
    pub(crate) async fn update_document(
        &self,
        update: &Update<'_>,
        now: u64,
    ) -> Result<Result<DocumentRow, UpdateRefusal>, StoreError> {
        let Update { name, version, .. } = update;
        let doing = "update a document";
        let mut tx = self.writer.begin().await.map_err(failed_to(doing))?;
        let Some(latest) = find(&mut tx, name, VersionChoice::Latest).await? else {
            return Ok(Err(UpdateRefusal::NoSuchDocument));
        };
        if latest.document_type != update.document_type {
            return Ok(Err(UpdateRefusal::OtherType));
        }
        let seen = find(&mut tx, name, update.over).await?;
        if seen.is_none_or(|seen| seen.version != latest.version) {
            return Ok(Err(UpdateRefusal::NotTheLatest));
        }
        if latest.sha256 == version.sha256 {
            return Ok(Err(UpdateRefusal::SameContent));
        }
        if let Some(taken) = version.version_name.as_deref()
            && find(&mut tx, name, VersionChoice::Named(taken)).await?.is_some()
        {
            return Ok(Err(UpdateRefusal::NameTaken));
        }
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM document_version WHERE name = $1")
            .bind(name)
            .fetch_one(&mut *tx)
            .await
            .map_err(failed_to("count the versions of a document"))?;
        if count >= update.limit {
            return Ok(Err(UpdateRefusal::TooMany));
        }
        let owner = if latest.is_built_in() {
            &update.owner
        } else {
            &latest.owner
        };
        let row = sqlx::query(
            "UPDATE document SET last_version = last_version + 1, owner = $2 WHERE name = $1 RETURNING last_version",
        )
        .bind(name)
        .bind(owner)
        .fetch_one(&mut *tx)
        .await
        .map_err(failed_to(doing))?;
        let number: i64 = column(&row, "last_version")?;
        insert(&mut tx, name, number, version, now).await?;
        let made = find(&mut tx, name, VersionChoice::Number(number)).await?;
        tx.commit().await.map_err(failed_to(doing))?;
        Ok(made.ok_or(UpdateRefusal::NoSuchDocument))
    }

    /// Makes a version the one that is used where a request names none, and returns it.
    pub(crate) async fn set_default_version(
        &self,
        name: &str,
        number: i64,
    ) -> Result<Result<DocumentRow, VersionRefusal>, StoreError> {
        let doing = "change a document's default version";
        let mut tx = self.writer.begin().await.map_err(failed_to(doing))?;
        let Some(row) = find(&mut tx, name, VersionChoice::Number(number)).await? else {
            return Ok(Err(VersionRefusal::NoSuchVersion));
        };
        sqlx::query("UPDATE document SET default_version = $2 WHERE name = $1")
            .bind(name)
            .bind(number)
            .execute(&mut *tx)
            .await
            .map_err(failed_to(doing))?;
        tx.commit().await.map_err(failed_to(doing))?;
        Ok(Ok(row))
    }

    /// Deletes one version; never the default one, so that a document always has it.
    pub(crate) async fn delete_version(
        &self,
        name: &str,
        choice: VersionChoice<'_>,
    ) -> Result<Result<(), VersionRefusal>, StoreError> {
        let doing = "delete a version of a document";
        let mut tx = self.writer.begin().await.map_err(failed_to(doing))?;
        let Some(row) = find(&mut tx, name, choice).await? else {
            return Ok(Err(VersionRefusal::NoSuchVersion));
        };
        if row.version == row.default_version {
            return Ok(Err(VersionRefusal::IsDefault));
        }
        sqlx::query("DELETE FROM document_version WHERE name = $1 AND version = $2")
            .bind(name)
            .bind(row.version)
            .execute(&mut *tx)
            .await
            .map_err(failed_to(doing))?;
        tx.commit().await.map_err(failed_to(doing))?;
        Ok(Ok(()))
    }
}

pub(super) async fn find(
    connection: &mut SqliteConnection,
    name: &str,
    choice: VersionChoice<'_>,
) -> Result<Option<DocumentRow>, StoreError> {
    let condition = match choice {
        VersionChoice::Default => "v.version = d.default_version",
        VersionChoice::Latest => {
            "v.version = (SELECT MAX(n.version) FROM document_version n WHERE n.name = d.name)"
        }
        VersionChoice::Named(_) => "v.version_name = $2",
        VersionChoice::Number(_) => "v.version = $2",
    };
    let sql = format!("{ROWS} WHERE d.name = $1 AND {condition}");
    let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(name);
    let query = match choice {
        VersionChoice::Default | VersionChoice::Latest => query,
        VersionChoice::Named(version_name) => query.bind(version_name),
        VersionChoice::Number(number) => query.bind(number),
    };
    let row = query
        .fetch_optional(&mut *connection)
        .await
        .map_err(failed_to("look a document up"))?;
    let Some(row) = row else { return Ok(None) };
    let tags = read_tags(connection, TaggedResource::Document(name)).await?;
    document(&row, tags).map(Some)
}

pub(super) async fn insert(
    connection: &mut SqliteConnection,
    name: &str,
    number: i64,
    new: &NewVersion,
    now: u64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO document_version (name, version, document_format, schema_version, display_name, version_name, \
         target_type, description, content, sha256, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(name)
    .bind(number)
    .bind(&new.document_format)
    .bind(&new.schema_version)
    .bind(&new.display_name)
    .bind(&new.version_name)
    .bind(&new.target_type)
    .bind(&new.description)
    .bind(&new.content)
    .bind(&new.sha256)
    .bind(column_millis(now))
    .execute(&mut *connection)
    .await
    .map_err(failed_to("store a version of a document"))?;
    attachment::insert(connection, name, number, &new.attachments).await
}
