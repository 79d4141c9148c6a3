//! Parameter definitions, their checks and defaults (documents.md §1.2).

use serde_json::{Map, Value};

/// Values after defaults were filled in and every rule was checked. Only [`Definitions::resolve`] makes one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parameters(pub(crate) Map<String, Value>);

impl Parameters {
    /// The values, for the wire.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }
}

/// A value that breaks a rule of its parameter; the text names the parameter and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    #[error("parameter {0} is not defined in the document")]
    Undefined(String),
    #[error("parameter {0} has no value and no default")]
    Missing(String),
    #[error("parameter {name}: {rule}")]
    Rule { name: String, rule: String },
}

/// The `parameters` member of a document.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Definitions {
    pub(crate) by_name: std::collections::BTreeMap<String, Definition>,
}

/// Type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterType {
    String,
    StringList,
    StringMap,
    Boolean,
    Integer,
    MapList,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    pub parameter_type: ParameterType,
    pub description: String,
    pub default: Option<Value>,
    pub allowed_values: Vec<Value>,
    pub allowed_pattern: Option<String>,
    pub min_chars: Option<u64>,
    pub max_chars: Option<u64>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
}

impl Definitions {
    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Definition)> {
        self.by_name
            .iter()
            .map(|(name, definition)| (name.as_str(), definition))
    }

    /// The API's form (name to list of texts) into typed values, checked, defaults filled in. The endpoint does this
    /// for SendCommand and StartSession: a String takes exactly one text.
    ///
    /// # Errors
    /// The first parameter that breaks a rule.
    pub fn resolve_lists(
        &self,
        given: &std::collections::BTreeMap<String, Vec<String>>,
    ) -> Result<Parameters, ParameterError> {
        let _ = given;
        todo!()
    }

    /// Typed values as an agent gets them in a message: `allowedPattern` is checked again, unknown names are dropped,
    /// defaults filled in.
    ///
    /// # Errors
    /// A value does not match its pattern.
    pub fn resolve_values(&self, given: &Map<String, Value>) -> Result<Parameters, ParameterError> {
        let _ = given;
        todo!()
    }
}
