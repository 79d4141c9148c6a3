//! `moorline transcript export --bundle`: all that an outsider needs, in one tar archive.

use std::{
    io::{self, Write},
    path::Path,
};

use jiff::Timestamp;
use moorline_protocol::types::TranscriptId;
use moorline_ssm::audit::ListAuditRecordsRequest;

use super::{export::Export, keys, tar::Archive};
use crate::{audit::pages::Pages, error::CliError, operator::Operator, output_file::OutputFile};

/// How to verify, for somebody who has never heard of us.
const PAGE: &str = include_str!("bundle.md");
/// The format, enough to write a verifier.
const FORMAT: &str = include_str!("../../../docs/transcript-format.md");
/// One that was written from it, to be read before it is used.
const VERIFIER: &str = include_str!("../../../tests/verifier/verify_transcript.py");

/// Where a tar archive says that it is one.
const TAR_MAGIC: std::ops::Range<usize> = 257..262;

/// Refuses a file that begins as a bundle does, and says what to do with it.
pub(super) fn is_none(path: &Path, begin: &[u8]) -> Result<(), CliError> {
    if begin.get(TAR_MAGIC) != Some(b"ustar") {
        return Ok(());
    }
    Err(CliError::Transcript(format!(
        "{}: it is a bundle: unpack it with `tar xf`, and take transcript/session.cast; its README.md says how",
        path.display()
    )))
}

/// Writes the bundle of a session, or of all parts of a command on one node.
pub(super) async fn export(operator: &Operator, parts: Vec<String>, out: &Path) -> Result<(), CliError> {
    let keys = keys::fetch(operator).await?;
    let first = parts.first().cloned().unwrap_or_default();
    let failed = |source| CliError::io(format!("write {}", out.display()), source);
    let mut archive = None;
    for (part, recording) in (1_u32..).zip(parts) {
        let mut export = Export::open(operator, recording).await?;
        // the first piece before the file: a session that is not there must not empty one that is written where it is
        let mut piece = export.piece().await?;
        let archive = match &mut archive {
            Some(archive) => archive,
            none => none.insert(begin(out, &first).map_err(failed)?),
        };
        let begun = archive.begin().map_err(failed)?;
        while let Some(bytes) = piece {
            archive.out().write_all(&bytes).map_err(failed)?;
            piece = export.piece().await?;
        }
        let number = if part == 1 {
            String::new()
        } else {
            format!(".{part}")
        };
        archive
            .end(&format!("transcript/session{number}.cast"), begun)
            .map_err(failed)?;
        let name = format!("transcript/countersignatures{number}");
        archive
            .add(&name, export.countersignatures.as_bytes())
            .map_err(failed)?;
    }
    let Some(mut archive) = archive else { return Ok(()) };
    let begun = archive.begin().map_err(failed)?;
    let mut pages = Pages::new(operator, records_of(&first));
    loop {
        let page = pages.next().await?;
        for record in page.records {
            writeln!(archive.out(), "{record}").map_err(failed)?;
        }
        if page.is_end {
            break;
        }
    }
    archive.end("transcript/audit.jsonl", begun).map_err(failed)?;
    for (name, content) in [
        ("transcript/keys.json", keys.to_file().as_str()),
        ("transcript/transcript-format.md", FORMAT),
        ("transcript/verify_transcript.py", VERIFIER),
    ] {
        archive.add(name, content.as_bytes()).map_err(failed)?;
    }
    archive.finish().and_then(OutputFile::finish).map_err(failed)
}

/// The archive, with the page on what it is of.
fn begin(out: &Path, recording: &str) -> io::Result<Archive<OutputFile>> {
    let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
    let mut archive = Archive::new(OutputFile::create_private(out)?, now);
    let page = PAGE.replace("SESSION", recording);
    archive.add("transcript/README.md", page.as_bytes())?;
    Ok(archive)
}

/// What the audit log has of it: of the session, or of the command on that node and all others.
fn records_of(id: &str) -> ListAuditRecordsRequest {
    let command = id.parse().ok().and_then(|id: TranscriptId| id.command());
    match command {
        Some((command, _)) => ListAuditRecordsRequest {
            command_id: Some(command.to_string()),
            ..ListAuditRecordsRequest::default()
        },
        None => ListAuditRecordsRequest {
            session_id: Some(id.to_owned()),
            ..ListAuditRecordsRequest::default()
        },
    }
}
