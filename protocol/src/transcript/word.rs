//! The words that lines are made of, each with exactly one spelling.

use std::{fmt, time::Duration};

use crate::hex;

/// Most digits of a number; with these it fits in 63 bits.
const MAX_DIGITS: usize = 18;

/// Time since the begin of a recording, in microseconds. It is written in seconds with exactly six decimals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u64);

impl Time {
    /// Of so many microseconds. Times above 300 years count as that.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        const LONGEST: u64 = 9_999_999_999_999_999;
        Self(if micros < LONGEST { micros } else { LONGEST })
    }

    /// In microseconds.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Reads the whole of a text: at most ten digits without leading zero, a point, six digits.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let point = text.len().checked_sub(7)?;
        let (seconds, decimals) = text.split_at_checked(point)?;
        let (b'.', decimals) = decimals.split_first().map(|(point, rest)| (*point, rest))? else {
            return None;
        };
        if seconds.len() > 10 || !decimals.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let mut micros = number(seconds)?;
        for digit in decimals {
            micros = micros * 10 + u64::from(digit - b'0');
        }
        Some(Self(micros))
    }
}

impl From<Duration> for Time {
    fn from(duration: Duration) -> Self {
        Self::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }
}

impl From<Time> for Duration {
    fn from(time: Time) -> Self {
        Self::from_micros(time.0)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// A SHA-256, written as 64 lower-case hex digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Reads 64 lower-case hex digits.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        hex::parse(text).map(Self)
    }

    pub(super) fn of(context: ring::digest::Context) -> Self {
        let mut digest = Self::default();
        digest.0.copy_from_slice(context.finish().as_ref());
        digest
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An Ed25519 signature, written as 128 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl Signature {
    /// Reads 128 lower-case hex digits.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        hex::parse(text).map(Self)
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads decimal digits without leading zero, at most 18.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    let has_leading_zero = text.len() > 1 && text.first() == Some(&b'0');
    if text.is_empty() || text.len() > MAX_DIGITS || has_leading_zero {
        return None;
    }
    text.iter().try_fold(0, |number: u64, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + u64::from(digit - b'0'))
    })
}
