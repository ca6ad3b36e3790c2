//! Traces: what became of some requests, sent to an OpenTelemetry collector by OTLP over HTTP (protobuf).
//!
//! A worker that has served a request which is to be seen puts it, as one value, into a bounded queue and goes on; the control
//! thread makes spans of it ([`spans`], [`message`]), and sends them in batches ([`exporter`], [`collector`]). What does not
//! fit into the queue is dropped and counted. The protocol is a handful of messages that do not change (it is stable since
//! 1.0), so they are written down here; the SDK, with queues, threads and samplers of its own, would be ten times that.

mod collector;
mod exporter;
mod message;
mod resource;
mod spans;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};

pub use self::collector::{Endpoint, Headers, Transport};
use self::exporter::Exporter;
pub use self::resource::Resource;
use super::metrics::{Dropped, Metrics, Outcome};

/// How long a stop waits for the collector.
const FLUSH: Duration = Duration::from_secs(3);
/// Bits of randomness in a trace id that services decide by alike (W3C Trace Context, level 2).
const RANDOM_BITS: u32 = 56;

/// Where traces go, and which.
pub struct Config {
    /// Where they go.
    pub endpoint: Endpoint,
    /// What is sent along with each batch.
    pub headers: Headers,
    /// Which requests have one.
    pub sampling: Sampling,
    /// How long the collector may take to answer.
    pub timeout: Duration,
    /// How many requests may wait to be sent.
    pub queue: usize,
    /// What is said of this process.
    pub resource: Resource,
}

/// Which requests have a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Randomness from which on a request has one, of [`RANDOM_BITS`] bits.
    threshold: u64,
    follow: Follow,
}

/// Whose decision whether a trace is recorded counts for its part that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// That of every client.
    All,
    /// That of the proxies whose forwarding headers are believed.
    Trusted,
    /// Nobody's but our own.
    None,
}

impl Sampling {
    /// This share of requests, from 0 to 1, as far as nobody else decides.
    pub fn new(share: f64, follow: Follow) -> Self {
        // The cast saturates; both ends are exact.
        let threshold = ((1.0 - share) * (1_u64 << RANDOM_BITS) as f64) as u64;
        Self { threshold, follow }
    }

    /// Whether a request is recorded. `sampled` is what its caller says, if it does, and `random` are the low bits of
    /// a trace id that was made at random.
    pub fn wants(&self, sampled: Option<bool>, peer_is_trusted: bool, random: u64) -> bool {
        match sampled.filter(|_| self.follows(peer_is_trusted)) {
            Some(sampled) => sampled,
            None => random & ((1 << RANDOM_BITS) - 1) >= self.threshold,
        }
    }

    /// Whether what a caller decided counts.
    pub fn follows(&self, peer_is_trusted: bool) -> bool {
        match self.follow {
            Follow::All => true,
            Follow::Trusted => peer_is_trusted,
            Follow::None => false,
        }
    }
}

/// One request, as it was served. There is no header, no query and no credential in it.
pub struct Exchange {
    /// The trace that it belongs to.
    pub trace: u128,
    /// The caller's span.
    pub parent: Option<u64>,
    /// Our own spans: of the request, of the decision, of what was asked of the upstream.
    pub spans: [u64; 3],
    /// When the request came.
    pub began: SystemTime,
    /// How long the decision took.
    pub decided: Duration,
    /// How long the whole took.
    pub took: Duration,
    /// The method, or `_OTHER`.
    pub method: Box<str>,
    /// The path, without what could be a key.
    pub path: Box<str>,
    /// The pattern of the route, where one matched.
    pub route: Option<Arc<str>>,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: Outcome,
    /// The client, behind trusted proxies.
    pub client: Option<IpAddr>,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// Whether it came by TLS.
    pub is_secure: bool,
    /// Whether it came by HTTP/2.
    pub is_http2: bool,
    /// What the request is called in the log.
    pub request_id: Box<str>,
    /// The key, where it is known.
    pub key_id: Box<str>,
    /// How it was presented.
    pub form: Option<&'static str>,
    /// What was asked of the upstream, if anything.
    pub upstream: Option<Asked>,
}

/// What was asked of the upstream.
pub struct Asked {
    /// Where it is: `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`.
    pub server: Arc<str>,
    /// The status of its answer, if there was one.
    pub status: Option<u16>,
}

/// A worker's end of the queue.
#[derive(Clone)]
pub struct Tracer {
    /// Which requests have a trace.
    pub sampling: Sampling,
    queue: mpsc::Sender<Box<Exchange>>,
    metrics: Arc<Metrics>,
}

impl Tracer {
    /// A request has ended. Never waits.
    pub fn ended(&self, exchange: Box<Exchange>) {
        if let Err(mpsc::error::TrySendError::Full(lost) | mpsc::error::TrySendError::Closed(lost)) =
            self.queue.try_send(exchange)
        {
            self.metrics.traces.dropped(Dropped::QueueFull, lost.count());
        }
    }
}

/// Whoever sends traces: one for each config that was in force, until nobody uses that any more.
#[derive(Clone)]
pub struct Exporters {
    stop: Arc<watch::Sender<bool>>,
    metrics: Arc<Metrics>,
}

impl Exporters {
    /// None yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { stop: Arc::new(watch::Sender::new(false)), metrics }
    }

    /// Starts one, if the config wants traces. Must be called within a runtime, which then sends them.
    pub fn start(&self, config: Option<Config>) -> Option<Tracer> {
        let config = config?;
        let (sampling, metrics) = (config.sampling, self.metrics.clone());
        let (queue, waiting) = mpsc::channel(config.queue);
        tokio::spawn(Exporter::new(config, waiting, metrics.clone(), self.stop.subscribe()).run());
        Some(Tracer { sampling, queue, metrics })
    }

    /// Sends what still waits, as far as the collector takes it in time.
    pub async fn finish(&self) {
        self.stop.send_replace(true);
        // What is not sent by then is lost with the process.
        let _ = tokio::time::timeout(FLUSH, self.stop.closed()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_decide_where_they_are_followed_and_chance_elsewhere() {
        let (low, high) = (0, u64::MAX);
        for (share, follow, sampled, trusted, random, wanted) in [
            (1.0, Follow::All, None, false, low, true),
            (0.0, Follow::All, None, false, high, false),
            (0.5, Follow::All, None, false, 1 << 55, true),
            (0.5, Follow::All, None, false, (1 << 55) - 1, false),
            // What is above the random bits does not count.
            (0.5, Follow::All, None, false, 0xff << 56, false),
            (0.0, Follow::All, Some(true), false, low, true),
            (1.0, Follow::All, Some(false), false, high, false),
            (0.0, Follow::Trusted, Some(true), true, low, true),
            (0.0, Follow::Trusted, Some(true), false, high, false),
            (1.0, Follow::Trusted, Some(false), false, low, true),
            (1.0, Follow::None, Some(false), true, low, true),
            (0.0, Follow::None, Some(true), true, high, false),
        ] {
            let got = Sampling::new(share, follow).wants(sampled, trusted, random);
            assert_eq!(got, wanted, "{share} {follow:?} {sampled:?} {trusted} {random:x}");
        }
    }
}
