//! The documents that come with the endpoint: those that stock clients name. Names, parameters and patterns are
//! AWS's, since clients pass them; the wording is ours.

use std::collections::BTreeMap;

use serde_json::Value;

use super::content::sha256_hex;
use crate::store::{BUILT_IN_OWNER, NewDocument, NewVersion};

macro_rules! built_in {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../../documents/", $name, ".json")))),*]
    };
}

const DOCUMENTS: &[(&str, &str)] = built_in![
    "AWS-RunShellScript"
    "AWS-StartInteractiveCommand"
    "AWS-StartNonInteractiveCommand"
    "AWS-StartPortForwardingSession"
    "AWS-StartPortForwardingSessionToRemoteHost"
    "AWS-StartPortForwardingSessionToSocket"
    "AWS-StartSSHSession"
    "SSM-SessionManagerRunShell"
];

/// All of them, ready to be stored.
pub(crate) fn built_in_documents() -> Vec<NewDocument> {
    DOCUMENTS
        .iter()
        .map(|(name, content)| built_in(name, content))
        .collect()
}

/// The built-in document of this name.
pub(super) fn built_in_document(name: &str) -> Option<NewDocument> {
    DOCUMENTS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(name, content)| built_in(name, content))
}

fn built_in(name: &str, content: &str) -> NewDocument {
    let value: Value = serde_json::from_str(content).unwrap_or_default();
    let text = |member: &str| value.get(member).and_then(Value::as_str).map(str::to_owned);
    let document_type = if value.get("sessionType").is_some() {
        "Session"
    } else {
        "Command"
    };
    NewDocument {
        name: name.to_owned(),
        document_type: document_type.to_owned(),
        owner: BUILT_IN_OWNER.to_owned(),
        tags: BTreeMap::new(),
        version: NewVersion {
            schema_version: text("schemaVersion").unwrap_or_default(),
            display_name: None,
            version_name: None,
            target_type: None,
            description: text("description"),
            content: content.to_owned(),
            sha256: sha256_hex(content.as_bytes()),
        },
    }
}

#[cfg(test)]
mod tests {
    use moorline_protocol::document::SessionDocument;

    use super::*;
    use crate::api::document::content::Checked;

    #[test]
    fn every_built_in_document_passes_the_checks_of_create_document() {
        for document in built_in_documents() {
            let version = document.version;
            let checked = Checked::parse(&document.name, &document.document_type, &version.content)
                .unwrap_or_else(|error| panic!("{}: {error}", document.name));
            assert_eq!(checked.schema_version, version.schema_version);
            assert!(version.description.is_some());
        }
    }

    /// What a stock client may name, and what it may leave out: as AWS publishes them (client-wire §7.5).
    #[test]
    fn session_documents_have_the_parameters_defaults_and_rules_of_aws() {
        const PORT: (&[&str], &[&str]) = (&["1", "22", "65535"], &["0", "65536", "022", "22 ", "", "x"]);
        const LOCAL_PORT: (&[&str], &[&str]) = (&["0", "1", "65535"], &["65536", "-1", ""]);
        const HOST: (&[&str], &[&str]) = (
            &["localhost", "db-1.internal", "10.0.0.1", "fe80::1"],
            &[
                "ab", "a`id`", "a;b", "a$b", "a|bc", "a(b)", "a b\"c", "a#bc", "a=bc", "a,bc",
            ],
        );
        const PREFIX: (&[&str], &[&str]) = (
            &["", "OUT:\r\n", "a_b-c"],
            &["a b", "é", "(0123456789012345678901234567890"],
        );
        const ANY: (&[&str], &[&str]) = (&["anything; at $all", ""], &[]);
        const FLAG: (&[&str], &[&str]) = (&["true", "false"], &["True", "yes", ""]);
        type Rule = (&'static [&'static str], &'static [&'static str]);
        let table: &[(&str, &str, &[(&str, Option<&str>, Rule)])] = &[
            ("AWS-StartSSHSession", "Port", &[("portNumber", Some("22"), PORT)]),
            (
                "AWS-StartPortForwardingSession",
                "Port",
                &[
                    ("localPortNumber", Some("0"), LOCAL_PORT),
                    ("portNumber", Some("80"), PORT),
                ],
            ),
            (
                "AWS-StartPortForwardingSessionToRemoteHost",
                "Port",
                &[
                    ("host", Some("localhost"), HOST),
                    ("localPortNumber", Some("0"), LOCAL_PORT),
                    ("portNumber", Some("80"), PORT),
                ],
            ),
            (
                "AWS-StartPortForwardingSessionToSocket",
                "Port",
                &[("localUnixSocket", None, ANY), ("portNumber", Some("80"), PORT)],
            ),
            (
                "AWS-StartInteractiveCommand",
                "InteractiveCommands",
                &[("command", None, ANY)],
            ),
            (
                "AWS-StartNonInteractiveCommand",
                "NonInteractiveCommands",
                &[
                    ("command", None, ANY),
                    ("separateOutputStream", Some("false"), FLAG),
                    ("stderrSeparatorPrefix", Some(""), PREFIX),
                    ("stdoutSeparatorPrefix", Some(""), PREFIX),
                ],
            ),
            ("SSM-SessionManagerRunShell", "Standard_Stream", &[]),
        ];
        for (name, session_type, parameters) in table {
            let content = built_in_document(name).unwrap().content;
            let document = SessionDocument::parse(&serde_json::from_str(&content).unwrap()).unwrap();
            assert_eq!(document.session_type.as_str(), *session_type, "{name}");
            let defined: Vec<_> = document
                .parameters
                .iter()
                .map(|(name, definition)| (name, definition.default.as_ref().and_then(Value::as_str)))
                .collect();
            let expected: Vec<_> = parameters
                .iter()
                .map(|(name, default, _)| (*name, *default))
                .collect();
            assert_eq!(defined, expected, "{name}");
            for (parameter, _, (good, bad)) in *parameters {
                for (values, is_good) in [(good, true), (bad, false)] {
                    for value in *values {
                        let mut given: BTreeMap<_, _> = parameters
                            .iter()
                            .filter(|(_, default, _)| default.is_none())
                            .map(|(name, ..)| ((*name).to_owned(), vec!["x".to_owned()]))
                            .collect();
                        given.insert((*parameter).to_owned(), vec![(*value).to_owned()]);
                        let resolved = document.parameters.resolve_lists(&given);
                        assert_eq!(
                            resolved.is_ok(),
                            is_good,
                            "{name} {parameter} {value:?}: {resolved:?}"
                        );
                    }
                }
            }
        }
    }
}
