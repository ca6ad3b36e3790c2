//! HTTP/2 from clients: the same rules as for HTTP/1.1, and those that only HTTP/2 can break. Rows of the catalogue: r41, r43,
//! r62 to r66, r6.

mod slow; // clients that take their time

use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use http::{Request, Version};

use super::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, Frames, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, frame,
};
use super::support::http2::{Http2, request};
use super::support::upstream::PAGE;
use super::support::{After, Key, Keyward, PATIENCE, Site, Upstream, ok, until};
use super::tools;

fn serve(upstream: &Upstream, config: &str) -> (Keyward, Key) {
    let site = Site::new(upstream.address(), config);
    let key = site.create_key(&[]);
    (site.serve(), key)
}

#[test]
fn what_the_upstream_gets_is_plain_http_1() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "");
    let mut client = Http2::connect(keyward.proxy);
    let fields = [
        ("x-api-key", &*key.value),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("te", "trailers"),
        ("x-keyward-scope", "forged"),
        ("x-forwarded-for", "9.9.9.9"),
    ];
    let answer = client.exchange(request("GET", "/a/b?c=d&api=1", &fields)).unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, PAGE.as_bytes()));
    let received = upstream.only();
    assert_eq!(received.head.start(), "GET /a/b?c=d&api=1 HTTP/1.1");
    for (name, values) in [
        ("host", &["media.example"][..]),
        ("cookie", &["a=1; b=2"]),
        ("te", &[]),
        ("x-api-key", &[]),
        ("x-keyward-scope", &[]),
        ("x-forwarded-for", &["127.0.0.1"]),
        ("x-forwarded-proto", &["http"]),
        ("x-forwarded-host", &["media.example"]),
        ("x-keyward-key-id", &[&*key.id]),
        ("transfer-encoding", &[]),
        ("content-length", &[]),
    ] {
        assert_eq!(received.head.values(name), values, "{name}");
    }
    // The same connection, with bodies of both kinds.
    for (length, framed) in [(Some("5"), "content-length"), (None, "transfer-encoding")] {
        let mut fields = vec![("authorization", key.bearer())];
        fields.extend(length.map(|length| ("content-length", length.to_owned())));
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, &**value)).collect();
        assert_eq!(client.upload(request("POST", "/up", &fields), b"hello").unwrap().status, 200);
        let received = upstream.only();
        assert_eq!(received.body.bytes, b"hello");
        assert_eq!(received.head.values(framed).len(), 1, "{framed}");
    }
}

#[test]
fn denials_are_those_of_http_1() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "");
    let mut client = Http2::connect(keyward.proxy);
    let wrong = ("x-api-key", "wrong");
    let right = ("x-api-key", &*key.value);
    for (fields, path, status) in [
        (&[][..], "/", 401),
        (&[wrong], "/", 401),
        (&[right, right], "/", 400),
        (&[right], "/a/../b", 400),
        (&[right], "/?api_key=x", 400),
    ] {
        let answer = client.exchange(request("GET", path, fields)).unwrap();
        assert_eq!(answer.status, status, "{path} {fields:?}");
        assert!(!answer.headers.contains_key("connection"), "no field of HTTP/1");
        assert!(answer.headers.contains_key("x-request-id"));
        assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401);
    }
    upstream.expect_nothing();
    assert_eq!(client.exchange(request("GET", "/", &[right])).unwrap().status, 200, "and the connection goes on");
}

#[test]
fn each_of_many_at_a_time_gets_its_own_answer() {
    let upstream = Upstream::scripted(|turn| {
        let target = turn.head.target();
        turn.answer(&ok(&target))
    });
    let (keyward, key) = serve(&upstream, "log: { access: none }");
    let mut client = Http2::connect(keyward.proxy);
    for round in 0..3 {
        let begun = |n: usize| {
            let value = if n.is_multiple_of(3) { "wrong" } else { &key.value };
            (n, request("GET", &format!("/{round}/{n}"), &[("x-api-key", value)]))
        };
        let requests: Vec<_> = (0..100).map(begun).collect();
        let exchanges: Vec<_> = requests.into_iter().map(|(n, get)| (n, client.begin(get, true).unwrap())).collect();
        for (n, exchange) in exchanges {
            let answer = client.finish(exchange).unwrap();
            if n.is_multiple_of(3) {
                assert_eq!(answer.status, 401);
            } else {
                assert_eq!((answer.status, answer.body), (200, format!("/{round}/{n}").into_bytes()));
            }
        }
    }
    until("none is counted as open", || keyward.metric("keyward_requests_in_flight") == 0.0);
}

#[test]
fn r41_there_is_one_host() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "");
    let mut client = Http2::connect(keyward.proxy);
    for (hosts, status) in [
        (&["media.example"][..], 200),
        (&["Media.Example"], 200),
        (&["other.example"], 400),
        (&["media.example:80"], 400),
        (&["media.example", "media.example"], 400),
    ] {
        let mut fields = vec![("x-api-key", &*key.value)];
        fields.extend(hosts.iter().map(|host| ("host", *host)));
        assert_eq!(client.exchange(request("GET", "/", &fields)).unwrap().status, status, "{hosts:?}");
    }
    let received = upstream.take();
    assert_eq!(received.len(), 2);
    assert!(received.iter().all(|received| received.head.values("host") == ["media.example"]));
}

#[test]
fn r43_no_tunnels_and_no_traces() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "");
    let mut client = Http2::connect(keyward.proxy);
    let connect = Request::builder().method("CONNECT").uri("media.example:443").version(Version::HTTP_2);
    let answer = client.exchange(connect.header("x-api-key", &key.value).body(()).unwrap()).unwrap();
    assert_eq!(answer.status, 501);
    assert_eq!(client.exchange(request("TRACE", "/", &[("x-api-key", &key.value)])).unwrap().status, 501);
    let extended = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "media.example"),
        ("x-api-key", &key.value),
    ];
    assert!(is_refused(&keyward, &[frame(HEADERS, END_HEADERS, 1, &block(&extended))]));
    upstream.expect_nothing();
}

/// The fields of a good request, and then others.
fn fields<'f>(key: &'f Key, others: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
    let good = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/x"),
        (":authority", "media.example"),
        ("x-api-key", &*key.value),
    ];
    [&good[..], others].concat()
}

/// Whether these frames end their stream or the connection with an error.
fn is_refused(keyward: &Keyward, frames: &[Vec<u8>]) -> bool {
    let mut client = Frames::connect(keyward.proxy, &[]);
    let _ = client.send(&frames.concat());
    let ended = client.find(|frame| matches!(frame.kind, RST_STREAM | GOAWAY | HEADERS));
    ended.is_none_or(|frame| frame.kind != HEADERS)
}

#[test]
fn r62_r64_what_cannot_stand_in_a_head_ends_the_stream() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "");
    let all = END_HEADERS | END_STREAM;
    for others in [
        &[("a", "b\r\nX-Evil: 1")][..],
        &[("a", "b\nc")],
        &[("a", "b\0c")],
        &[("a\r\nb", "c")],
        &[("a b", "c")],
        &[("a:b", "c")],
        &[("Upper", "c")],
        &[("", "c")],
        &[(":path", "/again")],
        &[(":unknown", "x")],
        &[(":status", "200")],
        &[("connection", "close")],
        &[("keep-alive", "timeout=5")],
        &[("proxy-connection", "keep-alive")],
        &[("upgrade", "websocket")],
        &[("te", "gzip")],
        &[("transfer-encoding", "chunked")],
    ] {
        assert!(is_refused(&keyward, &[frame(HEADERS, all, 1, &block(&fields(&key, others)))]), "{others:?}");
    }
    for (name, value) in
        [(":path", "/a b"), (":path", ""), (":path", "/a\r\nb"), (":method", "G ET"), (":authority", "a b")]
    {
        let mut head = fields(&key, &[]);
        head.iter_mut().filter(|(n, _)| *n == name).for_each(|field| field.1 = value);
        assert!(is_refused(&keyward, &[frame(HEADERS, all, 1, &block(&head))]), "{name}: {value:?}");
    }
    for missing in [":method", ":scheme", ":path"] {
        let mut head = fields(&key, &[]);
        head.retain(|(name, _)| *name != missing);
        assert!(is_refused(&keyward, &[frame(HEADERS, all, 1, &block(&head))]), "without {missing}");
    }
    // A pseudo-field behind others.
    let late = [&fields(&key, &[])[1..], &[(":method", "GET")]].concat();
    assert!(is_refused(&keyward, &[frame(HEADERS, all, 1, &block(&late))]));
    upstream.expect_nothing();
    assert!(!is_refused(&keyward, &[frame(HEADERS, all, 1, &block(&fields(&key, &[])))]), "the good one passes");
}

#[test]
fn r63_a_length_that_is_not_kept_is_no_request() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "");
    for (lengths, data) in [
        (&["5"][..], "abc"),
        (&["5"], "abcdefg"),
        (&["0"], "GET /admin HTTP/1.1\r\n\r\n"),
        (&["3", "4"], "abc"),
        (&["+3"], "abc"),
        (&["3, 3"], "abc"),
    ] {
        let others: Vec<_> = lengths.iter().map(|length| ("content-length", *length)).collect();
        let head = frame(HEADERS, END_HEADERS, 1, &block(&fields(&key, &others)));
        let mut client = Frames::connect(keyward.proxy, &[]);
        client.send(&[head, frame(DATA, END_STREAM, 1, data.as_bytes())].concat()).unwrap();
        let ended = client.find(|frame| matches!(frame.kind, RST_STREAM | GOAWAY | HEADERS));
        // A status of its own is a field without a table: `0x8d` would be one of 404, `0x88` is 200.
        assert!(ended.is_none_or(|frame| frame.kind != HEADERS || frame.payload[0] != 0x88), "{lengths:?} {data}");
    }
    // Of what was begun, nothing has come to its end.
    assert!(upstream.take().iter().all(|received| received.body.bytes.is_empty()));
}

/// Libraries of HTTP/2 cut a fragment off before we see the target: what is judged is what is forwarded.
#[test]
fn r6_a_fragment_is_gone_before_anything_is_decided() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "routes: [{ path: '/public/{*rest}', auth: none }]");
    let all = END_HEADERS | END_STREAM;
    for (path, with_key, forwarded) in [
        ("/x#y", true, Some("/x")),
        ("/x?a=b#c?d", true, Some("/x?a=b")),
        ("/public/x#y", false, Some("/public/x")),
        ("/public/x#/../../private", false, Some("/public/x")),
        ("/private#/public/x", false, None),
        ("/private#/../public/x", false, None),
        ("/private?a#/public/x", false, None),
        ("/#/public/x", false, None),
    ] {
        let mut head = fields(&key, &[]);
        head.retain(|(name, _)| with_key || *name != "x-api-key");
        head.iter_mut().filter(|(name, _)| *name == ":path").for_each(|field| field.1 = path);
        let mut client = Frames::connect(keyward.proxy, &[]);
        client.send(&frame(HEADERS, all, 1, &block(&head))).unwrap();
        let answer = client.find(|frame| frame.kind == HEADERS).expect("an answer");
        // 0x88 is status 200 in one byte.
        assert_eq!(answer.payload[0] == 0x88, forwarded.is_some(), "{path}");
        let targets: Vec<String> = upstream.take().iter().map(|received| received.head.target()).collect();
        assert_eq!(targets, forwarded.map(str::to_owned).into_iter().collect::<Vec<_>>(), "{path}");
    }
}

/// What a frame says when it ends the connection: the code of a GOAWAY.
fn goaway(frame: Option<Frame>) -> Option<u32> {
    let frame = frame.filter(|frame| frame.kind == GOAWAY)?;
    Some(u32::from_be_bytes([frame.payload[4], frame.payload[5], frame.payload[6], frame.payload[7]]))
}

const ENHANCE_YOUR_CALM: u32 = 11;

#[test]
fn r65_floods_are_cut_off_and_others_are_served() {
    let upstream = Upstream::scripted(|turn| {
        std::thread::sleep(Duration::from_millis(20));
        turn.answer(&ok(PAGE))
    });
    let (keyward, key) = serve(&upstream, "log: { access: none }");
    let all = END_HEADERS | END_STREAM;
    let head = block(&fields(&key, &[]));
    let stream = |n: usize| u32::try_from(2 * n + 1).unwrap();
    let rapid_reset = |n: usize| {
        [frame(HEADERS, all, stream(n), &head), frame(RST_STREAM, 0, stream(n), &8_u32.to_be_bytes())].concat()
    };
    // We are made to reset them: a window that overflows.
    let made_reset = |n: usize| {
        let overflow = frame(WINDOW_UPDATE, 0, stream(n), &0x7fff_ffff_u32.to_be_bytes());
        [frame(HEADERS, END_HEADERS, stream(n), &head), overflow].concat()
    };
    let endless_head = |n: usize| match n {
        0 => frame(HEADERS, 0, 1, &head),
        _ => frame(CONTINUATION, 0, 1, &block(&[("a", &"x".repeat(100))]).repeat(100)),
    };
    let good = frame(HEADERS, all, 1, &head);
    let in_two = [
        frame(HEADERS, END_STREAM, 1, &head),
        frame(CONTINUATION, END_HEADERS, 1, &block(&[("a", &"x".repeat(100))]).repeat(10)),
    ];
    expect_cut_off(&keyward, &good, "rapid reset", rapid_reset);
    expect_cut_off(&keyward, &good, "made to reset", made_reset);
    expect_cut_off(&keyward, &in_two.concat(), "a head without end", endless_head);
    until("all of it is over", || keyward.metric("keyward_requests_in_flight") == 0.0);
}

/// A flood ends for what it is: what it is made of makes a good request, before and after.
#[track_caller]
fn expect_cut_off(keyward: &Keyward, good: &[u8], name: &str, flood: impl Fn(usize) -> Vec<u8>) {
    assert!(is_answered_with_200(keyward, good), "{name}: before");
    let mut client = Frames::connect(keyward.proxy, &[]);
    let sent = (0..20_000).take_while(|n| client.send(&flood(*n)).is_ok()).count();
    let code = goaway(client.find(|frame| frame.kind == GOAWAY));
    // Its end may be lost where the flood still ran against it.
    let is_cut_off = code.map_or(sent < 20_000, |code| code == ENHANCE_YOUR_CALM);
    assert!(is_cut_off, "{name}: {sent} sent, {code:?}");
    assert!(is_answered_with_200(keyward, good), "{name}: others are served");
}

/// Whether these frames, on a connection of their own, make a request that passes.
fn is_answered_with_200(keyward: &Keyward, frames: &[u8]) -> bool {
    let mut client = Frames::connect(keyward.proxy, &[]);
    client.send(frames).unwrap();
    let ended = client.find(|frame| matches!(frame.kind, RST_STREAM | GOAWAY | HEADERS));
    // 0x88 is status 200 in one byte.
    ended.is_some_and(|frame| frame.kind == HEADERS && frame.payload[0] == 0x88)
}

#[test]
fn r65_frames_that_say_nothing_cost_little() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "");
    for nothing in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[]), frame(DATA, 0, 1, &[])] {
        let mut client = Frames::connect(keyward.proxy, &[]);
        client.send(&frame(HEADERS, END_HEADERS, 1, &block(&fields(&key, &[])))).unwrap();
        let before = keyward.peak_memory();
        for _ in 0..200 {
            if client.send(&nothing.repeat(100)).is_err() {
                break;
            }
        }
        let grown = keyward.peak_memory().saturating_sub(before);
        assert!(grown < 16 << 20, "{grown} bytes");
        let answer = Http2::connect(keyward.proxy).exchange(request("GET", "/", &[("x-api-key", &key.value)]));
        assert_eq!(answer.unwrap().status, 200);
    }
}

#[test]
fn r66_the_limit_on_heads_holds_for_what_they_unfold_to() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "proxy: { max_head: 16KiB }");
    // A field of 100 bytes goes into the table once, and is then meant a thousand times by one byte each.
    let entry = [&[0x40, 1, b'a', 100][..], &[b'x'; 100]].concat();
    let unfolds = |times: usize| {
        let block = [block(&fields(&key, &[])), entry.clone(), vec![0xbe; times]].concat();
        is_answered_with_200(&keyward, &frame(HEADERS, END_HEADERS | END_STREAM, 1, &block))
    };
    assert!(unfolds(50));
    assert_eq!(upstream.only().head.values("a"), vec!["x".repeat(100); 51]);
    assert!(!unfolds(1000));
    upstream.expect_nothing();
}

#[test]
fn a_rest_ends_with_a_word_and_work_is_no_rest() {
    let upstream = Upstream::scripted(|turn| {
        std::thread::sleep(Duration::from_millis(2500));
        turn.answer(&ok(PAGE))
    });
    let (keyward, key) = serve(&upstream, "proxy: { timeouts: { idle: 1s, head: 1s } }");
    let mut client = Frames::connect(keyward.proxy, &[]);
    let began = Instant::now();
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields(&key, &[])))).unwrap();
    assert!(client.find(|frame| matches!(frame.kind, HEADERS | GOAWAY)).unwrap().kind == HEADERS);
    assert!(began.elapsed() > Duration::from_secs(2));
    assert_eq!(goaway(client.find(|frame| frame.kind == GOAWAY)), Some(0), "no error, only an end");
    // Who never asks for anything rests too: that it is no request that comes slowly, its first bytes say.
    let mut silent = Frames::connect(keyward.proxy, &[]);
    let began = Instant::now();
    assert_eq!(goaway(silent.find(|frame| frame.kind == GOAWAY)), Some(0));
    assert!(silent.find(|_| false).is_none());
    assert!(began.elapsed() < Duration::from_millis(3500), "{:?}", began.elapsed());
}

#[test]
fn a_stop_lets_streams_end_and_takes_no_more() {
    let upstream = Upstream::scripted(|turn| {
        std::thread::sleep(Duration::from_millis(1500));
        turn.answer(&ok(PAGE))
    });
    let (mut keyward, key) = serve(&upstream, "");
    let mut client = Http2::connect(keyward.proxy);
    let slow = client.begin(request("GET", "/slow", &[("x-api-key", &key.value)]), true).unwrap();
    upstream.wait_for(1);
    keyward.terminate();
    until("new connections are refused", || std::net::TcpStream::connect(keyward.proxy).is_err());
    assert_eq!(client.finish(slow).unwrap().status, 200);
    assert!(client.exchange(request("GET", "/more", &[("x-api-key", &key.value)])).is_err(), "it was told to go");
    client.ended();
    assert_eq!(keyward.wait_for_exit().code(), Some(0));
}

#[test]
fn it_can_be_turned_off() {
    let upstream = Upstream::start();
    let (keyward, _) = serve(&upstream, "proxy: { http2: false }");
    let mut client = Frames::connect(keyward.proxy, &[]);
    assert!(client.find(|frame| frame.kind == SETTINGS).is_none());
}

#[test]
fn curl_speaks_it_in_the_clear() {
    if tools::lacks(&["curl"]) {
        return;
    }
    let upstream = Upstream::scripted(|turn| match turn.head.target().as_str() {
        "/cut" => {
            turn.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")?;
            Ok(After::Close)
        }
        _ => turn.answer(&ok(PAGE)),
    });
    let (keyward, key) = serve(&upstream, "");
    let curl = |path: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--http2-prior-knowledge", "-w", "%{http_version} %{http_code}", "-H"]);
        curl.arg(format!("X-API-Key: {}", key.value)).arg(format!("http://{}{path}", keyward.proxy));
        tools::run(curl.args(["--max-time", &PATIENCE.as_secs().to_string()]))
    };
    assert_eq!(curl("/x").out, format!("{PAGE}2 200"));
    assert_ne!(curl("/cut").status.code(), Some(0), "what breaks off does not look whole");
}

#[test]
fn r72_a_revoked_key_ends_its_own_streams_and_no_others() {
    let (go, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let upstream = Upstream::scripted(move |turn| match turn.head.target().as_str() {
        "/kept" => {
            let _ = told.lock().unwrap().recv_timeout(PATIENCE);
            turn.answer(&ok(PAGE))
        }
        _ => {
            turn.body()?;
            turn.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")?;
            turn.wire.some()?;
            Ok(After::Close)
        }
    });
    let site = Site::new(upstream.address(), "");
    let (revoked, kept) = (site.create_key(&[]), site.create_key(&["--name", "Kept"]));
    let keyward = site.serve();
    let mut client = Http2::connect(keyward.proxy);
    let ending = client.begin(request("GET", "/ending", &[("x-api-key", &revoked.value)]), true).unwrap();
    let going_on = client.begin(request("GET", "/kept", &[("x-api-key", &kept.value)]), true).unwrap();
    upstream.wait_for(2);
    assert!(keyward.site.run(&["key", "revoke", &revoked.id]).status.success());
    assert!(client.finish(ending).is_err());
    drop(go);
    assert_eq!(client.finish(going_on).unwrap().status, 200, "the connection is not the key's");
    assert_eq!(keyward.metric("keyward_streams_ended_total{reason=\"revoked_credential\"}"), 1.0);
}
