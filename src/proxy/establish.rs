//! From a socket to a connection that carries requests: what a balancer says of the client, then TLS, then which HTTP it is.
//! All of it has a time limit, and nothing of it costs anything once requests flow.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tracing::field::display;

use super::connection;
use super::proxy_protocol::{Preamble, parse};
use super::read_ahead::ReadAhead;
use super::watch::{Doing, Watch, attempt};
use super::worker::{Current, OpenConnection, Worker};
use crate::telemetry::metrics::{Metrics, Refused};
use crate::tls;

/// A connection that carries no request yet.
pub(super) struct Arrival {
    pub(super) current: Current,
    pub(super) link: Link,
}

/// What stays with a connection, whatever the config.
pub(super) struct Link {
    pub(super) worker: Arc<Worker>,
    pub(super) watch: Arc<Watch>,
    /// Whoever is at the other end, until it says for whom it speaks.
    pub(super) peer: IpAddr,
    /// Whether the client speaks TLS.
    pub(super) is_secure: bool,
    pub(super) open: Arc<OpenConnection>,
}

/// The answer to one connection too many.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 27\r\n\
    Retry-After: 5\r\nConnection: close\r\n\r\nToo many connections here.\n";
/// How long it may take to hear it, and how many may do so at a time.
const LINGER: Duration = Duration::from_secs(1);
pub(super) const CROWD: usize = 256;

/// Why a connection ends before its first request.
enum Ending {
    /// The client went, or the process goes.
    Left,
    Refused(Refused),
    NoTls(io::Error),
}

/// Serves a connection to its end.
pub(super) async fn run(mut arrival: Arrival, socket: TcpStream) {
    let mut stream = ReadAhead::new(socket, arrival.link.watch.clone());
    let introduced = match arrival.has_room() {
        Ok(()) => introduce(&mut arrival, &mut stream).await.and_then(|()| arrival.take_place()),
        full => full,
    };
    if let Err(ending) = introduced {
        if let Ending::Refused(Refused::Connections | Refused::PeerConnections) = ending {
            arrival.say_full(stream).await;
        }
        return arrival.end(ending);
    }
    let shared = arrival.current.shared.clone();
    // The futures in boxes are large; those who speak plain HTTP/1 do not carry them about.
    match &shared.tls {
        Some(tls) => Box::pin(run_secure(arrival, stream, tls)).await,
        None if shared.http2 => match attempt(&arrival.link.watch, speaks_http2(&mut stream)).await {
            Some(false) => connection::http1(arrival, stream).await,
            Some(true) => Box::pin(connection::http2(arrival, stream)).await,
            None if arrival.link.watch.was_closed() => arrival.end(Ending::Refused(Refused::Timeout)),
            None => {}
        },
        None => connection::http1(arrival, stream).await,
    }
}

async fn run_secure(mut arrival: Arrival, stream: ReadAhead, tls: &tls::Server) {
    match secure(&mut arrival, stream, tls).await {
        Ok(accepted) if accepted.is_http2 => Box::pin(connection::http2(arrival, accepted.stream)).await,
        Ok(accepted) => connection::http1(arrival, accepted.stream).await,
        Err(ending) => arrival.end(ending),
    }
}

/// Hears whom a connection is from. A peer that owes a header of the PROXY protocol says so itself; nobody else may.
async fn introduce(arrival: &mut Arrival, stream: &mut ReadAhead) -> Result<(), Ending> {
    if !arrival.current.shared.proxy_protocol.contains(arrival.link.peer) {
        return Ok(());
    }
    if let Some(client) = arrival.attempt(client_in_header(stream)).await? {
        arrival.link.peer = client;
    }
    Ok(())
}

/// Reads the header of the PROXY protocol, and not a byte of what follows it.
async fn client_in_header(stream: &mut ReadAhead) -> Result<Option<IpAddr>, Ending> {
    loop {
        match parse(stream.ahead()) {
            Ok(Preamble::Whole { length, client }) => {
                stream.skip(length);
                return Ok(client);
            }
            Ok(Preamble::Incomplete) => {}
            Err(_) => return Err(Ending::Refused(Refused::ProxyProtocol)),
        }
        match stream.more().await {
            Ok(1..) => {}
            // Balancers open and close connections to see whether somebody is there.
            Ok(0) if stream.ahead().is_empty() => return Err(Ending::Left),
            Ok(0) => return Err(Ending::Refused(Refused::ProxyProtocol)),
            Err(_) => return Err(Ending::Left),
        }
    }
}

/// What HTTP/2 begins with; no request of HTTP/1 does (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether a client speaks HTTP/2 without having asked for it. Nearly all that do not show it in their first byte.
async fn speaks_http2(stream: &mut ReadAhead) -> bool {
    loop {
        let seen = stream.ahead().len().min(PREFACE.len());
        if stream.ahead()[..seen] != PREFACE[..seen] {
            return false;
        }
        // Whoever breaks off here is left to those who read HTTP/1: they know what to do.
        if seen == PREFACE.len() || !matches!(stream.more().await, Ok(1..)) {
            return seen == PREFACE.len();
        }
    }
}

/// Establishes TLS.
async fn secure(
    arrival: &mut Arrival,
    stream: ReadAhead,
    tls: &tls::Server,
) -> Result<tls::Accepted<ReadAhead>, Ending> {
    let accepted = arrival.attempt(shake_hands(stream, tls)).await?;
    arrival.link.is_secure = true;
    Ok(accepted)
}

/// What every TLS connection begins with: a record of the handshake.
const HANDSHAKE: u8 = 22;

/// The answer to those who speak HTTP where HTTPS is spoken.
const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 29\r\n\
    Connection: close\r\n\r\nThis port speaks HTTPS only.\n";

async fn shake_hands(mut stream: ReadAhead, tls: &tls::Server) -> Result<tls::Accepted<ReadAhead>, Ending> {
    if stream.ahead().is_empty() && !matches!(stream.more().await, Ok(1..)) {
        return Err(Ending::Left);
    }
    match stream.ahead().first() {
        Some(&HANDSHAKE) => tls.accept(stream).await.map_err(Ending::NoTls),
        first => {
            // Whoever speaks HTTP begins with a method; anybody else would not understand.
            if first.is_some_and(u8::is_ascii_uppercase) {
                let _ = stream.write_all(PLAIN).await;
                let _ = stream.shutdown().await;
            }
            Err(Ending::Refused(Refused::Tls))
        }
    }
}

impl Arrival {
    /// Takes a step before the first request, in the time that there is for all of them.
    async fn attempt<T>(&self, step: impl Future<Output = Result<T, Ending>>) -> Result<T, Ending> {
        let watch = &self.link.watch;
        if !watch.is(Doing::Handshake) {
            watch.enter(Doing::Handshake);
        }
        match attempt(watch, step).await {
            Some(result) => result,
            None if watch.was_closed() => Err(Ending::Refused(Refused::Timeout)),
            None => Err(Ending::Left),
        }
    }

    /// Whether there is room for one more. This one has been counted.
    fn has_room(&self) -> Result<(), Ending> {
        let shared = &*self.current.shared;
        let is_full = shared.metrics.proxy.connections_open.get() > shared.limits.max_connections;
        if is_full { Err(Ending::Refused(Refused::Connections)) } else { Ok(()) }
    }

    /// Takes a place among those of its peer, where they are limited.
    fn take_place(&self) -> Result<(), Ending> {
        let limit = self.current.shared.limits.max_connections_per_peer;
        if limit == 0 {
            return Ok(());
        }
        let place = self.link.worker.live.peers.enter(self.link.peer, limit);
        place.map(|place| self.link.open.keep(place)).ok_or(Ending::Refused(Refused::PeerConnections))
    }

    /// Tells a client in the clear that it was one too many. Nobody waits for long with it, or with many of them; and it
    /// takes no room from others meanwhile.
    async fn say_full(&self, mut stream: ReadAhead) {
        self.link.open.step_aside();
        let is_secure = self.current.shared.tls.is_some();
        let Some(_turn) = self.link.worker.live.refusals.try_acquire().ok().filter(|_| !is_secure) else { return };
        let told = async {
            stream.write_all(FULL).await?;
            stream.shutdown().await?;
            // Closing with unread bytes would reset the connection, and with it what was said.
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
        };
        let _ = tokio::time::timeout(LINGER, told).await;
    }

    fn end(&self, ending: Ending) {
        let (why, error) = match ending {
            Ending::Left => return,
            Ending::Refused(why) => (why, None),
            Ending::NoTls(error) => (Refused::Tls, Some(display(error))),
        };
        refuse(&self.link.worker, &self.current.shared.metrics, self.link.peer, why, error);
    }
}

/// Counts a connection that is closed for what came on it, and says so once in a while: anybody can cause such lines.
pub(super) fn refuse(
    worker: &Worker,
    metrics: &Metrics,
    peer: IpAddr,
    why: Refused,
    error: Option<impl tracing::Value>,
) {
    metrics.proxy.refused(why);
    let reason = why.label();
    match worker.live.said[why as usize].turn(Instant::now()) {
        Some(unsaid) => tracing::info!(%peer, reason, error, unsaid, "a connection was refused"),
        None => tracing::debug!(%peer, reason, error, "a connection was refused"),
    }
}
