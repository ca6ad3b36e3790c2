//! A small HTTP server for the control plane: pages made on the spot, nothing streamed, nothing uploaded.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
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

/// An answer.
pub struct Page {
    /// Its status.
    pub status: StatusCode,
    /// What it is.
    pub content_type: &'static str,
    /// What it says.
    pub body: String,
}

impl Page {
    /// Plain text.
    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }
}

/// Answers GET and HEAD with what `answer` makes of the path and the query.
///
/// # Errors
/// When the socket cannot be used.
pub async fn serve<A>(listener: TcpListener, answer: A) -> std::io::Result<()>
where
    A: Fn(&str, &str) -> Page + Send + Sync + 'static,
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
            let response = respond(&request, &*answer);
            async { Ok::<_, Infallible>(response) }
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

fn respond(request: &Request<Incoming>, answer: &impl Fn(&str, &str) -> Page) -> Response<String> {
    let allowed = matches!(*request.method(), Method::GET | Method::HEAD);
    let page = if allowed {
        answer(request.uri().path(), request.uri().query().unwrap_or_default())
    } else {
        Page::text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n")
    };
    let mut response = Response::new(page.body);
    *response.status_mut() = page.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !allowed {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}
