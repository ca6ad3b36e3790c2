//! Streams of clients that take their time, or stand still.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::super::faults::halves::with_little_room;
use super::super::support::frames::{
    DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, block,
    frame,
};
use super::super::support::http2::{Http2, request};
use super::super::support::upstream::PAGE;
use super::super::support::{Site, Upstream, ok, until};
use super::{fields, serve};

#[test]
fn r66_a_client_that_does_not_read_is_not_waited_for_and_its_other_requests_are_served() {
    let upstream = Upstream::scripted(|turn| match turn.head.target().as_str() {
        "/x" => turn.answer(&ok(&"x".repeat(1_000_000))),
        _ => turn.answer(&ok(PAGE)),
    });
    let (keyward, key) = serve(&upstream, "proxy: { timeouts: { body: 1s } }");
    // No window for any stream, as settings have it.
    let mut client = Frames::connect(keyward.proxy, &[(4, 0)]);
    let began = Instant::now();
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields(&key, &[])))).unwrap();
    let reset = client.find(|frame| matches!(frame.kind, RST_STREAM | GOAWAY)).expect("it is ended");
    assert_eq!((reset.kind, reset.stream), (RST_STREAM, 1));
    let took = began.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_millis(3000)).contains(&took), "{took:?}");
    assert_eq!(keyward.metric("keyward_client_timeouts_total{limit=\"body\"}"), 1.0);
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &block(&fields(&key, &[])))).unwrap();
    assert!(client.find(|frame| frame.kind == HEADERS && frame.stream == 3).is_some(), "the connection goes on");
}

#[test]
fn r66_nor_is_one_that_does_not_read_what_we_answer_ourselves() {
    let nobody = crate::support::port::unused();
    let site = Site::new(nobody, "proxy: { max_requests: 60, timeouts: { body: 1s } }");
    let key = site.create_key(&[]);
    let keyward = site.serve();
    let known = block(&fields(&key, &[]));
    let unknown = block(&fields(&key, &[]).into_iter().filter(|(name, _)| *name != "x-api-key").collect::<Vec<_>>());
    let get = |stream, block: &[u8]| frame(HEADERS, END_HEADERS | END_STREAM, stream, block);
    // Denied, or not to be forwarded: no window for any stream, or for none behind the first few of the connection.
    let mut clients: Vec<Frames> = [&known, &unknown]
        .into_iter()
        .map(|block| {
            let mut client = Frames::connect(keyward.proxy, &[(4, 0)]);
            client.send(&(0..30).flat_map(|nth| get(2 * nth + 1, block)).collect::<Vec<u8>>()).unwrap();
            client
        })
        .collect();
    until("they hold every place", || keyward.metric("keyward_requests_in_flight") >= 60.0);
    until("they have lost them", || keyward.metric("keyward_requests_in_flight") == 0.0);
    for client in &mut clients {
        assert!(client.find(|frame| frame.kind == RST_STREAM).is_some(), "each stream is ended");
    }
    assert_eq!(keyward.metric("keyward_client_timeouts_total{limit=\"body\"}"), 60.0);
}

#[test]
fn a_client_that_reads_slowly_but_steadily_gets_all_of_it() {
    const SIZE: usize = 600_000;
    let upstream = Upstream::scripted(|turn| turn.answer(&ok(&"x".repeat(SIZE))));
    let (keyward, key) = serve(&upstream, "proxy: { timeouts: { body: 1s } }");
    let mut client = Frames::connect(keyward.proxy, &[(4, 16 << 10)]);
    let began = Instant::now();
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields(&key, &[])))).unwrap();
    let mut read = 0;
    while read < SIZE {
        let part = client.find(|frame| matches!(frame.kind, DATA | RST_STREAM | GOAWAY)).unwrap();
        assert_eq!(part.kind, DATA, "after {read} bytes and {:?}", began.elapsed());
        read += part.payload.len();
        // The pace of a slow line: no answer of this size is through before its limit.
        let pace = Duration::from_micros(read as u64 * 6);
        std::thread::sleep(pace.saturating_sub(began.elapsed()));
        let more = u32::try_from(part.payload.len()).unwrap().to_be_bytes();
        for stream in [0, 1].into_iter().filter(|_| more != [0; 4]) {
            client.send(&frame(WINDOW_UPDATE, 0, stream, &more)).unwrap();
        }
    }
    assert!(began.elapsed() > Duration::from_secs(3));
}

#[test]
fn an_upload_that_stalls_ends_alone() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "proxy: { timeouts: { body: 1s, response: 1s } }");
    let mut client = Http2::connect(keyward.proxy);
    let stalled = client.begin(request("POST", "/up", &[("x-api-key", &key.value)]), false).unwrap();
    assert_eq!(client.exchange(request("GET", "/", &[("x-api-key", &key.value)])).unwrap().status, 200);
    assert_eq!(client.finish(stalled).unwrap().status, 408);
    assert_eq!(client.exchange(request("GET", "/", &[("x-api-key", &key.value)])).unwrap().status, 200);
    assert_eq!(keyward.metric("keyward_client_timeouts_total{limit=\"body\"}"), 1.0);
}

#[test]
fn r70_an_upload_that_is_cut_off_is_reset_at_once() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "");
    let mut client = Frames::connect(keyward.proxy, &[]);
    let begun = frame(HEADERS, END_HEADERS, 1, &block(&fields(&key, &[])));
    client.send(&[begun, frame(DATA, 0, 1, b"half")].concat()).unwrap();
    upstream.wait_for(1);
    assert!(keyward.site.run(&["key", "revoke", &key.id]).status.success());
    let began = Instant::now();
    assert_eq!(client.find(|frame| matches!(frame.kind, HEADERS | RST_STREAM | GOAWAY)).unwrap().kind, RST_STREAM);
    assert!(began.elapsed() < Duration::from_secs(5), "the client is kept waiting");
}

/// A client that reads nothing yet, and still sends when Keyward has said its last: closing would throw away what it has yet to
/// read, and with it the GOAWAY.
#[test]
fn a_client_that_still_sends_hears_the_goodbye() {
    // What h2 asks before it says which stream was the last.
    const LAST_PING: [u8; 8] = [0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];
    let upstream = Upstream::scripted(|turn| turn.answer(&ok(&"x".repeat(60_000))));
    let (keyward, key) = serve(&upstream, "");
    let mut client = Frames::over(with_little_room(keyward.proxy));
    let get = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields(&key, &[])));
    client.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &get].concat()).unwrap();
    let answered = "keyward_requests_total{code=\"2xx\",decision=\"permit\",reason=\"ok\"}";
    until("it is answered", || keyward.metric(answered) == 1.0);
    keyward.terminate();
    until("Keyward goes", || TcpStream::connect(keyward.proxy).is_err());
    for _ in 0..6 {
        // The first that comes after the question answers it; all others come too late.
        let _ = client.send(&frame(PING, 1, 0, &LAST_PING));
        std::thread::sleep(Duration::from_millis(50));
    }
    let last = client.find(|frame| frame.kind == GOAWAY && frame.payload[..4] == [0, 0, 0, 1]);
    assert!(last.is_some(), "it was reset");
}
