//! `moorline audit export`: the log in a file, for an auditor or for what collects such logs.

use std::{
    io::{BufWriter, IntoInnerError, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use moorline_protocol::audit::{Body, Line};
use moorline_ssm::audit::ListAuditRecordsRequest;

use super::{
    cloud_trail::CloudTrail,
    options::{Filter, Format},
    pages::Pages,
};
use crate::{
    console,
    counted::{agreeing, counted},
    error::CliError,
    operator::Operator,
    output_file::OutputFile,
};

/// How long the endpoint may take to sign what is last. It promises one second.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(10);
/// How long one call waits for that, in milliseconds.
const WAIT_MILLIS: i32 = 1000;

pub(super) async fn execute(
    operator: &Operator,
    format: Format,
    out: &Path,
    filter: &Filter,
) -> Result<(), CliError> {
    match format {
        Format::Chain if !filter.is_empty() => Err(CliError::Usage(
            "the chain is exported as a whole: a part of it could not be verified; leave the filters out"
                .to_owned(),
        )),
        Format::Chain => chain(operator, out).await,
        Format::Cloudtrail => cloud_trail(operator, out, filter).await,
        Format::Jsonl => json_lines(operator, out, filter).await,
    }
}

async fn json_lines(operator: &Operator, out: &Path, filter: &Filter) -> Result<(), CliError> {
    let mut pages = Pages::new(operator, filter.request(operator).await?);
    // the first page before the file: a refusal must not empty one that is written where it is
    let mut page = pages.next().await?;
    let mut file = Output::create(out)?;
    loop {
        for record in &page.records {
            file.write_line(record)?;
        }
        if page.is_end {
            return file.finish();
        }
        page = pages.next().await?;
    }
}

async fn cloud_trail(operator: &Operator, out: &Path, filter: &Filter) -> Result<(), CliError> {
    let mut pages = Pages::new(operator, filter.request(operator).await?);
    let mut page = pages.next().await?;
    let mut file = Output::create(out)?;
    let mut trail = CloudTrail::new(operator.region());
    file.write("{\"Records\":[")?;
    let mut separator = "";
    let mut write = |file: &mut Output, record: serde_json::Value| {
        let text = format!("{separator}\n{record}");
        separator = ",";
        file.write(&text)
    };
    loop {
        for record in &page.records {
            for record in trail.add(record) {
                write(&mut file, record)?;
            }
        }
        if page.is_end {
            break;
        }
        page = pages.next().await?;
    }
    if trail.unreadable() > 0 {
        console::note(&format!(
            "{} cannot be read and {} left out: the log was altered; `moorline audit verify` says where",
            counted(trail.unreadable(), "line"),
            agreeing(trail.unreadable(), "is", "are")
        ));
    }
    for record in trail.finish() {
        write(&mut file, record)?;
    }
    file.write("\n]}\n")?;
    file.finish()
}

/// Ends with a checkpoint: what is newer is in the next export.
async fn chain(operator: &Operator, out: &Path) -> Result<(), CliError> {
    let request = ListAuditRecordsRequest {
        include_checkpoints: Some(true),
        ..ListAuditRecordsRequest::default()
    };
    let mut pages = Pages::new(operator, request);
    let mut page = pages.next().await?;
    let mut file = Output::create(out)?;
    let mut caught_up_at = None;
    loop {
        for record in &page.records {
            file.write_line(record)?;
            if caught_up_at.is_some() && is_checkpoint(record) {
                return file.finish();
            }
        }
        if page.is_end {
            let last = page.records.last();
            if last.is_some_and(|record| is_checkpoint(record)) {
                return file.finish();
            }
            let since = *caught_up_at.get_or_insert_with(Instant::now);
            if since.elapsed() > CHECKPOINT_PATIENCE {
                console::note("the endpoint has not signed its last records: is its disk full?");
                return file.finish();
            }
            pages.wait_millis = Some(WAIT_MILLIS);
        }
        page = pages.next().await?;
    }
}

fn is_checkpoint(record: &str) -> bool {
    let line = Line::parse(format!("{record}\n").as_bytes());
    line.is_ok_and(|line| matches!(line.body, Body::Checkpoint { .. }))
}

/// A file of its owner's.
struct Output {
    path: PathBuf,
    file: BufWriter<OutputFile>,
}

impl Output {
    fn create(path: &Path) -> Result<Self, CliError> {
        let file = OutputFile::create_private(path)
            .map_err(|source| CliError::io(format!("create {}", path.display()), source))?;
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::new(file),
        })
    }

    fn write(&mut self, text: &str) -> Result<(), CliError> {
        let written = self.file.write_all(text.as_bytes());
        written.map_err(|source| CliError::io(format!("write {}", self.path.display()), source))
    }

    fn write_line(&mut self, line: &str) -> Result<(), CliError> {
        self.write(line)?;
        self.write("\n")
    }

    fn finish(self) -> Result<(), CliError> {
        let written = self.file.into_inner().map_err(IntoInnerError::into_error);
        let finished = written.and_then(OutputFile::finish);
        finished.map_err(|source| CliError::io(format!("write {}", self.path.display()), source))
    }
}
