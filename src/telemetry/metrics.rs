//! Every metric, in one struct. Labels are closed enums and every series exists from the start, so that `rate()` sees the
//! first event. No key, path or address is ever a label.

mod admin;
mod config;
mod labels;
mod ledger;
mod traces;

use std::time::Duration;

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

pub use self::admin::AdminMetrics;
pub use self::config::ConfigMetrics;
pub use self::labels::{Decision, Failure, Outcome, Refused};
pub use self::ledger::LedgerMetrics;
pub use self::traces::{Dropped, TraceMetrics};
use super::histogram::DurationHistogram;
use crate::auth::decision::Denial;

/// The Content-Type of an exposition; Prometheus 3 refuses a scrape with any other spelling.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The limits on a request in progress, as labels.
const CLIENT_LIMITS: [&str; 2] = ["body", "request"];

/// Metrics of the data plane: handles are looked up once, not per request.
pub struct ProxyMetrics {
    requests: Vec<IntCounter>,
    request_duration: DurationHistogram,
    auth_duration: DurationHistogram,
    upstream_duration: DurationHistogram,
    upstream_errors: IntCounterVec,
    streams_ended: IntCounterVec,
    /// Requests being served.
    pub in_flight: IntGauge,
    /// Open connections of clients.
    pub connections_open: IntGauge,
    /// Open WebSockets.
    pub tunnels_open: IntGauge,
    /// Connections accepted.
    pub connections: IntCounter,
    connections_refused: IntCounterVec,
    client_timeouts: IntCounterVec,
    /// When the certificate for clients expires; 0 without one.
    pub certificate_expiry: Gauge,
    /// Panics that took a connection down.
    pub panics: IntCounter,
}

/// Classes of status codes; a WebSocket ends with its 101.
const CODES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl ProxyMetrics {
    /// A request has ended.
    pub fn request(&self, outcome: Outcome, status: u16, took: Duration) {
        let class = usize::from(status / 100).saturating_sub(1).min(CODES.len() - 1);
        self.requests[outcome.place() * CODES.len() + class].inc();
        self.request_duration.series(outcome.decision() as usize).observe(took);
    }

    /// A decision has been made.
    pub fn decision(&self, decision: Decision, took: Duration) {
        self.auth_duration.series(decision as usize).observe(took);
    }

    /// The head of the upstream's answer has come.
    pub fn upstream_answered(&self, took: Duration) {
        self.upstream_duration.series(0).observe(took);
    }

    /// A connection is closed before its first request.
    pub fn refused(&self, why: Refused) {
        self.connections_refused.with_label_values(&[why.label()]).inc();
    }

    /// What was permitted has been ended for this.
    pub fn stream_ended(&self, denial: Denial) {
        self.streams_ended.with_label_values(&[denial.label()]).inc();
    }

    /// A request is ended in the middle: as a whole it took too long, or else the client did to send or to read.
    pub fn client_late(&self, as_a_whole: bool) {
        self.client_timeouts.with_label_values(&[CLIENT_LIMITS[usize::from(as_a_whole)]]).inc();
    }

    /// A request failed; if it was the upstream's doing, it counts there too.
    pub fn upstream_error(&self, failure: Failure) {
        if Failure::UPSTREAM.contains(&failure) {
            self.upstream_errors.with_label_values(&[failure.label()]).inc();
        }
    }
}

/// Metrics of the replica and the store.
pub struct SyncMetrics {
    /// Whether the last pull succeeded.
    pub store_up: IntGauge,
    /// Pulls that brought nothing, a delta, everything, or failed.
    pub pulls: IntCounterVec,
    /// Hints that the store may have moved on.
    pub hints: IntCounter,
    /// Full pulls after the first one: the store did not know the revision that was followed. Usual for a file that was
    /// edited; for a database it means a restored backup.
    pub resyncs: IntCounter,
    /// Whether the store's keys were made with another pepper.
    pub pepper_mismatch: IntGauge,
    /// Records in use.
    pub records: IntGaugeVec,
    /// Records that this version cannot read.
    pub unreadable: IntCounter,
    /// The number of the revision that has been applied.
    pub revision: IntGauge,
    /// When the last successful pull began.
    pub last_pull: Gauge,
    /// The age of the last successful pull.
    pub staleness: Gauge,
}

/// The results of pulls, as labels.
pub const PULL_RESULTS: [&str; 4] = ["unchanged", "delta", "full", "failed"];

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    /// Of the data plane.
    pub proxy: ProxyMetrics,
    /// Of the replica and the store.
    pub sync: SyncMetrics,
    /// Of what is kept beside the records.
    pub ledger: LedgerMetrics,
    /// Of the config.
    pub config: ConfigMetrics,
    /// Of the management API.
    pub admin: AdminMetrics,
    /// Of traces.
    pub traces: TraceMetrics,
    /// Log lines that were dropped because the queue was full.
    pub log_dropped: IntCounter,
}

impl Metrics {
    /// Makes and registers all of them.
    ///
    /// # Errors
    /// When two have the same name.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let metrics = Self {
            proxy: proxy_metrics(&registry)?,
            sync: sync_metrics(&registry)?,
            ledger: LedgerMetrics::new(&registry)?,
            config: ConfigMetrics::new(&registry)?,
            admin: AdminMetrics::new(&registry)?,
            traces: TraceMetrics::new(&registry)?,
            log_dropped: counter(
                &registry,
                "keyward_log_dropped_total",
                "Log lines dropped because the queue was full",
            )?,
            registry,
        };
        let build = GaugeVec::new(Opts::new("keyward_build_info", "Always 1; the version is a label"), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        metrics.registry.register(Box::new(build))?;
        metrics.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// The exposition in the text format.
    ///
    /// # Errors
    /// When a metric cannot be written as text.
    pub fn expose(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

fn proxy_metrics(registry: &Registry) -> prometheus::Result<ProxyMetrics> {
    Ok(ProxyMetrics {
        requests: requests(registry)?,
        request_duration: by_decision(
            registry,
            "keyward_request_duration_seconds",
            "Whole requests, to the end of the answer",
            SLOW,
        )?,
        auth_duration: by_decision(
            registry,
            "keyward_auth_duration_seconds",
            "From a request's head to the decision",
            FAST,
        )?,
        upstream_duration: histogram(
            registry,
            "keyward_upstream_request_duration_seconds",
            "From forwarding a request to the head of the upstream's answer",
        )?,
        upstream_errors: counters(
            registry,
            ("keyward_upstream_errors_total", "Requests that the upstream failed, by kind"),
            "kind",
            Failure::UPSTREAM.map(Failure::label),
        )?,
        streams_ended: counters(
            registry,
            ("keyward_streams_ended_total", "Requests ended because their key was no longer good"),
            "reason",
            WITHDRAWN.map(Denial::label),
        )?,
        in_flight: gauge(registry, "keyward_requests_in_flight", "Requests being served")?,
        connections_open: gauge(registry, "keyward_connections_open", "Open connections of clients")?,
        tunnels_open: gauge(registry, "keyward_tunnels_open", "Open WebSockets")?,
        connections: counter(registry, "keyward_connections_total", "Connections accepted")?,
        connections_refused: counters(
            registry,
            ("keyward_connections_refused_total", "Connections closed before their first request, by reason"),
            "reason",
            Refused::LABELS,
        )?,
        client_timeouts: counters(
            registry,
            ("keyward_client_timeouts_total", "Requests ended in the middle because they took too long, by limit"),
            "limit",
            CLIENT_LIMITS,
        )?,
        certificate_expiry: float(
            registry,
            "keyward_tls_certificate_expiry_timestamp_seconds",
            "When the certificate for clients expires; 0 without one",
        )?,
        panics: counter(registry, "keyward_panics_total", "Panics, each of which closed one connection")?,
    })
}

/// Why what was permitted may be ended.
const WITHDRAWN: [Denial; 10] = [
    Denial::RevokedCredential,
    Denial::DisabledCredential,
    Denial::ExpiredCredential,
    Denial::SuspendedScope,
    Denial::SuspendedUser,
    Denial::DeadParent,
    Denial::OutsideScope,
    Denial::WrongEnvironment,
    Denial::NoApiAccess,
    Denial::UnknownCredential,
];

/// One counter for each way in which a request can end.
fn requests(registry: &Registry) -> prometheus::Result<Vec<IntCounter>> {
    let requests = IntCounterVec::new(
        Opts::new("keyward_requests_total", "Requests by decision, reason and class of the status"),
        &["decision", "reason", "code"],
    )?;
    registry.register(Box::new(requests.clone()))?;
    let series =
        Outcome::all().flat_map(|outcome| CODES.map(|code| [outcome.decision().label(), outcome.reason(), code]));
    let requests: Vec<IntCounter> = series.map(|labels| requests.with_label_values(&labels)).collect();
    debug_assert_eq!(requests.len(), Outcome::COUNT * CODES.len());
    Ok(requests)
}

/// Counters of one name, each of which is there from the start.
fn counters<const N: usize>(
    registry: &Registry,
    (name, help): (&str, &str),
    label: &str,
    values: [&str; N],
) -> prometheus::Result<IntCounterVec> {
    let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
    registry.register(Box::new(counters.clone()))?;
    values.iter().for_each(|value| counters.with_label_values(&[value]).reset());
    Ok(counters)
}

fn sync_metrics(registry: &Registry) -> prometheus::Result<SyncMetrics> {
    let pulls = IntCounterVec::new(Opts::new("keyward_pulls_total", "Pulls from the store by result"), &["result"])?;
    let records = IntGaugeVec::new(Opts::new("keyward_replica_records", "Records in use by kind"), &["kind"])?;
    registry.register(Box::new(pulls.clone()))?;
    registry.register(Box::new(records.clone()))?;
    PULL_RESULTS.iter().for_each(|result| pulls.with_label_values(&[result]).reset());
    ["scope", "user", "key", "secret"].iter().for_each(|kind| records.with_label_values(&[kind]).set(0));
    Ok(SyncMetrics {
        pulls,
        records,
        store_up: gauge(registry, "keyward_store_up", "Whether the last pull succeeded")?,
        hints: counter(registry, "keyward_hints_total", "Hints that the store may have moved on")?,
        resyncs: counter(
            registry,
            "keyward_resyncs_total",
            "Full pulls after the first: the store did not know the revision that was followed",
        )?,
        pepper_mismatch: gauge(
            registry,
            "keyward_pepper_mismatch",
            "Whether the store's keys were made with another pepper",
        )?,
        unreadable: counter(
            registry,
            "keyward_records_unreadable_total",
            "Records that this version cannot read; they grant nothing",
        )?,
        revision: gauge(registry, "keyward_replica_revision", "Number of the revision that has been applied")?,
        last_pull: float(registry, "keyward_store_last_pull_timestamp_seconds", "When the last successful pull began")?,
        staleness: float(registry, "keyward_replica_staleness_seconds", "Age of the last successful pull")?,
    })
}

/// Buckets for what we do ourselves, in nanoseconds: 25 µs to 1 s.
const FAST: &[u64] = &[
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    100_000_000,
    1_000_000_000,
];
/// Buckets for what the upstream has a part in, in nanoseconds: 250 µs to 60 s.
const SLOW: &[u64] = &[
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

fn by_decision(
    registry: &Registry,
    name: &str,
    help: &str,
    bounds: &'static [u64],
) -> prometheus::Result<DurationHistogram> {
    let histogram = DurationHistogram::new(name, help, "decision", &Decision::LABELS, bounds)?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}

fn histogram(registry: &Registry, name: &str, help: &str) -> prometheus::Result<DurationHistogram> {
    let histogram = DurationHistogram::new(name, help, "", &[], SLOW)?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}

fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    let gauge = IntGauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn float(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Gauge> {
    let gauge = Gauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_before_the_first_event() {
        let text = Metrics::new().unwrap().expose().unwrap();
        for outcome in Outcome::all() {
            for code in CODES {
                let labels = format!(
                    "code=\"{code}\",decision=\"{}\",reason=\"{}\"",
                    outcome.decision().label(),
                    outcome.reason()
                );
                assert!(text.contains(&format!("keyward_requests_total{{{labels}}} 0\n")), "{labels}");
            }
        }
        for line in [
            "keyward_auth_duration_seconds_bucket{decision=\"denial\",le=\"0.000025\"} 0",
            "keyward_pulls_total{result=\"failed\"} 0",
            "keyward_config_last_reload_successful 1",
            "keyward_config_reloads_total{result=\"failure\"} 0",
        ] {
            assert!(text.contains(line), "{line}");
        }
    }

    #[test]
    fn each_outcome_counts_in_a_place_of_its_own() {
        let metrics = Metrics::new().unwrap();
        for (n, outcome) in Outcome::all().enumerate() {
            assert_eq!(outcome.place(), n);
            metrics.proxy.request(outcome, 200, Duration::ZERO);
        }
        metrics.proxy.request(Outcome::Permit, 304, Duration::ZERO);
        metrics.proxy.request(Outcome::Permit, 599, Duration::ZERO);
        metrics.proxy.upstream_error(Failure::Timeout);
        let text = metrics.expose().unwrap();
        let mut series = text.lines().filter(|line| line.starts_with("keyward_requests_total{code=\"2xx\""));
        assert!(series.all(|line| line.ends_with("} 1")));
        for line in [
            "keyward_requests_total{code=\"3xx\",decision=\"permit\",reason=\"ok\"} 1",
            "keyward_requests_total{code=\"5xx\",decision=\"permit\",reason=\"ok\"} 1",
            "keyward_upstream_errors_total{kind=\"upstream_timeout\"} 1",
        ] {
            assert!(text.contains(line), "{line}");
        }
    }
}
