//! What a document is known by, however it was written down: its content, and not its file.
//!
//! JSON and YAML, the order of members and white space make files differ that say the same. So a digest is taken of
//! one form: JSON without white space, with the members of every object in the order of their names' bytes.

use std::{fmt, str::FromStr};

use ring::digest;
use serde_json::{Map, Value};

use crate::hex;

/// SHA-256 of a value's one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// A text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 64 hexadecimal digits in lower case")]
pub struct InvalidDigest;

impl Digest {
    /// Of a document's content, or of any other value.
    pub fn of(value: &Value) -> Self {
        Self::of_text(&one_form(value))
    }

    /// Of parameters, the values of which have the types that their document gives them.
    pub fn of_map(members: &Map<String, Value>) -> Self {
        let mut text = String::new();
        write_members(members, &mut text);
        Self::of_text(&text)
    }

    fn of_text(text: &str) -> Self {
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hash.as_ref());
        Self(bytes)
    }
}

/// 64 hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        hex::parse(text.as_bytes()).map(Self).ok_or(InvalidDigest)
    }
}

/// JSON without white space, members in the order of their names.
pub fn one_form(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

/// The depth is that of a parsed text, which is bounded.
fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => write_members(members, text),
        Value::Array(elements) => {
            text.push('[');
            for (index, element) in elements.iter().enumerate() {
                separate(index, text);
                write(element, text);
            }
            text.push(']');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

fn write_members(members: &Map<String, Value>, text: &mut String) {
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_unstable_by_key(|(name, _)| *name);
    text.push('{');
    for (index, (name, value)) in sorted.into_iter().enumerate() {
        separate(index, text);
        text.push_str(&Value::from(name.as_str()).to_string());
        text.push(':');
        write(value, text);
    }
    text.push('}');
}

fn separate(index: usize, text: &mut String) {
    if index > 0 {
        text.push(',');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::document::read_text;

    #[test]
    fn json_and_yaml_that_say_the_same_have_one_digest() {
        let json = r#"{ "schemaVersion": "2.2", "b": [1, "é\n", {"z": null, "a": true}] }"#;
        let yaml = "b:\n- 1\n- \"é\\n\"\n- a: true\n  z: null\nschemaVersion: \"2.2\"\n";
        let (json, yaml) = (read_text(json).unwrap(), read_text(yaml).unwrap());
        let golden = r#"{"b":[1,"é\n",{"a":true,"z":null}],"schemaVersion":"2.2"}"#;
        assert_eq!(
            (one_form(&json), one_form(&yaml)),
            (golden.to_owned(), golden.to_owned())
        );
        let golden = "d5dd2524";
        assert_eq!(Digest::of(&json), Digest::of(&yaml));
        assert_eq!(Digest::of(&json).to_string().get(..8), Some(golden));
    }

    #[test]
    fn a_digest_is_read_as_it_is_written_and_in_no_other_way() {
        let digest = Digest::of(&json!({}));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for other in ["", "abc", &digest.to_string().to_uppercase()] {
            assert_eq!(other.parse::<Digest>(), Err(InvalidDigest), "{other}");
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((".{0,4}", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// The same with every object's members turned round.
    fn reversed(value: &Value) -> Value {
        match value {
            Value::Object(members) => {
                let turned = members.iter().rev();
                Value::Object(
                    turned
                        .map(|(name, value)| (name.clone(), reversed(value)))
                        .collect(),
                )
            }
            Value::Array(elements) => elements.iter().map(reversed).collect(),
            plain => plain.clone(),
        }
    }

    proptest! {
        #[test]
        fn the_one_form_says_the_same_and_depends_on_nothing_else(value in values()) {
            let text = one_form(&value);
            let read: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&read, &value);
            prop_assert_eq!(one_form(&reversed(&value)), text);
        }

        #[test]
        fn values_that_differ_have_different_forms(one in values(), other in values()) {
            prop_assert_eq!(one == other, one_form(&one) == one_form(&other));
        }
    }
}
