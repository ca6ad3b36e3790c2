//! Takes what waits, makes batches of it and sends them, on the control thread.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::collector::{Collector, Reply};
use super::{Config, Exchange, Resource, spans};
use crate::telemetry::metrics::{Dropped, Metrics};

/// Most requests in a batch.
const BATCH: usize = 512;
/// How long a batch waits for more, and how often it is looked whether it is full.
const GATHER: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(100);
/// How long the same batch is tried.
const GIVE_UP: Duration = Duration::from_secs(60);
/// How long between the first two tries; then twice as long each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

pub(super) struct Exporter {
    collector: Collector,
    queue: mpsc::Receiver<Box<Exchange>>,
    resource: Resource,
    timeout: Duration,
    metrics: Arc<Metrics>,
    stop: watch::Receiver<bool>,
    /// Whether the last batch got there, or nothing was tried yet.
    reached: bool,
}

impl Exporter {
    pub(super) fn new(
        config: Config,
        queue: mpsc::Receiver<Box<Exchange>>,
        metrics: Arc<Metrics>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let Config { endpoint, headers, sampling: _, timeout, queue: _, resource } = config;
        Self { collector: Collector::new(endpoint, headers), queue, resource, timeout, metrics, stop, reached: true }
    }

    /// Runs until nobody has anything to send any more, or until the process stops.
    pub(super) async fn run(mut self) {
        loop {
            let first = tokio::select! {
                first = self.queue.recv() => first,
                () = stopping(&mut self.stop) => None,
            };
            let Some(first) = first else { break };
            let mut batch = vec![*first];
            self.gather(&mut batch).await;
            self.deliver(batch).await;
        }
        loop {
            let mut batch = Vec::new();
            self.fill(&mut batch);
            if batch.is_empty() {
                return;
            }
            self.deliver(batch).await;
        }
    }

    /// Waits until a batch is full, or old enough. Nobody is woken by what comes meanwhile.
    async fn gather(&mut self, batch: &mut Vec<Exchange>) {
        let began = Instant::now();
        while batch.len() + self.queue.len() < BATCH && began.elapsed() < GATHER {
            tokio::select! {
                () = sleep(LOOK) => {}
                () = stopping(&mut self.stop) => break,
            }
        }
        self.fill(batch);
    }

    fn fill(&mut self, batch: &mut Vec<Exchange>) {
        while batch.len() < BATCH
            && let Ok(exchange) = self.queue.try_recv()
        {
            batch.push(*exchange);
        }
    }

    /// Sends a batch, more than once if need be.
    async fn deliver(&mut self, batch: Vec<Exchange>) {
        let count = batch.iter().map(Exchange::count).sum();
        let bytes = Bytes::from(spans::export(self.resource.message(), &batch).encode_to_vec());
        drop(batch);
        let (began, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            match self.collector.send(bytes.clone(), self.timeout).await {
                Reply::Taken { rejected, words } => return self.taken(count, rejected, &words),
                Reply::Refused { why } => {
                    self.metrics.traces.dropped(Dropped::Refused, count);
                    return self.failed(&why);
                }
                Reply::Later { why, after } => {
                    self.failed(&why);
                    let wait = after.unwrap_or(pause).min(LONGEST_PAUSE);
                    if *self.stop.borrow() || began.elapsed() + wait > GIVE_UP {
                        return self.metrics.traces.dropped(Dropped::Undelivered, count);
                    }
                    tokio::select! {
                        () = sleep(wait) => {}
                        () = stopping(&mut self.stop) => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn taken(&mut self, count: u64, rejected: u64, words: &str) {
        let rejected = rejected.min(count);
        self.metrics.traces.exported(count - rejected);
        self.metrics.traces.dropped(Dropped::Refused, rejected);
        if rejected > 0 {
            tracing::warn!(rejected, words, "the collector of traces did not take all spans");
        }
        if !std::mem::replace(&mut self.reached, true) {
            tracing::info!("the collector of traces takes spans again");
        }
    }

    /// Says so once, until it works again.
    fn failed(&mut self, why: &str) {
        if std::mem::replace(&mut self.reached, false) {
            tracing::warn!(why, "the collector of traces does not take spans; they wait as far as traces.queue allows");
        }
    }
}

/// Resolves when the process stops.
async fn stopping(stop: &mut watch::Receiver<bool>) {
    // Whoever could say so is there as long as the process.
    let _ = stop.wait_for(|stop| *stop).await;
}
