//! A new parameter, or a new version of one.

use moorline_ssm::parameter::{ParameterTier, ParameterType};
use sqlx::SqliteConnection;

use super::{
    super::tag::insert_tags, ParameterRow, Selected, Selector, Store, StoreError, TaggedResource, Tags,
    column_millis, delete, failed_to, find,
};
use crate::engine::parameter::Policy;

/// Versions that are kept of a parameter.
const MOST_VERSIONS: i64 = 100;

/// What is there when a parameter is put.
#[derive(Debug)]
pub(crate) struct PresentParameter {
    /// The latest version. `None`: the parameter is new.
    pub(crate) latest: Option<ParameterRow>,
    /// The texts of its policies.
    pub(crate) policies: Vec<String>,
    /// The version that has to go for another one, if there is one with a label that holds it.
    pub(crate) held_version: Option<i64>,
    /// Parameters of each tier.
    pub(crate) standard_count: i64,
    pub(crate) advanced_count: i64,
}

/// What is to be written.
pub(crate) struct NewParameterVersion {
    pub(crate) version: i64,
    pub(crate) parameter_type: ParameterType,
    /// Sealed, if it is secret.
    pub(crate) value: String,
    pub(crate) key_id: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) allowed_pattern: Option<String>,
    pub(crate) data_type: String,
    pub(crate) tier: ParameterTier,
    pub(crate) modified_by: String,
    pub(crate) policies: Vec<Policy>,
    pub(crate) expires_at: Option<u64>,
    /// Of a new parameter.
    pub(crate) tags: Tags,
}

impl Store {
    /// Looks at what is there, has `decide` say what is written, and writes it, all at once. What had expired is gone
    /// before.
    pub(crate) async fn put_parameter<E>(
        &self,
        name: &str,
        now: u64,
        decide: impl FnOnce(PresentParameter) -> Result<NewParameterVersion, E>,
    ) -> Result<Result<(i64, ParameterTier), E>, StoreError> {
        const DOING: &str = "store a parameter";
        let mut tx = self.writer.begin().await.map_err(failed_to(DOING))?;
        let present = present(&mut tx, name, now).await?;
        let new = match decide(present) {
            Ok(new) => new,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if new.version == 1 {
            delete(&mut tx, name).await?;
        }
        write(&mut tx, name, &new, now).await?;
        tx.commit().await.map_err(failed_to(DOING))?;
        Ok(Ok((new.version, new.tier)))
    }
}

async fn present(tx: &mut SqliteConnection, name: &str, now: u64) -> Result<PresentParameter, StoreError> {
    const DOING: &str = "look at a parameter that is put";
    let latest = Selected {
        name: name.to_owned(),
        selector: Selector::Latest,
    };
    let latest = find(tx, &latest, now).await?;
    let gone = latest
        .as_ref()
        .map_or(0, |latest| latest.version + 1 - MOST_VERSIONS);
    let held_version =
        sqlx::query_scalar("SELECT MIN(version) FROM parameter_label WHERE name = $1 AND version <= $2")
            .bind(name)
            .bind(gone)
            .fetch_one(&mut *tx)
            .await
            .map_err(failed_to(DOING))?;
    let policies = match &latest {
        None => Vec::new(),
        Some(_) => {
            sqlx::query_scalar("SELECT policy_text FROM parameter_policy WHERE name = $1 ORDER BY position")
                .bind(name)
                .fetch_all(&mut *tx)
                .await
                .map_err(failed_to(DOING))?
        }
    };
    let mut counts = [0, 0];
    for (count, tier) in counts
        .iter_mut()
        .zip([ParameterTier::Standard, ParameterTier::Advanced])
    {
        *count = sqlx::query_scalar("SELECT COUNT(*) FROM parameter WHERE tier = $1")
            .bind(tier.as_str())
            .fetch_one(&mut *tx)
            .await
            .map_err(failed_to(DOING))?;
    }
    let [standard_count, advanced_count] = counts;
    Ok(PresentParameter {
        latest,
        policies,
        held_version,
        standard_count,
        advanced_count,
    })
}

async fn write(
    tx: &mut SqliteConnection,
    name: &str,
    new: &NewParameterVersion,
    now: u64,
) -> Result<(), StoreError> {
    const DOING: &str = "store a parameter";
    sqlx::query(
        "INSERT INTO parameter (name, parameter_type, tier, latest_version, expires_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (name) DO UPDATE SET tier = excluded.tier, latest_version = excluded.latest_version, \
         expires_at = excluded.expires_at",
    )
    .bind(name)
    .bind(new.parameter_type.as_str())
    .bind(new.tier.as_str())
    .bind(new.version)
    .bind(new.expires_at.map(column_millis))
    .execute(&mut *tx)
    .await
    .map_err(failed_to(DOING))?;
    sqlx::query(
        "INSERT INTO parameter_version (name, version, value, key_id, description, allowed_pattern, data_type, tier, \
         modified_at, modified_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(name)
    .bind(new.version)
    .bind(&new.value)
    .bind(&new.key_id)
    .bind(&new.description)
    .bind(&new.allowed_pattern)
    .bind(&new.data_type)
    .bind(new.tier.as_str())
    .bind(column_millis(now))
    .bind(&new.modified_by)
    .execute(&mut *tx)
    .await
    .map_err(failed_to(DOING))?;
    sqlx::query("DELETE FROM parameter_version WHERE name = $1 AND version <= $2")
        .bind(name)
        .bind(new.version - MOST_VERSIONS)
        .execute(&mut *tx)
        .await
        .map_err(failed_to("delete the oldest version of a parameter"))?;
    replace_policies(tx, name, &new.policies).await?;
    insert_tags(tx, TaggedResource::Parameter(name), &new.tags).await
}

async fn replace_policies(
    tx: &mut SqliteConnection,
    name: &str,
    policies: &[Policy],
) -> Result<(), StoreError> {
    const DOING: &str = "store the policies of a parameter";
    sqlx::query("DELETE FROM parameter_policy WHERE name = $1")
        .bind(name)
        .execute(&mut *tx)
        .await
        .map_err(failed_to(DOING))?;
    for (position, policy) in (0_i64..).zip(policies) {
        sqlx::query(
            "INSERT INTO parameter_policy (name, position, policy_type, policy_text, due_at) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(name)
        .bind(position)
        .bind(policy.kind.as_str())
        .bind(&policy.text)
        .bind(column_millis(policy.due_at))
        .execute(&mut *tx)
        .await
        .map_err(failed_to(DOING))?;
    }
    Ok(())
}
