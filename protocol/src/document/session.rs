//! Session documents, schema 1.0 (client-wire §7, documents.md §6.1).

use std::borrow::Cow;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::content::{bounded, description, malformed, present, schema_text, text_member};
use super::substitution::Substitution;
use super::{Definitions, DocumentError, ParameterType};

/// Minutes without input after which a session ends, when its document does not say.
pub const DEFAULT_IDLE_MINUTES: u32 = 20;

const IDLE_MINUTES: RangeInclusive<u32> = 1..=60;
const DURATION_MINUTES: RangeInclusive<u32> = 1..=1440;

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

    /// The type with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::StandardStream,
            Self::InteractiveCommands,
            Self::NonInteractiveCommands,
            Self::Port,
        ]
        .into_iter()
        .find(|known| known.as_str() == name)
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
    /// Typed into the shell, plus a newline, of a Standard_Stream session.
    pub shell_profile_linux: String,
    pub kms_key_id: String,
    /// Minutes; the endpoint enforces both times. Default 20; `None`: no limit.
    pub idle_session_timeout_minutes: u32,
    pub max_session_duration_minutes: Option<u32>,
    /// Null when the document has none. Read its members with [`member`](super::member).
    pub properties: Value,
}

impl SessionDocument {
    /// Parses a document within the same bounds as [`CommandDocument::parse`](super::CommandDocument::parse).
    ///
    /// # Errors
    /// The document cannot run: another schema version, an unknown session type, a malformed member.
    pub fn parse(content: &Value) -> Result<Self, DocumentError> {
        let members = bounded(content)?;
        let schema_text = schema_text(members)?;
        if schema_text != "1.0" {
            return Err(DocumentError::SchemaVersion(schema_text));
        }
        let name = text_member(members, "sessionType")?;
        let session_type = SessionType::from_name(&name)
            .ok_or_else(|| malformed(format!("unknown session type {name:?}")))?;
        let parameters = Definitions {
            references_are_text: true,
            ..Definitions::parse(present(members, "parameters"))?
        };
        if let Some(name) = parameters.first_in_environment() {
            return Err(malformed(format!(
                "interpolationType of parameter {name} is for command documents"
            )));
        }
        Ok(Self {
            session_type,
            description: description(members),
            parameters,
            inputs: object_or_null(members, "inputs")?,
            properties: object_or_null(members, "properties")?,
        })
    }

    /// Fills the parameters in and reads the preferences.
    ///
    /// A String parameter that comes as a list of one text, the API's form, counts as that text: inserted as a list
    /// it would show as JSON.
    ///
    /// # Errors
    /// A parameter breaks its pattern or is missing, or a preference cannot be read.
    pub fn plan(&self, parameters: &Map<String, Value>) -> Result<SessionPlan, DocumentError> {
        let parameters = self.parameters.resolve_values(&self.plain(parameters))?;
        let mut substitution = Substitution::new(parameters.as_map());
        let inputs = object(substitution.value(&self.inputs)?);
        let properties = substitution.value(&self.properties)?;
        read_inputs(self.session_type, &inputs, properties)
    }

    /// The values of parameters that are secrets.
    ///
    /// # Errors
    /// A parameter breaks its pattern or is missing.
    pub fn secrets(&self, parameters: &Map<String, Value>) -> Result<Vec<String>, DocumentError> {
        let resolved = self.parameters.resolve_values(&self.plain(parameters))?;
        Ok(self.parameters.secret_texts(resolved.as_map()))
    }

    /// The parameters with `mask` in the place of each text of a secret.
    pub fn masked(&self, parameters: &Map<String, Value>, mask: &str) -> Map<String, Value> {
        self.parameters.masked(parameters, mask)
    }

    /// The inputs with the parameters filled in, as they are written: what the document sets by itself.
    ///
    /// # Errors
    /// As [`Self::plan`], but for preferences that cannot be read.
    pub fn resolved_inputs(
        &self,
        parameters: &Map<String, Value>,
    ) -> Result<Map<String, Value>, DocumentError> {
        let parameters = self.parameters.resolve_values(&self.plain(parameters))?;
        Substitution::new(parameters.as_map())
            .value(&self.inputs)
            .map(object)
    }

    /// Reads the preferences that do not wait for a parameter; those that do have their defaults. So a document with a
    /// wrong one is refused when it is written and not when it is used.
    ///
    /// # Errors
    /// A preference cannot be read.
    pub fn check_inputs(&self) -> Result<SessionPlan, DocumentError> {
        let mut inputs = object(self.inputs.clone());
        inputs.retain(|_, value| !value.as_str().is_some_and(|text| text.contains("{{")));
        read_inputs(self.session_type, &inputs, Value::Null)
    }

    fn plain<'a>(&self, parameters: &'a Map<String, Value>) -> Cow<'a, Map<String, Value>> {
        let mut plain = Cow::Borrowed(parameters);
        for (name, definition) in self.parameters.iter() {
            if definition.parameter_type == ParameterType::String
                && let Some([Value::String(text)]) =
                    parameters.get(name).and_then(Value::as_array).map(Vec::as_slice)
            {
                plain.to_mut().insert(name.to_owned(), text.as_str().into());
            }
        }
        plain
    }
}

fn read_inputs(
    session_type: SessionType,
    inputs: &Map<String, Value>,
    properties: Value,
) -> Result<SessionPlan, DocumentError> {
    let shell_profile_linux = match present(inputs, "shellProfile") {
        None => String::new(),
        Some(Value::Object(profile)) => text_member(profile, "linux")?,
        Some(_) => return Err(malformed("shellProfile must be an object")),
    };
    let idle = minutes(inputs, "idleSessionTimeout", IDLE_MINUTES)?;
    Ok(SessionPlan {
        session_type,
        run_as_enabled: is_on(inputs, "runAsEnabled")?,
        run_as_default_user: text_member(inputs, "runAsDefaultUser")?,
        shell_profile_linux,
        kms_key_id: text_member(inputs, "kmsKeyId")?,
        idle_session_timeout_minutes: idle.unwrap_or(DEFAULT_IDLE_MINUTES),
        max_session_duration_minutes: minutes(inputs, "maxSessionDuration", DURATION_MINUTES)?,
        properties,
    })
}

/// The members of a value that is an object or null.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn object_or_null(members: &Map<String, Value>, name: &str) -> Result<Value, DocumentError> {
    match present(members, name) {
        None => Ok(Value::Null),
        Some(value) if value.is_object() => Ok(value.clone()),
        Some(_) => Err(malformed(format!("{name} must be an object"))),
    }
}

/// A boolean or its text; missing, null and the empty text are false.
fn is_on(inputs: &Map<String, Value>, name: &str) -> Result<bool, DocumentError> {
    match present(inputs, name) {
        None => Ok(false),
        Some(Value::Bool(is_on)) => Ok(*is_on),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.is_empty() || text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(malformed(format!("{name} must be true or false"))),
    }
}

/// Minutes as number or text; missing, null and the empty text are none.
fn minutes(
    inputs: &Map<String, Value>,
    name: &str,
    range: RangeInclusive<u32>,
) -> Result<Option<u32>, DocumentError> {
    let number = match present(inputs, name) {
        None => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => text.parse().ok(),
        Some(other) => other.as_u64().and_then(|number| u32::try_from(number).ok()),
    };
    let (first, last) = (range.start(), range.end());
    match number {
        Some(number) if range.contains(&number) => Ok(Some(number)),
        _ => Err(malformed(format!(
            "{name} must be a whole number of minutes from {first} to {last}"
        ))),
    }
}

#[cfg(test)]
mod tests;
