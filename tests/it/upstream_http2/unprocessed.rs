//! What an upstream of HTTP/2 says that it has not processed is sent once more (RFC 9113 section 8.7, reliability row 70), and
//! nothing else is: frame by frame.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use super::super::support::frames::{DATA, END_STREAM, Frame, Frames, GOAWAY, HEADERS, RST_STREAM, frame, head};
use super::super::support::{Site, until};

/// What is done about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// Its stream is reset, with this code.
    Reset(u32),
    /// The connection goes away, and has processed nothing.
    Leave,
    /// The connection goes away; this was its last request, and gets no answer.
    LeaveBehind,
    Answer,
}

use Act::{Answer, Leave, LeaveBehind, Reset};

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;

/// When it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// As soon as the head is there.
    Head,
    /// When the request is complete.
    End,
}

use When::{End, Head};

/// The bytes of a body, what is done about one request after the other, the status of the answer, and how many were sent.
#[rustfmt::skip]
const REQUESTS: &[(usize, When, &[Act], u16, usize)] = &[
    (0, End, &[Reset(REFUSED_STREAM)], 200, 2),
    (0, End, &[Leave], 200, 2),
    // Not begun, little of it taken, and all of it.
    (5, Head, &[Reset(REFUSED_STREAM)], 200, 2),
    (5, Head, &[Leave], 200, 2),
    (5, End, &[Reset(REFUSED_STREAM)], 200, 2),
    (5, End, &[Leave], 200, 2),
    (16_000, End, &[Reset(REFUSED_STREAM)], 200, 2),
    // More than is kept.
    (40_000, End, &[Reset(REFUSED_STREAM)], 502, 1),
    (40_000, End, &[Leave], 502, 1),
    // Once.
    (0, End, &[Reset(REFUSED_STREAM), Reset(REFUSED_STREAM)], 502, 2),
    (5, End, &[Leave, Leave], 502, 2),
    (5, End, &[Reset(REFUSED_STREAM), Leave], 502, 2),
    // It may have been processed.
    (0, End, &[LeaveBehind], 502, 1),
    (5, End, &[LeaveBehind], 502, 1),
    (0, End, &[Reset(INTERNAL_ERROR)], 502, 1),
    (0, End, &[Reset(CANCEL)], 502, 1),
    (5, End, &[Reset(NO_ERROR)], 502, 1),
    (0, End, &[Answer], 200, 1),
];

/// A request as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Asked {
    connection: usize,
    body: Vec<u8>,
    is_whole: bool,
}

/// A server that does as it is told, request by request, and then answers.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    fn start(when: When, acts: &'static [Act]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let (asked, acts) = (server.asked.clone(), Arc::new(Mutex::new(acts.iter().copied().collect::<VecDeque<_>>())));
        thread::spawn(move || {
            for (connection, socket) in listener.incoming().enumerate() {
                let (asked, acts) = (asked.clone(), acts.clone());
                thread::spawn(move || serve(Frames::accept(socket.unwrap())?, connection, when, &acts, &asked));
            }
        });
        server
    }
}

fn serve(
    mut frames: Frames,
    connection: usize,
    when: When,
    acts: &Mutex<VecDeque<Act>>,
    asked: &Mutex<Vec<Asked>>,
) -> Option<()> {
    let mut place = 0;
    loop {
        let Frame { kind, flags, stream, payload } = frames.find(|frame| matches!(frame.kind, HEADERS | DATA))?;
        let is_whole = flags & END_STREAM != 0;
        {
            let mut asked = asked.lock().unwrap();
            if kind == HEADERS {
                place = asked.len();
                asked.push(Asked { connection, ..Asked::default() });
            } else {
                asked[place].body.extend(payload);
            }
            asked[place].is_whole = is_whole;
        }
        let is_due = if acts.lock().unwrap().is_empty() || when == End { is_whole } else { kind == HEADERS };
        if !is_due {
            continue;
        }
        let going = |last: u32| frame(GOAWAY, 0, 0, &[last.to_be_bytes(), NO_ERROR.to_be_bytes()].concat());
        let act = acts.lock().unwrap().pop_front().unwrap_or(Answer);
        let said = match act {
            Reset(code) => frame(RST_STREAM, 0, stream, &code.to_be_bytes()),
            Leave => going(0),
            LeaveBehind => going(stream),
            // 200
            Answer => head(END_STREAM, stream, &[0x88]),
        };
        frames.send(&said).ok()?;
        if act == LeaveBehind {
            return None;
        }
    }
}

#[test]
fn r70_only_what_was_not_processed_is_sent_again_and_only_once() {
    let threads: Vec<_> = REQUESTS.iter().map(|row| thread::spawn(|| expect(row))).collect();
    let broken = threads.into_iter().zip(REQUESTS).filter_map(|(thread, row)| thread.join().err().map(|_| row));
    assert_eq!(broken.collect::<Vec<_>>(), Vec::<&_>::new(), "see above");
}

fn expect(row: &'static (usize, When, &[Act], u16, usize)) {
    let &(length, when, acts, status, times) = row;
    let server = Server::start(when, acts);
    let site = Site::new(server.address, "proxy: { upstream_protocol: http2, workers: 1 }");
    let key = site.create_key(&[]);
    let keyward = site.serve();
    let body: Vec<u8> = (0..length).map(|place| (place % 251) as u8).collect();
    let mut client = keyward.connect();
    let method = if length == 0 { "GET" } else { "POST" };
    client.send(
        format!("{method} /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\nContent-Length: {length}\r\n\r\n", key.value)
            .as_bytes(),
    );
    if when == Head {
        until("it has come twice", || server.asked.lock().unwrap().len() == 2);
    }
    client.send(&body);
    assert_eq!(client.response().status, status, "{row:?}");
    let asked = std::mem::take(&mut *server.asked.lock().unwrap());
    let whole: Vec<_> = asked.iter().map(|one| one.is_whole).collect();
    assert_eq!(asked.len(), times, "{row:?}: {whole:?}");
    let wanted = if when == Head { asked.len() - 1..asked.len() } else { 0..asked.len() };
    assert!(asked[wanted].iter().all(|one| one.is_whole && one.body == body), "{row:?}: {whole:?}");
    if acts[0] == Leave && times == 2 {
        assert_eq!((asked[0].connection, asked[1].connection), (0, 1), "{row:?}");
    }
    // Whatever became of it, the next request is good.
    assert_eq!(keyward.with_key(&key, "GET", "/good").status, 200, "{row:?}");
    let broken = keyward.metric("keyward_upstream_errors_total{kind=\"upstream_broken\"}");
    assert_eq!(broken, if status == 502 { 1.0 } else { 0.0 }, "{row:?}");
}
