//! Session documents, schema 1.0 (client-wire §7, documents.md §6.1).

use serde_json::{Map, Value};

use super::{Definitions, DocumentError};

/// What kind of session a document asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionType {
    StandardStream,
    InteractiveCommands,
    NonInteractiveCommands,
    Port,
}

impl SessionType {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StandardStream => "Standard_Stream",
            Self::InteractiveCommands => "InteractiveCommands",
            Self::NonInteractiveCommands => "NonInteractiveCommands",
            Self::Port => "Port",
        }
    }
}

/// A parsed session document.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionDocument {
    pub session_type: SessionType,
    pub description: String,
    pub parameters: Definitions,
    pub(crate) inputs: Value,
    pub(crate) properties: Value,
}

/// Its preferences and properties with the parameters filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionPlan {
    pub session_type: SessionType,
    pub run_as_enabled: bool,
    pub run_as_default_user: String,
    pub shell_profile_linux: String,
    pub kms_key_id: String,
    /// Minutes; the endpoint enforces both times. Default 20; `None`: no limit.
    pub idle_session_timeout_minutes: u32,
    pub max_session_duration_minutes: Option<u32>,
    pub properties: Value,
}

impl SessionDocument {
    /// # Errors
    /// The document cannot run: another schema version, an unknown session type, a malformed member.
    pub fn parse(content: &Value) -> Result<Self, DocumentError> {
        let _ = content;
        todo!()
    }

    /// # Errors
    /// A parameter breaks its pattern, or a preference cannot be read.
    pub fn plan(&self, parameters: &Map<String, Value>) -> Result<SessionPlan, DocumentError> {
        let _ = parameters;
        todo!()
    }
}
