//! Chance that can be repeated.

/// A small generator (xorshift): the same seed gives the same throws.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Of `MOORLINE_SEED`, or else of the clock; says which, so that a failed run can be repeated.
    pub fn of_this_run() -> Self {
        let seed = from_environment("MOORLINE_SEED").unwrap_or_else(crate::epoch);
        Self::say(seed);
        Self::of(seed)
    }

    /// Of a seed that the test has.
    pub fn of(seed: u64) -> Self {
        // spread, since small seeds would begin with small numbers; never 0, which stays 0
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    #[expect(clippy::print_stderr, reason = "the test runner shows it when the test fails")]
    fn say(seed: u64) {
        eprintln!("MOORLINE_SEED={seed} repeats this run");
    }

    /// A number from 0 to below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// Waits a random time: where the moment of a kill is what is random, time is to pass.
    pub async fn pause(&mut self, most_millis: u64) {
        tokio::time::sleep(std::time::Duration::from_millis(self.below(most_millis))).await;
    }
}

/// By what `MOORLINE_SOAK` multiplies the rounds of random tests; 1 without it.
pub fn soak() -> u64 {
    from_environment("MOORLINE_SOAK").unwrap_or(1)
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
