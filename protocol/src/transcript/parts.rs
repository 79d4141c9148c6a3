//! Parts of one command on one node: each reboot that it asked for ends a recording, and begins another.

use std::collections::BTreeMap;

use super::{
    header::{Header, RecordingId, RecordingKind},
    verify::Outcome,
};

/// What is wrong with a part among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PartFault {
    /// Two of them have the same number.
    #[error("part {0} is there twice")]
    Twice(u32),
    /// It follows one that is not there.
    #[error("part {0}, which it follows, is not there")]
    NoPartBefore(u32),
    /// It says that it goes on in one that is not there.
    #[error("part {0}, in which it goes on, is not there")]
    NoPartAfter(u32),
    /// It was made to follow another recording than the part before.
    #[error("it does not follow part {0} as that is here")]
    FollowsAnother(u32),
}

/// A fault, and which of the recordings has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartFinding {
    /// The recording.
    pub id: RecordingId,
    /// What is wrong.
    pub fault: PartFault,
}

/// Finds what is missing, doubled or exchanged among recordings that were verified each by itself. What is no recording
/// of a command has no parts. That none is missing behind the last of encrypted ones cannot be told.
#[must_use]
pub fn check_parts(outcomes: &[Outcome]) -> Vec<PartFinding> {
    let mut found = Vec::new();
    let mut parts: BTreeMap<(&str, u32), (&Header, &Outcome)> = BTreeMap::new();
    for outcome in outcomes {
        let Some(header) = &outcome.header else { continue };
        if header.origin.kind != RecordingKind::Command {
            continue;
        }
        let (invocation, number) = header.origin.id.part();
        if parts.insert((invocation, number), (header, outcome)).is_some() {
            found.push(finding(header, PartFault::Twice(number)));
        }
    }
    for ((invocation, number), (header, outcome)) in &parts {
        if *number > 1 {
            let before = number - 1;
            match parts.get(&(*invocation, before)) {
                None => found.push(finding(header, PartFault::NoPartBefore(before))),
                // one that was cut has no successor that knows its end
                Some((_, part)) if header.origin.follows.is_none() && !part.continues => {}
                Some((_, part)) if header.origin.follows == Some(part.hash) => {}
                Some(_) => found.push(finding(header, PartFault::FollowsAnother(before))),
            }
        }
        let after = number.saturating_add(1);
        if outcome.continues && !parts.contains_key(&(*invocation, after)) {
            found.push(finding(header, PartFault::NoPartAfter(after)));
        }
    }
    found
}

fn finding(header: &Header, fault: PartFault) -> PartFinding {
    PartFinding {
        id: header.origin.id.clone(),
        fault,
    }
}
