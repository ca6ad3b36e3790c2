//! From a socket to a connection that carries requests: what a balancer says of the client comes first. All of it has one
//! time limit, and nothing of it costs anything once requests flow.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::connection;
use super::proxy_protocol::{Preamble, parse};
use super::read_ahead::ReadAhead;
use super::watch::{Doing, Watch, attempt};
use super::worker::{Current, OpenConnection, Worker};
use crate::telemetry::metrics::Refused;

/// A connection that carries no request yet.
pub(super) struct Arrival {
    pub(super) current: Current,
    pub(super) worker: Arc<Worker>,
    pub(super) watch: Arc<Watch>,
    /// Whoever is at the other end, until it says for whom it speaks.
    pub(super) peer: IpAddr,
    pub(super) open: Arc<OpenConnection>,
}

/// Why a connection ends before its first request.
enum Ending {
    /// The client went, or the process goes.
    Left,
    Refused(Refused),
}

/// Serves a connection to its end.
pub(super) async fn run(mut arrival: Arrival, socket: TcpStream) {
    let mut stream = ReadAhead::new(socket);
    match introduce(&arrival, &mut stream).await {
        Ok(peer) => {
            arrival.peer = peer;
            connection::http1(arrival, stream).await;
        }
        Err(Ending::Left) => {}
        Err(Ending::Refused(why)) => {
            tracing::debug!(peer = %arrival.peer, ?why, "a connection was closed before its first request");
            arrival.current.shared.metrics.proxy.refused(why);
        }
    }
}

/// Whom a connection is from. A peer that owes a header of the PROXY protocol says so itself; nobody else may.
async fn introduce(arrival: &Arrival, stream: &mut ReadAhead) -> Result<IpAddr, Ending> {
    if !arrival.current.shared.proxy_protocol.contains(arrival.peer) {
        return Ok(arrival.peer);
    }
    arrival.watch.enter(Doing::Handshake);
    let client = attempt(&arrival.watch, client_in_header(stream)).await;
    let client = client.unwrap_or_else(|| Err(arrival.given_up()))?;
    arrival.watch.enter(Doing::Head);
    Ok(client.unwrap_or(arrival.peer))
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

impl Arrival {
    /// Why an attempt came to nothing: it took too long, or the process goes.
    fn given_up(&self) -> Ending {
        if self.watch.was_closed() { Ending::Refused(Refused::Timeout) } else { Ending::Left }
    }
}
