//! What this process writes to the store about itself: that it is there and how far it is, and how often keys were used.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::instance::Instance;
use crate::lifecycle::Lifecycle;
use crate::replica::Replica;
use crate::store::AnyStore;
use crate::sync::Sync;
use crate::sync::node::Reporter;
use crate::sync::snapshot::{Saver, Snapshot};
use crate::sync::usage::Recorder;
use crate::telemetry::metrics::Metrics;

/// How long to wait for the store at the end.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is left to be done at the end.
pub(super) struct Ledger {
    store: Arc<AnyStore>,
    id: String,
    _instance: Instance,
    last: oneshot::Sender<oneshot::Sender<()>>,
    /// Whether it takes its leave at the end. With a snapshot it does not: when it starts again without the store, it goes on
    /// by what it knew.
    leaves: bool,
}

/// What the tasks need.
pub(super) struct Needs {
    pub(super) store: Arc<AnyStore>,
    pub(super) replica: Arc<Replica>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) lifecycle: Lifecycle,
    pub(super) instance: Instance,
    /// What this process is called; `None` after the machine and its port.
    pub(super) node: Option<String>,
    pub(super) proxy: SocketAddr,
    /// Where a snapshot is kept, if anywhere.
    pub(super) snapshot: Option<Snapshot>,
}

/// Starts to follow the store, and to tell it of this process.
pub(super) fn start(needs: Needs, sync: Sync<Arc<AnyStore>>, tasks: &mut JoinSet<std::io::Result<()>>) -> Ledger {
    let Needs { store, replica, metrics, lifecycle, instance, node, proxy, snapshot } = needs;
    let node = node.unwrap_or_else(|| format!("{}:{}", host(), proxy.port()));
    let (id, shown) = (instance.named(&node), (replica.clone(), metrics.clone()));
    let mut reporter = Reporter::new(store.clone(), id.clone(), shown, lifecycle, snapshot.is_some());
    let (teller, applied) = mpsc::unbounded_channel();
    if let Some(snapshot) = snapshot.clone() {
        let saver = Saver::new(store.clone(), snapshot, replica.clone(), metrics.clone());
        tasks.spawn(async move {
            saver.run().await;
            Ok(())
        });
    }
    let (sync, leaves) = (sync.beginning_with(snapshot.clone()), snapshot.is_none());
    tasks.spawn(async move {
        reporter.introduce().await;
        tokio::join!(sync.telling(teller).run(), reporter.run(applied));
        Ok(())
    });
    let (last, asked) = oneshot::channel();
    let recorder = Recorder::new(store.clone(), node, replica, metrics);
    tasks.spawn(async move {
        recorder.run(asked).await;
        Ok(())
    });
    Ledger { store, id, _instance: instance, last, leaves }
}

impl Ledger {
    /// Writes what is left, and takes this process off the list. Nothing may report for it any more.
    pub(super) async fn end(self, mut tasks: JoinSet<std::io::Result<()>>) {
        let (done, written) = oneshot::channel();
        if self.last.send(done).is_ok() {
            // What does not get there within that is lost with the process.
            let _ = tokio::time::timeout(PATIENCE, written).await;
        }
        tasks.shutdown().await;
        if self.leaves {
            Reporter::leave(&self.store, &self.id).await;
        }
    }
}

/// What this machine, or this Pod, calls itself.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "unknown".to_owned(),
        name => name.to_owned(),
    }
}
