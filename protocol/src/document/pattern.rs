//! `allowedPattern`: RE2 syntax, searched without anchors (documents.md §1.2).
//!
//! The `regex` crate reads nearly the same language. A pattern is rewritten where the two differ, so that a
//! published pattern means here what it means on other nodes.

use regex_automata::{
    Input,
    meta::{self, BuildError, Regex},
    nfa::thompson::WhichCaptures,
    util::syntax,
};

/// Bytes of a pattern as it is written.
const MAX_WRITTEN_BYTES: usize = 8 * 1024;
/// Memory of each of the automata that a pattern is compiled to.
const MAX_AUTOMATON_BYTES: usize = 4 * 1024 * 1024;
/// Memory of all patterns of a document, compiled. It bounds the time as well that they take to compile.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Memory that looking for a match may take besides, while it lasts.
const MAX_SEARCH_BYTES: usize = 1024 * 1024;
/// Nesting of groups and classes.
const NEST_LIMIT: u32 = 64;

/// `allowedPattern` of a parameter, compiled once: that costs more than everything else that a definition needs.
/// Two that are written alike are equal.
#[derive(Debug, Clone)]
pub struct AllowedPattern {
    text: String,
    regex: Regex,
}

/// Memory that is left for the patterns of a document, in bytes.
#[derive(Debug)]
pub(super) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(MAX_BYTES)
    }
}

impl AllowedPattern {
    /// A pattern that stands by itself, as that of a stored parameter.
    ///
    /// # Errors
    /// The reason as one line: look-around, back-references, bad syntax, or a pattern that is too large.
    pub fn new(text: &str) -> Result<Self, String> {
        Self::within(text, &mut Budget::default())
    }

    /// One of those of a document.
    ///
    /// # Errors
    /// As [`Self::new`]; or it is too large for what the patterns before it have left.
    pub(super) fn within(text: &str, budget: &mut Budget) -> Result<Self, String> {
        if text.len() > MAX_WRITTEN_BYTES {
            return Err(format!("it has more than {MAX_WRITTEN_BYTES} bytes"));
        }
        let regex = compile(text, budget.0.min(MAX_AUTOMATON_BYTES))?;
        budget.0 = budget.0.checked_sub(regex.memory_usage()).ok_or_else(too_large)?;
        Ok(Self {
            text: text.to_owned(),
            regex,
        })
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the text holds a match. What was needed to look for one goes at once, where the crate would keep it for
    /// the next time.
    pub fn is_match(&self, text: &str) -> bool {
        let mut cache = self.regex.create_cache();
        let input = Input::new(text).earliest(true);
        self.regex.search_half_with(&mut cache, &input).is_some()
    }
}

impl PartialEq for AllowedPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for AllowedPattern {}

fn compile(pattern: &str, limit: usize) -> Result<Regex, String> {
    let config = meta::Config::new()
        .nfa_size_limit(Some(limit))
        .hybrid_cache_capacity(MAX_SEARCH_BYTES)
        // where a match is, and what its groups hold, nobody asks
        .which_captures(WhichCaptures::Implicit);
    meta::Builder::new()
        .configure(config)
        .syntax(syntax::Config::new().nest_limit(NEST_LIMIT))
        .build(&translate(pattern))
        .map_err(|error| reason(&error))
}

fn reason(error: &BuildError) -> String {
    match error.syntax_error() {
        // The last line of a syntax error says what is wrong, the others draw the place.
        Some(syntax) => {
            let text = syntax.to_string();
            let reason = text.lines().last().unwrap_or_default();
            reason.trim_start_matches("error: ").to_owned()
        }
        None => too_large(),
    }
}

/// Nothing else keeps a pattern with a syntax from being compiled.
fn too_large() -> String {
    format!(
        "compiled, it takes too much memory: all patterns of a document together may take {} MiB",
        MAX_BYTES / 1024 / 1024
    )
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
