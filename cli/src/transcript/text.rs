//! What a terminal showed, as plain text: one line per line, as it stood when the cursor left it.
//!
//! This is no terminal emulator. It knows what shells do to the line that is being typed (return, backspace, cursor
//! movement, erase, insert, also where the line is longer than the terminal is wide), and leaves out everything else:
//! colours, titles, and what full-screen programs draw on the alternate screen. A line that the terminal wrapped stays
//! one line.

use crate::console::is_obeyed;

/// A line that grows beyond this is cut: no cursor goes further to the right.
const MAX_LINE_CHARS: usize = 256 * 1024;
/// No terminal has so many columns. A width that is made up must not make a line of blanks of every few bytes.
const MAX_WIDTH: usize = 4096;
/// Parameters of a control sequence beyond this are not kept.
const MAX_PARAMETER_BYTES: usize = 64;
const TAB: usize = 8;
const DEFAULT_WIDTH: usize = 80;
const ALTERNATE_SCREEN: [&str; 3] = ["?1049", "?1047", "?47"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    /// After ESC.
    Escape,
    /// After ESC and a character that one more belongs to, such as the choice of a character set.
    OneMore,
    /// After `ESC [`.
    Control,
    /// After `ESC ]`, `ESC P` and their like, until BEL, ST or another sequence.
    Skipped,
}

/// Turns terminal output into text.
#[derive(Debug)]
pub(super) struct PlainText {
    done: String,
    line: Vec<char>,
    /// Of the whole line, however often it is wrapped.
    column: usize,
    /// The last character was put into the last column, and the cursor is still there.
    is_at_margin: bool,
    width: usize,
    state: State,
    parameters: String,
    is_alternate: bool,
}

impl Default for PlainText {
    fn default() -> Self {
        Self {
            done: String::new(),
            line: Vec::new(),
            column: 0,
            is_at_margin: false,
            width: DEFAULT_WIDTH,
            state: State::Text,
            parameters: String::new(),
            is_alternate: false,
        }
    }
}

impl PlainText {
    /// The terminal has this many columns from now on.
    pub(super) fn set_width(&mut self, columns: usize) {
        self.width = columns.clamp(1, MAX_WIDTH);
    }

    pub(super) fn write(&mut self, output: &str) {
        for c in output.chars() {
            self.push(c);
        }
    }

    /// The recording is over: the line that the cursor is on counts as well.
    pub(super) fn finish(&mut self) {
        if !self.line.is_empty() {
            self.end_line();
        }
    }

    /// Takes the lines that are done.
    pub(super) fn take(&mut self) -> String {
        std::mem::take(&mut self.done)
    }

    fn push(&mut self, c: char) {
        self.state = match (self.state, c) {
            // cancel and substitute end any sequence, and so does the begin of another
            (_, '\u{18}' | '\u{1a}') | (State::Skipped, '\u{7}' | '\u{9c}') => State::Text,
            (_, '\u{1b}') => State::Escape,
            (State::Skipped, _) => State::Skipped,
            (State::Text, _) => {
                if !self.is_alternate {
                    self.text(c);
                }
                State::Text
            }
            (State::Escape, '[') => {
                self.parameters.clear();
                State::Control
            }
            (State::Escape, ']' | 'P' | '_' | '^' | 'X') => State::Skipped,
            (State::Escape, '(' | ')' | '*' | '+' | '#' | ' ' | '%') => State::OneMore,
            (State::Escape | State::OneMore, _) => State::Text,
            (State::Control, '\u{40}'..='\u{7e}') => {
                self.control(c);
                State::Text
            }
            (State::Control, '\u{20}'..='\u{3f}') => {
                if self.parameters.len() < MAX_PARAMETER_BYTES {
                    self.parameters.push(c);
                }
                State::Control
            }
            // control characters work within a sequence as well
            (State::Control, _) => {
                if !self.is_alternate {
                    self.text(c);
                }
                State::Control
            }
        };
    }

    fn text(&mut self, c: char) {
        match c {
            '\n' | '\u{b}' | '\u{c}' => self.end_line(),
            '\r' => self.column = self.row_start(),
            '\u{8}' => {
                let left = self.column.saturating_sub(1);
                self.column = left.max(self.row_start());
            }
            '\t' => {
                let stop = (self.column / TAB + 1) * TAB;
                self.column = stop.min(MAX_LINE_CHARS);
            }
            _ if c.is_control() => return,
            // it is there, and does nothing
            _ if is_obeyed(c) => return self.put('\u{fffd}'),
            _ => return self.put(c),
        }
        self.is_at_margin = false;
    }

    fn put(&mut self, c: char) {
        if self.column >= MAX_LINE_CHARS {
            return;
        }
        if self.line.len() <= self.column {
            self.line.resize(self.column, ' ');
            self.line.push(c);
        } else if let Some(place) = self.line.get_mut(self.column) {
            *place = c;
        }
        self.column += 1;
        self.is_at_margin = self.column.is_multiple_of(self.width);
    }

    /// Where the row of the cursor begins in the line.
    fn row_start(&self) -> usize {
        let inside = if self.is_at_margin {
            self.column.saturating_sub(1)
        } else {
            self.column
        };
        inside / self.width * self.width
    }

    fn end_line(&mut self) {
        let line: String = self.line.drain(..).collect();
        self.done.push_str(line.trim_end());
        self.done.push('\n');
        self.column = 0;
        self.is_at_margin = false;
    }

    fn control(&mut self, action: char) {
        if matches!(action, 'h' | 'l') {
            return self.mode(action == 'h');
        }
        if self.is_alternate || self.parameters.starts_with(['?', '>', '<', '=']) {
            return;
        }
        let first = self.parameters.split(';').next().unwrap_or_default();
        let parameter: usize = first.parse().unwrap_or(0).min(MAX_LINE_CHARS);
        let count = parameter.max(1);
        let row = self.row_start();
        match action {
            'A' => self.column = self.column.checked_sub(count * self.width).unwrap_or(self.column),
            'B' | 'e' => {
                let below = self.column + count * self.width;
                if below <= self.line.len() {
                    self.column = below;
                }
            }
            'C' | 'a' => self.column = (self.column + count).min(row + self.width - 1).max(row),
            'D' => self.column = self.column.saturating_sub(count).max(row),
            'G' | '`' => self.column = row + (count - 1).min(self.width - 1),
            'K' => self.erase_row(parameter, row),
            'J' if parameter == 0 => self.line.truncate(self.column),
            // the screen is cleared, or the cursor goes somewhere else on it
            'J' | 'H' | 'f' | 'd' => self.finish(),
            'P' => {
                let end = (self.column + count).min(self.line.len());
                self.line.drain(self.column.min(end)..end);
            }
            'X' => {
                let end = (self.column + count).min(self.line.len());
                self.blank(self.column, end);
            }
            '@' if self.column <= self.line.len() && self.line.len() + count <= MAX_LINE_CHARS => {
                let blanks = std::iter::repeat_n(' ', count.min(self.width));
                self.line.splice(self.column..self.column, blanks);
            }
            _ => return, // colours and the like leave the cursor where it is
        }
        self.is_at_margin = false;
    }

    fn erase_row(&mut self, parameter: usize, row: usize) {
        let end = row + self.width;
        let (from, to) = match parameter {
            0 => (self.column, end),
            1 => (row, self.column + 1),
            _ => (row, end),
        };
        if to >= self.line.len() {
            self.line.truncate(from);
        } else {
            self.blank(from, to);
        }
    }

    fn blank(&mut self, from: usize, to: usize) {
        if let Some(erased) = self.line.get_mut(from.min(to)..to) {
            erased.fill(' ');
        }
    }

    fn mode(&mut self, is_set: bool) {
        let names_alternate = self
            .parameters
            .split(';')
            .any(|parameter| ALTERNATE_SCREEN.contains(&parameter));
        if names_alternate && is_set != self.is_alternate {
            self.is_alternate = is_set;
            if is_set {
                self.finish();
                self.done.push_str("[full-screen program]\n");
            }
        }
    }
}

#[cfg(test)]
mod tests;
