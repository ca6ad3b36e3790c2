//! What is sent along with a question. It stays where it comes in until whoever answers wants it: so nobody whose head is not
//! good enough makes the process hold anything, and however much is wanted, so much of it at a time and no more.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Request;
use hyper::body::{Body as _, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::Ask;
use super::desk::Place;
use crate::linger;

/// For all that is sent along, and for the next piece of what is long.
const TIMEOUT: Duration = Duration::from_secs(5);
/// For all of what is long.
const LONG_TIMEOUT: Duration = Duration::from_secs(60);

/// How much may be sent along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Longest {
    /// By those of whom nothing is known.
    Brief,
    /// By those whose signature is looked at when all of it is there.
    Signed,
    /// By those who may do what they ask for.
    Usual,
    /// By them, where it is a list: some 50,000 keys.
    List,
}

impl Longest {
    /// In bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Brief => 8 * 1024,
            Self::Signed | Self::Usual => 64 * 1024,
            Self::List => 4 * 1024 * 1024,
        }
    }

    const fn time(self) -> Duration {
        match self {
            Self::Brief | Self::Signed | Self::Usual => TIMEOUT,
            Self::List => LONG_TIMEOUT,
        }
    }
}

/// Of how many it is read at a time: 2, 1, 16 and 16 MiB.
#[derive(Clone)]
pub(super) struct Readers {
    brief: Arc<Semaphore>,
    signed: Arc<Semaphore>,
    usual: Arc<Semaphore>,
    lists: Arc<Semaphore>,
}

impl Default for Readers {
    fn default() -> Self {
        let so_many = |count| Arc::new(Semaphore::new(count));
        Self { brief: so_many(256), signed: so_many(16), usual: so_many(256), lists: so_many(4) }
    }
}

impl Readers {
    fn one_more(&self, longest: Longest) -> Result<OwnedSemaphorePermit, Unread> {
        let room = match longest {
            Longest::Brief => &self.brief,
            Longest::Signed => &self.signed,
            Longest::Usual => &self.usual,
            Longest::List => &self.lists,
        };
        room.clone().try_acquire_owned().map_err(|_| Unread::NoRoom)
    }
}

/// Why what is sent along cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is longer than the limit.
    TooLong,
    /// It broke off.
    Broken,
    /// It did not come in time.
    Late,
    /// Too much of others is being read.
    NoRoom,
}

/// What is sent along, for those who answer.
pub enum Sent {
    /// Nothing.
    Nothing,
    /// It has yet to be read, elsewhere.
    Coming(Elsewhere),
    /// It was read, and counts as long as it is there.
    Read(OwnedSemaphorePermit),
}

/// Where it can be read.
pub struct Elsewhere {
    pub(super) wish: oneshot::Sender<Wish>,
    pub(super) place: Arc<Place>,
    pub(super) readers: Readers,
}

/// That somebody wants to have it.
pub(super) struct Wish {
    longest: Longest,
    read: oneshot::Sender<Result<Bytes, Unread>>,
}

impl Sent {
    /// Reads it, the first time that it is called. Meanwhile there is no place at the desk for whoever sends it.
    ///
    /// # Errors
    /// When there is too much of it, of this or of others', or it does not come.
    pub async fn read(&mut self, longest: Longest) -> Result<Bytes, Unread> {
        let Self::Coming(Elsewhere { wish, place, readers }) = std::mem::replace(self, Self::Nothing) else {
            return Ok(Bytes::new());
        };
        *self = Self::Read(readers.one_more(longest)?);
        place.leave();
        let (read, reading) = oneshot::channel();
        // Where nobody is there any more to send it, there is nobody to read it either.
        let _ = wish.send(Wish { longest, read });
        let read = reading.await.unwrap_or(Err(Unread::Broken));
        place.come_back().await;
        read
    }
}

/// What is sent along, where it comes in. What nobody wants of it is read for a while, and forgotten.
pub struct Coming {
    body: Option<Incoming>,
    lingers: bool,
    /// The questions of a guest, of which none counts while more of it is awaited.
    asked: Option<Arc<AtomicUsize>>,
}

impl Coming {
    /// A question, and what is sent along with it.
    pub fn apart(request: Request<Incoming>, peer: IpAddr) -> (Ask, Self) {
        let lingers = linger::is_wanted(&request);
        let (parts, body) = request.into_parts();
        (Ask::of(parts, peer), Self { body: Some(body).filter(|body| !body.is_end_stream()), lingers, asked: None })
    }

    /// Nothing.
    #[cfg(test)]
    pub(super) fn nothing() -> Self {
        Self { body: None, lingers: false, asked: None }
    }

    pub(super) fn of_guest(mut self, asked: Arc<AtomicUsize>) -> Self {
        self.asked = Some(asked);
        self
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.body.is_none()
    }

    /// Reads it for whoever wants it, and lets go of the rest.
    pub(super) async fn grant(mut self, Wish { longest, read }: Wish) {
        let _pause = self.asked.clone().map(Pause::begin);
        let gathered = timeout(longest.time(), self.gather(longest.bytes())).await.unwrap_or(Err(Unread::Late));
        // Who has not sent it in time is not waited for again.
        self.body = self.body.take().filter(|_| gathered != Err(Unread::Late));
        // Whoever wanted it may have gone.
        let _ = read.send(gathered);
    }

    async fn gather(&mut self, limit: usize) -> Result<Bytes, Unread> {
        let (Some(body), mut read) = (&mut self.body, BytesMut::new()) else { return Ok(Bytes::new()) };
        if body.size_hint().lower() > limit as u64 {
            return Err(Unread::TooLong);
        }
        loop {
            let next = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
            let Some(frame) = timeout(TIMEOUT, next).await.map_err(|_| Unread::Late)? else { break };
            let Ok(frame) = frame else {
                self.body = None;
                return Err(Unread::Broken);
            };
            let Ok(data) = frame.into_data() else { continue };
            if read.len() + data.len() > limit {
                return Err(Unread::TooLong);
            }
            read.extend_from_slice(&data);
        }
        self.body = None;
        Ok(read.freeze())
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|_| self.lingers) {
            linger::start(body);
        }
    }
}

/// As long as it is there, a guest asks one question less.
struct Pause(Arc<AtomicUsize>);

impl Pause {
    fn begin(asked: Arc<AtomicUsize>) -> Self {
        asked.fetch_sub(1, Relaxed);
        Self(asked)
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}
