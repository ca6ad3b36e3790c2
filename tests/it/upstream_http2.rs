//! An upstream that speaks HTTP/2: many requests over one connection, whatever clients speak.

mod unprocessed; // what is sent once more, and what never is

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::support::certificates::Authority;
use super::support::http2::{Http2, request as h2_request};
use super::support::{Key, Keyward, Site, Upstream, request, until};
use super::upstream_tls;

/// A server of HTTP/2 that sends bodies back, with a status behind them as gRPC has it; or what [`answer`] has for a path.
struct Echo {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    seen: Arc<Seen>,
}

/// What the server has seen, and what it waits for.
#[derive(Default)]
struct Seen {
    heads: Mutex<Vec<http::request::Parts>>,
    trailers: Mutex<Vec<HeaderMap>>,
    /// How many connections have ended.
    ended: AtomicUsize,
    /// An answer may go on.
    next: Notify,
}

impl Echo {
    fn start() -> Self {
        Self::start_with(None)
    }

    /// By TLS, or in the clear.
    fn start_with(tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let echo = Self { address: listener.local_addr().unwrap(), connections: Arc::default(), seen: Arc::default() };
        let (connections, seen) = (echo.connections.clone(), echo.seen.clone());
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((socket, _)) = listener.accept().await {
                    connections.fetch_add(1, SeqCst);
                    let (acceptor, seen) = (acceptor.clone(), seen.clone());
                    tokio::spawn(async move {
                        let Some(acceptor) = acceptor else { return serve(socket, seen).await };
                        if let Ok(socket) = acceptor.accept(socket).await {
                            serve(socket, seen).await;
                        }
                    });
                }
            });
        });
        echo
    }

    #[track_caller]
    fn only(&self) -> http::request::Parts {
        let mut heads = std::mem::take(&mut *self.seen.heads.lock().unwrap());
        assert_eq!(heads.len(), 1, "{heads:?}");
        heads.remove(0)
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(socket: S, seen: Arc<Seen>) {
    let handshake = h2::server::Builder::new().max_concurrent_streams(MOST_STREAMS).handshake(socket);
    let Ok(mut connection) = handshake.await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let goes = request.uri().path() == "/last";
        tokio::spawn(answer(request, respond, seen.clone()));
        if goes {
            connection.graceful_shutdown();
        }
    }
    seen.ended.fetch_add(1, SeqCst);
}

/// How many requests the server takes at a time by one connection.
const MOST_STREAMS: u32 = 50;

/// Answers by what is called.
async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, seen: Arc<Seen>) -> Option<()> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    seen.heads.lock().unwrap().push(head);
    let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    match path.as_str() {
        "/silence" => std::future::pending().await,
        "/flood" => {
            let mut sender = respond.send_response(response, false).ok()?;
            sender.send_data(Bytes::from_static(&[0x5a; 4 << 20]), false).ok()?;
            std::future::pending().await
        }
        "/cut" => {
            let mut sender = respond.send_response(response, false).ok()?;
            sender.send_data(Bytes::from_static(MESSAGES[0]), false).ok()?;
            seen.next.notified().await;
            sender.send_reset(h2::Reason::NO_ERROR);
            Some(())
        }
        // Nothing of the request is read.
        "/early" => respond.send_response(response, false).ok()?.send_data(Bytes::from_static(MESSAGES[0]), true).ok(),
        _ => echo(body, respond.send_response(response, false).ok()?, &seen).await,
    }
}

/// Messages as gRPC frames them.
const MESSAGES: [&[u8]; 2] = [b"\0\0\0\0\x01a", b"\0\0\0\0\x01b"];

fn field((name, value): (&'static str, &'static str)) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), HeaderValue::from_static(value))
}

/// Sends each piece back when it comes, and a status behind the last.
async fn echo(mut body: RecvStream, mut sender: SendStream<Bytes>, seen: &Seen) -> Option<()> {
    while let Some(piece) = body.data().await {
        let piece = piece.ok()?;
        body.flow_control().release_capacity(piece.len()).ok()?;
        sender.send_data(piece, false).ok()?;
    }
    let trailers = body.trailers().await.ok()?;
    seen.trailers.lock().unwrap().extend(trailers);
    sender.send_trailers(HeaderMap::from_iter([field(("grpc-status", "0"))])).ok()
}

fn serve_before(echo: &Echo, config: &str) -> (Keyward, Key) {
    let site = Site::new(echo.address, &format!("proxy: {{ upstream_protocol: http2, workers: 1, {config} }}"));
    let key = site.create_key(&[]);
    (site.serve(), key)
}

/// What a caller by gRPC says of itself.
fn call(path: &str, key: &Key) -> Request<()> {
    h2_request("POST", path, &[("x-api-key", &key.value), ("content-type", "application/grpc"), ("te", "trailers")])
}

#[test]
fn clients_of_http1_share_one_connection() {
    let echo = Echo::start();
    let (keyward, key) = serve_before(&echo, "");
    let mut client = keyward.connect();
    for (method, body) in [("GET", &b""[..]), ("POST", b"body"), ("PUT", &[0x5a; 500_000])] {
        let fields = [("X-API-Key", &*key.value), ("Connection", "x-one"), ("X-One", "1"), ("TE", "gzip")];
        let response = client.exchange(&request(method, "/x?a=b", &fields, body));
        assert_eq!((response.status, &*response.body), (200, body), "{method}");
        let head = echo.only();
        assert_eq!(head.uri.to_string(), "http://media.example/x?a=b");
        for absent in ["host", "connection", "x-one", "x-api-key", "transfer-encoding"] {
            assert!(!head.headers.contains_key(absent), "{absent}");
        }
        assert_eq!(head.headers["te"], "trailers");
        assert_eq!(head.headers["x-keyward-key-id"], *key.id);
    }
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let (mut client, key) = (keyward.connect(), key.clone());
            thread::spawn(move || client.exchange(&request("POST", "/x", &[("X-API-Key", &key.value)], b"body")).text())
        })
        .collect();
    assert!(clients.into_iter().all(|client| client.join().unwrap() == "body"));
    assert_eq!(echo.connections.load(SeqCst), 1);
}

/// A reset without an error stands behind an answer whose request is no longer wanted; within one it is no end.
#[test]
fn r70_an_answer_that_is_reset_without_an_error_is_not_whole() {
    let echo = Echo::start();
    let (keyward, key) = serve_before(&echo, "");
    let mut client = Http2::connect(keyward.proxy);
    let cut = client.begin(h2_request("GET", "/cut", &[("x-api-key", &key.value)]), true).unwrap();
    assert!(client.finish_seeing(cut, |_| echo.seen.next.notify_one()).is_err());
    let mut old = keyward.connect();
    old.send(&request("GET", "/cut", &[("X-API-Key", &key.value)], b""));
    assert_eq!(old.response_head().unwrap().0, 200);
    assert_eq!(old.wire().chunk().unwrap(), MESSAGES[0]);
    echo.seen.next.notify_one();
    assert!(old.wire().chunk().is_err(), "no last chunk");
    until("both are counted", || keyward.metric("keyward_upstream_errors_total{kind=\"upstream_broken\"}") == 2.0);

    let early = client.begin(call("/early", &key), false).unwrap();
    let answer = client.finish(early).unwrap();
    assert_eq!((answer.status, &*answer.body), (200, MESSAGES[0]));
    assert_eq!(keyward.metric("keyward_upstream_errors_total{kind=\"upstream_broken\"}"), 2.0);
}

#[test]
fn r54_trailers_of_requests_pass_where_they_may() {
    let echo = Echo::start();
    let site =
        Site::new(echo.address, "proxy: { upstream_protocol: http2 }\nroutes: [{ path: /kept, trailers: true }]");
    let key = site.create_key(&[]);
    let keyward = site.serve();
    let mut client = Http2::connect(keyward.proxy);
    let forged = ["x-keyward-user", "x_keyward_key_id", "authorization", "x-api-key", "host", "x-forwarded-for"];
    let trailers: HeaderMap = forged.into_iter().chain(["x-sum"]).map(|name| field((name, "sent"))).collect();
    for (path, passed) in [("/kept", &["x-sum"][..]), ("/dropped", &[])] {
        let mut exchange = client.begin(call(path, &key), false).unwrap();
        exchange.body.send_data(Bytes::from_static(MESSAGES[0]), false).unwrap();
        exchange.body.send_trailers(trailers.clone()).unwrap();
        let answer = client.finish(exchange).unwrap();
        assert_eq!((answer.status, &*answer.body), (200, MESSAGES[0]), "{path}");
        let seen = std::mem::take(&mut *echo.seen.trailers.lock().unwrap());
        let names: Vec<&str> = seen.iter().flat_map(HeaderMap::keys).map(HeaderName::as_str).collect();
        assert_eq!(names, passed, "{path}");
    }
}

/// Keyward before a server by TLS that agrees to these protocols.
fn serve_before_tls(protocols: &[&str]) -> (Echo, Keyward, Key) {
    let authority = Authority::new("root");
    let mut tls = upstream_tls::server(&authority.sign("localhost", 2020..2100), None);
    tls.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let echo = Echo::start_with(Some(tls));
    let upstream = format!("upstream: \"https://localhost:{}\", upstream_tls: {{ ca: ca.crt }}", echo.address.port());
    let site = Site::new(echo.address, &format!("proxy: {{ upstream_protocol: http2, workers: 1, {upstream} }}"));
    site.write("ca.crt", &authority.certificate);
    let key = site.create_key(&[]);
    (echo, site.serve(), key)
}

#[test]
fn by_tls_it_is_agreed_on() {
    for protocols in [&["h2"][..], &["http/1.1", "h2"]] {
        let (echo, keyward, key) = serve_before_tls(protocols);
        let answer = Http2::connect(keyward.proxy).upload(call("/media.Films/Get", &key), MESSAGES[0]).unwrap();
        assert_eq!((answer.status, &*answer.body), (200, MESSAGES[0]), "{protocols:?}");
        assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
        assert_eq!(echo.only().uri.scheme_str(), Some("https"));
    }
}

#[test]
fn an_upstream_that_does_not_agree_gets_nothing() {
    for protocols in [&["http/1.1"][..], &[]] {
        let (echo, keyward, key) = serve_before_tls(protocols);
        for _ in 0..3 {
            assert_eq!(keyward.with_key(&key, "GET", "/x").status, 502, "{protocols:?}");
        }
        let line = keyward.wait_for_line("no TLS with the upstream: requests are answered with 502");
        assert!(line["error"].as_str().unwrap().starts_with("it does not agree to HTTP/2"), "{protocols:?}: {line}");
        assert!(echo.seen.heads.lock().unwrap().is_empty(), "{protocols:?}");
    }
}

#[test]
fn an_upstream_that_speaks_the_other_http_is_told_from_one_that_is_broken() {
    let (http1, http2) = (Upstream::start(), Echo::start());
    for (address, configured, instead) in [(http1.address(), "http2", "http1"), (http2.address, "http1", "http2")] {
        let site = Site::new(address, &format!("proxy: {{ upstream_protocol: {configured}, workers: 1 }}"));
        let key = site.create_key(&[]);
        let keyward = site.serve();
        for _ in 0..2 {
            assert_eq!(keyward.with_key(&key, "GET", "/x").status, 502, "{configured}");
        }
        let line = keyward.wait_for_line("the upstream ended a new connection without an answer");
        let advice = format!("set proxy.upstream_protocol to {instead}");
        assert!(line["advice"].as_str().unwrap().ends_with(&advice), "{line}");
    }
}

#[test]
fn an_upstream_that_takes_no_more_gets_another_connection() {
    let echo = Echo::start();
    let (keyward, key) = serve_before(&echo, "");
    for n in 1..4 {
        let response = keyward.send(&request("POST", "/last", &[("X-API-Key", &key.value)], b"body"));
        assert_eq!((response.status, &*response.text()), (200, "body"));
        until("it has said that it goes", || echo.seen.ended.load(SeqCst) == n);
        assert_eq!(echo.connections.load(SeqCst), n);
    }
}

#[test]
fn an_upstream_that_is_silent_is_given_up_in_time() {
    let echo = Echo::start();
    let (keyward, key) = serve_before(&echo, "timeouts: { response: 1s }");
    assert_eq!(keyward.with_key(&key, "GET", "/silence").status, 504);
    assert_eq!(keyward.with_key(&key, "GET", "/x").status, 200);
    assert_eq!(echo.connections.load(SeqCst), 2);
}

#[test]
fn clients_that_do_not_read_hold_up_nobody_else() {
    let echo = Echo::start();
    let (keyward, key) = serve_before(&echo, "");
    let mut client = Http2::connect(keyward.proxy);
    let flood = || h2_request("GET", "/flood", &[("x-api-key", &key.value)]);
    let unread: Vec<_> = (0..8).map(|_| client.begin(flood(), true).unwrap()).collect();
    until("all of them have begun", || echo.seen.heads.lock().unwrap().len() == unread.len());
    let response = keyward.send(&request("POST", "/x", &[("X-API-Key", &key.value)], b"body"));
    assert_eq!((response.status, &*response.text()), (200, "body"));
    assert_eq!(echo.connections.load(SeqCst), 1);
}

#[test]
fn a_full_connection_gets_another_beside_it() {
    let echo = Echo::start();
    let (keyward, key) = serve_before(&echo, "");
    // By the second answer it is known how many requests the connection takes.
    for _ in 0..2 {
        assert_eq!(keyward.with_key(&key, "GET", "/x").status, 200);
    }
    echo.seen.heads.lock().unwrap().clear();
    let mut client = Http2::connect(keyward.proxy);
    let silence = || h2_request("GET", "/silence", &[("x-api-key", &key.value)]);
    let silent: Vec<_> = (0..MOST_STREAMS + 10).map(|_| client.begin(silence(), true).unwrap()).collect();
    until("all of them have begun", || echo.seen.heads.lock().unwrap().len() == silent.len());
    assert_eq!(keyward.with_key(&key, "GET", "/x").status, 200);
    assert_eq!(echo.connections.load(SeqCst), 2);
}

#[test]
fn an_upstream_out_of_reach_fails_all_who_wait_at_once() {
    let authority = Authority::new("root");
    // It takes connections by itself, and nobody answers there.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let upstream = format!("upstream: \"https://localhost:{}\", upstream_tls: {{ ca: ca.crt }}", address.port());
    let config = format!("upstream_protocol: http2, workers: 1, timeouts: {{ connect: 1s }}, {upstream}");
    let site = Site::new(address, &format!("proxy: {{ {config} }}"));
    site.write("ca.crt", &authority.certificate);
    let key = site.create_key(&[]);
    let keyward = site.serve();
    let begun = Instant::now();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (mut client, key) = (keyward.connect(), key.clone());
            thread::spawn(move || client.exchange(&request("GET", "/x", &[("X-API-Key", &key.value)], b"")).status)
        })
        .collect();
    assert!(clients.into_iter().all(|client| client.join().unwrap() == 504));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[test]
fn an_unused_connection_is_closed_in_time() {
    let echo = Echo::start();
    let (keyward, key) = serve_before(&echo, "timeouts: { upstream_idle: 1s }");
    assert_eq!(keyward.with_key(&key, "GET", "/x").status, 200);
    until("it is closed", || echo.seen.ended.load(SeqCst) == 1);
    assert_eq!(keyward.with_key(&key, "GET", "/x").status, 200);
    assert_eq!(echo.connections.load(SeqCst), 2);
}

#[test]
fn a_client_that_stalls_costs_others_no_connection() {
    let echo = Echo::start();
    let (keyward, key) = serve_before(&echo, "timeouts: { body: 1s, upstream_idle: 1m }");
    let mut client = keyward.connect();
    let head = format!("PUT /silence HTTP/1.1\r\nHost: media.example\r\nX-API-Key: {}\r\n", &*key.value);
    client.send(format!("{head}Content-Length: 8\r\n\r\nhalf").as_bytes());
    assert_eq!(client.response().status, 408);
    assert_eq!(keyward.with_key(&key, "GET", "/x").status, 200);
    assert_eq!(echo.connections.load(SeqCst), 1);
}
