//! For kubelet and Prometheus: is it alive, is it ready, what has it counted. No credentials, no secrets.

pub mod probes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use http::StatusCode;
use tokio::sync::Semaphore;

use self::probes::Probes;
use crate::control::{Ask, Page};
use crate::lifecycle::{Lifecycle, Phase};
use crate::replica::{Replica, Status};
use crate::telemetry::DroppedLines;
use crate::telemetry::metrics::{CONTENT_TYPE, Metrics};

/// What the config says of the ops listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What is asked of the server behind.
    pub probes: Option<Arc<Probes>>,
}

/// How many probes of the server behind there are at a time: kubelet's three, twice, and a few by hand.
pub const PROBES: usize = 8;

/// The pages that there always are.
pub const PAGES: [&str; 4] = ["/livez", "/healthz", "/readyz", "/metrics"];

/// What the pages are made of.
pub struct Ops {
    /// Whether it can decide.
    pub replica: Arc<Replica>,
    /// What it has counted.
    pub metrics: Arc<Metrics>,
    /// What could not be logged.
    pub dropped: DroppedLines,
    /// What phase it is in.
    pub lifecycle: Lifecycle,
    /// What is asked of the server behind; it may change.
    pub probes: Arc<ArcSwapOption<Probes>>,
    /// For how many at a time: a server that hangs must not keep kubelet from being heard.
    pub probing: Semaphore,
}

impl Ops {
    /// The page that is asked for.
    pub async fn page(&self, ask: &Ask) -> Page {
        if !ask.only_looks() {
            return Page::not_allowed("GET, HEAD");
        }
        match ask.path.as_str() {
            // A process that can answer lives. Nothing else may make kubelet kill it.
            "/livez" | "/healthz" => Page::text(StatusCode::OK, "ok\n"),
            "/readyz" => self.readiness(ask.query.split('&').any(|p| p == "verbose" || p.starts_with("verbose="))),
            "/metrics" => self.exposition(),
            other => self.probe(other).await,
        }
    }

    async fn probe(&self, name: &str) -> Page {
        let probes = self.probes.load_full();
        let page = match (&probes, self.probing.try_acquire()) {
            (Some(probes), Ok(_place)) => probes.page(name).await,
            (Some(probes), Err(_)) if probes.paths.contains_key(name) => {
                Some(Page::text(StatusCode::SERVICE_UNAVAILABLE, "other probes wait for the server behind\n"))
            }
            (Some(_) | None, _) => None,
        };
        page.unwrap_or_else(|| Page::text(StatusCode::NOT_FOUND, "not found; there are /livez, /readyz and /metrics\n"))
    }

    /// Ready as long as it can decide, and others know of it: a store that is down right now takes no replica out of
    /// rotation.
    fn readiness(&self, verbose: bool) -> Page {
        let node = self.lifecycle.withheld().map(|why| ("node", Some(why.to_owned())));
        let checks = [("lifecycle", self.lifecycle_trouble()), ("replica", self.replica_trouble())];
        let checks: Vec<_> = checks.into_iter().chain(node).collect();
        let ready = checks.iter().all(|(_, trouble)| trouble.is_none());
        let (status, verdict) =
            if ready { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") };
        if ready && !verbose {
            return Page::text(status, verdict);
        }
        let mut body = String::new();
        for (name, trouble) in checks {
            body += &trouble.map_or_else(|| format!("[+]{name} ok\n"), |trouble| format!("[-]{name} {trouble}\n"));
        }
        for (part, trouble) in self.lifecycle.troubles() {
            body += &format!("[!]{part} {trouble}\n");
        }
        Page::text(status, body + verdict)
    }

    fn lifecycle_trouble(&self) -> Option<String> {
        match self.lifecycle.phase() {
            Phase::Starting => Some("starting".to_owned()),
            Phase::Serving => None,
            Phase::Leaving | Phase::Draining => Some("shutting down".to_owned()),
        }
    }

    fn replica_trouble(&self) -> Option<String> {
        match self.replica.status(Instant::now()) {
            Status::Booting => Some("not loaded yet".to_owned()),
            Status::Usable(_) => None,
            Status::Expired(age) => Some(format!("expired: the store was last read {} s ago", age.as_secs())),
        }
    }

    fn exposition(&self) -> Page {
        if let Status::Usable(age) | Status::Expired(age) = self.replica.status(Instant::now()) {
            self.metrics.sync.staleness.set(age.as_secs_f64());
        }
        let dropped = u64::try_from(self.dropped.count()).unwrap_or(u64::MAX);
        self.metrics.log_dropped.inc_by(dropped.saturating_sub(self.metrics.log_dropped.get()));
        match self.metrics.expose() {
            Ok(body) => Page::new(StatusCode::OK, CONTENT_TYPE, body),
            Err(error) => Page::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}
