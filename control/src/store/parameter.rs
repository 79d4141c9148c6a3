//! Parameter Store: parameters, their versions, labels and policies.

mod label;
mod policy;
mod put;

pub(crate) use label::{Labelling, Unlabelled};
pub(crate) use policy::PolicyRow;
pub(crate) use put::{NewParameterVersion, PresentParameter};

use moorline_protocol::types::InstanceId;
use moorline_ssm::parameter::{ParameterTier, ParameterType};
use sqlx::{AssertSqlSafe, SqliteConnection, sqlite::SqliteRow};

use super::{
    Store, StoreError, TaggedResource, Tags, column, column_millis, failed_to, millis_of,
    tag::delete_all_tags,
};
use crate::engine::parameter::{Selected, Selector};

/// A parameter in one of its versions. Its value may be secret even where it is not sealed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ParameterRow {
    pub(crate) name: String,
    pub(crate) version: i64,
    pub(crate) parameter_type: ParameterType,
    /// Of a SecureString: sealed, base64.
    pub(crate) value: String,
    pub(crate) key_id: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) allowed_pattern: Option<String>,
    pub(crate) data_type: String,
    /// Of this version.
    pub(crate) tier: ParameterTier,
    pub(crate) modified_at: u64,
    pub(crate) modified_by: String,
}

impl std::fmt::Debug for ParameterRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ParameterRow({} version {})", self.name, self.version)
    }
}

/// Versions with what the parameter adds; an expired parameter (its time is bound as `$1`) is not there.
const ROWS: &str = "SELECT p.name, v.version, p.parameter_type, v.value, v.key_id, v.description, v.allowed_pattern, \
    v.data_type, v.tier, v.modified_at, v.modified_by \
    FROM parameter p JOIN parameter_version v ON v.name = p.name \
    WHERE (p.expires_at IS NULL OR p.expires_at > $1)";

/// Which parameters a page of a list is made of, by name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ParameterScan<'a> {
    /// Begins with this.
    pub(crate) prefix: &'a str,
    /// Behind this name.
    pub(crate) after: &'a str,
    /// At most so many.
    pub(crate) limit: i64,
}

impl Store {
    /// A parameter in the version asked for. `None`: there is no such parameter, or no such version of it.
    pub(crate) async fn parameter(
        &self,
        selected: &Selected,
        now: u64,
    ) -> Result<Option<ParameterRow>, StoreError> {
        let mut connection = self
            .readers
            .acquire()
            .await
            .map_err(failed_to("look a parameter up"))?;
        find(&mut connection, selected, now).await
    }

    /// Parameters in their latest version, by name.
    pub(crate) async fn parameters(
        &self,
        scan: ParameterScan<'_>,
        now: u64,
    ) -> Result<Vec<ParameterRow>, StoreError> {
        let sql = format!(
            "{ROWS} AND v.version = p.latest_version AND p.name > $2 AND substr(p.name, 1, $3) = $4 \
             ORDER BY p.name LIMIT $5"
        );
        let length = i64::try_from(scan.prefix.chars().count()).unwrap_or(i64::MAX);
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(column_millis(now))
            // nothing with the prefix stands before the prefix itself
            .bind(scan.after.max(before(scan.prefix)))
            .bind(length)
            .bind(scan.prefix)
            .bind(scan.limit)
            .fetch_all(&self.readers)
            .await
            .map_err(failed_to("list parameters"))?;
        rows.iter().map(parameter).collect()
    }

    /// Versions of a parameter behind one of them, oldest first.
    pub(crate) async fn parameter_versions(
        &self,
        name: &str,
        after: i64,
        limit: i64,
        now: u64,
    ) -> Result<Vec<ParameterRow>, StoreError> {
        let sql = format!("{ROWS} AND p.name = $2 AND v.version > $3 ORDER BY v.version LIMIT $4");
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(column_millis(now))
            .bind(name)
            .bind(after)
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .map_err(failed_to("list the versions of a parameter"))?;
        rows.iter().map(parameter).collect()
    }

    /// Deletes a parameter with everything of it. `false`: it was not there, or had expired.
    pub(crate) async fn delete_parameter(&self, name: &str, now: u64) -> Result<bool, StoreError> {
        let mut tx = self
            .writer
            .begin()
            .await
            .map_err(failed_to("delete a parameter"))?;
        let latest = Selected {
            name: name.to_owned(),
            selector: Selector::Latest,
        };
        let was_there = find(&mut tx, &latest, now).await?.is_some();
        delete(&mut tx, name).await?;
        tx.commit().await.map_err(failed_to("delete a parameter"))?;
        Ok(was_there)
    }

    /// What has expired, by name; a bounded number.
    pub(crate) async fn expired_parameters(&self, now: u64) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar(
            "SELECT name FROM parameter WHERE expires_at <= $1 ORDER BY expires_at, name LIMIT 100",
        )
        .bind(column_millis(now))
        .fetch_all(&self.readers)
        .await
        .map_err(failed_to("look for expired parameters"))
    }

    /// Deletes a parameter that has expired. `false`: it was written again meanwhile, or is gone.
    pub(crate) async fn delete_expired_parameter(&self, name: &str, now: u64) -> Result<bool, StoreError> {
        const DOING: &str = "delete an expired parameter";
        let mut tx = self.writer.begin().await.map_err(failed_to(DOING))?;
        let expired = sqlx::query("SELECT 1 FROM parameter WHERE name = $1 AND expires_at <= $2")
            .bind(name)
            .bind(column_millis(now))
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed_to(DOING))?;
        if expired.is_some() {
            delete(&mut tx, name).await?;
        }
        tx.commit().await.map_err(failed_to(DOING))?;
        Ok(expired.is_some())
    }

    /// Whether a command that has not ended on this node leaves it to the node to read the parameter, in this version.
    pub(crate) async fn is_parameter_of_open_command(
        &self,
        node: &InstanceId,
        selected: &Selected,
    ) -> Result<bool, StoreError> {
        let selector = selected.selector.text().unwrap_or_default();
        let row = sqlx::query(
            "SELECT 1 FROM command_parameter c JOIN invocation i ON i.command_id = c.command_id \
             WHERE c.name = $1 AND c.version = 0 AND i.instance_id = $2 AND i.ended_at IS NULL LIMIT 1",
        )
        .bind(format!("{}{selector}", selected.name))
        .bind(node.as_str())
        .fetch_optional(&self.readers)
        .await
        .map_err(failed_to("look for the command that names a parameter"))?;
        Ok(row.is_some())
    }
}

/// A text that stands before every name with this prefix, so that the look begins near it.
fn before(prefix: &str) -> &str {
    let mut characters = prefix.chars();
    characters.next_back();
    characters.as_str()
}

async fn find(
    connection: &mut SqliteConnection,
    selected: &Selected,
    now: u64,
) -> Result<Option<ParameterRow>, StoreError> {
    let which = match &selected.selector {
        Selector::Latest => "v.version = p.latest_version",
        Selector::Version(_) => "v.version = $3",
        Selector::Label(_) => {
            "v.version = (SELECT l.version FROM parameter_label l WHERE l.name = p.name AND l.label = $3)"
        }
    };
    let sql = format!("{ROWS} AND p.name = $2 AND {which}");
    let query = sqlx::query(AssertSqlSafe(sql))
        .bind(column_millis(now))
        .bind(&selected.name);
    let query = match &selected.selector {
        Selector::Latest => query,
        Selector::Version(version) => query.bind(version),
        Selector::Label(label) => query.bind(label),
    };
    let row = query
        .fetch_optional(connection)
        .await
        .map_err(failed_to("look a parameter up"))?;
    row.as_ref().map(parameter).transpose()
}

/// Its versions, labels and policies go with it, by the schema.
async fn delete(connection: &mut SqliteConnection, name: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM parameter WHERE name = $1")
        .bind(name)
        .execute(&mut *connection)
        .await
        .map_err(failed_to("delete a parameter"))?;
    delete_all_tags(connection, TaggedResource::Parameter(name)).await
}

fn parameter(row: &SqliteRow) -> Result<ParameterRow, StoreError> {
    let parameter_type: String = column(row, "parameter_type")?;
    let tier: String = column(row, "tier")?;
    Ok(ParameterRow {
        name: column(row, "name")?,
        version: column(row, "version")?,
        parameter_type: ParameterType::from(parameter_type.as_str()),
        value: column(row, "value")?,
        key_id: column(row, "key_id")?,
        description: column(row, "description")?,
        allowed_pattern: column(row, "allowed_pattern")?,
        data_type: column(row, "data_type")?,
        tier: ParameterTier::from(tier.as_str()),
        modified_at: millis_of(column(row, "modified_at")?),
        modified_by: column(row, "modified_by")?,
    })
}
