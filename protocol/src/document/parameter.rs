//! Values of parameters: types, rules and defaults (documents.md §1.2).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

use super::content::plain_text;
use super::{AllowedPattern, Definition, Definitions, ParameterType};

/// Characters of a value or pattern that an error shows.
const SHOWN_CHARS: usize = 256;

/// A reference to the Parameter Store (documents.md §1.4).
static STORE_REFERENCE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\{\{ *ssm:[0-9A-Za-z_.:/-]+ *\}\}").expect("the pattern is constant and tested")
});

/// Values after defaults were filled in and every rule was checked. Only [`Definitions::resolve_lists`] and
/// [`Definitions::resolve_values`] make one.
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

impl ParameterError {
    pub(super) fn unusable_pattern(name: &str, pattern: &str, reason: &str) -> Self {
        Self::Rule {
            name: name.to_owned(),
            rule: format!(
                "the allowed pattern /{}/ cannot be used: {reason}",
                shown(pattern)
            ),
        }
    }
}

impl Definitions {
    /// The API's form (name to list of texts) into typed values, checked, defaults filled in. The endpoint does this
    /// for SendCommand and StartSession: a String takes exactly one text.
    ///
    /// Every rule of the definition is checked. A value with a Parameter Store reference is known only on the node:
    /// one that is nothing but references skips every rule, one with other text around them still has to match
    /// `allowedPattern`, because that text reaches a shell as it is. Defaults have to match `allowedPattern` only.
    /// In a session no node looks references up, so there they are text like any other.
    ///
    /// # Errors
    /// The first parameter that breaks a rule.
    pub fn resolve_lists(&self, given: &BTreeMap<String, Vec<String>>) -> Result<Parameters, ParameterError> {
        if let Some(name) = given.keys().find(|name| !self.by_name.contains_key(*name)) {
            return Err(ParameterError::Undefined(name.clone()));
        }
        self.resolve(|name, definition| match given.get(name) {
            None => Ok(None),
            Some(texts) => {
                let value = typed(definition.parameter_type, texts, self.references_are_text)?;
                if self.references_are_text || !contains_reference(&value) {
                    check_rules(definition, &value)?;
                }
                Ok(Some(value))
            }
        })
    }

    /// Values as another document or a person at the node gives them (documents.md §2.2), for a plan: null is no
    /// value, a scalar and its text mean the same, a text may hold a list or a map as JSON, and every rule is
    /// checked, since no endpoint has done so. Unknown names are dropped.
    ///
    /// # Errors
    /// The first parameter that breaks a rule.
    pub fn typed_values(&self, given: &Map<String, Value>) -> Result<Map<String, Value>, ParameterError> {
        let mut values = Map::new();
        for (name, definition) in &self.by_name {
            let broken = |rule| definition.broken(name, rule);
            let Some(value) = given.get(name).filter(|value| !value.is_null()) else {
                continue;
            };
            let value = retyped(definition.parameter_type, value).map_err(broken)?;
            if !contains_reference(&value) {
                check_rules(definition, &value).map_err(broken)?;
            }
            values.insert(name.clone(), value);
        }
        Ok(values)
    }

    /// Typed values as an agent gets them in a message: `allowedPattern` is checked again, unknown names are dropped,
    /// defaults filled in.
    ///
    /// # Errors
    /// A value does not match its pattern, or a parameter has neither value nor default.
    pub fn resolve_values(&self, given: &Map<String, Value>) -> Result<Parameters, ParameterError> {
        self.resolve(|name, _| Ok(given.get(name).cloned()))
    }

    fn resolve(
        &self,
        value_of: impl Fn(&str, &Definition) -> Result<Option<Value>, String>,
    ) -> Result<Parameters, ParameterError> {
        let mut values = Map::new();
        for (name, definition) in &self.by_name {
            let broken = |rule| definition.broken(name, rule);
            let value = value_of(name, definition)
                .map_err(broken)?
                .or_else(|| definition.default.clone())
                .ok_or_else(|| ParameterError::Missing(name.clone()))?;
            if let Some(pattern) = &definition.allowed_pattern {
                check_pattern(pattern, &value, self.references_are_text).map_err(broken)?;
            }
            values.insert(name.clone(), value);
        }
        Ok(Parameters(values))
    }
}

/// Texts of the API into a value of the type.
fn typed(
    parameter_type: ParameterType,
    texts: &[String],
    references_are_text: bool,
) -> Result<Value, String> {
    if parameter_type == ParameterType::StringList {
        return Ok(texts.iter().map(String::as_str).collect());
    }
    if let (ParameterType::MapList, [_, _, ..] | []) = (parameter_type, texts) {
        return texts.iter().map(|text| object(text)).collect();
    }
    let [text] = texts else {
        let count = texts.len();
        return Err(format!(
            "a {} takes exactly one value, not {count}",
            parameter_type.as_str()
        ));
    };
    let parsed = match parameter_type {
        ParameterType::String | ParameterType::StringList => return Ok(text.as_str().into()),
        ParameterType::StringMap => object(text),
        ParameterType::Boolean => boolean(text)
            .map(Value::from)
            .ok_or_else(|| not_a("true or false", text)),
        ParameterType::Integer => text
            .parse::<i32>()
            .map(Value::from)
            .map_err(|_| not_a("a whole number of 32 bits", text)),
        ParameterType::MapList => objects(text),
    };
    match parsed {
        // The node puts the number, or the map, in place of the reference.
        Err(_) if !references_are_text && STORE_REFERENCE.is_match(text) => Ok(text.as_str().into()),
        result => result,
    }
}

/// A value of any kind into one of the type.
fn retyped(parameter_type: ParameterType, value: &Value) -> Result<Value, String> {
    let is_list = matches!(parameter_type, ParameterType::StringList | ParameterType::MapList);
    match value {
        Value::Array(elements) if parameter_type == ParameterType::StringList => {
            return Ok(elements
                .iter()
                .map(|element| plain_text(element).into_owned())
                .collect());
        }
        Value::Array(elements)
            if parameter_type == ParameterType::MapList && elements.iter().all(Value::is_object) =>
        {
            return Ok(value.clone());
        }
        Value::Object(_) if parameter_type == ParameterType::StringMap => return Ok(value.clone()),
        // As the API has it: a list of one text.
        Value::Array(elements) if !is_list => {
            if let [Value::String(text)] = elements.as_slice() {
                return typed(parameter_type, std::slice::from_ref(text), false);
            }
        }
        Value::String(_) | Value::Number(_) | Value::Bool(_) => {
            let text = plain_text(value).into_owned();
            if parameter_type == ParameterType::StringList
                && let Ok(list @ Value::Array(_)) = serde_json::from_str::<Value>(&text)
            {
                return retyped(parameter_type, &list);
            }
            return typed(parameter_type, &[text], false);
        }
        _ => {}
    }
    Err(not_a(
        &format!("a {}", parameter_type.as_str()),
        &value.to_string(),
    ))
}

fn object(text: &str) -> Result<Value, String> {
    serde_json::from_str(text)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| not_a("a JSON object", text))
}

/// One text of a MapList: a JSON list of objects, or one object.
fn objects(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(Value::Array(elements)) if elements.iter().all(Value::is_object) => Ok(Value::Array(elements)),
        Ok(element @ Value::Object(_)) => Ok(Value::Array(vec![element])),
        _ => Err(not_a("a JSON list of objects", text)),
    }
}

fn boolean(text: &str) -> Option<bool> {
    [("true", true), ("false", false)]
        .into_iter()
        .find_map(|(name, value)| text.eq_ignore_ascii_case(name).then_some(value))
}

fn not_a(expected: &str, text: &str) -> String {
    format!("parameter value /{}/ is not {expected}", shown(text))
}

/// Every rule but the pattern.
fn check_rules(definition: &Definition, value: &Value) -> Result<(), String> {
    let is_scalar = matches!(
        definition.parameter_type,
        ParameterType::Boolean | ParameterType::Integer
    );
    for element in elements(value) {
        let text = plain_text(element);
        if !definition.allowed_values.is_empty()
            && !definition
                .allowed_values
                .iter()
                .any(|allowed| plain_text(allowed) == text)
        {
            let allowed: Vec<_> = definition.allowed_values.iter().map(plain_text).collect();
            let allowed = allowed.join(" ");
            return Err(format!(
                "parameter value /{}/ is not in the allowed list [{allowed}]",
                shown(&text)
            ));
        }
        if is_scalar {
            continue;
        }
        let bytes = text.len() as u64;
        if let Some(least) = definition.min_chars.filter(|least| bytes < *least) {
            return Err(format!(
                "parameter value /{}/ is less than the min char limit /{least}/",
                shown(&text)
            ));
        }
        if let Some(most) = definition.max_chars.filter(|most| bytes > *most) {
            return Err(format!(
                "parameter value /{}/ is exceeding the max chars /{most}/",
                shown(&text)
            ));
        }
    }
    let items = match value {
        Value::Array(elements) => elements.len() as u64,
        Value::Object(members) => members.len() as u64,
        _ => return Ok(()),
    };
    if definition.min_items.is_some_and(|least| items < least) {
        return Err(format!(
            "parameter list length /{items}/ is less the min item count"
        ));
    }
    if definition.max_items.is_some_and(|most| items > most) {
        return Err(format!(
            "parameter list length /{items}/ has exceeded the max item count"
        ));
    }
    Ok(())
}

/// A text, each element of a list, and the JSON text of anything else has to contain a match.
fn check_pattern(pattern: &AllowedPattern, value: &Value, references_are_text: bool) -> Result<(), String> {
    for element in elements(value) {
        if element.is_null() {
            return Err("invalid parameter type null with parameter value null".to_owned());
        }
        let text = plain_text(element);
        let is_known_later = !references_are_text && is_only_references(&text);
        if !pattern.is_match(&text) && !is_known_later {
            return Err(format!(
                "parameter value /{}/ does not match the allowed pattern /{}/",
                shown(&text),
                shown(pattern.as_str())
            ));
        }
    }
    Ok(())
}

/// The elements of a list, or the value itself.
fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    let (list, single) = match value {
        Value::Array(elements) => (elements.as_slice(), None),
        other => (&[][..], Some(other)),
    };
    list.iter().chain(single)
}

fn contains_reference(value: &Value) -> bool {
    elements(value).any(|element| STORE_REFERENCE.is_match(&plain_text(element)))
}

fn is_only_references(text: &str) -> bool {
    !text.is_empty() && STORE_REFERENCE.replace_all(text, "").is_empty()
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests;
