//! Thousands of requests at once through few connections to the upstream, some of which break, are answered early or are
//! left by their clients: nobody ever gets another's answer, and the upstream gets what was sent, and no POST twice
//! (reliability rows P11 and P12).
//!
//! With `KEYWARD_LONG=1` there are half a million of them, else 20,000.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

use super::super::support::upstream::Turn;
use super::super::support::wire::Framing;
use super::super::support::{After, Client, Keyward, Site, Upstream, until};
use super::super::tools::long;

const CLIENTS: u64 = 16;

fn requests() -> u64 {
    if long() { 500_000 } else { 20_000 }
}

/// What becomes of a request. Its mark says so to both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Good,
    /// Answered before its body is read, and the connection is closed.
    Early,
    /// Its answer breaks off.
    Cut,
    /// Instead of an answer the connection breaks.
    Reset,
    /// Another answer follows the right one.
    Double,
    /// The connection is closed behind its answer.
    Closed,
    /// The client leaves with half of its body sent.
    HalfSent,
    /// The client leaves before it is answered.
    Left,
}

/// A request, all of which follows from one number.
#[derive(Clone, Copy)]
struct Mark(u64);

impl Mark {
    /// splitmix64: the numbers of neighbours have nothing in common.
    fn mixed(self, salt: u64) -> u64 {
        let mut z = (self.0 ^ salt << 48).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fate(self) -> Fate {
        match self.mixed(1) % 32 {
            0 => Fate::Early,
            1 => Fate::Cut,
            2 => Fate::Reset,
            3 => Fate::Double,
            4 => Fate::Closed,
            5 if self.posts() => Fate::HalfSent,
            6 => Fate::Left,
            _ => Fate::Good,
        }
    }

    fn posts(self) -> bool {
        self.mixed(2).is_multiple_of(2)
    }

    fn in_chunks(self, salt: u64) -> bool {
        self.mixed(salt).is_multiple_of(3)
    }

    fn target(self) -> String {
        format!("/{:016x}?q={:016x}%20&&x", self.0, self.mixed(3))
    }

    fn of_target(target: &str) -> Self {
        Self(u64::from_str_radix(&target[1..17], 16).unwrap())
    }

    /// A few bytes or some packets of them, of which every one follows from the mark.
    fn bytes(self, salt: u64) -> Vec<u8> {
        let length = match self.mixed(salt) % 16 {
            0 => 20_000,
            small => small * 16,
        };
        (0..length / 16 + 1).flat_map(|n| format!("{:016x}", self.mixed(salt + n + 1)).into_bytes()).collect()
    }

    fn upload(self) -> Vec<u8> {
        if self.posts() { self.bytes(1000) } else { Vec::new() }
    }

    fn page(self) -> Vec<u8> {
        self.bytes(9000)
    }

    fn request(self, key: &str) -> Vec<u8> {
        let (body, target) = (self.upload(), self.target());
        let start = if self.posts() { "POST" } else { "GET" };
        let head = format!("{start} {target} HTTP/1.1\r\nHost: a.example\r\nX-API-Key: {key}\r\n");
        message(&head, &body, self.posts(), self.in_chunks(4))
    }

    fn response(self) -> Vec<u8> {
        message("HTTP/1.1 200 OK\r\n", &self.page(), true, self.in_chunks(5))
    }
}

fn message(head: &str, body: &[u8], has_body: bool, in_chunks: bool) -> Vec<u8> {
    let mut bytes = head.as_bytes().to_vec();
    if !has_body {
        bytes.extend(b"\r\n");
    } else if in_chunks {
        bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
        for chunk in body.chunks(body.len() / 2 + 1) {
            bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
    } else {
        bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
        bytes.extend(body);
    }
    bytes
}

/// What the upstream has noticed.
#[derive(Default)]
struct Notes {
    /// How often each request has come.
    times: Mutex<HashMap<u64, u32>>,
    wrong: Mutex<Vec<String>>,
}

fn serve(notes: &Notes, turn: &mut Turn<'_>) -> io::Result<After> {
    let target = turn.head.target();
    let mark = Mark::of_target(&target);
    *notes.times.lock().unwrap().entry(mark.0).or_default() += 1;
    if target != mark.target() {
        notes.wrong.lock().unwrap().push(target.clone());
    }
    if mark.fate() == Fate::Early && mark.posts() {
        turn.wire.send(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 16\r\n\r\n")?;
        turn.wire.send(format!("{:016x}", mark.0).as_bytes())?;
        // It does not close in the client's face: that may cost the answer.
        turn.wire.socket().shutdown(Shutdown::Write)?;
        return turn.wire.rest().map(|_| After::Close);
    }
    let framing = turn.head.framing();
    let body = turn.wire.body(framing)?;
    if body.bytes != mark.upload() || mark.fate() == Fate::HalfSent || (framing == Framing::None) == mark.posts() {
        notes.wrong.lock().unwrap().push(format!("{target}: {} bytes", body.bytes.len()));
    }
    let response = mark.response();
    match mark.fate() {
        Fate::Reset => return Ok(After::Reset),
        Fate::Cut => turn.wire.send(&response[..response.len() - 3])?,
        Fate::Double => turn.wire.send(&[response.clone(), Mark(!mark.0).response()].concat())?,
        Fate::Good | Fate::Early | Fate::Closed | Fate::HalfSent | Fate::Left => turn.wire.send(&response)?,
    }
    Ok(if matches!(mark.fate(), Fate::Cut | Fate::Closed) { After::Close } else { After::Keep })
}

/// What the clients have got.
#[derive(Default)]
struct Tally {
    right: AtomicU64,
    /// Bad gateways where the upstream had closed a connection that it had not said it would.
    lost: AtomicU64,
}

/// Sends one request, and says whether its connection can be used again.
fn exchange(client: &mut Client, mark: Mark, key: &str, tally: &Tally) -> bool {
    let (request, fate) = (mark.request(key), mark.fate());
    if fate == Fate::HalfSent {
        let _ = client.wire().send(&request[..request.len() - 4]);
        return false;
    }
    if client.wire().send(&request).is_err() || fate == Fate::Left {
        return false;
    }
    let response = match client.try_response() {
        Ok(response) => response,
        Err(_) if fate == Fate::Cut => return false,
        Err(error) => panic!("{:016x} {fate:?}: {error}", mark.0),
    };
    let right = match (fate, response.status) {
        (Fate::Early, 413) => response.text() == format!("{:016x}", mark.0),
        (Fate::Cut, 200) => false,
        (_, 200) => response.body == mark.page(),
        (Fate::Reset, 502) => true,
        // Some other request's end took the connection with it.
        (_, 502) => tally.lost.fetch_add(1, SeqCst) < u64::MAX,
        _ => false,
    };
    assert!(right, "{:016x} {fate:?} got {} {:?}", mark.0, response.status, response.text());
    tally.right.fetch_add(u64::from(response.status == 200), SeqCst);
    response.value("connection").as_deref() != Some("close") && fate != Fate::Early
}

fn run_client(keyward: &Keyward, key: &str, marks: impl Iterator<Item = Mark>, tally: &Tally) {
    let mut client = None;
    for mark in marks {
        let mut connected: Client = client.take().unwrap_or_else(|| keyward.connect());
        client = exchange(&mut connected, mark, key, tally).then_some(connected);
    }
}

#[test]
fn nobody_gets_anothers_answer_and_no_post_arrives_twice() {
    let notes = Arc::<Notes>::default();
    let noting = notes.clone();
    let upstream = Upstream::forgetful(move |turn| serve(&noting, turn));
    let site = Site::new(upstream.address(), "log: { access: none }");
    let key = site.create_key(&[]).value;
    let keyward = site.serve();
    let tally = Tally::default();
    thread::scope(|scope| {
        for n in 0..CLIENTS {
            let marks = (0..requests() / CLIENTS).map(move |at| Mark(Mark(at * CLIENTS + n).mixed(7)));
            let (keyward, key, tally) = (&keyward, &key, &tally);
            scope.spawn(move || run_client(keyward, key, marks, tally));
        }
    });
    until("nothing is in flight", || keyward.metric("keyward_requests_in_flight") == 0.0);
    until("nothing is open", || keyward.metric("keyward_connections_open") == 0.0);
    assert_eq!(keyward.metric("keyward_panics_total"), 0.0);
    assert_eq!(*notes.wrong.lock().unwrap(), Vec::<String>::new());
    let times = notes.times.lock().unwrap();
    // What only looks is asked again, once, where a connection that had rested is lost under it.
    let most = |mark| if Mark(mark).posts() { 1 } else { 2 };
    let more: Vec<_> = times.iter().filter(|(mark, count)| **count > most(**mark)).collect();
    assert!(more.is_empty(), "{more:?}");
    let (right, lost) = (tally.right.load(SeqCst), tally.lost.load(SeqCst));
    assert!(right > requests() * 3 / 4, "{right} were answered, {lost} not");
    assert!(lost < requests() / 20, "{lost} were lost with connections that others had used, {right} not");
    let connections = upstream.connections() as u64;
    assert!(connections < requests() / 3, "{connections} connections: they are not shared");
}
