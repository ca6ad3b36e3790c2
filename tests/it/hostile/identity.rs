//! Who a request says it is, and where it says it comes from (rows 25 to 32, 44 and 45).

use super::{BAD, Cases, Expect, FORGED, UNKNOWN};

const NAMES: &[&str] =
    &["Key-Id", "Organization", "Scope", "Access", "Env", "User", "Key-Name", "Anything", "Key-Id-2", ""];

/// Fields that say where a request comes from, for servers that believe them.
const ADDRESSES: &[&str] = &[
    "X-Forwarded-For",
    "X-Real-IP",
    "Forwarded",
    "True-Client-IP",
    "CF-Connecting-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "X-Originating-IP",
    "Forwarded-For",
    "X-Remote-IP",
    "X-Remote-Addr",
    "Client-IP",
    "X-ProxyUser-Ip",
    "Fastly-Client-IP",
    "Via",
    "X_Forwarded_For",
];

pub(super) fn add(cases: &mut Cases) {
    forged_fields(cases);
    smuggled_fields(cases);
    fields_that_lead_elsewhere(cases);
    for name in ADDRESSES {
        for value in ["10.9.9.9", "for=10.9.9.9", "10.9.9.9, 10.9.9.9", "::ffff:10.9.9.9", "\"[::ffff:a09:909]:80\""] {
            cases.get(44, "/x", &format!("X-API-Key: {{net}}\r\n{name}: {value}\r\n"), Expect::Refused(403));
        }
    }
    for value in ["::ffff:127.0.0.1", "127.0.0.1", "::1", "localhost"] {
        cases.get(45, "/x", &format!("X-API-Key: {{net}}\r\nX-Forwarded-For: {value}\r\n"), Expect::Refused(403));
    }
}

/// The answer to a GET that may pass with its forged fields left behind.
fn passes(cases: &mut Cases, row: u8, lines: &str) {
    cases.get(row, "/x", &format!("X-API-Key: {{key}}\r\n{lines}"), Expect::Passed("/x".to_owned(), ""));
    cases.get(row, "/public/x", lines, Expect::Passed("/public/x".to_owned(), ""));
    cases.get(row, "/x", lines, UNKNOWN);
}

/// Rows 25 to 28.
fn forged_fields(cases: &mut Cases) {
    for name in NAMES.iter().map(|name| format!("X-Keyward-{name}")) {
        passes(cases, 25, &format!("{name}: {FORGED}\r\n"));
        passes(cases, 25, &format!("{name}: {FORGED}\r\n{name}: {FORGED}2\r\n"));
        passes(cases, 26, &format!("{}: {FORGED}\r\n", name.to_uppercase()));
        passes(cases, 26, &format!("{}: {FORGED}\r\n", name.to_lowercase()));
        for twin in [name.replace('-', "_"), name.replacen('-', "_", 1), name.replace('-', "."), name.replace('-', "~")]
        {
            passes(cases, 27, &format!("{twin}: {FORGED}\r\n"));
            passes(cases, 27, &format!("{}: {FORGED}\r\n", twin.to_uppercase()));
        }
    }
    for named in [
        "X-Keyward-Key-Id",
        "x-keyward-key-id",
        "close, X-KEYWARD-KEY-ID",
        "keep-alive,x-keyward-key-id ,X-Keyward-Access",
        "X-Forwarded-For, X-Request-Id, Host, Content-Length",
        "\t X-Keyward-Key-Id\t",
    ] {
        passes(cases, 28, &format!("Connection: {named}\r\nX-Keyward-Key-Id: {FORGED}\r\n"));
        passes(cases, 28, &format!("X-A: b\r\nConnection: X-A\r\nConnection: {named}\r\n"));
    }
}

/// Row 29.
fn smuggled_fields(cases: &mut Cases) {
    for line in [
        "X: a\rX-Keyward-User: forged\r\n",
        "X: a\r\r\nX-Keyward-User: forged\r\n",
        "X: a\r\n X-Keyward-User: forged\r\n",
        "X: a\r\n\tX-Keyward-User: forged\r\n",
        "X:\r\n X-Keyward-User: forged\r\n",
        " X-Keyward-User: forged\r\n",
        "\tX-Keyward-User: forged\r\n",
        "X-Keyward-User : forged\r\n",
        "X-Keyward-User\t: forged\r\n",
        "X-Keyward-User\u{b}: forged\r\n",
        "X-Keyward-User\0: forged\r\n",
        "\0X-Keyward-User: forged\r\n",
        "\u{1}X-Keyward-User: forged\r\n",
        "X-Keyward-User\u{7f}: forged\r\n",
        "X-Keyward-User\u{e9}: forged\r\n",
        "X-Keyward-User\r: forged\r\n",
        "X-Keyward-User\r\n: forged\r\n",
        "X-Keyward User: forged\r\n",
        "X-Keyward-User\r\n",
        ": forged\r\n",
        "X-Keyward-User: a\0forged\r\n",
        "X-Keyward-User: a\u{8}forged\r\n",
        "X-Keyward-User: a\u{7f}forged\r\n",
        "X-Keyward-User: a\rforged\r\n",
        "(X-Keyward-User): forged\r\n",
        "\"X-Keyward-User\": forged\r\n",
        "X-Keyward-User;: forged\r\n",
        "X-Keyward/User: forged\r\n",
        "X@Keyward-User: forged\r\n",
    ] {
        cases.get(29, "/x", &format!("X-API-Key: {{key}}\r\n{line}"), BAD);
        cases.get(29, "/public/x", line, BAD);
        cases.raw(29, &format!("GET /public/x HTTP/1.1\r\n{line}Host: a\r\n\r\n"), BAD);
    }
    // A lone line feed ends a line for us, as for most; what goes on is framed anew.
    for line in
        ["X: a\nX-Keyward-User: forged\r\n", "X: a\nX-Keyward-User: forged\nY: b\n", "X-Keyward-User:\tforged\n"]
    {
        passes(cases, 29, line);
    }
    for trailer in
        ["X-Keyward-Key-Id: forged", "X-Forwarded-For: forged", "Authorization: forged", "x_keyward_user: forged"]
    {
        let passed = Expect::Passed("/x".to_owned(), "abc");
        cases.post(29, "Transfer-Encoding: chunked\r\n", &format!("3\r\nabc\r\n0\r\n{trailer}\r\n\r\n"), passed);
    }
}

/// Rows 30 to 32.
fn fields_that_lead_elsewhere(cases: &mut Cases) {
    for name in
        ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Real-IP", "Forwarded"]
    {
        passes(cases, 30, &format!("{name}: {FORGED}\r\n"));
        passes(cases, 30, &format!("{}: {FORGED}\r\n", name.to_lowercase()));
        passes(cases, 30, &format!("{}: {FORGED}\r\n", name.replace('-', "_")));
        passes(cases, 30, &format!("{name}: {FORGED}\r\n{name}: {FORGED}, 127.0.0.1\r\n"));
    }
    for name in ["X-Original-URL", "X-Rewrite-URL"] {
        passes(cases, 31, &format!("{name}: /{FORGED}\r\n"));
        passes(cases, 31, &format!("{}: /{FORGED}\r\n", name.to_uppercase().replace('-', "_")));
    }
    for name in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"] {
        let line = format!("{name}: DELETE-{FORGED}\r\n");
        passes(cases, 32, &line);
        passes(cases, 32, &line.replace('-', "_"));
        cases.get(32, "/x", &format!("X-API-Key: {{ro}}\r\n{line}"), Expect::Passed("/x".to_owned(), ""));
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let head = format!("{method} /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {{ro}}\r\n{name}: GET\r\n\r\n");
            cases.raw(32, &head, Expect::Refused(403));
        }
    }
}
