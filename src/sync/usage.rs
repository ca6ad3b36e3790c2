//! Writes down how often keys were used: every few seconds, in batches, from what the data plane has counted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use crate::auth::digest::Digest;
use crate::replica::Replica;
use crate::replica::usage::{Collector, Used};
use crate::store::ledger::usage::Uses;
use crate::store::ledger::{Ledger, LedgerError};
use crate::telemetry::metrics::Metrics;

/// How often it is written down.
const INTERVAL: Duration = Duration::from_secs(5);

/// How much is written at once.
const BATCH: usize = 1000;

/// Asks for what is left to be written, at the end.
pub type Last = oneshot::Receiver<oneshot::Sender<()>>;

/// The one who collects and writes. What cannot be written is kept and tried again: a number for each secret that was used.
pub struct Recorder<L> {
    ledger: L,
    node: String,
    replica: Arc<Replica>,
    metrics: Arc<Metrics>,
    collector: Collector,
    unwritten: HashMap<Digest, Used>,
    /// Whether somebody has been told that it cannot be written.
    told: bool,
}

impl<L: Ledger> Recorder<L> {
    /// One who has not collected yet.
    pub fn new(ledger: L, node: String, replica: Arc<Replica>, metrics: Arc<Metrics>) -> Self {
        let (collector, unwritten) = (Collector::default(), HashMap::new());
        Self { ledger, node, replica, metrics, collector, unwritten, told: false }
    }

    /// Runs until it is asked for the last time.
    pub async fn run(mut self, mut last: Last) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => self.record().await,
                asked = &mut last => {
                    self.record().await;
                    // Who asked may have waited long enough.
                    let _ = asked.map(|asked| asked.send(()));
                    return std::future::pending().await;
                }
            }
        }
    }

    /// Collects, and writes all there is.
    async fn record(&mut self) {
        self.collect();
        while let Some(batch) = self.batch() {
            let written = self.ledger.add_usage(&self.node, batch.iter().map(uses).collect()).await;
            let label = if written.is_ok() { "ok" } else { "failed" };
            self.metrics.ledger.usage_flushes.with_label_values(&[label]).inc();
            match written {
                Ok(()) => {
                    batch.iter().for_each(|used| drop(self.unwritten.remove(&used.secret)));
                    self.told = false;
                }
                // Nobody will ever want it.
                Err(LedgerError::None(_)) => self.unwritten.clear(),
                Err(LedgerError::Store(error)) => {
                    match self.told {
                        true => tracing::debug!(%error, "how often keys were used still cannot be written down"),
                        false => tracing::warn!(%error, "how often keys were used cannot be written down; it is kept"),
                    }
                    self.told = true;
                    break;
                }
            }
        }
        let unwritten: u64 = self.unwritten.values().map(|used| used.count).sum();
        self.metrics.ledger.usage_unflushed.set(i64::try_from(unwritten).unwrap_or(i64::MAX));
    }

    fn collect(&mut self) {
        for used in self.collector.collect(&self.replica.tallies(), SystemTime::now().into()) {
            match self.unwritten.get_mut(&used.secret) {
                Some(kept) => kept.add(used),
                None => drop(self.unwritten.insert(used.secret, used)),
            }
        }
    }

    fn batch(&self) -> Option<Vec<Used>> {
        let batch: Vec<Used> = self.unwritten.values().take(BATCH).cloned().collect();
        (!batch.is_empty()).then_some(batch)
    }
}

fn uses(used: &Used) -> Uses {
    let Used { secret, ref key, count, minute, client } = *used;
    Uses { key: key.clone(), secret, count, minute, client }
}
