//! The whole: starts every part, hands each what it needs, and stops them in order. The only module that knows all others.

mod instance;
mod ledger;
mod reload;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinSet};

use self::instance::Instance;
use self::ledger::Ledger;
pub use self::reload::Watched;
use self::reload::{Parts, Reloader, Rereadable};
use crate::admin::api::{Api, Live};
use crate::admin::{self, Admin};
use crate::config::Config;
use crate::control::desk::{Desk, attend};
use crate::control::sent::Coming;
use crate::control::{self, Ask, Page};
use crate::lifecycle::{Lifecycle, Phase, Reloads, stop_signal};
use crate::ops::{self, Ops};
use crate::proxy::{self, Surroundings};
use crate::replica::{Replica, Status};
use crate::store::{AnyStore, StoreError};
use crate::sync::Sync;
use crate::sync::snapshot::Snapshot;
use crate::telemetry::Logs;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Exporters;

/// Why the program cannot start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port is taken, or may not be used.
    #[error("cannot listen on {address} ({option}): {source}")]
    Listen {
        /// Which option names it.
        option: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system refuses a thread, a runtime or a signal.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
    /// A part of the program is no longer there.
    #[error("stopped, because a part of the program ended by itself: {0}")]
    Ended(String),
    /// Two metrics have one name.
    #[error("cannot start: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Serves until SIGTERM or SIGINT, and then until what is in flight has ended. When the files say something else, that is
/// put in force.
///
/// # Errors
/// When it cannot start.
pub fn serve(config: Config, watched: Watched) -> Result<(), Error> {
    let logs = Logs::start(&config.log);
    logs.install(&config.log);
    control_runtime()?.block_on(async { start(config, Some(watched), &logs)?.until_stopped().await })
}

/// The runtime of the control plane: one thread, apart from the workers, so that no scrape or pull delays a request.
///
/// # Errors
/// When the system refuses it.
pub fn control_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// A started program.
pub struct App {
    /// Where clients connect.
    pub proxy: SocketAddr,
    /// Where those who run it look.
    pub admin: Option<SocketAddr>,
    /// Where kubelet and Prometheus look.
    pub ops: Option<SocketAddr>,
    replica: Arc<Replica>,
    lifecycle: Lifecycle,
    data_plane: proxy::Running,
    ledger: Ledger,
    exporters: Exporters,
    /// What never ends: one that does ends the process, since nobody would notice what it no longer does.
    tasks: JoinSet<std::io::Result<()>>,
}

/// Binds every listener first, so that a taken port stops the start, and then starts every part. With `watched`, the config
/// is read again when there is reason to. Must be called within the runtime of the control plane.
///
/// # Errors
/// When a port is taken, the store cannot be opened, or the system refuses something.
pub fn start(config: Config, watched: Option<Watched>, logs: &Logs) -> Result<App, Error> {
    let reread = watched.map(|watched| Rereadable::new(watched, &config)).transpose()?;
    let Config { proxy, admin, ops, sync, store: location, locksmith, traces, log: _, files: _, warnings: _ } = config;
    let proxy_listener = bind("proxy.listen", proxy.listen)?;
    let admin_listener = admin.as_ref().map(|admin| bind("admin.listen", admin.listen)).transpose()?;
    let ops_listener = ops.as_ref().map(|ops| bind("ops.listen", ops.listen)).transpose()?;
    let probes = Arc::new(ArcSwapOption::new(ops.and_then(|ops| ops.probes)));

    // Not made where there is none: a volume that is not mounted would turn every key into an unknown one.
    let store = Arc::new(AnyStore::open(&location, locksmith.pepper.check())?);
    let (metrics, lifecycle) = (Arc::new(Metrics::new()?), Lifecycle::default());
    let (replica, writer) = Replica::new(sync.max_staleness);
    let mut tasks = JoinSet::new();
    let (poll_interval, poll) = watch::channel(sync.poll_interval);
    let needs = ledger::Needs {
        store: store.clone(),
        replica: replica.clone(),
        metrics: metrics.clone(),
        lifecycle: lifecycle.clone(),
        instance: Instance::of(&location, sync.snapshot.as_deref())?,
        node: sync.node,
        snapshot: sync.snapshot.map(|path| Snapshot::new(path, locksmith.clone())),
        proxy: proxy_listener.local_addr()?,
    };
    let sync = Sync::new(store.clone(), writer, poll, metrics.clone(), lifecycle.clone());
    let (applied, ledger) = (sync.applied(), ledger::start(needs, sync, &mut tasks));

    let ops = Ops {
        replica: replica.clone(),
        metrics: metrics.clone(),
        dropped: logs.dropped(),
        lifecycle: lifecycle.clone(),
        probes: probes.clone(),
        probing: Semaphore::new(ops::PROBES),
    };
    let ops = serve_ops(&mut tasks, ops_listener, ops)?;
    let (reloads, asked) = Reloads::new();
    let live = Arc::new(Live::new(locksmith, proxy.trusted_proxies.clone()));
    let api = Api::new(store, live.clone(), (replica.clone(), applied), metrics.clone(), admin);
    let parts = (replica.clone(), metrics.clone(), lifecycle.clone());
    let (admin, desk) = serve_admin(&mut tasks, admin_listener, parts, reread.is_some().then_some(reloads), api)?;

    let (address, workers) = (proxy_listener.local_addr()?, proxy.workers.count);
    let exporters = Exporters::new(metrics.clone());
    let surroundings = Surroundings {
        replica: replica.clone(),
        metrics: metrics.clone(),
        access: logs.access.clone(),
        tracer: exporters.start(traces),
        lifecycle: lifecycle.clone(),
        desk,
    };
    let data_plane = proxy::start(proxy, proxy_listener, surroundings)?;
    if let Some(reread) = reread {
        let (proxy, access, level) = (data_plane.live(), logs.access.clone(), logs.level());
        let (replica, lifecycle, exporters) = (replica.clone(), lifecycle.clone(), exporters.clone());
        let parts =
            Parts { proxy, api: live, probes, replica, poll_interval, access, level, exporters, metrics, lifecycle };
        tasks.spawn(Reloader::new(reread, asked, parts).run());
    }
    lifecycle.enter(Phase::Serving);
    let shown = |address: Option<SocketAddr>| address.map(tracing::field::display);
    tracing::info!(proxy = %address, admin = shown(admin), ops = shown(ops), workers, "serving");
    Ok(App { proxy: address, admin, ops, replica, lifecycle, data_plane, ledger, exporters, tasks })
}

impl App {
    /// Resolves once the replica has been loaded.
    pub async fn loaded(&self) {
        while !matches!(self.replica.status(std::time::Instant::now()), Status::Usable(_)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Serves until SIGTERM or SIGINT, and then until what is in flight has ended, or a second signal comes.
    ///
    /// # Errors
    /// When a part of the program has ended by itself, or it may not listen to signals.
    pub async fn until_stopped(mut self) -> Result<(), Error> {
        let signal = tokio::select! {
            signal = stop_signal() => signal?,
            ended = self.tasks.join_next() => return Err(Error::Ended(explain(ended))),
            () = self.lifecycle.reached(Phase::Draining) => return Err(Error::Ended("the proxy listener".to_owned())),
        };
        tracing::info!(signal, "stopping: requests in flight are finished first");
        tokio::select! {
            () = self.stop() => tracing::info!("stopped"),
            _ = stop_signal() => tracing::warn!("stopped at once: a second signal came"),
        }
        Ok(())
    }

    /// Fails readiness, goes on for the configured delay, finishes what is in flight.
    async fn stop(self) {
        self.lifecycle.enter(Phase::Leaving);
        tokio::time::sleep(self.data_plane.live().drain_delay()).await;
        self.lifecycle.enter(Phase::Draining);
        let Self { data_plane, ledger, exporters, tasks, .. } = self;
        let (joined, done) = tokio::sync::oneshot::channel();
        // Joining threads blocks; the ops listener goes on meanwhile. It is no task of the runtime's, which would wait for
        // its end even when a second signal comes.
        std::thread::spawn(move || {
            data_plane.join();
            // Nobody waits for it any more after a second signal.
            let _ = joined.send(());
        });
        let _ = done.await;
        tokio::join!(ledger.end(tasks), exporters.finish());
    }
}

fn explain(ended: Option<Result<std::io::Result<()>, JoinError>>) -> String {
    match ended {
        Some(Ok(Err(error))) => format!("a listener of the control plane: {error}"),
        Some(Err(error)) => format!("a task of the control plane: {error}"),
        Some(Ok(Ok(()))) | None => "a task of the control plane".to_owned(),
    }
}

fn bind(option: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).map_err(|source| Error::Listen { option, address, source })
}

/// Serves the pages for kubelet and Prometheus.
fn serve_ops(
    tasks: &mut JoinSet<std::io::Result<()>>,
    listener: Option<TcpListener>,
    ops: Ops,
) -> Result<Option<SocketAddr>, Error> {
    let ops = Arc::new(ops);
    serve_pages(tasks, listener, move |ask, _| {
        let ops = ops.clone();
        async move { ops.page(&ask).await }
    })
}

/// Serves the pages and the API for those who run it, on a thread of their own; returns where the data plane hands in what is
/// for the API.
fn serve_admin(
    tasks: &mut JoinSet<std::io::Result<()>>,
    listener: Option<TcpListener>,
    (replica, metrics, lifecycle): (Arc<Replica>, Arc<Metrics>, Lifecycle),
    reloads: Option<Reloads>,
    api: Api,
) -> Result<(Option<SocketAddr>, Option<Desk>), Error> {
    let Some(listener) = listener else { return Ok((None, None)) };
    let (address, follow, sweep) = (listener.local_addr()?, api.follow(), api.sweep());
    let admin = Arc::new(Admin { replica, metrics, lifecycle, reloads, api });
    let page = move |ask| {
        let admin = admin.clone();
        async move { admin.page(ask).await }
    };
    // What is asked here is handed in too: what a client that leaves has begun is done, and what came of it is known.
    let (own_desk, own_questions) = Desk::new(admin::unanswered);
    let (desk, questions) = Desk::new(admin::unanswered);
    let hand_in = move |ask, coming| {
        let desk = own_desk.clone();
        async move { desk.ask(ask, coming).await }
    };
    apart(tasks, "admin", async move {
        tokio::try_join!(
            follow,
            sweep,
            control::serve(listener, hand_in),
            attend(own_questions, page.clone()),
            attend(questions, page),
        )
        .map(drop)
    })?;
    Ok((Some(address), Some(desk)))
}

/// As much as the main thread has. Of what is not used, nothing is taken.
const STACK: usize = 8 * 1024 * 1024;

/// Runs something on a thread with a runtime of its own, so that it holds up nothing else, as long as the tasks run.
fn apart(
    tasks: &mut JoinSet<std::io::Result<()>>,
    name: &str,
    work: impl Future<Output = std::io::Result<()>> + Send + 'static,
) -> std::io::Result<()> {
    let runtime = control_runtime()?;
    let (mut done, ended) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(move || {
        let work = async {
            tokio::select! {
                result = work => Some(result),
                () = done.closed() => None,
            }
        };
        if let Some(result) = runtime.block_on(work) {
            // Whoever waited for it has ended meanwhile.
            let _ = done.send(result);
        }
        // Not for what still blocks: the process ends.
        runtime.shutdown_background();
    })?;
    tasks.spawn(async move { ended.await.unwrap_or_else(|_| Err(std::io::Error::other("a thread ended in a panic"))) });
    Ok(())
}

fn serve_pages<A, F>(
    tasks: &mut JoinSet<std::io::Result<()>>,
    listener: Option<TcpListener>,
    answer: A,
) -> Result<Option<SocketAddr>, Error>
where
    A: Fn(Ask, Coming) -> F + Send + std::marker::Sync + 'static,
    F: Future<Output = Page> + Send + 'static,
{
    let Some(listener) = listener else { return Ok(None) };
    let address = listener.local_addr()?;
    tasks.spawn(control::serve(listener, answer));
    Ok(Some(address))
}
