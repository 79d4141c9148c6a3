//! The document of a command with its parameters, as nodes get it.

use std::collections::BTreeMap;

use moorline_protocol::{
    document::{CommandDocument, Platform, marked_secrets},
    message::{MAX_FRAME_BYTES, SendCommandContent},
};
use moorline_ssm::{
    ErrorCode,
    command::{DocumentHashType, SendCommandRequest},
};
use ring::digest;
use serde_json::Value;

use super::{parameter_references, shape};
use crate::{
    api::{ApiError, ApiResult, RequestContext, document},
    audit::MASKED,
    engine::command::execution_seconds,
    store::{DocumentRow, TakenParameter},
};

/// A job must fit one frame of the control channel, with its ids and topic.
const MOST_JOB_BYTES: usize = MAX_FRAME_BYTES - 4096;

/// The document with its parameters, ready for nodes.
pub(super) struct Prepared {
    pub(super) name: String,
    pub(super) version: i64,
    /// SHA-256 of the document's text.
    pub(super) hash: String,
    pub(super) document: CommandDocument,
    content: Value,
    parameters: serde_json::Map<String, Value>,
    /// Those that name values of the Parameter Store, as they were given or are the document's defaults.
    references: BTreeMap<String, Vec<String>>,
    pub(super) taken_parameters: Vec<TakenParameter>,
    pub(super) step_names: Vec<String>,
    pub(super) execution_seconds: u64,
}

impl Prepared {
    pub(super) async fn new(cx: &RequestContext, input: &SendCommandRequest) -> ApiResult<Self> {
        let invalid = |message: String| ApiError::new(ErrorCode::InvalidDocument, message);
        let version = input.document_version.as_deref();
        let row = document::find(cx, input.document_name.as_deref(), version, None).await?;
        let name = &row.name;
        if row.document_type != "Command" {
            return Err(invalid(format!(
                "document {name} is of type {}; SendCommand runs documents of type Command",
                row.document_type
            )));
        }
        check_hash(&row, input)?;
        let content = row
            .value()
            .map_err(|error| invalid(format!("document {name} cannot be read: {error}")))?;
        let document = CommandDocument::parse(&content)
            .map_err(|error| invalid(format!("document {name} cannot run: {error}")))?;
        let refused = |error: &dyn std::fmt::Display| {
            ApiError::new(ErrorCode::InvalidParameters, format!("document {name}: {error}"))
        };
        let empty = BTreeMap::new();
        let given = input.parameters.as_ref().unwrap_or(&empty);
        let resolved = parameter_references::resolve(cx, &document, &content, given).await?;
        let parameters = document
            .parameters
            .resolve_lists(&resolved.parameters)
            .map_err(|error| refused(&error))?;
        let parameters = parameters.as_map().clone();
        let actions: Vec<&str> = document.step_names().map(|(action, _)| action).collect();
        let platform = Platform {
            platform_type: "Linux",
            handled_actions: &actions,
        };
        let steps = document
            .plan(&parameters, platform)
            .map_err(|error| refused(&error))?;
        let step_names = document.step_names().map(|(_, name)| name.to_owned()).collect();
        let execution_seconds = execution_seconds(&steps);
        Ok(Self {
            name: row.name,
            version: row.version,
            hash: row.sha256,
            document,
            content,
            parameters,
            references: resolved.references,
            taken_parameters: resolved.taken,
            step_names,
            execution_seconds,
        })
    }

    /// The parameters as an operator may see them: what comes from the Parameter Store is shown by its name, and what the
    /// document marks as a secret not at all.
    pub(super) fn shown_parameters(&self) -> BTreeMap<String, Vec<String>> {
        let shown = |name: &String, value: &Value| match (self.references.get(name), value) {
            (Some(references), _) => references.clone(),
            (None, Value::String(text)) => vec![text.clone()],
            (None, Value::Array(items)) => items
                .iter()
                .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
                .collect(),
            (None, other) => vec![other.to_string()],
        };
        let mut parameters = self
            .parameters
            .iter()
            .map(|(name, value)| (name.clone(), shown(name, value)))
            .collect();
        self.mask_secrets(&mut parameters);
        parameters
    }

    /// Leaves out the values that the document marks as secrets.
    pub(super) fn mask_secrets(&self, parameters: &mut BTreeMap<String, Vec<String>>) {
        for name in marked_secrets(&self.content) {
            if let Some(values) = parameters.get_mut(name) {
                *values = vec![MASKED.to_owned()];
            }
        }
    }

    /// What a node gets (agent-wire §6.2). It must read it by itself: the document may change meanwhile.
    pub(super) fn job_content(
        &self,
        (command_id, requester): (&str, &str),
        input: &SendCommandRequest,
    ) -> ApiResult<String> {
        let cloud_watch = shape::cloud_watch(input.cloud_watch_output_config.clone());
        let is_enabled = cloud_watch.cloud_watch_output_enabled.unwrap_or_default();
        let content = SendCommandContent {
            command_id: command_id.to_owned(),
            document_name: self.name.clone(),
            document_content: self.content.clone(),
            parameters: self.parameters.clone(),
            output_s3_bucket_name: input.output_s3_bucket_name.clone().unwrap_or_default(),
            output_s3_key_prefix: input.output_s3_key_prefix.clone().unwrap_or_default(),
            cloud_watch_log_group_name: cloud_watch.cloud_watch_log_group_name.unwrap_or_default(),
            cloud_watch_output_enabled: is_enabled.to_string(),
            moorline_transcript_path: Some(format!("/v1/transcript/{command_id}")),
            moorline_operator: Some(requester.to_owned()),
            moorline_signature: input.moorline_signature.clone(),
            moorline_reason: input.comment.clone().filter(|comment| !comment.is_empty()),
            moorline_document_version: input.document_version.clone(),
        };
        let content =
            serde_json::to_string(&content).expect("a structure of texts and JSON values can be written");
        // it travels as a text in JSON, where quotes count twice
        let on_the_wire = Value::from(content.as_str()).to_string().len();
        if on_the_wire > MOST_JOB_BYTES {
            let message = format!(
                "the document with its parameters has {on_the_wire} bytes on the wire, above the limit of \
                 {MOST_JOB_BYTES}; pass large data as a file or by an address"
            );
            return Err(ApiError::new(ErrorCode::InvalidParameters, message));
        }
        Ok(content)
    }
}

/// The caller may insist on the content that it has seen.
fn check_hash(row: &DocumentRow, input: &SendCommandRequest) -> ApiResult<()> {
    let Some(wanted) = input.document_hash.as_deref().filter(|hash| !hash.is_empty()) else {
        return Ok(());
    };
    let actual = match &input.document_hash_type {
        Some(DocumentHashType::Sha1) => {
            let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, row.content.as_bytes());
            hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
        }
        Some(DocumentHashType::Sha256 | DocumentHashType::Unknown(_)) | None => row.sha256.clone(),
    };
    if actual.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    let message = format!("document {} has the hash {actual}, not {wanted}", row.name);
    Err(ApiError::new(ErrorCode::InvalidDocument, message))
}
