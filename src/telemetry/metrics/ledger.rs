//! Metrics of what is kept beside the records.

use std::time::Duration;

use prometheus::{IntCounterVec, IntGauge, Registry};

use super::{counters, gauge};
use crate::telemetry::histogram::DurationHistogram;

/// Metrics of usage, and of how long a revocation takes.
pub struct LedgerMetrics {
    revocation_lag: DurationHistogram,
    /// Batches of usage that were written, or could not be.
    pub usage_flushes: IntCounterVec,
    /// Requests whose keys are counted here and not in the store.
    pub usage_unflushed: IntGauge,
    snapshots: IntCounterVec,
}

/// Buckets in nanoseconds: 5 ms to 1 min.
const LAG: &[u64] = &[
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    60_000_000_000,
];

impl LedgerMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let (name, help) =
            ("keyward_revocation_lag_seconds", "From the commit of a change that takes something away to here");
        let revocation_lag = DurationHistogram::new(name, help, "", &[], LAG)?;
        registry.register(Box::new(revocation_lag.clone()))?;
        Ok(Self {
            revocation_lag,
            usage_flushes: counters(
                registry,
                ("keyward_usage_flushes_total", "Batches of usage written to the store, or not, by result"),
                "result",
                ["ok", "failed"],
            )?,
            snapshots: counters(
                registry,
                ("keyward_snapshots_total", "Snapshots written, or not, by result"),
                "result",
                ["ok", "failed"],
            )?,
            usage_unflushed: gauge(
                registry,
                "keyward_usage_unflushed_requests",
                "Requests whose use of a key is not written to the store yet",
            )?,
        })
    }

    /// A snapshot was written, or could not be.
    pub fn snapshot_saved(&self, is_written: bool) {
        self.snapshots.with_label_values(&[if is_written { "ok" } else { "failed" }]).inc();
    }

    /// A change that takes something away was applied, so long after its commit.
    pub fn revoked(&self, took: Duration) {
        self.revocation_lag.series(0).observe(took);
    }
}
