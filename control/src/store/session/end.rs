//! The end of sessions: who says so first, who still has to hear of it, and how long it is remembered.

use moorline_protocol::types::{InstanceId, SessionId};

use super::{
    super::{Store, StoreError, column_millis, failed_to},
    SessionRow, SessionStatus, session, session_id,
};

/// Old sessions that one look deletes.
const FORGET_ROWS: i64 = 50;
/// Ends that are told together.
const UNTOLD_ROWS: i64 = 200;

/// How the node says that its side ended.
#[derive(Debug, Clone)]
pub(crate) struct AgentEnd {
    pub(crate) status: SessionStatus,
    pub(crate) details: String,
    pub(crate) exit_code: Option<i32>,
}

impl Store {
    /// The end. `false`: it had ended before, or never was. What the node itself reported of its end holds.
    pub(crate) async fn end_session(
        &self,
        id: &SessionId,
        status: SessionStatus,
        details: &str,
        exit_code: Option<i32>,
        now: u64,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE session SET status = COALESCE(agent_status, $2), \
             details = CASE WHEN agent_status IS NULL THEN $3 ELSE details END, \
             exit_code = COALESCE(exit_code, $4), ended_at = $5, is_end_untold = 1 \
             WHERE session_id = $1 AND ended_at IS NULL",
        )
        .bind(id.as_str())
        .bind(status.as_str())
        .bind(details)
        .bind(exit_code)
        .bind(column_millis(now))
        .execute(&self.writer)
        .await
        .map_err(failed_to("end a session"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Sessions that have ended, and of which the audit log may not have that: the oldest ends, a bounded number.
    pub(crate) async fn untold_sessions(&self) -> Result<Vec<SessionRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM session WHERE is_end_untold = 1 ORDER BY ended_at, session_id LIMIT $1",
        )
        .bind(UNTOLD_ROWS)
        .fetch_all(&self.readers)
        .await
        .map_err(failed_to("look for ends that the audit log does not have"))?;
        rows.iter().map(session).collect()
    }

    /// The audit log has the ends of these, and keeps them through a power cut.
    pub(crate) async fn sessions_told(&self, told: &[&SessionId]) -> Result<(), StoreError> {
        const DOING: &str = "note what the audit log has";
        let mut tx = self.writer.begin().await.map_err(failed_to(DOING))?;
        for id in told {
            sqlx::query("UPDATE session SET is_end_untold = 0 WHERE session_id = $1")
                .bind(id.as_str())
                .execute(&mut *tx)
                .await
                .map_err(failed_to(DOING))?;
        }
        tx.commit().await.map_err(failed_to(DOING))
    }

    /// The node reported its side as over; its first report counts.
    pub(crate) async fn session_agent_done(
        &self,
        id: &SessionId,
        node: &InstanceId,
        end: &AgentEnd,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE session SET agent_done = 1, \
             agent_status = CASE WHEN ended_at IS NULL AND agent_done = 0 THEN $3 ELSE agent_status END, \
             details = CASE WHEN ended_at IS NULL AND agent_done = 0 THEN $4 ELSE details END, \
             exit_code = CASE WHEN ended_at IS NULL AND agent_done = 0 THEN $5 ELSE exit_code END \
             WHERE session_id = $1 AND instance_id = $2",
        )
        .bind(id.as_str())
        .bind(node.as_str())
        .bind(end.status.as_str())
        .bind(&end.details)
        .bind(end.exit_code)
        .execute(&self.writer)
        .await
        .map_err(failed_to("record that a node left its session"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Some sessions that ended before `cutoff`, the oldest first.
    pub(crate) async fn sessions_ended_before(&self, cutoff: u64) -> Result<Vec<SessionId>, StoreError> {
        let rows =
            sqlx::query("SELECT session_id FROM session WHERE ended_at < $1 ORDER BY ended_at LIMIT $2")
                .bind(column_millis(cutoff))
                .bind(FORGET_ROWS)
                .fetch_all(&self.readers)
                .await
                .map_err(failed_to("look for old sessions"))?;
        rows.iter().map(session_id).collect()
    }

    /// Deletes a session that has ended. Its transcript stays, with the time of that end.
    pub(crate) async fn forget_session(&self, id: &SessionId) -> Result<(), StoreError> {
        const DOING: &str = "delete an old session";
        let mut tx = self.writer.begin().await.map_err(failed_to(DOING))?;
        for sql in [
            "UPDATE transcript SET session_ended_at = (SELECT ended_at FROM session WHERE session_id = $1) \
             WHERE session_id = $1",
            "DELETE FROM session WHERE session_id = $1 AND ended_at IS NOT NULL",
        ] {
            sqlx::query(sql)
                .bind(id.as_str())
                .execute(&mut *tx)
                .await
                .map_err(failed_to(DOING))?;
        }
        tx.commit().await.map_err(failed_to(DOING))
    }

    /// The node was told often enough that this session has ended.
    pub(crate) async fn session_told(&self, id: &SessionId) -> Result<(), StoreError> {
        sqlx::query("UPDATE session SET agent_done = 1 WHERE session_id = $1 AND ended_at IS NOT NULL")
            .bind(id.as_str())
            .execute(&self.writer)
            .await
            .map_err(failed_to("record that a node knows the end of its session"))?;
        Ok(())
    }
}
