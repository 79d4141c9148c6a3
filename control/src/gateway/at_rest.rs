//! What becomes of recordings that are finished: compressed, brought to the object store if there is one, deleted when
//! they are old. Apart from the sweep, since an object store may take its time.

use std::{
    io,
    sync::{Arc, Weak},
    time::Duration,
};

use moorline_protocol::{error_chain, types::TranscriptId};
use tokio::time::timeout;

use crate::{
    app::App,
    audit::RecordedContent,
    store::{Place, StoreError, Tombstone},
};

/// What failed is tried again after this time, and what was missed is found.
const LOOK: Duration = Duration::from_secs(60);
/// Tombstones are kept this long, in milliseconds: ten years.
const TOMBSTONE_MILLIS: u64 = 10 * 365 * 24 * 60 * 60 * 1000;
/// Who deletes what is old, as a tombstone has it.
const BY_AGE: &str = "retention";

pub(super) async fn run(app: Weak<App>) {
    while let Some(app) = app.upgrade() {
        // a recording that has come to rest may be what an upload waits for
        if let Some(store) = &app.output_store {
            store.has_work();
        }
        look(&app).await;
        let files = app.transcripts.clone();
        drop(app);
        // either is a reason to look
        let _woken = timeout(LOOK, files.rest()).await;
    }
}

/// Brings every recording one step further, or as far as it goes.
pub(super) async fn look(app: &Arc<App>) {
    each(app, (Place::File, false), pack).await;
    each(app, (Place::Packed, true), remove).await;
    // without the settings of a store that was used before, what is there is left alone
    if app.transcripts.has_remote() {
        each(app, (Place::Packed, false), upload).await;
        each(app, (Place::Store, true), remove).await;
    }
}

/// Those that cannot be moved now keep no other waiting, and are tried again.
async fn each(
    app: &Arc<App>,
    (place, is_deleted): (Place, bool),
    step: impl AsyncFn(&App, &TranscriptId) -> Result<(), StoreError>,
) {
    let mut behind = String::new();
    loop {
        let recordings = match app.store.transcripts_to_move(place, is_deleted, &behind).await {
            Ok(recordings) => recordings,
            Err(error) => return report(&error),
        };
        let Some(last) = recordings.last() else { return };
        behind = last.to_string();
        for recording in &recordings {
            if let Err(error) = step(app, recording).await {
                report(&error);
                let failed = "moorline_transcripts_not_moved_total";
                app.metrics.counter(failed, &[]).increment();
                if matches!(error, StoreError::Object { .. }) {
                    // the store is away: the others would wait for nothing
                    return;
                }
            }
        }
    }
}

fn report(error: &StoreError) {
    tracing::error!(
        error = %error_chain(error),
        "a transcript stays where it is; it is tried again"
    );
}

async fn pack(app: &App, recording: &TranscriptId) -> Result<(), StoreError> {
    match app.transcripts.pack(recording).await? {
        Some(packed) => app.store.transcript_packed(recording, &packed).await,
        None => lost(app, recording).await,
    }
}

async fn upload(app: &App, recording: &TranscriptId) -> Result<(), StoreError> {
    if app.transcripts.upload(recording).await? {
        return app.store.transcript_moved(recording, Place::Store).await;
    }
    lost(app, recording).await
}

/// Somebody removed the files.
async fn lost(app: &App, recording: &TranscriptId) -> Result<(), StoreError> {
    tracing::error!(%recording, "there is nothing left of this recording, and nobody deleted it by this endpoint");
    app.store.transcript_moved(recording, Place::Gone).await
}

/// What age deleted is in the audit log before anything of it goes. A crash behind that records it twice, and never not at
/// all. What an operator deletes is recorded as any call.
async fn remove(app: &App, recording: &TranscriptId) -> Result<(), StoreError> {
    let row = app.store.transcript(recording).await?;
    if let Some(row) = row
        && row.deleted.as_ref().is_some_and(|deleted| deleted.by == BY_AGE)
    {
        let why = "it is older than transcripts are kept";
        let recorded = app
            .audit
            .transcript_deleted(recording, RecordedContent::of_row(&row), why);
        recorded.await.map_err(|error| StoreError::File {
            doing: "record the deletion of",
            path: recording.to_string(),
            source: io::Error::other(error),
        })?;
    }
    app.transcripts.remove(recording).await?;
    app.store.transcript_moved(recording, Place::Gone).await
}

/// Deletes what is older than the endpoint keeps transcripts, a bounded part at a time.
pub(super) async fn expire(app: &App) -> Result<(), StoreError> {
    let now = app.clock.unix_millis();
    app.store
        .forget_tombstones(now.saturating_sub(TOMBSTONE_MILLIS))
        .await?;
    let Some(kept) = app.transcript_retention_millis else {
        return Ok(());
    };
    let tombstone = Tombstone {
        by: BY_AGE.to_owned(),
        at: now,
        reason: None,
    };
    for recording in app.store.expired_transcripts(now.saturating_sub(kept)).await? {
        if app.store.delete_transcript(&recording, &tombstone, None).await? {
            tracing::info!(%recording, "a transcript is older than they are kept, and was deleted");
            app.transcripts.has_come_to_rest();
        }
    }
    Ok(())
}
