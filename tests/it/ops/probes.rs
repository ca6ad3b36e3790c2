//! Probes that are passed on to a server that only this machine can reach.

use std::io::Write as _;
use std::net::TcpStream;

use crate::support::{After, Site, Upstream, ok, until};

#[test]
fn kubelet_is_heard_however_many_connections_there_are() {
    let upstream = Upstream::scripted(|_| {
        std::thread::sleep(std::time::Duration::from_secs(3));
        Ok(After::Close)
    });
    let keyward = Site::new(upstream.address(), "ops: { probes: { /slow: / } }").serve();
    let ops = keyward.ops;
    let connect = |ask: &str| {
        let mut client = TcpStream::connect(ops).unwrap();
        client.write_all(ask.as_bytes()).unwrap();
        client
    };
    let silent: Vec<TcpStream> = (0..200).map(|_| connect("GET /livez HT")).collect();
    let waiting: Vec<TcpStream> = (0..100).map(|_| connect("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    for _ in 0..3 {
        assert_eq!(keyward.ops_page("/livez").status, 200);
    }
    assert_eq!(keyward.ops_page("/slow").status, 503);
    drop((silent, waiting));
    let _ = upstream.take();
}

#[test]
fn probes_of_the_server_behind_are_passed_on() {
    let upstream = Upstream::scripted(|turn| match turn.head.target().as_str() {
        "/health?full" => turn.answer(&ok("secrets of the server")),
        "/broken" => turn.answer(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"),
        "/moved" => turn.answer(b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n"),
        _ => Ok(After::Close),
    });
    let probes = "ops: { probes: { /startup: '/health?full', /alive: /broken, /moved: /moved, /gone: /gone } }";
    let keyward = Site::new(upstream.address(), probes).serve();
    for (name, status, body) in [
        ("/startup", 200, "the server behind answered 200\n"),
        ("/startup?x", 200, "the server behind answered 200\n"),
        ("/alive", 500, "the server behind answered 500\n"),
        ("/moved", 302, "the server behind answered 302\n"),
        ("/gone", 503, "the server behind gave no answer\n"),
        ("/health", 404, "not found; there are /livez, /readyz and /metrics\n"),
    ] {
        let page = keyward.ops_page(name);
        assert_eq!((page.status, page.text().as_str(), page.value("location")), (status, body, None), "{name}");
    }
    let received = upstream.take();
    assert_eq!(received.len(), 5);
    let host = upstream.address().to_string();
    assert_eq!(received[0].head.value("host").as_deref(), Some(&*host));
    assert!(received.iter().all(|request| request.head.value("connection").as_deref() == Some("close")));

    // They change as everything else does, and follow the upstream.
    let other = Upstream::start();
    keyward.site.configure(other.address(), "ops: { probes: { /new: /health } }");
    assert_eq!(keyward.reload().status, 200);
    assert_eq!((keyward.ops_page("/startup").status, keyward.ops_page("/new").status), (404, 200));
    assert_eq!(other.only().head.target(), "/health");
    drop(other);
    until("it is gone", || keyward.ops_page("/new").status == 503);
    assert_eq!(keyward.ops_page("/livez").status, 200);
}
