//! Time limits without timers: every connection notes when it began to wait, and a sweep a few times a second ends those
//! that have waited too long.
//!
//! A timer per request costs 3 % of it; noting the time costs a store. In exchange a limit may be up to half a second late;
//! it is never early.

mod socket;
#[cfg(test)]
mod tests;

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

pub(super) use self::socket::WatchedSocket;
use crate::auth::address::AddressCell;
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
    /// A request has come, and its answer has not begun.
    Asked = 6,
    /// It waits for the upstream in the middle of an answer.
    Pause = 7,
}

impl Doing {
    /// All of them, in order of their numbers.
    const ALL: [Self; 8] =
        [Self::Idle, Self::Head, Self::Work, Self::Handshake, Self::Gone, Self::Body, Self::Asked, Self::Pause];

    /// Reads a note.
    fn of(note: u64) -> Option<Self> {
        usize::try_from(note >> TIME_BITS).ok().and_then(|place| Self::ALL.get(place)).copied()
    }
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
    pub(super) pause: Duration,
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
        pause: Duration::MAX,
        request: Duration::MAX,
    };
}

/// What took too long in the middle of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// The client, to send or to read.
    Body = 1,
    /// The request as a whole.
    Request = 2,
    /// The upstream, to go on with its answer.
    Answer = 3,
}

/// What is to be done about a connection that has done what it does for too long.
enum Due {
    Tell(Signal),
    /// The request in progress is to be answered now.
    Answer,
    /// It is to be ended in the middle of its request.
    Cut(Late),
}

/// One connection's notes, or those of one stream of HTTP/2. Only its worker's thread writes them, so no write has to be one
/// with the read before it.
pub(super) struct Watch {
    /// What it is doing (upper 3 bits), and since when by the coarse clock, in milliseconds.
    doing: AtomicU64,
    /// How many requests are in progress.
    requests: AtomicU32,
    /// When the last of them began; whether its time is [`OVER`], and it has yet to be answered.
    began: AtomicU64,
    /// Whether any number of requests may be in progress, and the client can be told to go.
    is_http2: AtomicBool,
    signal: AtomicU8,
    waker: OnceLock<Waker>,
    /// What was presented for what is in flight, as long as it is.
    secret: DigestCell,
    /// For whom it is, if that is known.
    client: AddressCell,
    /// `doing`, as it was when that was last judged.
    judged: AtomicU64,
    /// Why it was not good any more: a [`Denial`], counted from 1.
    withdrawn: AtomicU8,
    /// Why it was cut off in the middle of a request: a [`Late`].
    late: AtomicU8,
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
/// The bit of a request's beginning that says that its time is over.
const OVER: u64 = 1 << TIME_BITS;
/// The beginning of a connection's first request, as long as there is none; an upstream's never has one. Its time is not over.
const NEVER: u64 = TIME;

impl Watch {
    /// Notes what the connection does from now on.
    pub(super) fn enter(&self, doing: Doing) {
        self.doing.store((doing as u64) << TIME_BITS | self.clock.load(Relaxed), Relaxed);
    }

    /// Whether that is what it does.
    pub(super) fn is(&self, doing: Doing) -> bool {
        self.doing.load(Relaxed) >> TIME_BITS == doing as u64
    }

    /// Whether it has done the same for a while: at least since before the last sweep.
    pub(super) fn has_rested(&self) -> bool {
        self.doing.load(Relaxed) & TIME != self.clock.load(Relaxed)
    }

    /// Whether it was told to close, as those are that have waited too long.
    pub(super) fn was_closed(&self) -> bool {
        self.signal.load(Relaxed) == Signal::Close as u8
    }

    /// Whether it was told to close in the midst of something.
    pub(super) fn was_cut_off(&self) -> bool {
        self.was_closed() && self.cut.load(Relaxed)
    }

    /// Whether it was told to close before its first request.
    pub(super) fn was_closed_early(&self) -> bool {
        self.was_closed() && self.began.load(Relaxed) == NEVER
    }

    /// What was late when it was cut off in the middle of a request.
    pub(super) fn late(&self) -> Option<Late> {
        let late = self.late.load(Relaxed);
        [Late::Body, Late::Request, Late::Answer].into_iter().find(|what| *what as u8 == late)
    }

    /// Waits for something as long as the request in progress has time; afterwards there is nothing.
    pub(super) async fn in_time<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx: &mut Context<'_>| match self.began.load(Relaxed) & OVER {
            0 => future.as_mut().poll(cx).map(Some),
            _ => Poll::Ready(None),
        })
        .await
    }

    /// Notes what was presented for what is in flight from now on; nothing is when there is no secret.
    pub(super) fn hold(&self, secret: Option<Digest>) {
        self.secret.set(secret);
    }

    /// Notes who the client is: once for a connection, and for each request where proxies that are trusted say so.
    pub(super) fn speaks_for(&self, client: Option<IpAddr>) {
        self.client.set(client);
    }

    /// Who the client is, if that is known.
    pub(super) fn client(&self) -> Option<IpAddr> {
        self.client.get()
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
        let is_stuck = || self.stuck.load(Relaxed);
        self.cut.load(Relaxed) || (!self.is_http2.load(Relaxed) && (self.is_busy() || is_stuck()))
    }

    /// Whether a request is in progress.
    fn is_busy(&self) -> bool {
        [Doing::Asked, Doing::Work, Doing::Body, Doing::Pause].into_iter().any(|doing| self.is(doing))
    }

    fn send(&self, signal: Signal) {
        if signal == Signal::Close && self.is_busy() {
            self.cut();
        }
        self.signal.fetch_max(signal as u8, Relaxed);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// Notes that a request begins.
    pub(super) fn begin(&self) {
        self.requests.store(self.requests.load(Relaxed) + 1, Relaxed);
        self.began.store(self.clock.load(Relaxed), Relaxed);
        self.enter(Doing::Asked);
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
    fn overdue(&self, now: u64) -> Option<Due> {
        let (doing, limits) = (self.doing.load(Relaxed), &self.limits);
        // The clock that a note was made by may have been a sweep behind.
        let is_over = |since: u64, limit: Duration| {
            u128::from(now.saturating_sub(since)) > limit.saturating_add(SWEEP).as_millis()
        };
        let waits = |limit: Duration| is_over(doing & TIME, limit);
        let is_http2 = self.is_http2.load(Relaxed);
        let close = Some(Due::Tell(Signal::Close));
        let began = self.began.load(Relaxed);
        let has_time = || is_http2 || !is_over(began & TIME, limits.request);
        match Doing::of(doing)? {
            // It is told first: a request that is on its way right now is then not lost.
            Doing::Idle if is_http2 && !waits(limits.idle.saturating_mul(2)) => {
                waits(limits.idle).then_some(Due::Tell(Signal::Finish))
            }
            Doing::Idle => close.filter(|_| waits(limits.idle)),
            Doing::Head => close.filter(|_| waits(limits.head)),
            Doing::Handshake => close.filter(|_| waits(limits.handshake)),
            Doing::Gone => None,
            Doing::Body if waits(limits.body) => Some(Due::Cut(Late::Body)),
            Doing::Pause if waits(limits.pause) => Some(Due::Cut(Late::Answer)),
            // The client may still read that it is late, as it may any answer.
            Doing::Body if began & OVER != 0 => None,
            Doing::Work | Doing::Body | Doing::Asked | Doing::Pause if has_time() => None,
            // It was asked to answer a sweep ago, and cannot, since the client does not read what comes before.
            Doing::Asked if began & OVER == 0 => Some(Due::Answer),
            Doing::Work | Doing::Body | Doing::Asked | Doing::Pause => Some(Due::Cut(Late::Request)),
        }
    }

    fn carry_out(&self, due: Due, count: impl Fn(Late)) {
        match due {
            Due::Tell(signal) => self.send(signal),
            Due::Answer => {
                self.began.fetch_or(OVER, Relaxed);
                count(Late::Request);
                self.wake();
            }
            Due::Cut(late) => {
                if self.began.load(Relaxed) & OVER == 0 {
                    count(late);
                }
                self.late.store(late as u8, Relaxed);
                self.send(Signal::Close);
            }
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
            client: AddressCell::default(),
            judged: AtomicU64::default(),
            withdrawn: AtomicU8::default(),
            late: AtomicU8::default(),
            cut: AtomicBool::default(),
            stuck: AtomicBool::default(),
            requests: AtomicU32::default(),
            began: AtomicU64::new(NEVER),
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
                    if let Some(due) = watch.overdue(now).filter(|_| !watch.was_closed()) {
                        watch.carry_out(due, &late);
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

/// Drives a connection until it ends, and says how, or is told to close. `finish` is called once when it is asked to finish.
pub(super) async fn drive<C: Future>(watch: &Watch, connection: C, finish: impl Fn(Pin<&mut C>)) -> Option<C::Output> {
    drive_from(Signal::Finish, watch, connection, finish).await
}

/// The same; it is asked to finish already by this signal.
pub(super) async fn drive_from<C: Future>(
    first: Signal,
    watch: &Watch,
    connection: C,
    finish: impl Fn(Pin<&mut C>),
) -> Option<C::Output> {
    let mut connection = pin!(connection);
    let mut finishing = false;
    poll_fn(|cx: &mut Context<'_>| {
        watch.waker.get_or_init(|| cx.waker().clone());
        let signal = watch.signal.load(Relaxed);
        if signal == Signal::Close as u8 {
            return Poll::Ready(None);
        }
        if signal >= first as u8 && !finishing {
            finishing = true;
            finish(connection.as_mut());
        }
        connection.as_mut().poll(cx).map(Some)
    })
    .await
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
