//! What Keyward itself ends in the middle does not look whole to the other side either (reliability row 70).

use std::io;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;

use super::super::support::http2::{Http2, request as h2_request};
use super::super::support::{After, Client, PATIENCE, Site, Upstream, until};
use super::expect_about_a_second;

/// An upload in chunks that ends halfway, before there is an answer and while there is one: its key is revoked, or it has
/// had all the time that there is.
#[test]
fn an_upload_that_is_ended_is_not_completed() {
    for (answers, revokes) in [(false, false), (false, true), (true, false), (true, true)] {
        let (said, heard) = mpsc::channel();
        let said = Mutex::new(said);
        let upstream = Upstream::scripted(move |turn| {
            turn.wire.chunk()?;
            if answers {
                turn.wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                turn.wire.send_chunk(b"so far")?;
            }
            let said = said.lock().unwrap();
            said.send(Vec::new()).map_err(io::Error::other)?;
            said.send(turn.wire.rest()?).map_err(io::Error::other)?;
            Ok(After::Close)
        });
        let site = Site::new(upstream.address(), "proxy: { workers: 1, timeouts: { request: 1s } }");
        let key = site.create_key(&[]);
        let keyward = site.serve();
        let mut client = keyward.connect();
        let head = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n";
        client.send(format!("{head}X-API-Key: {}\r\n\r\n", key.value).as_bytes());
        client.wire().send_chunk(b"half").unwrap();
        heard.recv_timeout(PATIENCE).unwrap();
        if answers {
            assert_eq!(client.response_head().unwrap().0, 200);
        }
        if revokes {
            assert!(keyward.site.run(&["key", "revoke", &key.id]).status.success());
        }
        let rest = heard.recv_timeout(PATIENCE).unwrap();
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{answers} {revokes}: {:?}", String::from_utf8_lossy(&rest));
    }
}

/// An answer that begins and does not go on, from an upstream that never says why: HTTP/1.1 in its three forms, to clients of
/// all versions. One that goes on before the limit takes as long as it takes.
#[test]
fn an_answer_that_stops_is_ended_where_there_is_a_limit() {
    const ANSWERS: [(&str, &str); 3] = [
        ("Content-Length: 12\r\n\r\n", "half"),
        ("Transfer-Encoding: chunked\r\n\r\n", "4\r\nhalf\r\n"),
        ("\r\n", "half"),
    ];
    let (ended, heard) = mpsc::channel();
    let ended = Mutex::new(ended);
    let upstream = Upstream::scripted(move |turn| {
        let target = turn.head.target();
        let (head, part) = ANSWERS[usize::from(target.as_bytes()[1] - b'0')];
        turn.wire.send(format!("HTTP/1.1 200 OK\r\n{head}{part}").as_bytes())?;
        if target.ends_with("/on") {
            for _ in 0..2 {
                std::thread::sleep(Duration::from_millis(700));
                turn.wire.send(part.as_bytes())?;
            }
            turn.wire.send(if part.starts_with('4') { b"0\r\n\r\n" } else { b"" })?;
            return Ok(After::Close);
        }
        turn.wire.rest()?;
        ended.lock().unwrap().send(()).map_err(io::Error::other)?;
        Ok(After::Close)
    });
    let config = "proxy: { workers: 1, timeouts: { response_idle: 1s } }\nlog: { access: all }";
    let site = Site::new(upstream.address(), config);
    let key = site.create_key(&[]);
    let keyward = site.serve();
    for place in 0..ANSWERS.len() {
        for version in ["1.1", "1.0"] {
            let began = Instant::now();
            let mut client = keyward.connect();
            client
                .send(format!("GET /{place} HTTP/{version}\r\nHost: a\r\nX-API-Key: {}\r\n\r\n", key.value).as_bytes());
            assert!(client.try_response().is_err(), "{place} {version}: it looks whole");
            expect_about_a_second(began);
            heard.recv_timeout(PATIENCE).expect("the upstream is let go");
        }
        let mut client = Http2::connect(keyward.proxy);
        let ask = |path: &str| h2_request("GET", path, &[("x-api-key", &key.value)]);
        let stopped = client.begin(ask(&format!("/{place}")), true).unwrap();
        assert!(client.finish(stopped).is_err(), "{place}: it looks whole");
        heard.recv_timeout(PATIENCE).expect("the upstream is let go");
        // The connection is still good for an answer that never rests for a second.
        if place == 1 {
            let going = client.begin(ask("/1/on"), true).unwrap();
            assert_eq!(client.finish(going).unwrap().body, b"halfhalfhalf");
            assert_eq!(keyward.with_key(&key, "GET", "/1/on").text(), "halfhalfhalf");
        }
    }
    let line = keyward.wait_for_line_with("reason", &"upstream_timeout".into());
    assert_eq!((&line["decision"], &line["http.response.status_code"]), (&"error".into(), &200.into()));
    assert_eq!(keyward.metric("keyward_upstream_errors_total{kind=\"upstream_timeout\"}"), 9.0);
}

/// Answers of all sizes, which end with their connection, to clients that stop reading: the last bytes of some wait in
/// Keyward when the upstream has long said all, and the connection seems to rest.
#[test]
fn an_answer_that_is_not_read_to_its_end_is_not_completed() {
    let upstream = Upstream::scripted(|turn| {
        let size: usize = turn.head.target()[1..].parse().unwrap();
        turn.wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        turn.wire.send_chunk(&vec![b'x'; size])?;
        turn.wire.send_chunk(b"")?;
        Ok(After::Keep)
    });
    let site = Site::new(upstream.address(), "proxy: { workers: 1, timeouts: { idle: 1s, body: 1s } }");
    let key = site.create_key(&[]);
    let keyward = site.serve();
    let begin = |size: usize| {
        let mut client = Client::over(with_little_room(keyward.proxy));
        client.send(format!("GET /{size} HTTP/1.0\r\nX-API-Key: {}\r\n\r\n", key.value).as_bytes());
        (size, client)
    };
    let clients: Vec<_> = (1..80).map(|n| begin(n * 50_000)).collect();
    until("all have been closed", || keyward.metric("keyward_connections_open") == 0.0);
    let late = keyward.metric("keyward_client_timeouts_total{limit=\"body\"}") as usize;
    let (mut whole, mut cut) = (0, 0);
    for (size, mut client) in clients {
        match client.try_response() {
            Ok(response) => {
                assert_eq!(response.body.len(), size, "it looks whole");
                whole += 1;
            }
            Err(_) => cut += 1,
        }
    }
    assert!(whole > 0 && cut > late, "{whole} whole, {cut} cut, {late} of them with more to come");
}

/// A connection of which the client's end takes few bytes.
pub(crate) fn with_little_room(address: std::net::SocketAddr) -> std::net::TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let socket = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(address).await.unwrap().into_std().unwrap()
    });
    socket.set_nonblocking(false).unwrap();
    socket
}
