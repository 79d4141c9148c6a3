//! `moorline document lint`: what the endpoint would refuse, and what it would warn of.

use std::path::Path;

use moorline_protocol::{
    document::{CommandDocument, SessionDocument, read_text},
    package::Manifest,
};
use serde::Serialize;
use serde_json::Value;

use super::{content::read_file, options::Kind};
use crate::{
    console::{self, one_line},
    error::CliError,
};

/// The file is no text in JSON or YAML, or not there.
const EXIT_UNREADABLE: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    /// It would be refused.
    Error,
    /// It runs, and had better be changed.
    Warning,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Finding {
    severity: Severity,
    message: String,
}

pub(super) fn execute(file: &Path, kind: Option<Kind>, json: bool) -> Result<u8, CliError> {
    let read = read_file(file).and_then(|text| {
        let value = read_text(&text);
        value.map_err(|error| CliError::Usage(format!("{}: {error}", file.display())))
    });
    let value = match read {
        Ok(value) => value,
        Err(error) => {
            console::complain(&error);
            return Ok(EXIT_UNREADABLE);
        }
    };
    let findings = findings(&value, kind.unwrap_or_else(|| guess(&value)));
    if json {
        console::print_json(&findings)?;
    } else {
        for finding in &findings {
            let severity = match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            let line = format!("{}: {severity}: {}", file.display(), finding.message);
            console::print_line(&one_line(&line))?;
        }
    }
    Ok(u8::from(!findings.is_empty()))
}

/// What a document looks like.
pub(super) fn guess(content: &Value) -> Kind {
    let has = |name: &str| {
        let members = content.as_object();
        members.is_some_and(|members| members.keys().any(|key| key.eq_ignore_ascii_case(name)))
    };
    if has("sessionType") {
        Kind::Session
    } else if has("packages") && has("files") {
        Kind::Package
    } else {
        Kind::Command
    }
}

fn findings(content: &Value, kind: Kind) -> Vec<Finding> {
    let error = |message: String| {
        vec![Finding {
            severity: Severity::Error,
            message,
        }]
    };
    match kind {
        Kind::Session => match SessionDocument::parse(content).and_then(|document| document.check_inputs()) {
            Ok(_) => Vec::new(),
            Err(refusal) => error(refusal.to_string()),
        },
        Kind::Package => match Manifest::parse(&content.to_string()) {
            Ok(_) => Vec::new(),
            Err(refusal) => error(refusal.to_string()),
        },
        Kind::Command | Kind::Policy => match CommandDocument::parse(content) {
            Ok(document) => document
                .warnings()
                .into_iter()
                .map(|message| Finding {
                    severity: Severity::Warning,
                    message,
                })
                .collect(),
            Err(refusal) => error(refusal.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_kind_of_document_is_told_by_its_content_and_judged_as_such() {
        let command = |line: &str| {
            json!({"schemaVersion": "2.2", "parameters": {"p": {"type": "String"}}, "mainSteps": [
                {"action": "aws:runShellScript", "name": "a", "inputs": {"runCommand": [line]}}]})
        };
        let table = [
            (command("true"), Kind::Command, None),
            (command("echo {{ p }}"), Kind::Command, Some(Severity::Warning)),
            (
                json!({"schemaVersion": "2.2"}),
                Kind::Command,
                Some(Severity::Error),
            ),
            (
                json!({"schemaVersion": "1.0", "sessionType": "Standard_Stream"}),
                Kind::Session,
                None,
            ),
            (
                json!({"schemaVersion": "2.0", "version": "1", "packages": {}, "files": {}}),
                Kind::Package,
                Some(Severity::Error),
            ),
        ];
        for (content, kind, expected) in table {
            assert_eq!(guess(&content), kind, "{content}");
            let found = findings(&content, kind);
            let severity = found.first().map(|finding| finding.severity);
            assert_eq!(severity, expected, "{content}: {found:?}");
        }
    }
}
