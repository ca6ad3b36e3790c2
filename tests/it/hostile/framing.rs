//! Where messages end (rows 48 to 59).

use super::{BAD, Cases, Expect, UNKNOWN};

/// A request that would be let in, if anybody took it for one.
const INNER: &str = "GET /inner HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n\r\n";

pub(super) fn add(cases: &mut Cases) {
    length_and_coding(cases);
    lengths(cases);
    codings(cases);
    old_messages(cases);
    chunk_lines(cases);
    chunk_sizes(cases);
    trailers(cases);
    bodies_as_requests(cases);
    upgrades_and_expectations(cases);
}

const CHUNKED: &str = "5\r\nhello\r\n0\r\n\r\n";

fn passed() -> Expect {
    Expect::Passed("/x".to_owned(), "hello")
}

/// Row 48.
fn length_and_coding(cases: &mut Cases) {
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 15\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: x\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked,\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: identity\r\n",
        "Content-Length: 5\r\nTransfer-Encoding:\r\n",
        "Content-Length: 5\r\ntransfer-encoding: chunked\r\nX: y\r\ncontent-length: 15\r\n",
        "Content-Length: 5\nTransfer-Encoding: chunked\n",
    ] {
        cases.post(48, lines, CHUNKED, BAD);
        cases.post(48, lines, &format!("0\r\n\r\n{INNER}"), BAD);
    }
}

/// Row 49.
const LENGTHS: &[&str] = &[
    "5, 5",
    "5,5",
    "5\r\nContent-Length: 5",
    "5\r\nContent-Length: 6",
    "6\r\nContent-Length: 5",
    "",
    " ",
    "+5",
    "-5",
    "0x5",
    "05",
    "00",
    "5.0",
    "5e0",
    "5 5",
    "5;",
    "\"5\"",
    "five",
    "18446744073709551616",
    "99999999999999999999999",
    "-0",
    "+0",
    "5\u{b}",
    "\u{ff15}",
    "5\t5",
    "1_0",
    "5\r\ncontent-length: 05",
    "0, 5",
    "5\0",
];

fn lengths(cases: &mut Cases) {
    for value in LENGTHS {
        cases.post(49, &format!("Content-Length: {value}\r\n"), "hello", BAD);
        cases.get(49, "/public/x", &format!("Content-Length: {value}\r\n"), BAD);
        cases.get(49, "/x", &format!("Content-Length: {value}\r\n"), BAD);
    }
    cases.post(49, "Content-Length : 5\r\n", "hello", BAD);
    cases.post(49, "Content_Length: 7\r\nContent-Length: 5\r\n", "hello", passed());
    cases.post(49, "Content-Length:\t5 \r\n", "hello", passed());
}

/// Row 50.
const CODINGS: &[&str] = &[
    "",
    " ",
    "identity",
    "gzip",
    "chunked, chunked",
    "chunked,chunked",
    "chunked\r\nTransfer-Encoding: chunked",
    "chunked\r\nTransfer-Encoding: identity",
    "identity\r\nTransfer-Encoding: chunked",
    "identity, chunked",
    "gzip, chunked",
    ",chunked",
    "chunked,",
    ", chunked",
    "chunked;",
    "chunked;q=1",
    "\"chunked\"",
    "xchunked",
    "chunkedx",
    "chunk",
    "\u{b}chunked",
    "chunked\u{c}",
    "chunked\0",
    "\u{a0}chunked",
    "chunked\r\n , identity",
    "c hunked",
    "chunked identity",
    "cHuNkEd, x",
];

fn codings(cases: &mut Cases) {
    for value in CODINGS {
        cases.post(50, &format!("Transfer-Encoding: {value}\r\n"), CHUNKED, BAD);
        cases.post(50, &format!("Transfer-Encoding: {value}\r\n"), &format!("0\r\n\r\n{INNER}"), BAD);
        cases.get(50, "/public/x", &format!("Transfer-Encoding: {value}\r\n"), BAD);
    }
    for line in [
        "Transfer-Encoding : chunked",
        "Transfer\u{0}-Encoding: chunked",
        "Transfer-Encoding\u{b}: chunked",
        " Transfer-Encoding: chunked",
    ] {
        cases.post(50, &format!("{line}\r\n"), CHUNKED, BAD);
    }
    // Not the field, so there is no body; what follows is a request that nobody may send.
    for line in ["Transfer_Encoding: chunked", "Transfer-Encoding_: chunked", "Transfer.Encoding: chunked"] {
        cases.post(50, &format!("{line}\r\nContent-Length: 5\r\n"), "hello", passed());
        cases.post(50, &format!("{line}\r\n"), CHUNKED, Expect::Answers(&[200, 400]));
    }
    cases.post(50, "tRANSFER-eNCODING:\t CHUNKED \r\n", CHUNKED, passed());
}

/// Row 51.
fn old_messages(cases: &mut Cases) {
    for target in ["/x", "/public/x"] {
        let head = format!("POST {target} HTTP/1.0\r\nHost: a\r\nX-API-Key: {{key}}\r\n");
        cases.raw(51, &format!("{head}Transfer-Encoding: chunked\r\n\r\n{CHUNKED}"), BAD);
        cases.raw(
            51,
            &format!("{head}Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKED}{INNER}"),
            BAD,
        );
        cases.raw(51, &format!("{head}Transfer-Encoding: identity\r\n\r\n{INNER}"), BAD);
        // A body that ends with the connection is none: HTTP/1.0 requests have a length, or nothing.
        cases.raw(51, &format!("{head}\r\n{INNER}"), Expect::Answers(&[200]));
    }
}

fn chunked(cases: &mut Cases, row: u8, body: &str, expect: Expect) {
    cases.post(row, "Transfer-Encoding: chunked\r\n", body, expect);
}

/// Row 52.
fn chunk_lines(cases: &mut Cases) {
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\rhello\r\n0\r\n\r\n",
        "5;\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n0\r\n\rX",
        "5 ;\n\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n\r\n0\r\n\r\n",
    ] {
        chunked(cases, 52, body, Expect::Broken(400));
    }
    for body in [
        "5;\r\nhello\r\n0\r\n\r\n",
        "5;a=b;c=\"d;\\\"\"\r\nhello\r\n0;x\r\n\r\n",
        "5 ; x\r\nhello\r\n0\r\n\r\n",
        "5;;;=\r\nhello\r\n0\r\n\r\n",
        "2;a\r\nhe\r\n3;\u{1}\u{ff}\r\nllo\r\n0\r\n\r\n",
    ] {
        chunked(cases, 52, body, passed());
    }
}

/// Row 53.
fn chunk_sizes(cases: &mut Cases) {
    for size in [
        "",
        "-5",
        "+5",
        "0x5",
        "x5",
        "5h",
        "g",
        " 5",
        "\t5",
        "5 5",
        "5_0",
        "5.",
        "fffffffffffffffff5",
        "10000000000000005",
        "ffffffffffffffffffff",
        "\"5\"",
        "\u{ff15}",
        "5\0",
        "\x005",
        "5,5",
        "five",
        "5#",
        "#5",
    ] {
        chunked(cases, 53, &format!("{size}\r\nhello\r\n0\r\n\r\n"), Expect::Broken(400));
    }
    chunked(cases, 53, "0000000000000000000000005\r\nhello\r\n000\r\n\r\n", passed());
}

/// Row 54.
fn trailers(cases: &mut Cases) {
    for trailer in [
        "Content-Length: 100",
        "Transfer-Encoding: chunked",
        "Host: forged",
        "Authorization: Bearer {key}",
        "Content-Type: forged",
        "X-API-Key: {key}",
        "Cookie: forged",
        "Trailer: forged",
        "Connection: forged",
        "\nX-Keyward-User: forged",
    ] {
        chunked(cases, 54, &format!("5\r\nhello\r\n0\r\n{trailer}\r\n\r\n"), passed());
    }
    for trailer in
        ["no colon", ": forged", " X: forged", "X : forged", "X: a\r\n forged", "X: a\rb", "X: a\nY: b", "\0: forged"]
    {
        chunked(cases, 54, &format!("5\r\nhello\r\n0\r\n{trailer}\r\n\r\n"), Expect::Broken(400));
    }
}

/// Rows 55 and 58.
fn bodies_as_requests(cases: &mut Cases) {
    let inner = cases.fill(INNER);
    let length = format!("Content-Length: {}\r\n\r\n{inner}", inner.len());
    let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PROPFIND"] {
        for body in [&length, &chunked] {
            let head = format!("{method} /x HTTP/1.1\r\nHost: a\r\n");
            cases.raw(55, &format!("{head}{body}"), UNKNOWN);
            if method != "HEAD" {
                cases.raw(55, &format!("{head}X-API-Key: {{key}}\r\n{body}"), Expect::Answers(&[200]));
            }
        }
    }
    for (status, refused) in [
        (401, "POST /x HTTP/1.1\r\nHost: a\r\n"),
        (401, "POST /x HTTP/1.1\r\nHost: a\r\nX-API-Key: wrong\r\n"),
        (403, "POST /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {ro}\r\n"),
        (403, "POST /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {net}\r\n"),
        (400, "POST /x#y HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n"),
        (400, "POST /x HTTP/1.1\r\nHost: a\r\nHost: a\r\nX-API-Key: {key}\r\n"),
        (501, "TRACE /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n"),
        (501, "CONNECT /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n"),
        (401, "POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"),
        (400, "POST /x?api_key={key} HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n"),
    ] {
        for body in [&length, &chunked] {
            cases.raw(58, &format!("{refused}{body}"), Expect::Refused(status));
        }
        cases.raw(58, &format!("{refused}Content-Length: 3\r\n\r\n{INNER}"), Expect::Refused(status));
    }
}

/// Rows 56, 57 and 59.
fn upgrades_and_expectations(cases: &mut Cases) {
    let unkeyed = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    for protocol in ["forged", "h2c", "TLS/1.2", "HTTP/2.0", "forged, h2c"] {
        let lines = format!("X-API-Key: {{key}}\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n");
        let head = format!("GET /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        // No protocol but HTTP is spoken, so what comes behind is one more request.
        cases.raw(56, &format!("{head}{unkeyed}"), Expect::Answers(&[200, 401]));
        cases.raw(56, &format!("{head}\0\u{1}binary\r\n\r\n"), Expect::Answers(&[200, 400]));
    }
    for lines in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: forged\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: forged\r\n",
        "Upgrade: forged\r\n",
        "HTTP2-Settings: forged\r\n",
        "HTTP2_Settings: forged\r\n",
        "connection: upgrade\r\nUPGRADE: FORGED\r\n",
    ] {
        let passed = Expect::Passed("/x".to_owned(), "");
        cases.get(57, "/x", &format!("X-API-Key: {{key}}\r\n{lines}"), passed);
        cases.get(57, "/x", lines, UNKNOWN);
    }
    for expectation in
        ["100-continue", "100-Continue", "forged", "100-continue, forged", "", "100-continue\r\nExpect: forged"]
    {
        cases.post(59, &format!("Expect: {expectation}\r\nContent-Length: 5\r\n"), "hello", passed());
        let head = format!("GET /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {{key}}\r\nExpect: {expectation}\r\n\r\n");
        cases.raw(59, &format!("{head}{unkeyed}"), Expect::Answers(&[200, 401]));
        let refused = format!("POST /x HTTP/1.1\r\nHost: a\r\nExpect: {expectation}\r\nContent-Length: 5\r\n\r\nhello");
        cases.raw(59, &refused, UNKNOWN);
    }
}
