//! Output that was made for one terminal, as another one may be shown it: an auditor's, who did not choose the program.
//!
//! Text, colours, moves of the cursor, scrolling and clearing pass. Everything that could do more is left out whole: what
//! makes a terminal answer (the answer is typed into the shell of whoever watches), sets its clipboard or title, moves its
//! window, prints, changes what its keys and mouse send, or how the bytes behind it are read. What is not known is left out.

/// Bytes of a sequence; longer ones are left out.
const MAX_SEQUENCE_BYTES: usize = 256;
const ESCAPE: char = '\u{1b}';
const BELL: char = '\u{7}';

/// Final characters of control sequences with nothing but numbers in them: moves, inserts and deletes, erases, colours,
/// tabs, margins.
const PLAIN_FINALS: &str = "@ABCDEFGHIJKLMPSXZ`abdefgmrsu";
/// Characters behind an escape that are a whole sequence: cursor kept and put back, lines up and down, tabs, reset.
const SINGLE_FINALS: &str = "78DEHMc";
/// Modes of `CSI ? … h` and `l` that only change what is seen: inverse screen, origin, wrapping, blinking and shown cursor,
/// the other screen and its cursor, drawing at once.
const SEEN_MODES: [u32; 11] = [5, 6, 7, 12, 25, 45, 47, 1047, 1048, 1049, 2026];
/// The mode of `CSI … h` and `l` that only changes what is seen: characters push others aside.
const INSERT_MODE: &str = "4";

/// Takes output in pieces that are cut anywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TerminalFilter {
    state: State,
    /// What has come of the sequence that is on its way.
    sequence: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// Behind ESC.
    Escape,
    /// Behind ESC [.
    Control,
    /// In a text for the terminal itself: OSC, DCS, APC, PM, SOS.
    Message { ends_with_bell: bool },
}

impl TerminalFilter {
    /// What of it may be shown. A sequence comes out when it is whole.
    #[must_use]
    pub fn filter(&mut self, text: &str) -> String {
        let mut shown = String::with_capacity(text.len());
        for c in text.chars() {
            self.take(c, &mut shown);
        }
        shown
    }

    fn take(&mut self, c: char, shown: &mut String) {
        match (c, self.state) {
            // CAN and SUB end whatever is on its way
            ('\u{18}' | '\u{1a}', _) => self.begin(State::Text),
            (ESCAPE, _) => self.begin(State::Escape),
            // one character for ESC and another
            ('\u{80}'..='\u{9f}', _) => {
                self.begin(State::Escape);
                let second = u32::from(c) - 0x40;
                self.escape(char::from_u32(second).unwrap_or_default(), shown);
            }
            (BELL, State::Message { ends_with_bell: true }) => self.begin(State::Text),
            (_, State::Message { .. }) | ('\u{7f}', _) => {}
            // a terminal obeys these at once, within sequences as well
            ('\0'..='\u{1f}', _) => {
                if is_seen(c) {
                    shown.push(c);
                }
            }
            (_, State::Text) => shown.push(c),
            (_, State::Escape) => self.escape(c, shown),
            (_, State::Control) => self.control(c, shown),
        }
    }

    fn begin(&mut self, state: State) {
        self.state = state;
        self.sequence.clear();
    }

    fn escape(&mut self, c: char, shown: &mut String) {
        match (c, self.sequence.is_empty()) {
            (' '..='/', _) => self.keep(c),
            ('[', true) => self.begin(State::Control),
            (']', true) => self.begin(State::Message { ends_with_bell: true }),
            ('P' | 'X' | '^' | '_', true) => self.begin(State::Message {
                ends_with_bell: false,
            }),
            _ => {
                let may_pass = match self.sequence.as_str() {
                    "" => SINGLE_FINALS.contains(c),
                    // which characters are drawn, such as lines for frames
                    "(" | ")" | "*" | "+" | "-" | "." | "/" => c.is_ascii_graphic(),
                    // double height and width, a screen full of E
                    "#" => matches!(c, '3'..='6' | '8'),
                    _ => false,
                };
                if may_pass {
                    shown.push(ESCAPE);
                    shown.push_str(&self.sequence);
                }
                if may_pass || !c.is_ascii() {
                    shown.push(c);
                }
                self.begin(State::Text);
            }
        }
    }

    fn control(&mut self, c: char, shown: &mut String) {
        match c {
            ' '..='?' => self.keep(c),
            '@'..='~' => {
                if let Some(parameters) = passing(&self.sequence, c) {
                    shown.push_str("\u{1b}[");
                    shown.push_str(&parameters);
                    shown.push(c);
                }
                self.begin(State::Text);
            }
            _ => {
                shown.push(c);
                self.begin(State::Text);
            }
        }
    }

    /// One that has come to its bound is not looked at any more, and is left out.
    fn keep(&mut self, c: char) {
        if self.sequence.len() < MAX_SEQUENCE_BYTES {
            self.sequence.push(c);
        }
    }
}

/// Bell, backspace, tab, ends of lines, and the change between two sets of characters. Not ENQ, which is answered.
fn is_seen(c: char) -> bool {
    matches!(c, '\u{7}'..='\u{f}')
}

/// What of a control sequence may pass, without its final character. `None`: nothing.
fn passing(sequence: &str, last: char) -> Option<String> {
    if sequence.len() >= MAX_SEQUENCE_BYTES {
        return None;
    }
    let is_between = |c: char| matches!(c, ' '..='/');
    let numbers = sequence.trim_end_matches(is_between);
    let between = sequence.strip_prefix(numbers).unwrap_or_default();
    let (is_private, numbers) = match numbers.strip_prefix('?') {
        Some(rest) => (true, rest),
        None => (false, numbers),
    };
    if !numbers.chars().all(|c| matches!(c, '0'..='9' | ';' | ':')) {
        return None;
    }
    let passes = match (is_private, between, last) {
        (true, "", 'h' | 'l') => return seen_modes(numbers),
        (true, "", 'J' | 'K') => true,
        (false, "", 'h' | 'l') => numbers == INSERT_MODE,
        // with more numbers it has the mouse reported
        (false, "", 'T') => !numbers.contains(';'),
        (false, "", _) => PLAIN_FINALS.contains(last),
        // shape of the cursor, what is not erased, a soft reset
        (false, " " | "\"", 'q') | (false, "!", 'p') => true,
        _ => false,
    };
    passes.then(|| sequence.to_owned())
}

fn seen_modes(numbers: &str) -> Option<String> {
    let is_seen_mode = |number: &&str| {
        let mode: Option<u32> = number.parse().ok();
        mode.is_some_and(|mode| SEEN_MODES.contains(&mode))
    };
    let seen: Vec<&str> = numbers.split(';').filter(is_seen_mode).collect();
    (!seen.is_empty()).then(|| format!("?{}", seen.join(";")))
}

#[cfg(test)]
mod tests;
