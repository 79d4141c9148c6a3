//! Where a transcript comes from: the endpoint, in pieces as they are used, or a file.

use std::{
    fs::File,
    io::{Read, Seek},
    path::{Path, PathBuf},
};

use moorline_ssm::transcript::{GetTranscript, GetTranscriptRequest, TranscriptState};

use super::bundle;
use crate::{error::CliError, operator::Operator};

/// What is asked for at once, in bytes: the answer has it as JSON text, which may be several times as long.
const PIECE_BYTES: i32 = 512 * 1024;
/// What is read of a file at once.
const FILE_PIECE_BYTES: u64 = 256 * 1024;

/// One transcript, piece by piece.
#[derive(Debug)]
pub(super) enum Source<'a> {
    Endpoint {
        operator: &'a Operator,
        session_id: String,
        offset: i64,
        is_at_end: bool,
        /// Its end was not recorded.
        is_cut: bool,
    },
    File {
        path: PathBuf,
        file: File,
        is_at_begin: bool,
    },
}

impl<'a> Source<'a> {
    /// Of a session, or of a command on a node.
    pub(super) fn of_session(operator: &'a Operator, session_id: String) -> Self {
        Self::Endpoint {
            operator,
            session_id,
            offset: 0,
            is_at_end: false,
            is_cut: false,
        }
    }

    /// A file.
    pub(super) fn of_file(path: &Path) -> Result<Self, CliError> {
        let file =
            File::open(path).map_err(|source| CliError::io(format!("open {}", path.display()), source))?;
        Ok(Self::File {
            path: path.to_owned(),
            file,
            is_at_begin: true,
        })
    }

    /// The next piece; empty at the end of what there is.
    pub(super) async fn piece(&mut self) -> Result<Vec<u8>, CliError> {
        match self {
            Self::Endpoint {
                operator,
                session_id,
                offset,
                is_at_end,
                is_cut,
            } => {
                if *is_at_end {
                    return Ok(Vec::new());
                }
                let request = GetTranscriptRequest {
                    session_id: Some(session_id.clone()),
                    offset: Some(*offset),
                    max_bytes: Some(PIECE_BYTES),
                    ..GetTranscriptRequest::default()
                };
                let response = operator.call::<GetTranscript>(&request).await?;
                *is_cut = response.state == Some(TranscriptState::Cut);
                let data = response.data.unwrap_or_default();
                let next = response.next_offset.unwrap_or(*offset);
                *is_at_end = data.is_empty() || next <= *offset;
                *offset = next.max(*offset);
                Ok(data.into_bytes())
            }
            Self::File {
                path,
                file,
                is_at_begin,
            } => {
                let mut piece = Vec::new();
                file.take(FILE_PIECE_BYTES)
                    .read_to_end(&mut piece)
                    .map_err(|source| CliError::io(format!("read {}", path.display()), source))?;
                if std::mem::take(is_at_begin) {
                    bundle::is_none(path, &piece)?;
                }
                Ok(piece)
            }
        }
    }

    /// Whether the endpoint said that the end was not recorded. What a file says of that, verifying it tells.
    pub(super) fn is_cut(&self) -> bool {
        matches!(self, Self::Endpoint { is_cut: true, .. })
    }

    /// Back to the begin.
    pub(super) fn rewind(&mut self) -> Result<(), CliError> {
        match self {
            Self::Endpoint {
                offset, is_at_end, ..
            } => {
                *offset = 0;
                *is_at_end = false;
                Ok(())
            }
            Self::File { path, file, .. } => file
                .rewind()
                .map_err(|source| CliError::io(format!("read {}", path.display()), source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_a_bundle_it_is_said_what_to_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session.tar");
        let mut archive = vec![0; 512];
        archive[257..262].copy_from_slice(b"ustar");
        std::fs::write(&path, archive).unwrap();
        let refused = Source::of_file(&path).unwrap().piece().await.unwrap_err();
        assert!(
            refused.to_string().contains("transcript/session.cast"),
            "{refused}"
        );
    }
}
