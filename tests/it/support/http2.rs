//! A client of HTTP/2 that does everything right.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request};
use tokio::runtime::Runtime;

use super::{PATIENCE, until};

/// A connection.
pub(crate) struct Http2 {
    runtime: Runtime,
    requests: SendRequest<Bytes>,
    /// Goes on by itself, as a client's does.
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

/// A request that waits for its answer.
pub(crate) struct Exchange {
    pub(crate) body: SendStream<Bytes>,
    answer: ResponseFuture,
}

/// A request for a path of `http://media.example`.
pub(crate) fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(format!("http://media.example{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

impl Http2 {
    /// Connects, without asking whether it may be HTTP/2.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let (sender, receiver) = mpsc::channel();
        let connection = thread::spawn(move || {
            runtime().block_on(async {
                let socket = tokio::net::TcpStream::connect(address).await.unwrap();
                let (requests, connection) = h2::client::handshake(socket).await.unwrap();
                sender.send(requests).unwrap();
                connection.await
            })
        });
        let (runtime, requests) = (runtime(), receiver.recv_timeout(PATIENCE).expect("a connection"));
        Self { runtime, requests, connection }
    }

    /// Begins a request; `ends` when it has no body.
    pub(crate) fn begin(&mut self, request: Request<()>, ends: bool) -> Result<Exchange, h2::Error> {
        let requests = self.requests.clone();
        self.runtime.block_on(async {
            let mut requests = requests.ready().await?;
            let (answer, body) = requests.send_request(request, ends)?;
            Ok(Exchange { body, answer })
        })
    }

    /// Waits for an answer and reads it.
    pub(crate) fn finish(&mut self, exchange: Exchange) -> Result<Answer, h2::Error> {
        self.finish_seeing(exchange, |_| ())
    }

    /// Waits for an answer and reads it; each piece of it is shown when it comes.
    pub(crate) fn finish_seeing(
        &mut self,
        exchange: Exchange,
        mut see: impl FnMut(&[u8]),
    ) -> Result<Answer, h2::Error> {
        let answer = async {
            let _body = exchange.body;
            let response = exchange.answer.await?;
            let (parts, mut stream) = response.into_parts();
            let mut body = Vec::new();
            while let Some(piece) = stream.data().await {
                let piece = piece?;
                see(&piece);
                body.extend_from_slice(&piece);
                stream.flow_control().release_capacity(piece.len())?;
            }
            let trailers = stream.trailers().await?;
            Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
        };
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, answer).await.expect("an answer comes in time") })
    }

    /// Sends a request without a body, and reads its answer.
    pub(crate) fn exchange(&mut self, request: Request<()>) -> Result<Answer, h2::Error> {
        let exchange = self.begin(request, true)?;
        self.finish(exchange)
    }

    /// Sends a request with a body, and reads its answer.
    pub(crate) fn upload(&mut self, request: Request<()>, body: &'static [u8]) -> Result<Answer, h2::Error> {
        let mut exchange = self.begin(request, false)?;
        exchange.body.send_data(Bytes::from_static(body), true)?;
        self.finish(exchange)
    }

    /// Waits until the connection has ended.
    pub(crate) fn ended(self) {
        let Self { requests, connection, .. } = self;
        drop(requests);
        until("the connection ends", || connection.is_finished());
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
