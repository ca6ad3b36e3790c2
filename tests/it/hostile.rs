//! What attackers send over HTTP/1.1, byte for byte, by row of the catalogue of known bug classes (reliability catalogue,
//! section 2). Each case is judged three times: by what the client got, by what the upstream received, and by two good
//! requests afterwards.

mod credentials; // rows 1 to 11
mod elsewhere; // what is no single stream of bytes: rows 10, 46, 60, 67, 70, 75
mod framing; // rows 48 to 59
mod identity; // rows 25 to 32, 44 and 45
mod targets; // rows 6 and 33 to 43

use std::collections::BTreeSet;
use std::time::Duration;

use super::support::wire::find;
use super::support::{Key, Keyward, Received, Site, Upstream, request};

/// The rows that concern bytes on the wire of HTTP/1.1. Row 47 is about TLS, and 10, 46, 60, 67, 70 and 75 have tests of
/// their own in [`elsewhere`].
const ROWS: &[u8] = &[
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44,
    45, 46, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59,
];

/// The target of requests whose body breaks off. Their heads may come to the upstream when the client has long been answered.
const BROKEN: &str = "/broken";

/// How many cases there are.
const CASES: usize = 1785;

const CONFIG: &str = r#"
routes:
  - { path: "/public/{*rest}", auth: none }
"#;

/// What no request of a client may bring before the upstream: each forged field has it as its value.
const FORGED: &str = "forged";

/// One stream of bytes and what must come of it.
struct Case {
    row: u8,
    sent: Vec<u8>,
    expect: Expect,
}

enum Expect {
    /// An answer with one of these statuses, then the end; nothing goes to the upstream. 0 is an end without an answer.
    Refused(&'static [u16]),
    /// 200, and the upstream receives this target and this body.
    Passed(String, &'static str),
    /// Refused, or passed with nothing in it that must not be there.
    Either,
    /// These answers in order; the upstream receives as many requests as there are 200s.
    Answers(&'static [u16]),
    /// No 200. The upstream may hear of the request, but not of a whole body.
    Broken,
}

/// Any refusal that is the client's fault.
const REFUSED: Expect = Expect::Refused(&[400, 401, 403, 431, 501]);
const BAD: Expect = Expect::Refused(&[400]);
const UNKNOWN: Expect = Expect::Refused(&[401]);

/// The keys that cases name: `{key}` may do everything, `{ro}` read, `{net}` only from another network.
struct Keys {
    key: Key,
    read_only: Key,
    elsewhere: Key,
}

/// All cases of a table.
struct Cases {
    keys: Keys,
    all: Vec<Case>,
}

impl Cases {
    /// With the keys where they are named.
    fn fill(&self, text: &str) -> String {
        let Keys { key, read_only, elsewhere } = &self.keys;
        text.replace("{key}", &key.value).replace("{ro}", &read_only.value).replace("{net}", &elsewhere.value)
    }

    /// Raw bytes.
    fn raw(&mut self, row: u8, text: &str, expect: Expect) {
        let sent = self.fill(text).into_bytes();
        self.all.push(Case { row, sent, expect });
    }

    /// A GET with a target and field lines.
    fn get(&mut self, row: u8, target: &str, lines: &str, expect: Expect) {
        self.raw(row, &format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"), expect);
    }

    /// A POST with a key, field lines and a body.
    fn post(&mut self, row: u8, lines: &str, body: &str, expect: Expect) {
        let target = if matches!(expect, Expect::Broken) { BROKEN } else { "/x" };
        let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\nX-API-Key: {{key}}\r\n{lines}\r\n");
        self.raw(row, &format!("{head}{body}"), expect);
    }
}

/// A running Keyward before an upstream that remembers, and the keys of the cases.
fn serve(config: &str) -> (Upstream, Keyward, Keys) {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), &format!("{CONFIG}\n{config}"));
    let keys = Keys {
        key: site.create_key(&[]),
        read_only: site.create_key(&["--read-only"]),
        elsewhere: site.create_key(&["--ip", "10.9.9.0/24"]),
    };
    (upstream, site.serve(), keys)
}

#[test]
fn nothing_hostile_gets_in() {
    for config in ["", "proxy: { paths: lenient }"] {
        let (upstream, keyward, keys) = serve(config);
        let mut cases = Cases { keys, all: Vec::new() };
        credentials::add(&mut cases);
        identity::add(&mut cases);
        targets::add(&mut cases);
        framing::add(&mut cases);
        let rows: BTreeSet<u8> = cases.all.iter().map(|case| case.row).collect();
        assert_eq!(rows, ROWS.iter().copied().collect(), "every row has a case, and only rows that are listed");
        assert_eq!(cases.all.len(), CASES, "the number that is told of them");

        good_requests(&upstream, &keyward, &cases.keys, "nothing");
        let before = keyward.memory();
        for case in &cases.all {
            judge(case, &upstream, &keyward, &cases.keys);
            good_requests(&upstream, &keyward, &cases.keys, &String::from_utf8_lossy(&case.sent));
        }
        assert!(keyward.memory() < before + 8 * 1024 * 1024, "{before} bytes before, {} after", keyward.memory());
        assert_eq!(keyward.metric("keyward_panics_total"), 0.0);
        elsewhere::check_log(&keyward, &cases.keys);
    }
}

/// Sends a case, and judges the answers and what the upstream received.
#[track_caller]
fn judge(case: &Case, upstream: &Upstream, keyward: &Keyward, keys: &Keys) {
    let what = format!("r{} {:?}", case.row, String::from_utf8_lossy(&case.sent));
    let wanted = if let Expect::Answers(wanted) = case.expect { wanted.len() } else { 1 };
    let statuses = answers(keyward, &case.sent, wanted);
    let received = received(upstream, keys, &what);
    let first = statuses.first().copied().unwrap_or(0);
    match &case.expect {
        Expect::Refused(allowed) => {
            assert!(allowed.contains(&first), "{what}: {statuses:?}");
            assert!(received.is_empty(), "{what} was forwarded: {received:?}");
            assert!(!statuses.contains(&200), "{what}: {statuses:?}");
        }
        Expect::Passed(target, body) => {
            assert_eq!(statuses, [200], "{what}");
            let received: Vec<_> =
                received.iter().map(|one| (one.head.target(), String::from_utf8_lossy(&one.body.bytes))).collect();
            assert_eq!(received, [(target.clone(), (*body).into())], "{what}");
        }
        Expect::Either => {
            assert_eq!(
                received.len(),
                statuses.iter().filter(|status| **status == 200).count(),
                "{what}: {statuses:?}"
            );
            assert!(
                statuses.iter().all(|status| *status == 200 || (400..502).contains(status)),
                "{what}: {statuses:?}"
            );
        }
        Expect::Answers(wanted) => {
            assert_eq!(statuses, *wanted, "{what}");
            assert_eq!(received.len(), wanted.iter().filter(|status| **status == 200).count(), "{what}: {received:?}");
        }
        Expect::Broken => {
            assert!(matches!(first, 0 | 400), "{what}: {statuses:?}");
            assert!(received.is_empty(), "{what}: {received:?}");
        }
    }
}

/// The statuses that come back: so many, or until the connection ends, and then any that nobody asked for.
fn answers(keyward: &Keyward, sent: &[u8], wanted: usize) -> Vec<u16> {
    let mut client = keyward.connect();
    // Keyward may have closed before it has seen all of it.
    let _ = client.wire().send(sent);
    let mut statuses = Vec::new();
    while let Ok(response) = client.try_response() {
        if response.status != 100 {
            statuses.push(response.status);
        }
        if statuses.len() >= wanted {
            client.finish();
            client.wire().socket().set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        }
    }
    statuses
}

/// What the upstream has received, all of it clean, without those heads that no whole body came to.
#[track_caller]
fn received(upstream: &Upstream, keys: &Keys, what: &str) -> Vec<Received> {
    let (broken, others): (Vec<_>, Vec<_>) = upstream.take().into_iter().partition(|one| one.head.target() == BROKEN);
    assert!(broken.iter().all(|one| one.body.bytes.is_empty()), "{what}: {broken:?}");
    broken.iter().chain(&others).for_each(|one| expect_clean(one, keys, what));
    others
}

/// What holds for everything that is ever forwarded.
#[track_caller]
fn expect_clean(received: &Received, keys: &Keys, what: &str) {
    let (head, trailers) = (&received.head, &received.body.trailers);
    let start = head.start();
    let words: Vec<&str> = start.split(' ').collect();
    assert!(words.len() == 3 && words[2] == "HTTP/1.1", "{what}: {start:?}");
    assert!(words[1].starts_with('/') && !words[1].contains('#'), "{what}: {start:?}");
    assert!(words[1].bytes().all(|byte| byte > b' ' && byte != 0x7f), "{what}: {start:?}");
    assert_eq!(head.values("host").len(), 1, "{what}: {head:?}");
    // Panics if there are two, or one that is not plain.
    let _ = head.framing();
    for bytes in [head.raw(), trailers] {
        for secret in [&keys.key, &keys.read_only, &keys.elsewhere] {
            assert_eq!(find(bytes, secret.value.as_bytes()), None, "{what}: a key was forwarded");
        }
        assert_eq!(find(&bytes.to_ascii_lowercase(), FORGED.as_bytes()), None, "{what}: {head:?}");
    }
    let known = [&*keys.key.id, &*keys.read_only.id];
    if !words[1].starts_with("/public/") {
        let id = head.value("x-keyward-key-id").unwrap_or_default();
        assert!(known.contains(&&*id), "{what}: forwarded without a key: {head:?}");
    }
}

/// Two good requests on a new connection.
#[track_caller]
fn good_requests(upstream: &Upstream, keyward: &Keyward, keys: &Keys, after: &str) {
    let mut client = keyward.connect();
    for (method, body) in [("GET", &b""[..]), ("POST", b"body")] {
        let response = client.exchange(&request(method, "/good", &[("X-API-Key", &keys.key.value)], body));
        assert_eq!(response.status, 200, "after {after}");
        let good = received(upstream, keys, after);
        assert!(good.len() == 1 && good[0].body.bytes == body, "after {after}: {good:?}");
    }
}
