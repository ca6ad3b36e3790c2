//! How clients connect, and how they ask: one request after the other, or several at a time.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::super::support::certificates::Authority;
use super::super::support::http2::{self, Http2};
use super::super::support::upstream::PAGE;
use super::super::support::{Client, Key, PATIENCE, door, request};

/// How many requests a client sends over one connection where it leaves by itself, so that there are handshakes all the time.
const MANY: usize = 20;

/// How many streams a client begins at a time.
const STREAMS: usize = 4;

/// How clients connect.
pub(super) trait Way: Send + Sync {
    fn connect(&self, address: SocketAddr) -> Box<dyn Connection>;
}

/// Carries one request after the other.
pub(super) trait Connection {
    /// Sends a request or several, of which the answers must be good.
    fn ask(&mut self) -> io::Result<Asked>;
}

/// What became of it.
pub(super) struct Asked {
    /// None were sent if the connection had ended.
    pub(super) answered: usize,
    /// How many were refused before anything was made of them, and said so: they have to be sent again.
    pub(super) refused: usize,
    /// Whether the connection takes more.
    pub(super) goes_on: bool,
}

/// HTTP/1.1 in the clear.
pub(super) struct Plain {
    get: Vec<u8>,
}

fn get(key: &Key) -> Vec<u8> {
    request("GET", "/x", &[("X-API-Key", &key.value)], b"")
}

impl Plain {
    pub(super) fn new(key: &Key) -> Self {
        Self { get: get(key) }
    }
}

impl Way for Plain {
    fn connect(&self, address: SocketAddr) -> Box<dyn Connection> {
        Box::new(PlainConnection { client: Client::connect(address), get: self.get.clone() })
    }
}

struct PlainConnection {
    client: Client,
    get: Vec<u8>,
}

impl Connection for PlainConnection {
    fn ask(&mut self) -> io::Result<Asked> {
        self.client.send(&self.get);
        let response = self.client.try_response()?;
        assert_eq!(response.status, 200);
        Ok(Asked { answered: 1, refused: 0, goes_on: response.value("connection").as_deref() != Some("close") })
    }
}

/// Whom a client of TLS believes.
#[derive(Clone)]
pub(super) struct Tls(Arc<ClientConfig>);

impl Tls {
    pub(super) fn trusting(ca: &Authority) -> Self {
        Self(Arc::new(door::trusting(ca, "")))
    }

    fn stream(&self, address: SocketAddr) -> StreamOwned<ClientConnection, TcpStream> {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let connection = ClientConnection::new(self.0.clone(), "localhost".try_into().unwrap()).unwrap();
        StreamOwned::new(connection, socket)
    }

    /// The certificate that a new connection gets.
    pub(super) fn certificate(&self, address: SocketAddr) -> CertificateDer<'static> {
        let mut stream = self.stream(address);
        stream.conn.complete_io(&mut stream.sock).unwrap();
        stream.conn.peer_certificates().unwrap()[0].clone().into_owned()
    }
}

/// HTTP/1.1 by TLS.
pub(super) struct Secure {
    tls: Tls,
    get: Vec<u8>,
}

impl Secure {
    pub(super) fn new(key: &Key, tls: Tls) -> Self {
        Self { tls, get: get(key) }
    }
}

impl Way for Secure {
    fn connect(&self, address: SocketAddr) -> Box<dyn Connection> {
        Box::new(SecureConnection { stream: self.tls.stream(address), get: self.get.clone(), left: MANY })
    }
}

struct SecureConnection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    get: Vec<u8>,
    left: usize,
}

impl Connection for SecureConnection {
    fn ask(&mut self) -> io::Result<Asked> {
        self.stream.write_all(&self.get)?;
        let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
        while !said.ends_with(PAGE.as_bytes()) {
            match self.stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => said.extend_from_slice(&buffer[..count]),
            }
        }
        assert!(said.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&said));
        self.left -= 1;
        Ok(Asked { answered: 1, refused: 0, goes_on: self.left > 0 })
    }
}

/// HTTP/2.
pub(super) struct Multiplexed {
    key: Key,
    /// Where clients connect instead, if they do so again and again.
    door: Option<SocketAddr>,
}

impl Multiplexed {
    pub(super) fn new(key: &Key) -> Self {
        Self { key: key.clone(), door: None }
    }

    /// By TLS, through a port that leads there.
    pub(super) fn by_tls(key: &Key, ca: &Authority, to: SocketAddr) -> Self {
        Self { key: key.clone(), door: Some(door::open(to, ca, "h2")) }
    }
}

impl Way for Multiplexed {
    fn connect(&self, address: SocketAddr) -> Box<dyn Connection> {
        let client = Http2::connect(self.door.unwrap_or(address));
        // In the clear a client stays until it is sent away.
        let left = if self.door.is_some() { MANY } else { usize::MAX };
        Box::new(MultiplexedConnection { client, key: self.key.clone(), left })
    }
}

struct MultiplexedConnection {
    client: Http2,
    key: Key,
    left: usize,
}

impl Connection for MultiplexedConnection {
    /// After a GOAWAY no stream can be begun. Of those that were begun, the ones behind the last that it names were not processed:
    /// every library sends them again, as it does those whose stream is refused (RFC 9113 sections 6.8 and 8.7). All others must
    /// be answered.
    fn ask(&mut self) -> io::Result<Asked> {
        let get = || http2::request("GET", "/x", &[("x-api-key", &self.key.value)]);
        let begun: Vec<_> = (0..STREAMS).map_while(|_| self.client.begin(get(), true).ok()).collect();
        let (mut answered, mut refused) = (0, 0);
        for exchange in begun {
            match self.client.finish(exchange) {
                Err(error) if error.is_remote() && is_unprocessed(&error) => refused += 1,
                answer => {
                    assert_eq!(answer.map_err(io::Error::other)?.body, PAGE.as_bytes());
                    answered += 1;
                }
            }
        }
        self.left = self.left.saturating_sub(answered);
        Ok(Asked { answered, refused, goes_on: answered == STREAMS && self.left > 0 })
    }
}

/// Whether it says that nothing was made of a request.
fn is_unprocessed(error: &h2::Error) -> bool {
    error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM)
}
