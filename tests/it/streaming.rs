//! Bodies that do not fit into memory pass through it: one side stops, and the other is made to wait.
//!
//! With `KEYWARD_LONG=1` the bodies are of 1 GiB, else of 256 MiB.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::support::wire::Wire;
use super::support::{After, Key, Keyward, PATIENCE, Site, Upstream, ok, request, until};
use super::tools::long;

/// What Keyward may need for all of it. A body would be four times as much, or more.
const MOST_MEMORY: u64 = 64 << 20;
/// A multiple of [`PERIOD`] that is sent at once.
const BLOCK: u64 = PERIOD * 1024;
/// The bytes of a body repeat after so many: a prime, so that no block that is lost, doubled or swapped goes unnoticed.
const PERIOD: u64 = 251;

fn size() -> u64 {
    if long() { 1 << 30 } else { 256 << 20 }
}

fn block() -> Vec<u8> {
    (0..BLOCK + PERIOD).map(|at| (at % PERIOD) as u8).collect()
}

/// Sends a body, and notes how far it has come.
fn send(wire: &mut Wire, size: u64, sent: &AtomicU64) -> io::Result<()> {
    let block = block();
    while sent.load(SeqCst) < size {
        let count = BLOCK.min(size - sent.load(SeqCst));
        wire.send(&block[..usize::try_from(count).unwrap()])?;
        sent.fetch_add(count, SeqCst);
    }
    Ok(())
}

/// Reads a body, and compares every byte.
fn read(wire: &mut Wire, size: u64) -> io::Result<()> {
    let (block, mut buffer, mut at) = (block(), vec![0; 200_000], 0);
    while at < size {
        let wanted = usize::try_from(size - at).unwrap().min(buffer.len());
        let count = wire.some_into(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let phase = usize::try_from(at % PERIOD).unwrap();
        assert!(buffer[..count] == block[phase..phase + count], "wrong bytes behind {at}");
        at += count as u64;
    }
    Ok(())
}

/// Waits until nothing moves any more, and gives how far it has come: all buffers on the way are full then.
fn stalled(sent: &AtomicU64) -> u64 {
    let mut last = u64::MAX;
    until("the sender is made to wait", || {
        let was = std::mem::replace(&mut last, sent.load(SeqCst));
        thread::sleep(Duration::from_millis(if long() { 2000 } else { 400 }));
        last > 0 && was == last && sent.load(SeqCst) == last
    });
    last
}

fn serve(upstream: &Upstream, config: &str) -> (Keyward, Key) {
    let site = Site::new(upstream.address(), config);
    let key = site.create_key(&[]);
    (site.serve(), key)
}

#[track_caller]
fn expect_little_memory(keyward: &Keyward) {
    let peak = keyward.peak_memory();
    assert!(peak < MOST_MEMORY, "it needed {} MiB", peak >> 20);
}

#[test]
fn a_client_that_does_not_read_makes_the_upstream_wait() {
    let sent = Arc::<AtomicU64>::default();
    let counting = sent.clone();
    let upstream = Upstream::scripted(move |turn| {
        turn.wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", size()).as_bytes())?;
        send(turn.wire, size(), &counting).map(|()| After::Keep)
    });
    let (keyward, key) = serve(&upstream, "");
    let mut client = keyward.connect();
    client.send(&request("GET", "/film", &[("X-API-Key", &key.value)], b""));
    let on_the_way = stalled(&sent);
    assert!(on_the_way < MOST_MEMORY, "{on_the_way} bytes are on their way to nobody");
    expect_little_memory(&keyward);
    let (status, head) = client.response_head().unwrap();
    assert_eq!((status, head.value("content-length")), (200, Some(size().to_string())));
    read(client.wire(), size()).unwrap();
    expect_little_memory(&keyward);
}

/// An upstream that does not read a body before it is told to.
fn waiting_upstream() -> (Upstream, mpsc::Sender<()>) {
    let (go, told) = mpsc::channel();
    let told = Mutex::<Receiver<()>>::new(told);
    let upstream = Upstream::scripted(move |turn| {
        if turn.head.start().starts_with("GET") {
            return turn.answer(&ok("still here"));
        }
        told.lock().unwrap().recv_timeout(PATIENCE).map_err(|_| io::ErrorKind::TimedOut)?;
        read(turn.wire, size())?;
        turn.wire.send(&ok("all of it"))?;
        Ok(After::Keep)
    });
    (upstream, go)
}

#[test]
fn an_upstream_that_does_not_read_makes_the_client_wait() {
    let (upstream, go) = waiting_upstream();
    let (keyward, key) = serve(&upstream, "");
    let mut client = keyward.connect();
    let head =
        format!("POST /film HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\nContent-Length: {}\r\n\r\n", key.value, size());
    client.send(head.as_bytes());
    let sent = Arc::<AtomicU64>::default();
    let counting = sent.clone();
    let sending = thread::spawn(move || {
        send(client.wire(), size(), &counting).unwrap();
        client
    });
    let on_the_way = stalled(&sent);
    assert!(on_the_way < MOST_MEMORY, "{on_the_way} bytes are on their way to nobody");
    go.send(()).unwrap();
    let response = sending.join().unwrap().response();
    assert_eq!((response.status, &*response.text()), (200, "all of it"));
    expect_little_memory(&keyward);
}

#[test]
fn an_upload_that_never_ends_holds_nobody_up() {
    let (upstream, go) = waiting_upstream();
    let (keyward, key) = serve(&upstream, "proxy: { workers: 1 }");
    go.send(()).unwrap();
    let mut client = keyward.connect();
    let head =
        format!("POST /film HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\nContent-Length: {}\r\n\r\n", key.value, size());
    client.send(head.as_bytes());
    send(client.wire(), 1 << 20, &AtomicU64::new(0)).unwrap();
    upstream.wait_for(1);
    for _ in 0..20 {
        let response = keyward.with_key(&key, "GET", "/short");
        assert_eq!((response.status, &*response.text()), (200, "still here"));
    }
    drop(client);
    // Half an upload is no upload: the upstream must not believe that it got one.
    until("the request is given up", || keyward.metric("keyward_requests_in_flight") == 0.0);
    assert_eq!(keyward.with_key(&key, "GET", "/short").status, 200);
    let on_uploads_connection = upstream.received().iter().filter(|received| received.connection == 0).count();
    assert_eq!(on_uploads_connection, 1, "a connection with half a request on it is not used again");
    expect_little_memory(&keyward);
}

#[test]
fn an_upload_that_stops_is_given_up_in_time() {
    let upstream = Upstream::scripted(|turn| turn.answer(&ok("never")));
    let (keyward, key) = serve(&upstream, "proxy: { timeouts: { body: 1s, response: 1s } }");
    let mut client = keyward.connect();
    let head = format!("POST /film HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\nContent-Length: 1000\r\n\r\n", key.value);
    client.send(head.as_bytes());
    client.send(b"not all of it");
    upstream.wait_for(1);
    assert_eq!(client.response().status, 408);
    let began = Instant::now();
    assert!(client.is_closed(), "the rest of the body would be taken for a request");
    assert!(began.elapsed() < Duration::from_secs(5), "nobody waits for it again");
    assert_eq!(upstream.take().len(), 1);
}

/// A reset behind an answer would take it from those who read only when they have sent everything.
#[test]
fn an_answer_is_heard_by_those_who_still_send() {
    let (_go, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let upstream = Upstream::scripted(move |turn| {
        let target = turn.head.target();
        if target == "/early" {
            turn.wire.send(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")?;
        } else if target == "/short" {
            return turn.answer(&ok("still here"));
        }
        // Nothing of the body is read.
        told.lock().unwrap().recv_timeout(PATIENCE).map_err(|_| io::ErrorKind::TimedOut)?;
        Ok(After::Close)
    });
    let body = vec![b'a'; 32 << 20];
    for (limit, target, status) in
        [("response: 1s", "/silent", 504), ("request: 1s", "/silent", 504), ("idle: 1m", "/early", 413)]
    {
        let (keyward, key) = serve(&upstream, &format!("proxy: {{ timeouts: {{ {limit} }} }}"));
        let fields = [("X-API-Key", &*key.value)];
        let mut client = keyward.connect();
        assert_eq!(client.exchange(&request("POST", target, &fields, &body)).status, status, "{limit}");
        let next = client.exchange(&request("GET", "/short", &fields, b""));
        assert_eq!(next.status, 200, "{limit}: the connection is kept");
    }
    let nobody = crate::support::port::unused();
    let site = Site::new(nobody, "");
    let key = site.create_key(&[]);
    let keyward = site.serve();
    let response = keyward.connect().exchange(&request("POST", "/", &[("X-API-Key", &key.value)], &body));
    assert_eq!(response.status, 502);
}
