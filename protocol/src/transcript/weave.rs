//! An export: the recording with the endpoint's lines in it.

use std::collections::VecDeque;

use super::{
    line::Line,
    lines::{Cut, Lines},
};

/// Puts each line of the endpoint behind the seal that it is for, and the close at the end. What is not understood stays
/// where it is: what an export is worth says its verification.
#[derive(Debug)]
pub struct Weaver {
    lines: Lines,
    /// With the record that each stands for; the close has none.
    waiting: VecDeque<(Option<u64>, String)>,
}

impl Weaver {
    /// With the endpoint's lines of this recording, in their order, with or without line feeds.
    #[must_use]
    pub fn new(lines: impl IntoIterator<Item = String>) -> Self {
        let waiting = lines.into_iter().map(|mut line| {
            if !line.ends_with('\n') {
                line.push('\n');
            }
            let record = match Line::parse(line.as_bytes()) {
                Ok(Line::Endpoint(endpoint)) if endpoint.ending.is_none() => Some(endpoint.record),
                _ => None,
            };
            (record, line)
        });
        Self {
            lines: Lines::default(),
            waiting: waiting.collect(),
        }
    }

    /// Takes the recording's next bytes, cut anywhere; writes the export's next bytes.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some(cut) = self.lines.next(&mut rest) {
            let (Cut::Line(part) | Cut::Overlong { part, .. }) = cut;
            out.extend_from_slice(part);
            let Ok(Line::Seal(seal)) = Line::parse(part) else {
                continue;
            };
            while let Some((_, line)) = self
                .waiting
                .pop_front_if(|(record, _)| record.is_some_and(|record| record <= seal.record))
            {
                out.extend_from_slice(line.as_bytes());
            }
        }
    }

    /// The recording ends here: writes what is left.
    pub fn finish(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.lines.partial());
        for (_, line) in self.waiting {
            out.extend_from_slice(line.as_bytes());
        }
    }
}
