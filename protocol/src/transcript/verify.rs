//! The auditor's side: it reads an exported transcript once and names every place where something is wrong.
//!
//! What it goes on with behind such a place is chosen so that one alteration is named once, as far as that can be told
//! (docs/transcript-format.md, "What a verifier does").

use crate::public_keys::{Keys, PublicKey};

use super::{
    chain::{Chain, Fault},
    countersign::{Ending, endpoint_text, line_hash},
    header::{Header, HeaderError, RecordingKind},
    line::{Code, EndpointLine, Event, FormError, Line, SealLine},
    lines::{Cut, Lines},
    seal::seal_text,
    word::Digest,
};

/// Findings, and remarks, that are kept; of more only the number is.
const MAX_KEPT: usize = 1000;
/// A line that ends a part has no more.
const MAX_END_BYTES: usize = 512;
/// How far the clocks of node and endpoint may be apart without a remark.
const CLOCK_MILLIS: u64 = 5 * 60 * 1000;

/// Something that was altered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// Which line of the file, from 1. What is missing at the end is told for the line behind the last.
    pub line: u64,
    /// Which record, from 1.
    pub record: u64,
    /// What is wrong.
    pub fault: Fault,
}

/// Something about clocks that is no alteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remark {
    /// Which line of the file, from 1.
    pub line: u64,
    /// Which record, from 1.
    pub record: u64,
    /// What.
    pub what: ClockRemark,
}

/// What a remark is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClockRemark {
    /// A seal is earlier than the one before it.
    #[error("the node's clock went back by {0} ms")]
    NodeWentBack(u64),
    /// A countersignature is earlier than the one before it.
    #[error("the endpoint's clock went back by {0} ms")]
    EndpointWentBack(u64),
    /// A countersignature is far from its seal.
    #[error("the clocks of node and endpoint are {0} ms apart, or the record arrived late")]
    Apart(u64),
}

/// What the whole file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was altered; how the recording ended.
    Intact(Ending),
    /// Something was: see the findings.
    Altered,
    /// It is no transcript.
    Unreadable(HeaderError),
}

/// What was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// In one word.
    pub verdict: Verdict,
    /// The first line, where the file has one.
    pub header: Option<Header>,
    /// Each place, in the order of the file; at most 1000.
    pub findings: Vec<Finding>,
    /// At most 1000.
    pub remarks: Vec<Remark>,
    /// How many findings there are.
    pub found: u64,
    /// The last sealed record.
    pub records: u64,
    /// Bytes of the recording, without lines of the endpoint.
    pub length: u64,
    /// The hash of the last sealed record.
    pub hash: Digest,
    /// It says that the command goes on in another recording.
    pub continues: bool,
}

impl Outcome {
    /// Whether it goes on from another recording, of the same command before a reboot.
    #[must_use]
    pub fn follows_another(&self) -> bool {
        let number = self
            .header
            .as_ref()
            .map(|header| (header.origin.kind, header.origin.id.part().1));
        matches!(number, Some((RecordingKind::Command, 2..)))
    }
}

/// Reads an exported transcript in pieces that are cut anywhere. It holds one line at most.
#[derive(Debug)]
pub struct Verifier {
    keys: Keys,
    lines: Lines,
    body: Option<Body>,
    unreadable: Option<HeaderError>,
}

impl Verifier {
    /// With these keys.
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        Self {
            keys,
            lines: Lines::default(),
            body: None,
            unreadable: None,
        }
    }

    /// Reads what comes next.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while self.unreadable.is_none()
            && let Some(cut) = self.lines.next(&mut rest)
        {
            match (&mut self.body, cut) {
                (Some(body), Cut::Line(line)) => body.line(line, &self.keys),
                (Some(body), Cut::Overlong { part, is_last }) => body.overlong(part, is_last),
                (None, Cut::Line(line)) => match Header::parse(line) {
                    Ok(header) => self.body = Some(Body::new(header, line, &self.keys)),
                    Err(error) => self.unreadable = Some(error),
                },
                (None, Cut::Overlong { .. }) => self.unreadable = Some(HeaderError::Json),
            }
        }
    }

    /// Says what the file is, which ends here.
    #[must_use]
    pub fn finish(self) -> Outcome {
        match (self.body, self.unreadable) {
            (Some(body), None) => body.finish(&self.lines),
            (_, error) => Outcome {
                verdict: Verdict::Unreadable(error.unwrap_or(HeaderError::Json)),
                header: None,
                findings: Vec::new(),
                remarks: Vec::new(),
                found: 0,
                records: 0,
                length: 0,
                hash: Digest::default(),
                continues: false,
            },
        }
    }
}

/// Whether it is the end of a recording that another goes on from. It is a short event.
fn says_that_it_goes_on(event: &Event<'_>, line: &[u8]) -> bool {
    let is_candidate = event.code == Some(Code::Ours) && line.len() <= MAX_END_BYTES;
    is_candidate
        && serde_json::from_str(&event.text()).is_ok_and(|event: serde_json::Value| {
            event.get("event").is_some_and(|name| name == "end")
                && event.get("continues").is_some_and(|continues| continues == true)
        })
}

/// The lines behind the header.
#[derive(Debug)]
struct Body {
    header: Header,
    node_key: Option<PublicKey>,
    chain: Chain,
    /// The number of the line that is read.
    line: u64,
    /// The line before is a seal.
    is_behind_seal: bool,
    length: u64,
    /// No finding says that bytes may have been added or taken since a countersignature told the length.
    is_length_known: bool,
    endpoint: EndpointLines,
    node_millis: u64,
    endpoint_millis: u64,
    closed: Option<Ending>,
    continues: bool,
    findings: Vec<Finding>,
    found: u64,
    remarks: Vec<Remark>,
}

/// The chain of the endpoint's lines. Behind one that is not the endpoint's nobody knows how it goes on.
#[derive(Debug)]
struct EndpointLines {
    last: Option<(u64, Digest)>,
    /// The last record that was countersigned.
    record: u64,
}

impl Body {
    fn new(header: Header, line: &[u8], keys: &Keys) -> Self {
        let node = header.origin.node.parse().ok();
        let node_key = node.and_then(|node| keys.of_node(&node, header.origin.node_key));
        let mut body = Self {
            header,
            node_key,
            chain: Chain::after(0, Digest::default()),
            line: 1,
            is_behind_seal: false,
            length: 0,
            is_length_known: true,
            endpoint: EndpointLines {
                last: Some((0, Digest::default())),
                record: 0,
            },
            node_millis: 0,
            endpoint_millis: 0,
            closed: None,
            continues: false,
            findings: Vec::new(),
            found: 0,
            remarks: Vec::new(),
        };
        body.event(line);
        if node_key.is_none() {
            body.find(Fault::UnknownNodeKey);
        }
        body
    }

    fn line(&mut self, line: &[u8], keys: &Keys) {
        if self.is_over() {
            return;
        }
        match Line::parse(line) {
            Ok(Line::Event(event)) => {
                self.event(line);
                self.continues |= says_that_it_goes_on(&event, line);
            }
            Ok(Line::Seal(seal)) => self.seal(&seal, line),
            Ok(Line::Endpoint(endpoint)) => self.endpoint(&endpoint, line, keys),
            Err(FormError::Event) => {
                self.event(line);
                self.find(FormError::Event.into());
            }
            Err(FormError::Seal) => {
                self.find(FormError::Seal.into());
                self.length += line.len() as u64;
                self.seal_is_not_the_nodes();
            }
            Err(FormError::Endpoint) => {
                self.find(FormError::Endpoint.into());
                self.endpoint.last = None;
                self.is_behind_seal = false;
            }
        }
    }

    fn overlong(&mut self, part: &[u8], is_last: bool) {
        if self.closed.is_some() {
            if is_last {
                self.is_over();
            }
            return;
        }
        self.event(part);
        if is_last {
            self.line += 1;
            self.find(Fault::Overlong);
        }
    }

    /// Counts the line. Whether it is behind the close, of which only the first such line is told.
    fn is_over(&mut self) -> bool {
        self.line += 1;
        let is_over = self.closed.is_some();
        if is_over
            && self
                .findings
                .last()
                .is_none_or(|last| last.fault != Fault::AfterClose)
        {
            self.find(Fault::AfterClose);
        }
        is_over
    }

    fn event(&mut self, bytes: &[u8]) {
        self.chain.event(bytes);
        self.length += bytes.len() as u64;
        self.is_behind_seal = false;
    }

    fn seal(&mut self, seal: &SealLine, line: &[u8]) {
        self.length += line.len() as u64;
        let text = || seal_text(&self.header.origin.id, &seal.unsigned());
        let is_nodes = self
            .node_key
            .is_none_or(|key| key.has_signed(text().as_bytes(), &seal.signature.0));
        if !is_nodes {
            self.find(Fault::SealSignature);
            self.seal_is_not_the_nodes();
            return;
        }
        if let Err(fault) = self.chain.check(seal) {
            self.find(fault);
            self.is_length_known = false;
        }
        self.chain = Chain::after(seal.record, seal.hash);
        self.is_behind_seal = true;
        if let Some(back @ 1..) = self.node_millis.checked_sub(seal.unix_millis) {
            self.remark(ClockRemark::NodeWentBack(back));
        }
        self.node_millis = seal.unix_millis;
    }

    /// Goes on as if the node had sealed what is there.
    fn seal_is_not_the_nodes(&mut self) {
        if self.chain.open_bytes > 0 {
            self.chain = Chain::after(self.chain.record + 1, self.chain.open_hash());
        }
        self.is_length_known = false;
        self.is_behind_seal = true;
    }

    fn endpoint(&mut self, line: &EndpointLine, bytes: &[u8], keys: &Keys) {
        let is_behind_seal = std::mem::take(&mut self.is_behind_seal);
        let text = endpoint_text(&self.header.origin.id, &line.unsigned());
        let foreign = match keys.of_endpoint(line.key) {
            None => Some(Fault::UnknownEndpointKey),
            Some(key) if !key.has_signed(text.as_bytes(), &line.signature.0) => {
                Some(Fault::EndpointSignature)
            }
            Some(_) => None,
        };
        if let Some(fault) = foreign {
            self.find(fault);
            self.endpoint.last = None;
            return;
        }
        if let Err(fault) = self.check_endpoint(line, is_behind_seal) {
            self.find(fault);
        }
        self.endpoint.last = Some((line.number, line_hash(bytes)));
        self.endpoint.record = line.record;
        self.length = line.length;
        self.is_length_known = true;
        self.closed = line.ending;
        if let Some(back @ 1..) = self.endpoint_millis.checked_sub(line.unix_millis) {
            self.remark(ClockRemark::EndpointWentBack(back));
        }
        self.endpoint_millis = line.unix_millis;
        let apart = line.unix_millis.abs_diff(self.node_millis);
        if is_behind_seal && apart > CLOCK_MILLIS {
            self.remark(ClockRemark::Apart(apart));
        }
    }

    fn check_endpoint(&self, line: &EndpointLine, is_behind_seal: bool) -> Result<(), Fault> {
        let is_in_place = is_behind_seal || line.ending.is_some();
        if !is_in_place || line.record != self.chain.record {
            return Err(Fault::EndpointPlace);
        }
        if let Some((number, previous)) = self.endpoint.last {
            if line.number != number + 1 {
                return Err(Fault::EndpointNumber {
                    found: line.number,
                    expected: number + 1,
                });
            }
            if line.previous != previous {
                return Err(Fault::EndpointPrevious);
            }
        }
        let hash = match self.chain.open_bytes {
            0 => self.chain.hash,
            _ => self.chain.open_hash(),
        };
        if line.hash != hash {
            return Err(Fault::EndpointHash);
        }
        if self.is_length_known && line.length != self.length {
            return Err(Fault::EndpointLength);
        }
        Ok(())
    }

    /// The record that the line is in, or that it stands behind.
    fn record(&self) -> u64 {
        self.chain.record + u64::from(self.chain.open_bytes > 0)
    }

    fn find(&mut self, fault: Fault) {
        self.found += 1;
        if self.findings.len() < MAX_KEPT {
            self.findings.push(Finding {
                line: self.line,
                record: self.record(),
                fault,
            });
        }
    }

    fn remark(&mut self, what: ClockRemark) {
        if self.remarks.len() < MAX_KEPT {
            self.remarks.push(Remark {
                line: self.line,
                record: self.record(),
                what,
            });
        }
    }

    fn finish(mut self, lines: &Lines) -> Outcome {
        if lines.is_inside() && !self.is_over() {
            self.event(lines.partial());
            self.find(Fault::Unfinished);
        }
        if self.closed.is_none() {
            self.line += 1;
            self.find(match self.endpoint.record < self.chain.record {
                true => Fault::NotCountersigned,
                false => Fault::NotClosed,
            });
        }
        let verdict = match self.closed {
            Some(ending) if self.found == 0 => Verdict::Intact(ending),
            _ => Verdict::Altered,
        };
        Outcome {
            verdict,
            header: Some(self.header),
            findings: self.findings,
            remarks: self.remarks,
            found: self.found,
            records: self.chain.record,
            length: self.length,
            hash: self.chain.hash,
            continues: self.continues,
        }
    }
}
