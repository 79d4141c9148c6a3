//! `MaxConcurrency` and `MaxErrors`: a number, or a share of the targets.

use std::{fmt, str::FromStr};

/// An absolute number or a percentage of the targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Count(u64),
    Percent(u64),
}

/// The text is neither a number nor a percentage from 0% to 100%.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a number nor a percentage from 0% to 100%")]
pub(crate) struct InvalidLimit(String);

impl Limit {
    /// What SSM takes when `MaxConcurrency` is not given.
    pub(crate) const DEFAULT_CONCURRENCY: Self = Self::Count(50);
    /// What SSM takes when `MaxErrors` is not given.
    pub(crate) const DEFAULT_ERRORS: Self = Self::Count(0);

    /// The number of nodes out of `targets`. A percentage rounds down, as a limit must not be exceeded.
    pub(crate) fn of(self, targets: u64) -> u64 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => targets.saturating_mul(percent) / 100,
        }
    }
}

impl FromStr for Limit {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let invalid = || InvalidLimit(text.chars().take(16).collect());
        let (digits, is_percentage) = text
            .strip_suffix('%')
            .map_or((text, false), |digits| (digits, true));
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid());
        }
        let number: u64 = digits.parse().map_err(|_| invalid())?;
        match (is_percentage, number) {
            (false, count) => Ok(Self::Count(count)),
            (true, percent @ 0..=100) => Ok(Self::Percent(percent)),
            (true, _) => Err(invalid()),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_or_a_percentage_of_the_targets() {
        for (text, targets, expected) in [("5", 100, 5), ("0", 100, 0), ("10%", 55, 5), ("100%", 7, 7)] {
            let limit: Limit = text.parse().unwrap();
            assert_eq!(limit.of(targets), expected, "{text} of {targets}");
            assert_eq!(limit.to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "%", "-1", "101%", "1.5", "+3", "99999999999999999999"] {
            assert!(text.parse::<Limit>().is_err(), "{text}");
        }
    }
}
