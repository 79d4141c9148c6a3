//! Command documents and the plan made from one.

use serde_json::{Map, Value};

use super::{Definitions, ParameterError};

/// Why a document cannot run at all. The text is for the person who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    #[error(
        "Document with schema version {0} is not supported by this version of ssm agent, please update to latest version"
    )]
    SchemaVersion(String),
    #[error("Unsupported schema format")]
    NoSteps,
    #[error("Unsupported document: {0}")]
    Malformed(String),
    #[error(transparent)]
    Parameter(#[from] ParameterError),
}

/// Schema of a command document, which decides the rules for steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaVersion {
    /// 1.0 and 1.2: `runtimeConfig`.
    V1,
    /// 2.0, 2.0.1, 2.0.2, 2.0.3: `mainSteps`, no preconditions.
    V2_0,
    /// 2.2: preconditions.
    V2_2,
}

/// A parsed command document.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandDocument {
    pub schema_version: SchemaVersion,
    /// As written.
    pub schema_text: String,
    pub description: String,
    pub parameters: Definitions,
    pub(crate) steps: Vec<RawStep>,
}

/// A step before substitution.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RawStep {
    pub(crate) action: String,
    pub(crate) name: String,
    /// One set of inputs; schema 1.x may have several (`properties` list).
    pub(crate) inputs: Vec<Value>,
    pub(crate) settings: Value,
    pub(crate) precondition: Option<Value>,
}

/// A step that is ready: parameters filled in, precondition decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// `aws:runShellScript` and the like, as written.
    pub action: String,
    /// The key of its result: the step's name, or the action in schema 1.x.
    pub name: String,
    pub inputs: Vec<Map<String, Value>>,
    pub decision: Decision,
    pub control: StepControl,
}

/// Whether a step runs (documents.md §1.7); the texts are the stock agent's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Run,
    Skip(String),
    Fail(String),
}

/// Step control inside `inputs` (documents.md §1.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepControl {
    pub on_failure: Option<OnFailure>,
    pub exit_on_success: bool,
    /// Honoured on the last step only.
    pub finally: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    Exit,
    SuccessAndExit,
}

/// What the node can do, as far as the plan depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Platform<'a> {
    /// `Linux`.
    pub platform_type: &'a str,
    /// Actions with a handler here, e.g. `["aws:runShellScript"]`.
    pub handled_actions: &'a [&'a str],
}

impl CommandDocument {
    /// Parses JSON text or value of at most 64 KiB nesting depth 64 (serde_json's limit is 128).
    ///
    /// # Errors
    /// The document cannot run.
    pub fn parse(content: &Value) -> Result<Self, DocumentError> {
        let _ = content;
        todo!()
    }

    /// Fills the parameters in and decides every step.
    ///
    /// # Errors
    /// A parameter breaks its pattern.
    pub fn plan(
        &self,
        parameters: &Map<String, Value>,
        platform: Platform<'_>,
    ) -> Result<Vec<Step>, DocumentError> {
        let _ = (parameters, platform);
        todo!()
    }
}
