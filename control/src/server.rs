//! The process: settings, first start, listener, drain.

mod metrics;

pub(crate) use metrics::Metrics;

/// `moorline-control serve …`
pub(crate) fn main() -> std::process::ExitCode {
    todo!()
}
