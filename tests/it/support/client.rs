//! A client that sends exact bytes and reads exact answers.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};

use super::wire::{Framing, Head, Wire};

/// A connection to Keyward.
pub(crate) struct Client {
    wire: Wire,
}

/// An answer, read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// Its status.
    pub(crate) status: u16,
    /// Its head.
    pub(crate) head: Head,
    /// Its body, without framing.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The value of a field that is there once at most.
    #[track_caller]
    pub(crate) fn value(&self, name: &str) -> Option<String> {
        self.head.value(name)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// The bytes of a request with a `Host`, and a `Content-Length` where there is a body.
pub(crate) fn request(method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: media.example\r\n").into_bytes();
    for (name, value) in fields {
        bytes.extend(format!("{name}: {value}\r\n").bytes());
    }
    if !body.is_empty() {
        bytes.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    bytes
}

impl Client {
    /// Connects.
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self { wire: Wire::new(TcpStream::connect(address).unwrap()) }
    }

    /// A connection that was made already.
    pub(crate) fn over(socket: TcpStream) -> Self {
        Self { wire: Wire::new(socket) }
    }

    /// Connects from an address of one's own: all of 127.0.0.0/8 is ours.
    pub(crate) fn connect_from(source: IpAddr, address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let socket = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((source, 0).into()).unwrap();
            socket.connect(address).await.unwrap().into_std().unwrap()
        });
        socket.set_nonblocking(false).unwrap();
        Self { wire: Wire::new(socket) }
    }

    /// The connection itself.
    pub(crate) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Sends exact bytes.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.wire.send(bytes).unwrap();
    }

    /// Sends a request and reads its answer.
    #[track_caller]
    pub(crate) fn exchange(&mut self, bytes: &[u8]) -> Response {
        self.send(bytes);
        if bytes.starts_with(b"HEAD ") { self.response_to_head() } else { self.response() }
    }

    /// The next answer.
    #[track_caller]
    pub(crate) fn response(&mut self) -> Response {
        self.try_response().unwrap_or_else(|error| panic!("no whole answer: {error}"))
    }

    /// The next answer, to a HEAD.
    #[track_caller]
    pub(crate) fn response_to_head(&mut self) -> Response {
        let (status, head) = self.response_head().unwrap_or_else(|error| panic!("no answer: {error}"));
        Response { status, head, body: Vec::new() }
    }

    /// The next answer, if all of it comes.
    pub(crate) fn try_response(&mut self) -> io::Result<Response> {
        let (status, head) = self.response_head()?;
        let framing = match head.framing() {
            _ if status < 200 || status == 204 || status == 304 => Framing::None,
            Framing::None => Framing::UntilClose,
            framing => framing,
        };
        let body = self.wire.body(framing)?;
        assert!(body.trailers.is_empty(), "an answer has trailers: {:?}", String::from_utf8_lossy(&body.trailers));
        Ok(Response { status, head, body: body.bytes })
    }

    /// The next answer's head.
    pub(crate) fn response_head(&mut self) -> io::Result<(u16, Head)> {
        let head = self.wire.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = head.target().parse().expect("a status is a number");
        Ok((status, head))
    }

    /// Says that nothing more will be sent, unless the other end has closed anyway.
    pub(crate) fn finish(&self) {
        let _ = self.wire.socket().shutdown(Shutdown::Write);
    }

    /// Whether the other end closes now, without another byte.
    #[track_caller]
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.wire.some() {
            Ok(bytes) => {
                assert!(bytes.is_empty(), "unasked: {:?}", String::from_utf8_lossy(&bytes));
                true
            }
            Err(error) => matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe),
        }
    }
}
