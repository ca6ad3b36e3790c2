//! Where messages begin and end: bodies and none, before and behind Keyward, on one connection after another. What a client
//! sends as a body never becomes a request.

use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::thread;

use crate::support::upstream::PAGE;
use crate::support::{Framing, Key, Keyward, Site, Upstream, ok, request};

const CONFIG: &str = "routes: [{ path: \"/public/{*rest}\", auth: none }]";

fn serve() -> (Upstream, Keyward, Key) {
    serve_before(Upstream::start())
}

fn serve_before(upstream: Upstream) -> (Upstream, Keyward, Key) {
    let site = Site::new(upstream.address(), CONFIG);
    let key = site.create_key(&[]);
    (upstream, site.serve(), key)
}

#[test]
fn an_answer_to_head_has_no_body() {
    let upstream = Upstream::scripted(|turn| match turn.head.target().as_str() {
        "/chunked" => turn.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        "/unchanged" => turn.answer(b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 9\r\n\r\n"),
        "/empty" => turn.answer(b"HTTP/1.1 204 No Content\r\n\r\n"),
        "/wrong" => turn.answer(&ok("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")),
        _ => turn.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n"),
    });
    let (upstream, keyward, key) = serve_before(upstream);
    let bearer = key.bearer();
    let mut client = keyward.connect();
    for (target, length) in [
        ("/length", Some("12345")),
        ("/chunked", None),
        ("/unchanged", Some("9")),
        ("/empty", None),
        ("/again", Some("12345")),
    ] {
        let response = client.exchange(&request("HEAD", target, &[("Authorization", &bearer)], b""));
        assert!(matches!(response.status, 200 | 204 | 304), "{target}");
        assert_eq!(response.value("content-length").as_deref(), length, "{target}");
        assert_eq!(upstream.only().head.start(), format!("HEAD {target} HTTP/1.1"));
    }
    assert_eq!(upstream.connections(), 1);
    // A server that sends one all the same spoils its connection, and nothing else.
    for target in ["/wrong", "/again", "/wrong", "/empty"] {
        let response = client.exchange(&request("HEAD", target, &[("Authorization", &bearer)], b""));
        assert_eq!(response.value("content-length").is_none(), target == "/empty", "{target}");
        assert_eq!(upstream.only().head.target(), target);
    }
    // A refusal has the length of what a GET would get, and no body either.
    let refused = client.exchange(&request("HEAD", "/length", &[], b""));
    assert_eq!(refused.status, 401);
    let body = client.exchange(&request("GET", "/length", &[], b"")).body;
    assert_eq!(refused.value("content-length"), Some(body.len().to_string()));
    upstream.expect_nothing();
}

#[test]
fn a_client_that_expects_100_hears_it_only_when_it_may_go_on() {
    let (upstream, keyward, key) = serve();
    let bearer = key.bearer();
    let expecting = |authorization: &str| {
        format!(
            "POST /upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nAuthorization: {authorization}\r\n\
             Content-Length: 5\r\n\r\n"
        )
    };
    let mut client = keyward.connect();
    for _ in 0..2 {
        client.send(expecting(&bearer).as_bytes());
        assert_eq!(client.response().status, 100);
        client.send(b"movie");
        assert_eq!((client.response().status, &*upstream.only().body.bytes), (200, &b"movie"[..]));
    }
    client.send(expecting("Bearer wrong").as_bytes());
    assert_eq!(client.response().status, 401, "refused at once");
    upstream.expect_nothing();
    // The client may send its body all the same, or not; either way no byte of it is a request.
    let _ = client.wire().send(b"GET /");
    assert!(client.is_closed());
    upstream.expect_nothing();

    let mut client = keyward.connect();
    client.send(expecting(&bearer).as_bytes());
    client.send(b"movie");
    assert_eq!((client.response().status, client.response().status), (100, 200));
    let received = upstream.only();
    assert_eq!((received.head.value("expect"), &*received.body.bytes), (None, &b"movie"[..]));
}

#[test]
fn bodies_in_chunks_pass_both_ways() {
    let upstream = Upstream::scripted(|turn| {
        turn.body()?;
        turn.answer(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Late\r\n\r\n\
              5;x=\"y\"\r\nhello\r\n01\r\n \r\n5\r\nworld\r\n0\r\nX-Late: 1\r\n\r\n",
        )
    });
    let (upstream, keyward, key) = serve_before(upstream);
    let head = format!("POST /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\nTransfer-Encoding: chunked\r\n", key.value);
    let body = "\r\n3\r\nabc\r\n0A;name=value;other=\"a;b\"\r\n0123456789\r\n0\r\nX-Keyward-Key-Id: forged\r\n\r\n";
    let mut client = keyward.connect();
    for trailer in ["", "Trailer: X-Keyward-Key-Id\r\nTE: trailers\r\n"] {
        let response = client.exchange(format!("{head}{trailer}{body}").as_bytes());
        assert_eq!((response.status, &*response.text()), (200, "hello world"));
        let received = upstream.only();
        assert_eq!((received.head.framing(), &*received.body.bytes), (Framing::Chunked, &b"abc0123456789"[..]));
        assert_eq!(received.body.trailers, b"", "trailers are not forwarded: an upstream might take them for fields");
    }
}

#[test]
fn a_body_passes_whatever_the_method() {
    let (upstream, keyward, key) = serve();
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "QUERY"] {
        for (framing, bytes) in [("Content-Length: 3", "abc"), ("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n")]
        {
            let head = format!("{method} /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\n{framing}\r\n\r\n", key.value);
            assert_eq!(keyward.send(format!("{head}{bytes}").as_bytes()).status, 200, "{method} {framing}");
            assert_eq!(upstream.only().body.bytes, b"abc", "{method} {framing}");
        }
    }
}

#[test]
fn many_requests_share_a_connection() {
    let (upstream, keyward, key) = serve();
    let mut client = keyward.connect();
    for n in 0..500 {
        let body = vec![b'x'; n % 7 * 1000];
        let method = if n % 7 == 0 { "GET" } else { "POST" };
        let response = client.exchange(&request(method, &format!("/{n}"), &[("X-API-Key", &key.value)], &body));
        assert_eq!((response.status, &*response.text()), (200, PAGE));
        let received = upstream.only();
        assert_eq!((received.head.target(), received.body.bytes.len()), (format!("/{n}"), body.len()));
    }
    assert_eq!(upstream.connections(), 1, "they share one to the upstream too");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::scripted(|turn| {
        let target = turn.head.target();
        turn.answer(&ok(&target))
    });
    let (upstream, keyward, key) = serve_before(upstream);
    let mut all = Vec::new();
    for n in 0..60 {
        let value = if n % 3 == 2 { "wrong" } else { &key.value };
        let method = if n % 2 == 0 { "GET" } else { "POST" };
        let body = if n % 3 == 2 || n % 2 == 0 { &b""[..] } else { b"GET /inner HTTP/1.1\r\n\r\n" };
        all.extend(request(method, &format!("/{n}"), &[("X-API-Key", value)], body));
    }
    let mut client = keyward.connect();
    client.send(&all);
    for n in 0..60 {
        let response = client.response();
        if n % 3 == 2 {
            assert_eq!(response.status, 401, "{n}");
        } else {
            assert_eq!((response.status, response.text()), (200, format!("/{n}")));
        }
    }
    let targets: Vec<String> = upstream.take().iter().map(|received| received.head.target()).collect();
    let expected: Vec<String> = (0..60).filter(|n| n % 3 != 2).map(|n| format!("/{n}")).collect();
    assert_eq!(targets, expected);
}

#[test]
fn clients_of_http_1_0_are_served() {
    let upstream = Upstream::scripted(|turn| match turn.head.target().as_str() {
        "/chunked" => turn.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        _ => turn.answer(&ok("hello")),
    });
    let (upstream, keyward, key) = serve_before(upstream);
    let head =
        |target: &str, fields: &str| format!("GET {target} HTTP/1.0\r\nX-API-Key: {}\r\n{fields}\r\n", key.value);
    for target in ["/length", "/chunked"] {
        let mut client = keyward.connect();
        let response = client.exchange(head(target, "").as_bytes());
        assert_eq!((response.status, &*response.text()), (200, "hello"));
        assert_eq!(response.value("transfer-encoding"), None, "HTTP/1.0 knows no chunks");
        assert!(client.is_closed());
        let received = upstream.only().head;
        assert_eq!(received.start(), format!("GET {target} HTTP/1.1"));
        assert_eq!(
            received.value("host"),
            Some(upstream.address().to_string()),
            "who sends none asks for the upstream"
        );
    }
    let mut client = keyward.connect();
    for _ in 0..3 {
        assert_eq!(client.exchange(head("/length", "Connection: keep-alive\r\n").as_bytes()).status, 200);
    }
    assert_eq!(upstream.take().len(), 3);
    let with_coding = head("/x", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n";
    assert_eq!(keyward.send(with_coding.as_bytes()).status, 400);
    upstream.expect_nothing();
}

#[test]
fn absolute_targets_are_judged_and_sent_as_their_path() {
    let (upstream, keyward, key) = serve();
    let send = |target: &str, host: &str| {
        keyward
            .send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nX-API-Key: {}\r\n\r\n", key.value).as_bytes())
            .status
    };
    for (target, origin) in
        [("http://real.example/a?b", "/a?b"), ("http://real.example", "/"), ("HTTP://real.example/", "/")]
    {
        assert_eq!(send(target, "fake.example"), 200, "{target}");
        let head = upstream.only().head;
        assert_eq!((head.target(), head.value("host").as_deref()), (origin.to_owned(), Some("real.example")));
        assert_eq!(head.value("x-forwarded-host").as_deref(), Some("real.example"));
    }
    for target in [
        "http://user@real.example/",
        "http://real.example@evil/",
        "http:///x",
        "//real.example/public/x",
        "x/public/x",
        "*",
        "http://real.example/../x",
    ] {
        assert_eq!(send(target, "fake.example"), 400, "{target}");
        upstream.expect_nothing();
    }
    for method in ["CONNECT", "TRACE"] {
        let target = if method == "CONNECT" { "real.example:80" } else { "/public/x" };
        let head = format!("{method} {target} HTTP/1.1\r\nHost: real.example:80\r\nX-API-Key: {}\r\n\r\n", key.value);
        assert_eq!(keyward.send(head.as_bytes()).status, 501, "{method}");
        upstream.expect_nothing();
    }
}

#[test]
fn the_upstream_may_be_a_socket_in_the_file_system() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "proxy: { upstream: \"unix:upstream.sock\" }");
    let key = site.create_key(&[]);
    let listener = UnixListener::bind(site.path().join("upstream.sock")).unwrap();
    let behind = upstream.address();
    thread::spawn(move || {
        for near in listener.incoming() {
            let (mut near, mut far) = (near.unwrap(), TcpStream::connect(behind).unwrap());
            let (mut near_too, mut far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            thread::spawn(move || io::copy(&mut near, &mut far));
            thread::spawn(move || io::copy(&mut far_too, &mut near_too));
        }
    });
    let keyward = site.serve();
    let mut client = keyward.connect();
    for body in [&b""[..], b"body", &[b'x'; 100_000]] {
        let response = client.exchange(&request("POST", "/x?a", &[("X-API-Key", &key.value)], body));
        assert_eq!((response.status, &*response.text()), (200, PAGE));
        let received = upstream.only();
        assert_eq!((received.head.start(), &*received.body.bytes), ("POST /x?a HTTP/1.1".to_owned(), body));
        assert_eq!(received.head.value("host").as_deref(), Some("media.example"));
    }
    assert_eq!(upstream.connections(), 1);
    let old = format!("GET /x HTTP/1.0\r\nX-API-Key: {}\r\n\r\n", key.value);
    assert_eq!(keyward.send(old.as_bytes()).status, 200);
    assert_eq!(upstream.only().head.value("host").as_deref(), Some("localhost"), "who sends none gets one");
}

/// The body of a refused request is itself a request that would be let through: it must never be taken for one.
#[test]
fn a_body_that_nobody_reads_is_no_request() {
    let (upstream, keyward, key) = serve();
    let inner = format!("GET /inner HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\n\r\n", key.value);
    let many = inner.repeat(3000);
    let length = |body: &str| format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let chunked = |body: &str| format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let promised = format!("Content-Length: {}\r\n\r\n{inner}", inner.len() + 1);
    for refused in [
        "POST /outer HTTP/1.1\r\nHost: a\r\n",
        "POST /outer HTTP/1.1\r\nHost: a\r\nX-API-Key: wrong\r\n",
        "GET /outer HTTP/1.1\r\nHost: a\r\n",
        "POST /public//outer HTTP/1.1\r\nHost: a\r\n",
        "POST /outer HTTP/1.1\r\nHost: a\r\nHost: b\r\n",
        "POST /outer HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n",
        "TRACE /outer HTTP/1.1\r\nHost: a\r\n",
    ] {
        for body in [length(&inner), chunked(&inner), length(&many), chunked(&many), promised.clone()] {
            let mut client = keyward.connect();
            client.send(refused.as_bytes());
            // Keyward may have closed before it has seen all of it.
            let _ = client.wire().send(body.as_bytes());
            if body == promised {
                client.finish();
            }
            if let Ok(response) = client.try_response() {
                assert!(matches!(response.status, 400 | 401 | 501), "{refused}: {}", response.status);
                client.finish();
                if let Ok(further) = client.try_response() {
                    panic!("an answer to a body of {refused}: {}", further.status);
                }
            }
            upstream.expect_nothing();
        }
    }
}

/// Fields and bodies that some servers read otherwise, and what comes of them: an answer, and how the upstream is told where
/// the body ends if it is told anything.
const FRAMINGS: &[(&str, &str, u16, Option<Framing>)] = &[
    ("Content-Length: 5", "hello", 200, Some(Framing::Length(5))),
    ("Content-Length:\t 5\t", "hello", 200, Some(Framing::Length(5))),
    ("X: a\nTransfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n", 200, Some(Framing::Chunked)),
    ("Content_Length: 7\r\nContent-Length: 5", "hello", 200, Some(Framing::Length(5))),
    ("Transfer_Encoding: chunked\r\nContent-Length: 5", "hello", 200, Some(Framing::Length(5))),
    ("Content-Length: 5\r\nContent-Length: 5", "hello", 400, None),
    ("Content-Length: 5\r\nTransfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n", 400, None),
    ("Transfer-Encoding: chunked\r\nContent-Length: 5", "5\r\nhello\r\n0\r\n\r\n", 400, None),
    ("Content-Length: 5\r\nContent-Length: 6", "hello!", 400, None),
    ("Content-Length: 5, 5", "hello", 400, None),
    ("Content-Length: +5", "hello", 400, None),
    ("Content-Length: -5", "hello", 400, None),
    ("Content-Length: 05", "hello", 400, None),
    ("Content-Length: 0x5", "hello", 400, None),
    ("Content-Length: 5.0", "hello", 400, None),
    ("Content-Length: 99999999999999999999", "hello", 400, None),
    ("Content-Length:", "hello", 400, None),
    ("Transfer-Encoding: chunked, chunked", "0\r\n\r\n", 400, None),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n", 400, None),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n", 400, None),
    ("Transfer-Encoding: identity, chunked", "0\r\n\r\n", 400, None),
    ("Transfer-Encoding: ,chunked", "0\r\n\r\n", 400, None),
    ("Transfer-Encoding: chunked,", "0\r\n\r\n", 400, None),
    ("Transfer-Encoding: xchunked", "0\r\n\r\n", 400, None),
    ("Transfer-Encoding: \x0bchunked", "0\r\n\r\n", 400, None),
    ("Transfer-Encoding: gzip", "0\r\n\r\n", 400, None),
    ("Transfer-Encoding : chunked", "0\r\n\r\n", 400, None),
    ("X: 1\r\n Transfer-Encoding: chunked", "0\r\n\r\n", 400, None),
    ("X: a\rTransfer-Encoding: chunked", "0\r\n\r\n", 400, None),
    ("X: a\0b", "", 400, None),
    (": empty", "", 400, None),
    ("Transfer-Encoding: chunked", "5\nhello\n0\n\n", 400, None),
    ("Transfer-Encoding: chunked", "-5\r\nhello\r\n0\r\n\r\n", 400, None),
    ("Transfer-Encoding: chunked", "0x5\r\nhello\r\n0\r\n\r\n", 400, None),
    ("Transfer-Encoding: chunked", "fffffffffffffffff5\r\nhello\r\n0\r\n\r\n", 400, None),
    ("Transfer-Encoding: chunked", "5\r\nhelloXX0\r\n\r\n", 400, None),
    ("Transfer-Encoding: chunked", "\r\nhello\r\n0\r\n\r\n", 400, None),
];

#[test]
fn what_servers_frame_differently_is_framed_anew_or_refused() {
    let (upstream, keyward, key) = serve();
    for (fields, body, expected, framing) in FRAMINGS {
        let head = format!("POST /outer HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\n{fields}\r\n\r\n", key.value);
        let mut client = keyward.connect();
        client.send(head.as_bytes());
        // It may have been refused by now.
        let _ = client.wire().send(body.as_bytes());
        let status = client.try_response().map_or(0, |response| response.status);
        let received = upstream.take();
        assert_eq!(status, *expected, "{fields} {body:?}: {received:?}");
        // The head of a request whose body turns out wrong may have been forwarded, but never a whole body.
        let whole: Vec<_> = received.iter().filter(|received| received.body.bytes == b"hello").collect();
        assert_eq!(whole.len(), usize::from(status == 200), "{fields} {body:?}: {received:?}");
        assert_eq!(whole.first().map(|received| received.head.framing()), *framing, "{fields}");
        if status != 200 {
            assert!(client.is_closed(), "{fields}: whoever framed it so may mean another end");
        }
    }
}

/// That a request is denied says nothing of where it ends.
#[test]
fn a_denied_request_that_servers_frame_differently_is_the_last() {
    let (upstream, keyward, _) = serve();
    for (fields, body, _, _) in FRAMINGS.iter().filter(|(fields, _, status, _)| *status == 400 && fields.contains(':'))
    {
        let mut client = keyward.connect();
        client.send(format!("POST /outer HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}").as_bytes());
        if let Ok(response) = client.try_response() {
            assert!(matches!(response.status, 400 | 401), "{fields}");
            let again = client.wire().send(&request("GET", "/public/x", &[], b"")).and_then(|()| client.try_response());
            assert!(again.is_err(), "{fields} {body:?}: the connection is used again");
        }
        upstream.expect_nothing();
    }
}

#[test]
fn a_body_that_is_none_is_no_fault_of_the_upstream() {
    let (_upstream, keyward, key) = serve();
    for body in ["zz\r\n", "5\r\nhel"] {
        let mut client = keyward.connect();
        let head = "Transfer-Encoding: chunked\r\nAccept: application/json\r\n\r\n";
        client.send(format!("POST /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\n{head}{body}", key.value).as_bytes());
        client.finish();
        let answer =
            client.try_response().map(|response| (response.status, response.json()["errors"][0]["code"].clone()));
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer == (400, "bad_request".into())), "{body}");
    }
    crate::support::until("nothing is in flight", || keyward.metric("keyward_requests_in_flight") == 0.0);
    assert_eq!(keyward.metric("keyward_upstream_errors_total{kind=\"upstream_broken\"}"), 0.0);
}
