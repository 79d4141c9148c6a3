//! The escapes that a user types at the start of a line, as in ssh: `~.` ends, `~d` leaves, `~?` helps, `~~` is a tilde, `~-`
//! ends their meaning.

/// What the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Escape {
    Terminate,
    Detach,
    Help,
}

/// For a raw terminal.
pub(crate) const HELP: &str = "\r\n\
    Escapes at the start of a line:\r\n \
    ~.  end the session\r\n \
    ~d  leave the session running; moorline attach goes on with it\r\n \
    ~?  this text\r\n \
    ~~  send a tilde\r\n \
    ~-  give the tilde no meaning any more\r\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    LineStart,
    /// A tilde was typed and is held back.
    Tilde,
    Elsewhere,
    Off,
}

/// Finds escapes in what is typed, however it is cut.
#[derive(Debug)]
pub(crate) struct EscapeFilter(State);

impl EscapeFilter {
    pub(crate) fn new() -> Self {
        Self(State::LineStart)
    }

    /// Appends what is for the node to `out`. At an escape it stops and returns it with the rest of the input.
    pub(crate) fn filter<'a>(&mut self, typed: &'a [u8], out: &mut Vec<u8>) -> Option<(Escape, &'a [u8])> {
        let mut rest = typed;
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            let escape = match (self.0, byte) {
                (State::LineStart, b'~') => {
                    self.0 = State::Tilde;
                    continue;
                }
                (State::Tilde, b'.') => Some(Escape::Terminate),
                (State::Tilde, b'd') => Some(Escape::Detach),
                (State::Tilde, b'?') => Some(Escape::Help),
                (State::Tilde, b'-') => {
                    self.0 = State::Off;
                    continue;
                }
                (State::Tilde, b'~') => None,
                (State::Tilde, _) => {
                    out.push(b'~');
                    None
                }
                (State::LineStart | State::Elsewhere | State::Off, _) => None,
            };
            if escape.is_none() {
                out.push(byte);
            }
            self.0 = match (self.0, byte) {
                (State::Off, _) => State::Off,
                _ if escape.is_some() => State::LineStart,
                (_, b'\r' | b'\n') => State::LineStart,
                _ => State::Elsewhere,
            };
            if let Some(escape) = escape {
                return Some((escape, rest));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What reaches the node, and the escapes on the way, when `typed` comes in pieces of `size` bytes.
    fn run(typed: &str, size: usize) -> (String, Vec<Escape>) {
        let mut filter = EscapeFilter::new();
        let (mut out, mut escapes) = (Vec::new(), Vec::new());
        for piece in typed.as_bytes().chunks(size) {
            let mut rest = piece;
            while let Some((escape, after)) = filter.filter(rest, &mut out) {
                escapes.push(escape);
                rest = after;
            }
        }
        (String::from_utf8(out).unwrap(), escapes)
    }

    #[test]
    fn an_escape_counts_only_at_the_start_of_a_line() {
        use Escape::{Detach, Help, Terminate};
        for (typed, sent, escapes) in [
            ("~.", "", vec![Terminate]),
            ("ls\r~.", "ls\r", vec![Terminate]),
            ("ls\n~?id\r", "ls\nid\r", vec![Help]),
            ("ls ~/x\r", "ls ~/x\r", vec![]),
            ("~/bin\r", "~/bin\r", vec![]),
            ("~~.\r", "~.\r", vec![]),
            ("~\r~.", "~\r", vec![Terminate]),
            ("~?~?~.", "", vec![Help, Help, Terminate]),
            ("~-~.\r~.", "~.\r~.", vec![]),
            ("ls\r~d", "ls\r", vec![Detach]),
            ("~dev", "ev", vec![Detach]),
            ("~~d", "~d", vec![]),
            ("a~.", "a~.", vec![]),
            ("~é\r", "~é\r", vec![]),
        ] {
            for size in 1..=typed.len() {
                let (out, found) = run(typed, size);
                assert_eq!((out.as_str(), &found), (sent, &escapes), "{typed:?} by {size}");
            }
        }
    }

    #[test]
    fn a_tilde_is_held_back_until_the_next_key() {
        let mut filter = EscapeFilter::new();
        let mut out = Vec::new();
        assert_eq!(filter.filter(b"~", &mut out), None);
        assert!(out.is_empty());
        assert_eq!(filter.filter(b"x", &mut out), None);
        assert_eq!(out, b"~x");
    }
}
