//! What attackers send over HTTP/2: the requests of the other tables in frames, and what only frames can say
//! ([`super::frames`]).

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::super::support::frames::{
    DATA, END_STREAM, Frames, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, block, frame, head, status,
};
use super::{Case, Court, Expect, Keys, Paths, all_cases, frames, sample, serve, serve_tls};

/// The rows of which the requests can be said in HTTP/2, where their fields and targets mean the same.
const SHARED: &[u8] = &[1, 2, 3, 4, 5, 7, 8, 11, 25, 26, 27, 28, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 42, 44, 45];

/// The rows of HTTP/2, and those that it breaks in its own way. Row 6 has a test of its own: what is behind a `#` is gone when
/// Keyward sees a target.
const OWN: &[u8] = &[9, 29, 40, 41, 43, 62, 63, 64, 65, 66];

/// How many cases there are, of requests of HTTP/1.1 and of frames.
const CASES: [usize; 2] = [1085, 463];

/// The stream or the connection ends.
pub(super) const ENDED: Expect = Expect::Refused(0);

/// Fields that HTTP/2 does not have (RFC 9113 section 8.2.2).
const OF_HTTP1: &[&str] = &["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

fn all(keys: &Keys, paths: Paths) -> Vec<Case> {
    let translated: Vec<_> = all_cases(keys, paths).iter().filter_map(translated).collect();
    let own = frames::cases(keys, paths);
    assert_eq!([translated.len(), own.len()], CASES, "the number that is told of them");
    for (cases, listed) in [(&translated, SHARED), (&own, OWN)] {
        let rows: BTreeSet<u8> = cases.iter().map(|case| case.row).collect();
        assert_eq!(rows, listed.iter().copied().collect(), "every row has a case, and only rows that are listed");
    }
    translated.into_iter().chain(own).collect()
}

/// A connection that begins well, and then these frames.
pub(super) fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frames.concat()].concat()
}

/// A request on a stream.
pub(super) fn stream(id: u32, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let ends = if body.is_empty() { END_STREAM } else { 0 };
    let mut frames = head(ends, id, &block(fields));
    if !body.is_empty() {
        frames.extend(frame(DATA, END_STREAM, id, body));
    }
    frames
}

/// A request of HTTP/1.1 in frames, unless it lives by the form of HTTP/1.1.
fn translated(case: &Case) -> Option<Case> {
    let sent = std::str::from_utf8(&case.sent).ok().filter(|_| SHARED.contains(&case.row))?;
    let (lines, body) = sent.split_once("\r\n\r\n")?;
    let mut lines = lines.split("\r\n");
    let (method, path) = lines.next()?.strip_suffix(" HTTP/1.1")?.split_once(" /")?;
    let path = format!("/{path}");
    let mut fields = vec![(":method".to_owned(), method), (":scheme".to_owned(), "http"), (":path".to_owned(), &path)];
    fields.push((":authority".to_owned(), "a"));
    for line in lines.filter(|line| *line != "Host: a") {
        let (name, value) = line.split_once(':')?;
        fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t'])));
    }
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, *value)).collect();
    let expect = match &case.expect {
        // The stream ends, whoever asks.
        Expect::Refused(_) | Expect::Passed(..) if !fields.iter().all(|(name, value)| is_of_http2(name, value)) => {
            ENDED
        }
        Expect::Passed(target, body) => Expect::Passed(target.clone(), body),
        Expect::Refused(status) => Expect::Refused(*status),
        Expect::Answers(_) | Expect::Broken(_) => return None,
    };
    Some(Case { row: case.row, sent: connection(&[stream(1, &fields, body.as_bytes())]), expect })
}

/// Whether HTTP/2 has such a field (RFC 9113 sections 8.2.1 and 8.2.2).
fn is_of_http2(name: &str, value: &str) -> bool {
    let is_token = |text: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !text.is_empty() && text.bytes().all(fits)
    };
    let name_fits = name.starts_with(':') || is_token(name) && !OF_HTTP1.contains(&name);
    name_fits
        && match name {
            ":method" => is_token(value),
            "te" => value == "trailers",
            _ => value.bytes().all(|byte| byte == b'\t' || byte >= b' ' && byte != 0x7f),
        }
}

/// The statuses of so many streams; no more once one was ended with an error.
fn answers(address: SocketAddr, sent: &[u8], wanted: usize) -> Vec<u16> {
    let mut client = Frames::silent(address);
    // Keyward may have closed before it has seen all of it.
    let _ = client.send(sent);
    let mut statuses = Vec::new();
    while statuses.len() < wanted {
        match client.find(|frame| matches!(frame.kind, HEADERS | RST_STREAM | GOAWAY)) {
            Some(frame) if frame.kind == HEADERS => statuses.push(status(&frame.payload)),
            Some(_) | None => break,
        }
    }
    statuses
}

/// Where requests come in frames.
fn in_frames(court: Court) -> Court {
    let good = |id, method, body| {
        let key = ("x-api-key", &*court.keys.key.value);
        let fields = [(":method", method), (":scheme", "http"), (":path", "/good"), (":authority", "a"), key];
        stream(id, &fields, body)
    };
    let good = connection(&[good(1, "GET", b""), good(3, "POST", b"body")]);
    Court { good, answers, ..court }
}

#[test]
fn nothing_hostile_gets_in_by_frames() {
    for paths in [Paths::Strict, Paths::Lenient] {
        let court = in_frames(serve(paths.config()));
        court.judge_all(&all(&court.keys, paths));
    }
}

#[test]
fn nothing_hostile_gets_in_by_frames_over_tls() {
    let court = in_frames(serve_tls("h2"));
    court.judge_all(&sample(all(&court.keys, Paths::Strict), 4));
}
