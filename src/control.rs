//! A small HTTP server for the control plane: short questions and pages, nothing streamed, nothing uploaded.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, ORIGIN};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;

/// Connections at a time: for kubelet, Prometheus and a few people.
const CONNECTIONS: usize = 64;
/// For a whole connection.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);
/// For a request's head, and between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A question. Its body, if it has one, is not read.
pub struct Ask {
    /// What is to be done.
    pub method: Method,
    /// The path.
    pub path: String,
    /// The query, empty if there is none.
    pub query: String,
    /// Whether a web page asks, which browsers let it do from anywhere.
    pub is_of_web_page: bool,
}

impl Ask {
    /// Whether it only wants to see something.
    pub fn only_looks(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
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
    /// The methods that are understood, where the one of the question is not.
    pub allow: Option<&'static str>,
}

impl Page {
    /// Plain text.
    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body.into())
    }

    /// Something of a media type.
    pub fn new(status: StatusCode, content_type: &'static str, body: String) -> Self {
        Self { status, content_type, body, allow: None }
    }

    /// The method is not one of these, which are given as the value of `Allow`.
    pub fn not_allowed(allow: &'static str) -> Self {
        let page = Self::text(StatusCode::METHOD_NOT_ALLOWED, format!("only {}\n", allow.replace(", ", " and ")));
        Self { allow: Some(allow), ..page }
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
    let (answer, room) = (Arc::new(answer), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return Ok(()) };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections of the control plane");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let page = answer(ask(&request));
            async { Ok::<_, Infallible>(response(page.await)) }
        });
        let mut builder = Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        let connection = builder.serve_connection(TokioIo::new(socket), service);
        tokio::spawn(async move {
            let _place = place;
            // A client that leaves in the middle is no news; one that stays without reading must not keep others out.
            let _ = tokio::time::timeout(CONNECTION_LIMIT, connection).await;
        });
    }
}

fn ask(request: &Request<Incoming>) -> Ask {
    let uri = request.uri();
    let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default().to_owned());
    let is_of_web_page = request.headers().contains_key(ORIGIN);
    Ask { method: request.method().clone(), path, query, is_of_web_page }
}

fn response(page: Page) -> Response<String> {
    let mut response = Response::new(page.body);
    *response.status_mut() = page.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(allow) = page.allow {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    }
    response
}
