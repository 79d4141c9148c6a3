//! Output of several nodes, line by line: no two of them ever share one.

use std::{collections::BTreeMap, fmt::Write as _};

use moorline_protocol::transcript::OutputStream;

/// Of a line that does not end; what is longer is shown as several.
const MOST_LINE_BYTES: usize = 16 * 1024;

/// Puts lines together, and the node's name before each.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// What of a line is there, by node and stream.
    begun: BTreeMap<(String, OutputStream), String>,
}

impl Lines {
    /// The lines that this completes.
    pub(crate) fn push(&mut self, node: &str, stream: OutputStream, text: &str) -> String {
        let mut whole = String::new();
        let mut rest = text;
        while let Some((line, after)) = rest.split_once('\n') {
            let begun = self.begun.remove(&(node.to_owned(), stream));
            put(&mut whole, node, &(begun.unwrap_or_default() + line));
            rest = after;
        }
        if !rest.is_empty() {
            let begun = self.begun.entry((node.to_owned(), stream)).or_default();
            begun.push_str(rest);
            if begun.len() > MOST_LINE_BYTES {
                put(&mut whole, node, &std::mem::take(begun));
            }
        }
        whole
    }

    /// The line that has no end.
    pub(crate) fn end(&mut self, node: &str, stream: OutputStream) -> String {
        let mut whole = String::new();
        if let Some(line) = self.begun.remove(&(node.to_owned(), stream))
            && !line.is_empty()
        {
            put(&mut whole, node, &line);
        }
        whole
    }
}

fn put(whole: &mut String, node: &str, line: &str) {
    // Writing into a String cannot fail.
    writeln!(whole, "{node} | {line}").unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_nodes_are_told_apart_however_their_output_comes() {
        let mut lines = Lines::default();
        assert_eq!(lines.push("a", OutputStream::Output, "one\ntw"), "a | one\n");
        assert_eq!(lines.push("b", OutputStream::Output, "other\n"), "b | other\n");
        assert_eq!(lines.push("a", OutputStream::Errors, "wrong\n"), "a | wrong\n");
        assert_eq!(
            lines.push("a", OutputStream::Output, "o\n\nthr"),
            "a | two\na | \n"
        );
        assert_eq!(lines.end("a", OutputStream::Output), "a | thr\n");
        assert_eq!(lines.end("a", OutputStream::Output), "");
    }

    #[test]
    fn a_line_without_end_is_not_kept_for_ever() {
        let mut lines = Lines::default();
        let mut shown = 0;
        for _ in 0..1000 {
            shown += lines
                .push("a", OutputStream::Output, &"x".repeat(1000))
                .matches('x')
                .count();
        }
        assert!(1_000_000 - shown <= MOST_LINE_BYTES, "{shown}");
    }
}
