//! The upstream of a row of the matrix, and everything that can be wrong with it.

use std::collections::HashSet;
use std::io::{self, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use tokio::net::TcpSocket;

use super::super::support::upstream::{Received, Turn, listen};
use super::super::support::{After, Framing, PATIENCE, Upstream, ok, until};

/// What goes wrong at the upstream, or only seems to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nobody listens any more, and kept connections have been closed.
    Down,
    /// Its backlog is full: a connection is neither accepted nor refused.
    Unaccepting,
    /// It answers whatever connects, before there is a request, and closes.
    SpeaksFirst,
    /// It reads the request and says nothing.
    Silent,
    /// The head of its answer comes in pieces.
    SlowHead,
    /// The head of its answer never ends.
    StalledHead,
    /// Its answer comes in pieces, for longer than it may take to begin.
    SlowBody,
    /// Its answer never ends.
    StalledBody,
    /// It reads the request and closes.
    Closes,
    /// It reads the request, and its connection breaks.
    Resets,
    /// Its connection breaks within a head.
    ResetInHead,
    /// Its connection breaks within a body that is framed like this.
    ResetIn(Framing),
    /// It closes before a body is complete that is framed like this.
    CutIn(Framing),
    /// Its answer ends with the connection.
    EndsByClosing,
    /// What it says is no HTTP.
    Garbage,
    /// There is another answer behind its answer.
    SecondAnswer,
    /// It answers before it has read the body, says no more, and closes when we do.
    EarlyAnswer,
    /// It has closed the connection that was kept for the request.
    ClosedKept,
    /// It says something else before its answer.
    Informational,
    /// It says something else, and then nothing.
    OnlyInformational,
    /// It switches to a protocol that nobody asked for.
    Unasked101,
    /// The head of its answer is larger than any head is.
    LargeHead,
}

impl Fault {
    /// Whether it is one of what listens, for all that connect.
    pub(super) fn is_staged(self) -> bool {
        matches!(self, Self::Down | Self::Unaccepting | Self::SpeaksFirst)
    }
}

/// A port of its own, whoever listens there at the moment.
pub(super) struct Stage {
    fault: Fault,
    pub(super) address: SocketAddr,
    upstream: Option<Upstream>,
    pub(super) seen: Arc<Seen>,
    /// Bound, so that nobody else gets the port.
    _port: TcpSocket,
}

/// How much of their answers the callers have got so far: an upstream that breaks too early would break something else.
#[derive(Default)]
pub(super) struct Seen {
    targets: Mutex<HashSet<String>>,
    more: Condvar,
    /// Requests of which only half was sent, and that were whole all the same.
    pub(super) completed: Mutex<Vec<String>>,
    /// Connections that were closed behind [`LAST`].
    pub(super) closed: AtomicUsize,
}

impl Seen {
    pub(super) fn note(&self, target: &str) {
        self.targets.lock().unwrap().insert(target.to_owned());
        self.more.notify_all();
    }

    fn wait(&self, target: &str) {
        let targets = self.targets.lock().unwrap();
        let _ = self.more.wait_timeout_while(targets, PATIENCE, |targets| !targets.contains(target)).unwrap();
    }
}

/// The bytes of an upload, of which a client that leaves sends the first half.
pub(super) const UPLOAD: [u8; 1000] = [b'u'; 1000];
pub(super) const HALF: usize = UPLOAD.len() / 2;

/// The body of a good answer tells what it is an answer to. Clients that are to read slowly get more than fits anywhere.
pub(super) fn page(target: &str) -> String {
    let times = if target.contains("ReadsSlowly") { (2 << 20) / target.len() } else { 3 };
    format!("{target}\n").repeat(times)
}

/// Once answered, the connection is closed without a word.
pub(super) const LAST: &str = "/last";

impl Stage {
    pub(super) fn new(fault: Fault) -> Self {
        let port = TcpSocket::new_v4().unwrap();
        port.set_reuseaddr(true).unwrap();
        port.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = port.local_addr().unwrap();
        let mut stage = Self { fault, address, upstream: None, seen: Arc::default(), _port: port };
        stage.mend();
        stage
    }

    /// What the upstream received since this was asked last.
    pub(super) fn take(&self) -> Vec<Received> {
        self.upstream.as_ref().map(Upstream::take).unwrap_or_default()
    }

    /// How many connections there have been to the upstream that is there now.
    pub(super) fn connections(&self) -> usize {
        self.upstream.as_ref().map_or(0, Upstream::connections)
    }

    /// Waits until a request with this target has arrived, if anything can.
    pub(super) fn wait_for(&self, target: &str) {
        if let Some(upstream) = &self.upstream {
            until("the request arrives", || {
                upstream.received().iter().any(|received| received.head.target() == target)
            });
        }
    }

    /// The fault begins, if it is one of what listens. What is given must be kept as long as it lasts.
    pub(super) fn fail(&mut self) -> Option<Broken> {
        match self.fault {
            Fault::Down => {
                self.upstream = None;
                None
            }
            Fault::Unaccepting => {
                self.upstream = None;
                Some(Broken::unaccepting(self.address))
            }
            Fault::SpeaksFirst => {
                self.upstream = None;
                Some(Broken::speaking_first(self.address))
            }
            _ => None,
        }
    }

    /// The upstream is there, and good to all but the requests that are for its fault.
    pub(super) fn mend(&mut self) {
        if self.upstream.is_none() {
            let (fault, seen) = (self.fault, self.seen.clone());
            self.upstream = Some(Upstream::at(self.address, move |turn| serve(fault, &seen, turn)));
        }
    }
}

/// Something that listens and does not do as it should.
pub(super) enum Broken {
    Unaccepting { _listener: tokio::net::TcpListener, _runtime: tokio::runtime::Runtime, _waiting: Vec<TcpStream> },
    SpeakingFirst(SocketAddr, Option<thread::JoinHandle<()>>),
}

impl Broken {
    fn unaccepting(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let inside = runtime.enter();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        until("the port is free", || socket.bind(address).is_ok());
        let listener = socket.listen(0).unwrap();
        drop(inside);
        let mut waiting = Vec::new();
        while let Ok(socket) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            waiting.push(socket);
        }
        Self::Unaccepting { _listener: listener, _runtime: runtime, _waiting: waiting }
    }

    fn speaking_first(address: SocketAddr) -> Self {
        let listener = listen(address);
        let speaking = thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                // The one that ends it sends a byte before it is spoken to.
                let _ = socket.write_all(&ok("nobody asked"));
                let _ = socket.shutdown(Shutdown::Write);
                let mut end = [0; 4];
                if io::Read::read(&mut socket, &mut end).is_ok_and(|count| &end[..count] == b"end.") {
                    return;
                }
            }
        });
        Self::SpeakingFirst(address, Some(speaking))
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        if let Self::SpeakingFirst(address, speaking) = self {
            let _ = TcpStream::connect(*address).and_then(|mut socket| socket.write_all(b"end."));
            let _ = speaking.take().map(thread::JoinHandle::join);
        }
    }
}

fn serve(fault: Fault, seen: &Seen, turn: &mut Turn<'_>) -> io::Result<After> {
    let target = turn.head.target();
    if target == LAST {
        turn.answer(&ok(&page(&target)))?;
        turn.wire.socket().shutdown(Shutdown::Both)?;
        seen.closed.fetch_add(1, SeqCst);
        return Ok(After::Close);
    }
    if !target.starts_with("/fault") {
        return turn.answer(&ok(&page(&target)));
    }
    if fault != Fault::EarlyAnswer {
        read_request(turn, &target)?;
    }
    let page = page(&target);
    match misbehave(fault, seen, turn, &page)? {
        // Half a request stays half a request, whatever became of its answer.
        After::Keep if is_half(&target) => say_no_more(seen, turn),
        after => Ok(after),
    }
}

/// Waits until the other end has gone, and notes whether it completed what it had begun.
fn say_no_more(seen: &Seen, turn: &mut Turn<'_>) -> io::Result<After> {
    let (rest, target) = (turn.wire.rest()?, turn.head.target());
    if is_half(&target) && (rest.len() >= HALF || rest.ends_with(b"0\r\n\r\n")) {
        seen.completed.lock().unwrap().push(target);
    }
    Ok(After::Close)
}

fn is_half(target: &str) -> bool {
    target.contains("LeavesIn")
}

fn read_request(turn: &mut Turn<'_>, target: &str) -> io::Result<()> {
    match turn.head.framing() {
        Framing::Length(_) if is_half(target) => turn.wire.exactly(HALF).map(drop),
        Framing::Chunked if is_half(target) => turn.wire.chunk().map(drop),
        Framing::Length(_) | Framing::Chunked | Framing::None | Framing::UntilClose => turn.body().map(drop),
    }
}

fn misbehave(fault: Fault, seen: &Seen, turn: &mut Turn<'_>, page: &str) -> io::Result<After> {
    let whole = ok(page);
    let text = match fault {
        Fault::Down | Fault::Unaccepting | Fault::SpeaksFirst => unreachable!("no request gets so far"),
        Fault::Silent => return say_no_more(seen, turn),
        Fault::Closes => return Ok(After::Close),
        Fault::Resets => return Ok(After::Reset),
        Fault::SlowHead => return send_slowly(turn, &whole, 30, Duration::from_millis(20)),
        Fault::SlowBody => {
            let (head, body) = whole.split_at(whole.len() - page.len());
            turn.wire.send(head)?;
            return send_slowly(turn, body, page.len().div_ceil(10), Duration::from_millis(80));
        }
        Fault::StalledBody => {
            turn.wire.send(&whole[..whole.len() - page.len() / 2])?;
            return say_no_more(seen, turn);
        }
        Fault::StalledHead | Fault::ResetInHead => "HTTP/1.1 200 OK\r\nContent-Le".to_owned(),
        Fault::ResetIn(framing) | Fault::CutIn(framing) => return send_part(fault, seen, turn, page, framing),
        Fault::EndsByClosing => format!("HTTP/1.1 200 OK\r\n\r\n{page}"),
        Fault::Garbage => "SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned(),
        Fault::EarlyAnswer => {
            format!(
                "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{page}",
                page.len()
            )
        }
        Fault::Informational => INFORMATIONAL.to_owned(),
        Fault::OnlyInformational => INFORMATIONAL.to_owned(),
        Fault::Unasked101 => {
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".to_owned()
        }
        Fault::LargeHead => format!("HTTP/1.1 200 OK\r\nX-Large: {}\r\n\r\n", "x".repeat(1 << 20)),
        Fault::ClosedKept | Fault::SecondAnswer => String::new(),
    };
    turn.wire.send(text.as_bytes())?;
    match fault {
        Fault::ResetInHead => return Ok(After::Reset),
        Fault::EndsByClosing => return Ok(After::Close),
        // As servers do that want their answer to arrive: what is still sent to a closed socket would destroy it.
        Fault::EarlyAnswer => {
            turn.wire.socket().shutdown(Shutdown::Write)?;
            turn.wire.rest()?;
            return Ok(After::Close);
        }
        Fault::Informational | Fault::ClosedKept => turn.wire.send(&whole)?,
        Fault::SecondAnswer => turn.wire.send(&[whole, ok("nobody asked")].concat())?,
        _ => return say_no_more(seen, turn),
    }
    Ok(After::Keep)
}

const INFORMATIONAL: &str =
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n";

/// Sends ten pieces with pauses, and what is left at once.
fn send_slowly(turn: &mut Turn<'_>, bytes: &[u8], piece: usize, pause: Duration) -> io::Result<After> {
    let (slow, rest) = bytes.split_at(bytes.len().min(piece * 10));
    for piece in slow.chunks(piece) {
        turn.wire.send(piece)?;
        thread::sleep(pause);
    }
    turn.wire.send(rest).map(|()| After::Keep)
}

/// Sends a head and half of what it promises, waits until the caller has seen something of it, and breaks off.
fn send_part(fault: Fault, seen: &Seen, turn: &mut Turn<'_>, page: &str, framing: Framing) -> io::Result<After> {
    let part = &page.as_bytes()[..page.len() / 2];
    let head = match framing {
        Framing::Length(_) => format!("Content-Length: {}\r\n", page.len()),
        Framing::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
        Framing::None | Framing::UntilClose => String::new(),
    };
    turn.wire.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n").as_bytes())?;
    match framing {
        Framing::Chunked => turn.wire.send_chunk(part)?,
        Framing::Length(_) | Framing::None | Framing::UntilClose => turn.wire.send(part)?,
    }
    seen.wait(&turn.head.target());
    Ok(if matches!(fault, Fault::ResetIn(_)) { After::Reset } else { After::Close })
}
