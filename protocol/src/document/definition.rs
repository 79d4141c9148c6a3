//! The `parameters` member of a document (documents.md §1.2).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::content::{description, malformed, present};
use super::{AllowedPattern, DocumentError, ParameterError, pattern::Budget};

/// Most parameters that a document may define.
pub const MAX_PARAMETERS: usize = 200;

/// The `parameters` member of a document.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Definitions {
    pub(crate) by_name: BTreeMap<String, Definition>,
    /// A value that is a reference to the Parameter Store is text like any other, and keeps every rule.
    pub(super) references_are_text: bool,
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

impl ParameterType {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "String",
            Self::StringList => "StringList",
            Self::StringMap => "StringMap",
            Self::Boolean => "Boolean",
            Self::Integer => "Integer",
            Self::MapList => "MapList",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [
            Self::String,
            Self::StringList,
            Self::StringMap,
            Self::Boolean,
            Self::Integer,
            Self::MapList,
        ]
        .into_iter()
        .find(|known| known.as_str() == name)
    }
}

/// One parameter as the document defines it.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    pub parameter_type: ParameterType,
    pub description: String,
    /// `Some(Value::Null)` when it is written as null.
    pub default: Option<Value>,
    /// Empty: any value.
    pub allowed_values: Vec<Value>,
    /// RE2 syntax, searched without anchors.
    pub allowed_pattern: Option<AllowedPattern>,
    /// Bytes of a text, of each element, or of a map's JSON text.
    pub min_chars: Option<u64>,
    pub max_chars: Option<u64>,
    /// Elements of a list or map.
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub interpolation: Interpolation,
    /// Ours: `noEcho`, as a boolean. Its value is a secret, which no recording shows.
    pub is_secret: bool,
}

impl Definition {
    /// What is told of a value that breaks a rule. The rule may quote it, which a secret must not be.
    pub(super) fn broken(&self, name: &str, rule: String) -> ParameterError {
        let rule = match self.is_secret {
            true => "its value, which is a secret, is not one that the document takes".to_owned(),
            false => rule,
        };
        ParameterError::Rule {
            name: name.to_owned(),
            rule,
        }
    }
}

/// How a script gets the value of a parameter (`interpolationType`, documents.md §1.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Interpolation {
    /// In the script's text: what a shell makes of the value is the document's business.
    #[default]
    Text,
    /// In the environment variable `SSM_<name>`, which the script's text refers to: no value becomes shell code.
    EnvironmentVariable,
}

impl Definitions {
    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Definition)> {
        self.by_name
            .iter()
            .map(|(name, definition)| (name.as_str(), definition))
    }

    /// A parameter that goes into the environment of scripts, if there is one.
    pub(super) fn first_in_environment(&self) -> Option<&str> {
        self.iter()
            .find(|(_, definition)| definition.interpolation == Interpolation::EnvironmentVariable)
            .map(|(name, _)| name)
    }

    /// Reads `parameters`. A parameter whose name is not made of ASCII letters and digits is dropped, as the stock
    /// agent does: its `{{ }}` stays as it is written.
    ///
    /// # Errors
    /// More than [`MAX_PARAMETERS`], a definition of another shape or an unknown type, an unusable pattern, or patterns
    /// that take too much memory.
    pub(super) fn parse(parameters: Option<&Value>) -> Result<Self, DocumentError> {
        let members = match parameters {
            None | Some(Value::Null) => return Ok(Self::default()),
            Some(Value::Object(members)) => members,
            Some(_) => return Err(malformed("parameters must be an object")),
        };
        if members.len() > MAX_PARAMETERS {
            return Err(malformed(format!("more than {MAX_PARAMETERS} parameters")));
        }
        let mut patterns = Budget::default();
        let by_name = members
            .iter()
            .filter(|(name, _)| is_name(name))
            .map(|(name, value)| Ok((name.clone(), Definition::parse(name, value, &mut patterns)?)))
            .collect::<Result<_, DocumentError>>()?;
        Ok(Self {
            by_name,
            references_are_text: false,
        })
    }
}

impl Definition {
    fn parse(name: &str, value: &Value, patterns: &mut Budget) -> Result<Self, DocumentError> {
        let members = value
            .as_object()
            .ok_or_else(|| malformed(format!("parameter {name} must be an object")))?;
        let parameter_type = match present(members, "type") {
            None => ParameterType::String,
            Some(Value::String(text)) => ParameterType::from_name(text)
                .ok_or_else(|| malformed(format!("parameter {name} has the unknown type {text}")))?,
            Some(_) => return Err(malformed(format!("type of parameter {name} must be a text"))),
        };
        let allowed_pattern = match present(members, "allowedPattern") {
            None => None,
            Some(Value::String(text)) if text.is_empty() => None,
            Some(Value::String(text)) => Some(
                AllowedPattern::within(text, patterns)
                    .map_err(|reason| ParameterError::unusable_pattern(name, text, &reason))?,
            ),
            Some(_) => {
                return Err(malformed(format!(
                    "allowedPattern of parameter {name} must be a text"
                )));
            }
        };
        let allowed_values = match present(members, "allowedValues") {
            None => Vec::new(),
            Some(Value::Array(values)) => values.clone(),
            Some(_) => {
                return Err(malformed(format!(
                    "allowedValues of parameter {name} must be a list"
                )));
            }
        };
        Ok(Self {
            parameter_type,
            description: description(members),
            default: super::member(members, "default").cloned(),
            allowed_values,
            allowed_pattern,
            min_chars: limit(members, "minChars"),
            max_chars: limit(members, "maxChars"),
            min_items: limit(members, "minItems"),
            max_items: limit(members, "maxItems"),
            interpolation: interpolation(name, members, parameter_type)?,
            is_secret: members.get("noEcho").and_then(Value::as_bool) == Some(true),
        })
    }
}

/// A limit as number or text. One that cannot be read limits nothing, as on the stock agent.
fn limit(members: &Map<String, Value>, name: &str) -> Option<u64> {
    match present(members, name)? {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    }
}

/// A value that its author wanted out of shell code must not get into it by a mistake: what cannot be done is refused.
fn interpolation(
    name: &str,
    members: &Map<String, Value>,
    parameter_type: ParameterType,
) -> Result<Interpolation, DocumentError> {
    match present(members, "interpolationType") {
        None => Ok(Interpolation::Text),
        Some(Value::String(text)) if text == "ENV_VAR" => match parameter_type {
            ParameterType::String => Ok(Interpolation::EnvironmentVariable),
            other => Err(malformed(format!(
                "interpolationType ENV_VAR of parameter {name} is for a String, not for a {}",
                other.as_str()
            ))),
        },
        Some(other) => Err(malformed(format!(
            "interpolationType of parameter {name} must be ENV_VAR, not {other}"
        ))),
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests;
