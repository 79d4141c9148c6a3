//! Tags of managed nodes, documents, parameters, activations and operators.

use std::collections::BTreeMap;

use sqlx::SqliteConnection;

use super::{Store, StoreError, column, failed_to};

/// Key to value.
pub(crate) type Tags = BTreeMap<String, String>;

/// What can carry tags, with its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaggedResource<'a> {
    Activation(&'a str),
    Document(&'a str),
    Node(&'a str),
    /// By user name.
    Operator(&'a str),
    Parameter(&'a str),
}

impl<'a> TaggedResource<'a> {
    /// Type (the wire's word where it has one) and id, as the columns have them.
    pub(super) fn columns(self) -> (&'static str, &'a str) {
        match self {
            Self::Activation(id) => ("Activation", id),
            Self::Document(name) => ("Document", name),
            Self::Node(id) => ("ManagedInstance", id),
            Self::Operator(user_name) => ("Operator", user_name),
            Self::Parameter(name) => ("Parameter", name),
        }
    }

    /// The statement that tells whether the resource is there.
    fn existence(self) -> &'static str {
        match self {
            Self::Activation(_) => "SELECT 1 FROM activation WHERE activation_id = $1",
            Self::Document(_) => "SELECT 1 FROM document WHERE name = $1",
            Self::Node(_) => "SELECT 1 FROM node WHERE instance_id = $1",
            Self::Operator(_) => "SELECT 1 FROM access_key WHERE user_name = $1",
            Self::Parameter(_) => "SELECT 1 FROM parameter WHERE name = $1",
        }
    }
}

/// Why tags were not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TagRefusal {
    NoSuchResource,
    TooMany,
}

impl Store {
    /// All tags of a resource, or `None` if there is no such resource.
    pub(crate) async fn tags(&self, resource: TaggedResource<'_>) -> Result<Option<Tags>, StoreError> {
        let mut connection = self.readers.acquire().await.map_err(failed_to("read tags"))?;
        if !exists(&mut connection, resource).await? {
            return Ok(None);
        }
        read_tags(&mut connection, resource).await.map(Some)
    }

    /// Adds tags or changes their values, all or none.
    pub(crate) async fn add_tags(
        &self,
        resource: TaggedResource<'_>,
        tags: &Tags,
        limit: usize,
    ) -> Result<Result<(), TagRefusal>, StoreError> {
        let mut tx = self.writer.begin().await.map_err(failed_to("add tags"))?;
        if !exists(&mut tx, resource).await? {
            return Ok(Err(TagRefusal::NoSuchResource));
        }
        let mut after = read_tags(&mut tx, resource).await?;
        after.extend(tags.clone());
        if after.len() > limit {
            return Ok(Err(TagRefusal::TooMany));
        }
        insert_tags(&mut tx, resource, tags).await?;
        tx.commit().await.map_err(failed_to("add tags"))?;
        Ok(Ok(()))
    }

    /// Removes the tags that are there.
    pub(crate) async fn remove_tags(
        &self,
        resource: TaggedResource<'_>,
        keys: &[String],
    ) -> Result<Result<(), TagRefusal>, StoreError> {
        let mut tx = self.writer.begin().await.map_err(failed_to("remove tags"))?;
        if !exists(&mut tx, resource).await? {
            return Ok(Err(TagRefusal::NoSuchResource));
        }
        let (resource_type, id) = resource.columns();
        for key in keys {
            sqlx::query("DELETE FROM tag WHERE resource_type = $1 AND resource_id = $2 AND key = $3")
                .bind(resource_type)
                .bind(id)
                .bind(key)
                .execute(&mut *tx)
                .await
                .map_err(failed_to("remove a tag"))?;
        }
        tx.commit().await.map_err(failed_to("remove tags"))?;
        Ok(Ok(()))
    }
}

async fn exists(connection: &mut SqliteConnection, resource: TaggedResource<'_>) -> Result<bool, StoreError> {
    let (_, id) = resource.columns();
    let row = sqlx::query(resource.existence())
        .bind(id)
        .fetch_optional(connection)
        .await;
    Ok(row.map_err(failed_to("look for a tagged resource"))?.is_some())
}

pub(super) async fn read_tags(
    connection: &mut SqliteConnection,
    resource: TaggedResource<'_>,
) -> Result<Tags, StoreError> {
    let (resource_type, id) = resource.columns();
    let rows = sqlx::query("SELECT key, value FROM tag WHERE resource_type = $1 AND resource_id = $2")
        .bind(resource_type)
        .bind(id)
        .fetch_all(connection)
        .await
        .map_err(failed_to("read tags"))?;
    rows.iter()
        .map(|row| Ok((column(row, "key")?, column(row, "value")?)))
        .collect()
}

/// All tags of all resources of a type, by id. For lists, where a statement per row would be slow.
pub(super) async fn read_all_tags(
    connection: &mut SqliteConnection,
    resource_type: &'static str,
) -> Result<BTreeMap<String, Tags>, StoreError> {
    let rows = sqlx::query("SELECT resource_id, key, value FROM tag WHERE resource_type = $1")
        .bind(resource_type)
        .fetch_all(connection)
        .await
        .map_err(failed_to("read tags"))?;
    let mut all: BTreeMap<String, Tags> = BTreeMap::new();
    for row in &rows {
        all.entry(column(row, "resource_id")?)
            .or_default()
            .insert(column(row, "key")?, column(row, "value")?);
    }
    Ok(all)
}

pub(super) async fn insert_tags(
    connection: &mut SqliteConnection,
    resource: TaggedResource<'_>,
    tags: &Tags,
) -> Result<(), StoreError> {
    let (resource_type, id) = resource.columns();
    for (key, value) in tags {
        sqlx::query(
            "INSERT INTO tag (resource_type, resource_id, key, value) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (resource_type, resource_id, key) DO UPDATE SET value = excluded.value",
        )
        .bind(resource_type)
        .bind(id)
        .bind(key)
        .bind(value)
        .execute(&mut *connection)
        .await
        .map_err(failed_to("store a tag"))?;
    }
    Ok(())
}

pub(super) async fn delete_all_tags(
    connection: &mut SqliteConnection,
    resource: TaggedResource<'_>,
) -> Result<(), StoreError> {
    let (resource_type, id) = resource.columns();
    sqlx::query("DELETE FROM tag WHERE resource_type = $1 AND resource_id = $2")
        .bind(resource_type)
        .bind(id)
        .execute(connection)
        .await
        .map_err(failed_to("delete tags"))?;
    Ok(())
}
