//! What is sent once more, and what never is (reliability row 70): a request that only looks, where a connection that had
//! rested was closed under it.

use std::thread;
use std::time::Duration;

use super::super::support::upstream::PAGE;
use super::super::support::{After, Site, Upstream, ok, request};

/// How long a connection rests before a copy is kept of what it is used for: longer than from one sweep to the next.
const REST: Duration = Duration::from_millis(600);

/// What becomes of a request on the connection that has rested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Closed,
    Reset,
    /// Closed, and so is the next connection.
    ClosedTwice,
    Garbage,
    Silence,
    Answered,
}

use Fate::{Answered, Closed, ClosedTwice, Garbage, Reset, Silence};

/// Requests, what becomes of them, the status of the answer, and how often they were sent.
#[rustfmt::skip]
const REQUESTS: &[(&str, &str, &str, Fate, u16, usize)] = &[
    ("GET", "/look", "", Closed, 200, 2),
    ("GET", "/look?a=b", "", Reset, 200, 2),
    ("HEAD", "/look", "", Closed, 200, 2),
    ("GET", "/public/look", "", Closed, 200, 2),
    ("GET", "/look", "", Answered, 200, 1),
    // Once.
    ("GET", "/look", "", ClosedTwice, 502, 2),
    // What was said may have been the beginning of an answer, or there may be one yet.
    ("GET", "/look", "", Garbage, 502, 1),
    ("GET", "/look", "", Silence, 504, 1),
    // Whatever may change something.
    ("POST", "/look", "", Closed, 502, 1),
    ("POST", "/look", "", Reset, 502, 1),
    ("POST", "/look", "body", Closed, 502, 1),
    ("PUT", "/look", "body", Closed, 502, 1),
    ("DELETE", "/look", "", Closed, 502, 1),
    ("OPTIONS", "/look", "", Closed, 502, 1),
    ("GET", "/look", "body", Closed, 502, 1),
    ("GET", "/creates", "", Closed, 502, 1),
    ("HEAD", "/creates", "", Reset, 502, 1),
    ("POST", "/reads", "", Closed, 502, 1),
    ("GET", "/public/creates", "", Closed, 502, 1),
];

const CONFIG: &str = r#"
proxy: { workers: 1, timeouts: { upstream_idle: 60s, response: 2s } }
routes:
  - { path: /creates, class: write }
  - { path: /reads, class: read }
  - { path: /public/look, auth: none }
  - { path: /public/creates, auth: none, class: write }
"#;

#[test]
fn r70_only_what_looks_is_sent_again_and_only_once() {
    let threads: Vec<_> = REQUESTS.iter().map(|row| thread::spawn(|| expect(row))).collect();
    let broken = threads.into_iter().zip(REQUESTS).filter_map(|(thread, row)| thread.join().err().map(|_| row));
    assert_eq!(broken.collect::<Vec<_>>(), Vec::<&_>::new(), "see above");
}

fn expect(row: &'static (&str, &str, &str, Fate, u16, usize)) {
    let &(method, target, body, fate, status, times) = row;
    let upstream = Upstream::scripted(move |turn| {
        let tries = turn.earlier();
        if turn.head.target() == "/first" {
            return turn.answer(&ok(PAGE));
        }
        turn.body()?;
        match fate {
            Closed if tries == 1 => Ok(After::Close),
            Reset if tries == 1 => Ok(After::Reset),
            ClosedTwice => Ok(After::Close),
            Garbage => turn.answer(b"garbage\r\n\r\n"),
            Silence => turn.wire.head().map(|_| After::Close),
            Closed | Reset | Answered => turn.answer(&ok(if method == "HEAD" { "" } else { PAGE })),
        }
    });
    let site = Site::new(upstream.address(), CONFIG);
    let key = site.create_key(&[]);
    let keyward = site.serve();
    assert_eq!(keyward.with_key(&key, "GET", "/first").status, 200, "{row:?}");
    thread::sleep(REST);
    let fields = [("X-API-Key", &*key.value), ("X-Mark", "1")];
    let response = keyward.connect().exchange(&request(method, target, &fields, body.as_bytes()));
    assert_eq!(response.status, status, "{row:?}");
    let received = upstream.take().split_off(1);
    assert_eq!(received.len(), times, "{row:?}: {received:?}");
    assert!(received.iter().all(|one| one.head.raw() == received[0].head.raw()), "{row:?}: {received:?}");
    let connections: Vec<_> = received.iter().map(|one| one.connection).collect();
    assert_eq!(connections, (0..times).collect::<Vec<_>>(), "{row:?}: a new connection");
    assert_eq!(upstream.connections(), times, "{row:?}");
    let broken = keyward.metric("keyward_upstream_errors_total{kind=\"upstream_broken\"}");
    assert_eq!(broken, if status == 502 { 1.0 } else { 0.0 }, "{row:?}");
}

/// On a connection that has not rested, or on a new one, nothing tells a server that closes from one that dies of the request.
#[test]
fn r70_a_new_connection_that_is_closed_is_not_followed_by_another() {
    let upstream = Upstream::scripted(|_| Ok(After::Close));
    let site = Site::new(upstream.address(), CONFIG);
    let key = site.create_key(&[]);
    let keyward = site.serve();
    for _ in 0..3 {
        assert_eq!(keyward.with_key(&key, "GET", "/look").status, 502);
        upstream.only();
    }
}
