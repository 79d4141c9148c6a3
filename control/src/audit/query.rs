//! Reading the log back: a page at a time, filtered, bounded in what is looked at.

use std::{
    collections::BTreeSet,
    fmt,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
    str::FromStr,
};

use moorline_protocol::audit::{Body, Event, EventKind, Line, MAX_LINE_BYTES};

use super::{
    AuditLog, SegmentError,
    segments::{failed, numbers, path_of},
};
use crate::{engine::invocation::Outcome, store::SessionStatus};

/// What one page looks at; a client goes on with the next.
const MOST_LOOKED_AT: u64 = 16 * 1024 * 1024;
/// Of the records of a page together.
const MOST_PAGE_BYTES: usize = 512 * 1024;
/// Read at a time; a line always fits.
const PIECE_BYTES: usize = 2 * MAX_LINE_BYTES;

/// A place in the log between two lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    segment: u64,
    offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment, self.offset)
    }
}

impl FromStr for Position {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (segment, offset) = text.split_once(':').unwrap_or((text, ""));
        Ok(Self {
            segment: segment.parse()?,
            offset: offset.parse()?,
        })
    }
}

/// Which records are wanted; what is `None` decides nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct AuditFilter {
    /// First millisecond since the Unix epoch.
    pub(crate) since: Option<u64>,
    /// First millisecond that is not wanted any more.
    pub(crate) until: Option<u64>,
    /// Name or access key of who did it; `anonymous` and `endpoint` as well.
    pub(crate) operator: Option<String>,
    pub(crate) node: Option<String>,
    /// With or without its service.
    pub(crate) operation: Option<String>,
    /// `ok`, `error` for everything else, or a code.
    pub(crate) result: Option<String>,
    pub(crate) session: Option<String>,
    pub(crate) command: Option<String>,
    /// Checkpoints as well: all lines together are the log, which can be verified.
    pub(crate) with_checkpoints: bool,
}

/// Some records.
#[derive(Debug)]
pub(crate) struct AuditPage {
    /// Lines, without line feeds.
    pub(crate) records: Vec<String>,
    pub(crate) next: Position,
    /// Nothing follows now.
    pub(crate) is_end: bool,
}

impl AuditLog {
    /// The records behind a place, or from the begin, at most `limit`. An empty page need not be the end.
    pub(crate) async fn page(
        &self,
        filter: AuditFilter,
        from: Option<Position>,
        limit: usize,
    ) -> Result<AuditPage, SegmentError> {
        let log = self.clone();
        let read = tokio::task::spawn_blocking(move || log.read_page(&filter, from, limit));
        match read.await {
            Ok(page) => page,
            Err(stopped) => Err(failed("read", self.dir())(io::Error::other(stopped))),
        }
    }

    /// The commands and nodes whose `command-ended` stands in this segment or behind. They outlive a power cut when this
    /// returns.
    pub(crate) async fn ended_commands(
        &self,
        segment: u64,
    ) -> Result<BTreeSet<(String, String)>, SegmentError> {
        let log = self.clone();
        let read = tokio::task::spawn_blocking(move || log.read_ended_commands(segment));
        match read.await {
            Ok(ended) => ended,
            Err(stopped) => Err(failed("read", self.dir())(io::Error::other(stopped))),
        }
    }

    fn read_ended_commands(&self, segment: u64) -> Result<BTreeSet<(String, String)>, SegmentError> {
        let filter = AuditFilter {
            operation: Some(EventKind::CommandEnded.as_str().to_owned()),
            ..AuditFilter::default()
        };
        let numbers = numbers(self.dir())?;
        let Some(first) = numbers.first() else {
            return Ok(BTreeSet::new());
        };
        let mut next = Position {
            segment: segment.max(*first),
            offset: 0,
        };
        let mut ended = BTreeSet::new();
        loop {
            let page = self.read_page(&filter, Some(next), usize::MAX)?;
            for record in page.records {
                // a line that cannot be read is found as well
                if let Ok(line) = Line::parse(format!("{record}\n").as_bytes())
                    && let Body::Event(event) = line.body
                    && let Event {
                        command: Some(command),
                        nodes,
                        ..
                    } = *event
                {
                    ended.extend(nodes.into_iter().map(|node| (command.clone(), node)));
                }
            }
            if page.is_end {
                break;
            }
            next = page.next;
        }
        for number in numbers.into_iter().filter(|number| *number >= segment) {
            let path = path_of(self.dir(), number);
            let synced = File::open(&path).and_then(|file| file.sync_data());
            synced.map_err(failed("sync", &path))?;
        }
        Ok(ended)
    }

    fn read_page(
        &self,
        filter: &AuditFilter,
        from: Option<Position>,
        limit: usize,
    ) -> Result<AuditPage, SegmentError> {
        let end = self.end();
        let first = || numbers(self.dir()).map(|numbers| numbers.first().copied().unwrap_or(1));
        let mut page = AuditPage {
            records: Vec::new(),
            next: match from {
                Some(from) => from,
                None => Position {
                    segment: first()?,
                    offset: 0,
                },
            },
            is_end: false,
        };
        let mut taken = 0;
        let mut looked_at = 0;
        loop {
            let Position { segment, offset } = page.next;
            if (segment, offset) >= end {
                page.is_end = true;
                return Ok(page);
            }
            if page.records.len() >= limit || taken >= MOST_PAGE_BYTES || looked_at >= MOST_LOOKED_AT {
                return Ok(page);
            }
            let path = path_of(self.dir(), segment);
            let stop = if segment == end.0 { end.1 } else { u64::MAX };
            let piece = read_piece(&path, offset, stop).map_err(failed("read", &path))?;
            if piece.is_empty() {
                page.next = Position {
                    segment: segment + 1,
                    offset: 0,
                };
                continue;
            }
            for line in piece.split_inclusive(|byte| *byte == b'\n') {
                if page.records.len() >= limit || taken >= MOST_PAGE_BYTES {
                    break;
                }
                let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
                page.next.offset += length;
                looked_at += length;
                if filter.wants(line) {
                    taken += line.len();
                    page.records
                        .push(String::from_utf8_lossy(line).trim_end().to_owned());
                }
            }
        }
    }
}

/// Whole lines; the last one of a log that was damaged may have no end.
fn read_piece(path: &Path, offset: u64, stop: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let most = u64::try_from(PIECE_BYTES).unwrap_or(u64::MAX);
    let mut piece = Vec::new();
    file.take(most.min(stop.saturating_sub(offset)))
        .read_to_end(&mut piece)?;
    if let Some(end) = piece.iter().rposition(|byte| *byte == b'\n') {
        piece.truncate(end + 1);
    }
    Ok(piece)
}

impl AuditFilter {
    /// A line that cannot be read is wanted: whoever looks should see it.
    fn wants(&self, line: &[u8]) -> bool {
        let is_outside = |time: u64| {
            self.since.is_some_and(|since| time < since) || self.until.is_some_and(|until| time >= until)
        };
        if Line::time_of(line).is_some_and(|time| is_outside(time.unix_millis())) {
            return false;
        }
        let Ok(line) = Line::parse(line) else {
            return true;
        };
        match line.body {
            Body::Checkpoint { .. } => self.with_checkpoints,
            Body::Event(event) => self.wants_event(&event),
        }
    }

    fn wants_event(&self, event: &Event) -> bool {
        fn is(wanted: Option<&String>, found: impl FnOnce(&str) -> bool) -> bool {
            wanted.is_none_or(|wanted| found(wanted))
        }
        let result = event.result.as_deref();
        is(self.operator.as_ref(), |wanted| {
            let kind = format!("{:?}", event.by.kind).to_lowercase();
            event.by.name == wanted || event.by.access_key.as_deref() == Some(wanted) || kind == wanted
        }) && is(self.node.as_ref(), |wanted| {
            event.nodes.iter().any(|node| node == wanted) || event.by.name == wanted
        }) && is(self.operation.as_ref(), |wanted| {
            event.operation.as_deref().is_some_and(|operation| {
                operation == wanted || operation.split_once(':').is_some_and(|(_, name)| name == wanted)
            }) || event.event.as_str() == wanted
        }) && is(self.result.as_ref(), |wanted| match wanted {
            "ok" => went_well(event),
            "error" => result.is_some() && !went_well(event),
            code => result == Some(code),
        }) && is(self.session.as_ref(), |wanted| {
            event.session.as_deref() == Some(wanted)
        }) && is(self.command.as_ref(), |wanted| {
            event.command.as_deref() == Some(wanted)
        })
    }
}

/// Calls say `ok`; sessions and commands end with a status of their own.
fn went_well(event: &Event) -> bool {
    match (&event.event, event.result.as_deref()) {
        (EventKind::SessionEnded, Some(status)) => status == SessionStatus::Terminated.as_str(),
        (EventKind::CommandEnded, Some(details)) => details == Outcome::Success.details(),
        (_, result) => result == Some("ok"),
    }
}
