//! What attackers send, byte for byte, by row of the catalogue of known bug classes (reliability catalogue, section 2). Each
//! case is judged three times: by what the client got, by what the upstream received, and by two good requests afterwards.

mod credentials; // rows 1 to 11
mod elsewhere; // what is no single stream of bytes: rows 10, 46, 60, 67, 70, 75
mod frames; // what only HTTP/2 can say: rows 40, 41, 43 and 62 to 66
mod framing; // rows 48 to 59
mod http2; // the same requests as over HTTP/1.1, and the frames
mod identity; // rows 25 to 32, 44 and 45
mod targets; // rows 6 and 33 to 43

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::support::certificates::Authority;
use super::support::wire::find;
use super::support::{Client, Key, Keyward, Received, Site, Upstream, door, request};

/// The rows that concern bytes on the wire of HTTP/1.1. Row 47 is about TLS, and 10, 46, 60, 67, 70 and 75 have tests of
/// their own in [`elsewhere`].
const ROWS: &[u8] = &[
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44,
    45, 46, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59,
];

/// The target of requests whose body breaks off. Their heads may come to the upstream when the client has long been answered.
const BROKEN: &str = "/broken";

/// How many cases there are.
const CASES: usize = 1820;

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
    /// An answer with this status, then the end; nothing goes to the upstream. 0 is an end without an answer.
    Refused(u16),
    /// 200, and the upstream receives this target and this body.
    Passed(String, &'static str),
    /// These answers in order; the upstream receives as many requests as there are 200s.
    Answers(&'static [u16]),
    /// The same, but that the upstream may hear of the request, though not of a whole body.
    Broken(u16),
}

const BAD: Expect = Expect::Refused(400);
const UNKNOWN: Expect = Expect::Refused(401);

/// The keys that cases name: `{key}` may do everything, `{ro}` read, `{net}` only from another network.
#[derive(Clone)]
struct Keys {
    key: Key,
    read_only: Key,
    elsewhere: Key,
}

/// What `proxy.paths` says of paths that servers read differently.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Paths {
    /// They are refused.
    Strict,
    /// They need a key.
    Lenient,
}

impl Paths {
    fn config(self) -> &'static str {
        match self {
            Self::Strict => "",
            Self::Lenient => "proxy: { paths: lenient }",
        }
    }
}

/// All cases of a table.
struct Cases {
    keys: Keys,
    paths: Paths,
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
        let target = if matches!(expect, Expect::Broken(_)) { BROKEN } else { "/x" };
        let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\nX-API-Key: {{key}}\r\n{lines}\r\n");
        self.raw(row, &format!("{head}{body}"), expect);
    }
}

/// All of them, as HTTP/1.1 has them.
fn all_cases(keys: &Keys, paths: Paths) -> Vec<Case> {
    let mut cases = Cases { keys: keys.clone(), paths, all: Vec::new() };
    credentials::add(&mut cases);
    identity::add(&mut cases);
    targets::add(&mut cases);
    framing::add(&mut cases);
    cases.all
}

#[test]
fn nothing_hostile_gets_in() {
    for paths in [Paths::Strict, Paths::Lenient] {
        let court = serve(paths.config());
        let cases = all_cases(&court.keys, paths);
        let rows: BTreeSet<u8> = cases.iter().map(|case| case.row).collect();
        assert_eq!(rows, ROWS.iter().copied().collect(), "every row has a case, and only rows that are listed");
        assert_eq!(cases.len(), CASES, "the number that is told of them");
        court.judge_all(&cases);
    }
}

#[test]
fn nothing_hostile_gets_in_by_tls() {
    let court = serve_tls("http/1.1");
    let cases = sample(all_cases(&court.keys, Paths::Strict), 4);
    assert!(cases.len() > CASES / 4);
    court.judge_all(&cases);
}

/// One of so many cases, and the first of each row.
fn sample(cases: Vec<Case>, one_of: usize) -> Vec<Case> {
    let mut rows = BTreeSet::new();
    let numbered = cases.into_iter().enumerate();
    numbered.filter(|(n, case)| rows.insert(case.row) || n % one_of == 0).map(|(_, case)| case).collect()
}

/// A running Keyward before an upstream that remembers, where cases are judged.
struct Court {
    upstream: Upstream,
    keyward: Keyward,
    keys: Keys,
    /// Where cases are sent.
    address: SocketAddr,
    /// How: the statuses that come back, so many or until the connection ends.
    answers: fn(SocketAddr, &[u8], usize) -> Vec<u16>,
    /// A GET and a POST that pass.
    good: Vec<u8>,
}

fn serve(config: &str) -> Court {
    serve_at(config, |_| ())
}

/// By TLS, with a port that leads there where this protocol is spoken.
fn serve_tls(protocol: &'static str) -> Court {
    let ca = Authority::new("root");
    let certified = ca.sign("localhost", 2020..2100);
    let court = serve_at("proxy: { tls: { certificate: tls.crt, key: tls.key } }", |site| {
        site.write("tls.key", &certified.key);
        site.write("tls.crt", &certified.certificate);
    });
    Court { address: door::open(court.keyward.proxy, &ca, protocol), ..court }
}

fn serve_at(config: &str, prepare: impl Fn(&Site)) -> Court {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), &format!("{CONFIG}\n{config}"));
    prepare(&site);
    let keys = Keys {
        key: site.create_key(&[]),
        read_only: site.create_key(&["--read-only"]),
        elsewhere: site.create_key(&["--ip", "10.9.9.0/24"]),
    };
    let keyward = site.serve();
    let key = [("X-API-Key", &*keys.key.value)];
    let good = [request("GET", "/good", &key, b""), request("POST", "/good", &key, b"body")].concat();
    Court { address: keyward.proxy, upstream, keyward, keys, answers, good }
}

impl Court {
    /// Judges cases one after the other. In the end Keyward has no more memory than at first.
    fn judge_all(&self, cases: &[Case]) {
        self.good_requests("nothing");
        let before = self.keyward.memory();
        for case in cases {
            self.judge(case);
            self.good_requests(&String::from_utf8_lossy(&case.sent));
        }
        let after = self.keyward.memory();
        assert!(after < before + 8 * 1024 * 1024, "{before} bytes before, {after} after");
        assert_eq!(self.keyward.metric("keyward_panics_total"), 0.0);
        elsewhere::check_log(&self.keyward, &self.keys);
    }

    /// Sends a case, and judges the answers and what the upstream received.
    #[track_caller]
    fn judge(&self, case: &Case) {
        let what = format!("r{} {:?}", case.row, String::from_utf8_lossy(&case.sent));
        let wanted = if let Expect::Answers(wanted) = case.expect { wanted.len() } else { 1 };
        let statuses = (self.answers)(self.address, &case.sent, wanted);
        let received = received(&self.upstream, &self.keys, &what);
        let first = statuses.first().copied().unwrap_or(0);
        match &case.expect {
            Expect::Refused(status) => {
                assert_eq!(first, *status, "{what}: {statuses:?}");
                assert!(received.is_empty(), "{what} was forwarded: {received:?}");
                assert!(!statuses.contains(&200), "{what}: {statuses:?}");
            }
            Expect::Passed(target, body) => {
                assert_eq!(statuses, [200], "{what}");
                let received: Vec<_> =
                    received.iter().map(|one| (one.head.target(), String::from_utf8_lossy(&one.body.bytes))).collect();
                assert_eq!(received, [(target.clone(), (*body).into())], "{what}");
            }
            Expect::Answers(wanted) => {
                assert_eq!(statuses, *wanted, "{what}");
                let passed = wanted.iter().filter(|status| **status == 200).count();
                assert_eq!(received.len(), passed, "{what}: {received:?}");
            }
            Expect::Broken(status) => {
                assert_eq!(first, *status, "{what}: {statuses:?}");
                assert!(received.is_empty(), "{what}: {received:?}");
            }
        }
    }

    /// Two good requests on a new connection.
    #[track_caller]
    fn good_requests(&self, after: &str) {
        assert_eq!((self.answers)(self.address, &self.good, 2), [200, 200], "after {after}");
        let good = received(&self.upstream, &self.keys, after);
        let mut bodies: Vec<_> = good.iter().map(|one| &*one.body.bytes).collect();
        bodies.sort_unstable();
        assert_eq!(bodies, [&b""[..], b"body"], "after {after}");
    }
}

/// The statuses that come back: so many, or until the connection ends, and then any that nobody asked for.
fn answers(address: SocketAddr, sent: &[u8], wanted: usize) -> Vec<u16> {
    let mut client = Client::connect(address);
    // Keyward may have closed before it has seen all of it.
    let _ = client.wire().send(sent);
    let mut statuses = Vec::new();
    let next = |client: &mut Client| match sent.starts_with(b"HEAD ") {
        true => client.response_head().map(|(status, _)| status),
        false => client.try_response().map(|response| response.status),
    };
    while let Ok(status) = next(&mut client) {
        if status != 100 {
            statuses.push(status);
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
