//! `moorline transcript export`: the recording with the endpoint's signatures in it, as one file.

use std::{io::Write as _, path::Path};

use moorline_protocol::transcript::Weaver;
use moorline_ssm::transcript::{ListCountersignatures, ListCountersignaturesRequest};

use super::source::Source;
use crate::{console, error::CliError, operator::Operator, output_file::OutputFile};

/// Writes the export of a session to a file, or to standard output.
pub(super) async fn export(operator: &Operator, session: String, out: Option<&Path>) -> Result<(), CliError> {
    let mut export = Export::open(operator, session).await?;
    let Some(path) = out else {
        while let Some(piece) = export.piece().await? {
            console::print_output(&piece)?;
        }
        return Ok(());
    };
    // the first piece before the file: a session that is not there must not empty one that is written where it is
    let mut piece = export.piece().await?;
    let failed = |source| CliError::io(format!("write {}", path.display()), source);
    let mut file = OutputFile::create_private(path).map_err(failed)?;
    while let Some(bytes) = piece {
        file.write_all(&bytes).map_err(failed)?;
        piece = export.piece().await?;
    }
    file.finish().map_err(failed)
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
