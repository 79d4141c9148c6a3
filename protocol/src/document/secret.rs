//! Which parameters are secrets, and how they are left out of what is recorded.

use serde_json::{Map, Value};

use super::Definitions;

/// In the names of members whose values are never shown, in lower case without separators.
const SECRET_NAMES: [&str; 10] = [
    "activationcode",
    "apikey",
    "ciphertext",
    "credential",
    "passphrase",
    "password",
    "plaintext",
    "privatekey",
    "secret",
    "token",
];

/// Whether what has this name is a secret by its name alone.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let plain: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|character| character.to_ascii_lowercase())
        .collect();
    SECRET_NAMES.iter().any(|secret| plain.contains(secret))
}

/// Names of the parameters that a document marks as secrets, whatever else is in it.
pub fn marked_secrets(document: &Value) -> impl Iterator<Item = &str> {
    let parameters = document.get("parameters").and_then(Value::as_object);
    let is_marked = |definition: &Value| definition.get("noEcho") == Some(&Value::Bool(true));
    parameters
        .into_iter()
        .flatten()
        .filter_map(move |(name, definition)| is_marked(definition).then_some(name.as_str()))
}

impl Definitions {
    /// The texts of parameters that are marked as secrets, of values that were filled in.
    #[must_use]
    pub fn secret_texts(&self, values: &Map<String, Value>) -> Vec<String> {
        let mut secrets = Vec::new();
        for (name, _) in self.iter().filter(|(_, definition)| definition.is_secret) {
            collect_texts(values.get(name), &mut secrets);
        }
        secrets
    }

    /// The values with `mask` in the place of each text of a secret: a parameter that is marked as one, or whose name
    /// says so.
    #[must_use]
    pub fn masked(&self, values: &Map<String, Value>, mask: &str) -> Map<String, Value> {
        let is_marked = |name: &str| {
            let mut definitions = self.iter();
            definitions.any(|(known, definition)| known == name && definition.is_secret)
        };
        let mut masked = values.clone();
        for (name, value) in &mut masked {
            if !is_marked(name) && !is_secret_name(name) {
                continue;
            }
            match value {
                Value::Array(items) => items.iter_mut().for_each(|item| *item = mask.into()),
                value => *value = mask.into(),
            }
        }
        masked
    }
}

/// Every text in a value.
fn collect_texts(value: Option<&Value>, texts: &mut Vec<String>) {
    match value {
        Some(Value::Array(items)) => items.iter().for_each(|item| collect_texts(Some(item), texts)),
        Some(Value::Object(members)) => {
            members
                .values()
                .for_each(|member| collect_texts(Some(member), texts));
        }
        Some(Value::String(text)) => texts.push(text.clone()),
        Some(number @ Value::Number(_)) => texts.push(number.to_string()),
        Some(Value::Bool(_) | Value::Null) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_parameter_is_a_secret_by_its_mark_or_its_name_and_its_texts_are_known_by_its_mark() {
        let definitions = json!({
            "word": {"type": "StringList", "noEcho": true},
            "DbPassword": {"type": "String"},
            "plain": {"type": "String"},
        });
        let definitions = Definitions::parse(Some(&definitions)).unwrap();
        let values = json!({"word": ["a", "b"], "DbPassword": "hunter2", "plain": "p"});
        let values = values.as_object().unwrap();
        assert_eq!(definitions.secret_texts(values), ["a", "b"]);
        let masked = json!({"word": ["***", "***"], "DbPassword": "***", "plain": "p"});
        assert_eq!(Value::Object(definitions.masked(values, "***")), masked);
    }

    #[test]
    fn a_name_says_that_it_is_a_secret_in_any_spelling() {
        for name in ["password", "API-Key", "db_secret_2", "SessionToken"] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["commands", "pass", "key", "author"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
