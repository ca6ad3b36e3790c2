//! Targets, hosts and methods (rows 6 and 33 to 43, and 46: what is no request at all).

use super::{BAD, Cases, Expect, Paths, UNKNOWN};

/// Ways from a public path to one that is not, by row.
const WAYS: &[(u8, &str)] = &[
    (33, "/public/../api/x"),
    (33, "/public/x/../../api/x"),
    (33, "/public/./../api/x"),
    (33, "/public/.."),
    (33, "/public/."),
    (33, "/api/../public/x"),
    (33, "/../public/x"),
    (34, "/public/%2e%2e/api/x"),
    (34, "/public/%2E./api/x"),
    (34, "/public/.%2e/api/x"),
    (34, "/public/%2e/api/x"),
    (34, "/public/..%2fapi/x"),
    (34, "/public%2f..%2fapi/x"),
    (34, "/public/%2F../api/x"),
    (34, "/public/..%5capi/x"),
    (34, "/public/..\\api\\x"),
    (34, "/public\\x"),
    (34, "/public/%252e%252e/api/x"),
    (34, "/public/%252e%252e%252fapi/x"),
    (34, "/public/%25%32%65%25%32%65/api/x"),
    (34, "/public/%%32%65/api/x"),
    (34, "/public%2Fx"),
    (34, "/%2fpublic/x"),
    (36, "/public/..;/api/x"),
    (36, "/public/..;a=b/api/x"),
    (36, "/public/x;/../../api/x"),
    (36, "/public/x;jsessionid=1"),
    (36, "/public;/x"),
    (36, "/public/%c0%ae%c0%ae/api/x"),
    (36, "/public/\u{e9}/api/x"),
    (36, "/public/x%00"),
    (36, "/public/%00/../api/x"),
    (36, "/public/%u002e%u002e/api/x"),
    (36, "/public/%u002f"),
    (36, "/public/x%"),
    (36, "/public/x%2"),
    (36, "/public/x%zz"),
    (37, "//public/x"),
    (37, "/public//x"),
    (37, "/public//../api/x"),
    (37, "///public/x"),
    (37, "/public/x//"),
];

pub(super) fn add(cases: &mut Cases) {
    let is_lenient = cases.paths == Paths::Lenient;
    let unkeyed = || if is_lenient { UNKNOWN } else { BAD };
    let keyed = |target: &str| if is_lenient { Expect::Passed(target.to_owned(), "") } else { BAD };
    // What it does cannot be known, so it may write.
    let keyed_to_read = || if is_lenient { Expect::Refused(403) } else { BAD };
    for (row, target) in WAYS {
        cases.get(*row, target, "", unkeyed());
        cases.get(*row, &format!("http://a{target}"), "", unkeyed());
        cases.get(*row, target, "X-API-Key: {key}\r\n", keyed(target));
        cases.get(*row, &format!("{target}?a=b"), "X-API-Key: {ro}\r\n", keyed_to_read());
    }
    for target in ["/PUBLIC/x", "/Public/x", "/publi%43/x", "/public", "/publicx", "/public%20/x", "/x/public/x"] {
        cases.get(36, target, "", UNKNOWN);
    }
    fragments(cases);
    rules_on_something_else(cases);
    absolute_targets(cases);
    hosts(cases);
    methods(cases);
    no_request_at_all(cases);
}

/// Row 6.
fn fragments(cases: &mut Cases) {
    let keyed = "GET /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n\r\n";
    for target in [
        "/#",
        "/x#",
        "/public/x#",
        "/x#/../public/x",
        "/public/x#/../x",
        "/x?a#b",
        "/x?api_key={key}#",
        "/x#?api_key={key}",
        "#",
    ] {
        for line in ["", "X-API-Key: {key}\r\n"] {
            cases.get(6, target, line, BAD);
        }
        cases.get(6, &format!("http://a{target}"), "X-API-Key: {key}\r\n", BAD);
        let second = format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-API-Key: {{key}}\r\n\r\n");
        cases.raw(6, &format!("{keyed}{second}"), Expect::Answers(&[200, 400]));
        cases.raw(6, &second.replace('\r', ""), BAD);
    }
    cases.get(6, "/x%23y", "X-API-Key: {key}\r\n", Expect::Passed("/x%23y".to_owned(), ""));
    cases.post(6, "Content-Length: 3\r\n", "a#b", Expect::Passed("/x".to_owned(), "a#b"));
}

/// Rows 38 and 39.
fn rules_on_something_else(cases: &mut Cases) {
    for target in
        ["/x?/public/", "/x?/public/x", "/x?x=/public/x", "/x?/../public/x", "/x?%2fpublic%2fx", "/x??/public/x"]
    {
        cases.get(38, target, "", UNKNOWN);
    }
    for name in [
        "X-Forwarded-Uri",
        "X-Forwarded-Path",
        "X-Forwarded-Prefix",
        "X-Original-URI",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Envoy-Original-Path",
        "X-Replaced-Path",
    ] {
        cases.get(39, "/x", &format!("{name}: /public/x\r\n"), UNKNOWN);
    }
    for line in [
        "X-Forwarded-Method: OPTIONS",
        "X-Original-Method: GET",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: public",
    ] {
        cases.get(39, "/x", &format!("{line}\r\n"), UNKNOWN);
        let head = format!("DELETE /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {{ro}}\r\n{line}\r\n\r\n");
        cases.raw(39, &head, Expect::Refused(403));
    }
}

/// Row 40.
fn absolute_targets(cases: &mut Cases) {
    for target in ["http://a/x", "http://public/x", "https://a/x", "http://a?/public/x", "http://a", "ftp://a/x"] {
        cases.get(40, target, "", UNKNOWN);
    }
    // They can be read as a host alone, and then the path is none.
    let is_lenient = cases.paths == Paths::Lenient;
    for target in ["x", "*", "http:", "a:80"] {
        cases.get(40, target, "", if is_lenient { UNKNOWN } else { BAD });
        cases.get(40, target, "X-API-Key: {key}\r\n", BAD);
    }
    for target in
        ["public/x", "?a", "http://", "http:/public/x", "http:///public/x", "://a/public/x", "http://[::1/public/x", ""]
    {
        cases.get(40, target, "", BAD);
        cases.get(40, target, "X-API-Key: {key}\r\n", BAD);
    }
    for (target, arrives) in [
        ("http://a/x?y", "/x?y"),
        ("HTTP://A/x", "/x"),
        ("http://a", "/"),
        ("http://a?b", "/?b"),
        ("http://b:1/x", "/x"),
    ] {
        cases.get(40, target, "X-API-Key: {key}\r\n", Expect::Passed(arrives.to_owned(), ""));
    }
    cases.get(40, "http://a/public/x", "", Expect::Passed("/public/x".to_owned(), ""));
}

/// Row 41.
fn hosts(cases: &mut Cases) {
    for lines in [
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nhost: b\r\n",
        "Host: a, b\r\n",
        "Host: a b\r\n",
        "Host: a\tb\r\n",
        "Host: a@b\r\n",
        "Host: a/b\r\n",
        "Host: a?b\r\n",
        "Host: a#b\r\n",
        "Host: a\\b\r\n",
        "Host: <a>\r\n",
        "Host: \"a\"\r\n",
        "Host: a\u{e9}\r\n",
        "",
        "Host : a\r\n",
        "Host: a\r\n b\r\n",
        "Host: a\0b\r\n",
        "Host:\r\n",
        "Host: \r\n",
        "Host: :80\r\n",
        "Host: a:b\r\n",
        "Host: a:80:80\r\n",
        "Host: a:-1\r\n",
        "Host: ::1\r\n",
        "Host: []\r\n",
        "Host: [x]\r\n",
        "Host: [::1\r\n",
        "Host: a]\r\n",
        "Host: [::1]a\r\n",
        "Host: a%40b\r\n",
        "Host: http://a\r\n",
    ] {
        for target in ["/x", "/public/x"] {
            let head = format!("GET {target} HTTP/1.1\r\nX-API-Key: {{key}}\r\n{lines}\r\n");
            cases.raw(41, &head, BAD);
        }
    }
    // Some are seen to be none before anybody looks for a key.
    for (target, unkeyed) in [
        ("http://user@a/x", UNKNOWN),
        ("http://user:pass@a/public/x", BAD),
        ("http://a@b@c/x", UNKNOWN),
        ("http://a%40b/x", BAD),
    ] {
        cases.get(41, target, "X-API-Key: {key}\r\n", BAD);
        cases.get(41, target, "", unkeyed);
    }
    for host in ["a:", "[::1]:80", "127.0.0.1:8080", "_a.b-c.", "xn--a"] {
        let head = format!("GET /x HTTP/1.1\r\nHost: {host}\r\nX-API-Key: {{key}}\r\n\r\n");
        cases.raw(41, &head, Expect::Passed("/x".to_owned(), ""));
    }
    cases.raw(41, "GET http://b/x HTTP/1.1\r\nHost: a\r\nHost: b\r\nX-API-Key: {key}\r\n\r\n", BAD);
}

/// Rows 42 and 43.
fn methods(cases: &mut Cases) {
    for method in [
        "get",
        "Get",
        "gET",
        "head",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "PROPPATCH",
        "MKCOL",
        "LOCK",
        "FOO",
        "G#T",
        "GET%20",
        "M-SEARCH",
    ] {
        cases.raw(42, &format!("{method} /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {{ro}}\r\n\r\n"), Expect::Refused(403));
    }
    for method in ["GE T", "GET\t", "G(ET)", "GET/", "\u{e9}", "GE\0T", "\"GET\"", ""] {
        cases.raw(42, &format!("{method} /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {{key}}\r\n\r\n"), BAD);
    }
    for (method, target) in [
        ("CONNECT", "a:80"),
        ("CONNECT", "/x"),
        ("CONNECT", "http://a/x"),
        ("CONNECT", "/public/x"),
        ("TRACE", "/x"),
        ("TRACE", "/public/x"),
    ] {
        for line in ["", "X-API-Key: {key}\r\n", "Max-Forwards: 0\r\n"] {
            let head = format!("{method} {target} HTTP/1.1\r\nHost: a:80\r\n{line}\r\n");
            cases.raw(43, &head, Expect::Refused(501));
            cases.raw(43, &format!("{head}GET /x HTTP/1.1\r\nHost: a\r\n\r\n"), Expect::Refused(501));
        }
    }
}

/// Row 46, and other protocols.
fn no_request_at_all(cases: &mut Cases) {
    const GET: &str = "GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n";
    for preamble in [
        "PROXY TCP4 10.9.9.9 10.9.9.9 1 2\r\n",
        "PROXY TCP6 ::1 ::1 1 2\r\n",
        "PROXY UNKNOWN\r\n",
        "\r\n\r\n\0\r\nQUIT\n\u{21}\u{11}\0\u{c}\n\u{9}\u{9}\u{9}\n\u{9}\u{9}\u{9}\0\u{1}\0\u{2}",
        "\u{16}\u{3}\u{1}\0\u{5}\u{1}\0\0\u{1}\0",
        "GET /public/x HTTP/0.9\r\n",
        "GET /public/x HTTP/2.0\r\n",
        "GET /public/x HTTP/1.2\r\n",
        "GET /public/x http/1.1\r\n",
        "GET /public/x HTTP/1.1 \r\n",
        "GET /public/x  HTTP/1.1\r\n",
        "GET  /public/x HTTP/1.1\r\n",
        "GET\t/public/x\tHTTP/1.1\r\n",
        " GET /public/x HTTP/1.1\r\n",
        "GET /public/x\r\n",
        "GET /public/x HTTP/1.1\r",
        "HTTP/1.1 200 OK\r\n",
        "USER anonymous\r\n",
        "{\"jsonrpc\":\"2.0\"}\r\n",
    ] {
        cases.raw(46, &format!("{preamble}{GET}"), BAD);
    }
    // From here on it is HTTP/2, which that is not.
    cases.raw(46, &format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{GET}"), Expect::Refused(0));
}
