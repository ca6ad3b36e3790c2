//! Fields behind a request's body: where a route lets them pass, and what never does (r54).

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use crate::support::http2::{Http2, request as h2_request};
use crate::support::{Client, Key, Keyward, Received, Site, Upstream};

const CONFIG: &str = r#"
routes:
  - { path: /dropped }
  - { path: /own, trailers: true, credentials: { header: X-Own }, inject: { header: { Remote-User: user } } }
default_route: { trailers: true }
"#;

/// Fields that a server might take for headers.
const FORGED: &[&str] = &[
    "Content-Length: 7",
    "content_length: 7",
    "Transfer-Encoding: chunked",
    "Host: b",
    "Connection: close",
    "TE: gzip",
    "Authorization: Bearer forged",
    "X-API-Key: forged",
    "x_api_key: forged",
    "X-Keyward-Key-Id: forged",
    "X_KEYWARD_USER: forged",
    "X-Keyward.Scope: forged",
    "X-Forwarded-For: 1",
    "x_forwarded_proto: https",
    "Forwarded: for=1",
    "X-Real-IP: 1",
    "X-Request-Id: forged",
    "Cookie: a=b",
    "Content-Type: a/b",
    "X-Hop: 1",
];

fn serve() -> (Upstream, Keyward, Key) {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), CONFIG);
    let key = site.create_key(&[]);
    (upstream, site.serve(), key)
}

/// Sends `abc` in a chunk, with these header lines before and these trailers behind it.
#[track_caller]
fn send(client: &mut Client, upstream: &Upstream, start: &str, lines: &str, trailers: &str) -> Received {
    let head = format!("{start} HTTP/1.1\r\nHost: a\r\nConnection: x-hop\r\n{lines}");
    let body = format!("3\r\nabc\r\n0\r\n{trailers}\r\n");
    let response = client.exchange(format!("{head}Transfer-Encoding: chunked\r\n\r\n{body}").as_bytes());
    assert_eq!(response.status, 200, "{start} {lines}");
    let received = upstream.only();
    assert_eq!(received.body.bytes, b"abc", "{start} {lines}");
    received
}

/// In the order of the alphabet: that of fields with different names says nothing.
fn sorted(trailers: &[u8]) -> Vec<String> {
    let mut lines: Vec<String> = String::from_utf8_lossy(trailers).lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn r54_trailers_pass_where_they_may_and_never_those_that_act_like_headers() {
    let (upstream, keyward, key) = serve();
    let bearer = key.bearer();
    let names: Vec<&str> = FORGED.iter().filter_map(|line| line.split(':').next()).collect();
    let names = format!("Trailer: {}\r\nTrailer: X-Sum , X-Own,x-other\r\nTrailer: Remote-User\r\n", names.join(", "));
    let forged = FORGED.join("\r\n");
    let all = format!("X-Sum: 1\r\n{forged}\r\nX-Sum: 2\r\nX-Own: o\r\nremote_user: u\r\nRemote-User: u\r\n");
    let passing = &["remote-user: u", "x-own: o", "x-sum: 1", "x-sum: 2"][..];
    let mut client = keyward.connect();
    for (path, lines, trailers, announced, passed) in [
        ("/x", &*names, &*all, Some("x-sum, x-own, x-other, remote-user"), passing),
        ("/own", &names, &all, Some("x-sum, x-other"), &passing[2..]),
        ("/dropped", &names, &all, None, &[]),
        ("/x", "", &all, None, &[]),
        ("/x", "Trailer: X-Sum\r\n", "", Some("x-sum"), &[]),
        ("/x", "Trailer: X-Sum\r\n", "Host: b\r\n", Some("x-sum"), &[]),
        ("/x", "Trailer: Host\r\n", "Host: b\r\n", None, &[]),
    ] {
        let lines = format!("Authorization: {bearer}\r\n{lines}");
        for method in ["POST", "GET"] {
            let received = send(&mut client, &upstream, &format!("{method} {path}"), &lines, trailers);
            assert_eq!(received.head.value("trailer").as_deref(), announced, "{method} {path} {lines}");
            assert_eq!(sorted(&received.body.trailers), passed, "{method} {path} {lines}");
        }
    }
}

#[test]
fn a_body_of_known_length_announces_none() {
    let (upstream, keyward, key) = serve();
    let head = format!("POST /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\nTrailer: X-Sum\r\n", key.value);
    assert_eq!(keyward.send(format!("{head}Content-Length: 3\r\n\r\nabc").as_bytes()).status, 200);
    assert_eq!(upstream.only().head.value("trailer"), None);
}

/// Clients of HTTP/2 send trailers behind a body of any length, announced or not; HTTP/1.1 has them in chunks alone.
#[test]
fn those_of_http2_pass_to_http1_when_they_are_announced() {
    let (upstream, keyward, key) = serve();
    let mut client = Http2::connect(keyward.proxy);
    for (method, fields, body, passed) in [
        ("POST", &[("trailer", "x-sum")][..], "abc", "x-sum: 1\r\n"),
        ("GET", &[("trailer", "x-sum")], "abc", "x-sum: 1\r\n"),
        ("POST", &[("trailer", "x-sum")], "", "x-sum: 1\r\n"),
        ("POST", &[], "abc", ""),
        ("POST", &[], "", ""),
        ("POST", &[("trailer", "x-sum"), ("content-length", "3")], "abc", ""),
        ("POST", &[("trailer", "x-sum"), ("content-length", "0")], "", ""),
        ("GET", &[("trailer", "x-sum"), ("content-length", "0")], "", ""),
    ] {
        let fields = [&[("x-api-key", &*key.value)], fields].concat();
        let mut exchange = client.begin(h2_request(method, "/x", &fields), false).unwrap();
        if !body.is_empty() {
            exchange.body.send_data(Bytes::from_static(body.as_bytes()), false).unwrap();
        }
        let trailers = [("x-sum", "1"), ("x-keyward-user", "forged")];
        let trailers = trailers.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        exchange.body.send_trailers(trailers.into_iter().collect()).unwrap();
        assert_eq!(client.finish(exchange).unwrap().status, 200, "{method} {fields:?}");
        let received = upstream.only();
        assert_eq!(received.body.bytes, body.as_bytes(), "{method} {fields:?}");
        assert_eq!(String::from_utf8_lossy(&received.body.trailers), passed, "{method} {fields:?}");
    }
}
