//! Makes the lines, each chained to the one before.

use super::{
    event::Event,
    line::{Body, Digest, FormError, Head, Line, Time, checkpoint_line, event_line},
};
use crate::public_keys::KeyId;

/// The writing end of a log.
#[derive(Debug, Clone)]
pub struct Chain {
    /// Of the last line; 0 before the first.
    index: u64,
    /// Of the last line; zeros before the first.
    hash: Digest,
    /// The last line is an event.
    is_unsigned: bool,
}

/// How a checkpoint is made.
#[derive(Debug, Clone, Copy)]
pub struct Checkpoint<F> {
    /// The key that signs.
    pub key: KeyId,
    /// Makes an Ed25519 signature.
    pub sign: F,
}

impl Default for Chain {
    fn default() -> Self {
        Self::new()
    }
}

impl Chain {
    /// Of a log that has no line yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            index: 0,
            hash: Digest::default(),
            is_unsigned: false,
        }
    }

    /// Goes on behind the last line that is there, given with its line feed.
    ///
    /// # Errors
    /// It is no line of a log.
    pub fn behind(line: &[u8]) -> Result<Self, FormError> {
        let parsed = Line::parse(line)?;
        Ok(Self {
            index: parsed.index,
            hash: Digest::of_line(line),
            is_unsigned: matches!(parsed.body, Body::Event(_)),
        })
    }

    /// Index of the last line; 0: there is none.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Whether events stand behind the last checkpoint.
    #[must_use]
    pub fn is_unsigned(&self) -> bool {
        self.is_unsigned
    }

    /// The line of an event, with its line feed. `unix_millis` is the endpoint's clock.
    pub fn append(&mut self, unix_millis: u64, event: &Event) -> String {
        let line = event_line(&self.head(unix_millis), event);
        self.has_written(&line, true);
        line
    }

    /// The line that vouches for all before it, with its line feed.
    pub fn checkpoint<F: FnOnce(&[u8]) -> [u8; 64]>(
        &mut self,
        unix_millis: u64,
        checkpoint: Checkpoint<F>,
    ) -> String {
        let line = checkpoint_line(&self.head(unix_millis), checkpoint.key, checkpoint.sign);
        self.has_written(&line, false);
        line
    }

    fn head(&self, unix_millis: u64) -> Head {
        Head {
            index: self.index + 1,
            previous: self.hash,
            time: Time::from_unix_millis(unix_millis),
        }
    }

    fn has_written(&mut self, line: &str, is_unsigned: bool) {
        self.index += 1;
        self.hash = Digest::of_line(line.as_bytes());
        self.is_unsigned = is_unsigned;
    }
}
