//! The end of a managed node, with everything that goes on on it.

use moorline_protocol::types::{InstanceId, SessionId};

use super::{
    Store, StoreError, TaggedResource, column, column_millis, command::end_invocations_of_node, failed_to,
    tag::delete_all_tags,
};

impl Store {
    /// Removes the node and its tags, ends its invocations and its open sessions: all of it or, when the process dies
    /// half-way, nothing. Returns the sessions, whose channels are to be closed; `None`: there is no such node.
    pub(crate) async fn deregister_node(
        &self,
        id: &InstanceId,
        reason: &str,
        now: u64,
    ) -> Result<Option<Vec<SessionId>>, StoreError> {
        const DOING: &str = "deregister a node";
        let mut tx = self.writer.begin().await.map_err(failed_to(DOING))?;
        let done = sqlx::query("DELETE FROM node WHERE instance_id = $1")
            .bind(id.as_str())
            .execute(&mut *tx)
            .await
            .map_err(failed_to(DOING))?;
        if done.rows_affected() == 0 {
            return Ok(None);
        }
        delete_all_tags(&mut tx, TaggedResource::Node(id.as_str())).await?;
        end_invocations_of_node(&mut tx, id, now).await?;
        let ended = sqlx::query(
            "UPDATE session SET status = 'Terminated', details = $2, ended_at = $3, is_end_untold = 1 \
             WHERE instance_id = $1 AND ended_at IS NULL RETURNING session_id",
        )
        .bind(id.as_str())
        .bind(reason)
        .bind(column_millis(now))
        .fetch_all(&mut *tx)
        .await
        .map_err(failed_to("end the sessions of a node"))?;
        tx.commit().await.map_err(failed_to(DOING))?;
        let mut sessions = Vec::with_capacity(ended.len());
        for row in &ended {
            sessions.extend(column::<String>(row, "session_id")?.parse::<SessionId>());
        }
        Ok(Some(sessions))
    }

    /// Whether the node is registered here.
    pub(crate) async fn is_registered(&self, id: &InstanceId) -> Result<bool, StoreError> {
        sqlx::query("SELECT 1 FROM node WHERE instance_id = $1")
            .bind(id.as_str())
            .fetch_optional(&self.readers)
            .await
            .map(|row| row.is_some())
            .map_err(failed_to("look a node up"))
    }
}
