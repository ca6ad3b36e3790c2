//! A connection that carries requests, from its first byte of HTTP to its end: HTTP/1, one request after the other, or
//! HTTP/2, many at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{COOKIE, HeaderMap, HeaderValue};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::field::display;

use super::establish::{Arrival, refuse};
use super::head_guard::{HeadGuard, Heads};
use super::parting::Parting;
use super::watch::{Doing, Signal, Watch, WatchedSocket, drive, drive_from};
use super::{Renewing, Session, handle};
use crate::telemetry::metrics::{Metrics, Refused};

/// Serves HTTP/1.
pub(super) async fn http1<S>(arrival: Arrival, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Arrival { current, link } = arrival;
    let (heads, watch) = (Arc::<Heads>::default(), link.watch.clone());
    let (worker, peer) = (link.worker.clone(), link.peer);
    // Whatever came before, the first head has its own time from here.
    watch.enter(Doing::Head);
    let session = Session::new(current, link, Some(heads.clone()));
    let (limits, metrics) = (&session.shared.limits, session.shared.metrics.clone());
    let mut builder = http1::Builder::new();
    // Not `pipeline_flush`: a client that does not read would fill the memory.
    builder.writev(false).max_header_size(limits.max_head_bytes);
    if let Some(count) = limits.more_headers() {
        builder.max_headers(count);
    }
    let renewing = Renewing::new(session);
    let service = service_fn(move |request| handle(renewing.session(), None, request));
    let socket = WatchedSocket::new(stream, watch.clone(), Some(HeadGuard::new(heads)));
    let connection = builder.serve_connection(TokioIo::new(socket), service).with_upgrades();
    let ended = drive(&watch, connection, http1::UpgradeableConnection::graceful_shutdown).await;
    count_early_end(&watch, &metrics);
    // hyper has answered with a bare 400 or 431; without this nobody would know.
    if let Some(error) = ended.and_then(Result::err).filter(hyper::Error::is_parse) {
        refuse(&worker, &metrics, peer, Refused::Malformed, Some(display(error)));
    }
}

/// A client that says too little, too late, counts among those that never made a connection.
fn count_early_end(watch: &Watch, metrics: &Metrics) {
    if watch.was_closed_early() {
        metrics.proxy.refused(Refused::Timeout);
    }
}

/// Requests of one HTTP/2 connection at a time, as Envoy's advice for the edge has it; so are the windows.
const STREAMS: u32 = 100;
/// What a client may send of one request before the upstream takes it.
const STREAM_WINDOW: u32 = 64 << 10;
/// What it may send of all of them.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// What we keep of one answer until the client reads it.
const SEND_BUFFER: usize = 64 << 10;
/// Streams that a client may open and reset at once before its connection is closed (CVE-2023-44487)…
const PENDING_RESETS: usize = 20;
/// …and those that it may make us reset (CVE-2025-8671). A client that has not read yet how many it may open makes us refuse
/// some, and means no harm.
const LOCAL_RESETS: usize = 1024;
/// How often a client is asked whether it is still there, and how long it may take to say so.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// Serves HTTP/2.
pub(super) async fn http2<S>(arrival: Arrival, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Arrival { current, link } = arrival;
    let watch = link.watch.clone();
    watch.speaks_http2();
    let session = Session::new(current, link, None);
    let metrics = session.shared.metrics.clone();
    let streams = Streams { metrics: metrics.clone(), next: Arc::default() };
    let mut builder = http2::Builder::new(streams.clone());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(session.shared.limits.max_head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(LOCAL_RESETS)
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1);
    let renewing = Renewing::new(session);
    let service = service_fn(move |mut request| {
        join_cookies(request.headers_mut());
        let session = renewing.session();
        let stream = streams.begin(&session);
        handle(session, Some(stream), request)
    });
    let socket = WatchedSocket::new(Parting::new(stream), watch.clone(), None);
    let connection = builder.serve_connection(TokioIo::new(socket), service);
    drive_from(Signal::Leave, &watch, connection, http2::Connection::graceful_shutdown).await;
    count_early_end(&watch, &metrics);
}

/// Clients may cut `Cookie` into pieces; for everybody else it is one field again (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let pieces: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if pieces.len() > 1
        && let Ok(whole) = HeaderValue::from_bytes(&pieces.join(&b"; "[..]))
    {
        headers.insert(COOKIE, whole);
    }
}

/// Runs each request of a connection as a task of its own, which ends when the request has waited too long.
#[derive(Clone)]
struct Streams {
    metrics: Arc<Metrics>,
    /// The notes of the request that has just been handed over: its task is begun right after that.
    next: Arc<Mutex<Option<Arc<Watch>>>>,
}

impl Streams {
    fn begin(&self, session: &Session) -> Arc<Watch> {
        let watch = session.worker.sweeper.watch(session.shared.limits.of_clients());
        watch.speaks_for(session.watch.client());
        watch.begin();
        *self.lock() = Some(watch.clone());
        watch
    }

    /// Only the connection's task takes the lock.
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Watch>>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, task: F) {
        let (watch, panics) = (self.lock().take(), CountedPanic(self.metrics.clone()));
        tokio::spawn(async move {
            let _panics = panics;
            match watch {
                Some(watch) => drop(drive(&watch, task, |_| ()).await),
                None => drop(task.await),
            }
        });
    }
}

/// Counts a panic that takes a stream down.
struct CountedPanic(Arc<Metrics>);

impl Drop for CountedPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.proxy.panics.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_cookies_become_one() {
        for (pieces, whole) in [(&["a=1"][..], "a=1"), (&["a=1", "b=2"], "a=1; b=2"), (&["a=1", "", "c"], "a=1; ; c")] {
            let mut headers = HeaderMap::new();
            for piece in pieces {
                headers.append(COOKIE, HeaderValue::from_static(piece));
            }
            join_cookies(&mut headers);
            assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), [whole]);
        }
        let mut none = HeaderMap::new();
        join_cookies(&mut none);
        assert!(none.is_empty());
    }
}
