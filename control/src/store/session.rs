//! Sessions: one row each, from StartSession to the end and after.

mod end;

pub(crate) use end::AgentEnd;

use moorline_protocol::{
    document::SessionType,
    types::{InstanceId, SessionId},
};
use sqlx::{QueryBuilder, Sqlite, sqlite::SqliteRow};

use super::{Store, StoreError, column, column_millis, failed_to, millis_of};

/// How long after its end a session is still told to a node that comes back.
const TELL_ENDED_FOR_MILLIS: u64 = 24 * 60 * 60 * 1000;
/// Sessions of one node that are due at the same time, those to start first; others follow as these attach, or have
/// been told often enough.
const MOST_DUE: i64 = 256;
/// Where a session stands, as DescribeSessions shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionStatus {
    Connected,
    Connecting,
    Disconnected,
    Failed,
    Terminated,
    Terminating,
}

impl SessionStatus {
    const ALL: [Self; 6] = [
        Self::Connected,
        Self::Connecting,
        Self::Disconnected,
        Self::Failed,
        Self::Terminated,
        Self::Terminating,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "Connected",
            Self::Connecting => "Connecting",
            Self::Disconnected => "Disconnected",
            Self::Failed => "Failed",
            Self::Terminated => "Terminated",
            Self::Terminating => "Terminating",
        }
    }
}

/// A session.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SessionRow {
    pub(crate) session_id: SessionId,
    pub(crate) node: InstanceId,
    /// ARN of the operator who started it.
    pub(crate) owner: String,
    pub(crate) document_name: String,
    pub(crate) session_type: SessionType,
    pub(crate) reason: Option<String>,
    /// JSON of `StartSessionContent`.
    pub(crate) start_content: String,
    pub(crate) status: SessionStatus,
    pub(crate) details: String,
    pub(crate) exit_code: Option<i32>,
    pub(crate) client_id: Option<String>,
    pub(crate) agent_attached: bool,
    /// The node reported its side as over.
    pub(crate) agent_done: bool,
    pub(crate) idle_timeout_millis: u64,
    pub(crate) max_duration_millis: Option<u64>,
    pub(crate) started_at: u64,
    pub(crate) last_activity_at: u64,
    pub(crate) ended_at: Option<u64>,
}

/// A session to be stored, in status Connecting.
#[derive(Debug, Clone)]
pub(crate) struct NewSession {
    pub(crate) session_id: SessionId,
    pub(crate) node: InstanceId,
    pub(crate) owner: String,
    pub(crate) document_name: String,
    pub(crate) session_type: SessionType,
    pub(crate) reason: Option<String>,
    pub(crate) start_content: String,
    pub(crate) idle_timeout_millis: u64,
    pub(crate) max_duration_millis: Option<u64>,
}

/// Which sessions to list. Every condition that is given must hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct SessionQuery {
    pub(crate) ended: bool,
    pub(crate) node: Option<String>,
    pub(crate) owner: Option<String>,
    pub(crate) session_id: Option<String>,
    pub(crate) status: Option<String>,
    pub(crate) started_after: Option<u64>,
    pub(crate) started_before: Option<u64>,
    /// Continue behind this one: start and id of the last session of the page before.
    pub(crate) behind: Option<(u64, String)>,
    pub(crate) limit: u32,
}

/// What a node must be told about its sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SessionDue {
    /// Open it: JSON of `StartSessionContent`.
    Start { session_id: SessionId, content: String },
    /// It has ended here.
    End { session_id: SessionId },
}

impl Store {
    pub(crate) async fn insert_session(&self, new: &NewSession, now: u64) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO session (session_id, instance_id, owner, document_name, session_type, reason, \
             start_content, status, details, agent_attached, agent_done, idle_timeout_ms, max_duration_ms, \
             started_at, last_activity_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, 'Connecting', '', 0, 0, $8, $9, $10, $10)",
        )
        .bind(new.session_id.as_str())
        .bind(new.node.as_str())
        .bind(&new.owner)
        .bind(&new.document_name)
        .bind(new.session_type.as_str())
        .bind(&new.reason)
        .bind(&new.start_content)
        .bind(column_millis(new.idle_timeout_millis))
        .bind(new.max_duration_millis.map(column_millis))
        .bind(column_millis(now))
        .execute(&self.writer)
        .await
        .map_err(failed_to("store a session"))?;
        Ok(())
    }

    pub(crate) async fn session(&self, id: &SessionId) -> Result<Option<SessionRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM session WHERE session_id = $1")
            .bind(id.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(failed_to("look a session up"))?;
        row.as_ref().map(session).transpose()
    }

    /// Sessions that have not ended.
    pub(crate) async fn open_sessions(&self) -> Result<Vec<SessionRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM session WHERE ended_at IS NULL ORDER BY started_at")
            .fetch_all(&self.readers)
            .await
            .map_err(failed_to("list open sessions"))?;
        rows.iter().map(session).collect()
    }

    /// Sessions that have not ended, of nodes that are not registered any more.
    pub(crate) async fn orphaned_sessions(&self) -> Result<Vec<SessionRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM session WHERE ended_at IS NULL AND NOT EXISTS \
             (SELECT 1 FROM node WHERE node.instance_id = session.instance_id)",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(failed_to("list sessions of nodes that are gone"))?;
        rows.iter().map(session).collect()
    }

    /// The newest first.
    pub(crate) async fn sessions(&self, query: &SessionQuery) -> Result<Vec<SessionRow>, StoreError> {
        let ended = if query.ended { "IS NOT NULL" } else { "IS NULL" };
        let mut sql = QueryBuilder::<Sqlite>::new("SELECT * FROM session WHERE ended_at ");
        sql.push(ended);
        let texts = [
            (" AND instance_id = ", &query.node),
            (" AND owner = ", &query.owner),
            (" AND session_id = ", &query.session_id),
            (" AND status = ", &query.status),
        ];
        for (condition, value) in texts {
            if let Some(value) = value {
                sql.push(condition).push_bind(value.clone());
            }
        }
        if let Some(after) = query.started_after {
            sql.push(" AND started_at > ").push_bind(column_millis(after));
        }
        if let Some(before) = query.started_before {
            sql.push(" AND started_at < ").push_bind(column_millis(before));
        }
        if let Some((started_at, id)) = &query.behind {
            let started_at = column_millis(*started_at);
            sql.push(" AND (started_at < ").push_bind(started_at);
            sql.push(" OR (started_at = ").push_bind(started_at);
            sql.push(" AND session_id < ").push_bind(id.clone()).push("))");
        }
        sql.push(" ORDER BY started_at DESC, session_id DESC LIMIT ");
        sql.push_bind(i64::from(query.limit));
        let rows = sql.build().fetch_all(&self.readers).await;
        let rows = rows.map_err(failed_to("list sessions"))?;
        rows.iter().map(session).collect()
    }

    /// What this node must be told: sessions to open, in the order in which they were started, and ended ones that
    /// it has not reported as over.
    pub(crate) async fn sessions_due(
        &self,
        node: &InstanceId,
        now: u64,
    ) -> Result<Vec<SessionDue>, StoreError> {
        let rows = sqlx::query(
            "SELECT session_id, start_content, ended_at FROM session WHERE instance_id = $1 AND agent_done = 0 \
             AND ((ended_at IS NULL AND agent_attached = 0) OR ended_at > $2) \
             ORDER BY ended_at IS NOT NULL, started_at LIMIT $3",
        )
        .bind(node.as_str())
        .bind(column_millis(now.saturating_sub(TELL_ENDED_FOR_MILLIS)))
        .bind(MOST_DUE)
        .fetch_all(&self.readers)
        .await
        .map_err(failed_to("look for sessions of a node"))?;
        rows.iter()
            .map(|row| {
                let session_id = session_id(row)?;
                Ok(match column::<Option<i64>>(row, "ended_at")? {
                    Some(_) => SessionDue::End { session_id },
                    None => SessionDue::Start {
                        session_id,
                        content: column(row, "start_content")?,
                    },
                })
            })
            .collect()
    }

    /// The node opened its data channel.
    pub(crate) async fn session_agent_attached(&self, id: &SessionId) -> Result<(), StoreError> {
        sqlx::query("UPDATE session SET agent_attached = 1 WHERE session_id = $1 AND agent_attached = 0")
            .bind(id.as_str())
            .execute(&self.writer)
            .await
            .map_err(failed_to("record that a node joined its session"))?;
        Ok(())
    }

    /// A session that goes on: where it stands, and which process holds its client side.
    pub(crate) async fn session_moved(
        &self,
        id: &SessionId,
        status: SessionStatus,
        client_id: Option<&str>,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE session SET status = $2, client_id = COALESCE($3, client_id) \
             WHERE session_id = $1 AND ended_at IS NULL",
        )
        .bind(id.as_str())
        .bind(status.as_str())
        .bind(client_id)
        .execute(&self.writer)
        .await
        .map_err(failed_to("record where a session stands"))?;
        Ok(())
    }

    pub(crate) async fn session_used(&self, id: &SessionId, at: u64) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE session SET last_activity_at = $2 WHERE session_id = $1 AND last_activity_at < $2",
        )
        .bind(id.as_str())
        .bind(column_millis(at))
        .execute(&self.writer)
        .await
        .map_err(failed_to("record the use of a session"))?;
        Ok(())
    }
}

fn session_id(row: &SqliteRow) -> Result<SessionId, StoreError> {
    let id: String = column(row, "session_id")?;
    id.parse().map_err(|_| corrupt("session_id", id))
}

fn corrupt(column: &'static str, row: String) -> StoreError {
    StoreError::Corrupt {
        table: "session",
        column,
        row,
    }
}

fn session(row: &SqliteRow) -> Result<SessionRow, StoreError> {
    let session_id = session_id(row)?;
    let impossible = |column| corrupt(column, session_id.to_string());
    let node: String = column(row, "instance_id")?;
    let node = node.parse().map_err(|_| impossible("instance_id"))?;
    let name: String = column(row, "session_type")?;
    let session_type = session_type(&name).ok_or_else(|| impossible("session_type"))?;
    let name: String = column(row, "status")?;
    let status = SessionStatus::ALL
        .into_iter()
        .find(|known| known.as_str() == name);
    Ok(SessionRow {
        node,
        owner: column(row, "owner")?,
        document_name: column(row, "document_name")?,
        session_type,
        reason: column(row, "reason")?,
        start_content: column(row, "start_content")?,
        status: status.ok_or_else(|| impossible("status"))?,
        details: column(row, "details")?,
        exit_code: column(row, "exit_code")?,
        client_id: column(row, "client_id")?,
        agent_attached: column(row, "agent_attached")?,
        agent_done: column(row, "agent_done")?,
        idle_timeout_millis: millis_of(column(row, "idle_timeout_ms")?),
        max_duration_millis: column::<Option<i64>>(row, "max_duration_ms")?.map(millis_of),
        started_at: millis_of(column(row, "started_at")?),
        last_activity_at: millis_of(column(row, "last_activity_at")?),
        ended_at: column::<Option<i64>>(row, "ended_at")?.map(millis_of),
        session_id,
    })
}

fn session_type(name: &str) -> Option<SessionType> {
    [
        SessionType::StandardStream,
        SessionType::InteractiveCommands,
        SessionType::NonInteractiveCommands,
        SessionType::Port,
    ]
    .into_iter()
    .find(|known| known.as_str() == name)
}
