//! A value as YAML that people like to read: block style, and long texts as literal blocks.

use serde_json::{Map, Value};

/// The value as YAML; reading it gives the same value again.
pub fn write_yaml(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

/// A value that begins on a line of its own, at this indentation.
fn block(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(members) if !members.is_empty() => object(members, indent, false, text),
        Value::Array(elements) if !elements.is_empty() => {
            for element in elements {
                spaces(indent, text);
                text.push('-');
                match element {
                    Value::Object(members) if !members.is_empty() => {
                        text.push(' ');
                        object(members, indent + 2, true, text);
                    }
                    other => after_mark(other, indent + 2, text),
                }
            }
        }
        other => {
            spaces(indent, text);
            text.push_str(&scalar(other));
            text.push('\n');
        }
    }
}

/// `continues`: the first member stands on a line that has begun.
fn object(members: &Map<String, Value>, indent: usize, continues: bool, text: &mut String) {
    for (index, (name, member)) in members.iter().enumerate() {
        if index > 0 || !continues {
            spaces(indent, text);
        }
        text.push_str(&quoted_if_needed(name));
        text.push(':');
        after_mark(member, indent + 2, text);
    }
}

/// What follows a `-` or a `:`.
fn after_mark(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            text.push('\n');
            block(value, indent, text);
        }
        Value::Array(elements) if !elements.is_empty() => {
            text.push('\n');
            block(value, indent, text);
        }
        Value::String(lines) if is_literal(lines) => {
            text.push_str(if lines.ends_with('\n') { " |\n" } else { " |-\n" });
            for line in lines.lines() {
                if !line.is_empty() {
                    spaces(indent, text);
                }
                text.push_str(line);
                text.push('\n');
            }
        }
        other => {
            text.push(' ');
            text.push_str(&scalar(other));
            text.push('\n');
        }
    }
}

fn spaces(count: usize, text: &mut String) {
    text.extend(std::iter::repeat_n(' ', count));
}

/// Whether a text may stand as a literal block: several lines of which neither the first nor the last is blank or
/// indented, without characters that the block could not show.
fn is_literal(text: &str) -> bool {
    let shown = |char: char| char == '\n' || (char.is_ascii() && !char.is_ascii_control());
    let body = text.strip_suffix('\n').unwrap_or(text);
    body.contains('\n')
        && text.chars().all(shown)
        && !body.starts_with([' ', '\n'])
        && !body.ends_with('\n')
        && body
            .lines()
            .all(|line| line.is_empty() || !line.trim().is_empty())
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => quoted_if_needed(text),
        other => other.to_string(),
    }
}

/// A word as it is, and everything that another reader might take for something else in double quotes. JSON's
/// escapes are YAML's.
fn quoted_if_needed(text: &str) -> String {
    let is_word = text.starts_with(|char: char| char.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/'));
    const SPECIAL: [&str; 8] = ["true", "false", "null", "yes", "no", "on", "off", "y"];
    let is_special =
        text.eq_ignore_ascii_case("n") || SPECIAL.iter().any(|special| text.eq_ignore_ascii_case(special));
    if is_word && !is_special {
        return text.to_owned();
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for char in text.chars() {
        match char {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            // Control characters, other line breaks, marks and non-characters are not printable in YAML.
            '\0'..='\x1f'
            | '\x7f'..='\u{a0}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(char)));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
