//! What a request was, in OpenTelemetry's words: a SERVER span, in it one of the decision and, if the upstream was asked, a
//! CLIENT span. The names of attributes are those of the semantic conventions for HTTP, or else begin with `keyward.`.

use std::time::{Duration, UNIX_EPOCH};

use super::message::{Export, KeyValue, Kind, ResourceMessage, ResourceSpans, Scope, ScopeSpans, Span, Status};
use super::{Asked, Exchange};
use crate::telemetry::metrics::Outcome;

/// Which conventions the names follow.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";
/// In `flags`: the trace is recorded; it is known whether the parent is of another process; it is.
const SAMPLED: u32 = 0x001;
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// What a batch is sent as.
pub(super) fn export(resource: ResourceMessage, batch: &[Exchange]) -> Export {
    let scope = Scope { name: env!("CARGO_PKG_NAME").to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let spans = batch.iter().flat_map(Exchange::spans).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
    let resource_spans = ResourceSpans { resource: Some(resource), scope_spans, schema_url: SCHEMA.to_owned() };
    Export { resource_spans: vec![resource_spans] }
}

impl Exchange {
    /// How many spans it comes to.
    pub(super) fn count(&self) -> u64 {
        2 + u64::from(self.upstream.is_some())
    }

    fn spans(&self) -> impl Iterator<Item = Span> {
        [self.request(), self.decision()].into_iter().chain(self.upstream.as_ref().map(|asked| self.asked(asked)))
    }

    fn request(&self) -> Span {
        let text = KeyValue::text;
        let mut attributes = vec![
            text("http.request.method", &self.method),
            text("url.path", &self.path),
            text("url.scheme", if self.is_secure { "https" } else { "http" }),
            text("network.protocol.version", if self.is_http2 { "2" } else { "1.1" }),
            text("network.peer.address", &self.peer.to_string()),
            text("keyward.request.id", &self.request_id),
            text("keyward.decision", self.outcome.decision().label()),
            text("keyward.reason", self.reason()),
        ];
        attributes.extend(self.route.as_deref().map(|route| text("http.route", route)));
        attributes.extend(self.status.map(|status| KeyValue::number("http.response.status_code", status)));
        attributes.extend(self.client.map(|client| text("client.address", &client.to_string())));
        attributes.extend((!self.key_id.is_empty()).then(|| text("keyward.key.id", &self.key_id)));
        attributes.extend(self.form.map(|form| text("keyward.credential.form", form)));
        let error = self.error();
        attributes.extend(error.as_deref().map(|error| text("error.type", error)));
        let name = self.route.as_deref().map_or(self.method(), |route| format!("{} {route}", self.method()));
        let remote = if self.parent.is_some() { HAS_IS_REMOTE | IS_REMOTE } else { HAS_IS_REMOTE };
        let parent = self.parent.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default();
        let span = self.span(0, Kind::Server, name, Duration::ZERO..self.took, attributes);
        Span { parent_span_id: parent, flags: SAMPLED | remote, ..span.failed(error.is_some()) }
    }

    fn decision(&self) -> Span {
        let (decision, reason) = match self.outcome {
            // That came later.
            Outcome::Failure(_) if self.upstream.is_some() => ("permit", "ok"),
            outcome => (outcome.decision().label(), self.reason()),
        };
        let attributes = vec![KeyValue::text("keyward.decision", decision), KeyValue::text("keyward.reason", reason)];
        self.span(1, Kind::Internal, "authorize".to_owned(), Duration::ZERO..self.decided.min(self.took), attributes)
    }

    fn asked(&self, asked: &Asked) -> Span {
        let text = KeyValue::text;
        let mut attributes = vec![text("http.request.method", &self.method)];
        let address = asked.server.split_once("://").map(|(_, address)| address);
        match address.and_then(|address| address.rsplit_once(':')) {
            Some((host, port)) => {
                attributes.push(text("server.address", host.trim_start_matches('[').trim_end_matches(']')));
                attributes.extend(port.parse().ok().map(|port: u16| KeyValue::number("server.port", port)));
                attributes.push(text("url.full", &format!("{}{}", asked.server, self.path)));
            }
            None => {
                attributes.push(text("server.address", asked.server.trim_start_matches("unix:")));
                attributes.push(text("network.transport", "unix"));
            }
        }
        attributes.extend(asked.status.map(|status| KeyValue::number("http.response.status_code", status)));
        // To a client, an answer that refuses it is an error too.
        let error = match (asked.status, self.outcome) {
            (Some(status @ 400..), _) => Some(status.to_string()),
            (_, Outcome::Failure(failure)) => Some(failure.label().to_owned()),
            (_, Outcome::Permit | Outcome::Public | Outcome::Managed | Outcome::Denial(_)) => None,
        };
        attributes.extend(error.as_deref().map(|error| text("error.type", error)));
        let span = self.span(2, Kind::Client, self.method(), self.decided.min(self.took)..self.took, attributes);
        span.failed(error.is_some())
    }

    /// What went wrong on our side of the client, if anything did.
    fn error(&self) -> Option<String> {
        match (self.outcome, self.status) {
            (Outcome::Failure(failure), Some(500..) | None) => Some(failure.label().to_owned()),
            (_, Some(status @ 500..)) => Some(status.to_string()),
            (_, None) => Some("client_left".to_owned()),
            (_, Some(_)) => None,
        }
    }

    fn reason(&self) -> &'static str {
        self.outcome.reason_of(self.status.unwrap_or_default())
    }

    /// The method in a span's name.
    fn method(&self) -> String {
        if &*self.method == "_OTHER" { "HTTP".to_owned() } else { self.method.clone().into_string() }
    }

    fn span(
        &self,
        place: usize,
        kind: Kind,
        name: String,
        within: std::ops::Range<Duration>,
        attributes: Vec<KeyValue>,
    ) -> Span {
        let began = self.began.duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanos = |after: Duration| u64::try_from((began + after).as_nanos()).unwrap_or(u64::MAX);
        Span {
            trace_id: self.trace.to_be_bytes().to_vec(),
            span_id: self.spans[place].to_be_bytes().to_vec(),
            parent_span_id: self.spans[0].to_be_bytes().to_vec(),
            name,
            kind: kind.into(),
            start_time_unix_nano: nanos(within.start),
            end_time_unix_nano: nanos(within.end),
            attributes,
            status: None,
            flags: SAMPLED | HAS_IS_REMOTE,
        }
    }
}

impl Span {
    fn failed(mut self, failed: bool) -> Self {
        self.status = failed.then_some(Status::ERROR);
        self
    }
}
