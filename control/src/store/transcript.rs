//! Recorded transcripts: one asciicast file per session.

use std::path::PathBuf;

/// The directory of transcripts.
#[derive(Debug, Clone)]
pub(crate) struct TranscriptFiles {
    pub(crate) _dir: PathBuf,
}
