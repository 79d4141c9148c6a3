//! Output of commands on its way to a bucket: what is to be done, and how far it came.

use moorline_protocol::types::{CommandId, InstanceId};
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::{Store, StoreError, column, column_millis, failed_to, millis_of};

/// How an upload stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UploadState {
    Waiting,
    Done,
    Failed,
}

impl UploadState {
    const ALL: [Self; 3] = [Self::Waiting, Self::Done, Self::Failed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// An invocation that has ended and whose output is to be brought somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DueUpload {
    pub(crate) command_id: CommandId,
    pub(crate) instance_id: InstanceId,
    pub(crate) attempts: u32,
}

/// What is known of an invocation's upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutputUpload {
    pub(crate) state: UploadState,
    pub(crate) attempts: u32,
    /// When it is tried again.
    pub(crate) next_at: Option<u64>,
    pub(crate) note: String,
    pub(crate) objects: Vec<OutputObject>,
}

/// One stream of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutputObject {
    pub(crate) step: String,
    /// `stdout` or `stderr`.
    pub(crate) stream: String,
    pub(crate) key: String,
    /// Empty until it is whole.
    pub(crate) url: String,
    /// Of an upload in parts that is under way.
    pub(crate) upload_id: Option<String>,
    /// Entity tags of its parts.
    pub(crate) parts: Vec<String>,
}

/// Every invocation of the command has an upload from now on.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    command: &CommandId,
    now: u64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO output_upload (command_id, instance_id, state, next_at) \
         SELECT command_id, instance_id, 'waiting', $2 FROM invocation WHERE command_id = $1",
    )
    .bind(command.as_str())
    .bind(column_millis(now))
    .execute(connection)
    .await
    .map_err(failed_to("store what is to be uploaded"))?;
    Ok(())
}

impl Store {
    /// Those of which something can be done now, the longest due first.
    pub(crate) async fn due_uploads(&self, now: u64, limit: i64) -> Result<Vec<DueUpload>, StoreError> {
        let rows = sqlx::query(
            "SELECT u.command_id, u.instance_id, u.attempts FROM output_upload u \
             JOIN invocation i ON i.command_id = u.command_id AND i.instance_id = u.instance_id \
             WHERE u.next_at <= $1 AND i.stage = 'Ended' ORDER BY u.next_at LIMIT $2",
        )
        .bind(column_millis(now))
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(failed_to("look for output to upload"))?;
        rows.iter()
            .map(|row| {
                let command: String = column(row, "command_id")?;
                let instance: String = column(row, "instance_id")?;
                let corrupt = |column| StoreError::Corrupt {
                    table: "output_upload",
                    column,
                    row: format!("{command} {instance}"),
                };
                Ok(DueUpload {
                    command_id: command.parse().map_err(|_| corrupt("command_id"))?,
                    instance_id: instance.parse().map_err(|_| corrupt("instance_id"))?,
                    attempts: column::<u32>(row, "attempts")?,
                })
            })
            .collect()
    }

    /// What is known of the output of a command on a node; `None`: it was not to be uploaded.
    pub(crate) async fn output_upload(
        &self,
        command: &CommandId,
        node: &InstanceId,
    ) -> Result<Option<OutputUpload>, StoreError> {
        const DOING: &str = "look an upload up";
        // one snapshot, so that what is done has all its objects
        let mut tx = self.readers.begin().await.map_err(failed_to(DOING))?;
        let row = sqlx::query(
            "SELECT state, attempts, next_at, note FROM output_upload WHERE command_id = $1 AND instance_id = $2",
        )
        .bind(command.as_str())
        .bind(node.as_str())
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed_to(DOING))?;
        let Some(row) = row else { return Ok(None) };
        let objects = sqlx::query(
            "SELECT step, stream, object_key, url, upload_id, parts FROM output_object \
             WHERE command_id = $1 AND instance_id = $2",
        )
        .bind(command.as_str())
        .bind(node.as_str())
        .fetch_all(&mut *tx)
        .await
        .map_err(failed_to(DOING))?;
        tx.commit().await.map_err(failed_to(DOING))?;
        let state: String = column(&row, "state")?;
        let state = UploadState::ALL.into_iter().find(|one| one.as_str() == state);
        Ok(Some(OutputUpload {
            state: state.ok_or_else(|| StoreError::Corrupt {
                table: "output_upload",
                column: "state",
                row: format!("{command} {node}"),
            })?,
            attempts: column(&row, "attempts")?,
            next_at: column::<Option<i64>>(&row, "next_at")?.map(millis_of),
            note: column(&row, "note")?,
            objects: objects.iter().map(object).collect::<Result<_, _>>()?,
        }))
    }

    /// It goes on at `next_at`; `None`: it is over.
    pub(crate) async fn save_upload(
        &self,
        due: &DueUpload,
        (state, next_at): (UploadState, Option<u64>),
        note: &str,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE output_upload SET state = $3, attempts = $4, next_at = $5, note = $6 \
             WHERE command_id = $1 AND instance_id = $2",
        )
        .bind(due.command_id.as_str())
        .bind(due.instance_id.as_str())
        .bind(state.as_str())
        .bind(i64::from(due.attempts))
        .bind(next_at.map(column_millis))
        .bind(note)
        .execute(&self.writer)
        .await
        .map_err(failed_to("record how an upload stands"))?;
        Ok(())
    }

    /// How far an object came.
    pub(crate) async fn save_output_object(
        &self,
        due: &DueUpload,
        object: &OutputObject,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO output_object (command_id, instance_id, step, stream, object_key, url, upload_id, parts) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (command_id, instance_id, step, stream) DO UPDATE \
             SET object_key = excluded.object_key, url = excluded.url, upload_id = excluded.upload_id, \
             parts = excluded.parts",
        )
        .bind(due.command_id.as_str())
        .bind(due.instance_id.as_str())
        .bind(&object.step)
        .bind(&object.stream)
        .bind(&object.key)
        .bind(&object.url)
        .bind(&object.upload_id)
        .bind(serde_json::Value::from(object.parts.clone()).to_string())
        .execute(&self.writer)
        .await
        .map_err(failed_to("record how far an upload came"))?;
        Ok(())
    }
}

fn object(row: &SqliteRow) -> Result<OutputObject, StoreError> {
    let key: String = column(row, "object_key")?;
    let parts: String = column(row, "parts")?;
    Ok(OutputObject {
        step: column(row, "step")?,
        stream: column(row, "stream")?,
        url: column(row, "url")?,
        upload_id: column(row, "upload_id")?,
        parts: serde_json::from_str(&parts).map_err(|_| StoreError::Corrupt {
            table: "output_object",
            column: "parts",
            row: key.clone(),
        })?,
        key,
    })
}
