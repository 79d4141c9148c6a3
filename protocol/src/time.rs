//! Time as the state machines see it: an argument.

use std::time::Duration;

/// One reading of both clocks, taken by the driver once per call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Time since any fixed origin; never goes back. Timers use this one.
    pub monotonic: Duration,
    /// Milliseconds since the Unix epoch. Only written into messages, never compared.
    pub unix_millis: u64,
}
