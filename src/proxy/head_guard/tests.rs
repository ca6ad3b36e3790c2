//! What the guard lets pass, by table; and that it and hyper always see the same requests, by property.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::fuzzing::{Fed, NoBody};
use super::*;

/// How many heads are found fit, and whether what follows would be.
#[track_caller]
fn check(stream: &str, fit: u64, lost: bool) {
    let bytes = stream.as_bytes();
    for piece in [bytes.len(), 1, 2, 3, 7, 50] {
        let heads = Arc::<Heads>::default();
        let mut guard = HeadGuard::new(heads.clone());
        bytes.chunks(piece).for_each(|piece| guard.follow(piece));
        let found = (heads.fit.load(Relaxed), matches!(guard.at, At::Lost));
        assert_eq!(found, (fit, lost), "{stream:?} in pieces of {piece}");
    }
}

#[test]
fn only_plain_heads_are_fit() {
    const GET: &str = "GET /a?b HTTP/1.1\r\nHost: a\r\nX: #\r\n\r\n";
    check(GET, 1, false);
    check(&GET.repeat(3), 3, false);
    check(&format!("\r\n\n{GET}\r\n{GET}"), 2, false);
    check(&GET.replace('\r', ""), 1, false);
    check(&GET.replace("GET", "#"), 1, false);
    for target in ["/#", "/a#b", "/a?b#", "http://a/#", "#", "*#"] {
        check(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n{GET}"), 0, true);
        check(&format!("{GET}GET {target} HTTP/1.0\n\n{GET}"), 1, true);
    }
    // An unfinished head is not counted, an unfinished line has been looked at.
    check("GET /a HTTP/1.1\r\nHost: a\r\n", 0, false);
    check("GET /a#", 0, true);
}

#[test]
fn what_stands_in_a_body_is_no_request() {
    const INNER: &str = "GET /a#b HTTP/1.1\r\n\r\n";
    let after = "POST /x HTTP/1.1\r\n";
    let sized = |fields: &str, body: &str| format!("{after}{fields}\r\n\r\n{body}{after}\r\n{INNER}");
    check(&sized("Content-Length: 22", INNER), 2, true);
    check(&sized("CONTENT-length:\t22 ", INNER), 2, true);
    check(&sized("Content-Length: 0", ""), 2, true);
    check(&sized("Content-Length: 42", INNER), 1, true);
    for chunks in [
        "16\r\nGET /a#b HTTP/1.1\r\n\r\n\r\n0\r\n\r\n",
        "0016 ; #\r\nGET /a#b HTTP/1.1\r\n\r\n\r\n1\r\n#\r\n000\r\nA: #\r\nB: #\n\r\n\r\n",
        "0\r\n\r\n",
    ] {
        check(&sized("Transfer-Encoding: Chunked", chunks), 2, true);
        check(&sized("transfer-encoding:chunked", chunks), 2, true);
    }
}

#[test]
fn a_head_with_doubtful_framing_is_the_last() {
    for fields in [
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: x",
        "Transfer-Encoding: chunked\r\nX: y\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding:",
        "Content-Length:",
        "Content-Length: 05",
        "Content-Length: +5",
        "Content-Length: 5, 5",
        "Content-Length: 18446744073709551616",
    ] {
        check(&format!("POST / HTTP/1.1\r\n{fields}\r\n\r\nhello"), 0, true);
    }
    let padded = |spaces: usize| format!("POST / HTTP/1.1\r\nContent-Length:{}5\r\n\r\nhello", " ".repeat(spaces));
    check(&padded(47), 1, false);
    check(&padded(48), 0, true);
    check("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000000", 1, true);
}

/// The requests that hyper finds in a stream: target, body as far as it was whole, and what the guard said.
fn served(stream: &[u8], cuts: &[usize]) -> Vec<(String, Option<Vec<u8>>, bool)> {
    let (mut pieces, mut rest, mut cuts) = (Vec::new(), stream, cuts.iter().cycle());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(cuts.next().copied().unwrap_or(usize::MAX)));
        pieces.push(piece.to_vec());
        rest = after;
    }
    pieces.reverse();
    let (heads, seen) = (Arc::<Heads>::default(), Arc::<Mutex<Vec<_>>>::default());
    let fed = Fed { pieces, guard: HeadGuard::new(heads.clone()) };
    let serving = seen.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (fit, seen) = (heads.next_is_fit(), serving.clone());
        async move {
            let (parts, mut body) = request.into_parts();
            let mut whole = Some(Vec::new());
            while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                let Ok(frame) = frame else {
                    whole = None;
                    break;
                };
                if let (Some(whole), Ok(data)) = (&mut whole, frame.into_data()) {
                    whole.extend_from_slice(&data);
                }
            }
            seen.lock().unwrap().push((parts.uri.to_string(), whole, fit));
            Ok::<_, Infallible>(Response::new(NoBody))
        }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().half_close(true).serve_connection(TokioIo::new(fed), service);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // An error is the end of the connection, which is all that counts.
    let _ = runtime.block_on(connection);
    std::mem::take(&mut *seen.lock().unwrap())
}

const TEXTS: &[&str] = &[
    "",
    "#",
    "\r\n",
    "\r\n\r\n",
    "GET /bad#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    "Content-Length: 5\r\n",
    "\n\n",
    ";#",
];

fn text() -> impl Strategy<Value = String> {
    vec(prop::sample::select(TEXTS), 0..4).prop_map(|texts| texts.concat())
}

/// A request as any client may send it.
fn legitimate() -> impl Strategy<Value = (String, String)> {
    let fields =
        prop::sample::select(&["", "Cookie: a=#\r\n", "Connection: keep-alive\r\nTE: #\r\n", "T:\r\nC:\n"][..]);
    let end = prop::sample::select(&["\r\n", "\n"][..]);
    let chunks = (vec(text().prop_filter("no last chunk", |text| !text.is_empty()), 0..3), text());
    (fields, end, prop::option::of(prop_oneof![text().prop_map(Ok), chunks.prop_map(Err)])).prop_map(
        |(fields, end, body)| {
            let head = format!("POST /good HTTP/1.1{end}Host: a{end}{fields}");
            match body {
                None => (format!("{head}{end}"), String::new()),
                Some(Ok(body)) => (format!("{head}Content-Length: {}{end}{end}{body}", body.len()), body),
                Some(Err((chunks, extension))) => {
                    let extension = extension.replace(['\r', '\n'], "");
                    let coded = chunks.iter().map(|chunk| format!("{:x};{extension}\r\n{chunk}\r\n", chunk.len()));
                    let coded = coded.collect::<String>();
                    (format!("{head}Transfer-Encoding: chunked{end}{end}{coded}0\r\nX: #\r\n\r\n"), chunks.concat())
                }
            }
        },
    )
}

/// Pieces of requests, which make sense now and then.
const PIECES: &[&str] = &[
    "GET /good HTTP/1.1\r\n",
    "GET /bad#y HTTP/1.1\r\n",
    "GET /bad?a#y HTTP/1.1\n",
    "POST http://a/bad# HTTP/1.1\r\n",
    "Host: a\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 30\r\n",
    "content-length: 0\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked \n",
    "Transfer-Encoding: , chunked\r\n",
    "Expect: 100-continue\r\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "0\r\n",
    "00",
    "5\r\nhello\r\n",
    "5;\r\nhello\r\n",
    "1c\r\n",
    " ",
    "X: \n",
    "#",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_clients_may_send_is_fit(requests in vec(legitimate(), 1..5), cuts in vec(1_usize..80, 1..5)) {
        let stream: String = requests.iter().map(|(request, _)| &**request).collect();
        let expected: Vec<_> =
            requests.into_iter().map(|(_, body)| ("/good".to_owned(), Some(body.into_bytes()), true)).collect();
        prop_assert_eq!(served(stream.as_bytes(), &cuts), expected, "{:?}", stream);
    }

    #[test]
    fn no_fragment_passes_however_it_is_sent(
        pieces in vec(prop::sample::select(PIECES), 1..30),
        cuts in vec(1_usize..40, 1..5),
    ) {
        let stream = pieces.concat();
        let served = served(stream.as_bytes(), &cuts);
        let bad = served.iter().position(|(target, _, _)| target.contains("/bad")).unwrap_or(served.len());
        prop_assert!(served[bad..].iter().all(|(_, _, fit)| !fit), "{:?} {:?}", stream, served);
    }
}
