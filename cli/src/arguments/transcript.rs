//! What `moorline transcript` is told.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};

use super::parse_duration;

#[derive(Debug, Subcommand)]
pub(crate) enum TranscriptCommand {
    /// List the transcripts, newest first
    List(TranscriptFilter),
    /// Play a transcript as it happened: blank pauses, the arrows jump 5 seconds, q ends it
    Play {
        #[command(flatten)]
        recording: Recording,
        /// Times the real speed
        #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = parse_speed)]
        speed: f64,
        /// Shorten pauses to this [default: they are as long as they were]
        #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
        idle_limit: Option<Duration>,
        /// Begin this long after the begin
        #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = parse_position)]
        start_at: Duration,
        /// Pass on everything that the program wrote, also what sets the clipboard or makes the terminal answer
        #[arg(long)]
        raw: bool,
    },
    /// Show a transcript as plain text, each line with its time since the begin
    Text {
        #[command(flatten)]
        recording: Recording,
        /// Leave the times out
        #[arg(long)]
        no_time: bool,
    },
    /// Write a transcript as asciicast v2, with all signatures
    Export {
        #[command(flatten)]
        which: Which,
        /// With keys, signatures, and all that an outsider needs to verify it: a tar archive
        #[arg(long, requires = "out")]
        bundle: bool,
        /// Where to [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Write the public keys of the endpoint and of all nodes, to verify transcripts with
    Keys {
        /// Where to
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Keep a transcript from being deleted, by its age or by anybody, until the hold is released
    Hold(HoldOptions),
    /// Delete a transcript; who did it, when, its length and its hash stay
    Delete {
        #[command(flatten)]
        named: Named,
        /// Why: it stays too
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Verify an exported transcript, without an endpoint: exit code 0 intact, 1 altered, 2 unreadable
    Verify {
        /// As `moorline transcript export` writes it. Of several parts of a command all, so that none is missing unseen
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// As `moorline transcript keys` writes it
        #[arg(long, value_name = "FILE")]
        keys: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct HoldOptions {
    #[command(flatten)]
    pub(crate) named: Named,
    /// Why: `moorline transcript list --held` shows it
    #[arg(long, value_name = "TEXT", conflicts_with = "release")]
    pub(crate) reason: Option<String>,
    /// It may be deleted again
    #[arg(long)]
    pub(crate) release: bool,
}

/// How far a transcript is, and what vouches for it.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum TranscriptState {
    /// More may come
    Running,
    /// Whole, and signed so
    Complete,
    /// Its end did not come, or its node sent something that its key did not seal; signed so
    Cut,
    /// Of an agent that does not seal
    NotVerified,
    /// Only that it was deleted, by whom and when
    Deleted,
}

/// Which transcripts are listed.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TranscriptFilter {
    /// Only those of this node
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// Only those of this operator: an ARN, or a user's name
    #[arg(long, value_name = "NAME")]
    pub(crate) operator: Option<String>,
    /// Only those that began at this time or later: a date, a time as 2026-11-26T08:00:00Z, or how long ago, as 24h
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) since: Option<Timestamp>,
    /// Only those that began before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) until: Option<Timestamp>,
    /// Only those of this document
    #[arg(long, value_name = "NAME")]
    pub(crate) document: Option<String>,
    /// Only those that show this text, in letters of either case
    #[arg(long, value_name = "TEXT")]
    pub(crate) contains: Option<String>,
    /// Only those of sessions, or of commands
    #[arg(long, value_name = "KIND", ignore_case = true)]
    pub(crate) kind: Option<TranscriptKind>,
    /// Only those of this command
    #[arg(long, value_name = "COMMAND-ID")]
    pub(crate) command: Option<String>,
    /// Only those in this state [default: all but the deleted ones]
    #[arg(long, value_name = "STATE", ignore_case = true)]
    pub(crate) state: Option<TranscriptState>,
    /// Only those that are held
    #[arg(long)]
    pub(crate) held: bool,
}

/// Which transcript is meant, if one is said.
#[derive(Debug, Clone, Args)]
pub(crate) struct Which {
    /// Of a session by its id, of a command by the transcript's, or the command's [default: the newest]
    pub(crate) session: Option<String>,
    /// The node, where a command ran on several
    #[arg(long, value_name = "NODE", requires = "session")]
    pub(crate) node: Option<String>,
}

/// The transcript that is meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct Named {
    /// Of a session by its id, of a command by the transcript's, or the command's
    session: String,
    /// The node, where a command ran on several
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
}

impl From<Named> for Which {
    fn from(Named { session, node }: Named) -> Self {
        Self {
            session: Some(session),
            node,
        }
    }
}

/// What a transcript is of.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum TranscriptKind {
    Session,
    Command,
}

/// Which transcript is read.
#[derive(Debug, Args)]
pub(crate) struct Recording {
    #[command(flatten)]
    pub(crate) which: Which,
    /// A file as `moorline transcript export` writes it, in place of a session
    #[arg(long, value_name = "FILE", conflicts_with = "session")]
    pub(crate) file: Option<PathBuf>,
    /// A file of age identities, which opens an encrypted transcript
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
}

fn parse_speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| "it must be a number".to_owned())?;
    if (0.01..=10_000.0).contains(&speed) {
        Ok(speed)
    } else {
        Err("it must be between 0.01 and 10000".to_owned())
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "it must be a number".to_owned())?;
    if (0.0..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("it must be between 0 and 86400".to_owned())
    }
}

/// A place in a recording, which may be weeks long.
fn parse_position(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "it must be a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "it must be at least 0".to_owned())
}

/// A point in time; one without a time zone is in UTC.
fn parse_time(text: &str) -> Result<Timestamp, String> {
    let wrong = || "it must be a date, a time as 2026-11-26T08:00:00Z, or how long ago, as 24h".to_owned();
    if let Ok(ago) = parse_duration(text) {
        let ago = SignedDuration::try_from(ago).map_err(|_| wrong())?;
        return Timestamp::now().checked_sub(ago).map_err(|_| wrong());
    }
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let civil: DateTime = text.parse().map_err(|_| wrong())?;
    let zoned = civil.to_zoned(TimeZone::UTC).map_err(|_| wrong())?;
    Ok(zoned.timestamp())
}
