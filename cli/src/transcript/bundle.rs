//! `moorline transcript export --bundle`: all that an outsider needs, in one tar archive.

use std::{io::Write, path::Path};

use jiff::Timestamp;
use moorline_protocol::types::TranscriptId;
use moorline_ssm::audit::ListAuditRecordsRequest;

use super::{
    export::{Export, create_private},
    keys,
    tar::Archive,
};
use crate::{audit::pages::Pages, error::CliError, operator::Operator};

/// How to verify, for somebody who has never heard of us.
const PAGE: &str = include_str!("bundle.md");
/// The format, enough to write a verifier.
const FORMAT: &str = include_str!("../../../docs/transcript-format.md");
/// One that was written from it, to be read before it is used.
const VERIFIER: &str = include_str!("../../../tests/verifier/verify_transcript.py");

/// Writes the bundle of a session.
pub(super) async fn export(operator: &Operator, session: String, out: &Path) -> Result<(), CliError> {
    let keys = keys::fetch(operator).await?;
    let mut export = Export::open(operator, session.clone()).await?;
    let of_session = records_of(&session);
    let failed = |source| CliError::io(format!("write {}", out.display()), source);
    // the first piece before the file: a session that is not there must not empty an older export
    let mut piece = export.piece().await?;
    let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
    let mut archive = Archive::new(create_private(out).map_err(failed)?, now);
    let page = PAGE.replace("SESSION", &session);
    archive
        .add("transcript/README.md", page.as_bytes())
        .map_err(failed)?;
    let begun = archive.begin().map_err(failed)?;
    while let Some(bytes) = piece {
        archive.out().write_all(&bytes).map_err(failed)?;
        piece = export.piece().await?;
    }
    archive.end("transcript/session.cast", begun).map_err(failed)?;
    let begun = archive.begin().map_err(failed)?;
    let mut pages = Pages::new(operator, of_session);
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
        ("transcript/countersignatures", export.countersignatures.as_str()),
        ("transcript/transcript-format.md", FORMAT),
        ("transcript/verify_transcript.py", VERIFIER),
    ] {
        archive.add(name, content.as_bytes()).map_err(failed)?;
    }
    archive.finish().map_err(failed)
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
