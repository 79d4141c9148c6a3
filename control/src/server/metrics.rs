//! Counters and gauges, as Prometheus text on `/metrics`.

/// All metrics of the process.
#[derive(Debug, Default)]
pub(crate) struct Metrics {}
