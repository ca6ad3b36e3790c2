//! Time limits without timers: every connection notes when it began to wait, and a sweep a few times a second ends those
//! that have waited too long.
//!
//! A timer per request costs 3 % of it; noting the time costs a store. In exchange a limit may be up to half a second late;
//! it is never early.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
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
}

/// What a connection is asked to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// To finish what it is doing, and close.
    Finish = 1,
    /// To close.
    Close = 2,
}

/// How long a connection may do what takes no effort.
#[derive(Clone, Copy)]
pub(super) struct WaitLimits {
    pub(super) idle: Duration,
    pub(super) head: Duration,
    pub(super) handshake: Duration,
}

impl WaitLimits {
    /// No limits at all.
    pub(super) const NONE: Self = Self { idle: Duration::MAX, head: Duration::MAX, handshake: Duration::MAX };
}

/// One connection's notes.
pub(super) struct Watch {
    /// What it is doing (upper 3 bits), and since when by the coarse clock, in milliseconds.
    doing: AtomicU64,
    signal: AtomicU8,
    waker: OnceLock<Waker>,
    /// What was presented for what is in flight, as long as it is.
    secret: DigestCell,
    /// `doing`, as it was when that was last judged.
    judged: AtomicU64,
    /// Why it was not good any more: a [`Denial`], counted from 1.
    withdrawn: AtomicU8,
    /// Whether it was told to close in the midst of something.
    cut: AtomicBool,
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

    /// Whether it was told to close in the midst of something.
    pub(super) fn was_cut(&self) -> bool {
        self.cut.load(Relaxed)
    }

    fn send(&self, signal: Signal) {
        if signal == Signal::Close && self.is(Doing::Work) {
            self.cut.store(true, Relaxed);
        }
        self.signal.fetch_max(signal as u8, Relaxed);
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    fn is_overdue(&self, now: u64) -> bool {
        let doing = self.doing.load(Relaxed);
        let limit = match doing >> TIME_BITS {
            0 => self.limits.idle,
            1 => self.limits.head,
            3 => self.limits.handshake,
            _ => return false,
        };
        // The clock that the note was made by may have been a sweep behind.
        u128::from(now.saturating_sub(doing & TIME)) > limit.saturating_add(SWEEP).as_millis()
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

    /// Sweeps for ever. `also` is called each time.
    pub(super) async fn run(&self, mut also: impl FnMut()) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let now = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(TIME) & TIME;
            self.clock.store(now, Relaxed);
            self.set_wall();
            self.lock().retain(|watch| match watch.upgrade() {
                Some(watch) => {
                    if watch.is_overdue(now) {
                        watch.send(Signal::Close);
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
    let mut connection = pin!(connection);
    let mut finishing = false;
    poll_fn(|cx: &mut Context<'_>| {
        watch.waker.get_or_init(|| cx.waker().clone());
        let signal = watch.signal.load(Relaxed);
        if signal == Signal::Close as u8 {
            return Poll::Ready(());
        }
        if signal == Signal::Finish as u8 && !finishing {
            finishing = true;
            finish(connection.as_mut());
        }
        connection.as_mut().poll(cx).map(|_| ())
    })
    .await;
}

/// Waits for something that may be given up at any time: any signal ends it, and then there is nothing.
pub(super) async fn attempt<F: Future>(watch: &Watch, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx: &mut Context<'_>| {
        watch.waker.get_or_init(|| cx.waker().clone());
        match watch.signal.load(Relaxed) {
            0 => future.as_mut().poll(cx).map(Some),
            _ => Poll::Ready(None),
        }
    })
    .await
}

/// A client's socket that notes the first bytes of a request, and shows all of them to the guard.
pub(super) struct WatchedSocket<S> {
    socket: S,
    watch: Arc<Watch>,
    guard: HeadGuard,
}

impl<S> WatchedSocket<S> {
    pub(super) fn new(socket: S, watch: Arc<Watch>, guard: HeadGuard) -> Self {
        Self { socket, watch, guard }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedSocket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.socket).poll_read(cx, buffer);
        if result.is_ready() {
            this.guard.follow(&buffer.filled()[before..]);
            if this.watch.is(Doing::Idle) {
                this.watch.enter(Doing::Head);
            }
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write(cx, bytes);
        // The end of an answer may still be on its way to a slow client when the request has long been settled.
        if result.is_ready() && self.watch.is(Doing::Idle) {
            self.watch.enter(Doing::Idle);
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
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
            () = sweeper.run(|| ()) => unreachable!("it sweeps for ever"),
            () = drive(&watch, std::future::pending::<()>(), |_| ()) => false,
            () = tokio::time::sleep(wait) => true,
        }
    }

    #[tokio::test]
    async fn ends_what_has_waited_too_long_and_nothing_else() {
        let (short, long, wait) = (Duration::from_millis(100), Duration::from_secs(60), Duration::from_millis(900));
        let none = WaitLimits::NONE;
        assert!(!outlives(Doing::Idle, WaitLimits { idle: short, ..none }, wait).await);
        assert!(outlives(Doing::Idle, WaitLimits { idle: long, head: short, handshake: short }, wait).await);
        assert!(!outlives(Doing::Head, WaitLimits { head: short, ..none }, wait).await);
        assert!(!outlives(Doing::Handshake, WaitLimits { handshake: short, ..none }, wait).await);
        assert!(outlives(Doing::Work, WaitLimits { idle: short, head: short, handshake: short }, wait).await);
    }

    #[tokio::test]
    async fn what_may_be_given_up_ends_with_any_signal() {
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
