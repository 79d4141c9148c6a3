//! Counters and gauges, as Prometheus text on `/metrics`.
//!
//! The page tells how many nodes and sessions there are and which operations are used, so not everyone sees it: it is
//! for peers on this machine (a collector beside the endpoint), and for requests from elsewhere with the signature
//! (SigV4, any service, empty body) of an administrator's access key. Others get 403. A proxy on this
//! machine speaks for all its clients, so it must not pass the path on. `/healthz`, which tells nothing,
//! is for everyone.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

/// A metric with more label sets than this puts the rest into one series, so that no peer can make the page grow.
const MOST_SERIES: usize = 256;
const REST: &str = "{rest=\"true\"}";

/// All metrics of the process. A metric exists from its first use; use one name with one kind only.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    families: Mutex<BTreeMap<&'static str, Family>>,
}

#[derive(Debug)]
struct Family {
    kind: Kind,
    /// By rendered labels.
    series: BTreeMap<String, Arc<AtomicI64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

/// One series that only grows. Cheap to clone; keep it where counting is frequent.
#[derive(Debug, Clone)]
pub(crate) struct Counter(Arc<AtomicI64>);

impl Counter {
    pub(crate) fn add(&self, amount: u64) {
        self.0
            .fetch_add(i64::try_from(amount).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn increment(&self) {
        self.add(1);
    }
}

/// One series that goes up and down.
#[derive(Debug, Clone)]
pub(crate) struct Gauge(Arc<AtomicI64>);

impl Gauge {
    pub(crate) fn add(&self, amount: i64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Counts one more until the returned guard is dropped.
    pub(crate) fn hold(&self) -> Held {
        self.add(1);
        Held(self.clone())
    }
}

/// Counts one less when dropped.
#[derive(Debug)]
pub(crate) struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

impl Metrics {
    /// `metrics.counter("moorline_api_requests_total", &[("operation", name)])`. The name ends in `_total`.
    pub(crate) fn counter(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        Counter(self.series(name, Kind::Counter, labels))
    }

    pub(crate) fn gauge(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        Gauge(self.series(name, Kind::Gauge, labels))
    }

    fn series(&self, name: &'static str, kind: Kind, labels: &[(&'static str, &str)]) -> Arc<AtomicI64> {
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let family = families.entry(name).or_insert_with(|| Family {
            kind,
            series: BTreeMap::new(),
        });
        debug_assert_eq!(family.kind, kind, "{name} is used as a counter and as a gauge");
        let mut key = render_labels(labels);
        if family.series.len() >= MOST_SERIES && !family.series.contains_key(&key) {
            REST.clone_into(&mut key);
        }
        Arc::clone(family.series.entry(key).or_default())
    }

    /// The page, in Prometheus' text format.
    pub(crate) fn render(&self) -> String {
        let families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let mut page = String::new();
        for (name, family) in families.iter() {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            page.push_str(&format!("# TYPE {name} {kind}\n"));
            for (labels, value) in &family.series {
                page.push_str(&format!("{name}{labels} {}\n", value.load(Ordering::Relaxed)));
            }
        }
        page
    }
}

fn render_labels(labels: &[(&'static str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let mut text = String::from("{");
    for (index, (name, value)) in labels.iter().enumerate() {
        text.push_str(if index == 0 { "" } else { "," });
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        write!(text, "{name}=\"{value}\"").expect("a String takes every text");
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_lists_every_series_by_name_and_labels() {
        let metrics = Metrics::default();
        metrics
            .counter("a_total", &[("operation", "Send\"Command")])
            .increment();
        metrics
            .counter("a_total", &[("operation", "Send\"Command")])
            .add(2);
        let gauge = metrics.gauge("b", &[]);
        let held = gauge.hold();
        assert!(metrics.render().contains("\nb 1\n"));
        drop(held);
        let page = "# TYPE a_total counter\na_total{operation=\"Send\\\"Command\"} 3\n# TYPE b gauge\nb 0\n";
        assert_eq!(metrics.render(), page);
    }

    #[test]
    fn a_metric_with_too_many_label_sets_stops_growing() {
        let metrics = Metrics::default();
        for index in 0..MOST_SERIES * 2 {
            metrics
                .counter("a_total", &[("x", &index.to_string())])
                .increment();
        }
        let page = metrics.render();
        assert_eq!(page.lines().count(), MOST_SERIES + 2);
        assert!(page.contains(&format!("a_total{REST} {MOST_SERIES}")));
    }
}
