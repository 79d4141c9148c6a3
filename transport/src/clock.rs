//! The wall clock, as the protocols want it; and the endpoint's, where ours is wrong.
//!
//! A signature holds the time, and an endpoint refuses one that is minutes off. So a machine whose clock is wrong
//! could not be reached to set it. The refusal carries the endpoint's time: from then on it is signed with that.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// Beyond this the certificates of an endpoint are not valid either.
const MAX_ERROR_MILLIS: i64 = 30 * 24 * 3600 * 1000;
/// What is not worth a correction: endpoints allow more, and messages take time.
const TOLERATED_MILLIS: i64 = 2 * 60 * 1000;

/// Milliseconds since the Unix epoch.
pub fn unix_millis() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// How far the endpoint's clock is ahead of ours, as far as is known.
#[derive(Debug, Default)]
pub(crate) struct EndpointClock {
    ahead_millis: AtomicI64,
}

impl EndpointClock {
    pub(crate) fn ahead_millis(&self) -> i64 {
        self.ahead_millis.load(Ordering::Relaxed)
    }

    pub(crate) fn set_ahead_millis(&self, ahead: i64) {
        let tolerated = -TOLERATED_MILLIS..=TOLERATED_MILLIS;
        let kept = match ahead {
            small if tolerated.contains(&small) => 0,
            large => large.clamp(-MAX_ERROR_MILLIS, MAX_ERROR_MILLIS),
        };
        let before = self.ahead_millis.swap(kept, Ordering::Relaxed);
        if before.abs_diff(kept) > TOLERATED_MILLIS.unsigned_abs() {
            tracing::warn!(
                seconds = kept / 1000,
                "the endpoint's clock is ahead of this machine's by that much; requests are signed with the endpoint's time"
            );
        }
    }

    /// The endpoint said what time it is there. Returns whether that changes what is signed.
    pub(crate) fn learn(&self, theirs: u64) -> bool {
        let before = self.ahead_millis();
        let ours = unix_millis();
        let distance = i64::try_from(theirs.abs_diff(ours)).unwrap_or(i64::MAX);
        self.set_ahead_millis(if theirs < ours { -distance } else { distance });
        before.abs_diff(self.ahead_millis()) > TOLERATED_MILLIS.unsigned_abs()
    }

    pub(crate) fn unix_millis(&self) -> u64 {
        unix_millis().saturating_add_signed(self.ahead_millis())
    }
}

/// The time in a `Date` header: `Tue, 15 Nov 1994 08:12:31 GMT`.
pub(crate) fn http_date(text: &str) -> Option<u64> {
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    u64::try_from(date.timestamp().as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_wrong_by_a_day_is_corrected_and_one_that_is_nearly_right_is_not() {
        const DAY: u64 = 24 * 3600 * 1000;
        let clock = EndpointClock::default();
        assert!(!clock.learn(unix_millis() + 60_000));
        assert_eq!(clock.ahead_millis(), 0);
        assert!(clock.learn(unix_millis() + DAY));
        assert!(clock.unix_millis().abs_diff(unix_millis() + DAY) < 1000);
        assert!(!clock.learn(unix_millis() + DAY));
        assert!(clock.learn(unix_millis() - DAY));
        assert!(clock.unix_millis().abs_diff(unix_millis() - DAY) < 1000);
        assert!(clock.learn(unix_millis()));
        assert_eq!(clock.ahead_millis(), 0);
    }

    #[test]
    fn no_clock_is_believed_without_bound() {
        let clock = EndpointClock::default();
        for wild in [0, u64::MAX] {
            clock.learn(wild);
            assert_eq!(clock.ahead_millis().abs(), MAX_ERROR_MILLIS);
        }
    }

    #[test]
    fn the_date_of_an_answer_is_read() {
        assert_eq!(http_date("Thu, 01 Jan 1970 00:00:10 GMT"), Some(10_000));
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777_000));
        for bad in ["", "yesterday", "Thu, 01 Jan 1960 00:00:00 GMT"] {
            assert_eq!(http_date(bad), None, "{bad}");
        }
    }
}
