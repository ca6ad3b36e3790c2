//! More than there is room for: connections in all, connections of one peer, requests, and clients that stand still.

mod open_load;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::support::http2::{self, Http2};
use super::support::upstream::PAGE;
use super::support::{Client, Key, Keyward, PATIENCE, Site, Upstream, ok, request, until};

fn serve(upstream: &Upstream, proxy: &str) -> (Keyward, Key) {
    let site = Site::new(upstream.address(), &format!("proxy: {{ {proxy} }}"));
    let key = site.create_key(&[]);
    (site.serve(), key)
}

fn get(key: &Key) -> Vec<u8> {
    request("GET", "/x", &[("X-API-Key", &key.value)], b"")
}

#[track_caller]
fn expect_full(mut client: Client, key: &Key) {
    let response = client.exchange(&get(key));
    assert_eq!((response.status, response.text().as_str()), (503, "Too many connections here.\n"));
    assert_eq!(response.value("retry-after").as_deref(), Some("5"));
    client.finish();
    assert!(client.is_closed());
}

#[test]
fn one_connection_too_many_hears_so_at_once() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "max_connections: 3");
    let mut clients: Vec<Client> = (0..3).map(|_| keyward.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.exchange(&get(&key)).status, 200);
    }
    expect_full(keyward.connect(), &key);
    for client in &mut clients {
        assert_eq!(client.exchange(&get(&key)).status, 200, "those that are there do not notice");
    }
    drop(clients.pop());
    until("there is room again", || keyward.metric("keyward_connections_open") <= 2.0);
    assert_eq!(keyward.with_key(&key, "GET", "/x").status, 200);
    assert_eq!(keyward.metric("keyward_connections_refused_total{reason=\"max_connections\"}"), 1.0);
}

#[test]
fn one_peer_does_not_take_the_room_of_all() {
    let upstream = Upstream::start();
    let balancer = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
    let (keyward, key) = serve(&upstream, "max_connections_per_peer: 2, proxy_protocol: [127.0.0.9]");
    let peer = |last: u8| Client::connect_from(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), keyward.proxy);
    let mut two = [peer(2), peer(2)];
    for client in &mut two {
        assert_eq!(client.exchange(&get(&key)).status, 200);
    }
    expect_full(peer(2), &key);
    assert_eq!(peer(3).exchange(&get(&key)).status, 200);
    // Behind a balancer, it is the client that counts.
    let behind = |client: &str| {
        let mut connection = Client::connect_from(balancer, keyward.proxy);
        connection.send(format!("PROXY TCP4 {client} 192.0.2.1 1 2\r\n").as_bytes());
        connection
    };
    expect_full(behind("127.0.0.2"), &key);
    assert_eq!(behind("192.0.2.7").exchange(&get(&key)).status, 200);
    drop(two);
    until("its places are free again", || peer(2).exchange(&get(&key)).status == 200);
}

#[test]
fn those_that_are_refused_take_no_room() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "max_connections: 3, max_connections_per_peer: 1");
    let peer = |last: u8| Client::connect_from(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), keyward.proxy);
    let mut first = peer(2);
    assert_eq!(first.exchange(&get(&key)).status, 200);
    // They hear that they were too many, and stay as long as they may.
    let refused: Vec<Client> = (0..10)
        .map(|_| {
            let mut client = peer(2);
            assert_eq!(client.response().status, 503);
            client
        })
        .collect();
    assert_eq!(peer(3).exchange(&get(&key)).status, 200);
    drop(refused);
}

#[test]
fn those_that_are_refused_hear_why_as_long_as_they_are_no_crowd() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "max_connections: 1, workers: 1");
    let mut first = keyward.connect();
    assert_eq!(first.exchange(&get(&key)).status, 200);
    // How many of 300 that come one after another, and stay, hear why: each takes room for a second.
    let told = || {
        let mut clients: Vec<Client> = Vec::new();
        for _ in 0..300 {
            let mut client = keyward.connect();
            if client.try_response().is_ok_and(|response| response.status == 503) {
                clients.push(client);
            }
        }
        clients.len()
    };
    let first_time = told();
    assert!(first_time >= 256, "{first_time}");
    // On a slow machine the first have been sent away before the last come.
    until("a crowd is not told", || told() < 300);
    assert_eq!(first.exchange(&get(&key)).status, 200);
}

#[test]
fn one_request_too_many_is_refused_and_not_kept_waiting() {
    let (go, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let upstream = Upstream::scripted(move |turn| {
        let _ = told.lock().unwrap().recv_timeout(PATIENCE);
        turn.answer(&ok(PAGE))
    });
    let (keyward, key) = serve(&upstream, "max_requests: 2");
    let mut two = [keyward.connect(), keyward.connect()];
    two.iter_mut().for_each(|client| client.send(&get(&key)));
    upstream.wait_for(2);
    let began = Instant::now();
    let mut third = keyward.connect();
    let refused = third.exchange(&get(&key));
    assert_eq!((refused.status, refused.value("retry-after").as_deref()), (503, Some("5")));
    assert!(began.elapsed() < Duration::from_secs(2));
    let counted = "keyward_requests_total{code=\"5xx\",decision=\"error\",reason=\"overloaded\"}";
    until("it is counted", || keyward.metric(counted) == 1.0);
    drop(go);
    assert!(two.iter_mut().all(|client| client.response().status == 200));
    assert_eq!(third.exchange(&get(&key)).status, 200, "on the same connection");
    assert_eq!(upstream.received().len(), 3);
}

#[test]
fn a_client_that_does_not_read_is_given_up() {
    let upstream = Upstream::scripted(|turn| turn.answer(&ok(&"x".repeat(30_000_000))));
    let (keyward, key) = serve(&upstream, "timeouts: { body: 1s }");
    let mut client = keyward.connect();
    client.send(&get(&key));
    until("it is given up", || keyward.metric("keyward_client_timeouts_total{limit=\"body\"}") == 1.0);
    until("nothing is left of it", || keyward.metric("keyward_requests_in_flight") == 0.0);
    let line = keyward.wait_for_line_with("reason", &"client_timeout".into());
    assert_eq!(line["http.response.status_code"], 200, "it was to be the upstream's");
    let mut reads = keyward.connect();
    assert_eq!(reads.exchange(&get(&key)).body.len(), 30_000_000, "one that reads gets all of it");
}

#[test]
fn a_request_without_an_answer_is_answered_when_its_time_is_over() {
    let (_go, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let upstream = Upstream::scripted(move |turn| {
        if turn.head.target() != "/x" {
            return turn.answer(&ok(PAGE));
        }
        let _ = told.lock().unwrap().recv_timeout(PATIENCE);
        Err(std::io::ErrorKind::TimedOut.into())
    });
    let (keyward, key) = serve(&upstream, "timeouts: { request: 1s }");
    let fields = [("X-API-Key", &*key.value), ("Accept", "application/json")];
    let mut client = keyward.connect();
    let began = Instant::now();
    let late = client.exchange(&request("GET", "/x", &fields, b""));
    assert_eq!((late.status, &late.json()["errors"][0]["code"]), (504, &"gateway_timeout".into()));
    expect_a_second(began);
    let next = client.exchange(&request("GET", "/y", &fields, b""));
    assert_eq!(next.status, 200, "on the same connection");

    let mut client = Http2::connect(keyward.proxy);
    let began = Instant::now();
    let late = client.exchange(http2::request("GET", "/x", &[("x-api-key", &key.value)])).unwrap();
    assert_eq!(late.status, 504);
    expect_a_second(began);
    assert_eq!(client.exchange(http2::request("GET", "/y", &[("x-api-key", &key.value)])).unwrap().status, 200);
    assert_eq!(keyward.metric("keyward_client_timeouts_total{limit=\"request\"}"), 2.0);
    let line = keyward.wait_for_line_with("reason", &"request_timeout".into());
    assert_eq!((&line["http.response.status_code"], &line["decision"]), (&504.into(), &"error".into()));
    assert_eq!(line["key.id"].as_str(), Some(&*key.id));
}

#[test]
fn r69_clients_that_send_no_request_are_counted() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "timeouts: { head: 1s, idle: 1s }");
    let (mut silent, mut slow, mut begun) = (keyward.connect(), keyward.connect(), keyward.connect());
    slow.send(b"GET /x HTTP/1.1\r\nHost:");
    assert_eq!(begun.exchange(&get(&key)).status, 200);
    begun.send(b"GET /x HTTP/1.1\r\nHost:");
    let (mut left, mut rests) = (keyward.connect(), keyward.connect());
    left.finish();
    assert_eq!(rests.exchange(&get(&key)).status, 200);
    assert!([&mut silent, &mut slow, &mut begun, &mut left, &mut rests].into_iter().all(Client::is_closed));
    until("those two are counted", || keyward.metric("keyward_connections_refused_total{reason=\"timeout\"}") == 2.0);
}

#[track_caller]
fn expect_a_second(began: Instant) {
    let took = began.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_millis(3000)).contains(&took), "{took:?}");
}

#[test]
fn a_request_may_have_an_end_whatever_happens() {
    let upstream = Upstream::scripted(|turn| {
        turn.body()?;
        turn.wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            turn.wire.send_chunk(b"tick")?;
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let (keyward, key) = serve(&upstream, "timeouts: { request: 1s }");
    let mut client = keyward.connect();
    let began = Instant::now();
    client.send(&get(&key));
    assert_eq!(client.response_head().unwrap().0, 200);
    while client.wire().chunk().is_ok_and(|chunk| !chunk.is_empty()) {}
    expect_a_second(began);
    assert_eq!(keyward.metric("keyward_client_timeouts_total{limit=\"request\"}"), 1.0);
    let line = keyward.wait_for_line_with("reason", &"request_timeout".into());
    assert_eq!((&line["http.response.status_code"], &line["decision"]), (&200.into(), &"error".into()));
}
