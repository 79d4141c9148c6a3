//! Lines of the documentation: at most 120 columns, so that a change shows as the lines that it is about. Tables and
//! addresses cannot be folded; everything else `cargo xtask fold` folds.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{processes::output_of, root};

const COLUMNS: usize = 120;
/// A span of code up to here stays on one line.
const SPAN_COLUMNS: usize = 80;

/// Names each line that is too long.
pub(super) fn check(breaches: &mut Vec<String>) -> Result<()> {
    for path in pages()? {
        let shown = path.display();
        let text = fs::read_to_string(root()?.join(&path))?;
        for (number, line) in (1..).zip(text.lines()) {
            let is_free = line.trim_start().starts_with('|') || line.contains("://");
            if line.chars().count() > COLUMNS && !is_free {
                breaches.push(format!(
                    "{shown}:{number}: longer than {COLUMNS} columns; `cargo xtask fold` folds what is no example"
                ));
            }
        }
    }
    Ok(())
}

/// Folds every page.
pub(crate) fn fold() -> Result<()> {
    for path in pages()? {
        let path = root()?.join(path);
        let text = fs::read_to_string(&path)?;
        let folded = folded(&text);
        if folded != text {
            fs::write(&path, folded).with_context(|| format!("failed to write {}", path.display()))?;
        }
    }
    Ok(())
}

fn pages() -> Result<Vec<PathBuf>> {
    let mut list = Command::new("git");
    let listed = output_of(list.current_dir(root()?).args(["ls-files", "*.md"]))?;
    Ok(listed.lines().map(PathBuf::from).collect())
}

/// A page with its paragraphs and list items filled; everything else as it is.
fn folded(page: &str) -> String {
    let mut folded = String::new();
    let mut paragraph: Option<Paragraph<'_>> = None;
    let mut is_fenced = false;
    for line in page.lines() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        let is_fence = trimmed.starts_with("```");
        let is_apart = trimmed.is_empty() || is_fence || trimmed.starts_with(['|', '#', '>']);
        let is_example = indent >= 4 && paragraph.is_none();
        if is_fenced || is_apart || is_example {
            folded.extend(paragraph.take().map(Paragraph::filled));
            folded.push_str(line);
            folded.push('\n');
            is_fenced ^= is_fence;
            continue;
        }
        let marker = marker(trimmed);
        match &mut paragraph {
            Some(paragraph) if marker == 0 => paragraph.words.extend(trimmed.split_whitespace()),
            _ => {
                folded.extend(paragraph.take().map(Paragraph::filled));
                let (start, text) = line.split_at(indent + marker);
                paragraph = Some(Paragraph {
                    start,
                    words: text.split_whitespace().collect(),
                });
            }
        }
    }
    folded.extend(paragraph.take().map(Paragraph::filled));
    folded
}

/// The length of what makes a line an item of a list.
fn marker(line: &str) -> usize {
    let number = line.len() - line.trim_start_matches(|char: char| char.is_ascii_digit()).len();
    let length = if number > 0 { number + 2 } else { 2 };
    match line.get(number..length) {
        Some("- " | "* " | "+ ") if number == 0 => length,
        Some(". ") if number > 0 => length,
        _ => 0,
    }
}

struct Paragraph<'a> {
    /// What stands before the text in its first line; the others begin below the text.
    start: &'a str,
    words: Vec<&'a str>,
}

impl Paragraph<'_> {
    fn filled(self) -> String {
        let mut filled = self.start.to_owned();
        let indent = self.start.chars().count();
        let mut column = indent;
        for word in self.units() {
            let length = word.chars().count();
            if column > indent {
                if column + 1 + length > COLUMNS {
                    filled.push('\n');
                    filled.push_str(&" ".repeat(indent));
                    column = indent;
                } else {
                    filled.push(' ');
                    column += 1;
                }
            }
            filled.push_str(&word);
            column += length;
        }
        filled.push('\n');
        filled
    }

    /// The words; one with those before it where it would mean something else at the begin of a line, or where a span
    /// of code would be broken that is not too long for that.
    fn units(&self) -> Vec<String> {
        let is_whole = self
            .words
            .iter()
            .map(|word| word.matches('`').count())
            .sum::<usize>()
            % 2
            == 0;
        let mut units: Vec<String> = Vec::new();
        let mut is_in_span = false;
        for word in &self.words {
            let begins_block = word.starts_with(['|', '#', '>']) || marker(&format!("{word} ")) > 0;
            let length = word.chars().count();
            match units.last_mut() {
                Some(unit)
                    if begins_block || (is_in_span && unit.chars().count() + length < SPAN_COLUMNS) =>
                {
                    unit.push(' ');
                    unit.push_str(word);
                }
                _ => units.push((*word).to_owned()),
            }
            is_in_span ^= is_whole && word.matches('`').count() % 2 == 1;
        }
        units
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_and_items_are_filled_and_examples_tables_and_headings_stay() {
        let word = "word ".repeat(30);
        let word = word.trim_end();
        let line = "word ".repeat(24);
        let line = line.trim_end();
        let rest = "word ".repeat(6);
        let rest = rest.trim_end();
        let page = format!(
            "# {word}\n\n{word}\n\n| {word} |\n\n    {word}\n\n```\n{word}\n```\n\n- one\n  two\n- {word}\n\n1. {word}\n"
        );
        let item = "word ".repeat(23);
        let item = item.trim_end();
        let item_rest = "word ".repeat(7);
        let item_rest = item_rest.trim_end();
        let expected = format!(
            "# {word}\n\n{line}\n{rest}\n\n| {word} |\n\n    {word}\n\n```\n{word}\n```\n\n- one two\n- {item}\n  \
             {item_rest}\n\n1. {item}\n   {item_rest}\n"
        );
        assert_eq!(folded(&page), expected);
        assert_eq!(folded(&expected), expected);
    }

    #[test]
    fn no_line_begins_with_what_would_be_another_thing_there_and_no_span_of_code_is_broken() {
        let before = "x".repeat(117);
        for (text, second) in [
            ("a - b", "a - b"),
            ("ab # c", "ab # c"),
            ("a 1. b", "a 1. b"),
            ("`a b` c", "`a b` c"),
        ] {
            assert_eq!(
                folded(&format!("{before} {text}\n")),
                format!("{before}\n{second}\n")
            );
        }
    }
}
