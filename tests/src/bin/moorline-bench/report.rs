//! The table: one line a bound.
#![expect(clippy::print_stdout, reason = "the table is what the program is for")]

use std::process::ExitCode;

/// Which side of the bound is good.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// Collects lines; each is printed as soon as it is measured.
#[derive(Debug)]
pub(crate) struct Report {
    only: Vec<String>,
    failed: usize,
}

impl Report {
    /// `only` are parts of row names; empty means every row.
    pub(crate) fn new(only: Vec<String>) -> Self {
        println!("| what | bound | min | median | p99 | max | runs | |");
        println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
        Self { only, failed: 0 }
    }

    pub(crate) fn wants(&self, what: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| what.contains(part.as_str()))
    }

    /// One row. `percentile` (0 to 1) of the samples is held against the bound.
    pub(crate) fn row(
        &mut self,
        what: &str,
        unit: &str,
        bound: Bound,
        percentile: f64,
        mut samples: Vec<f64>,
    ) {
        samples.sort_by(f64::total_cmp);
        let at = |p: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "an index into some hundred samples"
            )]
            let index = (p * (samples.len().saturating_sub(1)) as f64).round() as usize;
            samples.get(index).copied().unwrap_or(f64::NAN)
        };
        let (shown, good) = match bound {
            Bound::AtMost(limit) => (format!("≤ {limit} {unit}"), at(percentile) <= limit),
            Bound::AtLeast(limit) => (format!("≥ {limit} {unit}"), at(percentile) >= limit),
        };
        if !good {
            self.failed += 1;
        }
        println!(
            "| {what} | {shown} | {:.2} | {:.2} | {:.2} | {:.2} | {} | {} |",
            at(0.0),
            at(0.5),
            at(0.99),
            at(1.0),
            samples.len(),
            if good { "ok" } else { "**above the bound**" },
        );
    }

    /// A row that could not be measured here.
    pub(crate) fn missing(&self, what: &str, why: &str) {
        println!("| {what} | | | | | | 0 | not measured: {why} |");
    }

    pub(crate) fn finish(self) -> ExitCode {
        match self.failed {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}
