//! A small HTTP server for the control plane: short questions and pages. Nothing is streamed, and what is sent along is read
//! only by those who ask for it, up to a limit of theirs.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{IpAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN};
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::AbortHandle;

/// Connections at a time: for kubelet, Prometheus and a few people.
const CONNECTIONS: usize = 64;
/// For a whole connection.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);
/// For a request's head, and between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A question.
pub struct Ask {
    /// What is to be done.
    pub method: Method,
    /// The path.
    pub path: String,
    /// The query, empty if there is none.
    pub query: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Who asks: the other end of the connection.
    pub peer: IpAddr,
    /// What is sent along, until it is read.
    body: Option<Incoming>,
}

/// Why what is sent along cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is longer than the limit.
    TooLong,
    /// It broke off.
    Broken,
}

impl Ask {
    /// Whether it only wants to see something.
    pub fn only_looks(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    /// Whether a web page asks, which browsers let it do from anywhere.
    pub fn is_of_web_page(&self) -> bool {
        self.headers.contains_key(ORIGIN)
    }

    /// Reads what is sent along, the first time that it is called.
    ///
    /// # Errors
    /// When that is more than `limit` bytes, or breaks off.
    pub async fn read(&mut self, limit: usize) -> Result<Bytes, Unread> {
        let Some(mut body) = self.body.take() else { return Ok(Bytes::new()) };
        if body.size_hint().lower() > limit as u64 {
            return Err(Unread::TooLong);
        }
        let mut read = BytesMut::new();
        while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
            if read.len() + data.len() > limit {
                return Err(Unread::TooLong);
            }
            read.extend_from_slice(&data);
        }
        Ok(read.freeze())
    }
}

/// An answer.
pub struct Page {
    /// Its status.
    pub status: StatusCode,
    /// What it is.
    pub content_type: &'static str,
    /// What it says.
    pub body: String,
    /// What else is said beside it.
    pub headers: HeaderMap,
}

impl Page {
    /// Plain text.
    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body.into())
    }

    /// Something of a media type.
    pub fn new(status: StatusCode, content_type: &'static str, body: String) -> Self {
        Self { status, content_type, body, headers: HeaderMap::new() }
    }

    /// The method is not one of these, which are given as the value of `Allow`.
    pub fn not_allowed(allow: &'static str) -> Self {
        let mut page = Self::text(StatusCode::METHOD_NOT_ALLOWED, format!("only {}\n", allow.replace(", ", " and ")));
        page.headers.insert(ALLOW, HeaderValue::from_static(allow));
        page
    }
}

/// Answers every question with what `answer` makes of it.
///
/// # Errors
/// When the socket cannot be used.
pub async fn serve<A, F>(listener: TcpListener, answer: A) -> std::io::Result<()>
where
    A: Fn(Ask) -> F + Send + Sync + 'static,
    F: Future<Output = Page> + Send + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (answer, mut guests) = (Arc::new(answer), Guests::default());
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok((socket, peer)) => (socket, peer.ip().to_canonical()),
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections of the control plane");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        guests.make_room().await;
        let (answer, asked) = (answer.clone(), Arc::<AtomicUsize>::default());
        let questions = asked.clone();
        let service = service_fn(move |request| {
            let (page, question) = (answer(ask(request, peer)), Question::of(&questions));
            async move {
                let _question = question;
                Ok::<_, Infallible>(response(page.await))
            }
        });
        let mut builder = Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        let connection = builder.serve_connection(TokioIo::new(socket), service);
        // A client that leaves in the middle is no news; one that stays without reading must not keep others out.
        let task = tokio::spawn(async move { drop(tokio::time::timeout(CONNECTION_LIMIT, connection).await) });
        guests.0.push_back(Guest { asked, task: task.abort_handle() });
    }
}

/// The connections that there are, the oldest first.
#[derive(Default)]
struct Guests(VecDeque<Guest>);

struct Guest {
    /// How many of its questions are being answered.
    asked: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Guests {
    /// Waits until there is room for one more. Whoever asks nothing makes room for those who do: kubelet must be heard however
    /// many connections somebody opens.
    async fn make_room(&mut self) {
        loop {
            self.0.retain(|guest| !guest.task.is_finished());
            if self.0.len() < CONNECTIONS {
                return;
            }
            match self.0.iter().position(|guest| guest.asked.load(Relaxed) == 0) {
                Some(silent) => drop(self.0.remove(silent).map(|guest| guest.task.abort())),
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

/// Counts a question as long as it is being answered.
struct Question(Arc<AtomicUsize>);

impl Question {
    fn of(asked: &Arc<AtomicUsize>) -> Self {
        asked.fetch_add(1, Relaxed);
        Self(asked.clone())
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn ask(request: Request<Incoming>, peer: IpAddr) -> Ask {
    let (parts, body) = request.into_parts();
    let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
    Ask { method: parts.method, path, query, headers: parts.headers, peer, body: Some(body) }
}

fn response(page: Page) -> Response<String> {
    let mut response = Response::new(page.body);
    *response.status_mut() = page.status;
    *response.headers_mut() = page.headers;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
