//! Traces: where they go, and which.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Time, UpstreamTls};

/// Spans of requests, sent to an OpenTelemetry collector by OTLP over HTTP. What the environment says of the service and the
/// Pod (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`) goes with them.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["endpoint"]))]
pub(crate) struct Traces {
    /// The collector: `http://HOST:4318` or `https://HOST:4318`. `/v1/traces` is added to its path where it does not end so.
    #[schemars(example = "http://collector:4318")]
    pub(crate) endpoint: Option<String>,
    /// Who the collector is and who we are, for one by `https:`.
    pub(crate) tls: Option<UpstreamTls>,
    /// Headers for the collector, each with where its value is: `{ Authorization: { file: PATH } }`.
    #[schemars(example = serde_json::json!({ "Authorization": { "file": "token" } }))]
    pub(crate) headers: BTreeMap<String, Source>,
    /// Share of the requests that are recorded, from 0 to 1, as far as no caller decides.
    #[schemars(range(min = 0, max = 1))]
    pub(crate) sample: f64,
    /// Whose decision to record a trace is followed: that of `all` callers, of the `trusted` proxies alone, or of `none`.
    pub(crate) follow: Follow,
    /// How long the collector may take to answer.
    pub(crate) timeout: Time,
    /// Most requests whose spans wait to be sent. Spans of one more are dropped, and counted.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) queue: u64,
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            endpoint: None,
            tls: None,
            headers: BTreeMap::new(),
            sample: 1.0,
            follow: Follow::All,
            timeout: Time::new("10s"),
            queue: 2048,
        }
    }
}

/// Whose decision is followed.
#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Follow {
    /// That of every caller.
    All,
    /// That of `proxy.trusted_proxies`.
    Trusted,
    /// Nobody's but our own.
    None,
}

/// Where a secret is: either a file or an environment variable. It never stands in a config itself.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(crate) struct Source {
    /// A file that holds it.
    pub(crate) file: Option<String>,
    /// The name of an environment variable that holds it.
    pub(crate) env: Option<String>,
}
