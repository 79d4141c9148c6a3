//! A document's content: its checks, and what is shown of it.

use std::fmt::Write as _;

use moorline_protocol::document::{
    CommandDocument, Definitions, DocumentError, ParameterType, SessionDocument,
};
use moorline_ssm::{
    ErrorCode,
    document::{DocumentParameter, DocumentParameterType, PlatformType},
};
use serde_json::Value;

use crate::api::{ApiError, ApiResult};

/// AWS's limit.
pub(super) const MOST_CONTENT_BYTES: usize = 64 * 1024;

/// Content that a node can run, as far as can be told without its parameters.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) schema_version: String,
    pub(super) description: Option<String>,
}

impl Checked {
    /// `document_type` is `Command` or `Session`.
    pub(super) fn parse(document_type: &str, content: &str) -> ApiResult<Self> {
        if content.len() > MOST_CONTENT_BYTES {
            let message = format!(
                "the document has {} bytes; {MOST_CONTENT_BYTES} are allowed",
                content.len()
            );
            return Err(ApiError::new(ErrorCode::MaxDocumentSizeExceeded, message));
        }
        let value: Value = serde_json::from_str(content).map_err(|error| {
            invalid(format!(
                "the content is not JSON, the only format so far: {error}"
            ))
        })?;
        let (schema_version, description) = match document_type {
            "Session" => {
                let document = SessionDocument::parse(&value).map_err(refused)?;
                ("1.0".to_owned(), document.description)
            }
            _ => {
                let document = CommandDocument::parse(&value).map_err(refused)?;
                (document.schema_text, document.description)
            }
        };
        let description = Some(description).filter(|text| !text.is_empty());
        Ok(Self {
            schema_version,
            description,
        })
    }
}

fn refused(error: DocumentError) -> ApiError {
    match error {
        DocumentError::SchemaVersion(version) => ApiError::new(
            ErrorCode::InvalidDocumentSchemaVersion,
            format!("schema version {version} is not one for this type of document"),
        ),
        other => invalid(other.to_string()),
    }
}

pub(super) fn invalid(message: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidDocumentContent, message)
}

/// What is shown of stored content.
#[derive(Debug, Default)]
pub(super) struct Details {
    pub(super) parameters: Vec<DocumentParameter>,
    pub(super) platforms: Vec<PlatformType>,
}

impl Details {
    pub(super) fn of(document_type: &str, content: &str) -> Self {
        let everywhere = vec![PlatformType::Windows, PlatformType::Linux, PlatformType::MacOS];
        let value: Value = serde_json::from_str(content).unwrap_or_default();
        if document_type == "Session" {
            let parsed = SessionDocument::parse(&value);
            let parameters = parsed
                .map(|document| parameters(&document.parameters))
                .unwrap_or_default();
            return Self {
                parameters,
                platforms: everywhere,
            };
        }
        let Ok(document) = CommandDocument::parse(&value) else {
            return Self::default();
        };
        let needs_shell = document
            .step_names()
            .all(|(action, _)| action == "aws:runShellScript");
        let platforms = if needs_shell {
            vec![PlatformType::Linux, PlatformType::MacOS]
        } else {
            everywhere
        };
        Self {
            parameters: parameters(&document.parameters),
            platforms,
        }
    }
}

fn parameters(definitions: &Definitions) -> Vec<DocumentParameter> {
    let shown = |(name, definition): (&str, &moorline_protocol::document::Definition)| {
        let parameter_type = match definition.parameter_type {
            ParameterType::StringList => DocumentParameterType::StringList,
            _ => DocumentParameterType::String,
        };
        let default_value = definition.default.as_ref().map(|default| match default {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        DocumentParameter {
            name: Some(name.to_owned()),
            r#type: Some(parameter_type),
            description: Some(definition.description.clone()).filter(|text| !text.is_empty()),
            default_value,
        }
    };
    definitions.iter().map(shown).collect()
}

/// SHA-256 in lower-case hex.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    for byte in ring::digest::digest(&ring::digest::SHA256, bytes).as_ref() {
        write!(hex, "{byte:02x}").expect("a String takes every text");
    }
    hex
}
