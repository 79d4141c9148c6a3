//! Standard output and standard error, as text.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
};

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use moorline_ssm::EpochSeconds;
use nix::sys::termios::{OutputFlags, tcgetattr};
use serde::Serialize;

use crate::error::{self, CliError};

/// Writes text to standard output and flushes it. A terminal gets none of its control characters, whoever wrote it.
///
/// # Errors
/// Standard output takes nothing; a reader that has gone shows in [`CliError::is_closed_output`].
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    print_bytes(harmless(text, io::stdout().is_terminal()).as_bytes())
}

/// As [`print`], with a line's end.
pub(crate) fn print_line(text: &str) -> Result<(), CliError> {
    print(&format!("{text}\n"))
}

/// As [`print`], for any bytes, as they are.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(CliError::Output)
}

/// As [`print`], for what a program wrote: whoever is no terminal gets its bytes.
///
/// # Errors
/// As [`print`].
pub(crate) fn print_output(bytes: &[u8]) -> Result<(), CliError> {
    match io::stdout().is_terminal() {
        true => print(&String::from_utf8_lossy(bytes)),
        false => print_bytes(bytes),
    }
}

/// As [`print_output`], to standard error. Where nobody reads it, it is lost.
pub(crate) fn print_error_output(bytes: &[u8]) {
    let mut err = io::stderr().lock();
    let _unread = match err.is_terminal() {
        true => err.write_all(harmless(&String::from_utf8_lossy(bytes), true).as_bytes()),
        false => err.write_all(bytes),
    };
}

/// As [`print_line`], for a value as JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let text =
        serde_json::to_string_pretty(value).map_err(|source| CliError::io("write JSON", source.into()))?;
    print_line(&text)
}

/// Tells the user something on standard error. Where nobody reads it, it is lost.
pub(crate) fn note(text: &str) {
    print_error_text(&format!("moorline: {text}\n"));
}

/// As [`print`], to standard error. Where nobody reads it, it is lost.
pub(crate) fn print_error_text(text: &str) {
    let mut err = io::stderr().lock();
    let harmless = harmless(text, err.is_terminal());
    let _unread = err.write_all(with_returns(&harmless, &err).as_bytes());
}

/// Text for a terminal that another program has in raw mode, as ssh has ours while we are its proxy: on lines of its own,
/// each from the left.
fn with_returns<'a>(text: &'a str, stream: &impl AsFd) -> Cow<'a, str> {
    let is_raw = tcgetattr(stream).is_ok_and(|mode| !mode.output_flags.contains(OutputFlags::OPOST));
    if is_raw {
        Cow::Owned(format!("\r\n{}", text.replace('\n', "\r\n")))
    } else {
        Cow::Borrowed(text)
    }
}

/// An error with its causes, and what to do.
pub(crate) fn complain(error: &CliError) {
    let mut text = format!("error: {}", error::chain(error));
    if let Some(hint) = error::hint(error) {
        text.push_str("\nmoorline: hint: ");
        text.push_str(&hint);
    }
    note(&text);
}

/// A table without lines, as wide as the terminal.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    table
}

/// Prints a table without the blanks at the ends of its lines.
pub(crate) fn print_table(table: &Table) -> Result<(), CliError> {
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    print_line(&lines.join("\n"))
}

/// A point in time as RFC 3339, to the millisecond.
pub(crate) fn timestamp(time: EpochSeconds) -> Option<String> {
    let millis = i64::try_from(time.millis()).ok()?;
    Timestamp::from_millisecond(millis)
        .ok()
        .map(|time| format!("{time:.3}"))
}

/// How long ago a time was, roughly.
pub(crate) fn ago(time: EpochSeconds, now: Timestamp) -> String {
    let then = i64::try_from(time.millis()).unwrap_or(i64::MAX);
    let seconds = now.as_millisecond().saturating_sub(then).max(0) / 1000;
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// What a terminal would obey, or show in another order than it is written: control characters, the ends of lines and
/// paragraphs of Unicode, and its embeddings, overrides and isolates, by which text reads as what it is not. Marks that only
/// say how a letter is written stay.
pub(crate) fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text of a node or an endpoint for this stream: to a terminal, control characters are shown and not obeyed, but for
/// tabs and the ends of lines. Files and pipes get what there is.
fn harmless(text: &str, is_terminal: bool) -> Cow<'_, str> {
    let is_harmful = |c: char| is_obeyed(c) && !matches!(c, '\n' | '\t');
    if !is_terminal || !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let text = text.replace("\r\n", "\n");
    Cow::Owned(text.replace(is_harmful, "\u{fffd}"))
}

/// Text of others for one line of the terminal: control characters are shown, not obeyed.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if is_obeyed(c) { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use nix::{
        pty::openpty,
        sys::termios::{SetArg, cfmakeraw, tcsetattr},
    };

    use super::*;

    #[test]
    fn times_are_shown_in_utc_and_as_a_distance() {
        let time = EpochSeconds(1_700_000_000.25);
        assert_eq!(timestamp(time).unwrap(), "2023-11-14T22:13:20.250Z");
        let now = |seconds: i64| Timestamp::from_second(1_700_000_000 + seconds).unwrap();
        assert_eq!(ago(time, now(0)), "0 s ago");
        assert_eq!(ago(time, now(90)), "89 s ago");
        assert_eq!(ago(time, now(86_400)), "23 h ago");
        assert_eq!(ago(time, now(-100)), "0 s ago");
    }

    #[test]
    fn a_terminal_shows_the_control_characters_of_a_node_and_a_file_gets_them() {
        let evil = "a\tb\r\n\u{1b}]52;c;cm0=\u{7}\u{9b}2J\rc\n";
        assert_eq!(
            harmless(evil, true),
            "a\tb\n\u{fffd}]52;c;cm0=\u{fffd}\u{fffd}2J\u{fffd}c\n"
        );
        assert_eq!(harmless(evil, false), evil);
        assert_eq!(harmless("größer\n", true), "größer\n");
        let reordered = "rm \u{202e}tset\u{202c} \u{2066}x\u{2069}\u{2028}y";
        let shown = "rm \u{fffd}tset\u{fffd} \u{fffd}x\u{fffd}\u{fffd}y";
        assert_eq!(harmless(reordered, true), shown);
        assert_eq!(one_line(reordered), shown);
        assert_eq!(
            one_line("\u{5d0}\u{200f}"),
            "\u{5d0}\u{200f}",
            "a letter of Hebrew and its mark"
        );
    }

    #[test]
    fn a_note_stands_on_lines_of_its_own_where_another_program_has_the_terminal_raw() {
        let text = "moorline: lost\nmoorline: restored\n";
        assert_eq!(with_returns(text, &tempfile::tempfile().unwrap()), text);
        let pty = openpty(None, None).unwrap();
        assert_eq!(with_returns(text, &pty.slave), text);
        let mut mode = tcgetattr(&pty.slave).unwrap();
        cfmakeraw(&mut mode);
        tcsetattr(&pty.slave, SetArg::TCSANOW, &mode).unwrap();
        assert_eq!(
            with_returns(text, &pty.slave),
            "\r\nmoorline: lost\r\nmoorline: restored\r\n"
        );
    }

    #[test]
    fn a_name_from_a_node_cannot_move_the_cursor() {
        assert_eq!(one_line("a\u{1b}[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
    }
}
