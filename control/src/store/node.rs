//! Managed nodes.

mod search;

pub(crate) use search::{NodeColumn, NodeFilter, NodePosition};

use moorline_protocol::types::InstanceId;
use sqlx::sqlite::SqliteRow;

use super::{
    Store, StoreError, TaggedResource, Tags, column, column_millis, failed_to, millis_of,
    tag::{read_all_tags, read_tags},
};

/// A report that changes nothing is written down only when the last one is older than this: a fleet's pings would
/// otherwise be most of what the store writes.
const PING_RESOLUTION_MILLIS: u64 = 30 * 1000;

/// A registered node. A deregistered one has no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeRow {
    pub(crate) instance_id: InstanceId,
    pub(crate) activation_id: String,
    pub(crate) iam_role: String,
    pub(crate) name: Option<String>,
    pub(crate) fingerprint: String,
    /// Base64 of the DER SubjectPublicKeyInfo.
    pub(crate) public_key: String,
    /// Good until the node used its new key once.
    pub(crate) previous_public_key: Option<String>,
    /// Role credentials of an older generation are refused; raised when the node used a new key.
    pub(crate) credential_generation: i64,
    pub(crate) registered_at: u64,
    pub(crate) report: NodeReport,
    pub(crate) last_ping_at: Option<u64>,
    /// How often a second machine came with this registration, and when last.
    pub(crate) copied_key_count: i64,
    pub(crate) copied_key_seen_at: Option<u64>,
    pub(crate) fingerprint_mismatch_count: i64,
    pub(crate) fingerprint_mismatch_at: Option<u64>,
    pub(crate) tags: Tags,
}

/// What became of a key rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyRotation {
    Done,
    /// Another node has this key.
    KeyInUse,
    NoSuchNode,
}

/// What a node says about itself; a member that it leaves out keeps its value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NodeReport {
    pub(crate) agent_name: Option<String>,
    pub(crate) agent_status: Option<String>,
    pub(crate) agent_version: Option<String>,
    pub(crate) computer_name: Option<String>,
    pub(crate) ip_address: Option<String>,
    pub(crate) platform_name: Option<String>,
    pub(crate) platform_type: Option<String>,
    pub(crate) platform_version: Option<String>,
    pub(crate) connection_channel: Option<String>,
    /// What it says of its owner's policy; a stock agent says nothing.
    pub(crate) policy: Option<String>,
}

impl NodeReport {
    /// This report, with the gaps filled from an older one.
    fn over(self, older: &Self) -> Self {
        let pick = |new: Option<String>, old: &Option<String>| new.or_else(|| old.clone());
        Self {
            agent_name: pick(self.agent_name, &older.agent_name),
            agent_status: pick(self.agent_status, &older.agent_status),
            agent_version: pick(self.agent_version, &older.agent_version),
            computer_name: pick(self.computer_name, &older.computer_name),
            ip_address: pick(self.ip_address, &older.ip_address),
            platform_name: pick(self.platform_name, &older.platform_name),
            platform_type: pick(self.platform_type, &older.platform_type),
            platform_version: pick(self.platform_version, &older.platform_version),
            connection_channel: pick(self.connection_channel, &older.connection_channel),
            policy: pick(self.policy, &older.policy),
        }
    }
}

impl Store {
    pub(crate) async fn node(&self, id: &InstanceId) -> Result<Option<NodeRow>, StoreError> {
        let mut connection = self
            .readers
            .acquire()
            .await
            .map_err(failed_to("look a node up"))?;
        let row = sqlx::query("SELECT * FROM node WHERE instance_id = $1")
            .bind(id.as_str())
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed_to("look a node up"))?;
        let Some(row) = row else { return Ok(None) };
        let tags = read_tags(&mut connection, TaggedResource::Node(id.as_str())).await?;
        node(&row, tags).map(Some)
    }

    /// Every node, in the order of registration.
    pub(crate) async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        let mut connection = self.readers.acquire().await.map_err(failed_to("list nodes"))?;
        let mut tags = read_all_tags(&mut connection, "ManagedInstance").await?;
        let rows = sqlx::query("SELECT * FROM node ORDER BY registered_at, instance_id")
            .fetch_all(&mut *connection)
            .await
            .map_err(failed_to("list nodes"))?;
        rows.iter()
            .map(|row| {
                let id: String = column(row, "instance_id")?;
                node(row, tags.remove(&id).unwrap_or_default())
            })
            .collect()
    }

    /// Notes a ping and what it says. `false`: there is no such node.
    pub(crate) async fn record_report(
        &self,
        id: &InstanceId,
        report: NodeReport,
        now: u64,
    ) -> Result<bool, StoreError> {
        let Some(known) = self.node(id).await? else {
            return Ok(false);
        };
        let report = report.over(&known.report);
        let is_recent = known
            .last_ping_at
            .is_some_and(|last| now.saturating_sub(last) < PING_RESOLUTION_MILLIS);
        if is_recent && report == known.report {
            return Ok(true);
        }
        let done = sqlx::query(
            "UPDATE node SET agent_name = $2, agent_status = $3, agent_version = $4, computer_name = $5, \
             ip_address = $6, platform_name = $7, platform_type = $8, platform_version = $9, \
             connection_channel = $10, last_ping_at = $11, policy = $12 WHERE instance_id = $1",
        )
        .bind(id.as_str())
        .bind(report.agent_name)
        .bind(report.agent_status)
        .bind(report.agent_version)
        .bind(report.computer_name)
        .bind(report.ip_address)
        .bind(report.platform_name)
        .bind(report.platform_type)
        .bind(report.platform_version)
        .bind(report.connection_channel)
        .bind(column_millis(now))
        .bind(report.policy)
        .execute(&self.writer)
        .await
        .map_err(failed_to("record a node's report"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Takes a new key; the one that the node has proven stays good until the new one was seen. While a previous key
    /// is there, it is the proven one: seeing the current key would have ended it.
    pub(crate) async fn rotate_public_key(
        &self,
        id: &InstanceId,
        new_key: &str,
    ) -> Result<KeyRotation, StoreError> {
        let mut tx = self
            .writer
            .begin()
            .await
            .map_err(failed_to("rotate a node's key"))?;
        let taken = sqlx::query(
            "SELECT 1 FROM node WHERE instance_id <> $1 AND (public_key = $2 OR previous_public_key = $2)",
        )
        .bind(id.as_str())
        .bind(new_key)
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed_to("look for a node with the same key"))?;
        if taken.is_some() {
            return Ok(KeyRotation::KeyInUse);
        }
        let done = sqlx::query(
            "UPDATE node SET previous_public_key = NULLIF(COALESCE(previous_public_key, public_key), $2), \
             public_key = $2 WHERE instance_id = $1",
        )
        .bind(id.as_str())
        .bind(new_key)
        .execute(&mut *tx)
        .await
        .map_err(failed_to("rotate a node's key"))?;
        tx.commit().await.map_err(failed_to("rotate a node's key"))?;
        Ok(if done.rows_affected() > 0 {
            KeyRotation::Done
        } else {
            KeyRotation::NoSuchNode
        })
    }

    /// The node has used its new key: the old one is good no longer, and neither are role credentials that were given
    /// for it. One who copied the old key is out with that.
    pub(crate) async fn forget_previous_key(&self, id: &InstanceId) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE node SET previous_public_key = NULL, credential_generation = credential_generation + 1 \
             WHERE instance_id = $1 AND previous_public_key IS NOT NULL",
        )
        .bind(id.as_str())
        .execute(&self.writer)
        .await
        .map_err(failed_to("forget a node's previous key"))?;
        Ok(())
    }

    /// A second machine opened a channel with this node's registration.
    pub(crate) async fn record_copied_key(&self, id: &InstanceId, now: u64) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE node SET copied_key_count = copied_key_count + 1, copied_key_seen_at = $2 \
             WHERE instance_id = $1",
        )
        .bind(id.as_str())
        .bind(column_millis(now))
        .execute(&self.writer)
        .await
        .map_err(failed_to("record a copied key"))?;
        Ok(())
    }

    /// Someone asked for this node's credentials from a machine with another fingerprint.
    pub(crate) async fn record_fingerprint_mismatch(
        &self,
        id: &InstanceId,
        now: u64,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE node SET fingerprint_mismatch_count = fingerprint_mismatch_count + 1, \
             fingerprint_mismatch_at = $2 WHERE instance_id = $1",
        )
        .bind(id.as_str())
        .bind(column_millis(now))
        .execute(&self.writer)
        .await
        .map_err(failed_to("record a fingerprint mismatch"))?;
        Ok(())
    }
}

fn node(row: &SqliteRow, tags: Tags) -> Result<NodeRow, StoreError> {
    let id: String = column(row, "instance_id")?;
    let instance_id = id.parse().map_err(|_| StoreError::Corrupt {
        table: "node",
        column: "instance_id",
        row: id,
    })?;
    Ok(NodeRow {
        instance_id,
        activation_id: column(row, "activation_id")?,
        iam_role: column(row, "iam_role")?,
        name: column(row, "name")?,
        fingerprint: column(row, "fingerprint")?,
        public_key: column(row, "public_key")?,
        previous_public_key: column(row, "previous_public_key")?,
        credential_generation: column(row, "credential_generation")?,
        registered_at: millis_of(column(row, "registered_at")?),
        report: NodeReport {
            agent_name: column(row, "agent_name")?,
            agent_status: column(row, "agent_status")?,
            agent_version: column(row, "agent_version")?,
            computer_name: column(row, "computer_name")?,
            ip_address: column(row, "ip_address")?,
            platform_name: column(row, "platform_name")?,
            platform_type: column(row, "platform_type")?,
            platform_version: column(row, "platform_version")?,
            connection_channel: column(row, "connection_channel")?,
            policy: column(row, "policy")?,
        },
        last_ping_at: column::<Option<i64>>(row, "last_ping_at")?.map(millis_of),
        copied_key_count: column(row, "copied_key_count")?,
        copied_key_seen_at: column::<Option<i64>>(row, "copied_key_seen_at")?.map(millis_of),
        fingerprint_mismatch_count: column(row, "fingerprint_mismatch_count")?,
        fingerprint_mismatch_at: column::<Option<i64>>(row, "fingerprint_mismatch_at")?.map(millis_of),
        tags,
    })
}
