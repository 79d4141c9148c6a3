//! Brings the output of commands to the bucket that they name: out of the recording of the command on a node, once it
//! is whole and the invocation has ended. The rows say what is to be done and how far it came, so that an endpoint that
//! is killed goes on where it was; an object has the same name and the same bytes however often it is brought.

mod sink;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::StreamExt as _;
use moorline_protocol::{
    error_chain,
    transcript::{OutputError, OutputPiece, OutputReader},
};
use tokio::time::timeout;

use self::sink::Sinks;
use crate::{
    app::App,
    engine::output_upload::{look_at, retry_at},
    store::{
        CommandRow, DueUpload, InvocationRow, OutputBucket, OutputStore, StoreError, TranscriptQuery,
        TranscriptRow, TranscriptState, UploadState,
    },
};

/// What is due by the time is found, and what was missed.
const LOOK: Duration = Duration::from_secs(1);
/// Uploads that one look takes.
const LOOK_ROWS: i64 = 100;
/// Uploads at a time; each holds two parts of an object at most, and a piece of the recording.
const AT_ONCE: usize = 4;
/// What is read of a recording at once.
const PIECE_BYTES: u64 = 512 * 1024;
/// A command that ended without an exit code may go on in another recording, after a reboot. That is waited for.
const NEXT_PART_MILLIS: u64 = 2 * 60 * 1000;
/// Recordings of one invocation: a document may ask for 15 reboots.
const MOST_PARTS: u32 = 16;
/// What is told of an error at most, in bytes.
const REASON_BYTES: usize = 300;

/// How an upload stands after an attempt.
enum Progress {
    /// Nothing is left to do; what is to be known.
    Done(String),
    /// It is not time yet.
    Later(u64, String),
}

/// Why output is not in its bucket.
enum Failure {
    /// The endpoint's own database: it is tried again, and nothing is told.
    Own(StoreError),
    /// It may be otherwise later.
    Passing(String),
    /// It is never otherwise.
    Final(String),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Object { .. } | StoreError::File { .. } => {
                Self::Passing(format!("the recording cannot be read: {}", reason(&error)))
            }
            StoreError::Database { .. } | StoreError::Corrupt { .. } => Self::Own(error),
        }
    }
}

/// Without a store for output there is nothing to do.
pub(super) async fn run(app: Weak<App>) {
    loop {
        let Some(app) = app.upgrade() else { return };
        let Some(store) = app.output_store.clone() else {
            return;
        };
        look(&app, &store).await;
        drop(app);
        // either is a reason to look
        let _woken = timeout(LOOK, store.work()).await;
    }
}

/// Does what is due now.
async fn look(app: &Arc<App>, store: &OutputStore) {
    loop {
        let due = match app.store.due_uploads(app.clock.unix_millis(), LOOK_ROWS).await {
            Ok(due) => due,
            Err(error) => return report(&error),
        };
        if due.is_empty() {
            return;
        }
        let tried = futures_util::stream::iter(due)
            .map(|due| attempt(app, store, due))
            .buffer_unordered(AT_ONCE);
        let saved: Vec<Result<(), StoreError>> = tried.collect().await;
        if let Some(error) = saved.into_iter().find_map(Result::err) {
            return report(&error);
        }
    }
}

fn report(error: &StoreError) {
    tracing::error!(
        error = %error_chain(error),
        "output of commands is not brought to its bucket; it is tried again"
    );
}

/// Tries once, and says in its row what came of it.
async fn attempt(app: &App, store: &OutputStore, mut due: DueUpload) -> Result<(), StoreError> {
    let now = app.clock.unix_millis();
    let (state, next_at, note) = match upload(app, store, &due).await {
        Ok(Progress::Done(note)) => (UploadState::Done, None, note),
        Ok(Progress::Later(at, note)) => (UploadState::Waiting, Some(at), note),
        Err(Failure::Own(error)) => return Err(error),
        Err(Failure::Final(reason)) => (UploadState::Failed, None, reason),
        Err(Failure::Passing(reason)) => {
            due.attempts = due.attempts.saturating_add(1);
            match retry_at(due.attempts, now) {
                Some(at) => (UploadState::Waiting, Some(at), reason),
                None => (UploadState::Failed, None, reason),
            }
        }
    };
    if state != UploadState::Waiting {
        let result = if state == UploadState::Done {
            "done"
        } else {
            "failed"
        };
        app.metrics
            .counter("moorline_output_uploads_total", &[("result", result)])
            .increment();
    }
    if state == UploadState::Failed {
        let DueUpload {
            command_id,
            instance_id,
            ..
        } = &due;
        tracing::warn!(%command_id, %instance_id, reason = note, "the output is not in its bucket");
        give_up(app, store, &due).await?;
    }
    app.store.save_upload(&due, (state, next_at), &note).await
}

/// The invocation, as far as the upload needs it.
struct Ended {
    command: CommandRow,
    row: InvocationRow,
    /// Its agent uploads by itself, as it said in the results of the steps.
    is_uploaded_by_node: bool,
}

async fn ended(app: &App, due: &DueUpload) -> Result<Ended, Failure> {
    let gone = || Failure::Final("the command is not known any more".to_owned());
    let command = app.store.command(&due.command_id).await?.ok_or_else(gone)?;
    let found = app.store.invocation(&due.command_id, &due.instance_id).await?;
    let (row, steps) = found.ok_or_else(gone)?;
    Ok(Ended {
        command,
        row,
        is_uploaded_by_node: steps.iter().any(|step| !step.output_s3_bucket_name.is_empty()),
    })
}

async fn upload(app: &App, store: &OutputStore, due: &DueUpload) -> Result<Progress, Failure> {
    let ended = ended(app, due).await?;
    if ended.is_uploaded_by_node {
        return Ok(Progress::Done(
            "its agent brings the output to the bucket by itself, with credentials of its own".to_owned(),
        ));
    }
    if ended.row.invocation.times.sent_at.is_none() {
        // it never ran
        return Ok(Progress::Done(String::new()));
    }
    let now = app.clock.unix_millis();
    let ended_at = ended.row.invocation.ended_at.unwrap_or(now);
    let later = |at: Option<u64>, note: &str| match at {
        Some(at) => Ok(Progress::Later(at, note.to_owned())),
        None => Err(Failure::Final(note.to_owned())),
    };
    let parts = match parts(app, due).await? {
        Parts::Whole(parts) => parts,
        Parts::Growing => return later(look_at(ended_at, now), "its recording is not whole yet"),
        Parts::Missing => {
            return later(
                look_at(ended_at, now),
                "the output is taken from the node's recording of the command, and there is none: the node does not \
                 record, could not, or has not delivered it yet",
            );
        }
        Parts::Deleted => {
            return Err(Failure::Final(
                "the recording of the command was deleted".to_owned(),
            ));
        }
    };
    let bucket = open(store, &ended.command)?;
    let request = &ended.command.request;
    let prefix = request.output_s3_key_prefix.as_deref().unwrap_or_default();
    let mut sinks = Sinks::new((app, &bucket, due), prefix).await?;
    let mut missing = 0;
    let mut has_exited = false;
    for part in &parts {
        has_exited = read_part(app, part, &mut sinks, &mut missing).await?;
    }
    let is_cut = parts
        .last()
        .is_some_and(|part| part.state == TranscriptState::Cut);
    if !has_exited && !is_cut && now < ended_at.saturating_add(NEXT_PART_MILLIS) {
        return later(look_at(ended_at, now), "its recording may go on after a reboot");
    }
    sinks.finish().await?;
    let mut notes = Vec::new();
    if missing > 0 {
        notes.push(format!(
            "{missing} bytes of the output are missing: the node had no room for them"
        ));
    }
    if is_cut {
        notes.push("the end of the output may be missing: its recording was cut short".to_owned());
    }
    Ok(Progress::Done(notes.join("; ")))
}

/// The recordings of an invocation, as they are now.
enum Parts {
    /// In their order.
    Whole(Vec<TranscriptRow>),
    Growing,
    Missing,
    Deleted,
}

async fn parts(app: &App, due: &DueUpload) -> Result<Parts, StoreError> {
    let query = TranscriptQuery {
        command_id: Some(due.command_id.to_string()),
        node: Some(due.instance_id.to_string()),
        limit: MOST_PARTS,
        ..TranscriptQuery::default()
    };
    let first = format!("{}.{}", due.command_id, due.instance_id);
    let number = |row: &TranscriptRow| match row.id.as_str().strip_prefix(&first)? {
        "" => Some(1),
        more => more.strip_prefix('.')?.parse::<usize>().ok(),
    };
    let mut rows = app.store.transcripts(&query).await?;
    rows.sort_by_key(number);
    let is_without_hole = (1..).zip(&rows).all(|(place, row)| number(row) == Some(place));
    Ok(if rows.iter().any(|row| row.deleted.is_some()) {
        Parts::Deleted
    } else if rows.is_empty() || !is_without_hole {
        Parts::Missing
    } else if rows.iter().any(|row| row.completed_at.is_none()) {
        Parts::Growing
    } else {
        Parts::Whole(rows)
    })
}

fn open(store: &OutputStore, command: &CommandRow) -> Result<OutputBucket, Failure> {
    let request = &command.request;
    let name = request.output_s3_bucket_name.as_deref().unwrap_or_default();
    store
        .bucket(name, request.output_s3_region.as_deref())
        .map_err(|error| Failure::Final(reason(&error)))
}

/// Returns whether the command is over with this recording.
async fn read_part(
    app: &App,
    part: &TranscriptRow,
    sinks: &mut Sinks<'_>,
    missing: &mut u64,
) -> Result<bool, Failure> {
    let unusable = |error: OutputError| Failure::Final(error.to_string());
    let length = app.transcripts.length(&part.id).await?.unwrap_or(0);
    let mut reader = OutputReader::default();
    let mut offset = 0;
    while offset < length {
        let bytes = app.transcripts.read(&part.id, offset, PIECE_BYTES).await?;
        if bytes.is_empty() {
            return Err(Failure::Passing(
                "the recording is shorter than it was".to_owned(),
            ));
        }
        offset += bytes.len() as u64;
        for piece in reader.push(&bytes).map_err(unusable)? {
            match piece {
                OutputPiece::Bytes { stream, steps, bytes } => {
                    // what inner steps write belongs to their outer one
                    if let Some(step) = steps.first() {
                        sinks.push(step, stream, &bytes).await?;
                    }
                }
                // as the node says, which may say anything
                OutputPiece::Gap(bytes) => *missing = missing.saturating_add(bytes),
            }
        }
    }
    Ok(reader.has_exited())
}

/// Nothing is left in the bucket of uploads that are not finished.
async fn give_up(app: &App, store: &OutputStore, due: &DueUpload) -> Result<(), StoreError> {
    let Some(command) = app.store.command(&due.command_id).await? else {
        return Ok(());
    };
    let Ok(bucket) = open(store, &command) else {
        return Ok(());
    };
    let upload = app.store.output_upload(&due.command_id, &due.instance_id).await?;
    for object in upload.into_iter().flat_map(|upload| upload.objects) {
        let Some(id) = &object.upload_id else { continue };
        if let Err(error) = bucket.abort(&object.key, id).await {
            tracing::warn!(%error, key = object.key, "parts of an upload that was given up are left in its bucket");
        }
    }
    Ok(())
}

/// An error with its causes, for a line.
fn reason(error: &dyn std::error::Error) -> String {
    let text = error_chain(error);
    let line: Vec<&str> = text.split_whitespace().collect();
    let line = line.join(" ");
    let end = line.floor_char_boundary(REASON_BYTES);
    match end < line.len() {
        true => format!("{}…", line.get(..end).unwrap_or_default()),
        false => line,
    }
}
