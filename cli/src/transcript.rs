//! `moorline transcript`: the recordings of sessions and commands.
//!
//! A transcript is fetched in pieces as it is used, so a long one is never in memory as a whole; of a session that
//! still runs there is what the node has sent so far. What an auditor does needs no endpoint: `verify`, and `play` and
//! `text` of a file.

mod bundle;
pub(crate) mod cast;
mod delete;
pub(crate) mod export;
mod hold;
mod identity;
mod keys;
mod list;
pub(crate) mod play;
mod readable;
mod reader;
mod source;
mod tar;
mod text;
mod verify;
mod which;

use std::path::PathBuf;

use self::{
    identity::Identity,
    play::{Pace, Shown},
    reader::Reader,
    source::Source,
};
use crate::{
    arguments::{Recording, TranscriptCommand, Which},
    error::CliError,
    operator::Operator,
};

/// `connect` is called for what an endpoint is needed for.
pub(crate) async fn execute(
    connect: impl FnOnce() -> Result<Operator, CliError>,
    command: TranscriptCommand,
    json: bool,
) -> Result<u8, CliError> {
    match command {
        TranscriptCommand::List(filter) => return list::show(&connect()?, &filter, json).await,
        TranscriptCommand::Play {
            recording,
            speed,
            idle_limit,
            start_at,
            raw,
        } => {
            let pace = Pace {
                speed,
                idle_limit,
                start_at,
            };
            let origin = Origin::of(&recording, connect)?;
            play::play(origin.reader(&recording).await?, pace, Shown::new(raw)).await?;
        }
        TranscriptCommand::Text { recording, no_time } => {
            let origin = Origin::of(&recording, connect)?;
            readable::show(origin.reader(&recording).await?, !no_time).await?;
        }
        TranscriptCommand::Export { which, bundle, out } => {
            let operator = connect()?;
            match out {
                Some(out) if bundle => {
                    let parts = which::parts(&operator, &which).await?;
                    bundle::export(&operator, parts, &out).await?;
                }
                out => {
                    let session = which::id(&operator, &which).await?;
                    export::export(&operator, session, out.as_deref()).await?;
                }
            }
        }
        TranscriptCommand::Hold(options) => hold::put(&connect()?, options).await?,
        TranscriptCommand::Delete { named, reason } => {
            delete::delete(&connect()?, &named.into(), reason).await?;
        }
        TranscriptCommand::Keys { out } => keys::write(&connect()?, &out).await?,
        TranscriptCommand::Verify { files, keys } => return verify::execute(&files, &keys, json),
    }
    Ok(0)
}

/// Where a recording that is read comes from.
enum Origin {
    Endpoint(Box<Operator>, Which),
    File(PathBuf),
}

impl Origin {
    fn of(
        recording: &Recording,
        connect: impl FnOnce() -> Result<Operator, CliError>,
    ) -> Result<Self, CliError> {
        Ok(match &recording.file {
            Some(file) => Self::File(file.clone()),
            None => Self::Endpoint(Box::new(connect()?), recording.which.clone()),
        })
    }

    async fn reader(&self, recording: &Recording) -> Result<Reader<'_>, CliError> {
        let identity = recording.identity.as_deref().map(Identity::read).transpose()?;
        let source = match self {
            Self::Endpoint(operator, which) => {
                Source::of_session(operator, which::id(operator, which).await?)
            }
            Self::File(file) => Source::of_file(file)?,
        };
        Ok(Reader::new(source, identity))
    }
}
