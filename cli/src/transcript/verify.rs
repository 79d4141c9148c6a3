//! `moorline transcript verify`: without a server, by public keys only.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use moorline_protocol::{
    public_keys::{Keys, MAX_KEYS_BYTES},
    transcript::{Ending, Outcome, PartFinding, Verdict, Verifier, check_parts},
};
use serde_json::json;

use super::bundle;
use crate::{
    console::{self, one_line},
    counted::counted,
    error::CliError,
};

/// What is read at once, in bytes.
const PIECE_BYTES: usize = 256 * 1024;
const ALTERED: u8 = 1;
const UNREADABLE: u8 = 2;

/// Exit code 0 if all are intact, 1 if one was altered or is missing, 2 if one or the keys cannot be read.
pub(super) fn execute(paths: &[PathBuf], keys: &Path, json: bool) -> Result<u8, CliError> {
    let read = || {
        let keys = read_keys(keys)?;
        paths.iter().map(|path| verify(path, keys.clone())).collect()
    };
    let outcomes: Vec<Outcome> = match read() {
        Ok(outcomes) => outcomes,
        Err(error) => {
            console::complain(&error);
            return Ok(UNREADABLE);
        }
    };
    let parts = match outcomes.len() {
        1 => Vec::new(),
        _ => check_parts(&outcomes),
    };
    match (outcomes.as_slice(), json) {
        ([only], true) => console::print_json(&as_json(only))?,
        (_, true) => {
            let files: Vec<_> = outcomes.iter().map(as_json).collect();
            let part =
                |one: &PartFinding| json!({"SessionId": one.id.as_str(), "What": one.fault.to_string()});
            let parts: Vec<_> = parts.iter().map(part).collect();
            console::print_json(&json!({"Files": files, "Parts": parts}))?;
        }
        (_, false) => {
            for (path, outcome) in paths.iter().zip(&outcomes) {
                console::print(&as_text(path, outcome))?;
            }
            for PartFinding { id, fault } in &parts {
                console::print(&format!("{}: {fault}\n", id.as_str()))?;
            }
        }
    }
    let code = |outcome: &Outcome| match outcome.verdict {
        Verdict::Intact(_) => 0,
        Verdict::Altered => ALTERED,
        Verdict::Unreadable(_) => UNREADABLE,
    };
    let worst = outcomes.iter().map(code).max().unwrap_or(0);
    Ok(worst.max(if parts.is_empty() { 0 } else { ALTERED }))
}

fn read_keys(path: &Path) -> Result<Keys, CliError> {
    let mut file = Vec::new();
    File::open(path)
        .and_then(|keys| keys.take(MAX_KEYS_BYTES as u64 + 1).read_to_end(&mut file))
        .map_err(|source| CliError::io(format!("read {}", path.display()), source))?;
    Keys::parse(&file).map_err(|error| CliError::Transcript(format!("{}: {error}", path.display())))
}

fn verify(path: &Path, keys: Keys) -> Result<Outcome, CliError> {
    let failed = |source| CliError::io(format!("read {}", path.display()), source);
    let mut file = File::open(path).map_err(failed)?;
    let mut verifier = Verifier::new(keys);
    let mut piece = vec![0; PIECE_BYTES];
    let mut is_first = true;
    loop {
        let length = file.read(&mut piece).map_err(failed)?;
        if length == 0 {
            return Ok(verifier.finish());
        }
        let piece = piece.get(..length).unwrap_or_default();
        if is_first {
            bundle::is_none(path, piece)?;
        }
        is_first = false;
        verifier.push(piece);
    }
}

fn as_text(path: &Path, outcome: &Outcome) -> String {
    let mut text = String::new();
    let file = one_line(&path.display().to_string());
    for remark in &outcome.remarks {
        text += &format!(
            "{file}: line {}, record {}: remark: {}\n",
            remark.line, remark.record, remark.what
        );
    }
    for finding in &outcome.findings {
        text += &format!(
            "{file}: line {}, record {}: {}\n",
            finding.line, finding.record, finding.fault
        );
    }
    let of = outcome.header.as_ref().map_or_else(String::new, |header| {
        let origin = &header.origin;
        let operator = origin
            .operator
            .as_deref()
            .unwrap_or("an operator that is not named");
        one_line(&format!("{} on {} by {operator}", origin.id, origin.node))
    });
    text + &match outcome.verdict {
        Verdict::Intact(ending) => {
            let end = match ending {
                Ending::Complete => "complete",
                Ending::Cut => "cut: how it ended was not recorded",
            };
            let beside = match (outcome.follows_another(), outcome.continues) {
                (false, false) => "",
                _ => "; it is one part of a command: give all of them, and a missing one is found",
            };
            format!(
                "{file}: intact: {of}, {}, {end}{beside}\n",
                counted(outcome.records, "record")
            )
        }
        Verdict::Altered if outcome.found > outcome.findings.len() as u64 => format!(
            "{file}: altered: {of}, in {} places, of which the first {} are told\n",
            outcome.found,
            outcome.findings.len()
        ),
        Verdict::Altered => format!("{file}: altered: {of}\n"),
        Verdict::Unreadable(error) => {
            format!("{file}: unreadable: line 1 is no header of a transcript: {error}\n")
        }
    }
}

fn as_json(outcome: &Outcome) -> serde_json::Value {
    let (verdict, ending) = match outcome.verdict {
        Verdict::Intact(ending) => ("intact", Some(ending.to_string())),
        Verdict::Altered => ("altered", None),
        Verdict::Unreadable(_) => ("unreadable", None),
    };
    let place = |line, record, what: String| json!({"Line": line, "Record": record, "What": what});
    json!({
        "Verdict": verdict,
        "Ending": ending,
        "SessionId": outcome.header.as_ref().map(|header| header.origin.id.as_str()),
        "Node": outcome.header.as_ref().map(|header| header.origin.node.as_str()),
        "Records": outcome.records,
        "Findings": outcome.findings.iter().map(|one| place(one.line, one.record, one.fault.to_string())).collect::<Vec<_>>(),
        "Found": outcome.found,
        "Remarks": outcome.remarks.iter().map(|one| place(one.line, one.record, one.what.to_string())).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_bundle_it_is_said_what_to_verify() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session.tar");
        let mut archive = vec![0; 512];
        archive[257..262].copy_from_slice(b"ustar");
        std::fs::write(&path, archive).unwrap();
        let refused = verify(&path, Keys::default()).unwrap_err().to_string();
        assert!(refused.contains("transcript/session.cast"), "{refused}");
    }
}
