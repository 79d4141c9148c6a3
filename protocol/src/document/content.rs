//! What both kinds of document share: bounds on the content, and reading of members.

use std::io;

use serde_json::{Map, Value};

use super::DocumentError;

/// Largest document, as compact JSON. The service stores no larger one.
pub const MAX_CONTENT_BYTES: usize = 64 * 1024;

/// Deepest nesting of a document; a text or number has depth 1.
pub const MAX_DEPTH: usize = 64;

/// A member by its name without regard to ASCII case; the exact name wins over others (documents.md §1.1).
///
/// The inputs of a step are to be read with this too: published documents write both `sourceType` and `SourceType`.
pub fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.get(name).or_else(|| {
        object
            .iter()
            .find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    })
}

/// A member that is present and not null.
pub(super) fn present<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    member(object, name).filter(|value| !value.is_null())
}

/// A text member, empty when it is missing or null.
///
/// # Errors
/// Another type.
pub(super) fn text_member(object: &Map<String, Value>, name: &str) -> Result<String, DocumentError> {
    match present(object, name) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(malformed(format!("{name} must be a text"))),
    }
}

/// `schemaVersion`; in YAML an author may forget the quotes.
pub(super) fn schema_text(object: &Map<String, Value>) -> Result<String, DocumentError> {
    match member(object, "schemaVersion") {
        Some(Value::Number(number)) => Ok(number.to_string()),
        _ => text_member(object, "schemaVersion"),
    }
}

/// `description`: free text that nothing depends on, so another type counts as none.
pub(super) fn description(object: &Map<String, Value>) -> String {
    member(object, "description")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// The document's members, after its size and depth were checked.
///
/// # Errors
/// Not an object, deeper than [`MAX_DEPTH`] or larger than [`MAX_CONTENT_BYTES`].
pub(super) fn bounded(content: &Value) -> Result<&Map<String, Value>, DocumentError> {
    let members = content
        .as_object()
        .ok_or_else(|| malformed("the content must be an object"))?;
    // Depth first: measuring the size recurses too.
    if !is_within_depth(content, MAX_DEPTH) {
        return Err(malformed(format!("nested deeper than {MAX_DEPTH} levels")));
    }
    if json_bytes(content, MAX_CONTENT_BYTES).is_none() {
        return Err(malformed(format!("larger than {MAX_CONTENT_BYTES} bytes")));
    }
    Ok(members)
}

/// Text of a value outside JSON: a text as it is, everything else as compact JSON (documents.md §1.4).
pub(super) fn plain_text(value: &Value) -> std::borrow::Cow<'_, str> {
    match value {
        Value::String(text) => text.as_str().into(),
        other => other.to_string().into(),
    }
}

/// Length of the compact JSON, or `None` when it is more than `limit`. Allocates nothing.
pub(super) fn json_bytes(value: &Value, limit: usize) -> Option<usize> {
    let mut room = Room { left: limit };
    serde_json::to_writer(&mut room, value).ok()?;
    Some(limit - room.left)
}

pub(super) fn malformed(reason: impl Into<String>) -> DocumentError {
    DocumentError::Malformed(reason.into())
}

fn is_within_depth(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else {
        return false;
    };
    match value {
        Value::Array(elements) => elements.iter().all(|element| is_within_depth(element, below)),
        Value::Object(members) => members.values().all(|member| is_within_depth(member, below)),
        _ => true,
    }
}

/// Counts what is written and fails when there is no room left.
struct Room {
    left: usize,
}

impl io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self
            .left
            .checked_sub(bytes.len())
            .ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
