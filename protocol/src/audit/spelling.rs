//! Whether the members of an event are spelt as this release writes them, told without making anything of them.
//!
//! It says yes only to what [`Event`](super::Event) would read and write again byte for byte. What it leaves open,
//! rare escapes, long numbers, members of a later release, is for the thorough look.

use crate::transcript::json_plain_length;

/// Objects within each other, and members of one, that are looked at here.
const MOST_DEPTH: usize = 16;
const MOST_MEMBERS: usize = 64;
/// With so many digits a number is an integer of 64 bits.
const MOST_DIGITS: usize = 18;

/// Whether this is certainly the rest of an event's line, from the name of its first own member to the last brace. No
/// means: look closer.
pub(super) fn is_event(members: &str) -> bool {
    let mut rest = Rest(members.as_bytes());
    event(&mut rest).is_some() && rest.0.is_empty()
}

/// What is not looked at yet.
struct Rest<'a>(&'a [u8]);

/// In the order of [`Event`](super::Event)'s members.
fn event(rest: &mut Rest<'_>) -> Option<()> {
    rest.literal(b"\"event\":")?;
    rest.string()?;
    rest.literal(b",\"by\":{\"type\":")?;
    let kinds: [&[u8]; 4] = [b"\"operator\"", b"\"node\"", b"\"endpoint\"", b"\"anonymous\""];
    kinds.iter().find_map(|kind| rest.literal(kind))?;
    if rest.literal(b",\"name\":").is_some() {
        rest.text()?;
    }
    rest.optional_string(b",\"access_key\":")?;
    rest.literal(b"}")?;
    rest.optional_string(b",\"peer\":")?;
    rest.optional_string(b",\"user_agent\":")?;
    rest.optional_string(b",\"operation\":")?;
    if rest.literal(b",\"read_only\":").is_some() {
        rest.literal(b"true").or_else(|| rest.literal(b"false"))?;
    }
    if rest.literal(b",\"parameters\":").is_some() {
        rest.object(0)?;
    }
    if rest.literal(b",\"nodes\":[").is_some() {
        rest.string()?;
        while rest.literal(b",").is_some() {
            rest.string()?;
        }
        rest.literal(b"]")?;
    }
    rest.optional_string(b",\"session\":")?;
    rest.optional_string(b",\"command\":")?;
    rest.optional_string(b",\"result\":")?;
    rest.optional_string(b",\"message\":")?;
    rest.optional_string(b",\"request_id\":")?;
    if rest.literal(b",\"count\":").is_some() {
        rest.digits()?;
    }
    if rest.literal(b",\"details\":").is_some() {
        rest.object(0)?;
    }
    rest.literal(b"}")
}

impl<'a> Rest<'a> {
    fn literal(&mut self, literal: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(literal)?;
        Some(())
    }

    fn optional_string(&mut self, name: &[u8]) -> Option<()> {
        match self.literal(name) {
            Some(()) => self.string().map(drop),
            None => Some(()),
        }
    }

    /// A string that is not empty.
    fn text(&mut self) -> Option<()> {
        self.string().filter(|inside| !inside.is_empty()).map(drop)
    }

    /// A string with the escapes that have to be, and of these the short ones. What stands between its quotation marks.
    fn string(&mut self) -> Option<&'a [u8]> {
        let inside = self.0.strip_prefix(b"\"")?;
        let mut length = 0;
        loop {
            let rest = inside.get(length..)?;
            let plain = json_plain_length(rest);
            match rest.get(plain..)? {
                [b'"', ..] => {
                    length += plain;
                    self.0 = inside.get(length + 1..)?;
                    return inside.get(..length);
                }
                [b'\\', b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't', ..] => length += plain + 2,
                _ => return None,
            }
        }
    }

    /// A number without sign, fraction and leading zero.
    fn digits(&mut self) -> Option<()> {
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at_checked(count)?;
        let is_spelt_so = (1..=MOST_DIGITS).contains(&count) && (count == 1 || digits.first() != Some(&b'0'));
        // what would make a number of another kind of it follows nowhere
        self.0 = rest;
        is_spelt_so.then_some(())
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        match self.0.first()? {
            b'"' => self.string().map(drop),
            b'{' => self.object(depth + 1),
            b'[' => self.array(depth + 1),
            b'0'..=b'9' => self.digits(),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => None,
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.literal(b"[")?;
        if depth > MOST_DEPTH {
            return None;
        }
        if self.literal(b"]").is_some() {
            return Some(());
        }
        loop {
            self.value(depth)?;
            if self.literal(b"]").is_some() {
                return Some(());
            }
            self.literal(b",")?;
        }
    }

    /// With no member twice.
    fn object(&mut self, depth: usize) -> Option<()> {
        self.literal(b"{")?;
        if depth > MOST_DEPTH {
            return None;
        }
        if self.literal(b"}").is_some() {
            return Some(());
        }
        let mut names: [&[u8]; MOST_MEMBERS] = [b""; MOST_MEMBERS];
        for count in 0..MOST_MEMBERS {
            let name = self.string()?;
            if names.iter().take(count).any(|before| *before == name) {
                return None;
            }
            *names.get_mut(count)? = name;
            self.literal(b":")?;
            self.value(depth)?;
            if self.literal(b"}").is_some() {
                return Some(());
            }
            self.literal(b",")?;
        }
        None
    }
}
