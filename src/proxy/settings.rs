//! What the data plane is told: by the config as a whole, and for each route.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;

use super::reply::Deny;
use super::trailers::TrailerRules;
use super::upstream::{Protocol, Target};
use super::watch::WaitLimits;
use crate::auth::Locksmith;
use crate::auth::address::Networks;
use crate::auth::route::Routes;
use crate::tls;

/// What the data plane is told by the config.
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// The server behind.
    pub upstream: Target,
    /// What is spoken with it.
    pub upstream_protocol: Protocol,
    /// Number of worker threads.
    pub workers: Workers,
    /// The peers whose forwarding headers are believed.
    pub trusted_proxies: Networks,
    /// The peers that begin every connection with a PROXY protocol header, which tells the client's address.
    pub proxy_protocol: Networks,
    /// For HTTPS; `None` where clients speak plain HTTP.
    pub tls: Option<tls::Server>,
    /// Whether clients may speak HTTP/2.
    pub http2: bool,
    /// Under which prefix the management API is answered in place of the upstream.
    pub mount: Option<Box<str>>,
    /// Which requests need what.
    pub routes: Routes,
    /// What else is set for each route, the default route's last.
    pub settings: Vec<RouteSettings>,
    /// How secrets are read and looked up.
    pub locksmith: Arc<Locksmith>,
    /// What the names of identity headers begin with, in lower case and with its final dash: `x-keyward-`.
    pub identity_prefix: String,
    /// Times and sizes.
    pub limits: Limits,
}

/// Worker threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers {
    /// How many.
    pub count: usize,
    /// Whether that is what the machine has room for, and nobody's wish.
    pub is_auto: bool,
}

/// What a route says beyond who may pass.
pub struct RouteSettings {
    /// The pattern of its paths, for traces; the default route has none.
    pub pattern: Option<Arc<str>>,
    /// How its denials are answered.
    pub deny: Deny,
    /// Whether the credential stays in place for the upstream.
    pub forward_credential: bool,
    /// What is told to the upstream in words of its own.
    pub inject: Vec<Inject>,
    /// Which trailers of requests pass; `None` drops them all.
    pub trailers: Option<Arc<TrailerRules>>,
}

/// One thing about the caller, put where the upstream looks for it; what the client sent there goes first (B21).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inject {
    /// Where.
    pub into: InjectInto,
    /// What.
    pub value: IdentityValue,
}

/// Where an upstream looks for something about the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InjectInto {
    /// A header.
    Header(HeaderName),
    /// A query parameter.
    Query(Box<str>),
}

/// What can be told about the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityValue {
    /// The id of its key.
    KeyId,
    /// The name of its key.
    KeyName,
    /// The user that the key was handed to.
    User,
    /// The organization that the key's scope is in.
    Organization,
    /// The key's scope, as its path.
    Scope,
}

/// Times and sizes that bound what a client or the upstream can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For all that comes before the first request: the PROXY protocol's header, the TLS handshake.
    pub handshake_timeout: Duration,
    /// For the client in the middle of a request, to send or to read the next bytes.
    pub body_timeout: Duration,
    /// For a whole request; zero is as long as it takes.
    pub request_timeout: Duration,
    /// For a whole request head, from its first byte.
    pub head_timeout: Duration,
    /// Between two requests of a connection.
    pub idle_timeout: Duration,
    /// For a connection to the upstream.
    pub connect_timeout: Duration,
    /// For the head of the upstream's answer.
    pub response_timeout: Duration,
    /// For the upstream to go on with an answer that has begun; zero is as long as it takes.
    pub response_idle_timeout: Duration,
    /// For a tunnel in which no byte passes.
    pub tunnel_timeout: Duration,
    /// How long an unused connection to the upstream is kept. Shorter than the upstream keeps it, so that it is we who
    /// close: Node's default is 5 s.
    pub upstream_idle_timeout: Duration,
    /// How long requests in flight may go on after SIGTERM.
    pub drain_timeout: Duration,
    /// How long new connections are still taken after SIGTERM, while readiness fails already.
    pub drain_delay: Duration,
    /// Largest request head, in bytes.
    pub max_head_bytes: usize,
    /// Most connections of clients at a time.
    pub max_connections: i64,
    /// Most connections of one peer at a time; 0 is any number.
    pub max_connections_per_peer: usize,
    /// Most requests in progress at a time.
    pub max_requests: i64,
    /// Most header lines of a request, and of an answer where it is more than 100.
    pub max_headers: usize,
}

impl Limits {
    /// How many header lines are taken, if that is more than hyper takes when it is told nothing: telling it costs 14 % of a
    /// request, so it is only for those who need it.
    pub(super) fn more_headers(&self) -> Option<usize> {
        const HYPERS: usize = 100;
        Some(self.max_headers).filter(|count| *count > HYPERS)
    }

    pub(super) fn of_clients(&self) -> WaitLimits {
        let unless_zero = |limit: Duration| if limit.is_zero() { Duration::MAX } else { limit };
        let (idle, head, handshake) = (self.idle_timeout, self.head_timeout, self.handshake_timeout);
        let (pause, request) = (unless_zero(self.response_idle_timeout), unless_zero(self.request_timeout));
        WaitLimits { idle, head, handshake, body: self.body_timeout, pause, request }
    }
}
