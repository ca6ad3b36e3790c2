//! Says how far this node is: before its first pull, every few seconds, and whenever it has applied something. So whoever
//! revokes a key can wait until nobody lets it pass any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::replica::Replica;
use crate::store::ledger::nodes::Report;
use crate::store::ledger::{Ledger, LedgerError};
use crate::telemetry::metrics::Metrics;

/// How often it is said though nothing happened.
const INTERVAL: Duration = Duration::from_secs(5);

/// How long to wait for the store before the first pull, and at the end.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was applied.
#[derive(Clone, Copy, Debug)]
pub struct Applied {
    /// The revision that the replica is at.
    pub revision: u64,
    /// The first one that came with it; `None` where everything was read anew.
    pub first: Option<u64>,
    /// Whether somebody may do less than before.
    pub takes_away: bool,
    /// When.
    pub at: Instant,
}

/// The one who says so.
pub struct Reporter<L> {
    ledger: L,
    node: String,
    replica: Arc<Replica>,
    metrics: Arc<Metrics>,
    /// What was said last went wrong, and somebody was told.
    told: bool,
}

impl<L: Ledger> Reporter<L> {
    /// One who has said nothing yet.
    pub fn new(ledger: L, node: String, replica: Arc<Replica>, metrics: Arc<Metrics>) -> Self {
        Self { ledger, node, replica, metrics, told: false }
    }

    /// Makes the node known before it knows anything: whoever commits after its first pull finds it.
    pub async fn introduce(&mut self) {
        if timeout(PATIENCE, self.report(0)).await.is_err() {
            tracing::warn!("the store does not take down that this node is there; nobody waits for it");
        }
    }

    /// Runs for ever.
    pub async fn run(mut self, mut applied: mpsc::UnboundedReceiver<Applied>) {
        let mut revision = 0;
        loop {
            let first = timeout(INTERVAL, applied.recv()).await.ok().flatten();
            let mut all: Vec<Applied> = first.into_iter().collect();
            while let Ok(next) = applied.try_recv() {
                all.push(next);
            }
            revision = all.last().map_or(revision, |last| last.revision);
            self.report(revision).await;
            for applied in all {
                self.observe(applied).await;
            }
        }
    }

    /// Takes the node off the list: it has ended, and nobody has to wait for it.
    pub async fn leave(ledger: &L, node: &str) {
        // Whoever waits for it in vain hears its name.
        let _ = timeout(PATIENCE, ledger.forget(node)).await;
    }

    async fn report(&mut self, revision: u64) {
        let max_staleness = self.replica.max_staleness();
        let id = self.node.clone();
        let report = Report { id, revision, version: env!("CARGO_PKG_VERSION"), max_staleness };
        match self.ledger.report(report).await {
            Ok(()) => self.told = false,
            Err(LedgerError::None(_)) => {}
            Err(LedgerError::Store(error)) if self.told => {
                tracing::debug!(%error, "still cannot say how far this node is");
            }
            Err(LedgerError::Store(error)) => {
                tracing::warn!(%error, "cannot say how far this node is; nobody can wait for it");
                self.told = true;
            }
        }
    }

    /// Takes down how long it took from a commit to here, all of it by the store's clock but for the last step.
    async fn observe(&self, applied: Applied) {
        let Some(first) = applied.first.filter(|_| applied.takes_away) else { return };
        if let Ok(Some(age)) = self.ledger.age(first).await {
            self.metrics.ledger.revoked(age.saturating_sub(applied.at.elapsed()));
        }
    }
}
