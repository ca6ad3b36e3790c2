//! Whatever is legal in a request arrives as it was sent, except for what must not, and comes back in the answer: ten thousand
//! random requests over connections that stay open, each compared with what its parts say should arrive.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::support::upstream::Received;
use crate::support::wire::Head;
use crate::support::{After, Client, Framing, Key, Keyward, Site, Upstream};

/// Requests on their way at the same time, each on a connection of its own.
const AT_ONCE: usize = 4;
const BATCHES: u32 = 2_500;
const LARGEST_BODY: usize = 100 * 1024;

/// A request in parts. What should arrive follows from them without reading anything back.
#[derive(Clone, Debug)]
struct Sent {
    method: String,
    path: String,
    /// `None` for no `?` at all.
    query: Option<Vec<String>>,
    lines: Vec<Line>,
    credential: Credential,
    body: Payload,
}

#[derive(Clone, Debug)]
struct Line {
    name: String,
    value: Vec<u8>,
    passes: bool,
    /// Whether a `Connection` line declares it to be of this hop.
    named: bool,
}

#[derive(Clone, Debug)]
enum Credential {
    /// As a parameter with its name in this spelling, at about this place.
    Query(&'static str, usize),
    /// As a field: its name, what stands before the key, at about this place.
    Field(&'static str, &'static str, usize),
}

#[derive(Clone, Debug)]
enum Payload {
    None,
    Length(usize),
    Chunks { sizes: Vec<usize>, extension: &'static str, trailer: &'static str },
}

impl Payload {
    fn framing(&self) -> Framing {
        match self {
            Self::None => Framing::None,
            Self::Length(length) => Framing::Length(*length as u64),
            Self::Chunks { .. } => Framing::Chunked,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let length = match self {
            Self::None => 0,
            Self::Length(length) => *length,
            Self::Chunks { sizes, .. } => sizes.iter().sum(),
        };
        // 251 is a prime, so that no two of the usual block sizes begin alike.
        (0..length).map(|at| (at % 251) as u8).collect()
    }
}

impl Sent {
    fn bytes(&self, key: &Key, mark: usize) -> Vec<u8> {
        let mut parts = self.query.clone();
        let mut lines: Vec<(String, Vec<u8>)> =
            self.lines.iter().map(|line| (line.name.clone(), line.value.clone())).collect();
        match self.credential {
            Credential::Query(name, place) => {
                let parts = parts.get_or_insert_default();
                parts.insert(place % (parts.len() + 1), format!("{name}={}", key.value));
            }
            Credential::Field(name, before, place) => {
                lines.insert(place % (lines.len() + 1), (name.to_owned(), format!("{before}{}", key.value).into()));
            }
        }
        let named: Vec<&str> = self.lines.iter().filter(|line| line.named).map(|line| &*line.name).collect();
        lines.push(("connection".to_owned(), named.join(" ,").into()));
        let query = parts.map_or_else(String::new, |parts| format!("?{}", parts.join("&")));
        let mut bytes =
            format!("{} {}{query} HTTP/1.1\r\nhoSt: a.example:80\r\nX-Mark: {mark}\r\n", self.method, self.path)
                .into_bytes();
        for (name, value) in lines {
            bytes.extend([name.as_bytes(), b":", &value, b"\r\n"].concat());
        }
        self.add_body(&mut bytes);
        bytes
    }

    fn add_body(&self, bytes: &mut Vec<u8>) {
        let body = self.body.bytes();
        match &self.body {
            Payload::None => bytes.extend(b"\r\n"),
            Payload::Length(length) => {
                bytes.extend(format!("Content-Length: {length}\r\n\r\n").bytes());
                bytes.extend(body);
            }
            Payload::Chunks { sizes, extension, trailer } => {
                bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                let mut rest = &*body;
                for size in sizes {
                    let (chunk, after) = rest.split_at(*size);
                    bytes.extend(format!("{size:X}{extension}\r\n").bytes());
                    bytes.extend([chunk, b"\r\n"].concat());
                    rest = after;
                }
                bytes.extend(format!("0\r\n{trailer}\r\n").bytes());
            }
        }
    }

    /// The target that should arrive.
    fn target(&self) -> String {
        let added = matches!(self.credential, Credential::Query(..));
        match &self.query {
            None => self.path.clone(),
            Some(parts) if parts.is_empty() && added => self.path.clone(),
            Some(parts) if parts.concat().is_empty() && parts.len() <= 1 && added => self.path.clone(),
            Some(parts) => format!("{}?{}", self.path, parts.join("&")),
        }
    }

    /// The fields that should arrive of those that were sent: by name, in order.
    fn fields(&self) -> BTreeMap<String, Vec<Vec<u8>>> {
        let mut fields = BTreeMap::<String, Vec<Vec<u8>>>::new();
        for line in &self.lines {
            let is_named = |other: &Line| other.named && other.name.eq_ignore_ascii_case(&line.name);
            if line.passes && !self.lines.iter().any(is_named) {
                let value = line.value.trim_ascii().to_vec();
                fields.entry(line.name.to_ascii_lowercase()).or_default().push(value);
            }
        }
        fields
    }
}

/// The fields that are ours: one value each, whatever was sent.
const OURS: &[&str] = &[
    "x-keyward-key-id",
    "x-keyward-access",
    "x-keyward-env",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-request-id",
    "traceparent",
];

/// Names that mean something to servers and proxies, read with `_` as `-`; random lines do not bear them.
const SPECIAL: &[&str] = &[
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "authorization",
    "x-api-key",
    "forwarded",
    "x-mark",
    "http2-settings",
];

/// Names of lines that go no further from an untrusted client, in some spelling.
const DROPPED: &[&str] = &[
    "x-keyward-key-id",
    "x-keyward-organization",
    "x-keyward-scope",
    "x-keyward-user",
    "x-keyward-access",
    "x-keyward-env",
    "x-keyward-",
    "x-keyward-anything",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-real-ip",
    "forwarded",
    "x-original-url",
    "x-rewrite-url",
    "x-http-method-override",
    "x-method-override",
    "x-http-method",
];

/// Names of lines that are of one hop.
const ONE_HOP: &[&str] = &["Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "TE", "Trailer", "HTTP2-Settings"];

const TOKEN: &str = "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,9}";

fn value() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_map(|byte| if matches!(byte, ..0x20 | 0x7f) { b'\t' } else { byte });
    vec(byte, 0..24)
}

fn passing_line() -> impl Strategy<Value = Line> {
    // A few names come often, so that there are several lines of one name.
    let name = prop_oneof![
        select(&["Accept", "accept", "X_y", "x-Y", "Cookie", "Via", "Date"][..]).prop_map(str::to_owned),
        TOKEN.prop_filter("a name that means something", |name| {
            let name = name.to_ascii_lowercase().replace('_', "-");
            !SPECIAL.contains(&&*name) && !DROPPED.contains(&&*name)
        }),
    ];
    (name, value(), any::<u8>()).prop_map(|(name, value, chance)| Line {
        name,
        value,
        passes: true,
        named: chance < 20,
    })
}

/// A name in a random spelling: letters in either case, and `_` for some dashes.
fn dropped_line() -> impl Strategy<Value = Line> {
    let spelled = (select(DROPPED), any::<u64>(), any::<u64>()).prop_map(|(name, upper, low)| {
        let letter = |(at, letter): (usize, char)| match letter {
            '-' if low >> at & 1 == 1 => '_',
            letter if upper >> at & 1 == 1 => letter.to_ascii_uppercase(),
            letter => letter,
        };
        name.chars().enumerate().map(letter).collect::<String>()
    });
    let name = prop_oneof![3 => spelled, 1 => select(ONE_HOP).prop_map(str::to_owned)];
    // A client may name these in `Connection` too; ours must arrive all the same.
    (name, value(), any::<u8>()).prop_map(|(name, value, chance)| Line {
        name,
        value,
        passes: false,
        named: chance < 60,
    })
}

fn query() -> impl Strategy<Value = Option<Vec<String>>> {
    let part = prop_oneof![
        8 => "[a-zA-Z0-9%\\[\\]{}|\\\\^`=+/?:@!$'()*,;~._é-]{0,8}",
        1 => Just(String::new()),
        1 => select(&["a=1", "API_KEY=x", "api_key[]=x", "api%255fkey=x", "x;api_key=y", "%zz=%", "api_key%20=x"][..])
            .prop_map(str::to_owned),
    ];
    option::of(vec(part, 0..6))
}

fn path() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        6 => "[A-Za-z0-9_~!$&'()*+,=:@-]{1,6}",
        1 => select(&["%C3%A9", "a%20b", "%7Euser", "a.b", "...x", ".x", "%3B%23", "\"", "{x}|^"][..]).prop_map(str::to_owned),
    ];
    (vec(segment, 1..4), any::<bool>())
        .prop_map(|(segments, slash)| format!("/{}{}", segments.join("/"), if slash { "/" } else { "" }))
}

fn credential() -> impl Strategy<Value = Credential> {
    let names = select(&["api_key", "api%5Fkey", "api%5fkey", "%61pi_key", "%61%70%69%5F%6B%65%79"][..]);
    let fields = select(
        &[
            ("X-API-Key", ""),
            ("x-api-key", " "),
            ("X-aPi-KeY", "\t"),
            ("Authorization", " Bearer "),
            ("authorization", "bEARER   "),
            ("AUTHORIZATION", "APIKEY:ORGANIZATION "),
        ][..],
    );
    prop_oneof![
        (names, any::<usize>()).prop_map(|(name, place)| Credential::Query(name, place)),
        (fields, any::<usize>()).prop_map(|((name, before), place)| Credential::Field(name, before, place)),
    ]
}

fn payload() -> impl Strategy<Value = Payload> {
    let size = || prop_oneof![6 => 0..300_usize, 1 => 0..LARGEST_BODY];
    let chunk = prop_oneof![9 => 1..300_usize, 1 => 1..LARGEST_BODY / 4];
    let extension = select(&["", ";a=b", ";a=\"b;c\""][..]);
    let trailer = select(&["", "X-Late: 1\r\n", "X-Keyward-Key-Id: forged\r\nContent-Length: 7\r\n"][..]);
    prop_oneof![
        2 => Just(Payload::None),
        2 => size().prop_map(Payload::Length),
        2 => (vec(chunk, 0..4), extension, trailer)
            .prop_map(|(sizes, extension, trailer)| Payload::Chunks { sizes, extension, trailer }),
    ]
}

fn sent() -> impl Strategy<Value = Sent> {
    let method = prop_oneof![
        5 => select(&["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "get"][..]).prop_map(str::to_owned),
        1 => TOKEN.prop_filter("a method that is refused, or has no body", |method| {
            !["TRACE", "CONNECT", "HEAD"].contains(&&**method)
        }),
    ];
    let line = prop_oneof![2 => passing_line(), 1 => dropped_line()];
    (method, path(), query(), vec(line, 0..8), credential(), payload()).prop_map(
        |(method, path, query, lines, credential, body)| Sent { method, path, query, lines, credential, body },
    )
}

/// The program between several clients and an upstream that sends everything back.
struct Rig {
    keyward: Keyward,
    upstream: Upstream,
    key: Key,
    clients: Vec<Client>,
    /// How many requests there have been: each bears its number.
    count: usize,
}

impl Rig {
    fn new() -> Self {
        let upstream = Upstream::scripted(|turn| {
            let body = turn.body()?.bytes;
            let mark = mark(&turn.head);
            let chunked = turn.head.framing() == Framing::Chunked;
            let framing = if chunked {
                "Transfer-Encoding: chunked".to_owned()
            } else {
                format!("Content-Length: {}", body.len())
            };
            let head = format!("HTTP/1.1 200 OK\r\nX-Mark: {mark}\r\n{framing}\r\n");
            turn.wire.send(&[head.as_bytes(), &returned(&turn.head), b"\r\n"].concat())?;
            if chunked {
                for chunk in body.chunks(7000) {
                    turn.wire.send_chunk(chunk)?;
                }
                turn.wire.send_chunk(b"")?;
            } else {
                turn.wire.send(&body)?;
            }
            Ok(After::Keep)
        });
        let site = Site::new(upstream.address(), "log: { access: none }");
        let key = site.create_key(&[]);
        let keyward = site.serve();
        Self { clients: Vec::new(), keyward, upstream, key, count: 0 }
    }

    /// Sends requests, each over its own connection, and compares what arrives on both sides.
    fn check(&mut self, batch: &[Sent]) -> Result<(), String> {
        self.upstream.take();
        while self.clients.len() < AT_ONCE {
            self.clients.push(self.keyward.connect());
        }
        let first = self.count;
        self.count += batch.len();
        for (client, (mark, sent)) in self.clients.iter_mut().zip((first..).zip(batch)) {
            client.send(&sent.bytes(&self.key, mark));
        }
        for (client, (mark, sent)) in self.clients.iter_mut().zip((first..).zip(batch)) {
            let response = client.try_response().map_err(|error| format!("no answer: {error}"))?;
            expect("status", &response.status, &200)?;
            expect("mark", &response.value("x-mark"), &Some(mark.to_string()))?;
            expect("body of the answer", &Bytes(&response.body), &Bytes(&sent.body.bytes()))?;
            let mut fields = by_name(response.head.fields());
            fields
                .retain(|name, _| !SPECIAL.contains(&&**name) && (name != "date" || sent.fields().contains_key(name)));
            expect("fields of the answer", &readable(&fields), &readable(&sent.fields()))?;
        }
        let received = self.upstream.take().into_iter();
        // What a failure has left on its way does not count.
        let received: Vec<(usize, Received)> =
            received.map(|request| (mark(&request.head), request)).filter(|(mark, _)| *mark >= first).collect();
        expect("number of requests", &received.len(), &batch.len())?;
        for (mark, request) in received {
            let sent = &batch[mark - first];
            expect("first line", &request.head.start(), &format!("{} {} HTTP/1.1", sent.method, sent.target()))?;
            // A body without a byte may be framed in any way, or not at all.
            let framing = Some(request.head.framing()).filter(|_| !sent.body.bytes().is_empty());
            expect("framing", &framing, &Some(sent.body.framing()).filter(|_| !sent.body.bytes().is_empty()))?;
            expect("body", &Bytes(&request.body.bytes), &Bytes(&sent.body.bytes()))?;
            expect("trailers", &request.body.trailers, &Vec::new())?;
            self.check_fields(request.head.fields(), sent)?;
        }
        Ok(())
    }

    fn check_fields(&self, received: Vec<(String, Vec<u8>)>, sent: &Sent) -> Result<(), String> {
        let mut fields = by_name(received);
        let mut take = |name: &str| fields.remove(name).unwrap_or_default();
        expect("host", &take("host"), &vec![b"a.example:80".to_vec()])?;
        expect("x-keyward-key-id", &take("x-keyward-key-id"), &vec![self.key.id.as_bytes().to_vec()])?;
        expect("x-forwarded-for", &take("x-forwarded-for"), &vec![b"127.0.0.1".to_vec()])?;
        for name in OURS.iter().filter(|name| !["x-keyward-key-id", "x-forwarded-for"].contains(name)) {
            expect(name, &take(name).len(), &1)?;
        }
        for name in ["x-mark", "content-length", "transfer-encoding"] {
            take(name);
        }
        expect("fields", &readable(&fields), &readable(&sent.fields()))
    }
}

/// Many bytes, of which a failure tells the number.
#[derive(PartialEq, Eq)]
struct Bytes<'b>(&'b [u8]);

impl std::fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes that begin with {:?}", self.0.len(), self.0.get(..8).unwrap_or(self.0))
    }
}

/// The lines of a request that are sent back: all that the client could have sent.
fn returned(head: &Head) -> Vec<u8> {
    let fields = head.fields().into_iter();
    let fields = fields.filter(|(name, _)| !OURS.contains(&&**name) && !SPECIAL.contains(&&**name));
    fields.flat_map(|(name, value)| [name.as_bytes(), b":", &value, b"\r\n"].concat()).collect()
}

fn by_name(fields: Vec<(String, Vec<u8>)>) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut by_name = BTreeMap::<String, Vec<Vec<u8>>>::new();
    for (name, value) in fields {
        by_name.entry(name).or_default().push(value);
    }
    by_name
}

fn mark(head: &Head) -> usize {
    head.value("x-mark").expect("every request has one").parse().unwrap()
}

fn readable(fields: &BTreeMap<String, Vec<Vec<u8>>>) -> Vec<String> {
    let line = |(name, values): (&String, &Vec<Vec<u8>>)| {
        let values: Vec<String> = values.iter().map(|value| value.escape_ascii().to_string()).collect();
        format!("{name}: {values:?}")
    };
    fields.iter().map(line).collect()
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, expected: &T) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("{what}: got {got:?}, not {expected:?}")) }
}

#[test]
fn whatever_is_legal_arrives_as_it_was_sent() {
    let rig = RefCell::new(Rig::new());
    let mut runner = TestRunner::new(Config { cases: BATCHES, failure_persistence: None, ..Config::default() });
    let result = runner.run(&vec(sent(), AT_ONCE), |batch| {
        let mut rig = rig.borrow_mut();
        rig.check(&batch).map_err(|why| {
            // What is left on these connections belongs to the failure.
            rig.clients.clear();
            TestCaseError::fail(why)
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
