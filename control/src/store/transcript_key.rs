//! Public keys of nodes: what their transcripts are verified with.

use moorline_protocol::{public_keys::PublicKey, types::InstanceId};
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, column, column_millis, failed_to};

/// More keys than a node has in its life: each registration anew brings one.
const MAX_KEYS_PER_NODE: i64 = 64;

/// A key and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TranscriptKeyRow {
    pub(crate) node: String,
    pub(crate) key: PublicKey,
}

impl Store {
    /// Adds a key to those of the node; one that is there already stays. False: the node has too many.
    pub(crate) async fn register_transcript_key(
        &self,
        node: &InstanceId,
        key: PublicKey,
        now: u64,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "INSERT INTO transcript_key (instance_id, key_id, public_key, registered_at) \
             SELECT $1, $2, $3, $4 \
             WHERE (SELECT count(*) FROM transcript_key WHERE instance_id = $1 AND key_id <> $2) < $5 \
             ON CONFLICT (instance_id, key_id) DO NOTHING",
        )
        .bind(node.as_str())
        .bind(key.id().to_string())
        .bind(key.0.to_vec())
        .bind(column_millis(now))
        .bind(MAX_KEYS_PER_NODE)
        .execute(&self.writer)
        .await
        .map_err(failed_to("register a key of a node"))?;
        Ok(done.rows_affected() == 1 || self.transcript_keys(node).await?.contains(&key))
    }

    /// All keys that the node ever had.
    pub(crate) async fn transcript_keys(&self, node: &InstanceId) -> Result<Vec<PublicKey>, StoreError> {
        let rows = sqlx::query(
            "SELECT instance_id, public_key FROM transcript_key WHERE instance_id = $1 ORDER BY registered_at",
        )
        .bind(node.as_str())
        .fetch_all(&self.readers)
        .await
        .map_err(failed_to("read the keys of a node"))?;
        rows.iter().map(|row| Ok(key(row)?.key)).collect()
    }

    /// The keys of all nodes, those that are gone included, in the order of nodes and ids, behind the given ones.
    pub(crate) async fn all_transcript_keys(
        &self,
        behind: Option<(&str, &str)>,
        limit: u32,
    ) -> Result<Vec<TranscriptKeyRow>, StoreError> {
        let (node, key_id) = behind.unwrap_or_default();
        let rows = sqlx::query(
            "SELECT instance_id, public_key FROM transcript_key WHERE (instance_id, key_id) > ($1, $2) \
             ORDER BY instance_id, key_id LIMIT $3",
        )
        .bind(node)
        .bind(key_id)
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await
        .map_err(failed_to("read the keys of nodes"))?;
        rows.iter().map(key).collect()
    }
}

fn key(row: &SqliteRow) -> Result<TranscriptKeyRow, StoreError> {
    let node: String = column(row, "instance_id")?;
    let bytes: Vec<u8> = column(row, "public_key")?;
    match bytes.try_into() {
        Ok(bytes) => Ok(TranscriptKeyRow {
            node,
            key: PublicKey(bytes),
        }),
        Err(_) => Err(StoreError::Corrupt {
            table: "transcript_key",
            column: "public_key",
            row: node,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{TestApp, node_id};

    #[tokio::test]
    async fn a_nodes_keys_are_kept_and_their_number_is_bounded() {
        let test = TestApp::new().await;
        let store = &test.app.store;
        let node = node_id(0);
        for index in 0..64 {
            let key = PublicKey([index; 32]);
            for _ in 0..2 {
                assert!(
                    store
                        .register_transcript_key(&node, key, u64::from(index))
                        .await
                        .unwrap()
                );
            }
        }
        assert!(
            !store
                .register_transcript_key(&node, PublicKey([64; 32]), 99)
                .await
                .unwrap()
        );
        assert!(
            store
                .register_transcript_key(&node, PublicKey([3; 32]), 99)
                .await
                .unwrap()
        );
        assert!(
            store
                .register_transcript_key(&node_id(1), PublicKey([3; 32]), 99)
                .await
                .unwrap()
        );
        assert_eq!(store.transcript_keys(&node).await.unwrap().len(), 64);
        assert_eq!(store.all_transcript_keys(None, 100).await.unwrap().len(), 65);
    }
}
