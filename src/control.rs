//! A small HTTP server for the control plane: short questions and pages. Nothing is streamed. What is sent along is read when
//! whoever answers wants it ([`sent`]), and questions may be handed in from other threads ([`desk`]).

pub mod desk;
pub mod sent;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{IpAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::AbortHandle;

use self::sent::{Coming, Sent};

/// Connections at a time: for kubelet, Prometheus and a few people.
const CONNECTIONS: usize = 64;
/// After this a connection takes no more questions…
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);
/// …and this is for the one that it has then: as long as it may take to judge it, to send all of it, and to be
/// answered.
const LAST_QUESTION: Duration = Duration::from_secs(185);
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
    /// The other end of the connection.
    pub peer: IpAddr,
    /// Who asks, as far as that is known: somebody else where the other end speaks for others.
    pub client: Option<IpAddr>,
    /// Where it was asked, if not on the listener of our own.
    pub mounted: Option<Mounted>,
    /// What is sent along.
    pub sent: Sent,
}

/// Where on another listener a question was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// What clients call that listener: `https://api.example.com`.
    pub origin: String,
    /// What stood before the path that we know it by.
    pub before: String,
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

    /// A question with nothing sent along.
    pub fn of(parts: Parts, peer: IpAddr) -> Self {
        let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
        let (method, headers) = (parts.method, parts.headers);
        Self { method, path, query, headers, peer, client: Some(peer), mounted: None, sent: Sent::Nothing }
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
    /// Whose key it was asked with, for the log.
    pub key: Option<String>,
}

impl Page {
    /// Plain text.
    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body.into())
    }

    /// Something of a media type.
    pub fn new(status: StatusCode, content_type: &'static str, body: String) -> Self {
        Self { status, content_type, body, headers: HeaderMap::new(), key: None }
    }

    /// The method is not one of these, which are given as the value of `Allow`.
    pub fn not_allowed(allow: &'static str) -> Self {
        let mut page = Self::text(StatusCode::METHOD_NOT_ALLOWED, format!("only {}\n", allow.replace(", ", " and ")));
        page.headers.insert(ALLOW, HeaderValue::from_static(allow));
        page
    }

    /// As it is sent.
    pub fn into_response(self) -> Response<String> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// Answers every question with what `answer` makes of it.
///
/// # Errors
/// When the socket cannot be used.
pub async fn serve<A, F>(listener: TcpListener, answer: A) -> std::io::Result<()>
where
    A: Fn(Ask, Coming) -> F + Send + Sync + 'static,
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
            let (answer, questions) = (answer.clone(), questions.clone());
            async move {
                let _question = Question::of(&questions);
                let (ask, coming) = Coming::apart(request, peer);
                Ok::<_, Infallible>(answer(ask, coming.of_guest(questions)).await.into_response())
            }
        });
        let mut builder = Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        let connection = builder.serve_connection(TokioIo::new(socket), service);
        // A client that leaves in the middle is no news; one that stays without reading must not keep others out.
        let task = tokio::spawn(async move {
            let mut connection = pin!(connection);
            if tokio::time::timeout(CONNECTION_LIMIT, connection.as_mut()).await.is_err() {
                connection.as_mut().graceful_shutdown();
                drop(tokio::time::timeout(LAST_QUESTION, connection).await);
            }
        });
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

/// Counts a question as long as it is being answered. Whoever takes time to ask makes room for those who do not.
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
