//! Everything that can be done to a recording, with the place where it is done.

use std::ops::RangeInclusive;

use crate::recording::{Recording, Role};

/// A file that was altered.
pub(crate) struct Case {
    /// What was done, for the message of a test that fails.
    pub(crate) what: String,
    pub(crate) file: Vec<u8>,
    /// Where the first finding must be: lines from 1, and records.
    pub(crate) lines: RangeInclusive<u64>,
    pub(crate) records: RangeInclusive<u64>,
}

fn number(index: usize) -> u64 {
    index as u64 + 1
}

fn cases_of(base: &Recording) -> impl Iterator<Item = (usize, Role, u64)> {
    let roles = base.roles.iter().enumerate();
    roles.map(|(index, (role, record))| (index, *role, *record))
}

/// The line of this record's seal, or behind the last line if it has none.
fn seal_of(base: &Recording, record: u64) -> u64 {
    let seal = base.roles.iter().position(|role| *role == (Role::Seal, record));
    number(seal.unwrap_or(base.lines.len()))
}

/// Where an alteration of one line is found: in it or at the seal of its record. One that stands between two records may
/// become part of the next.
fn place(base: &Recording, index: usize) -> (RangeInclusive<u64>, RangeInclusive<u64>) {
    let (role, record) = base.roles[index];
    let line = number(index);
    match role {
        Role::Event => (line..=seal_of(base, record), record..=record),
        // one that is no seal any more is missed by what follows: a countersignature, or the next seal
        Role::Seal => (line..=seal_of(base, record + 1), record..=record),
        Role::Endpoint => (line..=seal_of(base, record + 1), record..=record + 1),
    }
}

/// Each bit of each byte, turned, from a line on.
pub(crate) fn bits(base: &Recording, first: usize) -> Vec<Case> {
    let bytes = base.bytes();
    let mut cases = Vec::new();
    let mut begin = 0;
    for (index, line) in base.lines.iter().enumerate() {
        let (lines, records) = place(base, index);
        for at in begin..begin + if index < first { 0 } else { line.len() } {
            for bit in 0..8 {
                let mut file = bytes.clone();
                file[at] ^= 1 << bit;
                cases.push(Case {
                    what: format!("bit {bit} of byte {at}"),
                    file,
                    lines: lines.clone(),
                    records: records.clone(),
                });
            }
        }
        begin += line.len();
    }
    cases
}

/// The end, cut off at each byte and so at each record.
pub(crate) fn truncations(base: &Recording) -> Vec<Case> {
    let bytes = base.bytes();
    let mut cases = Vec::new();
    let mut begin = 0;
    for (index, line) in base.lines.iter().enumerate() {
        let (_, record) = base.roles[index];
        for at in begin..begin + line.len() {
            cases.push(Case {
                what: format!("cut off at byte {at}"),
                file: bytes[..at].to_vec(),
                lines: number(index)..=number(index),
                // what is not whole of a line between two records begins the next
                records: record.saturating_sub(1).max(1)..=record + 1,
            });
        }
        begin += line.len();
    }
    cases
}

/// Lines and records that are missing, doubled, or in another place.
pub(crate) fn rearrangements(base: &Recording) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case =
        |what: String, lines: Vec<Vec<u8>>, at: RangeInclusive<u64>, records: RangeInclusive<u64>| {
            cases.push(Case {
                what,
                file: lines.concat(),
                lines: at,
                records,
            });
        };
    let end = number(base.lines.len());
    for (index, role, record) in cases_of(base) {
        let line = number(index);
        let (lines, records) = place(base, index);
        let mut without = base.lines.clone();
        without.remove(index);
        // what comes next of its kind tells that it is missing
        let (last, places) = match role {
            Role::Event => (*lines.end(), record.max(2) - 1..=record),
            Role::Seal => (*lines.end(), record..=record),
            Role::Endpoint => (end, record..=5),
        };
        case(format!("without line {line}"), without, line..=last, places);

        let mut doubled = base.lines.clone();
        doubled.insert(index, base.lines[index].clone());
        case(
            format!("line {line} twice"),
            doubled,
            line..=*lines.end() + 1,
            records.clone(),
        );

        if index + 1 < base.lines.len() {
            let mut swapped = base.lines.clone();
            swapped.swap(index, index + 1);
            let last = (*lines.end()).max(*place(base, index + 1).0.end()) + 1;
            case(
                format!("line {line} and the next, swapped"),
                swapped,
                line..=last,
                record.max(2) - 1..=record + 1,
            );
        }
    }
    for record in 1..=4 {
        let range = base.record(record);
        let begin = number(range.start);
        let mut without = base.lines.clone();
        let taken: Vec<Vec<u8>> = without.drain(range.clone()).collect();
        if record < 4 {
            let mut moved = without.clone();
            let next = base.record(record + 1).len();
            moved.splice(range.start + next..range.start + next, taken.clone());
            case(
                format!("record {record} behind the next"),
                moved,
                begin..=end,
                record..=record,
            );
        }
        case(
            format!("without record {record}"),
            without,
            begin..=end,
            record.max(2) - 1..=record,
        );
        let mut again = base.lines.clone();
        again.splice(range.end..range.end, taken);
        case(
            format!("record {record} again"),
            again,
            number(range.end)..=end + 4,
            record..=record + 1,
        );
    }
    cases
}

/// Parts of another recording, by the same node and endpoint, and of this one where they do not belong.
pub(crate) fn splices(base: &Recording, other: &Recording) -> Vec<Case> {
    let mut cases = Vec::new();
    for record in 1..=4 {
        let (here, there) = (base.record(record), other.record(record));
        let mut replaced = base.lines.clone();
        replaced.splice(here.clone(), other.lines[there.clone()].to_vec());
        // with its first record the file claims to be the other recording, and the rest is foreign
        let foreign = record.max(2);
        let place = base.record(foreign);
        let place = number(place.start)..=number(place.end);
        cases.push(Case {
            what: format!("record {record} of another recording"),
            file: replaced.concat(),
            lines: place.clone(),
            records: foreign..=foreign,
        });
        if record > 1 {
            let continued = [&base.lines[..here.start], &other.lines[there.start..]].concat();
            cases.push(Case {
                what: format!("another recording from record {record} on"),
                file: continued.concat(),
                lines: place,
                records: record..=record,
            });
        }
        let closed_early = [&base.lines[..here.end], &base.lines[base.lines.len() - 1..]].concat();
        if record < 4 || base.record(4).end + 1 < base.lines.len() {
            cases.push(Case {
                what: format!("the close behind record {record}"),
                file: closed_early.concat(),
                lines: number(here.end)..=number(here.end),
                records: record..=record,
            });
        }
    }
    for (what, tail) in [("itself", base), ("another", other)] {
        cases.push(Case {
            what: format!("the recording and {what}"),
            file: [base.bytes(), tail.bytes()].concat(),
            lines: number(base.lines.len())..=number(base.lines.len()),
            records: 4..=5,
        });
    }
    cases
}
