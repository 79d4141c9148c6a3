//! A document's content: its checks, and what is shown of it.

use std::fmt::Write as _;

use moorline_protocol::{
    document::{
        CommandDocument, Definitions, DocumentError, PREFERENCES_DOCUMENT, ParameterType, SessionDocument,
        SessionPlan, SessionType, TextFormat,
    },
    package::Manifest,
};
use moorline_ssm::{
    ErrorCode,
    document::{DocumentParameter, DocumentParameterType, PlatformType},
};
use serde_json::Value;

use super::attachment::Described;
use crate::{
    api::{ApiError, ApiResult},
    engine::preferences::is_user_name,
    store::DocumentRow,
};

/// AWS's limit.
pub(super) const MOST_CONTENT_BYTES: usize = 64 * 1024;

/// Content that a node can run, as far as can be told without its parameters.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) schema_version: String,
    pub(super) description: Option<String>,
    /// What the content says of its attachments.
    pub(super) files: Described,
    /// Of the package that this is.
    pub(super) package_version: Option<String>,
}

impl Checked {
    /// `document_type` is `Command`, `Package` or `Session`.
    pub(super) fn parse(
        name: &str,
        document_type: &str,
        format: TextFormat,
        content: &str,
    ) -> ApiResult<Self> {
        if content.len() > MOST_CONTENT_BYTES {
            let message = format!(
                "the document has {} bytes; {MOST_CONTENT_BYTES} are allowed",
                content.len()
            );
            return Err(ApiError::new(ErrorCode::MaxDocumentSizeExceeded, message));
        }
        let value = format.read(content).map_err(|error| {
            let format = format.as_str();
            invalid(format!("DocumentFormat {format}: {error}"))
        })?;
        let mut package_version = None;
        let mut files = described(&value);
        let (schema_version, description) = match document_type {
            "Package" => {
                let manifest =
                    Manifest::parse(&value.to_string()).map_err(|error| invalid(error.to_string()))?;
                files = manifest
                    .files()
                    .map(|(name, file)| (name.to_owned(), hex(&file.sha256)))
                    .collect();
                package_version = Some(manifest.version);
                ("2.0".to_owned(), String::new())
            }
            "Session" => {
                let document = SessionDocument::parse(&value).map_err(refused)?;
                check_inputs(&document)?;
                if name == PREFERENCES_DOCUMENT {
                    check_preferences(&document)?;
                }
                ("1.0".to_owned(), document.description)
            }
            _ if name == PREFERENCES_DOCUMENT => {
                return Err(invalid(format!(
                    "DocumentType: {name} holds the session preferences, a document of type Session"
                )));
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
            files,
            package_version,
        })
    }
}

/// `files` of a document, as far as each is described by its SHA-256.
fn described(content: &Value) -> Described {
    let files = content.get("files").and_then(Value::as_object);
    files
        .into_iter()
        .flatten()
        .filter_map(|(name, file)| {
            let sha256 = file.pointer("/checksums/sha256")?.as_str()?;
            Some((name.clone(), sha256.to_ascii_lowercase()))
        })
        .collect()
}

/// What waits for a parameter is checked when a session is started.
fn check_inputs(document: &SessionDocument) -> ApiResult<()> {
    let plan = document.check_inputs().map_err(refused)?;
    check_run_as(&plan)
}

fn check_run_as(plan: &SessionPlan) -> ApiResult<()> {
    let user = plan.run_as_default_user.as_str();
    if user.is_empty() || is_user_name(user) {
        return Ok(());
    }
    Err(invalid(format!(
        "runAsDefaultUser: {user:?} cannot be the name of a user"
    )))
}

/// Preferences are used by sessions that bring no parameters of theirs.
fn check_preferences(document: &SessionDocument) -> ApiResult<()> {
    let name = PREFERENCES_DOCUMENT;
    if document.session_type != SessionType::StandardStream {
        return Err(invalid(format!(
            "sessionType: {name} holds the session preferences, which are of type Standard_Stream"
        )));
    }
    let plan = document
        .plan(&serde_json::Map::new())
        .map_err(|error| invalid(format!("{name} is used without parameters: {error}")))?;
    for (member, text) in [
        ("runAsDefaultUser", &plan.run_as_default_user),
        ("kmsKeyId", &plan.kms_key_id),
    ] {
        // it would be filled in by the parameters of the documents that take it over
        if text.contains("{{") {
            return Err(invalid(format!(
                "{member}: {text} names a parameter that there is not"
            )));
        }
    }
    check_run_as(&plan)
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
    /// What its author had better change.
    pub(super) warnings: Vec<String>,
}

impl Details {
    pub(super) fn of(row: &DocumentRow) -> Self {
        let value = row.value().unwrap_or_default();
        let platforms = platforms_in(&row.document_type, &value);
        if row.document_type == "Session" {
            let parsed = SessionDocument::parse(&value);
            let parameters = parsed
                .map(|document| parameters(&document.parameters))
                .unwrap_or_default();
            return Self {
                parameters,
                platforms,
                warnings: Vec::new(),
            };
        }
        if row.document_type == "Package" {
            return Self {
                parameters: Vec::new(),
                platforms,
                warnings: Vec::new(),
            };
        }
        let Ok(document) = CommandDocument::parse(&value) else {
            return Self::default();
        };
        Self {
            parameters: parameters(&document.parameters),
            platforms,
            warnings: document.warnings(),
        }
    }
}

/// Where a document runs: all that a list shows of its content. Its parameters are not read, whose patterns cost time.
pub(super) fn platforms(row: &DocumentRow) -> Vec<PlatformType> {
    platforms_in(&row.document_type, &row.value().unwrap_or_default())
}

fn platforms_in(document_type: &str, content: &Value) -> Vec<PlatformType> {
    let everywhere = || vec![PlatformType::Windows, PlatformType::Linux, PlatformType::MacOS];
    match document_type {
        "Session" => everywhere(),
        "Package" => package_platforms(content),
        _ => {
            let Ok(actions) = CommandDocument::actions(content) else {
                return Vec::new();
            };
            let needs_shell =
                actions.contains("aws:runShellScript") && !actions.contains("aws:runPowerShellScript");
            match needs_shell {
                true => vec![PlatformType::Linux, PlatformType::MacOS],
                false => everywhere(),
            }
        }
    }
}

/// A manifest names distributions; a package for any is one for all.
fn package_platforms(content: &Value) -> Vec<PlatformType> {
    let Ok(manifest) = Manifest::parse(&content.to_string()) else {
        return Vec::new();
    };
    let mut platforms: Vec<PlatformType> = Vec::new();
    for platform in manifest.platforms() {
        let of_one: &[PlatformType] = match platform {
            "_any" => &[PlatformType::Windows, PlatformType::Linux, PlatformType::MacOS],
            "windows" => &[PlatformType::Windows],
            "macos" => &[PlatformType::MacOS],
            _ => &[PlatformType::Linux],
        };
        for platform in of_one {
            if !platforms.contains(platform) {
                platforms.push(platform.clone());
            }
        }
    }
    platforms
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
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(hex, "{byte:02x}").expect("a String takes every text");
    }
    hex
}
