//! The round-trip estimate and the retransmission timeout (client-wire §4.4).

use std::time::Duration;

const INITIAL_RTT_MS: f64 = 100.0;
const INITIAL_RTO_MS: f64 = 200.0;
const VARIATION_GAIN: f64 = 0.25;
const RTT_GAIN: f64 = 0.125;
const CLOCK_GRANULARITY_MS: f64 = 10.0;
const MAX_RTO_MS: f64 = 1000.0;

/// The formulas and constants are those of the stock peers. One thing differs: of a message that was sent more than
/// once they take the time since the last sending. The acknowledgement may be that of an earlier one, and on a path
/// slower than the timeout it always is: their estimate then never reaches the real round trip, and every message is
/// sent twice for ever. We take the time since the first sending. It may be too long, by the timeout, when the message
/// was really lost; that delays a later repetition, by one second at most.
#[derive(Debug)]
pub(super) struct Rtt {
    smoothed_ms: f64,
    variation_ms: f64,
    timeout_ms: f64,
}

impl Rtt {
    pub(super) fn new() -> Self {
        Self {
            smoothed_ms: INITIAL_RTT_MS,
            variation_ms: 0.0,
            timeout_ms: INITIAL_RTO_MS,
        }
    }

    /// The time from the first sending of a message to its acknowledgement.
    pub(super) fn sample(&mut self, sample: Duration) {
        let sample_ms = sample.as_secs_f64() * 1000.0;
        let difference_ms = (self.smoothed_ms - sample_ms).abs();
        self.variation_ms = (1.0 - VARIATION_GAIN) * self.variation_ms + VARIATION_GAIN * difference_ms;
        self.smoothed_ms = (1.0 - RTT_GAIN) * self.smoothed_ms + RTT_GAIN * sample_ms;
        let margin_ms = (4.0 * self.variation_ms).max(CLOCK_GRANULARITY_MS);
        self.timeout_ms = (self.smoothed_ms + margin_ms).min(MAX_RTO_MS);
    }

    /// How long an acknowledgement is waited for; at most one second.
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.timeout_ms / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(timeout: Duration) -> f64 {
        timeout.as_secs_f64() * 1000.0
    }

    #[test]
    fn vector_of_the_specification() {
        let mut rtt = Rtt::new();
        assert_eq!(millis(rtt.timeout()), 200.0);
        for (sample_ms, expected_ms) in [(50, 143.75), (50, 169.53), (300, 387.40), (40, 384.64)] {
            rtt.sample(Duration::from_millis(sample_ms));
            assert!(
                (millis(rtt.timeout()) - expected_ms).abs() < 0.01,
                "{:?}",
                rtt.timeout()
            );
        }
    }

    #[test]
    fn stays_between_a_granule_and_a_second() {
        let mut rtt = Rtt::new();
        for _ in 0..200 {
            rtt.sample(Duration::ZERO);
        }
        assert!(rtt.timeout() >= Duration::from_millis(10));
        rtt.sample(Duration::from_secs(3600));
        assert_eq!(rtt.timeout(), Duration::from_secs(1));
    }
}
