//! Reads a log from front to back and names every place where it is not what the endpoint wrote.

use super::line::{Digest, FormError, MAX_LINE_BYTES, Sort, Time, signed_text, sort};
use crate::public_keys::{KeyId, Keys};

/// Places that are kept; of the others it is known how many there are.
const MOST_FINDINGS: usize = 1000;

/// What is wrong at a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is no line of a log.
    #[error("it is no line of an audit log: {0}")]
    Form(FormError),
    /// Lines are missing, or were added or moved.
    #[error("it is record {found} where record {expected} belongs: records were removed, added or moved")]
    Index {
        /// What belongs here.
        expected: u64,
        /// What is here.
        found: u64,
    },
    /// The line before is not the one that this one was written behind.
    #[error("it was written behind another line than the one before it: one of the two was altered")]
    Previous,
    /// The key is not among those that are trusted.
    #[error("its key {0} is none of the endpoint's keys")]
    UnknownKey(KeyId),
    /// It, or something before it, is not what was signed.
    #[error("its signature is not that of key {0}: it was altered, or signed by somebody else")]
    Signature(KeyId),
    /// Nobody signed what comes last.
    #[error("the log does not end with a checkpoint: nobody has signed what stands behind record {0}")]
    End(u64),
    /// There is nothing.
    #[error("there is no line in it")]
    Empty,
}

/// A place where the log was altered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct Finding {
    /// Counts from 1.
    pub line: u64,
    /// What is wrong there.
    pub fault: Fault,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The places, in order; the first thousand.
    pub findings: Vec<Finding>,
    /// How many there are.
    pub faults: u64,
    /// Events that were read.
    pub events: u64,
    /// Checkpoints that were read.
    pub checkpoints: u64,
    /// The last line of the log: its index and hash. Whoever notes them can tell a later log that was cut at an earlier
    /// checkpoint.
    pub last: Option<(u64, Digest)>,
    /// Lines (not indices) whose time lies before that of the line before them: the endpoint's clock was set. No
    /// alteration.
    pub clock_went_back: u64,
    /// No line of an audit log was in it.
    pub is_no_log: bool,
}

impl Outcome {
    /// The log is what the endpoint wrote.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.faults == 0
    }
}

/// Takes a log piece by piece, in bounded memory.
#[derive(Debug)]
pub struct Verifier<'k> {
    keys: &'k Keys,
    /// A line that has not ended yet.
    partial: Vec<u8>,
    /// The rest of a line that is too long is skipped.
    is_skipping: bool,
    line: u64,
    next_index: u64,
    /// `None`: of a line that was too long to be kept.
    previous: Option<Digest>,
    time: Option<Time>,
    /// Index of the last checkpoint that was good.
    signed: u64,
    ends_signed: bool,
    outcome: Outcome,
}

impl<'k> Verifier<'k> {
    /// For a log of the endpoint that has these keys.
    #[must_use]
    pub fn new(keys: &'k Keys) -> Self {
        Self {
            keys,
            partial: Vec::new(),
            is_skipping: false,
            line: 0,
            next_index: 1,
            previous: Some(Digest::default()),
            time: None,
            signed: 0,
            ends_signed: false,
            outcome: Outcome::default(),
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let Some((line, rest)) = bytes.split_at_checked(end + 1) else {
                return;
            };
            bytes = rest;
            if std::mem::take(&mut self.is_skipping) {
                continue;
            }
            if self.partial.is_empty() {
                self.take(line);
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                self.take(&whole);
            }
        }
        if self.is_skipping {
            return;
        }
        self.partial.extend_from_slice(bytes);
        if self.partial.len() > MAX_LINE_BYTES {
            let too_long = std::mem::take(&mut self.partial);
            self.take(&too_long);
            self.is_skipping = true;
        }
    }

    /// The log is over.
    #[must_use]
    pub fn finish(mut self) -> Outcome {
        let cut = std::mem::take(&mut self.partial);
        if !cut.is_empty() {
            self.take(&cut);
        }
        if self.line == 0 {
            self.find(Fault::Empty);
        } else if !self.ends_signed {
            self.find(Fault::End(self.signed));
        }
        self.outcome.is_no_log = self.outcome.events + self.outcome.checkpoints == 0;
        self.outcome
    }

    fn find(&mut self, fault: Fault) {
        self.outcome.faults += 1;
        if self.outcome.findings.len() < MOST_FINDINGS {
            let line = self.line;
            self.outcome.findings.push(Finding { line, fault });
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.line += 1;
        self.ends_signed = false;
        let (line, sort) = match sort(bytes) {
            Ok(read) => read,
            Err(error) => {
                self.find(Fault::Form(error));
                // What comes next tells whether anything else is wrong.
                self.next_index += 1;
                self.previous = (error != FormError::TooLong).then(|| Digest::of_line(bytes));
                return;
            }
        };
        if line.index != self.next_index {
            self.find(Fault::Index {
                expected: self.next_index,
                found: line.index,
            });
        }
        if Some(line.previous) != self.previous {
            self.find(Fault::Previous);
        }
        if self.time.is_some_and(|before| line.time < before) {
            self.outcome.clock_went_back += 1;
        }
        self.next_index = line.index.saturating_add(1);
        let hash = Digest::of_line(bytes);
        self.previous = Some(hash);
        self.time = Some(line.time);
        self.outcome.last = Some((line.index, hash));
        match sort {
            Sort::Event => self.outcome.events += 1,
            Sort::Checkpoint { key, signature } => {
                self.outcome.checkpoints += 1;
                self.check(bytes, line.index, key, &signature);
            }
        }
    }

    fn check(&mut self, bytes: &[u8], index: u64, key: KeyId, signature: &[u8; 64]) {
        let Some(public) = self.keys.of_endpoint(key) else {
            self.find(Fault::UnknownKey(key));
            return;
        };
        let is_good = signed_text(bytes).is_some_and(|text| public.has_signed(&text, signature));
        if is_good {
            self.signed = index;
            self.ends_signed = true;
        } else {
            self.find(Fault::Signature(key));
        }
    }
}
