//! A request's members as the log shows them: secrets never, long texts cut, the whole bounded.

use moorline_protocol::{audit::Digest, document::is_secret_name};
use moorline_ssm::OperationId;
use serde_json::{Map, Value};

/// What stands in place of a secret.
pub(crate) const MASKED: &str = "***";
/// Of a member's text.
const MOST_TEXT_BYTES: usize = 1024;
/// Of a text in `Parameters`: what is run on nodes is kept whole up to here.
const MOST_SCRIPT_BYTES: usize = 32 * 1024;
/// Of all together, as JSON; a line of the log has room for several times as much.
const MOST_BYTES: usize = 96 * 1024;
/// Deeper members of ours do not exist.
const MOST_DEPTH: usize = 32;
/// Members that are secret in this operation's requests, beside those whose name says so.
fn secret_members(operation: OperationId) -> &'static [&'static str] {
    match operation {
        // A new version of a SecureString does not have to say what it is.
        OperationId::PutParameter => &["Value"],
        OperationId::PutAttachment => &["Data"],
        _ => &[],
    }
}

/// The members of a request, which has been read as the operation's own shape.
pub(super) fn masked(operation: OperationId, input: Value) -> Map<String, Value> {
    let Value::Object(mut members) = input else {
        return Map::new();
    };
    for name in secret_members(operation) {
        if let Some(value) = members.get_mut(*name).filter(|value| !value.is_null()) {
            *value = Value::from(MASKED);
        }
    }
    let mut left = MOST_BYTES;
    object(members, MOST_TEXT_BYTES, 0, &mut left)
}

fn object(members: Map<String, Value>, most: usize, depth: usize, left: &mut usize) -> Map<String, Value> {
    // a parameter that its type names as a secret
    let is_secure = members.get("Type").and_then(Value::as_str) == Some("SecureString");
    let mut shown = Map::new();
    for (name, inner) in members {
        if *left == 0 {
            break;
        }
        *left = left.saturating_sub(name.len() + 4);
        let most = if name == "Parameters" {
            MOST_SCRIPT_BYTES
        } else {
            most
        };
        let is_masked = is_secret_name(&name) || (is_secure && name == "Value");
        let inner = if is_masked && !inner.is_null() {
            *left = left.saturating_sub(MASKED.len());
            Value::from(MASKED)
        } else {
            value(inner, most, depth + 1, left)
        };
        shown.insert(name, inner);
    }
    shown
}

fn value(given: Value, most: usize, depth: usize, left: &mut usize) -> Value {
    if depth > MOST_DEPTH {
        return Value::from("(too deep)");
    }
    match given {
        Value::Null | Value::Bool(_) => {
            *left = left.saturating_sub(5);
            given
        }
        Value::Number(number) => {
            *left = left.saturating_sub(20);
            if number.is_f64() {
                // the log has integers only: fractions have more than one spelling
                Value::from(number.to_string())
            } else {
                Value::Number(number)
            }
        }
        Value::String(text) => Value::from(cut(text, most, left)),
        Value::Array(values) => {
            let mut shown = Vec::new();
            for inner in values {
                if *left == 0 {
                    shown.push(Value::from("(more follows)"));
                    break;
                }
                shown.push(value(inner, most, depth + 1, left));
            }
            Value::Array(shown)
        }
        Value::Object(members) => Value::Object(object(members, most, depth, left)),
    }
}

/// A text that is too long is cut; its hash tells which it was.
fn cut(text: String, most: usize, left: &mut usize) -> String {
    // a control character has six bytes in JSON
    let cost = |text: &str| {
        text.chars()
            .map(|c| {
                if c < ' ' || c == '"' || c == '\\' {
                    6
                } else {
                    c.len_utf8()
                }
            })
            .sum::<usize>()
            + 3
    };
    let whole = cost(&text);
    if text.len() <= most && whole <= *left {
        *left -= whole;
        return text;
    }
    let end = text.floor_char_boundary(most.min(*left / 6));
    let head = text.get(..end).unwrap_or_default();
    *left = left.saturating_sub(cost(head) + 128);
    let hash = sha256(text.as_bytes());
    format!("{head}… (cut; {} bytes, SHA-256 {hash})", text.len())
}

fn sha256(bytes: &[u8]) -> Digest {
    let mut hash = Digest::default();
    hash.0
        .copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(input: Value) -> Value {
        Value::Object(masked(OperationId::SendCommand, input))
    }

    #[test]
    fn secrets_are_masked_wherever_and_however_they_are_spelt() {
        let input = json!({
            "ActivationCode": "abc", "ActivationId": "id", "NextToken": "t", "CiphertextBlob": "AAAA",
            "Parameters": {"commands": ["date"], "db_password": ["hunter2"], "API-Key": ["k"], "AdminSecret": null},
            "Nested": [{"Name": "/a", "Type": "SecureString", "Value": "v"}, {"Type": "String", "Value": "v"}],
        });
        assert_eq!(
            shown(input),
            json!({
                "ActivationCode": "***", "ActivationId": "id", "NextToken": "***", "CiphertextBlob": "***",
                "Parameters": {"commands": ["date"], "db_password": "***", "API-Key": "***", "AdminSecret": null},
                "Nested": [{"Name": "/a", "Type": "SecureString", "Value": "***"}, {"Type": "String", "Value": "v"}],
            })
        );
    }

    #[test]
    fn the_value_of_a_parameter_is_masked_whether_or_not_its_type_is_said() {
        for kind in [json!(null), json!("String"), json!("SecureString")] {
            let input = json!({"Name": "/a", "Type": kind, "Value": "v", "Overwrite": true});
            let shown = masked(OperationId::PutParameter, input);
            assert_eq!((&shown["Name"], &shown["Value"]), (&json!("/a"), &json!("***")));
        }
    }

    #[test]
    fn scripts_are_whole_and_other_long_texts_are_cut_and_named_by_their_hash() {
        let script = "x".repeat(30_000);
        let input = json!({"Content": script, "Parameters": {"commands": [script]}, "Date": 1.5, "Limit": 7});
        let shown = shown(input);
        assert_eq!(shown["Parameters"]["commands"][0], json!(script));
        assert_eq!((&shown["Date"], &shown["Limit"]), (&json!("1.5"), &json!(7)));
        let hash = sha256(script.as_bytes());
        let cut = format!("{}… (cut; 30000 bytes, SHA-256 {hash})", "x".repeat(1024));
        assert_eq!(shown["Content"], json!(cut));
    }

    #[test]
    fn the_whole_is_bounded_whatever_is_in_it() {
        let texts = vec!["\u{1}".repeat(30_000); 40];
        let many: Map<String, Value> = (0..20_000).map(|n| (format!("name {n}"), json!(n))).collect();
        let mut deep = json!("end");
        for _ in 0..100 {
            deep = json!([deep]);
        }
        for input in [
            json!({"Parameters": {"commands": texts}}),
            json!({ "many": many }),
            json!({ "deep": deep }),
        ] {
            let bytes = shown(input).to_string().len();
            assert!(bytes < 2 * MOST_BYTES, "{bytes}");
        }
    }
}
