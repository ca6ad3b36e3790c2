//! A WebSocket is a tunnel that the upstream agrees to. Nothing of the client's gets through before it has, and the tunnel
//! ends when one of the two ends it, when nothing passes for long, or when the program stops.

mod library;

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use super::support::upstream::{PAGE, Turn};
use super::support::{After, Client, Key, Keyward, Site, Upstream, request, until};

const ASKS: &[(&str, &str)] = &[
    ("Connection", "keep-alive, Upgrade"),
    ("Upgrade", "WebSocket"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
];
const AGREES: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// Text frames, as servers and as clients send them.
const HELLO: &[u8] = b"\x81\x05hello";
const MASKED_HELLO: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x5f\x9f\x4d\x51\x58";
/// Close frames that say 1001.
const GOING_AWAY: &[u8] = b"\x88\x02\x03\xe9";

fn serve(upstream: &Upstream, config: &str) -> (Keyward, Key) {
    let site = Site::new(upstream.address(), config);
    let key = site.create_key(&["--id", "k1"]);
    (site.serve(), key)
}

fn asks<'f>(key: &'f Key, fields: &[(&'f str, &'f str)]) -> Vec<u8> {
    request("GET", "/chat?room=1", &[&[("X-API-Key", &*key.value)], fields].concat(), b"")
}

/// An upstream that agrees, and sends back what it is sent.
fn echo() -> Upstream {
    Upstream::scripted(|turn| {
        turn.answer(AGREES)?;
        loop {
            let bytes = turn.wire.some()?;
            if bytes.is_empty() {
                turn.wire.send(b"bye")?;
                return Ok(After::Close);
            }
            turn.wire.send(&bytes)?;
        }
    })
}

/// A tunnel that is open.
#[track_caller]
fn open(keyward: &Keyward, key: &Key) -> Client {
    let mut client = keyward.connect();
    client.send(&asks(key, ASKS));
    assert_eq!(client.response_head().unwrap().0, 101);
    client
}

#[test]
fn a_websocket_passes_both_ways_and_counts_until_it_ends() {
    let upstream = echo();
    let (keyward, key) = serve(&upstream, "");
    let began = Instant::now();
    let mut client = keyward.connect();
    client.send(&asks(&key, ASKS));
    let (status, head) = client.response_head().unwrap();
    let field = |name: &str| head.value(name).unwrap_or_default();
    assert_eq!((status, &*field("upgrade"), &*field("connection")), (101, "websocket", "Upgrade"));
    assert_eq!(field("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");

    let head = upstream.only().head;
    assert_eq!(head.target(), "/chat?room=1");
    for (name, expected) in [
        ("upgrade", Some("websocket")),
        ("connection", Some("Upgrade")),
        ("sec-websocket-key", Some("dGhlIHNhbXBsZSBub25jZQ==")),
        ("sec-websocket-version", Some("13")),
        ("x-keyward-key-id", Some("k1")),
        ("x-api-key", None),
    ] {
        assert_eq!(head.value(name).as_deref(), expected, "{name}");
    }
    for piece in [MASKED_HELLO, &[0xa5; 300_000]] {
        client.send(piece);
        assert_eq!(client.wire().exactly(piece.len()).unwrap(), piece);
    }
    let gauges =
        || ["tunnels_open", "connections_open", "requests_in_flight"].map(|n| keyward.metric(&format!("keyward_{n}")));
    assert_eq!(gauges(), [1.0; 3]);
    thread::sleep(Duration::from_millis(100));
    // Each side ends for itself.
    client.finish();
    assert_eq!(client.wire().rest().unwrap(), b"bye");
    let line = keyward.wait_for_line_with("url.path", &"/chat".into());
    assert_eq!((line["http.response.status_code"].as_u64(), line["key.id"].as_str()), (Some(101), Some("k1")));
    let duration = line["duration_ms"].as_f64().unwrap();
    assert!((100.0..began.elapsed().as_secs_f64() * 1e3).contains(&duration), "{line}");
    until("nothing is open", || gauges() == [0.0; 3]);
    assert_eq!(keyward.metric("keyward_requests_total{code=\"1xx\",decision=\"permit\",reason=\"ok\"}"), 1.0);
}

#[test]
fn who_may_not_pass_gets_no_websocket() {
    let upstream = echo();
    let (keyward, key) = serve(&upstream, "");
    let site = &keyward.site;
    let read_only = site.create_key(&["--read-only", "--ip", "1.2.3.4"]);
    until("the key is known", || keyward.with_key(&read_only, "GET", "/x").status == 403);
    for (fields, status) in [(ASKS, 401), (&[ASKS, &[("X-API-Key", &*read_only.value)]].concat(), 403)] {
        assert_eq!(keyward.get("/chat", fields).status, status);
    }
    let twice = [("Authorization", &*key.bearer())];
    assert_eq!(keyward.send(&asks(&key, &[ASKS, &twice].concat())).status, 400);
    upstream.expect_nothing();
}

/// Catalogue row 56: what follows the request is no tunnel's before the upstream has agreed.
#[test]
fn r56_nothing_passes_before_the_upstream_agrees() {
    let smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    // It agrees late: the bytes wait.
    let upstream = Upstream::scripted(|turn| {
        turn.wire.socket().set_read_timeout(Some(Duration::from_millis(300)))?;
        let early = turn.wire.some();
        assert!(early.is_err(), "came before the 101: {early:?}");
        turn.answer(AGREES)?;
        let late = turn.wire.exactly(smuggled.len())?;
        turn.wire.send(&late)?;
        Ok(After::Close)
    });
    let (keyward, key) = serve(&upstream, "");
    let mut client = keyward.connect();
    client.send(&[&asks(&key, ASKS)[..], smuggled].concat());
    assert_eq!(client.response_head().unwrap().0, 101);
    assert_eq!(client.wire().rest().unwrap(), smuggled);

    // It does not agree: they are a request as any other, and need a key of their own.
    for answer in ["200 OK", "403 Forbidden", "426 Upgrade Required"] {
        let answer =
            format!("HTTP/1.1 {answer}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nno");
        let upstream = Upstream::scripted(move |turn| turn.answer(answer.as_bytes()));
        let (keyward, key) = serve(&upstream, "proxy: { workers: 1 }");
        let mut client = keyward.connect();
        client.send(&[&asks(&key, ASKS)[..], smuggled].concat());
        let response = client.response();
        assert_eq!(
            (response.text(), response.value("upgrade"), response.value("connection")),
            ("no".to_owned(), None, None)
        );
        assert_eq!(client.response().status, 401);
        assert_eq!(client.exchange(&asks(&key, &[])).text(), "no", "both connections go on");
        let targets: Vec<_> =
            upstream.take().iter().map(|received| (received.head.target(), received.connection)).collect();
        assert_eq!(targets, [("/chat?room=1".to_owned(), 0), ("/chat?room=1".to_owned(), 0)]);
    }
}

/// Catalogue row 57: every other upgrade is one of this hop, and goes no further.
#[test]
fn r57_nothing_else_is_upgraded() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "");
    let (connection, websocket) = (("Connection", "Upgrade"), ("Upgrade", "websocket"));
    for fields in [
        &[
            ("Connection", "Upgrade, HTTP2-Settings"),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"),
        ][..],
        &[connection, ("Upgrade", "h2c, websocket")],
        &[connection, ("Upgrade", "websocket, h2c")],
        &[connection, websocket, ("Upgrade", "h2c")],
        &[connection, websocket, websocket],
        &[connection, ("Upgrade", "websocket/13")],
        &[connection, ("Upgrade", "TLS/1.0")],
        &[connection, ("Upgrade", "")],
        &[connection],
        &[websocket],
        &[("Connection", "keep-alive"), websocket],
        &[("Connection", "close"), websocket],
    ] {
        assert_eq!(keyward.send(&asks(&key, fields)).text(), PAGE, "{fields:?}");
        let head = upstream.only().head;
        assert_eq!((head.value("upgrade"), head.value("connection"), head.value("http2-settings")), (None, None, None));
    }
    let fields = [("X-API-Key", &*key.value), connection, websocket];
    for (method, body) in [("POST", &b""[..]), ("POST", b"body"), ("GET", b"body"), ("HEAD", b""), ("OPTIONS", b"")] {
        keyward.send(&request(method, "/x", &fields, body));
        assert_eq!(upstream.only().head.value("upgrade"), None, "{method} {body:?}");
    }
    let old =
        format!("GET /x HTTP/1.0\r\nX-API-Key: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", key.value);
    keyward.send(old.as_bytes());
    assert_eq!(upstream.only().head.value("upgrade"), None);
}

#[test]
fn a_switch_that_nobody_asked_for_is_no_answer() {
    for (answer, asked) in [
        (AGREES, &[][..]),
        (AGREES, &[("Connection", "Upgrade"), ("Upgrade", "h2c")]),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", ASKS),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", ASKS),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", ASKS),
    ] {
        let upstream = Upstream::scripted(move |turn| {
            turn.answer(answer)?;
            let more = turn.wire.rest()?;
            assert_eq!(more, b"", "nothing more is sent on it");
            Ok(After::Close)
        });
        let (keyward, key) = serve(&upstream, "");
        let mut client = keyward.connect();
        for _ in 0..2 {
            assert_eq!(client.exchange(&asks(&key, asked)).status, 502, "{asked:?}");
        }
        assert_eq!((upstream.connections(), keyward.metric("keyward_tunnels_open")), (2, 0.0));
    }
}

#[test]
fn whoever_does_not_read_makes_the_other_wait() {
    const ALL: u64 = 64 << 20;
    let sent = Arc::<AtomicU64>::default();
    let counting = sent.clone();
    let upstream = Upstream::scripted(move |turn| {
        turn.answer(AGREES)?;
        let block = [0x5a; 65536];
        while counting.load(SeqCst) < ALL {
            turn.wire.send(&block)?;
            counting.fetch_add(block.len() as u64, SeqCst);
        }
        Ok(After::Close)
    });
    let (keyward, key) = serve(&upstream, "");
    let mut client = open(&keyward, &key);
    let mut last = u64::MAX;
    until("the upstream is made to wait", || {
        let was = std::mem::replace(&mut last, sent.load(SeqCst));
        thread::sleep(Duration::from_millis(300));
        last > 0 && was == last && sent.load(SeqCst) == last
    });
    assert!(last < ALL / 2, "{last} bytes are on their way to nobody");
    client.wire().skip(ALL).unwrap();
    assert!(client.is_closed());
    assert!(keyward.peak_memory() < 48 << 20, "it needed {} MiB", keyward.peak_memory() >> 20);
}

#[test]
fn either_end_may_vanish() {
    let upstream = Upstream::scripted(|turn| {
        turn.answer(AGREES)?;
        match &*turn.wire.some()? {
            b"reset" => Ok(After::Reset),
            b"close" => turn.wire.socket().shutdown(Shutdown::Both).map(|()| After::Close),
            _ => turn.wire.some().map(|_| After::Close),
        }
    });
    let (keyward, key) = serve(&upstream, "");
    for word in ["reset", "close", "wait"] {
        let mut client = open(&keyward, &key);
        client.send(word.as_bytes());
        if word != "wait" {
            assert!(client.is_closed());
        }
        drop(client);
        until("the tunnel has ended", || keyward.metric("keyward_tunnels_open") == 0.0);
    }
    assert_eq!(keyward.metric("keyward_panics_total"), 0.0);
}

/// Agrees, and sends these bytes at once.
fn sending(bytes: &'static [u8]) -> Upstream {
    let wait = |turn: &mut Turn<'_>| -> io::Result<After> {
        turn.wire.rest()?;
        Ok(After::Close)
    };
    Upstream::scripted(move |turn| {
        turn.answer(&[AGREES, bytes].concat())?;
        wait(turn)
    })
}

#[test]
fn a_tunnel_in_which_nothing_passes_is_closed() {
    let upstream = sending(HELLO);
    let (keyward, key) =
        serve(&upstream, "proxy: { timeouts: { tunnel: 1s, idle: 100ms, response: 100ms, head: 100ms } }");
    let mut client = open(&keyward, &key);
    assert_eq!(client.wire().exactly(HELLO.len()).unwrap(), HELLO);
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(200));
        client.send(MASKED_HELLO);
    }
    let began = Instant::now();
    assert_eq!(client.wire().rest().unwrap(), GOING_AWAY);
    let took = began.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_millis(2500)).contains(&took), "{took:?}");
}

#[test]
fn a_stop_ends_tunnels_at_its_deadline() {
    for (sent, goodbye) in [
        (HELLO, GOING_AWAY),
        // In the midst of a frame, and behind a Close, there is no room for another.
        (&HELLO[..4], b""),
        (GOING_AWAY, b""),
    ] {
        let upstream = sending(sent);
        let (mut keyward, key) = serve(&upstream, "proxy: { timeouts: { drain: 1500ms } }");
        let mut client = open(&keyward, &key);
        assert_eq!(client.wire().exactly(sent.len()).unwrap(), sent);
        let began = Instant::now();
        keyward.terminate();
        assert_eq!(client.wire().rest().unwrap(), goodbye);
        let took = began.elapsed();
        assert!((Duration::from_millis(1400)..Duration::from_millis(4000)).contains(&took), "{took:?}");
        drop(client);
        assert_eq!(keyward.wait_for_exit().code(), Some(0));
    }
}
