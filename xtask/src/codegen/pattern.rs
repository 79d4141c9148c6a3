//! From the model's regular expressions, which are Java's, to those of the `regex` crate.

use anyhow::{Context as _, Result};
use regex::Regex;

/// The one look-ahead that the models use often, and what it means where the whole text has to match.
const NOT_BLANK: (&str, &str) = (r"^(?!\s*$).+", r".*\S.*");

/// Anchors the pattern, as AWS matches the whole text, and makes `\w`, `\d` and `\s` mean ASCII, as in Java.
///
/// # Errors
///
/// The pattern needs something that the `regex` crate does not have.
pub(crate) fn translate(published: &str) -> Result<String> {
    let source = if published == NOT_BLANK.0 {
        NOT_BLANK.1
    } else {
        published
    };
    let mut out = String::from(r"\A(?:");
    let mut in_class = false;
    let mut chars = source.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let escaped = chars.next().context("pattern ends in a backslash")?;
                let class = match escaped {
                    'w' => "[:word:]",
                    'd' => "[:digit:]",
                    's' => "[:space:]",
                    'W' => "[:^word:]",
                    'D' => "[:^digit:]",
                    'S' => "[:^space:]",
                    _ => {
                        out.extend(['\\', escaped]);
                        continue;
                    }
                };
                let (open, close) = if in_class { ("", "") } else { ("[", "]") };
                out.extend([open, class, close]);
                continue;
            }
            '[' => in_class = true,
            ']' => in_class = false,
            _ => {}
        }
        out.push(c);
    }
    out.push_str(r")\z");
    Regex::new(&out).with_context(|| format!("pattern {published:?} needs a translation by hand"))?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::translate;

    #[test]
    fn classes_are_ascii_and_the_whole_text_matches() {
        assert_eq!(
            translate(r"[\w\-]\d+").unwrap(),
            r"\A(?:[[:word:]\-][[:digit:]]+)\z"
        );
        assert!(translate(r"(a)\1").is_err());
    }
}
