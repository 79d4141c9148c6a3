//! Cuts a stream of bytes into lines, however its pieces are cut.

/// The longest line, with its line feed, in bytes.
pub const MAX_LINE_BYTES: usize = 8 * 1024 * 1024;

/// Room that is kept for the next line.
const KEPT_BYTES: usize = 16 * 1024;

/// A piece of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut<'a> {
    /// A whole line, with its line feed.
    Line(&'a [u8]),
    /// A part of a line that is longer than is allowed.
    Overlong {
        part: &'a [u8],
        /// Whether the line ends with it.
        is_last: bool,
    },
}

/// Holds what there is of a line that is not whole yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
    /// What is held was given out.
    is_given: bool,
    /// Inside a line that is too long.
    is_overlong: bool,
}

impl Lines {
    /// Takes the next cut off the front of `rest`; `None` when all of it was taken and a line needs more.
    pub(super) fn next<'a, 'b: 'a>(&'a mut self, rest: &mut &'b [u8]) -> Option<Cut<'a>> {
        if std::mem::take(&mut self.is_given) {
            self.partial.clear();
            // one long line must not cost its length for as long as the recording grows
            self.partial.shrink_to(KEPT_BYTES);
        }
        if rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', rest).map(|at| at + 1);
        let length = end.unwrap_or(rest.len());
        if !self.is_overlong && self.partial.len() + length > MAX_LINE_BYTES {
            self.is_overlong = true;
            self.is_given = true;
            return Some(Cut::Overlong {
                part: &self.partial,
                is_last: false,
            });
        }
        let (head, after) = rest.split_at_checked(length)?;
        *rest = after;
        if self.is_overlong {
            self.is_overlong = end.is_none();
            return Some(Cut::Overlong {
                part: head,
                is_last: end.is_some(),
            });
        }
        match end {
            Some(_) if self.partial.is_empty() => Some(Cut::Line(head)),
            Some(_) => {
                self.partial.extend_from_slice(head);
                self.is_given = true;
                Some(Cut::Line(&self.partial))
            }
            None => {
                self.partial.extend_from_slice(head);
                None
            }
        }
    }

    /// What has come of a line that has not ended.
    pub(super) fn partial(&self) -> &[u8] {
        if self.is_given { &[] } else { &self.partial }
    }

    /// Bytes of memory that it takes.
    pub(super) fn held_bytes(&self) -> usize {
        self.partial.capacity()
    }

    /// Whether a line has begun and not ended.
    pub(super) fn is_inside(&self) -> bool {
        self.is_overlong || !self.partial().is_empty()
    }
}
