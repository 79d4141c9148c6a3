//! `{{ name }}` (documents.md §1.4).

use std::sync::LazyLock;

use regex::{Match, Regex};
use serde_json::{Map, Value};

use super::DocumentError;
use super::content::{json_bytes, malformed, plain_text};

/// Most bytes that the values of parameters may add to one document. A small document may name a large value
/// thousands of times.
pub const MAX_INSERTED_BYTES: usize = 1024 * 1024;

static TOKEN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\{\{[\t\n\x0C\r ]*[0-9A-Za-z]+[\t\n\x0C\r ]*\}\}")
        .expect("the pattern is constant and tested")
});

/// Names of the tokens in a text.
pub(super) fn names_in(text: &str) -> impl Iterator<Item = &str> {
    TOKEN.find_iter(text).map(name)
}

/// The name in a token: all of it that is no brace and no white space.
fn name(token: Match<'_>) -> &str {
    token
        .as_str()
        .trim_matches(|char: char| !char.is_ascii_alphanumeric())
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
        let mut replaced = String::with_capacity(text.len());
        let mut done = 0;
        for found in TOKEN.find_iter(text) {
            let Some(value) = self.parameters.get(name(found)) else {
                continue;
            };
            if found.len() == text.len() {
                let bytes = json_bytes(value, self.left).ok_or_else(too_large)?;
                self.left -= bytes;
                return Ok(value.clone());
            }
            let inserted = plain_text(value);
            self.left = self.left.checked_sub(inserted.len()).ok_or_else(too_large)?;
            replaced.push_str(text.get(done..found.start()).unwrap_or_default());
            replaced.push_str(&inserted.replace("$$", "$"));
            done = found.end();
        }
        replaced.push_str(text.get(done..).unwrap_or_default());
        Ok(replaced.into())
    }
}

fn too_large() -> DocumentError {
    malformed(format!(
        "the parameters insert more than {MAX_INSERTED_BYTES} bytes"
    ))
}

#[cfg(test)]
mod tests;
