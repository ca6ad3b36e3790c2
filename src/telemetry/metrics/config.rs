//! Metrics of the config; the names are those that Prometheus and Alertmanager have for the same.

use std::time::SystemTime;

use prometheus::{Gauge, IntCounterVec, IntGauge, Opts, Registry};

use super::{float, gauge};
use crate::auth::grant::Timestamp;

/// The results of reloads, as labels.
const RESULTS: [&str; 2] = ["success", "failure"];

/// Whether what the files say is what runs.
pub struct ConfigMetrics {
    successful: IntGauge,
    success_time: Gauge,
    reloads: IntCounterVec,
}

impl ConfigMetrics {
    /// The start has read the config, so it begins as a success.
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let reloads = Opts::new("keyward_config_reloads_total", "Times the config was read again, by result");
        let reloads = IntCounterVec::new(reloads, &["result"])?;
        registry.register(Box::new(reloads.clone()))?;
        RESULTS.iter().for_each(|result| reloads.with_label_values(&[result]).reset());
        let metrics = Self {
            successful: gauge(
                registry,
                "keyward_config_last_reload_successful",
                "Whether the config was taken over when it was read last",
            )?,
            success_time: float(
                registry,
                "keyward_config_last_reload_success_timestamp_seconds",
                "When a config was taken over last",
            )?,
            reloads,
        };
        metrics.taken_over();
        Ok(metrics)
    }

    /// The config was read again and is in force, or is not.
    pub fn reloaded(&self, success: bool) {
        self.reloads.with_label_values(&[RESULTS[usize::from(!success)]]).inc();
        match success {
            true => self.taken_over(),
            false => self.successful.set(0),
        }
    }

    fn taken_over(&self) {
        self.successful.set(1);
        self.success_time.set(Timestamp::from(SystemTime::now()).millis() as f64 / 1e3);
    }
}
