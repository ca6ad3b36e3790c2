//! Time limits without timers: every connection notes when it began to wait, and a sweep a few times a second ends those
//! that have waited too long.
//!
//! A timer per request costs 3 % of it; noting the time costs a store. In exchange a limit may be up to half a second late;
//! it is never early.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::head_guard::HeadGuard;
use crate::auth::decision::Denial;
use crate::auth::digest::{Digest, DigestCell};
use crate::auth::grant::Timestamp;

/// How often waiting connections are looked at.
const SWEEP: Duration = Duration::from_millis(250);

/// What a connection is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// Nothing: it waits for the next request.
    Idle = 0,
    /// It waits for the rest of a head: a client's request or the upstream's answer.
    Head = 1,
    /// Something that takes as long as it takes.
    Work = 2,
    /// It is being established, and carries no request yet.
    Handshake = 3,
    /// Nothing of its own any more: a tunnel has taken over.
    Gone = 4,
    /// It waits for the client in the middle of a request: for more of its body, or until it reads on.
    Body = 5,
}

/// What a connection is asked to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// To take no more requests, if it can say so without losing any.
    Leave = 1,
    /// To finish what it is doing, and close.
    Finish = 2,
    /// To close.
    Close = 3,
}

/// How long a connection may do what takes no effort.
#[derive(Clone, Copy)]
pub(super) struct WaitLimits {
    pub(super) idle: Duration,
    pub(super) head: Duration,
    pub(super) handshake: Duration,
    pub(super) body: Duration,
    /// For a request as a whole, whatever it waits for.
    pub(super) request: Duration,
}

impl WaitLimits {
    /// No limits at all.
    pub(super) const NONE: Self = Self {
        idle: Duration::MAX,
        head: Duration::MAX,
        handshake: Duration::MAX,
        body: Duration::MAX,
        request: Duration::MAX,
    };
}

/// What took too long in the middle of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// The client, to send or to read.
    Body,
    /// The request as a whole.
    Request,
}

/// One connection's notes, or those of one stream of HTTP/2. Only its worker's thread writes them, so no write has to be one
/// with the read before it.
pub(super) struct Watch {
    /// What it is doing (upper 3 bits), and since when by the coarse clock, in milliseconds.
    doing: AtomicU64,
    /// How many requests are in progress.
    requests: AtomicU32,
    /// When the last of them began.
    began: AtomicU64,
    /// Whether any number of requests may be in progress, and the client can be told to go.
    is_http2: AtomicBool,
    signal: AtomicU8,
    waker: OnceLock<Waker>,
    /// What was presented for what is in flight, as long as it is.
    secret: DigestCell,
    /// `doing`, as it was when that was last judged.
    judged: AtomicU64,
    /// Why it was not good any more: a [`Denial`], counted from 1.
    withdrawn: AtomicU8,
    /// Whether it ends in the midst of something.
    cut: AtomicBool,
    /// Whether bytes wait to be written that the client does not take.
    stuck: AtomicBool,
    limits: WaitLimits,
    clock: Arc<AtomicU64>,
}

/// The bits of a note that tell the time.
const TIME_BITS: u32 = 61;
const TIME: u64 = u64::MAX >> (u64::BITS - TIME_BITS);

impl Watch {
    /// Notes what the connection does from now on.
    pub(super) fn enter(&self, doing: Doing) {
        self.doing.store((doing as u64) << TIME_BITS | self.clock.load(Relaxed), Relaxed);
    }

    /// Whether that is what it does.
    pub(super) fn is(&self, doing: Doing) -> bool {
        self.doing.load(Relaxed) >> TIME_BITS == doing as u64
    }

    /// Whether it was told to close, as those are that have waited too long.
    pub(super) fn was_closed(&self) -> bool {
        self.signal.load(Relaxed) == Signal::Close as u8
    }

    /// Notes what was presented for what is in flight from now on; nothing is when there is no secret.
    pub(super) fn hold(&self, secret: Option<Digest>) {
        self.secret.set(secret);
    }

    /// What is in flight was begun with this secret.
    pub(super) fn secret(&self) -> Option<Digest> {
        self.secret.get()
    }

    /// The secret that is to be judged: `all` of them, or that of what has not been judged yet. No two exchanges that a sweep
    /// has seen have the same note of what they do since when.
    pub(super) fn unjudged(&self, all: bool) -> Option<Digest> {
        let digest = self.secret.get()?;
        let doing = self.doing.load(Relaxed);
        (self.judged.swap(doing, Relaxed) != doing || all).then_some(digest)
    }

    /// Ends what is in flight: what was permitted no longer is.
    pub(super) fn withdraw(&self, denial: Denial) {
        self.withdrawn.store(denial as u8 + 1, Relaxed);
        self.send(Signal::Close);
    }

    /// Why what was permitted no longer is.
    pub(super) fn withdrawn(&self) -> Option<Denial> {
        let place = usize::from(self.withdrawn.load(Relaxed)).checked_sub(1)?;
        Denial::ALL.get(place).copied()
    }

    /// Notes that what is in flight breaks off.
    pub(super) fn cut(&self) {
        self.cut.store(true, Relaxed);
    }

    /// Whether a connection that ends now ends in the midst of something. HTTP/2 says itself what has ended; in HTTP/1 the
    /// request may have been settled when the end of its answer still waits for the client to read.
    pub(super) fn is_cut(&self) -> bool {
        let is_busy = || self.is(Doing::Work) || self.is(Doing::Body) || self.stuck.load(Relaxed);
        self.cut.load(Relaxed) || (!self.is_http2.load(Relaxed) && is_busy())
    }

    fn send(&self, signal: Signal) {
        if signal == Signal::Close && (self.is(Doing::Work) || self.is(Doing::Body)) {
            self.cut();
        }
        self.signal.fetch_max(signal as u8, Relaxed);
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// Notes that a request begins.
    pub(super) fn begin(&self) {
        self.requests.store(self.requests.load(Relaxed) + 1, Relaxed);
        self.began.store(self.clock.load(Relaxed), Relaxed);
        self.enter(Doing::Work);
    }

    /// Notes that a request has ended.
    pub(super) fn end(&self) {
        let left = self.requests.load(Relaxed).saturating_sub(1);
        self.requests.store(left, Relaxed);
        if left == 0 {
            self.enter(Doing::Idle);
        }
    }

    /// Notes that this is a connection of HTTP/2, of which each stream has notes of its own. It rests from its first bytes on.
    pub(super) fn speaks_http2(&self) {
        self.is_http2.store(true, Relaxed);
        self.enter(Doing::Head);
    }

    /// Notes that bytes went to the client. The end of an answer may still be on its way to a slow one when the request has
    /// long been settled.
    fn wrote(&self) {
        let doing = self.doing.load(Relaxed) >> TIME_BITS;
        if doing == Doing::Idle as u64 && !self.is_http2.load(Relaxed) {
            self.enter(Doing::Idle);
        } else if doing == Doing::Body as u64 {
            self.enter(Doing::Body);
        }
    }

    /// What is to be done about it, if it has done what it does for too long.
    fn overdue(&self, now: u64) -> Option<(Signal, Option<Late>)> {
        let (doing, limits) = (self.doing.load(Relaxed), &self.limits);
        // The clock that a note was made by may have been a sweep behind.
        let is_over = |since: u64, limit: Duration| {
            u128::from(now.saturating_sub(since)) > limit.saturating_add(SWEEP).as_millis()
        };
        let waits = |limit: Duration| is_over(doing & TIME, limit);
        let is_http2 = self.is_http2.load(Relaxed);
        let close = |late| Some((Signal::Close, late));
        match doing >> TIME_BITS {
            // It is told first: a request that is on its way right now is then not lost.
            0 if is_http2 && !waits(limits.idle.saturating_mul(2)) => {
                waits(limits.idle).then_some((Signal::Finish, None))
            }
            0 if waits(limits.idle) => close(None),
            1 if waits(limits.head) => close(None),
            3 if waits(limits.handshake) => close(None),
            5 if waits(limits.body) => close(Some(Late::Body)),
            2 | 5 if !is_http2 && is_over(self.began.load(Relaxed), limits.request) => close(Some(Late::Request)),
            _ => None,
        }
    }
}

/// All connections of a worker.
pub(super) struct Sweeper {
    clock: Arc<AtomicU64>,
    watches: Mutex<Vec<Weak<Watch>>>,
    origin: Instant,
    /// The wall clock at `origin`, in milliseconds since 1970.
    wall: AtomicU64,
}

impl Default for Sweeper {
    fn default() -> Self {
        let sweeper =
            Self { clock: Arc::default(), watches: Mutex::default(), origin: Instant::now(), wall: AtomicU64::new(0) };
        sweeper.set_wall();
        sweeper
    }
}

impl Sweeper {
    /// The wall clock at an instant. Computed from the last sweep's reading: a second look at the clock for each request
    /// would cost more than the addition, and a clock that is set is noticed within a sweep.
    pub(super) fn wall_at(&self, instant: Instant) -> Timestamp {
        let since = instant.saturating_duration_since(self.origin);
        Timestamp::from_millis(self.wall.load(Relaxed) + since.as_secs() * 1_000 + u64::from(since.subsec_millis()))
    }

    fn set_wall(&self) {
        let since = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or_default();
        self.wall.store(Timestamp::from(SystemTime::now()).millis().saturating_sub(since), Relaxed);
    }

    /// Watches a new connection, which begins by waiting for a head.
    pub(super) fn watch(&self, limits: WaitLimits) -> Arc<Watch> {
        let watch = Arc::new(Watch {
            doing: AtomicU64::default(),
            signal: AtomicU8::default(),
            waker: OnceLock::new(),
            secret: DigestCell::default(),
            judged: AtomicU64::default(),
            withdrawn: AtomicU8::default(),
            cut: AtomicBool::default(),
            stuck: AtomicBool::default(),
            requests: AtomicU32::default(),
            began: AtomicU64::default(),
            is_http2: AtomicBool::default(),
            limits,
            clock: self.clock.clone(),
        });
        watch.enter(Doing::Head);
        self.lock().push(Arc::downgrade(&watch));
        watch
    }

    /// Asks every connection to do something.
    pub(super) fn send_all(&self, signal: Signal) {
        self.each(|watch| watch.send(signal));
    }

    /// Looks at every connection.
    pub(super) fn each(&self, look: impl FnMut(Arc<Watch>)) {
        self.lock().iter().filter_map(Weak::upgrade).for_each(look);
    }

    /// Sweeps for ever. `also` is called each time, `late` for each request that is ended.
    pub(super) async fn run(&self, mut also: impl FnMut(), late: impl Fn(Late)) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let now = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(TIME) & TIME;
            self.clock.store(now, Relaxed);
            self.set_wall();
            self.lock().retain(|watch| match watch.upgrade() {
                Some(watch) => {
                    if let Some((signal, what)) = watch.overdue(now).filter(|_| !watch.was_closed()) {
                        what.into_iter().for_each(&late);
                        watch.send(signal);
                    }
                    true
                }
                None => false,
            });
            also();
        }
    }

    /// A panic elsewhere cannot leave the list half changed.
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Watch>>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drives a connection until it ends or is told to close. `finish` is called once when it is asked to finish.
pub(super) async fn drive<C: Future>(watch: &Watch, connection: C, finish: impl Fn(Pin<&mut C>)) {
    drive_from(Signal::Finish, watch, connection, finish).await;
}

/// The same; it is asked to finish already by this signal.
pub(super) async fn drive_from<C: Future>(first: Signal, watch: &Watch, connection: C, finish: impl Fn(Pin<&mut C>)) {
    let mut connection = pin!(connection);
    let mut finishing = false;
    poll_fn(|cx: &mut Context<'_>| {
        watch.waker.get_or_init(|| cx.waker().clone());
        let signal = watch.signal.load(Relaxed);
        if signal == Signal::Close as u8 {
            return Poll::Ready(());
        }
        if signal >= first as u8 && !finishing {
            finishing = true;
            finish(connection.as_mut());
        }
        connection.as_mut().poll(cx).map(|_| ())
    })
    .await;
}

/// Waits for something that may be given up at any time, and then there is nothing.
pub(super) async fn attempt<F: Future>(watch: &Watch, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx: &mut Context<'_>| {
        watch.waker.get_or_init(|| cx.waker().clone());
        match watch.signal.load(Relaxed) >= Signal::Finish as u8 {
            true => Poll::Ready(None),
            false => future.as_mut().poll(cx).map(Some),
        }
    })
    .await
}

/// A client's socket that notes what passes. HTTP/1 has a guard that sees all that comes, and the first bytes after a rest
/// are those of a head; in HTTP/2 they can be anything.
pub(super) struct WatchedSocket<S> {
    socket: S,
    watch: Arc<Watch>,
    guard: Option<HeadGuard>,
}

impl<S> WatchedSocket<S> {
    pub(super) fn new(socket: S, watch: Arc<Watch>, guard: Option<HeadGuard>) -> Self {
        Self { socket, watch, guard }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedSocket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.socket).poll_read(cx, buffer);
        if let (true, Some(guard)) = (result.is_ready(), &mut this.guard) {
            // Behind a 101 there are no heads.
            if !this.watch.is(Doing::Gone) {
                guard.follow(&buffer.filled()[before..]);
            }
            if this.watch.is(Doing::Idle) {
                this.watch.enter(Doing::Head);
            }
        } else if result.is_ready() && this.watch.is(Doing::Head) {
            this.watch.enter(Doing::Idle);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.watch.stuck.store(result.is_pending(), Relaxed);
        if result.is_ready() {
            self.watch.wrote();
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let result = Pin::new(&mut self.socket).poll_flush(cx);
        // TLS keeps bytes that it has taken.
        self.watch.stuck.store(result.is_pending(), Relaxed);
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn outlives(doing: Doing, limits: WaitLimits, wait: Duration) -> bool {
        let sweeper = Sweeper::default();
        let watch = sweeper.watch(limits);
        watch.enter(doing);
        tokio::select! {
            () = sweeper.run(|| (), |_| ()) => unreachable!("it sweeps for ever"),
            () = drive(&watch, std::future::pending::<()>(), |_| ()) => false,
            () = tokio::time::sleep(wait) => true,
        }
    }

    #[tokio::test]
    async fn ends_what_has_waited_too_long_and_nothing_else() {
        let (short, long, wait) = (Duration::from_millis(100), Duration::from_secs(60), Duration::from_millis(900));
        let none = WaitLimits::NONE;
        assert!(!outlives(Doing::Idle, WaitLimits { idle: short, ..none }, wait).await);
        let all_but = |idle, body, request| WaitLimits { idle, head: short, handshake: short, body, request };
        assert!(outlives(Doing::Idle, all_but(long, short, short), wait).await);
        assert!(!outlives(Doing::Head, WaitLimits { head: short, ..none }, wait).await);
        assert!(!outlives(Doing::Handshake, WaitLimits { handshake: short, ..none }, wait).await);
        assert!(!outlives(Doing::Body, WaitLimits { body: short, ..none }, wait).await);
        assert!(!outlives(Doing::Body, WaitLimits { request: short, ..none }, wait).await);
        assert!(!outlives(Doing::Work, WaitLimits { request: short, ..none }, wait).await);
        assert!(outlives(Doing::Work, all_but(short, short, long), wait).await);
    }

    #[tokio::test]
    async fn what_may_be_given_up_ends_when_it_is_asked_to() {
        let sweeper = Sweeper::default();
        let watch = sweeper.watch(WaitLimits::NONE);
        assert_eq!(attempt(&watch, async { 7 }).await, Some(7));
        let (attempted, ()) = tokio::join!(attempt(&watch, std::future::pending::<()>()), async {
            tokio::task::yield_now().await;
            sweeper.send_all(Signal::Finish);
        });
        assert_eq!(attempted, None);
        assert!(!watch.was_closed());
    }
}
