//! `{{ name }}` (documents.md §1.4).

use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::{Map, Value};

use super::DocumentError;
use super::content::{json_bytes, malformed, plain_text};

/// Most bytes that the values of parameters may add to one document. A small document may name a large value
/// thousands of times.
pub const MAX_INSERTED_BYTES: usize = 1024 * 1024;

static TOKEN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\{\{[\t\n\x0C\r ]*([0-9A-Za-z]+)[\t\n\x0C\r ]*\}\}")
        .expect("the pattern is constant and tested")
});

/// Names of the tokens in a text.
pub(super) fn names_in(text: &str) -> impl Iterator<Item = &str> {
    TOKEN
        .captures_iter(text)
        .filter_map(|found| Some(found.get(1)?.as_str()))
}

/// Replaces tokens in the parts of one document.
#[derive(Debug)]
pub(super) struct Substitution<'a> {
    parameters: &'a Map<String, Value>,
    left: usize,
}

impl<'a> Substitution<'a> {
    pub(super) fn new(parameters: &'a Map<String, Value>) -> Self {
        Self {
            parameters,
            left: MAX_INSERTED_BYTES,
        }
    }

    /// A copy of the value with the tokens replaced in texts, list elements and member values; never in member
    /// names. Text that came from a parameter is not scanned again.
    ///
    /// # Errors
    /// More than [`MAX_INSERTED_BYTES`] would be inserted.
    pub(super) fn value(&mut self, value: &Value) -> Result<Value, DocumentError> {
        Ok(match value {
            Value::String(text) => self.string(text)?,
            Value::Array(elements) => elements
                .iter()
                .map(|element| self.value(element))
                .collect::<Result<_, _>>()?,
            Value::Object(members) => Value::Object(
                members
                    .iter()
                    .map(|(name, member)| Ok((name.clone(), self.value(member)?)))
                    .collect::<Result<_, DocumentError>>()?,
            ),
            other => other.clone(),
        })
    }

    /// A text that is exactly one token becomes the parameter's value with its type; in other texts each token
    /// becomes the value's text, where `$$` in the value becomes `$`. Unknown names stay.
    ///
    /// # Errors
    /// As [`Self::value`].
    pub(super) fn string(&mut self, text: &str) -> Result<Value, DocumentError> {
        if let Some(found) = TOKEN.captures(text)
            && found[0].len() == text.len()
        {
            let Some(value) = self.parameters.get(&found[1]) else {
                return Ok(text.into());
            };
            let bytes = json_bytes(value, self.left).ok_or_else(too_large)?;
            self.left -= bytes;
            return Ok(value.clone());
        }
        let parameters = self.parameters;
        let mut left = Some(self.left);
        let replaced = TOKEN.replace_all(text, |found: &Captures<'_>| {
            let Some(value) = parameters.get(&found[1]) else {
                return found[0].to_owned();
            };
            let inserted = plain_text(value);
            left = left.and_then(|left| left.checked_sub(inserted.len()));
            match left {
                Some(_) => inserted.replace("$$", "$"),
                None => String::new(),
            }
        });
        let replaced = Value::from(replaced.as_ref());
        self.left = left.ok_or_else(too_large)?;
        Ok(replaced)
    }
}

fn too_large() -> DocumentError {
    malformed(format!(
        "the parameters insert more than {MAX_INSERTED_BYTES} bytes"
    ))
}

#[cfg(test)]
mod tests;
