//! Any fields and any query as the upstream would get them, held against rules that are written down here once more, and share
//! nothing with the code that they judge.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::header::{HeaderMap, HeaderValue};
use http::{HeaderName, Request};

use super::{Gate, IN_BASE64, NoBody, SECRET, query_and_fields};
use crate::auth::address::{Networks, client_address};
use crate::auth::grant::{Access, Environment, State, Timestamp};
use crate::auth::path::percent_decode;
use crate::auth::route::RequestTarget;
use crate::auth::{Facts, authorize};
use crate::proxy::RouteSettings;
use crate::proxy::forward::{IdentityNames, Origin, edit};
use crate::proxy::reply::{Deny, Format, FormatRule};
use crate::proxy::request_id::RequestIds;
use crate::proxy::trace::Onward;
use crate::replica::{Change, KeyFacts, Replica, View};

/// Where requests are let in, and edited.
struct Stage {
    gate: Gate,
    replica: Arc<Replica>,
    names: IdentityNames,
    settings: RouteSettings,
    trusted: Networks,
}

/// The key's id.
const ID: &str = "k1";

impl Stage {
    fn new() -> Option<Self> {
        let gate = Gate::new();
        let (replica, mut writer) = Replica::new(Duration::from_secs(1 << 32));
        let digest = gate.locksmith.format.parse(SECRET)?.digest(&gate.locksmith.pepper);
        let facts = KeyFacts {
            name: "Example".to_owned(),
            user: None,
            owner: None,
            parent: None,
            scope: None,
            environment: Environment::Live,
            access: Access::ReadWrite,
            networks: Networks::default(),
            limit: None,
            expires_at: Timestamp::NEVER,
            state: State::Active,
        };
        let secret = Change::Secret { digest, key: ID.into(), not_after: Timestamp::NEVER };
        writer.apply([Change::Key(ID.into(), facts), secret]);
        writer.prove(Instant::now());
        let deny = Deny { format: FormatRule::Negotiated(Format::Xml), status: None, body: None };
        let settings =
            RouteSettings { pattern: None, deny, forward_credential: false, inject: Vec::new(), trailers: None };
        let trusted = Networks::parse(["10.0.0.0/8", "fc00::/7"]).ok()?;
        Some(Self { gate, replica, names: IdentityNames::new("X-Keyward-")?, settings, trusted })
    }
}

/// Who is not trusted is who connects; who is trusted names one address in its canonical form, or none. What goes out is what
/// came in without what is of one hop, says who somebody is or presents a key, and with what we say once.
pub fn forwarding(data: &[u8]) {
    judge(data, |_| ());
}

/// What a fault of ours would do to a request.
type Fault = fn(&mut Request<NoBody>);

/// Judges what goes out, after some fault.
fn judge(data: &[u8], fault: Fault) {
    static STAGE: OnceLock<Option<Stage>> = OnceLock::new();
    let Some(stage) = STAGE.get_or_init(Stage::new) else { unreachable!("all of it is as in the example") };
    let (query, headers) = query_and_fields(data);
    let view = stage.replica.view(Instant::now());
    for peer in [[192, 0, 2, 1], [10, 0, 0, 1]] {
        let peer = IpAddr::from(peer);
        let client = client_address(peer, &headers, &stage.trusted);
        assert!(stage.trusted.contains(peer) || client == Some(peer), "{headers:?}");
        assert!(client.is_none_or(|client| client == client.to_canonical()), "{headers:?}");
        for path in ["/x", "/public/x"] {
            let target = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
            let Ok(mut request) = Request::get(target).body(NoBody) else { continue };
            *request.headers_mut() = headers.clone();
            stage.pass(request, peer, client, &view, fault);
        }
    }
}

impl Stage {
    /// Lets a request in if it may, and judges what goes out.
    fn pass(&self, mut request: Request<NoBody>, peer: IpAddr, client: Option<IpAddr>, view: &View, fault: Fault) {
        let (sent, query) = (request.headers().clone(), request.uri().query().unwrap_or_default().to_owned());
        let target = RequestTarget { method: request.method(), uri: request.uri(), headers: request.headers() };
        let matched = self.gate.routes.find(&target);
        let facts =
            Facts { method: request.method(), query: request.uri().query(), headers: request.headers(), client };
        let Ok(permit) = authorize(&facts, &matched, &self.gate.locksmith, view, Timestamp::from_millis(1)) else {
            return;
        };
        let is_public = permit.grant().is_none();
        let Ok(peer_value) = HeaderValue::try_from(peer.to_string()) else { return };
        let (id, default_host) = (RequestIds::default().next(), HeaderValue::from_static("default"));
        let trusted = Some(&self.trusted).filter(|trusted| trusted.contains(peer));
        let (peer, onward, default_host) = (&peer_value, Onward::Passed, &default_host);
        let origin = Origin { peer, trusted, is_secure: false, client, id: &id, onward, default_host };
        if edit(&mut request, permit, &self.settings, &self.names, view, &origin).is_err() {
            return;
        }
        fault(&mut request);
        let out = request.headers();
        let judge = Judge { sent: &sent, out, is_trusted: trusted.is_some(), is_public };
        judge.passing_fields();
        judge.who_it_is(&id.to_value());
        judge.where_it_is_from(&peer_value, &self.trusted);
        judge.no_key(&query, request.uri().query().unwrap_or_default());
    }
}

/// What came, and what goes out.
struct Judge<'r> {
    sent: &'r HeaderMap,
    out: &'r HeaderMap,
    is_trusted: bool,
    is_public: bool,
}

/// RFC 9110 section 7.6.1 and its predecessors, and what we have answered ourselves.
const OF_ONE_HOP: &[&str] = &[
    "connection",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What leads servers to another path or method than the one that was judged.
const LEADS_ELSEWHERE: &[&str] =
    &["x-original-url", "x-rewrite-url", "x-http-method", "x-http-method-override", "x-method-override"];

/// What is judged by rules of its own: presented keys, what we say, and what is no name where `Connection` lists names.
const OF_THEIR_OWN: &[&str] = &[
    "authorization",
    "close",
    "host",
    "referer",
    "traceparent",
    "tracestate",
    "x-api-key",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

/// A name as the most careless server reads it.
fn careless(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

impl Judge<'_> {
    fn values<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Vec<&'h [u8]> {
        headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
    }

    fn out(&self, name: &str) -> Vec<&[u8]> {
        self.out.get_all(name).iter().map(HeaderValue::as_bytes).collect()
    }

    /// Whether a field passes as it is.
    fn passes(&self, name: &str) -> bool {
        let read = careless(name);
        let lists = self.sent.get_all("connection").iter().map(|list| list.as_bytes().to_ascii_lowercase());
        let is_named = name != "host"
            && name != "content-length"
            && lists
                .flat_map(|list| list.split(|byte| *byte == b',').map(|n| n.trim_ascii().to_vec()).collect::<Vec<_>>())
                .any(|named| named == name.as_bytes());
        let says_from_where = read == "forwarded" || read == "x-real-ip" || read.starts_with("x-forwarded-");
        let is_twin = read != name && (read == "content-length" || read == "x-request-id" || says_from_where);
        let is_ours = read.starts_with("x-keyward-");
        let is_dropped = OF_ONE_HOP.contains(&&*read) || LEADS_ELSEWHERE.contains(&&*read) || read == "forwarded";
        !is_named && !is_twin && !is_ours && !is_dropped && (self.is_trusted || !says_from_where)
    }

    fn passing_fields(&self) {
        for name in self.sent.keys().filter(|name| !OF_THEIR_OWN.contains(&name.as_str())) {
            let passed = if self.passes(name.as_str()) { Self::values(self.sent, name) } else { Vec::new() };
            let is_ours = name.as_str().starts_with("x-keyward-");
            assert!(is_ours || Self::values(self.out, name) == passed, "{name}: {:?} of {:?}", self.out, self.sent);
        }
        for name in self.out.keys().map(HeaderName::as_str) {
            let is_known =
                self.sent.contains_key(name) || name.starts_with("x-keyward-") || OF_THEIR_OWN.contains(&name);
            assert!(is_known, "{name} out of nowhere: {:?} of {:?}", self.out, self.sent);
        }
    }

    /// Each of our fields is there once, in no other spelling, and says what we say.
    fn who_it_is(&self, id: &HeaderValue) {
        let mut ours: Vec<_> =
            self.out.iter().filter(|(name, _)| careless(name.as_str()).starts_with("x-keyward-")).collect();
        ours.sort_by_key(|(name, _)| name.as_str());
        let ours: Vec<_> = ours.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let expected =
            [("x-keyward-access", &b"read-write"[..]), ("x-keyward-env", b"live"), ("x-keyward-key-id", ID.as_bytes())];
        assert_eq!(ours, if self.is_public { &[][..] } else { &expected }, "{:?}", self.sent);
        assert_eq!(self.out("x-request-id"), [id.as_bytes()], "{:?}", self.sent);
        let parents = self.out("traceparent");
        assert!(parents.len() == 1 && parents[0].len() >= 55, "{:?}", self.out);
    }

    /// The last hop is the peer; before it stand one client, known or not, and proxies.
    fn where_it_is_from(&self, peer: &HeaderValue, trusted: &Networks) {
        let lists = self.out("x-forwarded-for");
        let list = lists.first().and_then(|list| std::str::from_utf8(list).ok()).unwrap_or_default();
        let hops: Vec<&str> = list.split(", ").collect();
        assert!(
            lists.len() == 1 && hops.last().is_some_and(|last| last.as_bytes() == peer.as_bytes()),
            "{:?}",
            self.out
        );
        assert!(self.is_trusted || hops.len() == 1, "{:?}", self.out);
        let is_proxy = |hop: &&str| hop.parse().is_ok_and(|hop| trusted.contains(hop));
        assert!(hops.iter().skip(1).rev().skip(1).all(is_proxy), "{:?} of {:?}", self.out, self.sent);
        assert!(hops[0] == "unknown" || hops[0].parse::<IpAddr>().is_ok(), "{:?} of {:?}", self.out, self.sent);
        assert!(self.is_trusted || !self.out.contains_key("x-real-ip"), "{:?}", self.out);
        let [protocols, hosts] = ["x-forwarded-proto", "x-forwarded-host"].map(|name| self.out(name));
        assert!(protocols == [b"http"] || self.is_trusted && !protocols.is_empty(), "{:?}", self.out);
        let host = self.out("host");
        assert!(hosts == host[..host.len().min(1)] || self.is_trusted && !hosts.is_empty(), "{:?}", self.out);
    }

    /// No key is where keys are presented, and no other parameter has changed.
    fn no_key(&self, sent: &str, out: &str) {
        for (name, value) in ["authorization", "x-api-key"]
            .iter()
            .flat_map(|name| self.out(name).into_iter().map(move |value| (*name, value)))
        {
            assert!(!presents(name, value), "{:?} of {:?}", self.out, self.sent);
        }
        let others = |query: &str| -> Vec<String> {
            parameters(query).into_iter().filter(|(name, ..)| name != b"api_key").map(|(.., part)| part).collect()
        };
        assert_eq!(others(sent), others(out), "of {sent:?}");
        let has_key =
            |query: &str| parameters(query).iter().any(|(name, value, _)| name == b"api_key" && value == SECRET);
        assert!(!has_key(out), "{out:?} of {sent:?}");
        assert!(self.is_public || !parameters(out).iter().any(|(name, ..)| name == b"api_key"), "{out:?} of {sent:?}");
        let pages = self.out("referer").into_iter().map(String::from_utf8_lossy);
        let mut queries = pages.filter_map(|page| page.split_once('?').map(|(_, query)| query.to_owned()));
        assert!(!queries.any(|query| has_key(&query)), "{:?} of {:?}", self.out, self.sent);
    }
}

/// Whether a field is the key, in one of the forms that keys have.
fn presents(name: &str, value: &[u8]) -> bool {
    if value == SECRET || name == "x-api-key" {
        return value == SECRET;
    }
    let text = String::from_utf8_lossy(value).to_ascii_lowercase();
    let key = String::from_utf8_lossy(SECRET);
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    matches!(words[..], ["bearer" | "apikey:organization", word] if word == key)
        || value.ends_with(IN_BASE64) && words[0] == "basic"
}

/// The parameters of a query: the name and the value, decoded, and all of it as it is.
fn parameters(query: &str) -> Vec<(Vec<u8>, Vec<u8>, String)> {
    let decoded = |text: &str| percent_decode(text.replace('+', " ").as_bytes()).into_owned();
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decoded(name), decoded(value), part.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    const SENT: &[u8] =
        b"a=1&api_key=7e14204fcce1e00152b4\nAccept: a\nKeep-Alive: 5\nX-A: b\nConnection: x-a, keep-alive\n\
        TE: trailers\nX-Keyward-User: forged\nX_Keyward.User: forged\nX-Forwarded-For: 9.9.9.9\nX-Original-Url: /y";

    const FAULTS: &[(&str, Fault)] = &[
        ("of one hop", |out| append(out, "keep-alive", "5")),
        ("of one hop too", |out| append(out, "te", "trailers")),
        ("named by Connection", |out| append(out, "x-a", "b")),
        ("forged", |out| append(out, "x-keyward-user", "forged")),
        ("forged in another spelling", |out| append(out, "x_keyward.user", "forged")),
        ("ours, twice", |out| append(out, "x-request-id", "a")),
        ("a trace, twice", |out| append(out, "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
        ("an address, twice", |out| append(out, "x-forwarded-for", "9.9.9.9")),
        ("another path", |out| append(out, "x-original-url", "/y")),
        ("out of nowhere", |out| append(out, "x-new", "a")),
        ("a value more", |out| append(out, "accept", "b")),
        ("lost", |out| drop(out.headers_mut().remove("accept"))),
        ("nobody's", |out| drop(out.headers_mut().remove("x-keyward-key-id"))),
        ("a key", |out| append(out, "authorization", "Bearer 7e14204fcce1e00152b4")),
        ("a key in the query", |out| *out.uri_mut() = http::Uri::from_static("/x?a=1&api_key=7e14204fcce1e00152b4")),
        ("a parameter lost", |out| *out.uri_mut() = http::Uri::from_static("/x")),
    ];

    fn append(out: &mut Request<NoBody>, name: &'static str, value: &'static str) {
        out.headers_mut().append(name, HeaderValue::from_static(value));
    }

    #[test]
    fn each_fault_is_noticed() {
        judge(SENT, |_| ());
        for (what, fault) in FAULTS {
            assert!(catch_unwind(|| judge(SENT, *fault)).is_err(), "{what}");
        }
    }
}
