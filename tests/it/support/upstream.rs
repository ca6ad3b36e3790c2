//! An upstream that remembers every byte it was sent, and answers as a test tells it to, well or badly.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::wire::{Body, Framing, Head, Wire};
use super::{PATIENCE, until};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Its head.
    pub(crate) head: Head,
    /// Its body, as far as it was read.
    pub(crate) body: Body,
    /// Which connection it came on, counted from 0.
    pub(crate) connection: usize,
}

/// What becomes of a connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// It waits for the next request.
    Keep,
    /// It is closed.
    Close,
    /// It is cut, so that the other end sees an error.
    Reset,
}

/// How requests are answered. An error closes the connection: the other end went first.
type Script = dyn Fn(&mut Turn<'_>) -> io::Result<After> + Send + Sync;

/// One request that waits for its answer.
pub(crate) struct Turn<'c> {
    /// Its head.
    pub(crate) head: Head,
    /// The connection it came on.
    pub(crate) wire: &'c mut Wire,
    place: usize,
    has_body: bool,
    memory: &'c Memory,
}

impl Turn<'_> {
    /// How many requests came before.
    pub(crate) fn earlier(&self) -> usize {
        self.place
    }

    /// Reads the body and remembers it.
    pub(crate) fn body(&mut self) -> io::Result<Body> {
        let body = self.wire.body(self.head.framing())?;
        self.has_body = true;
        let mut received = self.memory.received.lock().unwrap();
        if let Some(request) = received.get_mut(self.place) {
            request.body = body.clone();
        }
        Ok(body)
    }

    /// Sends bytes, once the body is there.
    pub(crate) fn answer(&mut self, bytes: &[u8]) -> io::Result<After> {
        if !self.has_body {
            self.body()?;
        }
        self.wire.send(bytes)?;
        Ok(After::Keep)
    }
}

/// The bytes of a good answer.
pub(crate) fn ok(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// What [`Upstream::start`] answers to everything.
pub(crate) const PAGE: &str = "<?xml version=\"1.0\"?><ok/>";

/// A running upstream. Dropping it closes its port; open connections end with the other end.
pub(crate) struct Upstream {
    address: SocketAddr,
    memory: Arc<Memory>,
    accepting: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Memory {
    received: Mutex<Vec<Received>>,
    arrived: Condvar,
    connections: AtomicUsize,
    stopped: AtomicBool,
    forgets: AtomicBool,
}

impl Upstream {
    /// Answers every request with [`PAGE`].
    pub(crate) fn start() -> Self {
        Self::scripted(|turn| turn.answer(&ok(PAGE)))
    }

    /// Answers as told.
    pub(crate) fn scripted(script: impl Fn(&mut Turn<'_>) -> io::Result<After> + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), script)
    }

    /// Answers as told, and remembers nothing: for more requests than there is memory for.
    pub(crate) fn forgetful(script: impl Fn(&mut Turn<'_>) -> io::Result<After> + Send + Sync + 'static) -> Self {
        let upstream = Self::scripted(script);
        upstream.memory.forgets.store(true, SeqCst);
        upstream
    }

    /// Answers as told, at a certain address.
    pub(crate) fn at(
        address: SocketAddr,
        script: impl Fn(&mut Turn<'_>) -> io::Result<After> + Send + Sync + 'static,
    ) -> Self {
        let listener = listen(address);
        let mut upstream = Self { address: listener.local_addr().unwrap(), memory: Arc::default(), accepting: None };
        let (memory, script) = (upstream.memory.clone(), Arc::<Script>::from(Box::new(script) as Box<Script>));
        upstream.accepting = Some(thread::spawn(move || accept(&listener, &memory, &script)));
        upstream
    }

    /// Answers with [`PAGE`], and tells of each piece of a body when it arrives.
    pub(crate) fn watching() -> (Self, Receiver<Vec<u8>>) {
        let (pieces, arrived) = mpsc::channel();
        let upstream = Self::scripted(move |turn| {
            let mut missing = match turn.head.framing() {
                Framing::Length(length) => usize::try_from(length).unwrap(),
                Framing::None | Framing::Chunked | Framing::UntilClose => usize::MAX,
            };
            while missing > 0 {
                let piece = if missing == usize::MAX { turn.wire.chunk()? } else { turn.wire.some()? };
                if piece.is_empty() {
                    turn.wire.trailers()?;
                    break;
                }
                missing = if missing == usize::MAX { missing } else { missing - piece.len() };
                // A test that has seen enough no longer listens.
                let _ = pieces.send(piece);
            }
            turn.wire.send(&ok(PAGE))?;
            Ok(After::Keep)
        });
        (upstream, arrived)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> usize {
        self.memory.connections.load(SeqCst)
    }

    /// All requests so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.memory.received.lock().unwrap().clone()
    }

    /// All requests so far, which are then forgotten. Not for use while one is being read.
    pub(crate) fn take(&self) -> Vec<Received> {
        std::mem::take(&mut *self.memory.received.lock().unwrap())
    }

    /// The only request that there was since the last look.
    #[track_caller]
    pub(crate) fn only(&self) -> Received {
        let mut received = self.take();
        assert_eq!(received.len(), 1, "{received:?}");
        received.remove(0)
    }

    /// Waits until the heads of so many requests have arrived.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Received> {
        let received = self.memory.received.lock().unwrap();
        let waited = self.memory.arrived.wait_timeout_while(received, PATIENCE, |received| received.len() < count);
        let (received, timeout) = waited.unwrap();
        assert!(!timeout.timed_out(), "{} requests arrived, not {count}", received.len());
        received.clone()
    }

    /// Fails if any request has arrived.
    #[track_caller]
    pub(crate) fn expect_nothing(&self) {
        let received = self.received();
        assert!(received.is_empty(), "the upstream received {received:?}");
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.memory.stopped.store(true, SeqCst);
        // Wakes the thread that accepts; it then closes the port.
        if TcpStream::connect(self.address).is_ok() {
            let _ = self.accepting.take().map(thread::JoinHandle::join);
        }
    }
}

/// Listens. A process that is just being started holds what was open at that moment, for a moment: even a port that is free.
pub(crate) fn listen(address: SocketAddr) -> TcpListener {
    let mut listener = None;
    until("the port is free", || {
        listener = TcpListener::bind(address).ok();
        listener.is_some()
    });
    listener.unwrap()
}

fn accept(listener: &TcpListener, memory: &Arc<Memory>, script: &Arc<Script>) {
    for socket in listener.incoming() {
        if memory.stopped.load(SeqCst) {
            return;
        }
        let Ok(socket) = socket else { continue };
        let connection = memory.connections.fetch_add(1, SeqCst);
        let (memory, script) = (memory.clone(), script.clone());
        thread::spawn(move || serve(Wire::new(socket), connection, &memory, &*script));
    }
}

/// Serves one connection. That the other end leaves, or sends nothing for long, is no failure of a test.
fn serve(mut wire: Wire, connection: usize, memory: &Memory, script: &Script) {
    while let Ok(Some(head)) = wire.head() {
        let place = memory.remember(head.clone(), connection);
        let mut turn = Turn { head, wire: &mut wire, place, has_body: false, memory };
        let after = script(&mut turn);
        match after {
            Ok(After::Keep) => {}
            Ok(After::Close) | Err(_) => return,
            // Closing with unread bytes makes the kernel answer with a reset; so does lingering for no time at all,
            // which the standard library cannot ask for.
            Ok(After::Reset) => return reset(wire),
        }
    }
}

fn reset(wire: Wire) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let _inside = runtime.enter();
    let socket = wire.into_socket();
    socket.set_nonblocking(true).unwrap();
    tokio::net::TcpStream::from_std(socket).unwrap().set_zero_linger().unwrap();
}

impl Memory {
    fn remember(&self, head: Head, connection: usize) -> usize {
        let mut received = self.received.lock().unwrap();
        if self.forgets.load(SeqCst) {
            return usize::MAX;
        }
        received.push(Received { head, body: Body::default(), connection });
        self.arrived.notify_all();
        received.len() - 1
    }
}
