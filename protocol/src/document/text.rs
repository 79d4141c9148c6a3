//! The text of a document: JSON, or YAML 1.2 (documents.md §1.1), into a value and back.

mod yaml;
mod yaml_writer;

use serde_json::Value;

use super::DocumentError;
use super::content::malformed;

pub use yaml_writer::write_yaml;

/// Largest text that is read, in bytes. More than [`MAX_CONTENT_BYTES`](super::MAX_CONTENT_BYTES), since white space
/// and comments are no content.
pub const MAX_TEXT_BYTES: usize = 256 * 1024;

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextFormat {
    Json,
    Yaml,
}

impl TextFormat {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Yaml => "YAML",
        }
    }

    /// The format of this name on the wire.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Json, Self::Yaml]
            .into_iter()
            .find(|known| known.as_str() == name)
    }

    /// The value of a text in this format.
    ///
    /// Every text is read in bounded time and memory: at most [`MAX_TEXT_BYTES`], nested at most
    /// [`MAX_DEPTH`](super::MAX_DEPTH) levels, and what aliases of YAML repeat counts as often as it is repeated.
    ///
    /// # Errors
    /// The text is larger, deeper, or not in this format; the text of the error names the place.
    pub fn read(self, text: &str) -> Result<Value, DocumentError> {
        if text.len() > MAX_TEXT_BYTES {
            let bytes = text.len();
            return Err(malformed(format!(
                "the text has {bytes} bytes; {MAX_TEXT_BYTES} are read"
            )));
        }
        match self {
            Self::Json => {
                serde_json::from_str(text).map_err(|error| malformed(format!("it is not JSON: {error}")))
            }
            Self::Yaml => yaml::read(text),
        }
    }
}

/// The value of a text whose format nobody told: JSON, and what is not JSON as YAML.
///
/// # Errors
/// It is neither. The reason given is that of the format which its first character suggests.
pub fn read_text(text: &str) -> Result<Value, DocumentError> {
    let json = TextFormat::Json.read(text);
    if json.is_ok() {
        return json;
    }
    let yaml = TextFormat::Yaml.read(text);
    match yaml {
        Err(_) if text.trim_start().starts_with(['{', '[']) => json,
        other => other,
    }
}

#[cfg(test)]
mod tests;
