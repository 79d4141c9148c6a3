//! Full-jitter exponential backoff: a fleet that lost its endpoint does not come back all at once.

use std::time::Duration;

/// Delays between attempts: uniform between zero and a ceiling that doubles.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    cap: Duration,
    attempt: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, cap: Duration) -> Self {
        Self {
            first,
            cap,
            attempt: 0,
        }
    }

    /// The next delay. `random` is uniform in 0..=u32::MAX.
    pub(crate) fn next(&mut self, random: u32) -> Duration {
        let ceiling = self
            .first
            .saturating_mul(1_u32.checked_shl(self.attempt).unwrap_or(u32::MAX))
            .min(self.cap);
        self.attempt = self.attempt.saturating_add(1);
        ceiling.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// The last attempt succeeded.
    pub(crate) fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_below_a_ceiling_that_doubles_up_to_the_cap() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(120));
        let ceilings: Vec<u64> = (0..40).map(|_| backoff.next(u32::MAX).as_secs()).collect();
        assert_eq!(ceilings.get(..8), Some([1, 2, 4, 8, 16, 32, 64, 120].as_slice()));
        assert!(ceilings.iter().skip(7).all(|s| *s == 120));
        assert_eq!(backoff.next(0), Duration::ZERO);
        backoff.reset();
        assert_eq!(backoff.next(u32::MAX), Duration::from_secs(1));
    }
}
