//! Metrics of the management API.

use prometheus::{IntCounterVec, Registry};

use super::{CODES, counters};
use crate::auth::decision::Denial;

/// What the management API counts.
pub struct AdminMetrics {
    requests: IntCounterVec,
    denied: IntCounterVec,
}

impl AdminMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            requests: counters(
                registry,
                ("keyward_admin_requests_total", "Requests to the management API by class of the status"),
                "code",
                CODES,
            )?,
            denied: counters(
                registry,
                ("keyward_admin_denied_total", "Requests to the management API without a good key, by reason"),
                "reason",
                Denial::ALL.map(Denial::label),
            )?,
        })
    }

    /// A request has been answered.
    pub fn answered(&self, status: u16) {
        let class = usize::from(status / 100).saturating_sub(1).min(CODES.len() - 1);
        self.requests.with_label_values(&[CODES[class]]).inc();
    }

    /// Nobody was known to have asked.
    pub fn denied(&self, denial: Denial) {
        self.denied.with_label_values(&[denial.label()]).inc();
    }
}
