//! Stopping loses nothing: what was sent is answered, and then the process ends by itself with exit code 0.

use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::support::http2::{self, Http2};
use super::support::{After, Client, Key, Keyward, PATIENCE, Site, Upstream, request, until};

fn serve(upstream: &Upstream, config: &str) -> (Keyward, Key) {
    let site = Site::new(upstream.address(), config);
    let key = site.create_key(&[]);
    (site.serve(), key)
}

fn ended_well(status: ExitStatus) -> bool {
    status.code() == Some(0)
}

/// What became of the requests of one client.
#[derive(Default)]
struct Tally {
    answered: usize,
    refused: usize,
}

/// Sends one request after the other until the connection is closed in a way that loses none: after an answer that said so.
fn keep_asking(mut client: Client, key: &Key, after_stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    loop {
        let value = if tally.answered % 5 == 4 { "wrong" } else { &key.value };
        let body = if tally.answered % 2 == 0 { &b""[..] } else { b"body" };
        let method = if body.is_empty() { "GET" } else { "POST" };
        client.send(&request(method, "/x", &[("X-API-Key", value)], body));
        let response = client.try_response().unwrap_or_else(|error| {
            panic!("request {} was lost ({error}); stopping: {}", tally.answered, after_stop.load(SeqCst))
        });
        assert!(matches!(response.status, 200 | 401), "{}", response.status);
        tally.answered += 1;
        tally.refused += usize::from(response.status == 401);
        if response.value("connection").as_deref() == Some("close") {
            assert!(after_stop.load(SeqCst), "closed before it was told to stop");
            assert!(client.is_closed());
            return tally;
        }
    }
}

#[test]
fn a_stop_under_load_loses_no_request() {
    let upstream = Upstream::start();
    let (mut keyward, key) = serve(&upstream, "log: { access: none }");
    let stopping = Arc::<AtomicBool>::default();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (client, key, stopping) = (keyward.connect(), key.clone(), stopping.clone());
            thread::spawn(move || keep_asking(client, &key, &stopping))
        })
        .collect();
    upstream.wait_for(500);
    stopping.store(true, SeqCst);
    keyward.terminate();
    let tallies: Vec<Tally> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(ended_well(keyward.wait_for_exit()));
    let passed: usize = tallies.iter().map(|tally| tally.answered - tally.refused).sum();
    assert_eq!(upstream.received().len(), passed, "and none was made up");
    assert!(tallies.iter().all(|tally| tally.answered > 10));
}

/// Balancers need time to notice that it is no longer ready, and until then they open new connections.
#[test]
fn a_stop_loses_no_new_connection_while_the_delay_lasts() {
    let upstream = Upstream::start();
    let (mut keyward, key) = serve(&upstream, "proxy: { timeouts: { drain_delay: 1s } }\nlog: { access: none }");
    let get = request("GET", "/x", &[("X-API-Key", &key.value)], b"");
    let (proxy, noticed) = (keyward.proxy, Arc::<AtomicBool>::default());
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (get, noticed) = (get.clone(), noticed.clone());
            thread::spawn(move || {
                let mut answered = 0;
                while !noticed.load(SeqCst) {
                    assert_eq!(Client::connect(proxy).exchange(&get).status, 200);
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    upstream.wait_for(300);
    let began = Instant::now();
    keyward.terminate();
    until("it is no longer ready", || keyward.ops_page("/readyz").status == 503);
    assert_eq!(keyward.ops_page("/livez").status, 200, "it is to be left alone, not killed");
    let so_far = upstream.received().len();
    upstream.wait_for(so_far + 300);
    noticed.store(true, SeqCst);
    let answered: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert_eq!(upstream.received().len(), answered);
    until("connections are refused", || std::net::TcpStream::connect(proxy).is_err());
    assert!(began.elapsed() >= Duration::from_millis(950), "{:?}", began.elapsed());
    assert!(ended_well(keyward.wait_for_exit()));
}

/// In a Pod both are told to stop at once, and the upstream is often the first to go.
#[test]
fn an_upstream_that_goes_first_makes_it_unavailable_and_not_broken() {
    let upstream = Upstream::scripted(|turn| {
        turn.body()?;
        turn.wire.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")?;
        Ok(After::Close)
    });
    let (mut keyward, key) = serve(&upstream, "proxy: { timeouts: { drain_delay: 1s } }");
    let get = request("GET", "/x", &[("X-API-Key", &key.value)], b"");
    let mut client = keyward.connect();
    assert_eq!(client.exchange(&get).status, 200);
    drop(upstream);
    until("it is gone", || keyward.send(&get).status == 502);
    assert_eq!(client.exchange(&get).status, 502);
    keyward.terminate();
    until("it is no longer ready", || keyward.ops_page("/readyz").status == 503);
    let response = client.exchange(&get);
    let [retry, connection] = ["retry-after", "connection"].map(|name| response.value(name));
    assert_eq!((response.status, retry.as_deref(), connection.as_deref()), (503, Some("5"), Some("close")));
    assert!(client.is_closed());
    let series = "keyward_requests_total{code=\"5xx\",decision=\"error\",reason=\"stopping\"}";
    until("it is counted", || keyward.metric(series) as u64 == 1);
    assert!(ended_well(keyward.wait_for_exit()));
}

#[test]
fn a_client_at_rest_gets_its_next_request_in() {
    let upstream = Upstream::start();
    let (mut keyward, key) = serve(&upstream, "");
    let (mut resting, mut idle) = (keyward.connect(), keyward.connect());
    let get = request("GET", "/x", &[("X-API-Key", &key.value)], b"");
    for client in [&mut resting, &mut idle] {
        assert_eq!(client.exchange(&get).status, 200);
    }
    keyward.terminate();
    keyward.wait_for_line("stopping: requests in flight are finished first");
    until("new connections are refused", || std::net::TcpStream::connect(keyward.proxy).is_err());
    // It may be sending at this very moment, so it gets an answer, and is told that it is the last.
    let response = resting.exchange(&get);
    assert_eq!((response.status, response.value("connection").as_deref()), (200, Some("close")));
    assert!(resting.is_closed());
    assert!(idle.is_closed(), "a connection without a request holds nothing up");
    assert!(ended_well(keyward.wait_for_exit()));
}

/// An upstream whose download goes on only when it is told to, piece by piece.
fn piecemeal_upstream() -> (Upstream, mpsc::Sender<()>) {
    let (go, told) = mpsc::channel();
    let told = Mutex::<mpsc::Receiver<()>>::new(told);
    let upstream = Upstream::scripted(move |turn| {
        let body = turn.body()?.bytes;
        turn.wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        turn.wire.send_chunk(b"begin ")?;
        while told.lock().unwrap().recv_timeout(PATIENCE).is_ok() {
            turn.wire.send_chunk(&[b'x'; 100_000])?;
        }
        turn.wire.send_chunk(&body)?;
        turn.wire.send_chunk(b" end")?;
        turn.wire.send_chunk(b"")?;
        Ok(After::Keep)
    });
    (upstream, go)
}

#[test]
fn a_long_download_is_finished_first() {
    let (upstream, go) = piecemeal_upstream();
    let (mut keyward, key) = serve(&upstream, "");
    let mut client = keyward.connect();
    client.send(&request("POST", "/film", &[("X-API-Key", &key.value)], b"credits"));
    let (status, _) = client.response_head().unwrap();
    assert_eq!((status, client.wire().chunk().unwrap()), (200, b"begin ".to_vec()));
    keyward.terminate();
    until("new connections are refused", || std::net::TcpStream::connect(keyward.proxy).is_err());
    for _ in 0..20 {
        // Longer than connections without a request are kept.
        thread::sleep(Duration::from_millis(80));
        assert_eq!(keyward.exit_status(), None);
        go.send(()).unwrap();
    }
    drop(go);
    let mut body = Vec::new();
    loop {
        let chunk = client.wire().chunk().unwrap();
        if chunk.is_empty() {
            break;
        }
        body.extend(chunk);
    }
    assert_eq!(client.wire().trailers().unwrap(), b"");
    assert_eq!(body.len(), 20 * 100_000 + "credits end".len());
    assert!(body.ends_with(b"xcredits end"));
    assert!(client.is_closed());
    assert!(ended_well(keyward.wait_for_exit()));
}

#[test]
fn what_does_not_end_in_time_is_cut_off() {
    let (upstream, _go) = piecemeal_upstream();
    let (mut keyward, key) = serve(&upstream, "proxy: { timeouts: { drain: 1500ms } }");
    let (mut client, mut streams) = (keyward.connect(), Http2::connect(keyward.proxy));
    client.send(&request("GET", "/film", &[("X-API-Key", &key.value)], b""));
    assert_eq!(client.response_head().unwrap().0, 200);
    let stream = streams.begin(http2::request("GET", "/stream", &[("x-api-key", &key.value)]), true).unwrap();
    upstream.wait_for(2);
    let began = Instant::now();
    keyward.terminate();
    let status = keyward.wait_for_exit();
    let took = began.elapsed();
    assert!((Duration::from_millis(1400)..Duration::from_millis(4000)).contains(&took), "{took:?}");
    assert!(ended_well(status));
    assert_eq!(client.wire().chunk().unwrap(), b"begin ");
    assert!(client.wire().chunk().is_err(), "it breaks off, and does not look finished");
    assert!(streams.finish(stream).is_err());
    // Nor in the log.
    for path in ["/film", "/stream"] {
        let line = keyward.wait_for_line_with("url.path", &path.into());
        assert_eq!((&line["decision"], &line["reason"]), (&"error".into(), &"stopping".into()), "{line}");
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (upstream, _go) = piecemeal_upstream();
    let (mut keyward, key) = serve(&upstream, "");
    let mut client = keyward.connect();
    client.send(&request("GET", "/film", &[("X-API-Key", &key.value)], b""));
    assert_eq!(client.response_head().unwrap().0, 200);
    keyward.terminate();
    until("new connections are refused", || std::net::TcpStream::connect(keyward.proxy).is_err());
    let began = Instant::now();
    keyward.terminate();
    assert!(ended_well(keyward.wait_for_exit()));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(client.wire().chunk().unwrap(), b"begin ");
    assert!(client.wire().chunk().is_err(), "it breaks off, and does not look finished");
}
