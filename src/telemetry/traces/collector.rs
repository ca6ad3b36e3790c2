//! The way to the collector: one connection of HTTP/1.1, kept as long as it is good, and what its answers mean
//! (OTLP 1.x, "OTLP/HTTP Response").

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::message::Exported;
use crate::tls;

/// Longest answer that is read; it says nothing, or in a sentence what is wrong.
const LONGEST_ANSWER: usize = 64 << 10;
/// Longest piece of what a collector says that is told on.
const LONGEST_WORDS: usize = 200;

/// Where the collector is.
pub struct Endpoint {
    /// Its host and port.
    pub authority: String,
    /// The path that takes traces.
    pub path: Uri,
    /// How it is spoken with.
    pub transport: Transport,
}

/// How a collector is spoken with.
pub enum Transport {
    /// In the clear.
    Plain,
    /// By TLS.
    Tls(Arc<tls::Client>),
}

/// Headers for the collector, whose values may be secrets and are never shown.
#[derive(Default)]
pub struct Headers(HeaderMap);

impl Headers {
    /// One more.
    pub fn insert(&mut self, name: http::HeaderName, mut value: HeaderValue) {
        value.set_sensitive(true);
        self.0.insert(name, value);
    }

    /// The value of one.
    #[cfg(test)]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(HeaderValue::as_bytes)
    }
}

/// How a batch fared.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// It was taken, but for so many spans.
    Taken { rejected: u64, words: String },
    /// It may be sent again, but not before so long.
    Later { why: String, after: Option<Duration> },
    /// It will never be taken.
    Refused { why: String },
}

/// One collector, and the connection to it if there is one.
pub(super) struct Collector {
    endpoint: Endpoint,
    headers: Headers,
    connection: Option<SendRequest<Whole>>,
}

impl Collector {
    pub(super) fn new(endpoint: Endpoint, headers: Headers) -> Self {
        Self { endpoint, headers, connection: None }
    }

    /// Sends a batch, and waits for what becomes of it.
    pub(super) async fn send(&mut self, batch: Bytes, timeout: Duration) -> Reply {
        match tokio::time::timeout(timeout, self.exchange(batch)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => self.later(error.to_string()),
            Err(_) => self.later(format!("no answer within {}", humantime::format_duration(timeout))),
        }
    }

    fn later(&mut self, why: String) -> Reply {
        self.connection = None;
        Reply::Later { why, after: None }
    }

    async fn exchange(&mut self, batch: Bytes) -> io::Result<Reply> {
        let mut connection = self.connected().await?;
        let response = connection.send_request(self.request(batch)).await.map_err(io::Error::other)?;
        let (status, after) = (response.status(), retry_after(response.headers()));
        let body = read(response).await?;
        self.connection = body.is_some().then_some(connection);
        Ok(reply(status, after, &body.unwrap_or_default()))
    }

    /// The connection that there is, else a new one.
    async fn connected(&mut self) -> io::Result<SendRequest<Whole>> {
        if let Some(mut connection) = self.connection.take()
            && connection.ready().await.is_ok()
        {
            return Ok(connection);
        }
        let socket = TcpStream::connect(&self.endpoint.authority).await?;
        socket.set_nodelay(true)?;
        match &self.endpoint.transport {
            Transport::Plain => open(socket).await,
            Transport::Tls(client) => open(client.connect(socket).await?).await,
        }
    }

    fn request(&self, batch: Bytes) -> Request<Whole> {
        let mut request = Request::new(Whole(Some(batch)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.path.clone();
        *request.headers_mut() = self.headers.0.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("keyward/", env!("CARGO_PKG_VERSION"))));
        if let Ok(host) = HeaderValue::from_str(&self.endpoint.authority) {
            headers.insert(HOST, host);
        }
        request
    }
}

async fn open(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> io::Result<SendRequest<Whole>> {
    let handshake = Builder::new().max_buf_size(LONGEST_ANSWER).handshake(TokioIo::new(socket));
    let (connection, driving) = handshake.await.map_err(io::Error::other)?;
    // It ends with the connection, and whoever sends next hears of that.
    tokio::spawn(async move { drop(driving.await) });
    Ok(connection)
}

/// Reads an answer to its end; `None` when it is too long for a connection to be kept.
async fn read(response: Response<Incoming>) -> io::Result<Option<Bytes>> {
    let (mut body, mut read) = (response.into_body(), BytesMut::new());
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(data) = frame.map_err(io::Error::other)?.into_data() else { continue };
        if read.len() + data.len() > LONGEST_ANSWER {
            return Ok(None);
        }
        read.extend_from_slice(&data);
    }
    Ok(Some(read.freeze()))
}

/// Seconds, as collectors write them; from a date nobody's clock is asked.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn reply(status: StatusCode, after: Option<Duration>, body: &[u8]) -> Reply {
    match status.as_u16() {
        200..=299 => {
            // What is no protobuf comes from somebody who is not strict: it was taken.
            let partial = Exported::decode(body).ok().and_then(|exported| exported.partial_success).unwrap_or_default();
            let rejected = u64::try_from(partial.rejected_spans).unwrap_or_default();
            Reply::Taken { rejected, words: plain(partial.error_message.as_bytes()) }
        }
        429 | 502 | 503 | 504 => Reply::Later { why: format!("it answers {status}"), after },
        _ => Reply::Refused { why: format!("it answers {status}: {}", plain(body)) },
    }
}

/// The readable part of what a collector says, on one line.
fn plain(words: &[u8]) -> String {
    let words = String::from_utf8_lossy(words);
    words.chars().filter(|c| !c.is_control() && *c != char::REPLACEMENT_CHARACTER).take(LONGEST_WORDS).collect()
}

/// A body that is there as a whole.
struct Whole(Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::PartialSuccess;
    use super::*;

    #[test]
    fn answers_mean_what_the_protocol_says() {
        let partial = PartialSuccess { rejected_spans: 3, error_message: "too\nlong".to_owned() };
        let partial = Exported { partial_success: Some(partial) }.encode_to_vec();
        let taken = |rejected, words: &str| Reply::Taken { rejected, words: words.to_owned() };
        let later = |why: &str, after| Reply::Later { why: why.to_owned(), after };
        let seconds = Some(Duration::from_secs(7));
        for (status, after, body, expected) in [
            (200, None, &b""[..], taken(0, "")),
            (202, None, b"{\"no\": \"protobuf\"}", taken(0, "")),
            (200, None, &partial, taken(3, "toolong")),
            (429, seconds, b"", later("it answers 429 Too Many Requests", seconds)),
            (503, None, b"x", later("it answers 503 Service Unavailable", None)),
            (
                400,
                seconds,
                b"\x08bad\nspans",
                Reply::Refused { why: "it answers 400 Bad Request: badspans".to_owned() },
            ),
            (500, None, b"", Reply::Refused { why: "it answers 500 Internal Server Error: ".to_owned() }),
            (301, None, b"", Reply::Refused { why: "it answers 301 Moved Permanently: ".to_owned() }),
        ] {
            assert_eq!(reply(StatusCode::from_u16(status).unwrap(), after, body), expected, "{status}");
        }
    }
}
