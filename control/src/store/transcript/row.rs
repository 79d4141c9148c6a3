//! What is known of each transcript beside its bytes. A row outlives its session, and as a tombstone the recording.

use std::collections::BTreeMap;

use moorline_protocol::types::{CommandId, InstanceId, TranscriptId};
use sqlx::{QueryBuilder, Sqlite, sqlite::SqliteRow};

use super::{
    super::{Store, StoreError, column, column_millis, failed_to, millis_of},
    Content, TranscriptState,
    at_rest::Packed,
};

/// Rows that one look at what is to be done gives.
const WORK_ROWS: i64 = 100;
/// Open recordings that a node is told of at once: more than it has workers.
const OPEN_ROWS: i64 = 1000;
/// Recordings that one look at their age deletes.
const EXPIRE_ROWS: i64 = 100;

/// Where a recording is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a file, as it came.
    File,
    /// Compressed, in a file.
    Packed,
    /// Compressed, in an object store.
    Store,
    /// It was deleted.
    Gone,
}

impl Place {
    const ALL: [Self; 4] = [Self::File, Self::Packed, Self::Store, Self::Gone];

    fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Packed => "packed",
            Self::Store => "store",
            Self::Gone => "gone",
        }
    }
}

/// Why nothing deletes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) by: String,
    pub(crate) at: u64,
    pub(crate) reason: Option<String>,
}

/// That it was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tombstone {
    /// An operator's ARN, or `retention`.
    pub(crate) by: String,
    pub(crate) at: u64,
    pub(crate) reason: Option<String>,
}

/// What is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) id: TranscriptId,
    pub(crate) node: InstanceId,
    /// Of a command; `None`: of a session.
    pub(crate) command: Option<CommandId>,
    pub(crate) owner: String,
    pub(crate) document_name: String,
}

/// A transcript in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TranscriptRow {
    pub(crate) id: TranscriptId,
    pub(crate) node: String,
    /// When its first bytes came, which may be behind the end of what they are of.
    pub(crate) started_at: u64,
    /// When it was closed.
    pub(crate) completed_at: Option<u64>,
    pub(crate) state: TranscriptState,
    pub(crate) owner: Option<String>,
    pub(crate) document_name: Option<String>,
    /// Of a command; `None`: of a session.
    pub(crate) command_id: Option<String>,
    /// When the session, or the command, ended; not before it was begun to be had.
    pub(crate) ended_at: Option<u64>,
    pub(crate) place: Place,
    /// Once it is packed.
    pub(crate) length: Option<u64>,
    pub(crate) sha256: Option<String>,
    pub(crate) hold: Option<Hold>,
    pub(crate) deleted: Option<Tombstone>,
}

/// Which transcripts to list.
#[derive(Debug, Clone, Default)]
pub(crate) struct TranscriptQuery {
    pub(crate) node: Option<String>,
    pub(crate) session_id: Option<String>,
    /// An ARN, or the last part of one.
    pub(crate) owner: Option<String>,
    pub(crate) document_name: Option<String>,
    pub(crate) command_id: Option<String>,
    /// Only those of commands, or only those of sessions; `None`: both.
    pub(crate) is_of_command: Option<bool>,
    /// Begun at this time or later.
    pub(crate) started_after: Option<u64>,
    /// Begun before this time.
    pub(crate) started_before: Option<u64>,
    pub(crate) state: Option<TranscriptState>,
    pub(crate) is_held: Option<bool>,
    /// Only tombstones, or only others; `None`: both.
    pub(crate) is_deleted: Option<bool>,
    /// Continue behind this one.
    pub(crate) behind: Option<(u64, String)>,
    pub(crate) limit: u32,
}

impl TranscriptQuery {
    /// Everything of one session.
    pub(crate) fn of(recording: &TranscriptId) -> Self {
        Self {
            session_id: Some(recording.to_string()),
            limit: 1,
            ..Self::default()
        }
    }

    fn push_conditions(&self, sql: &mut QueryBuilder<Sqlite>) {
        let texts = [
            (" AND t.instance_id = ", &self.node),
            (" AND t.session_id = ", &self.session_id),
            (" AND t.document_name = ", &self.document_name),
            (" AND t.command_id = ", &self.command_id),
        ];
        for (condition, value) in texts {
            if let Some(value) = value {
                sql.push(condition).push_bind(value.clone());
            }
        }
        if let Some(owner) = &self.owner {
            sql.push(" AND (t.owner = ").push_bind(owner.clone());
            // no LIKE: a name may have its wildcards
            sql.push(" OR substr(t.owner, -length(").push_bind(owner.clone());
            sql.push(") - 1) = '/' || ").push_bind(owner.clone()).push(")");
        }
        let times = [
            (" AND t.started_at >= ", self.started_after),
            (" AND t.started_at < ", self.started_before),
        ];
        for (condition, time) in times {
            if let Some(time) = time {
                sql.push(condition).push_bind(column_millis(time));
            }
        }
        if let Some(state) = self.state {
            sql.push(" AND t.chain = ").push_bind(state.as_str());
        }
        for (is_set, column) in [
            (self.is_held, "t.held_at"),
            (self.is_deleted, "t.deleted_at"),
            (self.is_of_command, "t.command_id"),
        ] {
            if let Some(is_set) = is_set {
                let test = if is_set { " IS NOT NULL" } else { " IS NULL" };
                sql.push(" AND ").push(column).push(test);
            }
        }
        if let Some((started_at, id)) = &self.behind {
            let started_at = column_millis(*started_at);
            sql.push(" AND (t.started_at < ").push_bind(started_at);
            sql.push(" OR (t.started_at = ").push_bind(started_at);
            sql.push(" AND t.session_id < ").push_bind(id.clone()).push("))");
        }
    }
}

impl Store {
    /// What a recording of this name is of; `None`: there is nothing of that name.
    pub(crate) async fn recorded(&self, id: &TranscriptId) -> Result<Option<Recorded>, StoreError> {
        let row = sqlx::query("SELECT instance_id, owner, document_name FROM session WHERE session_id = $1")
            .bind(id.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(failed_to("look up what is recorded"))?;
        if let Some(row) = row {
            return recorded(&row, id, None).map(Some);
        }
        let Some((command, node)) = id.command() else {
            return Ok(None);
        };
        let row = sqlx::query(
            "SELECT i.instance_id, c.requester AS owner, i.document_name FROM invocation i \
             JOIN command c ON c.command_id = i.command_id WHERE i.command_id = $1 AND i.instance_id = $2",
        )
        .bind(command.as_str())
        .bind(node.as_str())
        .fetch_optional(&self.readers)
        .await
        .map_err(failed_to("look up what is recorded"))?;
        row.map(|row| recorded(&row, id, Some(command))).transpose()
    }

    /// The first chunk of a recording has come.
    pub(crate) async fn transcript_started(&self, recorded: &Recorded, now: u64) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO transcript (session_id, instance_id, started_at, owner, document_name, command_id) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (session_id) DO NOTHING",
        )
        .bind(recorded.id.as_str())
        .bind(recorded.node.as_str())
        .bind(column_millis(now))
        .bind(&recorded.owner)
        .bind(&recorded.document_name)
        .bind(
            recorded
                .command
                .as_ref()
                .map(|command| command.as_str().to_owned()),
        )
        .execute(&self.writer)
        .await
        .map_err(failed_to("record a transcript"))?;
        Ok(())
    }

    /// Recordings that began, and of what ended, before `cutoff` and that nobody closed, by id behind `behind`, a bounded
    /// number. With the place to go on from: `None` is the begin.
    pub(crate) async fn transcripts_left_open(
        &self,
        cutoff: u64,
        behind: Option<&TranscriptId>,
    ) -> Result<(Vec<(InstanceId, TranscriptId)>, Option<TranscriptId>), StoreError> {
        let rows = sqlx::query(
            "SELECT t.session_id, t.instance_id FROM transcript t \
             JOIN session s ON s.session_id = t.session_id \
             WHERE t.completed_at IS NULL AND t.session_id > $2 AND t.started_at < $1 AND s.ended_at < $1 \
             UNION ALL SELECT t.session_id, t.instance_id FROM transcript t \
             JOIN invocation i ON i.command_id = t.command_id AND i.instance_id = t.instance_id \
             WHERE t.completed_at IS NULL AND t.session_id > $2 AND t.started_at < $1 AND i.ended_at < $1 \
             ORDER BY 1 LIMIT $3",
        )
        .bind(column_millis(cutoff))
        .bind(behind.map_or("", TranscriptId::as_str))
        .bind(WORK_ROWS)
        .fetch_all(&self.readers)
        .await
        .map_err(failed_to("look for transcripts that were left open"))?;
        let ids = |row: &SqliteRow| {
            let id = id(row)?;
            Ok((node(row, &id)?, id))
        };
        let open: Vec<_> = rows.iter().map(ids).collect::<Result<_, StoreError>>()?;
        let is_full = i64::try_from(open.len()).is_ok_and(|rows| rows >= WORK_ROWS);
        let next = open.last().filter(|_| is_full).map(|(_, id)| id.clone());
        Ok((open, next))
    }

    /// Recordings of this node that nobody closed, a bounded number of them, oldest first.
    pub(crate) async fn open_transcripts(&self, node: &InstanceId) -> Result<Vec<TranscriptId>, StoreError> {
        let rows = sqlx::query(
            "SELECT session_id FROM transcript WHERE instance_id = $1 AND completed_at IS NULL \
             ORDER BY started_at, session_id LIMIT $2",
        )
        .bind(node.as_str())
        .bind(OPEN_ROWS)
        .fetch_all(&self.readers)
        .await
        .map_err(failed_to("look for the open transcripts of a node"))?;
        rows.iter().map(id).collect()
    }

    /// Whether nothing is added any more.
    pub(crate) async fn transcript_is_closed(&self, recording: &TranscriptId) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM transcript WHERE session_id = $1 AND completed_at IS NOT NULL")
            .bind(recording.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(failed_to("look a transcript up"))?;
        Ok(row.is_some())
    }

    /// Nothing is added any more.
    pub(crate) async fn transcript_closed(
        &self,
        recording: &TranscriptId,
        state: TranscriptState,
        now: u64,
    ) -> Result<(), StoreError> {
        sqlx::query(
            // a command is forgotten before its recordings are
            "UPDATE transcript SET completed_at = $2, chain = $3, session_ended_at = CASE WHEN command_id IS NULL \
             THEN session_ended_at ELSE COALESCE((SELECT i.ended_at FROM invocation i \
             WHERE i.command_id = transcript.command_id AND i.instance_id = transcript.instance_id), $2) END \
             WHERE session_id = $1 AND completed_at IS NULL",
        )
        .bind(recording.as_str())
        .bind(column_millis(now))
        .bind(state.as_str())
        .execute(&self.writer)
        .await
        .map_err(failed_to("complete a transcript"))?;
        Ok(())
    }

    /// It is packed, and is this.
    pub(crate) async fn transcript_packed(
        &self,
        recording: &TranscriptId,
        packed: &Packed,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE transcript SET place = $2, length = $3, sha256 = $4, packed_bytes = $5 \
             WHERE session_id = $1 AND place = 'file'",
        )
        .bind(recording.as_str())
        .bind(Place::Packed.as_str())
        .bind(column_millis(packed.content.length))
        .bind(packed.content.hash.to_string())
        .bind(column_millis(packed.bytes))
        .execute(&self.writer)
        .await
        .map_err(failed_to("record that a transcript was packed"))?;
        Ok(())
    }

    /// What packed recordings take of this disk, by node.
    pub(crate) async fn packed_bytes(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        let rows = sqlx::query(
            "SELECT instance_id, CAST(COALESCE(SUM(packed_bytes), 0) AS BIGINT) AS bytes FROM transcript \
             WHERE place = 'packed' GROUP BY instance_id",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(failed_to("add up what transcripts take"))?;
        let bytes = |row| Ok((column(row, "instance_id")?, millis_of(column(row, "bytes")?)));
        rows.iter().map(bytes).collect()
    }

    /// Recordings that lie here as they came, each with its node.
    pub(crate) async fn unpacked_transcripts(&self) -> Result<Vec<(TranscriptId, String)>, StoreError> {
        let rows = sqlx::query("SELECT session_id, instance_id FROM transcript WHERE place = 'file'")
            .fetch_all(&self.readers)
            .await
            .map_err(failed_to("look for transcripts that are not packed"))?;
        let named = |row| Ok((id(row)?, column(row, "instance_id")?));
        rows.iter().map(named).collect()
    }

    /// It was moved.
    pub(crate) async fn transcript_moved(
        &self,
        recording: &TranscriptId,
        place: Place,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE transcript SET place = $2 WHERE session_id = $1")
            .bind(recording.as_str())
            .bind(place.as_str())
            .execute(&self.writer)
            .await
            .map_err(failed_to("record where a transcript is"))?;
        Ok(())
    }

    /// Those in this place that are to go on from it, by id behind `behind`: closed ones, or with `is_deleted` those
    /// that are to be removed from there.
    pub(crate) async fn transcripts_to_move(
        &self,
        place: Place,
        is_deleted: bool,
        behind: &str,
    ) -> Result<Vec<TranscriptId>, StoreError> {
        let sql = if is_deleted {
            "SELECT session_id FROM transcript WHERE place = $1 AND session_id > $2 AND deleted_at IS NOT NULL \
             ORDER BY session_id LIMIT $3"
        } else {
            "SELECT session_id FROM transcript WHERE place = $1 AND session_id > $2 AND deleted_at IS NULL \
             AND completed_at IS NOT NULL ORDER BY session_id LIMIT $3"
        };
        let rows = sqlx::query(sql)
            .bind(place.as_str())
            .bind(behind)
            .bind(WORK_ROWS)
            .fetch_all(&self.readers)
            .await
            .map_err(failed_to("look for transcripts at rest"))?;
        rows.iter().map(id).collect()
    }

    /// Somebody holds it, unless somebody does already. Who does now; `None`: it was deleted before, or never was.
    pub(crate) async fn hold_transcript(
        &self,
        recording: &TranscriptId,
        hold: &Hold,
    ) -> Result<Option<Hold>, StoreError> {
        let row = sqlx::query(
            "UPDATE transcript SET held_at = COALESCE(held_at, $2), \
             held_by = CASE WHEN held_at IS NULL THEN $3 ELSE held_by END, \
             hold_reason = CASE WHEN held_at IS NULL THEN $4 ELSE hold_reason END \
             WHERE session_id = $1 AND deleted_at IS NULL RETURNING held_at, held_by, hold_reason",
        )
        .bind(recording.as_str())
        .bind(column_millis(hold.at))
        .bind(&hold.by)
        .bind(&hold.reason)
        .fetch_optional(&self.writer)
        .await
        .map_err(failed_to("hold a transcript"))?;
        row.as_ref().map_or(Ok(None), held)
    }

    /// Nobody holds it any more. `false`: it was deleted before, or never was.
    pub(crate) async fn release_transcript(&self, recording: &TranscriptId) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE transcript SET held_at = NULL, held_by = NULL, hold_reason = NULL \
             WHERE session_id = $1 AND deleted_at IS NULL",
        )
        .bind(recording.as_str())
        .execute(&self.writer)
        .await
        .map_err(failed_to("release a transcript"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Leaves a tombstone of a recording that is packed, or is closed and is `content`, and that nobody holds. `false`: it
    /// is not so. What was lost is looked for once more: its disk may have been away.
    pub(crate) async fn delete_transcript(
        &self,
        recording: &TranscriptId,
        tombstone: &Tombstone,
        content: Option<&Content>,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE transcript SET deleted_at = $2, deleted_by = $3, delete_reason = $4, \
             length = COALESCE(length, $5), sha256 = COALESCE(sha256, $6), \
             place = CASE WHEN place IN ('file', 'gone') THEN 'packed' ELSE place END WHERE session_id = $1 \
             AND deleted_at IS NULL AND held_at IS NULL AND (place IN ('packed', 'store', 'gone') \
             OR (place = 'file' AND completed_at IS NOT NULL AND $6 IS NOT NULL))",
        )
        .bind(recording.as_str())
        .bind(column_millis(tombstone.at))
        .bind(&tombstone.by)
        .bind(&tombstone.reason)
        .bind(content.map(|content| column_millis(content.length)))
        .bind(content.map(|content| content.hash.to_string()))
        .execute(&self.writer)
        .await
        .map_err(failed_to("delete a transcript"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Those that were closed before `cutoff`, are packed or lost, and that nobody holds; a bounded number.
    pub(crate) async fn expired_transcripts(&self, cutoff: u64) -> Result<Vec<TranscriptId>, StoreError> {
        let rows = sqlx::query(
            "SELECT session_id FROM transcript WHERE completed_at < $1 AND deleted_at IS NULL AND held_at IS NULL \
             AND place IN ('packed', 'store', 'gone') ORDER BY completed_at LIMIT $2",
        )
        .bind(column_millis(cutoff))
        .bind(EXPIRE_ROWS)
        .fetch_all(&self.readers)
        .await
        .map_err(failed_to("look for old transcripts"))?;
        rows.iter().map(id).collect()
    }

    /// Tombstones from before `cutoff`.
    pub(crate) async fn forget_tombstones(&self, cutoff: u64) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM transcript WHERE place = 'gone' AND deleted_at < $1")
            .bind(column_millis(cutoff))
            .execute(&self.writer)
            .await
            .map_err(failed_to("delete old tombstones of transcripts"))?;
        Ok(())
    }

    /// What is known of the transcript of this session.
    pub(crate) async fn transcript(
        &self,
        recording: &TranscriptId,
    ) -> Result<Option<TranscriptRow>, StoreError> {
        Ok(self.transcripts(&TranscriptQuery::of(recording)).await?.pop())
    }

    /// The newest first.
    pub(crate) async fn transcripts(
        &self,
        query: &TranscriptQuery,
    ) -> Result<Vec<TranscriptRow>, StoreError> {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "SELECT t.*, COALESCE(s.ended_at, i.ended_at, t.session_ended_at) AS ended_at \
             FROM transcript t LEFT JOIN session s ON s.session_id = t.session_id \
             LEFT JOIN invocation i ON i.command_id = t.command_id AND i.instance_id = t.instance_id WHERE 1 = 1",
        );
        query.push_conditions(&mut sql);
        sql.push(" ORDER BY t.started_at DESC, t.session_id DESC LIMIT ");
        sql.push_bind(i64::from(query.limit));
        let rows = sql.build().fetch_all(&self.readers).await;
        rows.map_err(failed_to("list transcripts"))?
            .iter()
            .map(transcript)
            .collect()
    }
}

fn recorded(row: &SqliteRow, id: &TranscriptId, command: Option<CommandId>) -> Result<Recorded, StoreError> {
    Ok(Recorded {
        id: id.clone(),
        node: node(row, id)?,
        command,
        owner: column(row, "owner")?,
        document_name: column(row, "document_name")?,
    })
}

fn node(row: &SqliteRow, id: &TranscriptId) -> Result<InstanceId, StoreError> {
    let node: String = column(row, "instance_id")?;
    node.parse().map_err(|_| corrupt("instance_id", id.as_str()))
}

fn id(row: &SqliteRow) -> Result<TranscriptId, StoreError> {
    let id: String = column(row, "session_id")?;
    id.parse().map_err(|_| corrupt("session_id", &id))
}

fn held(row: &SqliteRow) -> Result<Option<Hold>, StoreError> {
    let Some(at) = column::<Option<i64>>(row, "held_at")? else {
        return Ok(None);
    };
    Ok(Some(Hold {
        at: millis_of(at),
        by: column::<Option<String>>(row, "held_by")?.unwrap_or_default(),
        reason: column(row, "hold_reason")?,
    }))
}

fn corrupt(column: &'static str, row: &str) -> StoreError {
    StoreError::Corrupt {
        table: "transcript",
        column,
        row: row.to_owned(),
    }
}

fn transcript(row: &SqliteRow) -> Result<TranscriptRow, StoreError> {
    let id = id(row)?;
    let millis = |name| Ok::<_, StoreError>(column::<Option<i64>>(row, name)?.map(millis_of));
    let (place, state): (String, String) = (column(row, "place")?, column(row, "chain")?);
    let place = Place::ALL.into_iter().find(|known| known.as_str() == place);
    let state = TranscriptState::ALL
        .into_iter()
        .find(|known| known.as_str() == state);
    let deleted = millis("deleted_at")?.map(|at| {
        Ok::<_, StoreError>(Tombstone {
            at,
            by: column::<Option<String>>(row, "deleted_by")?.unwrap_or_default(),
            reason: column(row, "delete_reason")?,
        })
    });
    let started_at = millis_of(column(row, "started_at")?);
    Ok(TranscriptRow {
        place: place.ok_or_else(|| corrupt("place", id.as_str()))?,
        state: state.ok_or_else(|| corrupt("chain", id.as_str()))?,
        id,
        node: column(row, "instance_id")?,
        started_at,
        completed_at: millis("completed_at")?,
        owner: column(row, "owner")?,
        document_name: column(row, "document_name")?,
        command_id: column(row, "command_id")?,
        ended_at: millis("ended_at")?.map(|ended_at| ended_at.max(started_at)),
        length: millis("length")?,
        sha256: column(row, "sha256")?,
        hold: held(row)?,
        deleted: deleted.transpose()?,
    })
}
