//! What may be typed after `moorline audit`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use moorline_ssm::{EpochSeconds, audit::ListAuditRecordsRequest};

use crate::{arguments::parse_duration, error::CliError, operator::Operator, pick};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AuditOptions {
    #[command(subcommand)]
    pub(crate) command: Option<AuditCommand>,
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// Go on with what comes, until Ctrl-C
    #[arg(long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Write the log, or the records that fit, to a file
    Export {
        /// In which form
        #[arg(long, value_enum)]
        format: Format,
        /// Where to
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        filter: Filter,
    },
    /// Tell whether an exported log is what the endpoint wrote, with nothing but public keys
    ///
    /// Takes an export of format chain, or the endpoint's own files joined in their order. Exit code: 0 intact, 1
    /// altered (each place is named), 2 unreadable.
    Verify {
        /// As `moorline audit export --format chain` writes it
        file: PathBuf,
        /// As `moorline transcript keys` writes it
        #[arg(long, value_name = "FILE")]
        keys: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// The whole log with its signatures, which can be verified
    Chain,
    /// The shape of CloudTrail's files
    Cloudtrail,
    /// One JSON object a line
    Jsonl,
}

#[derive(Debug, Default, Args)]
pub(crate) struct Filter {
    /// From this time on: as 2026-11-26T08:00:00Z, or how long ago, as 24h
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Until before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,
    /// Done by this operator or access key; also anonymous, endpoint, or a node's id
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    /// About this node
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Of this operation, as SendCommand or ssm:SendCommand, or this event, as session-ended
    #[arg(long, value_name = "NAME")]
    operation: Option<String>,
    /// With this result: ok, error for all others, or a code, as AccessDeniedException or TimedOut
    #[arg(long, value_name = "RESULT")]
    result: Option<String>,
    /// About this session
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// About this command
    #[arg(long, value_name = "COMMAND-ID")]
    command: Option<String>,
}

impl Filter {
    /// Every record is wanted.
    pub(crate) fn is_empty(&self) -> bool {
        let Self {
            since,
            until,
            operator,
            node,
            operation,
            result,
            session,
            command,
        } = self;
        since.is_none()
            && until.is_none()
            && [operator, node, operation, result, session, command]
                .iter()
                .all(|member| member.is_none())
    }

    /// What asks for it.
    ///
    /// # Errors
    /// There is no such node.
    pub(crate) async fn request(&self, operator: &Operator) -> Result<ListAuditRecordsRequest, CliError> {
        let node = match &self.node {
            Some(name) => Some(pick::node(operator, name).await?),
            None => None,
        };
        Ok(ListAuditRecordsRequest {
            since: self.since.map(epoch),
            until: self.until.map(epoch),
            operator: self.operator.clone(),
            node,
            operation: self.operation.clone(),
            result: self.result.clone(),
            session_id: self.session.clone(),
            command_id: self.command.clone(),
            ..ListAuditRecordsRequest::default()
        })
    }
}

fn epoch(time: Timestamp) -> EpochSeconds {
    EpochSeconds::from_millis(u64::try_from(time.as_millisecond()).unwrap_or(0))
}

/// A point in time, or how long ago.
fn parse_time(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let wrong = |_| "it must be a time such as 2026-11-26T13:00:00Z, or how long ago, such as 24h".to_owned();
    let ago = parse_duration(text).map_err(wrong)?;
    let ago = SignedDuration::try_from(ago).map_err(|error| error.to_string())?;
    Timestamp::now()
        .checked_sub(ago)
        .map_err(|error| error.to_string())
}
