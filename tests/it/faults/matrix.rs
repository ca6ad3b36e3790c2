//! Everything that can go wrong at the upstream, for everything that a client can be doing meanwhile: reliability rows P8 and
//! P12, and rows 58 (a body that nobody read becomes no request), 59 (`Expect`), 60 (answers that nobody asked for) and 70
//! (half is never whole, and nothing is sent twice) of its catalogue.
//!
//! Each cell holds for a new connection to the upstream and for one that was kept. After it the next requests are good,
//! nothing is in flight, and a connection on which something was left unsaid has not been used again. Where a kept connection
//! is lost before there is an answer, it has rested before: what only looks is then sent once more, and meets the same fault.

use std::fmt;
use std::io::ErrorKind;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use super::super::support::upstream::Received;
use super::super::support::{Client, Framing, Key, Keyward, Response, Site, request, until};
use super::stage::{Fault, HALF, LAST, Stage, UPLOAD, page};

/// What a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// What it asked for.
    Good,
    /// An answer with this status, ours or the upstream's.
    Status(u16),
    /// An answer that breaks off.
    Breaks,
    /// An answer that does not go on.
    Stalls,
    /// One of two, by who is faster.
    Either(u16, u16),
}

use Outcome::{Breaks, Either, Good, Stalls, Status};

const LENGTH: Framing = Framing::Length(0);

#[rustfmt::skip]
const FAULTS: &[(Fault, Outcome)] = &[
    (Fault::Down, Status(502)),
    (Fault::Unaccepting, Status(504)),
    (Fault::SpeaksFirst, Either(200, 502)), // r60
    (Fault::Silent, Status(504)),
    (Fault::SlowHead, Good),
    (Fault::StalledHead, Status(504)),
    (Fault::SlowBody, Good),
    (Fault::StalledBody, Stalls),
    (Fault::Closes, Status(502)),
    (Fault::Resets, Status(502)),
    (Fault::ResetInHead, Status(502)),
    (Fault::ResetIn(LENGTH), Breaks), // r70
    (Fault::ResetIn(Framing::Chunked), Breaks),
    (Fault::ResetIn(Framing::UntilClose), Breaks),
    (Fault::CutIn(LENGTH), Breaks),
    (Fault::CutIn(Framing::Chunked), Breaks),
    (Fault::EndsByClosing, Good),
    (Fault::Garbage, Status(502)),
    (Fault::SecondAnswer, Good), // r60
    (Fault::EarlyAnswer, Status(413)), // r59
    (Fault::ClosedKept, Good),
    (Fault::Informational, Good),
    (Fault::OnlyInformational, Status(504)),
    (Fault::Unasked101, Status(502)), // r60
    (Fault::LargeHead, Status(502)),
];

/// What the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Gets,
    Posts,
    PostsInChunks,
    /// With `Expect: 100-continue`, and its body only when it is told to.
    Expects,
    /// Before there is an answer.
    Leaves,
    /// With half a body sent.
    LeavesInBody,
    LeavesInChunks,
    SendsSlowly,
    ReadsSlowly,
    /// Two at once.
    Pipelines,
    PipelinesAfterBody,
}

const CALLERS: [Caller; 11] = [
    Caller::Gets,
    Caller::Posts,
    Caller::PostsInChunks,
    Caller::Expects,
    Caller::Leaves,
    Caller::LeavesInBody,
    Caller::LeavesInChunks,
    Caller::SendsSlowly,
    Caller::ReadsSlowly,
    Caller::Pipelines,
    Caller::PipelinesAfterBody,
];

impl Caller {
    fn leaves(self) -> bool {
        matches!(self, Self::Leaves | Self::LeavesInBody | Self::LeavesInChunks)
    }

    fn posts(self) -> bool {
        !matches!(self, Self::Gets | Self::Leaves | Self::ReadsSlowly | Self::Pipelines)
    }

    fn pipelines(self) -> bool {
        matches!(self, Self::Pipelines | Self::PipelinesAfterBody)
    }

    fn in_chunks(self) -> bool {
        matches!(self, Self::PostsInChunks | Self::LeavesInChunks)
    }
}

/// How long an answer may take to begin, where it is to take too long.
const RESPONSE: Duration = Duration::from_millis(300);

/// Longer than from one sweep to the next: a connection that has not been used for so long has rested.
const REST: Duration = Duration::from_millis(600);

/// A config in which answers of ours are told apart by their formats.
fn config(fault: Fault, outcome: Outcome) -> String {
    // Everything else may take its time on a busy machine.
    let short = matches!(outcome, Status(504) | Stalls) || fault == Fault::SlowBody;
    let response = if short { RESPONSE } else { Duration::from_secs(10) }.as_millis();
    format!(
        r#"
proxy: {{ workers: 1, timeouts: {{ response: {response}ms, connect: 300ms, upstream_idle: 60s }} }}
deny: {{ format: xml }}
routes: [{{ path: "/{{*rest}}", methods: [POST], deny: json }}]
"#
    )
}

#[test]
fn every_fault_has_its_answer_whatever_the_client_does_meanwhile() {
    let ways = |(fault, outcome): &(Fault, Outcome)| [false, true].map(|warm| (*fault, *outcome, warm));
    let rows: Vec<_> = FAULTS.iter().flat_map(ways).collect();
    let threads = rows.iter().map(|&(fault, outcome, warm)| {
        let thread = thread::Builder::new().name(format!("{fault:?}"));
        thread.spawn(move || Row::new(fault, outcome, warm).run()).unwrap()
    });
    let threads: Vec<_> = threads.collect();
    let ended = threads.into_iter().map(thread::JoinHandle::join).zip(&rows);
    let broken: Vec<_> = ended.filter_map(|(ended, row)| ended.err().map(|_| row)).collect();
    assert!(broken.is_empty(), "see above: {broken:?}");
}

/// One fault, before a Keyward of its own; on connections that were kept, or on new ones.
struct Row {
    fault: Fault,
    outcome: Outcome,
    warm: bool,
    stage: Stage,
    keyward: Keyward,
    key: Key,
}

/// One fault, for one client.
struct Cell<'r> {
    row: &'r Row,
    caller: Caller,
}

impl fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.row.warm { "kept" } else { "new" };
        write!(f, "{:?} while the client {:?}, on a {way} connection", self.row.fault, self.caller)
    }
}

impl Row {
    fn new(fault: Fault, outcome: Outcome, warm: bool) -> Self {
        let stage = Stage::new(fault);
        let site = Site::new(stage.address, &config(fault, outcome));
        let key = site.create_key(&[]);
        Self { fault, outcome, warm, stage, keyward: site.serve(), key }
    }

    fn run(mut self) {
        // hyper does not notice that a client has left while a request of it waits unread.
        let unnoticed = |caller: &Caller| self.outcome == Stalls && caller.pipelines();
        for caller in CALLERS.into_iter().filter(|caller| !unnoticed(caller)).collect::<Vec<_>>() {
            self.cell(caller);
        }
        assert_eq!(self.keyward.metric("keyward_panics_total"), 0.0);
        let completed = self.stage.seen.completed.lock().unwrap();
        assert!(completed.is_empty(), "half a body looked like a whole one: {completed:?}");
    }

    fn cell(&mut self, caller: Caller) {
        self.prepare();
        self.stage.take();
        let broken = self.stage.fail();
        let cell = Cell { row: self, caller };
        let client = cell.act();
        until(&format!("{cell}: nothing is in flight"), || self.in_flight() == 0.0);
        drop(broken);
        let received = self.stage.take();
        self.stage.mend();
        let cell = Cell { row: self, caller };
        cell.expect_sent_once(&received);
        client.into_iter().for_each(|client| cell.go_on(client));
        for n in 0..3 {
            self.expect_good(&mut self.keyward.connect(), &format!("/next/{n}"), &cell);
        }
        cell.expect_no_dirty_connection(&received);
        until(&format!("{cell}: nothing is open"), || self.keyward.metric("keyward_connections_open") == 0.0);
    }

    /// Leaves one kept connection, or none.
    fn prepare(&self) {
        let get = |target| {
            let closed = self.stage.seen.closed.load(SeqCst);
            self.expect_good(&mut self.keyward.connect(), target, &"before");
            // A request that is sent on a connection while that is being closed may or may not have arrived.
            until("it is closed", || target != LAST || self.stage.seen.closed.load(SeqCst) > closed);
        };
        if self.is_lost_after_rest() {
            get("/kept");
            thread::sleep(REST);
        } else if !self.warm {
            // A new connection is made only when none was left; and this one is not kept.
            until("no connection is left", || {
                let before = self.stage.connections();
                get(LAST);
                self.stage.connections() > before
            });
        } else if self.fault.is_staged() || self.fault == Fault::ClosedKept {
            get("/kept");
            get(LAST);
        } else {
            get("/kept");
        }
    }

    /// Whether a connection that had rested is lost before it has brought an answer.
    fn is_lost_after_rest(&self) -> bool {
        self.warm && matches!(self.fault, Fault::Closes | Fault::Resets | Fault::ResetInHead)
    }

    fn in_flight(&self) -> f64 {
        self.keyward.metric("keyward_requests_in_flight")
    }

    /// How many requests the upstream has answered or failed.
    fn ended(&self) -> f64 {
        let kinds =
            ["unreachable", "broken", "timeout"].map(|kind| format!("errors_total{{kind=\"upstream_{kind}\"}}"));
        let series = kinds.into_iter().chain(["request_duration_seconds_count".to_owned()]);
        series.map(|series| self.keyward.metric(&format!("keyward_upstream_{series}"))).sum()
    }

    #[track_caller]
    fn expect_good(&self, client: &mut Client, target: &str, context: &dyn fmt::Display) {
        let response = client.exchange(&request("GET", target, &[("X-API-Key", &self.key.value)], b""));
        assert_eq!((response.status, response.text()), (200, page(target)), "{context}");
    }
}

impl Cell<'_> {
    fn target(&self) -> String {
        format!("/fault/{:?}/{}", self.caller, if self.row.warm { "kept" } else { "new" })
    }

    /// Does as the client does, and gives its connection where it can be used again.
    fn act(&self) -> Option<Client> {
        let mut client = self.row.keyward.connect();
        let (began, ended) = (Instant::now(), self.row.ended());
        self.send(&mut client);
        if self.caller.leaves() {
            match self.row.fault.is_staged() {
                true => until("it is on its way", || self.row.in_flight() > 0.0 || self.row.ended() > ended),
                false => self.row.stage.wait_for(&self.target()),
            }
            drop(client);
            self.row.stage.seen.note(&self.target());
            return None;
        }
        let got = self.read(&mut client);
        let took = began.elapsed();
        let fits = match (self.row.outcome, &got) {
            (Good, Ok(response)) => response.status == 200 && response.text() == page(&self.target()),
            (Status(413), Ok(response)) => response.status == 413 && response.text() == page(&self.target()),
            (Status(status), Ok(response)) => response.status == status && self.is_ours(response),
            (Either(one, other), Ok(response)) => [one, other].contains(&response.status),
            (Breaks, Err(kind)) => matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset),
            (Stalls, Err(kind)) => matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut),
            (_, Ok(_) | Err(_)) => false,
        };
        let got = got.map(|response| (response.status, response.text().chars().take(200).collect::<String>()));
        assert!(fits, "{self}: not {:?} but {got:?}", self.row.outcome);
        assert!(took < Duration::from_secs(5), "{self}: {took:?}");
        if self.row.outcome == Status(504) && self.row.fault != Fault::Unaccepting {
            assert!(took >= RESPONSE, "{self}: {took:?}");
        }
        matches!(self.row.outcome, Good | Status(_)).then_some(client)
    }

    /// Whether an answer is one of ours, in the route's format.
    fn is_ours(&self, response: &Response) -> bool {
        let media_type = if self.caller.posts() { "application/json" } else { "text/xml; charset=utf-8" };
        let code = if response.status == 504 { "gateway_timeout" } else { "bad_gateway" };
        response.value("content-type").as_deref() == Some(media_type) && response.text().contains(code)
    }

    fn send(&self, client: &mut Client) {
        let key = &self.row.key.value;
        let method = if self.caller.posts() { "POST" } else { "GET" };
        let framing = match self.caller {
            _ if !self.caller.posts() => String::new(),
            _ if self.caller.in_chunks() => "Transfer-Encoding: chunked\r\n".to_owned(),
            _ => format!("Content-Length: {}\r\n", UPLOAD.len()),
        };
        let expect = if self.caller == Caller::Expects { "Expect: 100-continue\r\n" } else { "" };
        let head = format!(
            "{method} {} HTTP/1.1\r\nHost: a.example\r\nX-API-Key: {key}\r\n{framing}{expect}\r\n",
            self.target()
        );
        let next = request("GET", "/next/pipelined", &[("X-API-Key", key)], b"");
        match self.caller {
            Caller::Pipelines => client.send(&[head.as_bytes(), &next].concat()),
            Caller::PipelinesAfterBody => client.send(&[head.as_bytes(), &UPLOAD, &next].concat()),
            Caller::Posts => client.send(&[head.as_bytes(), &UPLOAD].concat()),
            Caller::LeavesInBody => client.send(&[head.as_bytes(), &UPLOAD[..HALF]].concat()),
            Caller::Gets | Caller::Leaves | Caller::ReadsSlowly | Caller::Expects => client.send(head.as_bytes()),
            Caller::PostsInChunks | Caller::LeavesInChunks | Caller::SendsSlowly => {
                client.send(head.as_bytes());
                self.send_in_pieces(client);
            }
        }
    }

    /// It may have been answered before all is sent; then nobody reads the rest.
    fn send_in_pieces(&self, client: &mut Client) {
        let (pieces, pause) = match self.caller {
            Caller::SendsSlowly => (UPLOAD.chunks(200), Duration::from_millis(50)),
            _ => (UPLOAD.chunks(HALF), Duration::ZERO),
        };
        for piece in pieces {
            thread::sleep(pause);
            let sent =
                if self.caller.in_chunks() { client.wire().send_chunk(piece) } else { client.wire().send(piece) };
            if sent.is_err() || self.caller == Caller::LeavesInChunks {
                return;
            }
        }
        if self.caller.in_chunks() {
            let _ = client.wire().send_chunk(b"");
        }
    }

    /// Reads the answer, and tells the upstream once it has begun.
    fn read(&self, client: &mut Client) -> Result<Response, ErrorKind> {
        if self.row.outcome == Stalls {
            client.wire().socket().set_read_timeout(Some(RESPONSE)).unwrap();
        }
        let (mut status, mut head) = client.response_head().map_err(|error| error.kind())?;
        while status == 100 {
            assert_eq!(self.caller, Caller::Expects, "{self}: nobody asked");
            let _ = client.wire().send(&UPLOAD);
            (status, head) = client.response_head().map_err(|error| error.kind())?;
        }
        self.row.stage.seen.note(&self.target());
        let framing = if head.framing() == Framing::None { Framing::UntilClose } else { head.framing() };
        if self.caller == Caller::ReadsSlowly {
            thread::sleep(Duration::from_millis(100));
        }
        let body = client.wire().body(framing).map_err(|error| error.kind())?;
        Ok(Response { status, head, body: body.bytes })
    }

    /// The client's connection serves it further, or is closed without another word.
    fn go_on(&self, mut client: Client) {
        let key = ("X-API-Key", &*self.row.key.value);
        let pipelines = self.caller.pipelines();
        let (target, sent) = if pipelines {
            ("/next/pipelined", Ok(()))
        } else {
            ("/next/same", client.wire().send(&request("GET", "/next/same", &[key], b"")))
        };
        match sent.and_then(|()| client.try_response()) {
            // The same happened to the second.
            Ok(response) if pipelines && self.row.fault.is_staged() && self.row.outcome == Status(response.status) => {}
            Ok(response) => assert_eq!((response.status, response.text()), (200, page(target)), "{self}"),
            // What was not read of a request must not be taken for the next one.
            Err(error) => {
                let closed = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                assert!(self.caller.posts() && closed.contains(&error.kind()), "{self}: {error}");
            }
        }
    }

    fn expect_sent_once(&self, received: &[Received]) {
        let target = self.target();
        let count = received.iter().filter(|received| received.head.target() == target).count();
        let expected = match self.row.fault.is_staged() {
            true => 0..=0,
            // Nobody waits for the second answer any more, or still does.
            false if self.row.is_lost_after_rest() && self.caller == Caller::Leaves => 1..=2,
            false if self.row.is_lost_after_rest() && !self.caller.posts() => 2..=2,
            false => 1..=1,
        };
        assert!(expected.contains(&count), "{self}: {expected:?}, not {count}: {received:?}");
    }

    /// Whatever ended in another way than well took its connection with it.
    fn expect_no_dirty_connection(&self, received: &[Received]) {
        let at_once = matches!(self.row.fault, Fault::Informational | Fault::ClosedKept);
        let slow = matches!(self.row.fault, Fault::SlowHead | Fault::SlowBody);
        let clean = (at_once && self.caller == Caller::Leaves) || ((at_once || slow) && !self.caller.leaves());
        let target = self.target();
        let Some(used) = received.iter().find(|received| received.head.target() == target) else { return };
        let again = self.row.stage.take().into_iter().find(|received| received.connection == used.connection);
        assert!(again.is_none() || clean, "{self}: {again:?}");
    }
}
