//! An upstream that speaks HTTP/2: a few connections for all requests of a worker, and mostly one.
//!
//! A request that the upstream leaves unprocessed (`REFUSED_STREAM`, or behind the last one that a GOAWAY names; RFC 9113 8.7)
//! is sent once more, whatever it is: a copy of its head is kept until it is answered, and of its body what was taken of
//! it, as long as that is little.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::Response;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioExecutor;
use tokio::sync::oneshot;

use super::{Lease, Upload, Upstream, trouble};
use crate::proxy::forward::Outbound;
use crate::proxy::watch::{Doing, WaitLimits, drive};
use crate::telemetry::metrics::Failure;

/// How much of an answer may wait here for its client, in bytes.
const STREAM_WINDOW: u32 = 256 << 10;

/// The largest that there is (RFC 9113 6.9.1): answers whose clients read slowly leave room for all others.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// How many requests share a connection, unless the upstream wants fewer: what RFC 9113 6.5.2 asks of it at least.
const MOST_REQUESTS: usize = 100;

/// How many connections a worker makes at most. When all are full, requests wait.
const MOST_CONNECTIONS: usize = 32;

/// How long a task takes at most to let go of what it was to send, once that is known to be of no use.
const PATIENCE: Duration = Duration::from_secs(1);

/// The connections of a worker.
#[derive(Default)]
pub(super) struct Channels {
    /// Only this worker's thread takes the lock, so it is never contended.
    open: Mutex<Vec<Channel>>,
    /// Whoever finds no seat makes another connection, and the others wait; this is how the last attempt failed.
    connecting: tokio::sync::Mutex<Option<Failure>>,
    /// How many attempts have failed.
    failures: AtomicU64,
}

/// A connection that many requests share.
pub(super) struct Channel {
    sender: SendRequest<Upload>,
    /// Each request in progress has a reference to it.
    seats: Arc<Seats>,
    /// Since when it has been seen without requests.
    unused: Option<Instant>,
}

/// A place for a request on a connection, as long as it is held.
pub(super) struct Seats {
    /// How many there are.
    most: AtomicUsize,
}

impl Channels {
    /// A seat on the first connection that has one. When no connection may be added, it is one on the least busy.
    fn seat(&self) -> Option<(SendRequest<Upload>, Arc<Seats>)> {
        let mut open = self.lock();
        open.retain(|channel| !channel.sender.is_closed());
        let free = open.iter().position(|channel| channel.requests() < channel.seats.most.load(Relaxed));
        let least = || (0..open.len()).min_by_key(|&place| open[place].requests());
        let place = free.or_else(|| (open.len() >= MOST_CONNECTIONS).then(least)?)?;
        Some(open[place].seat())
    }

    /// Takes no more requests for the connection of that seat.
    fn forget(&self, seats: &Arc<Seats>) {
        self.lock().retain(|channel| !Arc::ptr_eq(&channel.seats, seats));
    }

    /// Lets go of all connections; requests that are on their way hold theirs until they have ended.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    /// Forgets connections that have been closed, or have had no request for that long.
    pub(super) fn prune(&self, idle: Duration) {
        self.lock().retain_mut(|channel| !channel.sender.is_closed() && !channel.is_idle(idle));
    }

    /// A panic elsewhere cannot leave the list half changed.
    fn lock(&self) -> MutexGuard<'_, Vec<Channel>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Channel {
    /// Begins to speak HTTP/2, as one who knows that the other side does.
    pub(super) async fn open<S>(socket: S) -> hyper::Result<Self>
    where
        S: Read + Write + Unpin + Send + 'static,
    {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        let (sender, connection) = builder.handshake(socket).await?;
        let seats = Arc::new(Seats { most: AtomicUsize::new(MOST_REQUESTS) });
        let weak = Arc::downgrade(&seats);
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            poll_fn(|cx| {
                let ended = connection.as_mut().poll(cx);
                if let Some(seats) = weak.upgrade() {
                    seats.most.store(connection.current_max_send_streams().clamp(1, MOST_REQUESTS), Relaxed);
                }
                ended
            })
            .await
        });
        Ok(Self { sender, seats, unused: None })
    }

    fn requests(&self) -> usize {
        Arc::strong_count(&self.seats) - 1
    }

    fn seat(&mut self) -> (SendRequest<Upload>, Arc<Seats>) {
        self.unused = None;
        (self.sender.clone(), self.seats.clone())
    }

    /// Whether it has had no request for that long.
    fn is_idle(&mut self, limit: Duration) -> bool {
        if self.requests() > 0 {
            self.unused = None;
            return false;
        }
        self.unused.get_or_insert_with(Instant::now).elapsed() >= limit
    }
}

/// A body that is on its way back, or none where there was none. Nothing comes of one of which too much was taken.
async fn back(body: Option<oneshot::Receiver<Upload>>) -> Option<Upload> {
    match body {
        Some(body) => tokio::time::timeout(PATIENCE, body).await.ok()?.ok(),
        None => Some(Upload::nothing()),
    }
}

impl Upstream {
    /// Sends a request, and waits for the head of the answer.
    pub(super) async fn send_multiplexed(
        &self,
        outbound: &mut Outbound,
    ) -> Result<(Response<Incoming>, Lease), Failure> {
        outbound.become_http2(self.target.scheme())?;
        let (head, body) = (self.limits.response_timeout, self.limits.body_timeout);
        let watch = self.sweeper.watch(WaitLimits { head, body, ..WaitLimits::NONE });
        let mut spare = outbound.head();
        loop {
            let ((mut sender, seat), fresh) = self.seat().await?;
            let Some(mut request) = outbound.take() else { return Err(Failure::Broken) };
            let uploads = !hyper::body::Body::is_end_stream(request.body());
            request.body_mut().watch = uploads.then(|| watch.clone());
            let body = (uploads && spare.is_some()).then(|| request.body_mut().comes_back());
            watch.enter(Doing::Head);
            let mut sent = None;
            drive(&watch, async { sent = Some(sender.try_send_request(request).await) }, |_| ()).await;
            match sent {
                Some(Ok(response)) => {
                    watch.enter(Doing::Work);
                    self.note_answer(fresh);
                    return Ok((response, Lease::of_seat(seat)));
                }
                Some(Err(mut error)) => match error.take_message() {
                    // Nothing of it was written: the upstream takes no more requests on this connection.
                    Some(request) if !fresh => outbound.put_back(request),
                    None if trouble::is_unprocessed(error.error()) => match (spare.take(), back(body).await) {
                        (Some(head), Some(body)) => outbound.put_back(head.map(|()| body)),
                        (_, _) => return Err(self.failure(&watch, error.error(), fresh)),
                    },
                    Some(_) | None => return Err(self.failure(&watch, error.error(), fresh)),
                },
                None if watch.is(Doing::Body) => return Err(Failure::ClientTimeout),
                // What does not answer in time may be the connection: the next request has another.
                None => {
                    self.channels.forget(&seat);
                    return Err(Failure::Timeout);
                }
            }
        }
    }

    /// A seat on a connection, and whether the connection is new.
    async fn seat(&self) -> Result<((SendRequest<Upload>, Arc<Seats>), bool), Failure> {
        let channels = &self.channels;
        if let Some(seat) = channels.seat() {
            return Ok((seat, false));
        }
        let before = channels.failures.load(Relaxed);
        let turn = tokio::time::timeout(self.limits.connect_timeout, channels.connecting.lock());
        let mut last = turn.await.map_err(|_| Failure::Timeout)?;
        if let Some(seat) = channels.seat() {
            return Ok((seat, false));
        }
        // An attempt fails for all who waited for it: they would else wait again, one after another.
        if let Some(failure) = last.filter(|_| channels.failures.load(Relaxed) != before) {
            return Err(failure);
        }
        match Box::pin(self.connect()).await.and_then(|opened| opened.into_http2().ok_or(Failure::Broken)) {
            Ok(mut channel) => {
                let seat = channel.seat();
                channels.lock().push(channel);
                Ok((seat, true))
            }
            Err(failure) => {
                channels.failures.fetch_add(1, Relaxed);
                *last = Some(failure);
                Err(failure)
            }
        }
    }
}
