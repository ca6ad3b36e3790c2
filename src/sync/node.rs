//! Says how far this node is: before its first pull, every few seconds, and whenever it has applied something. So whoever
//! revokes a key can wait until nobody lets it pass any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::lifecycle::Lifecycle;
use crate::replica::Replica;
use crate::store::ledger::nodes::Report;
use crate::store::ledger::{Ledger, LedgerError};
use crate::telemetry::metrics::Metrics;

/// How often it is said though nothing happened.
const INTERVAL: Duration = Duration::from_secs(5);

/// How long to wait for the store before the first pull, and at the end.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long after its last word a node that refuses everything by now is still shown to people, in milliseconds.
const SHOWN: u64 = 24 * 60 * 60 * 1000;

/// Why nobody should send requests to a node that is not on the list: who revokes a key would not wait for it.
const UNLISTED: &str =
    "the store does not take down that this process is there, so that nobody can wait for it; the log says why";

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
    lifecycle: Lifecycle,
    /// Whether it may go on by a snapshot where the store is away, and need not be on the list for that.
    has_snapshot: bool,
    /// When it was last taken down.
    listed: Option<Instant>,
    /// What was said last went wrong, and somebody was told.
    told: bool,
}

impl<L: Ledger> Reporter<L> {
    /// One who has said nothing yet.
    pub fn new(
        ledger: L,
        node: String,
        (replica, metrics): (Arc<Replica>, Arc<Metrics>),
        lifecycle: Lifecycle,
        has_snapshot: bool,
    ) -> Self {
        Self { ledger, node, replica, metrics, lifecycle, has_snapshot, listed: None, told: false }
    }

    /// Makes the node known before it knows anything: whoever commits after its first pull finds it.
    pub async fn introduce(&mut self) {
        match timeout(PATIENCE, self.report(0)).await {
            Ok(is_known) => self.judge(is_known || self.has_snapshot),
            Err(_) => {
                tracing::warn!("the store does not take down that this node is there; nobody waits for it");
                self.judge(self.has_snapshot);
            }
        }
        // Who reads only itself clears up only after itself.
        let nodes = timeout(PATIENCE, self.ledger.nodes()).await.ok().and_then(Result::ok).unwrap_or_default();
        for node in nodes.iter().filter(|node| !node.may_serve() && node.seen_ms_ago > SHOWN) {
            Self::leave(&self.ledger, &node.id).await;
        }
    }

    /// Readiness follows from whether this node is on the list, or need not be.
    fn judge(&self, is_known: bool) {
        self.lifecycle.withhold((!is_known).then_some(UNLISTED));
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
            let is_known = self.report(revision).await;
            // Without a pull from the store it has only what a snapshot knew.
            self.judge(is_known || (revision == 0 && self.has_snapshot));
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

    /// Says so; whether the list has it, as far as one is kept.
    async fn report(&mut self, revision: u64) -> bool {
        let max_staleness = self.replica.max_staleness();
        let id = self.node.clone();
        let report = Report { id, revision, version: env!("CARGO_PKG_VERSION"), max_staleness };
        match self.ledger.report(report).await {
            Ok(()) => {
                self.told = false;
                self.listed = Some(Instant::now());
            }
            Err(LedgerError::None(_)) => return true,
            Err(LedgerError::Store(error)) if self.told => {
                tracing::debug!(%error, "still cannot say how far this node is");
            }
            Err(LedgerError::Store(error)) => {
                tracing::warn!(%error, "cannot say how far this node is; nobody can wait for it");
                self.told = true;
            }
        }
        // Longer ago, whoever waits takes it for one that has ended.
        self.listed.is_some_and(|listed| listed.elapsed() <= max_staleness)
    }

    /// Takes down how long it took from a commit to here, all of it by the store's clock but for the last step.
    async fn observe(&self, applied: Applied) {
        let Some(first) = applied.first.filter(|_| applied.takes_away) else { return };
        if let Ok(Some(age)) = self.ledger.age(first).await {
            self.metrics.ledger.revoked(age.saturating_sub(applied.at.elapsed()));
        }
    }
}
