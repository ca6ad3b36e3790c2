//! Metrics of traces: what is not sent is not seen, and should be known.

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::{counter, counters};

/// Why spans were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Too much waited already.
    QueueFull,
    /// The collector will not have them.
    Refused,
    /// The collector could not be reached for too long.
    Undelivered,
}

impl Dropped {
    /// In order of declaration.
    const LABELS: [&'static str; 3] = ["queue_full", "refused", "undelivered"];
}

/// Spans that were sent, and that were not.
pub struct TraceMetrics {
    exported: IntCounter,
    dropped: IntCounterVec,
}

impl TraceMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            exported: counter(registry, "keyward_spans_exported_total", "Spans that the collector of traces took")?,
            dropped: counters(
                registry,
                ("keyward_spans_dropped_total", "Spans that the collector of traces did not get, by reason"),
                "reason",
                Dropped::LABELS,
            )?,
        })
    }

    /// The collector has them.
    pub fn exported(&self, count: u64) {
        self.exported.inc_by(count);
    }

    /// Nobody will see them.
    pub fn dropped(&self, why: Dropped, count: u64) {
        self.dropped.with_label_values(&[Dropped::LABELS[why as usize]]).inc_by(count);
    }
}
