//! What is remembered of a request until it has ended, and then counted and logged: no I/O, no waiting.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::header::HeaderValue;
use http::{Method, Request, Uri};
use hyper::body::Incoming;

use super::forward::{Origin, Outbound};
use super::request_id::RequestId;
use super::trace::{Onward, Trace};
use super::watch::{Doing, Late, Watch};
use super::{Refusal, Session, Shared};
use crate::auth::credential::Form;
use crate::auth::decision::{Denial, Permit};
use crate::replica::View;
use crate::telemetry::access_log::{Entry, began};
use crate::telemetry::metrics::{Failure, Outcome};
use crate::telemetry::traces::{Asked, Exchange};

/// nginx's number for a client that left before there was an answer.
const CLIENT_LEFT: u16 = 499;
/// How much of a path a span has, in bytes.
const LONGEST_PATH: usize = 1024;

/// One request. Dropping it, however the request ended, settles it.
pub(super) struct Account {
    pub(super) session: Arc<Session>,
    /// The notes of its stream; without one, those of the connection are its own.
    stream: Option<Arc<Watch>>,
    is_head: bool,
    started: Instant,
    /// When the decision was made; a denial has ended by then.
    decided: Duration,
    outcome: Outcome,
    status: u16,
    line: Option<Box<Line>>,
}

/// What only a line in the log needs.
pub(super) struct Line {
    id: HeaderValue,
    method: Method,
    uri: Uri,
    client: Option<IpAddr>,
    key_id: String,
    form: Option<Form>,
    /// Where spans of it are sent.
    trace: Option<Box<Trace>>,
}

impl Line {
    pub(super) fn new(id: HeaderValue, method: Method, uri: Uri, trace: Option<Box<Trace>>) -> Self {
        Self { id, method, uri, client: None, key_id: String::new(), form: None, trace }
    }

    fn note(&mut self, decision: &Result<Permit, Refusal>, client: Option<IpAddr>, route: usize, view: &View) {
        let (key, form) = match decision {
            Ok(permit) => (permit.grant().map(|grant| grant.key), permit.form()),
            Err(refusal) => (refusal.key, None),
        };
        self.client = client;
        self.form = form;
        self.key_id = key.map(|key| view.names(key).id.to_owned()).unwrap_or_default();
        if let Some(trace) = &mut self.trace {
            trace.route = Some(route);
        }
    }
}

impl Account {
    pub(super) fn open(
        session: Arc<Session>,
        stream: Option<Arc<Watch>>,
        is_head: bool,
        line: Option<Box<Line>>,
    ) -> Self {
        session.watch.begin();
        session.shared.metrics.proxy.in_flight.inc();
        let outcome = Outcome::Failure(Failure::BadRequest);
        let (started, decided) = (Instant::now(), Duration::ZERO);
        Self { session, stream, is_head, started, decided, outcome, status: CLIENT_LEFT, line }
    }

    /// Where it is noted whom the request waits for.
    pub(super) fn watch(&self) -> &Arc<Watch> {
        self.stream.as_ref().unwrap_or(&self.session.watch)
    }

    /// Whether the client speaks HTTP/2.
    pub(super) fn is_of_http2(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether nothing may follow the head of its answer. HTTP/1 sees to that by itself; in HTTP/2, hyper sends what there is.
    pub(super) fn ends_with_head(&self) -> bool {
        self.is_head && self.is_of_http2()
    }

    /// When the request's head had been read.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// The decision has been made.
    pub(super) fn decided(
        &mut self,
        decision: &Result<Permit, Refusal>,
        client: Option<IpAddr>,
        route: usize,
        view: &View,
    ) {
        self.outcome = match decision {
            Ok(permit) if permit.grant().is_some() => Outcome::Permit,
            Ok(_) => Outcome::Public,
            Err(refusal) => refusal.answer.outcome(),
        };
        self.decided = self.started.elapsed();
        self.session.shared.metrics.proxy.decision(self.outcome.decision(), self.decided);
        if self.session.peer_is_trusted {
            self.watch().speaks_for(client);
        }
        self.watch().hold(decision.as_ref().ok().and_then(Permit::digest));
        if let Some(line) = &mut self.line {
            line.note(decision, client, route, view);
        }
    }

    /// It is for the management API.
    pub(super) fn managed(&mut self, client: Option<IpAddr>) {
        self.outcome = Outcome::Managed;
        self.decided = self.started.elapsed();
        self.session.shared.metrics.proxy.decision(self.outcome.decision(), self.decided);
        if self.session.peer_is_trusted {
            self.watch().speaks_for(client);
        }
        if let Some(line) = &mut self.line {
            line.client = client;
        }
    }

    /// The management API knows whose key it came with.
    pub(super) fn asked_with(&mut self, key: String) {
        if let Some(line) = &mut self.line {
            line.key_id = key;
        }
    }

    /// The request as it is sent.
    pub(super) fn outbound(
        &mut self,
        request: Request<Incoming>,
        permit: Permit,
        route: usize,
        client: Option<IpAddr>,
        id: &RequestId,
        view: &View,
    ) -> Result<Outbound, Failure> {
        let Session { shared, peer_value: peer, peer_is_trusted, is_secure, .. } = &*self.session;
        let trace = self.line.as_mut().and_then(|line| line.trace.as_mut());
        let onward = match trace {
            Some(trace) => {
                trace.asks = true;
                Onward::Recorded(trace)
            }
            None if shared.tracer.is_some() => Onward::Unrecorded,
            None => Onward::Passed,
        };
        let (is_secure, default_host) = (*is_secure, &shared.default_host);
        let trusted = peer_is_trusted.then_some(&shared.trusted);
        let origin = Origin { peer, trusted, is_secure, client, id, onward, default_host };
        Outbound::new(request, permit, &shared.settings[route], &shared.identity, view, &origin)
    }

    /// The upstream has begun to answer.
    pub(super) fn upstream_answered(&mut self, status: u16) {
        self.status = status;
        if let Some(trace) = self.line.as_mut().and_then(|line| line.trace.as_mut()) {
            trace.answer = Some(status);
        }
        self.session.shared.metrics.proxy.upstream_answered(self.started.elapsed().saturating_sub(self.decided));
    }

    /// Something went wrong after the decision.
    pub(super) fn failed(&mut self, failure: Failure) {
        self.outcome = Outcome::Failure(failure);
        self.session.shared.metrics.proxy.upstream_error(failure);
    }

    /// It was cut off: it took too long, or longer than the drain. What we have refused ourselves was refused for another reason.
    fn cut_off(&mut self, late: Option<Late>) {
        if matches!(self.outcome, Outcome::Permit | Outcome::Public | Outcome::Managed) {
            self.outcome = Outcome::Failure(match late {
                Some(Late::Body) => Failure::ClientTimeout,
                Some(Late::Request) => Failure::RequestTimeout,
                Some(Late::Answer) => Failure::Timeout,
                None => Failure::Stopping,
            });
        }
    }

    /// What was permitted no longer is, and ends.
    pub(super) fn withdrawn(&mut self, denial: Denial) {
        (self.outcome, self.decided) = (Outcome::Denial(denial), self.started.elapsed());
        self.session.shared.metrics.proxy.stream_ended(denial);
    }

    /// The client is being answered by us, and has to read that in time.
    pub(super) fn answered(&mut self, status: u16) {
        self.status = status;
        self.watch().enter(Doing::Body);
    }
}

impl Account {
    /// Tells those who want to know what became of it.
    fn tell(&self, line: Line, took: Duration) {
        let Shared { access, tracer, locksmith, .. } = &*self.session.shared;
        let is_logged = access.wants(self.outcome, self.status);
        if !is_logged && line.trace.is_none() {
            return;
        }
        let path = locksmith.format.masked(line.uri.path());
        if is_logged {
            access.write(&Entry {
                timestamp: began(took),
                request_id: line.id.to_str().unwrap_or_default(),
                trace_id: line.trace.as_ref().map(|trace| format!("{:032x}", trace.id)),
                method: plain(&line.method),
                path: &path,
                status: self.status,
                client: line.client,
                decision: self.outcome.decision().label(),
                reason: self.outcome.reason_of(self.status),
                key_id: &line.key_id,
                form: line.form.map(Form::label),
                duration_ms: (took.as_secs_f64() * 1e6).round() / 1e3,
            });
        }
        if let (Some(trace), Some(tracer)) = (&line.trace, tracer) {
            tracer.ended(Box::new(self.exchange(&line, trace, &path, took)));
        }
    }

    fn exchange(&self, line: &Line, trace: &Trace, path: &str, took: Duration) -> Exchange {
        let Session { shared, peer, is_secure, .. } = &*self.session;
        let asked = || Asked { server: shared.upstream_name.clone(), status: trace.answer };
        Exchange {
            trace: trace.id,
            parent: trace.parent,
            spans: trace.spans,
            began: SystemTime::now() - took,
            decided: self.decided,
            took,
            method: plain(&line.method).into(),
            path: path[..path.floor_char_boundary(LONGEST_PATH)].into(),
            route: trace.route.and_then(|route| shared.settings[route].pattern.clone()),
            status: (self.status != CLIENT_LEFT).then_some(self.status),
            outcome: self.outcome,
            client: line.client,
            peer: *peer,
            is_secure: *is_secure,
            is_http2: self.is_of_http2(),
            request_id: line.id.to_str().unwrap_or_default().into(),
            key_id: line.key_id.as_str().into(),
            form: line.form.map(Form::label),
            upstream: trace.asks.then(asked),
        }
    }
}

/// The method as a line may have it. One that is no word could be anything that a broken client sends, even a key;
/// OpenTelemetry's name for those is `_OTHER`.
fn plain(method: &Method) -> &str {
    let name = method.as_str();
    let is_word = name.len() <= 20 && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    if is_word { name } else { "_OTHER" }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some(denial) = self.watch().withdrawn() {
            self.withdrawn(denial);
        } else if self.watch().was_cut_off() {
            self.cut_off(self.watch().late());
        }
        let took = if matches!(self.outcome, Outcome::Denial(_)) { self.decided } else { self.started.elapsed() };
        self.watch().hold(None);
        self.session.watch.end();
        self.session.shared.metrics.proxy.in_flight.dec();
        self.session.shared.metrics.proxy.request(self.outcome, self.status, took);
        if let Some(line) = self.line.take() {
            self.tell(*line, took);
        }
    }
}
