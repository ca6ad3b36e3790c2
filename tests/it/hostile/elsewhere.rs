//! What is no single stream of bytes from a client: many at once (row 10), an upstream that cheats (row 60), what never ends
//! (row 67), what ends too soon (row 70), and what is written about all of it (row 75).

use std::io;
use std::thread;

use super::super::support::{After, Keyward, Upstream, ok, request};
use super::{Court, Keys, serve};

/// r75. Each line of the log is one object, whatever was sent, and none has a key in it. No client makes the library of HTTP/2
/// talk.
#[track_caller]
pub(super) fn check_log(keyward: &Keyward, keys: &Keys) {
    let output = String::from_utf8(keyward.output()).expect("the log is UTF-8");
    for line in output.lines().take(output.matches('\n').count()) {
        let read = serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(read.is_object() && !read["target"].as_str().unwrap_or_default().starts_with("h2"), "{line}");
    }
    for key in [&keys.key, &keys.read_only, &keys.elsewhere] {
        assert!(!output.contains(&key.value), "a key is in the log");
    }
}

#[test]
fn r75_what_was_sent_is_no_markup_and_no_line_of_its_own() {
    let Court { upstream: _upstream, keyward, keys, .. } = serve("proxy: { paths: lenient }");
    let targets = ["/<script>", "/\"},{\"level\":\"x", "/%0d%0aX", "/a%00", "/\u{202e}x", "/']]>", "/&amp;\\"];
    for target in targets {
        for accept in ["application/json", "text/xml", "text/html", "text/plain", "application/problem+json"] {
            let lines = [("Accept", accept), ("X-API-Key", "<kw>\"&"), ("X-Request-Id", "\"<x>")];
            let response = keyward.get(target, &lines);
            assert!(matches!(response.status, 400 | 401), "{target}");
            let text = format!("{:?}{}", response.head, response.text());
            for sent in ["script", "202e", "<kw>", "<x>", "]]>", "},{"] {
                assert!(!text.contains(sent), "{target} {accept}: {text}");
            }
        }
    }
    keyward.get("/last", &[]);
    let is_written = || String::from_utf8_lossy(&keyward.output()).contains("\"url.path\":\"/last\"");
    super::super::support::until("the log has the last request", is_written);
    check_log(&keyward, &keys);
}

#[test]
fn r10_no_answer_of_one_goes_to_another() {
    let upstream = Upstream::scripted(|turn| {
        let target = turn.head.target();
        turn.answer(&ok(&target))
    });
    let site = super::Site::new(upstream.address(), "");
    let key = site.create_key(&[]);
    let keyward = site.serve();
    thread::scope(|scope| {
        for worker in 0..6 {
            let (keyward, key) = (&keyward, &key);
            scope.spawn(move || {
                let mut client = keyward.connect();
                for n in 0..100 {
                    let target = format!("/{worker}/{n}");
                    let value = [&*key.value, "wrong", ""][(worker + n) % 3];
                    let response = client.exchange(&request("GET", &target, &[("X-API-Key", value)], b""));
                    let expected = if value == key.value { (200, target) } else { (401, String::new()) };
                    let text = if response.status == 200 { response.text() } else { String::new() };
                    assert_eq!((response.status, text), expected);
                }
            });
        }
    });
    assert_eq!(upstream.take().len(), 200);
}

/// Answers that are two, or none, or not asked for.
const CHEATS: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naevil",
    "HTTP/1.1 204 No Content\r\n\r\nevil",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: forged\r\n\r\nevil",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: evil\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nevil",
    "evil\r\n\r\n",
    "",
];

#[test]
fn r60_an_upstream_that_cheats_one_client_does_not_cheat_the_next() {
    let upstream = Upstream::scripted(|turn| {
        let target = turn.head.target();
        match target.strip_prefix("/cheat/").and_then(|n| n.parse::<usize>().ok()) {
            Some(n) => {
                turn.body()?;
                turn.wire.send(CHEATS[n].as_bytes())?;
                Ok(if CHEATS[n].ends_with("evil") { After::Keep } else { After::Close })
            }
            None => turn.answer(&ok("good")),
        }
    });
    let site = super::Site::new(upstream.address(), "");
    let key = site.create_key(&[]);
    let keyward = site.serve();
    for (n, cheat) in CHEATS.iter().enumerate() {
        let mut client = keyward.connect();
        client.send(&request("GET", &format!("/cheat/{n}"), &[("X-API-Key", &key.value)], b""));
        if let Ok(response) = client.try_response() {
            assert!(matches!(response.status, 200 | 204 | 304 | 502), "{cheat:?}: {}", response.status);
            assert!(!response.text().contains("evil"), "{cheat:?}: {}", response.text());
            assert_eq!(response.value("set-cookie"), None, "{cheat:?}");
        }
        for _ in 0..3 {
            let response = keyward.get("/good", &[("X-API-Key", &key.value)]);
            assert_eq!((response.status, &*response.text()), (200, "good"), "after {cheat:?}");
        }
    }
}

/// Sends something again and again, until the other end has had enough; how many bytes it took.
fn endless(keyward: &Keyward, start: &str, again: &[u8]) -> usize {
    const LIMIT: usize = 8 * 1024 * 1024;
    let mut client = keyward.connect();
    let mut sent = start.len();
    let block = again.repeat(64 * 1024 / again.len());
    let mut send = |bytes: &[u8]| client.wire().send(bytes);
    if send(start.as_bytes()).is_err() {
        return sent;
    }
    while sent < LIMIT {
        match send(&block) {
            Ok(()) => sent += block.len(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return sent,
            Err(_) => return sent,
        }
    }
    sent
}

#[test]
fn r67_what_never_ends_is_cut_off() {
    let court = serve("");
    let Court { upstream, keyward, keys, .. } = &court;
    court.good_requests("nothing");
    let before = keyward.memory();
    let chunked = format!(
        "POST /broken HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        keys.key.value
    );
    for (start, again) in [
        ("GET /", "a"),
        ("GET /x?", "a"),
        ("", "G"),
        ("", "\r\n"),
        ("GET /x HTTP/1.1\r\nX: ", "a"),
        ("GET /x HTTP/1.1\r\nX: ", " "),
        ("GET /x HTTP/1.1\r\n", "a"),
        ("GET /x HTTP/1.1\r\nHost: a\r\n", "X: y\r\n"),
        ("GET /x HTTP/1.1\r\nHost: a\r\n", "\u{1}"),
        (&*format!("{chunked}5;"), "a"),
        (&format!("{chunked}0\r\n"), "X: y\r\n"),
        (&format!("{chunked}0\r\nX: "), "a"),
        (&format!("{chunked}0\r\n"), "a"),
    ] {
        let sent = endless(keyward, start, again.as_bytes());
        assert!(sent < 8 * 1024 * 1024, "{start:?} and {again:?} for ever: {sent} bytes");
        upstream.take();
        court.good_requests(start);
    }
    // These are bodies that say nothing: they take no memory however long they are.
    for (start, again) in [(&*format!("{chunked}0"), "0"), (&*format!("{chunked}5"), " "), (&*chunked, "1\r\na\r\n")] {
        endless(keyward, start, again.as_bytes());
    }
    assert!(keyward.memory() < before + 16 * 1024 * 1024, "{before} bytes before, {} after", keyward.memory());
}

#[test]
fn r70_what_breaks_off_is_never_whole() {
    let court = serve("");
    let Court { upstream, keyward, keys, .. } = &court;
    for body in [
        "Content-Length: 10\r\n\r\nhello",
        "Content-Length: 10\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "Transfer-Encoding: chunked\r\n\r\n5",
    ] {
        let mut client = keyward.connect();
        client.send(format!("POST /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\n{body}", keys.key.value).as_bytes());
        upstream.wait_for(1);
        client.finish();
        assert!(client.try_response().map_or(true, |response| response.status != 200), "{body:?}");
        let received = upstream.take();
        assert_eq!(received.len(), 1, "a POST is not sent twice: {body:?}");
        assert!(received[0].body.bytes.is_empty(), "{body:?}: {received:?}");
        court.good_requests(body);
    }
}
