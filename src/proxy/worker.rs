//! A worker: one thread with a runtime and a pool of its own. A request never leaves the worker that its connection came to.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;

use super::establish::{self, Arrival, Link};
use super::peers::Place;
use super::request_id::{RequestId, RequestIds};
use super::revocation::Judged;
use super::upstream::Upstream;
use super::watch::{Late, Signal, Sweeper};
use super::{Live, Shared};
use crate::lifecycle::{Lifecycle, Phase};
use crate::telemetry::metrics::{Failure, Metrics};

/// How long idle connections are kept when draining: a client may be sending its next request at this very moment, and
/// gets an answer that closes the connection. Closing at once would lose that request.
const IDLE_GRACE: Duration = Duration::from_secs(1);

/// What the tasks of a worker share.
pub(super) struct Worker {
    pub(super) live: Arc<Live>,
    /// Only this worker's thread takes the lock, so it is never contended.
    current: Mutex<Current>,
    pub(super) sweeper: Arc<Sweeper>,
    pub(super) lifecycle: Lifecycle,
    draining: AtomicBool,
    /// Open connections; the acceptor looks at it too.
    open: Arc<AtomicUsize>,
    ids: RequestIds,
}

/// What a worker serves by: a config, and the way to its upstream.
#[derive(Clone)]
pub(super) struct Current {
    pub(super) shared: Arc<Shared>,
    pub(super) upstream: Arc<Upstream>,
}

/// A connection on its way from the acceptor.
pub(super) type Accepted = (std::net::TcpStream, SocketAddr);

impl Worker {
    fn new(live: Arc<Live>, open: Arc<AtomicUsize>, lifecycle: Lifecycle) -> Arc<Self> {
        let (shared, sweeper) = (live.shared(), Arc::<Sweeper>::default());
        let upstream = Upstream::new(shared.target.clone(), shared.protocol, shared.limits.clone(), sweeper.clone());
        let current = Mutex::new(Current { shared, upstream: Arc::new(upstream) });
        let (draining, ids) = (AtomicBool::new(false), RequestIds::default());
        Arc::new(Self { live, current, sweeper, lifecycle, draining, open, ids })
    }

    /// What begins now is served by this. A new config is taken over here, with a new pool if the old one does not fit it.
    pub(super) fn current(&self) -> Current {
        // A panic elsewhere cannot leave it half changed.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.live.is(&current.shared) {
            current.shared = self.live.shared();
            let Shared { target, protocol, limits, .. } = &*current.shared;
            if !current.upstream.is(target, *protocol, limits) {
                let upstream = Upstream::new(target.clone(), *protocol, limits.clone(), self.sweeper.clone());
                std::mem::replace(&mut current.upstream, Arc::new(upstream)).retire();
            }
        }
        current.clone()
    }

    /// Whether connections are to be closed after the answer.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// A new request's id.
    pub(super) fn next_id(&self) -> RequestId {
        self.ids.next()
    }

    /// Where ids come from.
    pub(super) fn ids(&self) -> &RequestIds {
        &self.ids
    }

    /// Waits until all connections have closed, at most so long.
    async fn all_closed(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.open.load(Relaxed) > 0 {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }

    async fn drain(&self, limit: Duration) {
        self.draining.store(true, Relaxed);
        self.sweeper.send_all(Signal::Leave);
        if self.all_closed(IDLE_GRACE.min(limit)).await {
            return;
        }
        self.sweeper.send_all(Signal::Finish);
        if !self.all_closed(limit.saturating_sub(IDLE_GRACE)).await {
            tracing::warn!(connections = self.open.load(Relaxed), "closing connections that did not finish in time");
            self.sweeper.send_all(Signal::Close);
            self.all_closed(Duration::from_secs(1)).await;
        }
    }
}

/// Serves connections until the process has drained.
pub(super) async fn run(
    live: Arc<Live>,
    open: Arc<AtomicUsize>,
    mut accepted: UnboundedReceiver<Accepted>,
    lifecycle: Lifecycle,
) {
    let worker = Worker::new(live, open, lifecycle.clone());
    let sweeping = worker.clone();
    tokio::spawn(async move {
        let mut judged = Judged::default();
        let each_time = || {
            let current = sweeping.current();
            current.upstream.prune();
            judged.sweep(&sweeping.sweeper, &current.shared);
        };
        let late = |late| {
            let metrics = &sweeping.current().shared.metrics.proxy;
            match late {
                Late::Body | Late::Request => metrics.client_late(late == Late::Request),
                Late::Answer => metrics.upstream_error(Failure::Timeout),
            }
        };
        sweeping.sweeper.run(each_time, late).await;
    });
    // The acceptor drops its end when it stops: what it still has handed over comes first.
    while let Some((socket, peer)) = accepted.recv().await {
        match TcpStream::from_std(socket) {
            Ok(socket) => serve(&worker, socket, peer),
            Err(error) => {
                worker.open.fetch_sub(1, Relaxed);
                tracing::warn!(%error, "a connection could not be taken over");
            }
        }
    }
    lifecycle.reached(Phase::Draining).await;
    worker.drain(worker.current().shared.limits.drain_timeout).await;
}

fn serve(worker: &Arc<Worker>, socket: TcpStream, peer: SocketAddr) {
    let _ = socket.set_nodelay(true);
    let current = worker.current();
    let watch = worker.sweeper.watch(current.shared.limits.of_clients());
    let open = OpenConnection::new(current.shared.metrics.clone(), worker.clone());
    let link = Link { worker: worker.clone(), watch, peer: peer.ip(), is_secure: false, open: open.clone() };
    spawn_isolated(open, establish::run(Arrival { current, link }, socket));
}

/// Runs a connection as a task of its own, so that a panic in it takes nothing else down.
fn spawn_isolated(open: impl Send + 'static, connection: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(async move {
        let _open = open;
        connection.await;
    });
}

/// Counts a connection as long as it is open, however it ends.
pub(super) struct OpenConnection {
    metrics: Arc<Metrics>,
    worker: Arc<Worker>,
    /// Whether it takes room from others.
    counts: AtomicBool,
    /// Its place among its peer's, where those are limited.
    place: OnceLock<Place>,
}

impl OpenConnection {
    fn new(metrics: Arc<Metrics>, worker: Arc<Worker>) -> Arc<Self> {
        metrics.proxy.connections.inc();
        metrics.proxy.connections_open.inc();
        Arc::new(Self { metrics, worker, counts: AtomicBool::new(true), place: OnceLock::new() })
    }

    /// Keeps its place among its peer's as long as it is open.
    pub(super) fn keep(&self, place: Place) {
        // There is one, since a connection is established once.
        let _ = self.place.set(place);
    }

    /// Makes room for another while this one is only told that it was too many.
    pub(super) fn step_aside(&self) {
        if self.counts.swap(false, Relaxed) {
            self.metrics.proxy.connections_open.dec();
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.worker.open.fetch_sub(1, Relaxed);
        self.step_aside();
        if std::thread::panicking() {
            self.metrics.proxy.panics.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes whether it was dropped by a panic.
    struct Noting(Arc<AtomicUsize>);

    impl Drop for Noting {
        fn drop(&mut self) {
            self.0.fetch_add(if std::thread::panicking() { 100 } else { 1 }, Relaxed);
        }
    }

    #[tokio::test]
    async fn a_panic_takes_its_own_connection_down_and_no_other() {
        let (dropped, (sender, receiver)) = (Arc::new(AtomicUsize::new(0)), tokio::sync::oneshot::channel());
        spawn_isolated(Noting(dropped.clone()), async { panic!("this one is meant") });
        spawn_isolated(Noting(dropped.clone()), async {
            tokio::task::yield_now().await;
            sender.send("still here").unwrap();
        });
        assert_eq!(receiver.await, Ok("still here"));
        tokio::task::yield_now().await;
        assert_eq!(dropped.load(Relaxed), 101);
    }
}
