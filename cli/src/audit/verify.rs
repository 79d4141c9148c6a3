//! `moorline audit verify`: public keys and a file, no endpoint.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use moorline_protocol::{
    audit::{Outcome, Verifier},
    public_keys::{Keys, MAX_KEYS_BYTES},
};
use serde_json::json;

use crate::{console, counted::counted, error::CliError};

const EXIT_ALTERED: u8 = 1;
const EXIT_UNREADABLE: u8 = 2;
/// Read at a time.
const PIECE_BYTES: usize = 256 * 1024;

pub(super) fn execute(file: &Path, keys: &Path, json: bool) -> Result<u8, CliError> {
    let outcome = match read_keys(keys).and_then(|keys| read(file, &keys)) {
        Ok(outcome) => outcome,
        Err(unreadable) => {
            show_unreadable(file, &unreadable, json)?;
            return Ok(EXIT_UNREADABLE);
        }
    };
    if outcome.is_no_log {
        show_unreadable(file, "it is no audit log", json)?;
        return Ok(EXIT_UNREADABLE);
    }
    if json {
        console::print_json(&as_json(&outcome))?;
    } else {
        show(file, &outcome)?;
    }
    Ok(if outcome.is_intact() { 0 } else { EXIT_ALTERED })
}

fn read_keys(path: &Path) -> Result<Keys, String> {
    let said =
        |error: &dyn std::fmt::Display| format!("the keys in {} cannot be used: {error}", path.display());
    let file = File::open(path).map_err(|error| said(&error))?;
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_KEYS_BYTES).unwrap_or(u64::MAX);
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| said(&error))?;
    Keys::parse(&bytes).map_err(|error| said(&error))
}

fn read(path: &Path, keys: &Keys) -> Result<Outcome, String> {
    let read = || -> io::Result<Outcome> {
        let mut file = File::open(path)?;
        let mut verifier = Verifier::new(keys);
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let length = file.read(&mut piece)?;
            if length == 0 {
                return Ok(verifier.finish());
            }
            verifier.push(piece.get(..length).unwrap_or_default());
        }
    };
    read().map_err(|error| error.to_string())
}

fn show_unreadable(file: &Path, why: &str, json: bool) -> Result<(), CliError> {
    if json {
        return console::print_json(&json!({"Verdict": "unreadable", "Reason": why}));
    }
    console::print_line(&format!("{}: unreadable: {why}", file.display()))
}

fn show(file: &Path, outcome: &Outcome) -> Result<(), CliError> {
    let file = file.display();
    for finding in &outcome.findings {
        console::print_line(&format!("{file}: {finding}"))?;
    }
    let kept = u64::try_from(outcome.findings.len()).unwrap_or(u64::MAX);
    if outcome.faults > kept {
        let more = counted(outcome.faults - kept, "more place");
        console::print_line(&format!("{file}: and {more}"))?;
    }
    if outcome.clock_went_back > 0 {
        let count = outcome.clock_went_back;
        console::print_line(&format!(
            "{file}: remark: the endpoint's clock was set back before {count} of its lines"
        ))?;
    }
    let verdict = if outcome.is_intact() { "intact" } else { "altered" };
    let last = outcome
        .last
        .map(|(index, hash)| format!("; the last is record {index}, hash {hash}"));
    console::print_line(&format!(
        "{file}: {verdict}: {} and {}{}",
        counted(outcome.events, "record"),
        counted(outcome.checkpoints, "checkpoint"),
        last.unwrap_or_default()
    ))
}

fn as_json(outcome: &Outcome) -> serde_json::Value {
    let findings: Vec<_> = outcome
        .findings
        .iter()
        .map(|finding| json!({"Line": finding.line, "Fault": finding.fault.to_string()}))
        .collect();
    json!({
        "Verdict": if outcome.is_intact() { "intact" } else { "altered" },
        "Findings": findings,
        "Faults": outcome.faults,
        "Records": outcome.events,
        "Checkpoints": outcome.checkpoints,
        "LastIndex": outcome.last.map(|(index, _)| index),
        "LastHash": outcome.last.map(|(_, hash)| hash.to_string()),
        "ClockWentBack": outcome.clock_went_back,
    })
}
