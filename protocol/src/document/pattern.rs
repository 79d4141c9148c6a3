//! `allowedPattern`: RE2 syntax, searched without anchors (documents.md §1.2).
//!
//! The `regex` crate reads nearly the same language. A pattern is rewritten where the two differ, so that a
//! published pattern means here what it means on other nodes.

use regex::{Regex, RegexBuilder};

/// Memory a compiled pattern may take.
const SIZE_LIMIT: usize = 4 * 1024 * 1024;
/// Nesting of groups and classes.
const NEST_LIMIT: u32 = 64;

/// `allowedPattern` of a parameter, compiled once: that costs more than everything else that a definition needs.
/// Two that are written alike are equal.
#[derive(Debug, Clone)]
pub struct AllowedPattern {
    text: String,
    regex: Regex,
}

impl AllowedPattern {
    /// # Errors
    /// As [`compile`].
    pub(super) fn new(text: &str) -> Result<Self, String> {
        Ok(Self {
            text: text.to_owned(),
            regex: compile(text)?,
        })
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the text holds a match.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

impl PartialEq for AllowedPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for AllowedPattern {}

/// Compiles a pattern.
///
/// # Errors
/// The reason as one line: look-around, back-references, bad syntax, or a pattern that is too large.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(&translate(pattern))
        .size_limit(SIZE_LIMIT)
        .nest_limit(NEST_LIMIT)
        .build()
        .map_err(|error| {
            // The last line of a syntax error says what is wrong, the others draw the place.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default();
            reason.trim_start_matches("error: ").to_owned()
        })
}

/// RE2 syntax to the crate's: escapes of ordinary punctuation, `\Q…\E`, ASCII classes, literal braces, and the
/// characters that only the crate treats as operators inside a class.
fn translate(pattern: &str) -> String {
    let mut output = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    let mut class: Option<Class> = None;
    while let Some(character) = rest.chars().next() {
        let after = rest.strip_prefix(character).unwrap_or_default();
        rest = match character {
            '\\' => {
                if let Some(class) = &mut class {
                    class.position = Position::Later;
                }
                escape(after, &mut output)
            }
            _ if class.is_some() => in_class(character, after, &mut class, &mut output),
            '[' => {
                output.push('[');
                class = Some(Class {
                    position: Position::First,
                });
                match after.strip_prefix('^') {
                    Some(negated) => {
                        output.push('^');
                        negated
                    }
                    None => after,
                }
            }
            '{' if !starts_repetition(after) => {
                output.push_str(r"\{");
                after
            }
            '{' => {
                // Copy the whole repetition: its `}` is no literal.
                let (counts, behind) = after.split_once('}').unwrap_or((after, ""));
                output.push('{');
                output.push_str(counts);
                output.push('}');
                behind
            }
            '}' => {
                output.push_str(r"\}");
                after
            }
            other => {
                output.push(other);
                after
            }
        };
    }
    output
}

/// State inside `[…]`.
struct Class {
    position: Position,
}

#[derive(PartialEq, Eq)]
enum Position {
    First,
    AfterDash,
    Later,
}

fn in_class<'a>(character: char, after: &'a str, class: &mut Option<Class>, output: &mut String) -> &'a str {
    let position = class.take().map_or(Position::Later, |class| class.position);
    let mut next = Position::Later;
    let mut rest = after;
    match character {
        ']' if position != Position::First => {
            output.push(']');
            return rest;
        }
        '[' => match after.strip_prefix(':').and_then(|name| name.split_once(":]")) {
            // [:alpha:]
            Some((name, behind)) if name.bytes().all(|byte| byte == b'^' || byte.is_ascii_lowercase()) => {
                output.push_str("[:");
                output.push_str(name);
                output.push_str(":]");
                rest = behind;
            }
            _ => output.push_str(r"\["),
        },
        // A dash that comes first is a character; two together would be the crate's difference.
        '-' if position == Position::Later => {
            output.push('-');
            next = Position::AfterDash;
        }
        '-' | ']' | '&' | '~' => {
            output.push('\\');
            output.push(character);
        }
        other => output.push(other),
    }
    *class = Some(Class { position: next });
    rest
}

/// Writes the escape whose backslash was just read; returns what follows it.
fn escape<'a>(after: &'a str, output: &mut String) -> &'a str {
    let Some(character) = after.chars().next() else {
        output.push('\\');
        return after;
    };
    let rest = after.strip_prefix(character).unwrap_or_default();
    match character {
        // Only ASCII, as in RE2. A class inside a class is their union.
        'd' => output.push_str("[0-9]"),
        'D' => output.push_str("[^0-9]"),
        's' => output.push_str(r"[\t\n\x0C\r ]"),
        'S' => output.push_str(r"[^\t\n\x0C\r ]"),
        'w' => output.push_str("[0-9A-Za-z_]"),
        'W' => output.push_str("[^0-9A-Za-z_]"),
        'b' => output.push_str(r"(?-u:\b)"),
        'Q' => {
            let (literal, behind) = rest.split_once(r"\E").unwrap_or((rest, ""));
            output.push_str(&regex::escape(literal));
            return behind;
        }
        // The crate refuses some of these and gives `\<` and `\>` another meaning.
        punctuation if punctuation.is_ascii_punctuation() || punctuation == ' ' => {
            output.push_str(&format!(r"\x{:02X}", u32::from(punctuation)));
        }
        // \x{10FFFF}, \p{Greek}: these braces are part of the escape.
        'x' | 'p' | 'P' if rest.starts_with('{') => {
            let (name, behind) = rest.split_once('}').unwrap_or((rest, ""));
            output.push('\\');
            output.push(character);
            output.push_str(name);
            output.push('}');
            return behind;
        }
        other => {
            output.push('\\');
            output.push(other);
        }
    }
    rest
}

/// Whether `{` followed by this is `{n}`, `{n,}` or `{n,m}`; else it is an ordinary character.
fn starts_repetition(after: &str) -> bool {
    let Some((counts, _)) = after.split_once('}') else {
        return false;
    };
    let (least, most) = counts.split_once(',').unwrap_or((counts, ""));
    !least.is_empty()
        && [least, most]
            .iter()
            .all(|count| count.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests;
