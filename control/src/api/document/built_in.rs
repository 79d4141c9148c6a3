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
    "AWS-ApplyAnsiblePlaybooks"
    "AWS-ConfigureAWSPackage"
    "AWS-GatherSoftwareInventory"
    "AWS-RefreshAssociation"
    "AWS-RunDocument"
    "AWS-RunRemoteScript"
    "AWS-RunSaltState"
    "AWS-RunShellScript"
    "AWS-StartInteractiveCommand"
    "AWS-StartNonInteractiveCommand"
    "AWS-StartPortForwardingSession"
    "AWS-StartPortForwardingSessionToRemoteHost"
    "AWS-StartPortForwardingSessionToSocket"
    "AWS-StartSSHSession"
    "AWS-UpdateSSMAgent"
    "SSM-SessionManagerRunShell"
];

/// Documents of AWS's whose actions exist on Windows only, so that whoever names one learns what to take instead.
const FOR_WINDOWS: [&str; 8] = [
    "AWS-ConfigureWindowsUpdate",
    "AWS-FindWindowsUpdates",
    "AWS-InstallApplication",
    "AWS-InstallMissingWindowsUpdates",
    "AWS-InstallPowerShellModule",
    "AWS-InstallSpecificWindowsUpdates",
    "AWS-ListWindowsInventory",
    "AWS-UpdateEC2Config",
];

pub(super) fn is_for_windows(name: &str) -> bool {
    FOR_WINDOWS.contains(&name)
}

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
    let document_type = match name {
        // Associations run it, commands do not.
        "AWS-GatherSoftwareInventory" => "Policy",
        _ if value.get("sessionType").is_some() => "Session",
        _ => "Command",
    };
    NewDocument {
        name: name.to_owned(),
        document_type: document_type.to_owned(),
        owner: BUILT_IN_OWNER.to_owned(),
        tags: BTreeMap::new(),
        version: NewVersion {
            document_format: "JSON".to_owned(),
            schema_version: text("schemaVersion").unwrap_or_default(),
            display_name: None,
            version_name: None,
            target_type: None,
            description: text("description"),
            content: content.to_owned(),
            sha256: sha256_hex(content.as_bytes()),
            attachments: Vec::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use moorline_protocol::document::{CommandDocument, SessionDocument, TextFormat};

    use super::*;
    use crate::api::document::content::Checked;

    #[test]
    fn every_built_in_document_passes_the_checks_of_create_document() {
        for document in built_in_documents() {
            let version = document.version;
            let checked = Checked::parse(
                &document.name,
                &document.document_type,
                TextFormat::Json,
                &version.content,
            )
            .unwrap_or_else(|error| panic!("{}: {error}", document.name));
            assert_eq!(checked.schema_version, version.schema_version);
            assert!(version.description.is_some());
        }
    }

    #[test]
    fn no_built_in_document_puts_an_open_parameter_into_a_script() {
        for document in built_in_documents() {
            let content = serde_json::from_str(&document.version.content).unwrap();
            if let Ok(parsed) = CommandDocument::parse(&content) {
                let expected: &[&str] = match document.name.as_str() {
                    // Its command line is a line of a script, as AWS has it.
                    "AWS-RunRemoteScript" => &["commandLine"],
                    _ => &[],
                };
                let warnings = parsed.warnings();
                assert_eq!(warnings.len(), expected.len(), "{}: {warnings:?}", document.name);
                assert!(
                    warnings
                        .iter()
                        .zip(expected)
                        .all(|(warning, name)| warning.contains(name))
                );
            }
        }
    }

    /// Values that the rules of a parameter take, and such as they do not.
    struct Rules {
        good: &'static [&'static str],
        bad: &'static [&'static str],
    }

    const PORT: Rules = Rules {
        good: &["1", "22", "65535"],
        bad: &["0", "65536", "022", "22 ", "", "x"],
    };
    const LOCAL_PORT: Rules = Rules {
        good: &["0", "1", "65535"],
        bad: &["65536", "-1", ""],
    };
    const HOST: Rules = Rules {
        good: &["localhost", "db-1.internal", "10.0.0.1", "fe80::1"],
        bad: &[
            "ab", "a`id`", "a;b", "a$b", "a|bc", "a(b)", "a b\"c", "a#bc", "a=bc", "a,bc",
        ],
    };
    const PREFIX: Rules = Rules {
        good: &["", "OUT:\r\n", "a_b-c"],
        bad: &["a b", "é", "0123456789012345678901234567890"],
    };
    const FLAG: Rules = Rules {
        good: &["true", "false"],
        bad: &["True", "yes", ""],
    };
    const ANY: Rules = Rules {
        good: &["anything; at $all", ""],
        bad: &[],
    };

    /// Name, default and rules of a parameter.
    type Parameter = (&'static str, Option<&'static str>, Rules);

    /// What a stock client may name, and what it may leave out: as AWS publishes them (client-wire §7.5).
    const SESSION_DOCUMENTS: &[(&str, &str, &[Parameter])] = &[
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

    fn session_document(name: &str) -> SessionDocument {
        let content = built_in_document(name).unwrap().version.content;
        SessionDocument::parse(&serde_json::from_str(&content).unwrap()).unwrap()
    }

    #[test]
    fn session_documents_have_the_types_parameters_and_defaults_of_aws() {
        for (name, session_type, parameters) in SESSION_DOCUMENTS {
            let document = session_document(name);
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
        }
    }

    #[test]
    fn session_documents_take_and_refuse_what_those_of_aws_do() {
        for (name, _, parameters) in SESSION_DOCUMENTS {
            let document = session_document(name);
            let needed = parameters.iter().filter(|(_, default, _)| default.is_none());
            let needed: BTreeMap<_, _> = needed
                .map(|(name, ..)| ((*name).to_owned(), vec!["x".to_owned()]))
                .collect();
            let takes = |parameter: &str, value: &str| {
                let mut given = needed.clone();
                given.insert(parameter.to_owned(), vec![value.to_owned()]);
                document.parameters.resolve_lists(&given).is_ok()
            };
            for (parameter, _, rules) in *parameters {
                for value in rules.good {
                    assert!(takes(parameter, value), "{name} {parameter} {value:?}");
                }
                for value in rules.bad {
                    assert!(!takes(parameter, value), "{name} {parameter} {value:?}");
                }
            }
        }
    }
}
