//! Hybrid activations, and the registration of a node with one.

use moorline_protocol::types::{ActivationId, InstanceId};
use sqlx::sqlite::SqliteRow;

use super::{
    Store, StoreError, TaggedResource, Tags, column, column_millis, failed_to, millis_of,
    tag::{delete_all_tags, insert_tags, read_all_tags, read_tags},
};

/// An activation as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ActivationRow {
    pub(crate) activation_id: String,
    pub(crate) iam_role: String,
    pub(crate) description: Option<String>,
    pub(crate) default_instance_name: Option<String>,
    pub(crate) registration_limit: i64,
    pub(crate) registrations_count: i64,
    pub(crate) created_at: u64,
    pub(crate) expires_at: u64,
    pub(crate) tags: Tags,
}

/// An activation to be stored.
#[derive(Debug, Clone)]
pub(crate) struct NewActivation {
    pub(crate) activation_id: ActivationId,
    pub(crate) code_hash: String,
    pub(crate) iam_role: String,
    pub(crate) description: Option<String>,
    pub(crate) default_instance_name: Option<String>,
    pub(crate) registration_limit: i64,
    pub(crate) expires_at: u64,
    pub(crate) tags: Tags,
}

/// A node that registers.
#[derive(Debug, Clone)]
pub(crate) struct NewNode {
    pub(crate) instance_id: InstanceId,
    pub(crate) fingerprint: String,
    pub(crate) public_key: String,
    pub(crate) registered_from: Option<String>,
}

/// Why a node was not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RegistrationRefusal {
    Expired,
    KeyInUse,
    LimitReached,
    /// No such activation, or another code: the caller learns no more.
    WrongCode,
}

impl Store {
    pub(crate) async fn insert_activation(&self, new: &NewActivation, now: u64) -> Result<(), StoreError> {
        let mut tx = self
            .writer
            .begin()
            .await
            .map_err(failed_to("store an activation"))?;
        sqlx::query(
            "INSERT INTO activation (activation_id, code_hash, iam_role, description, default_instance_name, \
             registration_limit, registrations_count, created_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $8)",
        )
        .bind(new.activation_id.as_str())
        .bind(&new.code_hash)
        .bind(&new.iam_role)
        .bind(&new.description)
        .bind(&new.default_instance_name)
        .bind(new.registration_limit)
        .bind(column_millis(now))
        .bind(column_millis(new.expires_at))
        .execute(&mut *tx)
        .await
        .map_err(failed_to("store an activation"))?;
        insert_tags(
            &mut tx,
            TaggedResource::Activation(new.activation_id.as_str()),
            &new.tags,
        )
        .await?;
        tx.commit().await.map_err(failed_to("store an activation"))
    }

    /// Every activation, in the order of creation.
    pub(crate) async fn activations(&self) -> Result<Vec<ActivationRow>, StoreError> {
        let mut connection = self
            .readers
            .acquire()
            .await
            .map_err(failed_to("list activations"))?;
        let mut tags = read_all_tags(&mut connection, "Activation").await?;
        let rows = sqlx::query("SELECT * FROM activation ORDER BY created_at, activation_id")
            .fetch_all(&mut *connection)
            .await
            .map_err(failed_to("list activations"))?;
        rows.iter()
            .map(|row| {
                let id: String = column(row, "activation_id")?;
                let tags = tags.remove(&id).unwrap_or_default();
                activation(row, id, tags)
            })
            .collect()
    }

    /// Whether it was there.
    pub(crate) async fn delete_activation(&self, id: &ActivationId) -> Result<bool, StoreError> {
        let mut tx = self
            .writer
            .begin()
            .await
            .map_err(failed_to("delete an activation"))?;
        let done = sqlx::query("DELETE FROM activation WHERE activation_id = $1")
            .bind(id.as_str())
            .execute(&mut *tx)
            .await
            .map_err(failed_to("delete an activation"))?;
        delete_all_tags(&mut tx, TaggedResource::Activation(id.as_str())).await?;
        tx.commit().await.map_err(failed_to("delete an activation"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Registers a node: the activation is counted and used in one step, so that two nodes that come at once cannot
    /// both take the last place. The code is checked before (`is_code` gets the stored hash), by a reader: whoever has
    /// none makes no writer wait.
    pub(crate) async fn register_node(
        &self,
        activation_id: &ActivationId,
        new: &NewNode,
        now: u64,
        is_code: impl FnOnce(&str) -> bool + Send,
    ) -> Result<Result<(), RegistrationRefusal>, StoreError> {
        let hash = sqlx::query("SELECT code_hash FROM activation WHERE activation_id = $1")
            .bind(activation_id.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(failed_to("look an activation up"))?;
        let hash = hash.map(|row| column::<String>(&row, "code_hash")).transpose()?;
        let Some(hash) = hash.filter(|hash| is_code(hash)) else {
            return Ok(Err(RegistrationRefusal::WrongCode));
        };
        let mut tx = self.writer.begin().await.map_err(failed_to("register a node"))?;
        // It may have been deleted meanwhile.
        let found = sqlx::query("SELECT * FROM activation WHERE activation_id = $1 AND code_hash = $2")
            .bind(activation_id.as_str())
            .bind(hash)
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed_to("look an activation up"))?;
        let Some(found) = found else {
            return Ok(Err(RegistrationRefusal::WrongCode));
        };
        let tagged = TaggedResource::Activation(activation_id.as_str());
        let tags = read_tags(&mut tx, tagged).await?;
        let activation = activation(&found, activation_id.as_str().to_owned(), tags)?;
        if now >= activation.expires_at {
            return Ok(Err(RegistrationRefusal::Expired));
        }
        if activation.registrations_count >= activation.registration_limit {
            return Ok(Err(RegistrationRefusal::LimitReached));
        }
        let same_key =
            sqlx::query("SELECT 1 FROM node WHERE public_key = $1 OR previous_public_key = $1 LIMIT 1")
                .bind(&new.public_key)
                .fetch_optional(&mut *tx)
                .await
                .map_err(failed_to("look for a node with the same key"))?;
        if same_key.is_some() {
            return Ok(Err(RegistrationRefusal::KeyInUse));
        }
        sqlx::query(
            "UPDATE activation SET registrations_count = registrations_count + 1 WHERE activation_id = $1",
        )
        .bind(activation_id.as_str())
        .execute(&mut *tx)
        .await
        .map_err(failed_to("count a registration"))?;
        sqlx::query(
            "INSERT INTO node (instance_id, activation_id, iam_role, name, fingerprint, public_key, \
             credential_generation, registered_at, registered_from, copied_key_count, fingerprint_mismatch_count) \
             VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $8, 0, 0)",
        )
        .bind(new.instance_id.as_str())
        .bind(activation_id.as_str())
        .bind(&activation.iam_role)
        .bind(&activation.default_instance_name)
        .bind(&new.fingerprint)
        .bind(&new.public_key)
        .bind(column_millis(now))
        .bind(&new.registered_from)
        .execute(&mut *tx)
        .await
        .map_err(failed_to("store a node"))?;
        insert_tags(
            &mut tx,
            TaggedResource::Node(new.instance_id.as_str()),
            &activation.tags,
        )
        .await?;
        tx.commit().await.map_err(failed_to("register a node"))?;
        Ok(Ok(()))
    }
}

fn activation(row: &SqliteRow, activation_id: String, tags: Tags) -> Result<ActivationRow, StoreError> {
    Ok(ActivationRow {
        activation_id,
        iam_role: column(row, "iam_role")?,
        description: column(row, "description")?,
        default_instance_name: column(row, "default_instance_name")?,
        registration_limit: column(row, "registration_limit")?,
        registrations_count: column(row, "registrations_count")?,
        created_at: millis_of(column(row, "created_at")?),
        expires_at: millis_of(column(row, "expires_at")?),
        tags,
    })
}
