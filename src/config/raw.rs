//! The YAML, field for field: its shape, its defaults, and what each option is for. What a value means is decided
//! elsewhere.
//!
//! The doc comments are the descriptions in `keyward schema`. The same schema is what a config is held against
//! ([`super::shape`]), so an editor that knows it marks what the program would refuse.

mod admin;
mod routes;
mod traces;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::admin::{Admin, LeakAction};
pub(crate) use self::routes::{
    Auth, Class, Credentials, DefaultRoute, Deny, DenyFormat, DenySettings, Env, Format, IdentityValue, Inject,
    OneOrMany, Route, RouteCredentials, RouteDeny,
};

pub(crate) use self::traces::{Follow, Source, Traces};

/// Everything that Keyward can be told. Relative paths start at the folder of this file.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Keyward's config", extend("required" = ["version", "keys", "store"]))]
pub(crate) struct File {
    /// The version of this format.
    #[schemars(extend("const" = 1))]
    pub(crate) version: Option<u64>,
    /// The listener for clients, and the upstream behind it. Needed by `keyward serve`.
    pub(crate) proxy: Option<Proxy>,
    /// The forms in which a request may present its key. Exactly one credential counts: two are refused.
    pub(crate) credentials: Credentials,
    /// What keys look like, and the pepper that goes into their digests.
    pub(crate) keys: Option<Keys>,
    /// Where keys and scopes are kept: `sqlite:PATH` for an embedded database, `postgres://USER:PASSWORD@HOST/DATABASE`
    /// for one that many share, or `file:PATH` for a file or a folder of files that something else writes, such as a
    /// mounted Secret.
    #[schemars(example = "sqlite:./keyward.db")]
    pub(crate) store: Option<String>,
    /// How the copy of the store in memory is kept up.
    pub(crate) sync: Sync,
    /// How refused requests are answered, where a route does not say otherwise.
    pub(crate) deny: Deny,
    /// Rules for some requests; the first that matches counts.
    pub(crate) routes: Vec<Route>,
    /// What holds for requests that match no route, and for paths that servers read differently. Routes inherit nothing
    /// from it.
    pub(crate) default_route: DefaultRoute,
    /// The headers that tell the upstream who is calling.
    pub(crate) identity_headers: IdentityHeaders,
    /// The management API and web page. Without this section it is not started.
    pub(crate) admin: Option<Admin>,
    /// `/livez`, `/readyz` and `/metrics`, without credentials. Without this section it is not started.
    pub(crate) ops: Option<Ops>,
    /// What is logged, and how.
    pub(crate) log: Log,
    /// Spans of requests, sent to an OpenTelemetry collector. Without this section there are none.
    pub(crate) traces: Option<Traces>,
}

/// The listener for clients, and the upstream behind it.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["upstream"]))]
pub(crate) struct Proxy {
    /// The address and port that clients connect to.
    pub(crate) listen: String,
    /// The server behind: `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`.
    #[schemars(example = "http://127.0.0.1:9000")]
    pub(crate) upstream: Option<String>,
    /// What is spoken with the upstream. `http2` must be known to work: in the clear nobody is asked.
    pub(crate) upstream_protocol: UpstreamProtocol,
    /// Who the upstream is and who we are, for an upstream by `https:`. The files are read again when they change.
    pub(crate) upstream_tls: Option<UpstreamTls>,
    /// Number of worker threads, or `auto`: as many as there are CPUs, or as the cgroup's quota allows, rounded up.
    pub(crate) workers: Workers,
    /// Addresses and networks of the proxies in front, whose `Forwarded` and `X-Forwarded-For` headers are believed.
    pub(crate) trusted_proxies: Vec<String>,
    /// Addresses and networks of the balancers in front that begin every connection with a PROXY protocol header. The address
    /// in it takes the place of theirs; a connection of theirs without one is closed.
    pub(crate) proxy_protocol: Vec<String>,
    /// HTTPS: then clients speak TLS on this port. Without this section they speak plain HTTP.
    pub(crate) tls: Option<Tls>,
    /// Whether clients may speak HTTP/2: agreed on in TLS, or in the clear by those that know.
    pub(crate) http2: bool,
    /// What is done about paths that servers read differently, such as `/a/../b` or `/a%2fb`.
    pub(crate) paths: Paths,
    /// How long things may take. Each is a number with a unit: `500ms`, `10s`, `5m`, `1h`.
    pub(crate) timeouts: Timeouts,
    /// Largest request head, in bytes or as in `32KiB`: request line and headers together.
    pub(crate) max_head: Size,
    /// Most header lines in a request.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) max_headers: u64,
    /// Most connections of clients at a time, or `auto`: half of the files that the process may open. One more gets 503.
    pub(crate) max_connections: MaxConnections,
    /// Most connections of one peer at a time, which for IPv6 is a network of 64 bits. `0` is any number.
    #[schemars(range(max = 1_000_000_000))]
    pub(crate) max_connections_per_peer: u64,
    /// Most requests in progress at a time. One more gets 503.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(crate) max_requests: u64,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:8080".to_owned(),
            upstream: None,
            upstream_protocol: UpstreamProtocol::Http1,
            upstream_tls: None,
            workers: Workers::Word(AutoWord::Auto),
            trusted_proxies: Vec::new(),
            proxy_protocol: Vec::new(),
            tls: None,
            http2: true,
            paths: Paths::Strict,
            timeouts: Timeouts::default(),
            max_head: Size::Text("32KiB".to_owned()),
            max_headers: 100,
            max_connections: MaxConnections::Word(AutoWord::Auto),
            max_connections_per_peer: 0,
            max_requests: 10_000,
        }
    }
}

/// HTTPS. The files are read again when they change; connections that are open go on.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["certificate", "key"]))]
pub(crate) struct Tls {
    /// A PEM file with the certificate, and behind it those between it and its root.
    #[schemars(example = &"tls.crt")]
    pub(crate) certificate: Option<String>,
    /// A PEM file with the certificate's private key, not encrypted.
    #[schemars(example = &"tls.key")]
    pub(crate) key: Option<String>,
    /// A PEM file with the roots of clients' certificates. Without it clients are asked for none.
    pub(crate) client_ca: Option<String>,
    /// Whether every client must have a certificate, or only those that have one must have a good one. Default: `required`.
    pub(crate) client_auth: Option<ClientAuth>,
}

/// What is spoken with the upstream.
#[derive(Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum UpstreamProtocol {
    /// HTTP/1.1, which every server speaks.
    Http1,
    /// HTTP/2, which gRPC needs.
    Http2,
}

/// Who the upstream is and who we are, for an upstream by `https:`.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UpstreamTls {
    /// A PEM file with the roots of the upstream's certificate. Without it, those that this machine believes.
    #[schemars(example = &"upstream-ca.crt")]
    pub(crate) ca: Option<String>,
    /// A PEM file with our own certificate, for upstreams that ask for one.
    pub(crate) certificate: Option<String>,
    /// A PEM file with its private key, not encrypted.
    pub(crate) key: Option<String>,
    /// Whom the upstream's certificate must be for, where that is not the host in `upstream`.
    pub(crate) server_name: Option<String>,
}

/// Whether clients must have a certificate.
#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ClientAuth {
    /// All must.
    Required,
    /// Those that have one must have a good one.
    Optional,
}

/// A number of threads, or as many as there are CPUs for.
#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum Workers {
    /// As many as there are CPUs for.
    Word(AutoWord),
    /// This many.
    Number(#[schemars(range(min = 1, max = 1024))] u64),
}

/// A number of connections, or as many as there are files for.
#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum MaxConnections {
    /// As many as there are files for.
    Word(AutoWord),
    /// This many.
    Number(#[schemars(range(min = 1, max = 1_000_000_000))] u64),
}

/// The word for "as fits this machine".
#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(crate) enum AutoWord {
    /// As many as there are CPUs for.
    Auto,
}

/// What is done about ambiguous paths.
#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Paths {
    /// They are refused with 400.
    Strict,
    /// They pass with a read-write key that is not bound to a scope; routes are not looked at.
    Lenient,
}

/// A duration.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline, title = Time::TITLE)]
pub(crate) struct Time(pub(crate) String);

impl Time {
    /// What a time is, in words.
    pub(crate) const TITLE: &str = "a time such as 500ms, 10s or 1h";

    fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// A number of bytes.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline, title = "a number of bytes or a size such as 32KiB")]
pub(crate) enum Size {
    /// As a number.
    Bytes(u64),
    /// With a unit.
    Text(String),
}

/// How long things may take.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Timeouts {
    /// For all that comes before the first request of a connection: the PROXY protocol's header, the TLS handshake.
    pub(crate) handshake: Time,
    /// For a whole request head, from its first byte.
    pub(crate) head: Time,
    /// For the client in the middle of a request, to send the next bytes of its body or to read on in its answer.
    pub(crate) body: Time,
    /// For a whole request, to the end of its answer. `0s` is as long as it takes.
    pub(crate) request: Time,
    /// Between two requests of a connection.
    pub(crate) idle: Time,
    /// For a connection to the upstream.
    pub(crate) connect: Time,
    /// For the head of the upstream's answer.
    pub(crate) response: Time,
    /// For the upstream to go on with an answer that has begun, which is then cut off. `0s` is as long as it takes.
    pub(crate) response_idle: Time,
    /// For a WebSocket in which no byte passes.
    pub(crate) tunnel: Time,
    /// How long an unused connection to the upstream is kept. It should be shorter than the upstream keeps it.
    pub(crate) upstream_idle: Time,
    /// How long new connections are still taken after SIGTERM, while `/readyz` already fails. `0s` is allowed.
    pub(crate) drain_delay: Time,
    /// How long requests in flight may go on after that. `0s` is allowed.
    pub(crate) drain: Time,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Time::new("10s"),
            head: Time::new("10s"),
            body: Time::new("60s"),
            request: Time::new("0s"),
            idle: Time::new("75s"),
            connect: Time::new("2s"),
            response: Time::new("60s"),
            response_idle: Time::new("0s"),
            tunnel: Time::new("1h"),
            upstream_idle: Time::new("4s"),
            drain_delay: Time::new("0s"),
            drain: Time::new("25s"),
        }
    }
}

/// What keys look like, and the pepper that goes into their digests.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["pepper"]))]
pub(crate) struct Keys {
    /// What new keys begin with: `kw` makes `kw_live_…` and `kw_test_…`. A lower-case letter, then 1 to 11 lower-case
    /// letters or digits.
    pub(crate) brand: String,
    /// Where the pepper is: 64 hex digits that are never kept in the store. Without it, a stolen store is useless.
    #[schemars(example = PepperExample { file: "./keyward.pepper" })]
    pub(crate) pepper: Option<Pepper>,
    /// What keys of other systems look like, so that they can be imported and all else is still refused at sight.
    pub(crate) shapes: Vec<Shape>,
}

impl Default for Keys {
    fn default() -> Self {
        Self { brand: "kw".to_owned(), pepper: None, shapes: Vec::new() }
    }
}

#[derive(Serialize)]
struct PepperExample {
    file: &'static str,
}

/// Where the pepper is: either a file or an environment variable. The pepper itself never stands in a config.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(crate) struct Pepper {
    /// A file that holds it.
    pub(crate) file: Option<String>,
    /// The name of an environment variable that holds it.
    pub(crate) env: Option<String>,
}

/// What the keys of another system look like.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "length", "alphabet"]))]
pub(crate) struct Shape {
    /// What people call it: letters, digits, dots, dashes and underscores.
    #[schemars(example = &"cablecast")]
    pub(crate) name: Option<String>,
    /// Exact number of characters.
    #[schemars(range(min = 8, max = 128), example = 20)]
    pub(crate) length: Option<u64>,
    /// The characters they are made of.
    #[schemars(example = &"hex")]
    pub(crate) alphabet: Option<Alphabet>,
}

/// The characters of a key.
#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Alphabet {
    /// `0-9`, `a-f` and `A-F`.
    Hex,
    /// `0-9`, `A-Z` and `a-z`.
    Base62,
    /// `0-9`, `A-Z`, `a-z`, `-` and `_`.
    Base64url,
}

/// How the copy of the store in memory is kept up.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sync {
    /// How often the store is asked for news when it gives no sign. Default: `250ms` for `sqlite:`, `1s` for `postgres:`, `10s` for `file:`.
    pub(crate) poll: Option<Time>,
    /// How old the last news may be, when the store cannot be reached, before every request is answered with 503.
    pub(crate) max_staleness: Time,
    /// What this process is called among those that follow the store: no two that run at once have the same name. Default: the name of the machine and the port of `proxy.listen`.
    pub(crate) node: Option<String>,
    /// A file in which what the store has is kept, so that a start while it is away knows what was known before. Default: none.
    pub(crate) snapshot: Option<String>,
}

impl Default for Sync {
    fn default() -> Self {
        Self { poll: None, max_staleness: Time::new("1h"), node: None, snapshot: None }
    }
}

/// The headers that tell the upstream who is calling.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct IdentityHeaders {
    /// What their names begin with, up to the last dash. Such headers are always removed from what clients send.
    pub(crate) prefix: String,
}

impl Default for IdentityHeaders {
    fn default() -> Self {
        Self { prefix: "X-Keyward-".to_owned() }
    }
}

/// Health and metrics.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ops {
    /// The address and port of health and metrics.
    pub(crate) listen: String,
    /// Paths of this listener that are asked of the upstream, without a key, by the path there; only the status is passed
    /// on. The upstream must be on this machine.
    #[schemars(example = serde_json::json!({ "/startup": "/health" }))]
    pub(crate) probes: BTreeMap<String, String>,
}

impl Default for Ops {
    fn default() -> Self {
        Self { listen: "0.0.0.0:9464".to_owned(), probes: BTreeMap::new() }
    }
}

/// What is logged, and how.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    /// The form of the lines.
    pub(crate) format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace` or `off`, or several with their parts: `info,keyward::sync=debug`.
    pub(crate) level: String,
    /// Which requests have a line.
    pub(crate) access: Access,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".to_owned(), access: Access::Denied }
    }
}

/// The form of log lines.
#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// A JSON object a line.
    Json,
    /// Text for people.
    Text,
}

/// Which requests have a line in the log.
#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Access {
    /// None.
    None,
    /// Refused ones, and those that failed.
    Denied,
    /// All.
    All,
}
