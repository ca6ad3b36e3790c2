//! The data plane: a request comes in, is decided on, and is forwarded or answered. This file is that life on one screen.
//!
//! Around it: who accepts connections ([`listener`]) and keeps them ([`worker`]), and by which config ([`live`]), what comes
//! before the first request ([`establish`], [`proxy_protocol`], [`peers`], [`seldom`]), how requests are read
//! ([`connection`]), what cannot be forwarded at all ([`head_guard`], [`framing`]), what the upstream gets ([`forward`],
//! [`headers`], [`trailers`]) and how ([`upstream`]), what the management API answers instead ([`mount`]), what the client
//! gets ([`reply`], [`rate`], [`body`]), what becomes of a WebSocket ([`tunnel`]), what ends with its key
//! ([`revocation`]), what waits too long ([`watch`]), what a request is called ([`request_id`]) and what is remembered of it
//! ([`account`], [`trace`]).

mod account;
mod body;
mod connection;
mod establish;
mod forward;
mod framing;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod head_guard;
mod headers;
mod listener;
mod live;
mod mount;
mod parting;
mod peers;
pub mod proxy_protocol;
mod rate;
mod read_ahead;
pub mod reply;
mod request_id;
mod revocation;
mod seldom;
mod settings;
mod trace;
mod trailers;
mod tunnel;
pub mod upstream;
mod watch;
mod worker;

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Instant, UNIX_EPOCH};

use http::header::{CONNECTION, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use self::account::{Account, Line};
use self::body::ReplyBody;
use self::establish::Link;
use self::forward::{IdentityNames, Outbound, X_REQUEST_ID};
use self::head_guard::Heads;
pub use self::live::Live;
use self::mount::Mount;
use self::reply::{Answer, Hints, Replies};
use self::request_id::RequestId;
pub use self::settings::{Config, IdentityValue, Inject, InjectInto, Limits, RouteSettings, Workers};
use self::trace::Trace;
pub use self::trailers::TrailerRules;
use self::upstream::{Protocol, Target, Upstream};
use self::watch::{Doing, Watch};
use self::worker::{Current, OpenConnection, Worker};
use crate::auth::address::{Networks, client_address};
use crate::auth::decision::{Denied, Permit};
use crate::auth::grant::KeyIndex;
use crate::auth::limit::Exhausted;
use crate::auth::route::{Matched, RequestTarget, Routes};
use crate::auth::{Facts, Locksmith, authorize};
use crate::control::desk::Desk;
use crate::lifecycle::{Lifecycle, Phase};
use crate::linger;
use crate::replica::{Replica, View};
use crate::telemetry::access_log::AccessLogger;
use crate::telemetry::metrics::{Failure, Metrics};
use crate::telemetry::traces::Tracer;
use crate::tls;

/// Serves one request. What needs no waiting is done before there is a future: a future that held the request as it came
/// would be moved about with it.
fn handle(
    session: Arc<Session>,
    stream: Option<Arc<Watch>>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<ReplyBody>, Infallible>> {
    let id = session.request_id(&request);
    let line = session.line(&request, &id);
    let is_head = *request.method() == Method::HEAD;
    let admission = admit(request, id, Account::open(session, stream, is_head, line));
    async move {
        Ok(match admission {
            Admission::Forward(forwarding) => forwarding.await,
            Admission::Refuse(response) => response,
        })
    }
}

/// What a request comes to. What waits for the upstream is large and stays in its place: every connection would keep room
/// for it, and every denial be as large.
#[expect(clippy::large_enum_variant, reason = "an answer is moved once, and a box would be one more allocation for it")]
enum Admission {
    Forward(Pin<Box<dyn Future<Output = Response<ReplyBody>> + Send>>),
    Refuse(Response<ReplyBody>),
}

/// A request that may be sent, and what is needed to answer it if that fails.
struct Forwarded {
    outbound: Outbound,
    id: RequestId,
    hints: Hints,
    route: usize,
    account: Account,
}

/// Decides, and makes the request that is sent if it may be.
fn admit(mut request: Request<Incoming>, id: RequestId, mut account: Account) -> Admission {
    let session = &*account.session;
    let is_fit = session.heads.as_ref().is_none_or(|heads| heads.next_is_fit());
    let mount = session.shared.mount.as_ref().filter(|mount| is_fit && mount.has(request.uri().path()));
    // What others could read otherwise is refused below, whosoever it is.
    let mount = mount.filter(|_| framing::unfit(&request, session.shared.limits.max_headers).is_none());
    if let Some(mount) = mount.cloned() {
        return mount::admit(request, &mount, id, account);
    }
    let target = RequestTarget { method: request.method(), uri: request.uri(), headers: request.headers() };
    let matched = session.shared.routes.find(&target);
    let route = matched.index;
    let view = session.shared.replica.view(account.started());
    let Decided { decision, client } = session.decide(&request, is_fit, &matched, &view, account.started());
    account.decided(&decision, client, route, &view);
    let hints = Hints::of(&request);
    let permit = match decision {
        Ok(permit) => permit,
        Err(refusal) => {
            let lingers = is_fit && linger::is_wanted(&request);
            let headers = std::mem::take(request.headers_mut());
            let mut response = reply::answer(refusal.answer, route, &hints, headers, &id, account);
            if let Some(exhausted) = refusal.exhausted {
                rate::tell(&exhausted, response.headers_mut());
            }
            // Where the next request would begin, nobody can say.
            if !is_fit {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            if lingers {
                linger::start(request.into_body());
            }
            return Admission::Refuse(response);
        }
    };
    match account.outbound(request, permit, route, client, &id, &view) {
        Ok(outbound) => Admission::Forward(Box::pin(forward(Forwarded { outbound, id, hints, route, account }))),
        Err(failure) => {
            account.failed(failure);
            Admission::Refuse(reply::answer(Answer::Failure(failure), route, &hints, HeaderMap::new(), &id, account))
        }
    }
}

/// Sends a request, and passes the answer on.
async fn forward(mut forwarded: Forwarded) -> Response<ReplyBody> {
    let Forwarded { ref mut outbound, ref account, .. } = forwarded;
    outbound.belong_to(account.watch());
    let sent = account.watch().in_time(account.session.upstream.send(outbound)).await;
    let sent = sent.unwrap_or_else(|| {
        account.watch().enter(Doing::Body);
        Err(Failure::RequestTimeout)
    });
    let Forwarded { ref mut outbound, id, hints, route, mut account } = forwarded;
    let failed = |failure, mut account: Account| {
        account.failed(failure);
        // In a Pod that is stopped both are told at once, and the upstream may be the first to go: another Pod will do.
        let is_stopping = matches!(failure, Failure::Unreachable | Failure::Broken) && account.session.is_leaving();
        let failure = if is_stopping { Failure::Stopping } else { failure };
        if is_stopping {
            account.failed(failure);
        }
        let mut response = reply::answer(Answer::Failure(failure), route, &hints, HeaderMap::new(), &id, account);
        if is_stopping {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    };
    match sent {
        Ok((mut response, lease)) => {
            account.upstream_answered(response.status().as_u16());
            let is_websocket = headers::strip_response(response.headers_mut());
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return match outbound.take_tunnel().filter(|_| is_websocket) {
                    Some(client) => switch(client, response, account),
                    // Nobody asked for another protocol, or not for this one.
                    None => failed(Failure::Broken, account),
                };
            }
            // Ours, not the upstream's: to those who are told HTTP/1.0, the connection ends with the answer.
            *response.version_mut() = Version::HTTP_11;
            account.session.close_if_draining(response.headers_mut());
            response.map(|body| ReplyBody::upstream(body, lease, account))
        }
        Err(failure) => failed(failure, account),
    }
}

/// Passes on that the upstream agrees to a WebSocket, which then is one.
fn switch(client: OnUpgrade, mut response: Response<Incoming>, account: Account) -> Response<ReplyBody> {
    tunnel::open(client, &mut response, account);
    headers::add_websocket(response.headers_mut());
    *response.version_mut() = Version::HTTP_11;
    response.map(|_| ReplyBody::none())
}

/// What was decided, and on whom.
struct Decided {
    decision: Result<Permit, Refusal>,
    client: Option<IpAddr>,
}

/// Why a request is not sent, and whose key it had where that is known.
struct Refusal {
    answer: Answer,
    key: Option<KeyIndex>,
    exhausted: Option<Exhausted>,
}

impl From<Denied> for Refusal {
    fn from(Denied { denial, key, exhausted }: Denied) -> Self {
        Self { answer: Answer::Denial(denial), key, exhausted }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { answer: Answer::Failure(failure), key: None, exhausted: None }
    }
}

/// One connection of a client, under one config.
struct Session {
    shared: Arc<Shared>,
    upstream: Arc<Upstream>,
    worker: Arc<Worker>,
    watch: Arc<Watch>,
    /// `None` for HTTP/2, which frames requests beyond doubt.
    heads: Option<Arc<Heads>>,
    peer: IpAddr,
    peer_value: HeaderValue,
    peer_is_trusted: bool,
    is_secure: bool,
    /// As long as anything of it goes on.
    open: Arc<OpenConnection>,
}

/// What all workers share, as one config has it. None of it is ever locked.
struct Shared {
    /// Which config it is, counted from the start.
    generation: u64,
    routes: Routes,
    settings: Vec<RouteSettings>,
    replies: Vec<Replies>,
    locksmith: Arc<Locksmith>,
    trusted: Networks,
    proxy_protocol: Networks,
    tls: Option<tls::Server>,
    http2: bool,
    identity: IdentityNames,
    mount: Option<Arc<Mount>>,
    target: Target,
    protocol: Protocol,
    default_host: HeaderValue,
    limits: Limits,
    replica: Arc<Replica>,
    metrics: Arc<Metrics>,
    access: AccessLogger,
    /// Where there is a collector of traces.
    tracer: Option<Tracer>,
    /// What traces call the upstream.
    upstream_name: Arc<str>,
}

impl Session {
    fn new(current: Current, link: Link, heads: Option<Arc<Heads>>) -> Self {
        let Current { shared, upstream } = current;
        let Link { worker, watch, peer, is_secure, open } = link;
        let peer = peer.to_canonical();
        let peer_value = HeaderValue::from_str(&peer.to_string()).unwrap_or(HeaderValue::from_static("unknown"));
        let peer_is_trusted = shared.trusted.contains(peer);
        watch.speaks_for(Some(peer).filter(|_| !peer_is_trusted));
        Self { shared, upstream, worker, watch, heads, peer, peer_value, peer_is_trusted, is_secure, open }
    }

    /// The same connection under the config that is in force now.
    fn renewed(&self) -> Self {
        let (worker, watch, open) = (self.worker.clone(), self.watch.clone(), self.open.clone());
        let link = Link { worker, watch, peer: self.peer, is_secure: self.is_secure, open };
        Self::new(self.worker.current(), link, self.heads.clone())
    }

    /// Whether a request may pass, and be passed on as it stands.
    fn decide(
        &self,
        request: &Request<Incoming>,
        is_fit: bool,
        matched: &Matched<'_>,
        view: &View,
        started: Instant,
    ) -> Decided {
        let shared = &*self.shared;
        let client = client_address(self.peer, request.headers(), &shared.trusted);
        let refused = if is_fit { framing::is_refused(request.method()) } else { Some(Failure::BadRequest) };
        if let Some(failure) = refused.or_else(|| self.has_too_many_requests().then_some(Failure::Overloaded)) {
            return Decided { decision: Err(failure.into()), client };
        }
        let facts =
            Facts { method: request.method(), query: request.uri().query(), headers: request.headers(), client };
        let now = self.worker.sweeper.wall_at(started);
        let decision = authorize(&facts, matched, &shared.locksmith, view, now).map_err(Refusal::from);
        // What is denied needs no second look: nothing of it is sent.
        let decision = decision.and_then(|permit| match framing::unfit(request, shared.limits.max_headers) {
            Some(failure) => Err(failure.into()),
            None => Ok(permit),
        });
        if let Ok(permit) = &decision
            && let (Some(grant), Some(secret)) = (permit.grant(), permit.digest())
        {
            view.used(grant, secret, client, now);
        }
        Decided { decision, client }
    }

    /// Whether there are more requests in progress than may be.
    fn has_too_many_requests(&self) -> bool {
        self.shared.metrics.proxy.in_flight.get() > self.shared.limits.max_requests
    }

    /// Whether the process has been asked to stop.
    fn is_leaving(&self) -> bool {
        self.worker.lifecycle.phase() >= Phase::Leaving
    }

    /// A client whose connection is to be closed hears it with its last answer; in HTTP/2 it is told otherwise.
    fn close_if_draining(&self, headers: &mut HeaderMap) {
        if self.worker.is_draining() && self.heads.is_some() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// The id that a trusted proxy has given the request, else a new one.
    fn request_id(&self, request: &Request<Incoming>) -> RequestId {
        let given =
            if self.peer_is_trusted { request.headers().get(X_REQUEST_ID).and_then(RequestId::given) } else { None };
        given.unwrap_or_else(|| self.worker.next_id())
    }

    fn line(&self, request: &Request<Incoming>, id: &RequestId) -> Option<Box<Line>> {
        let begin = |tracer| Trace::begin(tracer, request.headers(), self.peer_is_trusted, id, self.worker.ids());
        let trace = self.shared.tracer.as_ref().and_then(begin);
        let line = |trace| Box::new(Line::new(id.to_value(), request.method().clone(), request.uri().clone(), trace));
        (trace.is_some() || self.shared.access.is_on()).then(|| line(trace))
    }
}

/// What a connection's requests are served by: its session, renewed whenever the config has been replaced.
struct Renewing(RefCell<Arc<Session>>);

impl Renewing {
    fn new(session: Session) -> Self {
        Self(RefCell::new(Arc::new(session)))
    }

    /// The session for a request that begins now.
    fn session(&self) -> Arc<Session> {
        let mut session = self.0.borrow_mut();
        if !session.worker.live.is(&session.shared) {
            *session = Arc::new(session.renewed());
        }
        session.clone()
    }
}

/// The threads of the data plane.
pub struct Running {
    threads: Vec<JoinHandle<()>>,
    live: Arc<Live>,
}

impl Running {
    /// What they serve by.
    pub fn live(&self) -> Arc<Live> {
        self.live.clone()
    }

    /// Waits until they have drained.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the data plane panicked");
            }
        }
    }
}

/// What the data plane needs of the rest.
pub struct Surroundings {
    /// What it decides by.
    pub replica: Arc<Replica>,
    /// What it counts in.
    pub metrics: Arc<Metrics>,
    /// What it tells.
    pub access: AccessLogger,
    /// Where spans of requests go.
    pub tracer: Option<Tracer>,
    /// When it stops.
    pub lifecycle: Lifecycle,
    /// Who answers for the management API, where there is one.
    pub desk: Option<Desk>,
}

/// Starts the acceptor and the workers.
///
/// # Errors
/// When threads or runtimes cannot be made, or a name of the config cannot be a header.
pub fn start(config: Config, listener: std::net::TcpListener, surroundings: Surroundings) -> std::io::Result<Running> {
    let (workers, lifecycle) = (config.workers.count, surroundings.lifecycle.clone());
    let live = Arc::new(Live::new(config, surroundings)?);
    let mut threads = Vec::new();
    let mut handles = Vec::new();
    for n in 0..workers {
        let (connections, accepted) = tokio::sync::mpsc::unbounded_channel();
        let open = Arc::<std::sync::atomic::AtomicUsize>::default();
        handles.push(listener::WorkerHandle { connections, open: open.clone() });
        let run = worker::run(live.clone(), open, accepted, lifecycle.clone());
        threads.push(spawn(format!("worker-{n}"), run)?);
    }
    threads.push(spawn("acceptor".to_owned(), async move {
        if let Err(error) = listener::run(listener, handles, lifecycle.clone()).await {
            tracing::error!(%error, "the proxy listener failed");
            lifecycle.enter(Phase::Draining);
        }
    })?);
    Ok(Running { threads, live })
}

/// A thread with a runtime of its own.
fn spawn(name: String, task: impl Future<Output = ()> + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(name).spawn(move || runtime.block_on(task))
}

impl Shared {
    fn new(
        config: Config,
        generation: u64,
        replica: Arc<Replica>,
        metrics: Arc<Metrics>,
        access: AccessLogger,
        tracer: Option<Tracer>,
        desk: Option<&Desk>,
    ) -> std::io::Result<Self> {
        let wrong = |what: &str| {
            std::io::Error::new(std::io::ErrorKind::InvalidInput, format!("{what} cannot stand in a header"))
        };
        let rules = config.routes.rules().zip(&config.settings);
        Ok(Self {
            generation,
            replies: rules.map(|(rule, settings)| Replies::new(&settings.deny, &rule.forms)).collect(),
            identity: IdentityNames::new(&config.identity_prefix).ok_or_else(|| wrong("identity_headers.prefix"))?,
            default_host: HeaderValue::from_str(config.upstream.authority()).map_err(|_| wrong("proxy.upstream"))?,
            mount: config.mount.zip(desk).map(|(prefix, desk)| Arc::new(Mount::new(prefix, desk.clone()))),
            routes: config.routes,
            settings: config.settings,
            locksmith: config.locksmith,
            trusted: config.trusted_proxies,
            proxy_protocol: config.proxy_protocol,
            tls: config.tls,
            http2: config.http2,
            upstream_name: config.upstream.to_string().into(),
            target: config.upstream,
            protocol: config.upstream_protocol,
            limits: config.limits,
            replica,
            metrics,
            access,
            tracer,
        })
    }

    /// Tells until when its certificate is valid, once it is in force.
    fn tell_expiry(&self) {
        let expiry = self.tls.as_ref().and_then(|tls| tls.valid_until().duration_since(UNIX_EPOCH).ok());
        self.metrics.proxy.certificate_expiry.set(expiry.unwrap_or_default().as_secs_f64());
    }
}
