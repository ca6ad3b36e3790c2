//! What the tests stand on: messages on the wire ([`wire`]), a client ([`client`]), an upstream ([`upstream`]) and the
//! program itself ([`keyward`]). Nothing here knows how Keyward works inside.

pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod door;
pub(crate) mod frames;
pub(crate) mod http2;
pub(crate) mod keyward;
pub(crate) mod port;
pub(crate) mod upstream;
pub(crate) mod wire;

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

pub(crate) use self::client::{Client, Response, request};
pub(crate) use self::keyward::{Key, Keyward, Site};
pub(crate) use self::upstream::{After, Received, Upstream, ok};
pub(crate) use self::wire::Framing;

/// How long anything may take that ought to happen at once. Generous: it only decides how late a failure is noticed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for something that gives no sign when it happens.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends an upload in two halves, the second only when the first has come out on the other side: nothing that gathers a body
/// before it sends it gets beyond the first.
#[track_caller]
pub(crate) fn upload_in_halves(keyward: &Keyward, arrived: &Receiver<Vec<u8>>, head: &str, framing: Framing) {
    let halves = [[0x5a; 3000], [0xa5; 3000]];
    let mut client = keyward.connect();
    let framed = match framing {
        Framing::Chunked => format!("{head}Transfer-Encoding: chunked\r\n\r\n"),
        Framing::Length(_) | Framing::None | Framing::UntilClose => format!("{head}Content-Length: 6000\r\n\r\n"),
    };
    client.send(framed.as_bytes());
    for half in &halves {
        match framing {
            Framing::Chunked => client.wire().send_chunk(half).unwrap(),
            Framing::Length(_) | Framing::None | Framing::UntilClose => client.send(half),
        }
        let mut seen = Vec::new();
        while seen.len() < half.len() {
            seen.extend(arrived.recv_timeout(PATIENCE).expect("half of an upload arrives before the other is sent"));
        }
        assert_eq!(seen, half);
    }
    if framing == Framing::Chunked {
        client.wire().send_chunk(b"").unwrap();
    }
    assert_eq!(client.response().status, 200);
}

/// What is the same in two answers that look alike: all but the time and the request's name.
pub(crate) fn look(response: &Response) -> (u16, Vec<(String, Vec<u8>)>, String) {
    let mut fields = response.head.fields();
    fields.retain(|(name, _)| name != "date" && name != "x-request-id");
    fields.sort();
    (response.status, fields, response.text())
}
