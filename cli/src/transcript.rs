//! `moorline transcript`: the recordings of sessions.
//!
//! A transcript is fetched in pieces as it is used, so a long one is never in memory as a whole; of a session that
//! still runs there is what the node has sent so far.

pub(crate) mod cast;
pub(crate) mod play;
mod text;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use moorline_ssm::transcript::{
    GetTranscript, GetTranscriptRequest, ListTranscripts, ListTranscriptsRequest, Transcript,
};
use serde::Serialize;

use self::cast::{Cast, Line};
use crate::{
    arguments::TranscriptCommand,
    console::{self, one_line},
    error::CliError,
    operator::Operator,
    pick,
};

const PAGE: i32 = 50;
/// What is asked for at once, in bytes: the answer has it as JSON text, which may be several times as long.
const PIECE_BYTES: i32 = 512 * 1024;

/// A transcript as scripts read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    session_id: String,
    target: Option<String>,
    owner: Option<String>,
    document_name: Option<String>,
    start_date: Option<String>,
    end_date: Option<String>,
    length_bytes: i64,
    complete: bool,
}

pub(crate) async fn execute(
    operator: &Operator,
    command: TranscriptCommand,
    json: bool,
) -> Result<u8, CliError> {
    match command {
        TranscriptCommand::List { node } => show_list(operator, node.as_deref(), json).await?,
        TranscriptCommand::Play {
            session,
            speed,
            idle_limit,
        } => {
            let mut source = Source::open(operator, session).await?;
            play::play(&mut source, speed, idle_limit).await?;
        }
        TranscriptCommand::Text { session } => {
            let mut source = Source::open(operator, session).await?;
            show_text(&mut source).await?;
        }
        TranscriptCommand::Export { session, output } => {
            let mut source = Source::open(operator, session).await?;
            export(&mut source, output.as_deref()).await?;
        }
    }
    Ok(0)
}

/// All transcripts, newest first.
async fn list(operator: &Operator, target: Option<String>) -> Result<Vec<Transcript>, CliError> {
    let mut transcripts: Vec<Transcript> = Vec::new();
    let mut next_token = None;
    loop {
        let request = ListTranscriptsRequest {
            target: target.clone(),
            max_results: Some(PAGE),
            next_token,
        };
        let page = operator.call::<ListTranscripts>(&request).await?;
        transcripts.extend(page.transcripts.unwrap_or_default());
        next_token = page.next_token.filter(|token| !token.is_empty());
        if next_token.is_none() {
            break;
        }
    }
    transcripts.sort_by_key(|t| std::cmp::Reverse(t.start_date.map_or(0, |time| time.millis())));
    Ok(transcripts)
}

async fn show_list(operator: &Operator, node: Option<&str>, json: bool) -> Result<(), CliError> {
    let target = match node {
        Some(node) => Some(pick::node(operator, node).await?),
        None => None,
    };
    let transcripts: Vec<Listed> = list(operator, target)
        .await?
        .into_iter()
        .map(Listed::from)
        .collect();
    if json {
        return console::print_json(&transcripts);
    }
    let mut table = console::table(&["SESSION", "NODE", "OWNER", "STARTED", "BYTES", "COMPLETE"]);
    for transcript in &transcripts {
        let text = |value: &Option<String>| one_line(value.as_deref().unwrap_or("-"));
        table.add_row([
            transcript.session_id.clone(),
            text(&transcript.target),
            text(&transcript.owner),
            text(&transcript.start_date),
            transcript.length_bytes.to_string(),
            if transcript.complete { "yes" } else { "no" }.to_owned(),
        ]);
    }
    console::print_table(&table)
}

impl From<Transcript> for Listed {
    fn from(transcript: Transcript) -> Self {
        Self {
            session_id: transcript.session_id.unwrap_or_default(),
            target: transcript.target,
            owner: transcript.owner,
            document_name: transcript.document_name,
            start_date: transcript.start_date.and_then(console::timestamp),
            end_date: transcript.end_date.and_then(console::timestamp),
            length_bytes: transcript.length_bytes.unwrap_or(0),
            complete: transcript.complete.unwrap_or(false),
        }
    }
}

/// One transcript, piece by piece.
struct Source<'a> {
    operator: &'a Operator,
    session_id: String,
    offset: i64,
    is_at_end: bool,
}

impl<'a> Source<'a> {
    /// Of a session, by default the newest.
    async fn open(operator: &'a Operator, session: Option<String>) -> Result<Self, CliError> {
        let session_id = match session {
            Some(session) => session,
            None => {
                let newest = list(operator, None).await?.into_iter().next();
                newest
                    .and_then(|transcript| transcript.session_id)
                    .ok_or_else(|| CliError::Transcript("there is no transcript yet".to_owned()))?
            }
        };
        Ok(Self {
            operator,
            session_id,
            offset: 0,
            is_at_end: false,
        })
    }

    /// The next piece; `None` at the end of what there is.
    async fn piece(&mut self) -> Result<Option<String>, CliError> {
        if self.is_at_end {
            return Ok(None);
        }
        let request = GetTranscriptRequest {
            session_id: Some(self.session_id.clone()),
            offset: Some(self.offset),
            max_bytes: Some(PIECE_BYTES),
            tail_bytes: None,
            wait_millis: None,
        };
        let response = self.operator.call::<GetTranscript>(&request).await?;
        let data = response.data.unwrap_or_default();
        let next = response.next_offset.unwrap_or(self.offset);
        if data.is_empty() || next <= self.offset {
            self.is_at_end = true;
            return Ok(None);
        }
        self.offset = next;
        Ok(Some(data))
    }
}

async fn show_text(source: &mut Source<'_>) -> Result<(), CliError> {
    let mut cast = Cast::default();
    let mut screen = text::PlainText::default();
    while let Some(piece) = source.piece().await? {
        for line in cast.push(&piece) {
            match line? {
                Line::Size { width, .. } => screen.set_width(usize::try_from(width).unwrap_or(usize::MAX)),
                Line::Output { data, .. } => screen.write(&data),
                Line::Other => {}
            }
        }
        console::print(&screen.take())?;
    }
    screen.finish();
    console::print(&screen.take())
}

async fn export(source: &mut Source<'_>, output: Option<&Path>) -> Result<(), CliError> {
    let Some(path) = output else {
        while let Some(piece) = source.piece().await? {
            console::print(&piece)?;
        }
        return Ok(());
    };
    let doing = |what: &str| format!("{what} {}", path.display());
    // the first piece before the file: a session that is not there must not empty an older export
    let mut piece = source.piece().await?;
    let mut file = create_private(path).map_err(|source| CliError::io(doing("create"), source))?;
    while let Some(text) = piece {
        file.write_all(text.as_bytes())
            .map_err(|source| CliError::io(doing("write"), source))?;
        piece = source.piece().await?;
    }
    Ok(())
}

/// Makes or empties a file. A new one is for its owner only: what was typed and shown in a session is nobody else's.
fn create_private(path: &Path) -> io::Result<File> {
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
