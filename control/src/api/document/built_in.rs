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
}
