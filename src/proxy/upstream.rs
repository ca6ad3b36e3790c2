//! The server behind Keyward: one pool of connections per worker, so that no request crosses threads.
//!
//! What cannot be sent twice is not. A request goes to another connection when the first one turned out closed before anything
//! of it was written; when the upstream says that it has not processed it, which only HTTP/2 can say; and, once, when it is
//! one that only looks, and a connection that had rested was closed before there was an answer (RFC 9110 section 9.2.2).

mod multiplexed;
mod trouble;
mod upload;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::Response;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

use self::multiplexed::{Channel, Channels, Seats};
pub(super) use self::upload::Upload;
use super::Limits;
use super::forward::Outbound;
use super::watch::{Doing, Sweeper, WaitLimits, Watch, drive};
use crate::telemetry::metrics::Failure;
use crate::tls;

/// What is kept of an answer until the client reads it, and the longest head of one; hyper's own 400 KiB, for each of many
/// clients that read slowly, are more than a sidecar has.
const BUFFER: usize = 64 << 10;

/// Where the upstream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `http://host:port`; the authority as written, with its port.
    Http(String),
    /// `https://host:port`.
    Https {
        /// As for `http`.
        authority: String,
        /// Who must be there.
        client: Arc<tls::Client>,
    },
    /// `unix:/path/to.sock`.
    Unix(PathBuf),
}

impl Target {
    /// What `Host` says when a client does not (HTTP/1.0).
    pub fn authority(&self) -> &str {
        match self {
            Self::Http(authority) | Self::Https { authority, .. } => authority,
            Self::Unix(_) => "localhost",
        }
    }

    fn scheme(&self) -> &'static str {
        match self {
            Self::Http(_) | Self::Unix(_) => "http",
            Self::Https { .. } => "https",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(authority) => write!(f, "http://{authority}"),
            Self::Https { authority, .. } => write!(f, "https://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What is spoken with the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, without asking where it is in the clear.
    Http2,
}

/// One worker's way to the upstream.
pub(super) struct Upstream {
    target: Target,
    protocol: Protocol,
    limits: Limits,
    sweeper: Arc<Sweeper>,
    /// Unused connections, the warmest last. Only this worker's thread takes the lock, so it is never contended.
    idle: Mutex<Vec<Connection>>,
    /// Whether another config is in force: connections are then no longer kept.
    retired: AtomicBool,
    /// Those of HTTP/2, which requests share.
    channels: Channels,
    /// Whether the last connection could be made, or nothing was tried yet.
    reached: AtomicBool,
    /// Whether TLS has worked, or nothing was said yet.
    secured: AtomicBool,
    /// Whether the last new connection brought an answer, or nothing was said yet.
    understood: AtomicBool,
    /// Whether no answer had a head that is too large. That is said once: a page has it each time.
    fitted: AtomicBool,
}

/// A connection that has just been made.
enum Opened {
    Http1(Connection),
    Http2(Channel),
}

impl Opened {
    fn into_http1(self) -> Option<Connection> {
        match self {
            Self::Http1(connection) => Some(connection),
            Self::Http2(_) => None,
        }
    }

    fn into_http2(self) -> Option<Channel> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(channel) => Some(channel),
        }
    }
}

struct Connection {
    sender: SendRequest<Upload>,
    watch: Arc<Watch>,
}

/// A connection that is in use. It goes back to the pool when its answer has been read to the end, and is closed if not.
/// Or a seat on one that others use as well.
pub(super) struct Lease(Held);

enum Held {
    Connection(Leased),
    Seat(Arc<Seats>),
}

struct Leased {
    upstream: Arc<Upstream>,
    connection: Connection,
    /// Whether the request may still be on its way although the answer is complete.
    uploads: bool,
}

impl Lease {
    fn of_seat(seat: Arc<Seats>) -> Self {
        Self(Held::Seat(seat))
    }

    /// Whether others use the connection as well.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.0, Held::Seat(_))
    }

    /// The answer is complete.
    pub(super) fn give_back(self) {
        let Leased { upstream, mut connection, uploads } = match self.0 {
            Held::Connection(leased) => leased,
            Held::Seat(seat) => return drop(seat),
        };
        if uploads {
            tokio::spawn(async move {
                if connection.sender.ready().await.is_ok() {
                    upstream.keep(connection);
                }
            });
        } else if !connection.sender.is_closed() {
            upstream.keep(connection);
        }
    }
}

impl Upstream {
    pub(super) fn new(target: Target, protocol: Protocol, limits: Limits, sweeper: Arc<Sweeper>) -> Self {
        Self {
            target,
            protocol,
            limits,
            sweeper,
            idle: Mutex::default(),
            retired: AtomicBool::new(false),
            channels: Channels::default(),
            reached: AtomicBool::new(true),
            secured: AtomicBool::new(true),
            understood: AtomicBool::new(true),
            fitted: AtomicBool::new(true),
        }
    }

    /// Whether this is the way to that target, within those limits.
    pub(super) fn is(&self, target: &Target, protocol: Protocol, limits: &Limits) -> bool {
        (&self.target, self.protocol, &self.limits) == (target, protocol, limits)
    }

    /// Closes unused connections now, and those in use after their answers.
    pub(super) fn retire(&self) {
        self.retired.store(true, Relaxed);
        self.lock().clear();
        self.channels.clear();
    }

    /// Forgets unused connections that have been closed, and closes shared ones that nobody has used for long.
    pub(super) fn prune(&self) {
        self.lock().retain(|connection| !connection.sender.is_closed());
        self.channels.prune(self.limits.upstream_idle_timeout);
    }

    /// Sends a request, and waits for the head of the answer.
    pub(super) async fn send(
        self: &Arc<Self>,
        outbound: &mut Outbound,
    ) -> Result<(Response<Incoming>, Lease), Failure> {
        if self.protocol == Protocol::Http2 {
            return Box::pin(self.send_multiplexed(outbound)).await;
        }
        let mut again = false;
        loop {
            let (mut connection, fresh) = match if again { None } else { self.take().await } {
                Some(connection) => (connection, false),
                // Connecting is rare, and its future large.
                None => (Box::pin(self.connect()).await?.into_http1().ok_or(Failure::Broken)?, true),
            };
            // The upstream may close what has rested at the moment that it is used again. Only then is a copy worth its price.
            let spare = if !fresh && connection.watch.has_rested() { outbound.spare() } else { None };
            let Some(mut request) = outbound.take() else { return Err(Failure::Broken) };
            let uploads = !request.body().is_end_stream();
            request.body_mut().watch = uploads.then(|| connection.watch.clone());
            connection.watch.enter(Doing::Head);
            match connection.sender.try_send_request(request).await {
                Ok(response) => {
                    connection.watch.enter(Doing::Work);
                    self.note_answer(fresh);
                    return Ok((
                        response,
                        Lease(Held::Connection(Leased { upstream: self.clone(), connection, uploads })),
                    ));
                }
                Err(mut error) => match (error.take_message(), spare) {
                    // Nothing of it was written: the connection had been closed while it was unused.
                    (Some(request), _) if !fresh => outbound.put_back(request),
                    (None, Some(spare)) if !connection.watch.was_closed() && trouble::is_loss(error.error()) => {
                        tracing::debug!(error = %error.error(), "asking again on a new connection");
                        outbound.put_back(spare.map(|()| Upload::nothing()));
                        again = true;
                    }
                    (Some(_) | None, _) => return Err(self.failure(&connection.watch, error.error(), fresh)),
                },
            }
        }
    }

    /// The unused connection that was used last, if there is one that works.
    async fn take(&self) -> Option<Connection> {
        loop {
            let mut connection = self.lock().pop()?;
            // Its task may still have to note that the last answer is complete.
            if connection.sender.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    fn keep(&self, connection: Connection) {
        if self.limits.upstream_idle_timeout.is_zero() || self.retired.load(Relaxed) {
            return;
        }
        connection.watch.enter(Doing::Idle);
        self.lock().push(connection);
    }

    async fn connect(&self) -> Result<Opened, Failure> {
        match tokio::time::timeout(self.limits.connect_timeout, self.open()).await {
            Ok(Ok(connection)) => {
                self.reached.store(true, Relaxed);
                Ok(connection)
            }
            Ok(Err(error)) => {
                self.say_unreachable(&error);
                Err(Failure::Unreachable)
            }
            Err(elapsed) => {
                self.say_unreachable(&elapsed);
                Err(Failure::Timeout)
            }
        }
    }

    /// Says aloud that there is no connection to be had: once, until there is one again.
    fn say_unreachable(&self, error: &dyn fmt::Display) {
        let upstream = self.target.to_string();
        match self.reached.swap(false, Relaxed) {
            true => tracing::warn!(%error, upstream, "the upstream cannot be reached"),
            false => tracing::debug!(%error, upstream, "the upstream still cannot be reached"),
        }
    }

    async fn open(&self) -> io::Result<Opened> {
        match &self.target {
            Target::Http(authority) => self.handshake(TokioIo::new(dial(authority).await?)).await,
            Target::Https { authority, client } => {
                let socket = dial(authority).await?;
                let stream = client.connect(socket).await.inspect_err(|error| self.complain(error))?;
                self.secured.store(true, Relaxed);
                self.handshake(TokioIo::new(stream)).await
            }
            Target::Unix(path) => self.handshake(TokioIo::new(UnixStream::connect(path).await?)).await,
        }
    }

    /// Says aloud that TLS came to nothing: once, until it works again. Whatever is wrong with a certificate, nothing is sent.
    fn complain(&self, error: &io::Error) {
        if self.secured.swap(false, Relaxed) {
            let upstream = self.target.authority();
            let advice = trouble::advice_on_alert(&error.to_string());
            tracing::error!(%error, upstream, advice, "no TLS with the upstream: requests are answered with 502");
        }
    }

    /// A request was answered; if it was the first of its connection, all is well.
    fn note_answer(&self, fresh: bool) {
        if fresh {
            self.understood.store(true, Relaxed);
        }
    }

    /// Why an exchange that had begun came to nothing. Where not even the first request of a connection has an answer, that
    /// is said aloud, once, until one has; a server that rejects our certificate is often heard no earlier (RFC 8446 4.4.3).
    fn failure(&self, watch: &Watch, error: &hyper::Error, fresh: bool) -> Failure {
        let failure = failure(watch, error);
        if failure == Failure::Broken {
            let (chain, upstream) = (trouble::chain(error), self.target.authority());
            if error.is_parse_too_large() && self.fitted.swap(false, Relaxed) {
                let advice = trouble::TOO_LARGE;
                tracing::warn!(error = chain, upstream, advice, "an answer of the upstream cannot be read");
            } else if fresh && !error.is_parse_too_large() && self.understood.swap(false, Relaxed) {
                let advice = trouble::advice(&chain, self.protocol);
                tracing::warn!(
                    error = chain,
                    upstream,
                    advice,
                    "the upstream ended a new connection without an answer"
                );
            }
        }
        failure
    }

    async fn handshake<S>(&self, socket: S) -> io::Result<Opened>
    where
        S: Read + Write + Unpin + Send + 'static,
    {
        if self.protocol == Protocol::Http2 {
            return Channel::open(socket).await.map(Opened::Http2).map_err(io::Error::other);
        }
        let mut builder = Builder::new();
        // One copy into one buffer costs less than the scatter-gather call it saves. Old servers fold header lines.
        builder.writev(false).allow_obsolete_multiline_headers_in_responses(true).max_buf_size(BUFFER);
        if let Some(count) = self.limits.more_headers() {
            builder.max_headers(count);
        }
        let (sender, connection) = builder.handshake(socket).await.map_err(io::Error::other)?;
        let (idle, head) = (self.limits.upstream_idle_timeout, self.limits.response_timeout);
        let limits = WaitLimits { idle, head, body: self.limits.body_timeout, ..WaitLimits::NONE };
        let watch = self.sweeper.watch(limits);
        let watched = watch.clone();
        tokio::spawn(async move { drive(&watched, connection.with_upgrades(), |_| ()).await });
        Ok(Opened::Http1(Connection { sender, watch }))
    }

    /// A panic elsewhere cannot leave the pool half changed.
    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection by TCP.
async fn dial(authority: &str) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(authority).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Why an exchange that had begun came to nothing.
fn failure(watch: &Watch, error: &hyper::Error) -> Failure {
    if watch.was_closed() {
        return if watch.is(Doing::Body) { Failure::ClientTimeout } else { Failure::Timeout };
    }
    // What hyper calls the user's fault is the client's: its body broke off, or is no body.
    if error.is_user() {
        return Failure::BadRequest;
    }
    tracing::debug!(%error, "the upstream did not answer");
    Failure::Broken
}
