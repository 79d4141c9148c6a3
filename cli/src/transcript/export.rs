//! `moorline transcript export`: the recording with the endpoint's signatures in it, as one file.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use moorline_protocol::transcript::Weaver;
use moorline_ssm::transcript::{ListCountersignatures, ListCountersignaturesRequest};

use super::source::Source;
use crate::{console, error::CliError, operator::Operator};

/// Writes the export of a session to a file, or to standard output.
pub(super) async fn export(operator: &Operator, session: String, out: Option<&Path>) -> Result<(), CliError> {
    let mut export = Export::open(operator, session).await?;
    let Some(path) = out else {
        while let Some(piece) = export.piece().await? {
            console::print_output(&piece)?;
        }
        return Ok(());
    };
    // the first piece before the file: a session that is not there must not empty an older export
    let mut piece = export.piece().await?;
    let failed = |source| CliError::io(format!("write {}", path.display()), source);
    let mut file = create_private(path).map_err(failed)?;
    while let Some(bytes) = piece {
        file.write_all(&bytes).map_err(failed)?;
        piece = export.piece().await?;
    }
    Ok(())
}

/// An export, piece by piece.
#[derive(Debug)]
pub(super) struct Export<'a> {
    source: Source<'a>,
    /// The endpoint's lines, each with its line feed.
    pub(super) countersignatures: String,
    weaver: Option<Weaver>,
}

impl<'a> Export<'a> {
    /// The endpoint's lines come first: what they are for is then surely in the recording.
    pub(super) async fn open(operator: &'a Operator, session: String) -> Result<Self, CliError> {
        let lines = countersignatures(operator, &session).await?;
        Ok(Self {
            source: Source::of_session(operator, session),
            countersignatures: lines
                .iter()
                .map(|line| format!("{}\n", line.trim_end()))
                .collect(),
            weaver: Some(Weaver::new(lines)),
        })
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn piece(&mut self) -> Result<Option<Vec<u8>>, CliError> {
        let Some(weaver) = &mut self.weaver else {
            return Ok(None);
        };
        let piece = self.source.piece().await?;
        let mut export = Vec::new();
        weaver.push(&piece, &mut export);
        if piece.is_empty()
            && let Some(weaver) = self.weaver.take()
        {
            weaver.finish(&mut export);
        }
        Ok(Some(export))
    }
}

/// All lines of the endpoint for this recording.
async fn countersignatures(operator: &Operator, session: &str) -> Result<Vec<String>, CliError> {
    let mut lines: Vec<String> = Vec::new();
    loop {
        let request = ListCountersignaturesRequest {
            session_id: Some(session.to_owned()),
            start_index: Some(i32::try_from(lines.len()).unwrap_or(i32::MAX)),
        };
        let page = operator.call::<ListCountersignatures>(&request).await?;
        let more = page.lines.unwrap_or_default();
        if more.is_empty() {
            return Ok(lines);
        }
        lines.extend(more);
    }
}

/// Makes or empties a file. A new one is for its owner only: what was typed and shown in a session is nobody else's.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn an_exported_transcript_is_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("session.cast");
        create_private(&path).unwrap().write_all(b"older export").unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        create_private(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }
}
