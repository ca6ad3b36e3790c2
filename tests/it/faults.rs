//! What can go wrong on the way to the upstream and back: each has its status, in the route's format and in time, and the next
//! request is served.

mod again; // what is sent once more, and what never is
pub(crate) mod halves; // what is ended in the middle
mod matrix; // every fault, whatever the client does meanwhile
mod stage; // the upstreams of the matrix
mod storm; // thousands of requests, and no answer to the wrong one

use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::support::upstream::PAGE;
use super::support::{After, Key, Keyward, PATIENCE, Site, Upstream, ok, request, until};

fn serve(upstream: &Upstream, config: &str) -> (Keyward, Key) {
    let site = Site::new(upstream.address(), config);
    let key = site.create_key(&[]);
    (site.serve(), key)
}

/// A second, and what a limit that is watched four times a second may be late.
#[track_caller]
fn expect_about_a_second(began: Instant) {
    let took = began.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_millis(2500)).contains(&took), "{took:?}");
}

#[test]
fn an_upstream_that_is_down_is_told_in_the_routes_format() {
    let address = crate::support::port::unused();
    let routes = r#"
deny: { format: json }
routes:
  - { path: "/xml/{*rest}", deny: xml }
  - { path: "/odd/{*rest}", deny: { format: xml-cablecast, status: 200, body: "Access Denied" } }
  - { path: "/problem", deny: problem }
"#;
    let site = Site::new(address, routes);
    let key = site.create_key(&[]);
    let keyward = site.serve();
    for (path, media_type, text) in [
        ("/xml/x", "text/xml; charset=utf-8", "<code>bad_gateway</code>"),
        ("/odd/x", "text/xml; charset=utf-8", "Bad Gateway"),
        ("/problem", "application/problem+json", "\"status\":502"),
        ("/other", "application/json", "\"success\":false"),
    ] {
        let response = keyward.with_key(&key, "GET", path);
        assert_eq!((response.status, response.value("content-type").as_deref()), (502, Some(media_type)), "{path}");
        assert!(response.text().contains(text), "{path}: {}", response.text());
        assert!(response.value("x-request-id").is_some());
    }
    assert_eq!(keyward.get("/other", &[]).status, 401, "who may not pass hears nothing of the upstream");
    assert_eq!(keyward.metric("keyward_upstream_errors_total{kind=\"upstream_unreachable\"}"), 4.0);

    let upstream = Upstream::at(address, |turn| turn.answer(&ok(PAGE)));
    assert_eq!(keyward.with_key(&key, "GET", "/other").status, 200, "as soon as it is there");
    assert_eq!(upstream.received().len(), 1);
}

/// The upstream closes a connection that Keyward has kept for the next request, which comes right then.
#[test]
fn connections_that_the_upstream_closes_cost_no_request() {
    let (closed, heard) = mpsc::channel();
    let upstream = Upstream::scripted(move |turn| {
        turn.answer(&ok(PAGE))?;
        turn.wire.socket().shutdown(Shutdown::Both)?;
        let _ = closed.send(());
        Ok(After::Close)
    });
    let (keyward, key) = serve(&upstream, "");
    let mut client = keyward.connect();
    for n in 0..200 {
        let (method, body) = if n % 2 == 0 { ("GET", &b""[..]) } else { ("POST", &b"body"[..]) };
        let response = client.exchange(&request(method, &format!("/{n}"), &[("X-API-Key", &key.value)], body));
        assert_eq!(response.status, 200, "{method} {n}");
        heard.recv_timeout(PATIENCE).unwrap();
    }
    let targets: Vec<String> = upstream.take().iter().map(|received| received.head.target()).collect();
    assert_eq!(targets, (0..200).map(|n| format!("/{n}")).collect::<Vec<_>>(), "each once");
}

#[test]
fn an_answer_that_does_not_begin_in_time_is_given_up() {
    let upstream = Upstream::scripted(|turn| match turn.head.target().as_str() {
        "/never" => turn.wire.head().map(|_| After::Close),
        "/half" => {
            turn.wire.send(b"HTTP/1.1 200 OK\r\nContent-Le")?;
            turn.wire.head().map(|_| After::Close)
        }
        "/slow-body" => {
            turn.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")?;
            for byte in [b"a", b"b", b"c"] {
                std::thread::sleep(Duration::from_millis(600)); // a body may take as long as it takes
                turn.wire.send(byte)?;
            }
            Ok(After::Keep)
        }
        _ => turn.answer(&ok(PAGE)),
    });
    let (keyward, key) = serve(&upstream, "proxy: { timeouts: { response: 1s } }\ndeny: { format: json }");
    for target in ["/never", "/half"] {
        let began = Instant::now();
        let response = keyward.with_key(&key, "GET", target);
        assert_eq!(response.status, 504, "{target}: {}", response.text());
        assert_eq!(response.json()["errors"][0]["code"], "gateway_timeout");
        expect_about_a_second(began);
    }
    let response = keyward.with_key(&key, "GET", "/slow-body");
    assert_eq!((response.status, &*response.text()), (200, "abc"));
    assert_eq!(keyward.with_key(&key, "GET", "/good").status, 200);
    assert_eq!(upstream.received().len(), 4, "nothing was tried again");
}

/// Answers to a request, and the status that the client gets; `None` where it gets an answer that breaks off.
const ANSWERS: &[(&str, Option<u16>)] = &[
    ("", Some(502)),
    ("garbage\r\n\r\n", Some(502)),
    ("\r\n\r\n", Some(502)),
    ("HTTP/1.1 abc\r\n\r\n", Some(502)),
    ("HTTP/1.1 99 Low\r\n\r\n", Some(502)),
    ("HTTP/7.3 200 OK\r\n\r\n", Some(502)),
    ("SSH-2.0-OpenSSH_9.2\r\n", Some(502)),
    ("HTTP/1.1 200 OK\r\nContent-Le", Some(502)),
    ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", Some(502)),
    ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", Some(502)),
    ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nab", Some(502)),
    ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", Some(502)),
    ("HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Some(502)),
    ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Some(200)),
    ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Some(200)),
    ("HTTP/1.1 200 OK\r\n\r\nas long as it takes", Some(200)),
    ("HTTP/1.0 200 OK\r\n\r\nas long as it takes", Some(200)),
    ("HTTP/1.1 200 OK\r\nX: folded\r\n into two\r\nContent-Length: 2\r\n\r\nok", Some(200)),
    ("HTTP/1.1 204 No Content\r\n\r\n", Some(204)),
    ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot as much", None),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", None),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", None),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", None),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n", None),
];

#[test]
fn what_is_no_whole_answer_is_never_passed_off_as_one() {
    let (closed, heard) = mpsc::channel();
    let upstream = Upstream::scripted(move |turn| {
        let place: usize = turn.head.target()[1..].parse().unwrap();
        turn.answer(ANSWERS[place].0.as_bytes())?;
        turn.wire.socket().shutdown(Shutdown::Both)?;
        let _ = closed.send(());
        Ok(After::Close)
    });
    let (keyward, key) = serve(&upstream, "");
    for (place, (answer, expected)) in ANSWERS.iter().enumerate() {
        // To HTTP/1.0 an answer may end with its connection, and only a reset says that there is more.
        for (method, version) in [("GET", "1.1"), ("POST", "1.1"), ("GET", "1.0")] {
            let mut client = keyward.connect();
            let head = format!("{method} /{place} HTTP/{version}\r\nHost: a\r\nX-API-Key: {}\r\n", key.value);
            client.send(format!("{head}Content-Length: 0\r\n\r\n").as_bytes());
            let got = client.try_response();
            let status = got.as_ref().ok().map(|response| response.status);
            assert_eq!(status, *expected, "{method} {version} {answer:?}: {:?}", got.map(|response| response.text()));
            assert_eq!(upstream.take().len(), 1, "{answer:?}");
            // The next request must not meet a connection that is about to be closed.
            heard.recv_timeout(PATIENCE).unwrap();
        }
    }
}

/// Bytes that nobody asked for come with an answer, or behind it while the connection waits to be used again.
#[test]
fn bytes_behind_an_answer_are_no_answer() {
    for at_once in [true, false] {
        let (said, heard) = mpsc::channel();
        let count = AtomicUsize::new(0);
        let upstream = Upstream::scripted(move |turn| {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{:02}", count.fetch_add(1, SeqCst));
            let (with, behind) = if at_once { (EVIL, "") } else { ("", EVIL) };
            turn.answer(format!("{answer}{with}").as_bytes())?;
            turn.wire.send(behind.as_bytes())?;
            let _ = said.send(());
            Ok(After::Keep)
        });
        let (keyward, key) = serve(&upstream, "proxy: { workers: 1 }");
        let mut client = keyward.connect();
        for n in 0..90 {
            let response = client.exchange(&request("GET", "/x", &[("X-API-Key", &key.value)], b""));
            assert_eq!((response.status, response.text()), (200, format!("{n:02}")));
            heard.recv_timeout(PATIENCE).unwrap();
        }
        assert_eq!(upstream.connections(), 90, "a connection on which more was said is not used again");
    }
}

const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";

/// Whole answers, each framed in another way.
const WHOLE: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Trailer: x\r\n\r\n",
];

#[test]
fn a_connection_is_kept_after_every_whole_answer() {
    for answer in WHOLE {
        let upstream = Upstream::scripted(|turn| turn.answer(answer.as_bytes()));
        let (keyward, key) = serve(&upstream, "proxy: { workers: 1, timeouts: { upstream_idle: 60s } }");
        let mut client = keyward.connect();
        for _ in 0..5 {
            client.exchange(&request("GET", "/x", &[("X-API-Key", &key.value)], b""));
        }
        assert_eq!(upstream.connections(), 1, "{answer:?}");
    }
}

#[test]
fn an_answer_may_come_before_the_end_of_an_upload() {
    let upstream = Upstream::scripted(|turn| {
        if turn.head.target() == "/early" {
            turn.wire.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")?;
            turn.wire.skip(1000)?;
            return Ok(After::Keep);
        }
        turn.answer(&ok(PAGE))
    });
    let (keyward, key) = serve(&upstream, "proxy: { workers: 1 }");
    let mut client = keyward.connect();
    let head = format!("POST /early HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\nContent-Length: 1000\r\n\r\n", key.value);
    client.send(head.as_bytes());
    let response = client.response();
    assert_eq!((response.status, &*response.text()), (413, "big"));
    // What comes of the rest of the body is the client's choice; other requests are not touched by it.
    for _ in 0..5 {
        assert_eq!(keyward.with_key(&key, "POST", "/next").status, 200);
    }
    let _ = client.wire().send(&[b'x'; 1000]);
    for _ in 0..5 {
        assert_eq!(keyward.with_key(&key, "POST", "/next").status, 200);
    }
    let received = upstream.take();
    assert!(received.iter().skip(1).all(|received| received.head.start() == "POST /next HTTP/1.1"), "{received:?}");
}

#[test]
fn a_client_that_leaves_is_forgotten() {
    let upstream = Upstream::scripted(|turn| match turn.head.target().as_str() {
        "/endless" => {
            turn.wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            loop {
                turn.wire.send_chunk(&[b'x'; 10_000])?;
            }
        }
        "/never" => turn.wire.head().map(|_| After::Close),
        _ => turn.answer(&ok(PAGE)),
    });
    let (keyward, key) = serve(&upstream, "");
    for (n, target) in ["/endless", "/never"].into_iter().enumerate() {
        let mut client = keyward.connect();
        client.send(&request("GET", target, &[("X-API-Key", &key.value)], b""));
        upstream.wait_for(n + 1);
        drop(client);
        until("nothing is in flight", || keyward.metric("keyward_requests_in_flight") == 0.0);
    }
    assert_eq!(keyward.with_key(&key, "GET", "/good").status, 200);
}

#[test]
fn a_client_that_is_slow_with_its_head_is_closed() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "proxy: { timeouts: { head: 1s }, workers: 1 }");
    let began = Instant::now();
    let mut silent = keyward.connect();
    let mut slow = keyward.connect();
    let head = format!("GET /x HTTP/1.1\r\nX-API-Key: {}\r\nX-Slow: ", key.value);
    let mut bytes = head.bytes().chain(std::iter::repeat(b'x'));
    // A byte now and then keeps no connection open.
    until("it is closed", || {
        assert_eq!(keyward.with_key(&key, "GET", "/good").status, 200, "others are served meanwhile");
        std::thread::sleep(Duration::from_millis(50));
        slow.wire().send(&[bytes.next().unwrap()]).is_err()
    });
    expect_about_a_second(began);
    assert!(silent.is_closed());
    expect_about_a_second(began);
    assert!(upstream.take().iter().all(|received| received.head.target() == "/good"));
}

#[test]
fn a_connection_that_is_not_used_is_closed() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "proxy: { timeouts: { idle: 1s, head: 30s } }");
    let mut client = keyward.connect();
    let get = request("GET", "/x", &[("X-API-Key", &key.value)], b"");
    for _ in 0..2 {
        assert_eq!(client.exchange(&get).status, 200);
    }
    let began = Instant::now();
    assert!(client.is_closed());
    expect_about_a_second(began);
}

#[test]
fn a_head_may_be_large_but_not_of_any_size() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "proxy: { max_head: 16KiB, max_headers: 50 }");
    for (bytes, lines, expected) in [
        (10_000, 10, 200),
        (15_000, 45, 200),
        (20_000, 10, 431),
        (200_000, 10, 431),
        (1_000, 60, 431),
        (1_000, 5000, 431),
    ] {
        let line = format!("X-Large: {}\r\n", "x".repeat(bytes / lines));
        let head = format!("GET /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\n{}\r\n", key.value, line.repeat(lines));
        let mut client = keyward.connect();
        // It may be refused before all of it is sent.
        let _ = client.wire().send(head.as_bytes());
        let status = client.try_response().map_or(0, |response| response.status);
        assert!(status == expected || (status == 0 && bytes > 100_000), "{bytes} bytes in {lines} lines: {status}");
        assert_eq!(upstream.take().len(), usize::from(expected == 200));
    }
}

/// What gRPC clients read: HTTP says 200, and the headers what is wrong.
#[test]
fn what_comes_as_grpc_is_denied_as_grpc() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "routes: [{ path: /always, deny: grpc }]");
    let keys = [site.create_key(&["--read-only"]), site.create_key(&["--rate-limit", "1/1h"])];
    let keyward = site.serve();
    let call = |key: &str, media: &str| {
        let fields = [("Content-Type", media), ("X-API-Key", key)];
        keyward.send(&request("POST", "/media.Films/Get", &fields, b"\0\0\0\0\0"))
    };
    assert_eq!(call(&keys[1].value, "application/grpc+proto").status, 200);
    upstream.only();
    for (key, code, message) in [
        ("wrong", "16", "The API key is not valid."),
        (&*keys[0].value, "7", "The API key may only read."),
        (&*keys[1].value, "8", "The API key has been used too often; try again later."),
    ] {
        let response = call(key, "application/grpc");
        assert_eq!((response.status, &*response.text()), (200, ""));
        for (name, expected) in [("content-type", "application/grpc"), ("grpc-status", code), ("grpc-message", message)]
        {
            assert_eq!(response.value(name).as_deref(), Some(expected), "{code}");
        }
        assert_eq!(response.value("retry-after").is_some(), code == "8");
    }
    assert_eq!(call("wrong", "application/grpc-web").status, 401);
    assert_eq!(keyward.get("/always", &[]).value("grpc-status").as_deref(), Some("16"));
    upstream.expect_nothing();
}

/// More header lines than a head may have: which option allows them is said, once.
#[test]
fn an_answer_with_too_many_header_lines_is_told_from_one_that_is_broken() {
    let upstream = Upstream::scripted(|turn| {
        let lines: String = (0..120).map(|n| format!("X-Line-{n}: x\r\n")).collect();
        let many = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{lines}\r\n");
        if turn.head.target() == "/many" { turn.answer(many.as_bytes()) } else { turn.answer(&ok(PAGE)) }
    });
    let site = Site::new(upstream.address(), "proxy: { workers: 1 }");
    let key = site.create_key(&[]);
    let keyward = site.serve();
    for _ in 0..3 {
        assert_eq!(keyward.with_key(&key, "GET", "/x").status, 200);
        assert_eq!(keyward.with_key(&key, "GET", "/many").status, 502);
    }
    let line = keyward.wait_for_line("an answer of the upstream cannot be read");
    assert!(line["advice"].as_str().unwrap().contains("proxy.max_headers"), "{line}");
    let output = String::from_utf8(keyward.output()).unwrap();
    assert_eq!(output.matches("cannot be read").count(), 1, "{output}");
    assert!(!output.contains("upstream_protocol"), "{output}");
    keyward.site.configure(upstream.address(), "proxy: { workers: 1, max_headers: 150 }");
    assert_eq!(keyward.reload().status, 200);
    assert_eq!(keyward.with_key(&key, "GET", "/many").status, 200);
}
