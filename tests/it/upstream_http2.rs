//! An upstream that speaks HTTP/2: many requests over one connection, whatever clients speak; and calls of gRPC.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};

use super::support::http2::{Http2, request as h2_request};
use super::support::{Key, Keyward, Site, request};

/// A server of HTTP/2 that sends bodies back, with a status behind them as gRPC has it.
struct Echo {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<http::request::Parts>>>,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let echo = Self { address: listener.local_addr().unwrap(), connections: Arc::default(), heads: Arc::default() };
        let (connections, heads) = (echo.connections.clone(), echo.heads.clone());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((socket, _)) = listener.accept().await {
                    connections.fetch_add(1, SeqCst);
                    tokio::spawn(serve(socket, heads.clone()));
                }
            });
        });
        echo
    }

    #[track_caller]
    fn only(&self) -> http::request::Parts {
        let mut heads = std::mem::take(&mut *self.heads.lock().unwrap());
        assert_eq!(heads.len(), 1, "{heads:?}");
        heads.remove(0)
    }
}

async fn serve(socket: tokio::net::TcpStream, heads: Arc<Mutex<Vec<http::request::Parts>>>) {
    let Ok(mut connection) = h2::server::handshake(socket).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let goes = request.uri().path() == "/last";
        tokio::spawn(answer(request, respond, heads.clone()));
        if goes {
            connection.graceful_shutdown();
        }
    }
}

/// Sends each piece back when it comes, and a status behind the last.
async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    heads: Arc<Mutex<Vec<http::request::Parts>>>,
) -> Option<()> {
    let (head, mut body) = request.into_parts();
    let silent = head.uri.path() == "/silence";
    heads.lock().unwrap().push(head);
    if silent {
        return std::future::pending().await;
    }
    let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut sender = respond.send_response(response, false).ok()?;
    while let Some(piece) = body.data().await {
        let piece = piece.ok()?;
        body.flow_control().release_capacity(piece.len()).ok()?;
        sender.send_data(piece, false).ok()?;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    sender.send_trailers(trailers).ok()
}

fn serve_before(echo: &Echo, config: &str) -> (Keyward, Key) {
    let site = Site::new(echo.address, &format!("proxy: {{ upstream_protocol: http2, workers: 1, {config} }}"));
    let key = site.create_key(&[]);
    (site.serve(), key)
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

#[test]
fn a_call_of_grpc_streams_both_ways_and_ends_with_its_status() {
    let echo = Echo::start();
    let (keyward, key) = serve_before(&echo, "http2: true");
    let mut client = Http2::connect(keyward.proxy);
    let fields = [("x-api-key", &*key.value), ("content-type", "application/grpc"), ("te", "trailers")];
    let call = client.begin(h2_request("POST", "/media.Films/Watch", &fields), false).unwrap();
    let answer = client.stream(call, &[b"\0\0\0\0\x01a", b"\0\0\0\0\x01b", b"\0\0\0\0\x01c"]).unwrap();
    assert_eq!((answer.status, &*answer.body), (200, &b"\0\0\0\0\x01a\0\0\0\0\x01b\0\0\0\0\x01c"[..]));
    assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
    echo.only();

    let denied = client.upload(h2_request("POST", "/media.Films/Watch", &fields[1..]), b"\0\0\0\0\0").unwrap();
    assert_eq!((denied.status, &denied.headers["grpc-status"]), (200, &"16".parse().unwrap()));
    assert!(echo.heads.lock().unwrap().is_empty());
}

#[test]
fn an_upstream_that_takes_no_more_gets_another_connection() {
    let echo = Echo::start();
    let (keyward, key) = serve_before(&echo, "");
    for n in 1..4 {
        let response = keyward.send(&request("POST", "/last", &[("X-API-Key", &key.value)], b"body"));
        assert_eq!((response.status, &*response.text()), (200, "body"));
        thread::sleep(Duration::from_millis(50));
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
