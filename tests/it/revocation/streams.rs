//! What has begun with a key ends with it, within a second and so that nobody takes it for complete: event streams, downloads,
//! uploads, answers that are waited for, WebSockets. Those of other keys go on.

use std::io;
use std::time::{Duration, Instant, SystemTime};

use crate::support::wire::Wire;
use crate::support::{After, Client, Key, Keyward, PATIENCE, Site, Upstream, ok, request, until};

/// The promise.
const SOON: Duration = Duration::from_secs(1);
/// What a machine that has too much else to do may add to it.
const LATEST: Duration = Duration::from_secs(4);

/// A beat of what never ends by itself.
const BEAT: Duration = Duration::from_millis(50);

/// Sends a piece for as long as somebody takes it.
fn beat(wire: &mut Wire, piece: &[u8]) -> io::Result<After> {
    loop {
        wire.send(piece)?;
        std::thread::sleep(BEAT);
    }
}

/// Streams of all kinds, none of which ends by itself.
fn endless() -> Upstream {
    Upstream::scripted(|turn| match &*turn.head.target() {
        "/events" => {
            turn.wire
                .send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            beat(turn.wire, b"9\r\ndata: x\n\n\r\n")
        }
        "/film" => {
            turn.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")?;
            beat(turn.wire, b"frame")
        }
        "/radio" => {
            turn.wire.send(b"HTTP/1.0 200 OK\r\n\r\n")?;
            beat(turn.wire, b"music")
        }
        "/silence" => {
            turn.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nsh")?;
            turn.wire.rest().map(|_| After::Close)
        }
        "/poll" => turn.wire.rest().map(|_| After::Close),
        "/chat" => {
            turn.wire.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")?;
            beat(turn.wire, b"\x81\x05hello")
        }
        "/upload" => {
            assert!(turn.body().is_err(), "half an upload does not look like a whole one");
            Ok(After::Close)
        }
        _ => turn.answer(&ok("short")),
    })
}

/// A stream that has begun.
struct Stream {
    path: &'static str,
    client: Client,
}

/// All kinds.
const PATHS: [&str; 7] = ["/events", "/film", "/radio", "/silence", "/poll", "/chat", "/upload"];

impl Stream {
    #[track_caller]
    fn begin(keyward: &Keyward, key: &Key, path: &'static str) -> Self {
        let mut client = keyward.connect();
        let key = ("X-API-Key", &*key.value);
        let upload = [key, ("Content-Length", "1000"), ("Expect", "100-continue")];
        let websocket = [key, ("Connection", "Upgrade"), ("Upgrade", "websocket")];
        match path {
            "/upload" => client.send(&request("PUT", path, &upload, b"")),
            "/chat" => client.send(&request("GET", path, &websocket, b"")),
            // A client whose answer ends with the connection, and with nothing else.
            "/radio" => client.send(&format!("GET /radio HTTP/1.0\r\nX-API-Key: {}\r\n\r\n", key.1).into_bytes()),
            _ => client.send(&request("GET", path, &[key], b"")),
        }
        let status = if path == "/poll" { 0 } else { client.response_head().unwrap().0 };
        let expected = [("/poll", 0), ("/chat", 101), ("/upload", 100)];
        assert_eq!(status, expected.iter().find(|(p, _)| *p == path).map_or(200, |(_, status)| *status), "{path}");
        match path {
            "/upload" => client.send(b"half"),
            "/silence" => assert_eq!(client.wire().exactly(2).unwrap(), b"sh"),
            _ => {}
        }
        Self { path, client }
    }

    /// That it goes on.
    #[track_caller]
    fn expect_more(&mut self) {
        match self.path {
            "/upload" => self.client.send(b"x"),
            "/poll" | "/silence" => {
                let socket = self.client.wire().socket();
                socket.set_nonblocking(true).unwrap();
                let end = socket.peek(&mut [0]).map_err(|error| error.kind());
                assert_eq!(end, Err(io::ErrorKind::WouldBlock), "{} has ended", self.path);
                socket.set_nonblocking(false).unwrap();
            }
            _ => assert!(!self.client.wire().some().unwrap().is_empty(), "{} has ended", self.path),
        }
    }

    /// Waits for its end, and gives how long that took.
    #[track_caller]
    fn expect_end(mut self, began: Instant) -> Duration {
        let mut got = Vec::new();
        let end = loop {
            assert!(began.elapsed() < LATEST, "{} goes on", self.path);
            match self.client.wire().some() {
                Ok(bytes) if bytes.is_empty() => break Ok(()),
                Ok(bytes) => got.extend(bytes),
                Err(error) => break Err(error.kind()),
            }
        };
        let took = began.elapsed();
        match self.path {
            "/chat" => {
                assert_eq!(end, Ok(()));
                assert!(got.ends_with(b"\x88\x02\x03\xf0"), "no Close that says 1008: {got:02x?}");
            }
            // Nothing but an error tells this one from a whole answer.
            "/radio" => assert_eq!(end, Err(io::ErrorKind::ConnectionReset)),
            "/events" => assert!(!got.ends_with(b"0\r\n\r\n")),
            _ => {}
        }
        took
    }
}

fn serve(config: &str) -> (Upstream, Keyward) {
    let upstream = endless();
    let site = Site::new(upstream.address(), config);
    (upstream, site.serve())
}

#[track_caller]
fn working_key(keyward: &Keyward, options: &[&str]) -> Key {
    let key = keyward.site.create_key(options);
    until("the key works", || keyward.with_key(&key, "GET", "/short").status == 200);
    key
}

#[track_caller]
fn expect_soon(took: &[Duration]) {
    assert!(took.iter().all(|took| *took < SOON), "{took:?}");
}

#[test]
fn all_that_a_key_has_begun_ends_with_it() {
    let (_upstream, keyward) = serve("");
    let (revoked, other) = (working_key(&keyward, &["--id", "k1"]), working_key(&keyward, &[]));
    let begin = |key| PATHS.map(|path| Stream::begin(&keyward, key, path));
    let (streams, mut others) = (begin(&revoked), begin(&other));
    // Long enough for all of them to have been judged, and found good.
    std::thread::sleep(Duration::from_millis(600));
    others.iter_mut().for_each(Stream::expect_more);

    keyward.site.json(&["key", "revoke", &revoked.id]);
    let began = Instant::now();
    let took = streams.map(|stream| stream.expect_end(began));
    expect_soon(&took);
    others.iter_mut().for_each(Stream::expect_more);
    std::thread::sleep(Duration::from_millis(600));
    others.iter_mut().for_each(Stream::expect_more);

    let ended = || keyward.metric("keyward_streams_ended_total{reason=\"revoked_credential\"}");
    until("all are counted", || ended() == PATHS.len() as f64);
    let line = keyward.wait_for_line_with("reason", &"revoked_credential".into());
    assert_eq!((line["decision"].as_str(), line["key.id"].as_str()), (Some("denial"), Some("k1")));
    assert!(line["duration_ms"].as_f64().unwrap() > 600.0, "{line}");
    until("only the others are open", || keyward.metric("keyward_requests_in_flight") == PATHS.len() as f64);
    assert_eq!(keyward.metric("keyward_tunnels_open"), 1.0);
}

#[test]
fn every_way_in_which_a_key_ceases_to_be_good_ends_them() {
    let (_upstream, keyward) = serve("");
    let scoped = working_key(&keyward, &["--scope", "organization:acme/project:p1"]);
    let [disabled, rotated, other, above] = [(); 4].map(|()| working_key(&keyward, &[]));
    let below = working_key(&keyward, &["--parent", &above.id]);
    let user = keyward.site.json(&["user", "create", "--email", "ann@example.com", "--api-access"]);
    let text = |field: &str| user[field].as_str().unwrap().to_owned();
    let owned = Key { id: text("id"), value: text("value") };
    until("the key of the user works", || keyward.with_key(&owned, "GET", "/short").status == 200);
    for (key, words, reason) in [
        (&disabled, &["key", "disable", &disabled.id][..], "disabled_credential"),
        (&rotated, &["key", "rotate", &rotated.id, "--retire-others-after", "now"], "expired_credential"),
        (&scoped, &["scope", "suspend", "organization:acme"], "suspended_scope"),
        (&below, &["key", "revoke", &above.id], "dead_parent"),
        (&owned, &["user", "update", "ann@example.com", "--no-api-access"], "no_api_access"),
    ] {
        let (stream, tunnel) = (Stream::begin(&keyward, key, "/silence"), Stream::begin(&keyward, key, "/chat"));
        let mut unharmed = Stream::begin(&keyward, &other, "/silence");
        keyward.site.json(words);
        let began = Instant::now();
        expect_soon(&[stream.expect_end(began), tunnel.expect_end(began)]);
        let series = format!("keyward_streams_ended_total{{reason=\"{reason}\"}}");
        until("both are counted", || keyward.metric(&series) == 2.0);
        unharmed.expect_more();
    }
}

/// What is in flight was let in from an address that the key may no longer be used from: that of the connection, or the one
/// that a trusted proxy named.
#[test]
fn a_stream_ends_when_its_key_may_no_longer_be_used_from_there() {
    let (_upstream, keyward) = serve("proxy: { trusted_proxies: [127.0.0.9] }");
    let [near, far] = [(); 2].map(|()| working_key(&keyward, &[]));
    let begin = |key: &Key, from: u8, client: &str| {
        let mut proxy = Client::connect_from(([127, 0, 0, from]).into(), keyward.proxy);
        proxy.send(&request("GET", "/silence", &[("X-API-Key", &key.value), ("X-Forwarded-For", client)], b""));
        assert_eq!(proxy.response_head().unwrap().0, 200);
        assert_eq!(proxy.wire().exactly(2).unwrap(), b"sh");
        Stream { path: "/silence", client: proxy }
    };
    let tunnel = Stream::begin(&keyward, &near, "/chat");
    let (ends, mut stays) = (begin(&near, 1, "192.0.2.7"), begin(&near, 2, "192.0.2.7"));
    let (proxied_ends, mut proxied_stays) = (begin(&far, 9, "192.0.2.7"), begin(&far, 9, "198.51.100.1"));
    keyward.site.json(&["key", "update", &near.id, "--ip", "127.0.0.2"]);
    keyward.site.json(&["key", "update", &far.id, "--ip", "198.51.100.0/24"]);
    let began = Instant::now();
    expect_soon(&[ends.expect_end(began), proxied_ends.expect_end(began), tunnel.expect_end(began)]);
    let ended = || keyward.metric("keyward_streams_ended_total{reason=\"address_not_allowed\"}");
    until("they are counted", || ended() == 3.0);
    std::thread::sleep(Duration::from_millis(600));
    [&mut stays, &mut proxied_stays].into_iter().for_each(Stream::expect_more);
}

#[test]
fn a_stream_ends_when_its_key_expires() {
    let (_upstream, keyward) = serve("");
    let end = SystemTime::now() + Duration::from_secs(4);
    let key = working_key(&keyward, &["--expires", &humantime::format_rfc3339_millis(end).to_string()]);
    let (stream, tunnel) = (Stream::begin(&keyward, &key, "/silence"), Stream::begin(&keyward, &key, "/chat"));
    let (began, left) = (Instant::now(), end.duration_since(SystemTime::now()).unwrap());
    for took in [stream.expect_end(began + left), tunnel.expect_end(began + left)] {
        assert!(took < SOON, "{took:?}");
    }
    assert!(SystemTime::now() >= end, "it ended too early");
}

/// What cannot be known ends nothing: a store that is gone refuses what is new, and breaks off nothing.
#[test]
fn an_outage_of_the_store_ends_no_stream() {
    let (_upstream, keyward) = serve("sync: { max_staleness: 500ms }");
    let key = working_key(&keyward, &[]);
    let mut streams = ["/silence", "/chat", "/events"].map(|path| Stream::begin(&keyward, &key, path));
    let database = keyward.site.path().join("keyward.db");
    std::fs::rename(&database, keyward.site.path().join("elsewhere")).unwrap();
    std::fs::write(&database, "no database").unwrap();
    let began = Instant::now();
    while keyward.with_key(&key, "GET", "/short").status != 503 {
        assert!(began.elapsed() < PATIENCE, "the store is not missed");
    }
    std::thread::sleep(Duration::from_millis(600));
    streams.iter_mut().for_each(Stream::expect_more);
    assert_eq!(keyward.with_key(&key, "GET", "/short").status, 503);
}

/// Between two exchanges on one connection nothing of the first is held against the second.
#[test]
fn a_connection_is_not_ended_for_what_is_over() {
    let (_upstream, keyward) = serve("");
    let (first, second) = (working_key(&keyward, &[]), working_key(&keyward, &[]));
    let mut client = keyward.connect();
    let get = |key: &Key| request("GET", "/short", &[("X-API-Key", &*key.value)], b"");
    assert_eq!(client.exchange(&get(&first)).status, 200);
    keyward.site.json(&["key", "revoke", &first.id]);
    until("it is refused", || keyward.with_key(&first, "GET", "/short").status == 401);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(client.exchange(&get(&second)).status, 200);
    assert_eq!(client.exchange(&get(&first)).status, 401);
    assert_eq!(client.exchange(&get(&second)).status, 200);
}
