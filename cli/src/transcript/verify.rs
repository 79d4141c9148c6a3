//! `moorline transcript verify`: without a server, by public keys only.

use std::{fs::File, io::Read, path::Path};

use moorline_protocol::{
    public_keys::{Keys, MAX_KEYS_BYTES},
    transcript::{Ending, Outcome, Verdict, Verifier},
};
use serde_json::json;

use crate::{
    console::{self, one_line},
    error::CliError,
};

/// What is read at once, in bytes.
const PIECE_BYTES: usize = 256 * 1024;
const ALTERED: u8 = 1;
const UNREADABLE: u8 = 2;

/// Exit code 0 if it is intact, 1 if it was altered, 2 if it or the keys cannot be read.
pub(super) fn execute(path: &Path, keys: &Path, json: bool) -> Result<u8, CliError> {
    let outcome = match read_keys(keys).and_then(|keys| verify(path, keys)) {
        Ok(outcome) => outcome,
        Err(error) => {
            console::complain(&error);
            return Ok(UNREADABLE);
        }
    };
    if json {
        console::print_json(&as_json(&outcome))?;
    } else {
        console::print(&as_text(path, &outcome))?;
    }
    Ok(match outcome.verdict {
        Verdict::Intact(_) => 0,
        Verdict::Altered => ALTERED,
        Verdict::Unreadable(_) => UNREADABLE,
    })
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
    loop {
        let length = file.read(&mut piece).map_err(failed)?;
        if length == 0 {
            return Ok(verifier.finish());
        }
        verifier.push(piece.get(..length).unwrap_or_default());
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
            format!("{file}: intact: {of}, {} records, {end}\n", outcome.records)
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
