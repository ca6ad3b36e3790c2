//! What reaches the upstream of a request: who sent it as we know it, never as the client says; the path as it came, or not at
//! all; and no credential.

mod messages; // where messages begin and end, on one connection after another
mod random; // ten thousand requests, compared byte for byte
mod trailers; // what may stand behind a body

use super::support::wire::find;
use super::support::{After, Key, Keyward, Site, Upstream, ok, request};

const CONFIG: &str = r#"
routes:
  - { path: "/public/{*rest}", auth: none }
  - { path: "/injected/{*rest}", inject: { header: { X-Remote-User: user, X-Key-Name: key-name } } }
  - { path: "/kept/{*rest}", credentials: { forward: true } }
"#;

/// An upstream, Keyward before it, and a key that has no scope and no user.
fn serve(config: &str) -> (Upstream, Keyward, Key) {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), &format!("{CONFIG}\n{config}"));
    let key = site.create_key(&[]);
    (upstream, site.serve(), key)
}

/// Every spelling that some server takes for this name: letters in either case, `_` for `-`.
fn spellings(name: &str) -> Vec<String> {
    let mixed = |at: usize, c: char| if at.is_multiple_of(2) { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
    let first_low = name.replacen('-', "_", 1);
    let last_low = name.rfind('-').map(|at| format!("{}_{}", &name[..at], &name[at + 1..])).unwrap_or_default();
    let mixed = name.chars().enumerate().map(|(at, c)| mixed(at, c)).collect();
    vec![
        name.to_owned(),
        name.to_lowercase(),
        name.to_uppercase(),
        mixed,
        name.replace('-', "_"),
        name.to_uppercase().replace('-', "_"),
        first_low,
        last_low,
    ]
}

#[test]
fn identity_headers_cannot_be_forged() {
    let (upstream, keyward, key) = serve("");
    for name in ["Key-Id", "Organization", "Scope", "Access", "Env", "User", "Key-Name", "Anything", "Key-Id-2", ""] {
        for spelling in spellings(&format!("X-Keyward-{name}")) {
            for (path, own) in [("/private", Some(&*key.id)), ("/public/x", None)] {
                let bearer = key.bearer();
                let fields = [("Authorization", &*bearer), (&*spelling, "forged"), (&*spelling, "twice")];
                assert_eq!(keyward.get(path, &fields).status, 200, "{spelling}");
                let head = upstream.only().head;
                assert_eq!(find(head.raw(), b"forged"), None, "{spelling} {path}: {head:?}");
                assert_eq!(find(head.raw(), b"twice"), None, "{spelling} {path}");
                assert_eq!(head.value("x-keyward-key-id").as_deref(), own);
                for absent in ["organization", "scope", "user"] {
                    assert_eq!(head.value(&format!("x-keyward-{absent}")), None);
                }
            }
        }
    }
}

#[test]
fn injected_headers_cannot_be_forged() {
    let (upstream, keyward, key) = serve("");
    for spelling in ["X-Remote-User", "X-Key-Name"].into_iter().flat_map(spellings) {
        let bearer = key.bearer();
        let fields = [("Authorization", &*bearer), (&*spelling, "forged"), ("Connection", &*spelling)];
        for fields in [&fields[..2], &fields] {
            assert_eq!(keyward.get("/injected/x", fields).status, 200, "{spelling}");
            let head = upstream.only().head;
            assert_eq!(find(head.raw(), b"forged"), None, "{spelling}");
            assert_eq!((head.value("x-remote-user"), head.value("x-key-name")), (None, Some("Example".to_owned())));
        }
    }
}

#[test]
fn connection_cannot_name_our_headers_away() {
    let (upstream, keyward, key) = serve("");
    for name in ["X-Keyward-Key-Id", "X-Keyward-Access", "X-Forwarded-For", "X-Request-Id", "Traceparent", "Host"] {
        for connection in [
            name.to_owned(),
            name.to_lowercase(),
            name.to_uppercase(),
            format!("close, {name}"),
            format!("keep-alive,{name} ,"),
            format!("{name}\r\nConnection: {name}"),
        ] {
            let bearer = key.bearer();
            let response = keyward.get("/x", &[("Authorization", &bearer), ("Connection", &connection)]);
            assert_eq!(response.status, 200, "{connection}");
            let head = upstream.only().head;
            assert!(head.value(&name.to_lowercase()).is_some(), "{connection}: {head:?}");
            assert_eq!(head.value("connection"), None);
        }
    }
    // Of the client's own it takes what it names, but not what frames or routes the message.
    let bearer = key.bearer();
    let fields = [
        ("Authorization", &*bearer),
        ("Connection", "x-one, Content-Length, Authorization, X-TWO"),
        ("X-One", "1"),
        ("x-two", "2"),
        ("X-Three", "3"),
    ];
    assert_eq!(keyward.send(&request("POST", "/x", &fields, b"body")).status, 200);
    let received = upstream.only();
    assert_eq!((received.head.value("x-one"), received.head.value("x-two")), (None, None));
    assert_eq!((received.head.value("x-three").as_deref(), &*received.body.bytes), (Some("3"), &b"body"[..]));
}

#[test]
fn the_upstream_is_told_who_calls() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), CONFIG);
    let scope = "organization:acme/project:p1";
    let key =
        site.create_key(&["--scope", scope, "--read-only", "--env", "test", "--user", "jo", "--name", "Jo's key"]);
    let keyward = site.serve();
    keyward.with_key(&key, "GET", "/injected/x");
    let head = upstream.only().head;
    for (name, expected) in [
        ("x-keyward-key-id", &*key.id),
        ("x-keyward-organization", "acme"),
        ("x-keyward-scope", scope),
        ("x-keyward-access", "read-only"),
        ("x-keyward-env", "test"),
        ("x-keyward-user", "jo"),
        ("x-remote-user", "jo"),
        ("x-key-name", "Jo's key"),
    ] {
        assert_eq!(head.value(name).as_deref(), Some(expected), "{name}");
    }
}

/// Sends fields and gives what arrives of those that say where a request comes from.
#[track_caller]
fn origin(upstream: &Upstream, keyward: &Keyward, fields: &[(&str, &str)]) -> Vec<String> {
    assert_eq!(keyward.get("/public/x", fields).status, 200, "{fields:?}");
    let head = upstream.only().head;
    let names = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "x-real-ip"];
    names.iter().map(|name| head.value(name).unwrap_or_else(|| "-".to_owned())).collect()
}

#[test]
fn an_untrusted_client_says_nothing_of_where_it_is() {
    let (upstream, keyward, _) = serve("");
    for fields in [
        &[][..],
        &[("X-Forwarded-For", "1.2.3.4")],
        &[("X-Forwarded-For", "1.2.3.4, 5.6.7.8"), ("X-Forwarded-For", "9.9.9.9")],
        &[("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil"), ("X-Forwarded-Port", "1")],
        &[("Forwarded", "for=1.2.3.4;proto=https;host=evil"), ("X-Real-IP", "1.2.3.4")],
        &[("X_Forwarded_For", "1.2.3.4"), ("x-forwarded_for", "1.2.3.4"), ("X_Real_IP", "1.2.3.4")],
    ] {
        let expected = ["127.0.0.1", "http", "media.example", "-", "-"];
        assert_eq!(origin(&upstream, &keyward, fields), expected, "{fields:?}");
    }
    keyward.get("/public/x", &[("X_Forwarded_For", "1.2.3.4"), ("X-Forwarded-Port", "1")]);
    let raw = String::from_utf8_lossy(upstream.only().head.raw()).to_lowercase();
    assert!(!raw.contains("x_forwarded_for") && !raw.contains("x-forwarded-port"), "{raw}");
}

#[test]
fn a_trusted_proxy_is_believed_and_continued() {
    let (upstream, keyward, _) = serve("proxy: { trusted_proxies: [127.0.0.0/8] }");
    for (fields, expected) in [
        (&[][..], ["127.0.0.1", "http", "media.example", "-", "-"]),
        (&[("X-Forwarded-For", "1.2.3.4")], ["1.2.3.4, 127.0.0.1", "http", "media.example", "-", "-"]),
        (
            &[("X-Forwarded-For", "9.9.9.9, 1.2.3.4"), ("X-Forwarded-For", "5.6.7.8")],
            ["5.6.7.8, 127.0.0.1", "http", "media.example", "-", "-"],
        ),
        // What stands left of the client is its own claim, and behind a hop that cannot be read nobody knows more.
        (
            &[("X-Forwarded-For", "127.9.9.9, 1.2.3.4:80, ::ffff:127.0.0.3, 127.0.0.2")],
            ["1.2.3.4, 127.0.0.3, 127.0.0.2, 127.0.0.1", "http", "media.example", "-", "-"],
        ),
        (
            &[("X-Forwarded-For", "1.2.3.4, <script>, 127.0.0.2")],
            ["unknown, 127.0.0.2, 127.0.0.1", "http", "media.example", "-", "-"],
        ),
        (
            &[("X-Forwarded-For", "1.2.3.4"), ("Forwarded", "for=5.6.7.8")],
            ["unknown, 127.0.0.1", "http", "media.example", "-", "-"],
        ),
        (
            &[("Forwarded", "for=9.9.9.9, for=\"[2001:db8::1]:4711\", for=127.0.0.2")],
            ["2001:db8::1, 127.0.0.2, 127.0.0.1", "http", "media.example", "-", "-"],
        ),
        (
            &[("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "www.example")],
            ["127.0.0.1", "https", "www.example", "-", "-"],
        ),
        // What a balancer passes on of the client's own is made what was found to be true.
        (&[("X-Real-IP", "10.0.0.1")], ["127.0.0.1", "http", "media.example", "-", "127.0.0.1"]),
        (
            &[("X-Real-IP", "10.0.0.1"), ("X-Forwarded-For", "9.9.9.9, 1.2.3.4")],
            ["1.2.3.4, 127.0.0.1", "http", "media.example", "-", "1.2.3.4"],
        ),
        (
            &[("X-Real-IP", "10.0.0.1"), ("X-Forwarded-For", "unknown")],
            ["unknown, 127.0.0.1", "http", "media.example", "-", "-"],
        ),
        (&[("X_Forwarded_For", "1.2.3.4")], ["127.0.0.1", "http", "media.example", "-", "-"]),
    ] {
        assert_eq!(origin(&upstream, &keyward, fields), expected, "{fields:?}");
    }
}

#[test]
fn every_request_has_an_id_and_a_trace() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    for (config, trusted) in [("", false), ("proxy: { trusted_proxies: [127.0.0.1] }", true)] {
        let (upstream, keyward, _) = serve(config);
        let ids = |fields: &[(&str, &str)]| {
            assert_eq!(keyward.get("/public/x", fields).status, 200);
            let head = upstream.only().head;
            (head.value("x-request-id").unwrap(), head.value("traceparent").unwrap())
        };
        let (id, parent) = ids(&[]);
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert_eq!(parent[..36], format!("00-{id}-"), "a trace that begins here is named after its request");
        assert_ne!(ids(&[]).0, id, "no two have the same");
        let (given, parent) = ids(&[("X-Request-Id", "from-the-edge.1"), ("traceparent", trace)]);
        assert_eq!(given == "from-the-edge.1", trusted, "{given}");
        assert_eq!(parent, trace);
        for bad in ["", "a b", "\"<x>\"", &"x".repeat(129)] {
            let (made, parent) = ids(&[("X-Request-Id", bad), ("traceparent", bad)]);
            assert_eq!((made.len(), parent.len()), (32, 55), "{bad}");
        }
        assert_eq!(ids(&[("X_Request_Id", "forged"), ("traceparent", "x")]).0.len(), 32);
        for two in [["x", trace], [trace, "x"], [trace, trace]] {
            let lines = two.map(|parent| ("traceparent", parent));
            assert_eq!(keyward.get("/public/x", &[&lines[..], &[("tracestate", "a=1")]].concat()).status, 200);
            let head = upstream.only().head;
            let begun = format!("00-{}-", head.value("x-request-id").unwrap());
            assert!(head.value("traceparent").unwrap().starts_with(&begun), "{head:?}");
            assert_eq!((head.values("traceparent").len(), head.values("tracestate").len()), (1, 0), "two are none");
        }
        assert_eq!(keyward.get("/public/x", &[("X_Request_Id", "forged")]).status, 200);
        assert_eq!(find(upstream.only().head.raw(), b"forged"), None);

        // The log and a refused client hear of the same id.
        let told = keyward.get("/private", &[]).value("x-request-id").unwrap();
        let in_log = || String::from_utf8_lossy(&keyward.output()).contains(&format!("\"request.id\":\"{told}\""));
        crate::support::until("the log has the request", in_log);
    }
}

#[test]
fn what_could_lead_elsewhere_goes_no_further() {
    let (upstream, keyward, key) = serve("proxy: { trusted_proxies: [127.0.0.1] }");
    for name in ["X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"] {
        for spelling in spellings(name) {
            let response = keyward.get("/x", &[("Authorization", &key.bearer()), (&spelling, "DELETE")]);
            assert_eq!(response.status, 200);
            assert_eq!(find(upstream.only().head.raw(), b"DELETE"), None, "{spelling}");
        }
    }
}

/// Paths that servers read differently.
const AMBIGUOUS: &[&str] = &[
    "/public/../private",
    "/public/./x",
    "/public/..",
    "/public//x",
    "//public/x",
    "/public/%2e%2e/private",
    "/public/%2E./private",
    "/public%2f..%2fprivate",
    "/public/x%5c..",
    "/public/\\..\\private",
    "/public/x;jsessionid=1",
    "/public/%252e%252e/x",
    "/public/%00",
    "/public/%",
    "/public/%zz",
    "/public/%u002f",
    "/public/\u{e9}",
];

#[test]
fn ambiguous_paths_are_refused() {
    let (upstream, keyward, key) = serve("");
    for path in AMBIGUOUS {
        for fields in [&[][..], &[("Authorization", &*key.bearer())]] {
            let response = keyward.get(path, fields);
            assert_eq!(response.status, 400, "{path}: {}", response.text());
            upstream.expect_nothing();
        }
    }
}

#[test]
fn ambiguous_paths_are_protected_where_they_are_let_through() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), &format!("{CONFIG}\nproxy: {{ paths: lenient }}"));
    let unbound = site.create_key(&[]);
    let read_only = site.create_key(&["--read-only"]);
    let scoped = site.create_key(&["--scope", "organization:acme"]);
    let keyward = site.serve();
    for path in AMBIGUOUS {
        assert_eq!(keyward.get(path, &[]).status, 401, "{path}");
        assert_eq!(keyward.with_key(&read_only, "GET", path).status, 403, "{path} counts as a write");
        assert_eq!(keyward.with_key(&scoped, "GET", path).status, 403, "{path} is outside every scope");
        upstream.expect_nothing();
        assert_eq!(keyward.with_key(&unbound, "GET", path).status, 200, "{path}");
        assert_eq!(upstream.only().head.target(), *path, "what was judged is what is forwarded");
    }
}

/// r6. hyper drops it, and a server behind may not.
#[test]
fn a_fragment_is_refused_whoever_sends_it_and_wherever() {
    let (upstream, keyward, key) = serve("proxy: { paths: lenient }");
    const FRAGMENTS: &[&str] =
        &["/x#/../private", "/x?a=1#b&api_key=y", "/public/x#", "/private#/public/x", "http://a/x#"];
    for target in FRAGMENTS {
        for value in [&*key.value, "wrong", ""] {
            let response = keyward.get(target, &[("X-API-Key", value)]);
            assert_eq!((response.status, response.value("connection").as_deref()), (400, Some("close")), "{target}");
            assert!(response.value("x-request-id").is_some(), "{target}: found in the log");
        }
    }
    let count = keyward.metric("keyward_requests_total{code=\"4xx\",decision=\"error\",reason=\"bad_request\"}");
    assert_eq!(count, FRAGMENTS.len() as f64 * 3.0);
    upstream.expect_nothing();
}

/// The same text where it is no target, and pipelined, in pieces as they come.
#[test]
fn a_number_sign_elsewhere_is_a_byte_like_any_other() {
    let (upstream, keyward, key) = serve("");
    let body = "GET /x#y HTTP/1.1\r\nHost: a\r\n\r\n";
    let fields = [("X-API-Key", &*key.value), ("Cookie", "a=#")];
    let mut bytes = request("POST", "/one", &fields, body.as_bytes());
    let chunked =
        format!("POST /two HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\nTransfer-Encoding: chunked\r\n\r\n", key.value);
    bytes.extend(format!("{chunked}{:x};#\r\n{body}\r\n0\r\n\r\n", body.len()).bytes());
    bytes.extend(request("GET", "/three", &fields, b""));
    for piece in [bytes.len(), 1, 11] {
        let mut client = keyward.connect();
        for piece in bytes.chunks(piece) {
            client.send(piece);
        }
        let statuses: Vec<u16> = (0..3).map(|_| client.response().status).collect();
        assert_eq!(statuses, [200; 3], "in pieces of {piece}");
        let received = upstream.take();
        let received: Vec<_> = received.iter().map(|one| (one.head.target(), &*one.body.bytes)).collect();
        let expected = [("/one", body), ("/two", body), ("/three", "")];
        assert_eq!(received, expected.map(|(target, body)| (target.to_owned(), body.as_bytes())));
        // And behind all that, a fragment is found.
        client.send(&request("GET", "/four#", &fields, b""));
        assert_eq!(client.response().status, 400);
        assert!(client.is_closed());
        upstream.expect_nothing();
    }
}

#[test]
fn two_credentials_are_one_too_many() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "credentials: { bare: true }");
    let (one, other) = (site.create_key(&[]), site.create_key(&["--read-only"]));
    let keyward = site.serve();
    let basic = |value: &str| {
        use base64::Engine as _;
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{value}:")))
    };
    let forms = |value: &str| -> Vec<(String, String)> {
        let authorization =
            [format!("Bearer {value}"), format!("APIKEY:ORGANIZATION {value}"), basic(value), value.to_owned()];
        let mut forms: Vec<_> = authorization.map(|line| ("Authorization".to_owned(), line)).into();
        forms.extend([("X-API-Key".to_owned(), value.to_owned()), ("?".to_owned(), format!("api_key={value}"))]);
        forms
    };
    let send = |presented: &[&(String, String)]| {
        let query: Vec<&str> = presented.iter().filter(|(name, _)| name == "?").map(|(_, value)| &**value).collect();
        let fields = presented.iter().filter(|(name, _)| name != "?").map(|(name, value)| (&**name, &**value));
        keyward.get(&format!("/x?{}", query.join("&")), &fields.collect::<Vec<_>>()).status
    };
    for first in forms(&one.value) {
        assert_eq!(send(&[&first]), 200, "{first:?}");
        let head = upstream.only().head;
        assert_eq!(find(head.raw(), one.value.as_bytes()), None);
        for second in [&one.value, &other.value, "wrong"].into_iter().flat_map(forms) {
            assert_eq!(send(&[&first, &second]), 400, "{first:?} {second:?}");
            assert_eq!(send(&[&second, &first]), 400, "{second:?} {first:?}");
            upstream.expect_nothing();
        }
    }
}

#[test]
fn on_public_routes_only_our_own_keys_are_removed() {
    let (upstream, keyward, key) = serve("");
    let branded = "kw_live_not-a-key-but-it-bears-our-brand";
    for (ours, theirs) in [
        (("Authorization", key.bearer()), ("X-API-Key", "theirs")),
        (("X-API-Key", key.value.clone()), ("Authorization", "Bearer theirs")),
        (("X-API-Key", branded.to_owned()), ("X-API-Key", "theirs")),
        (("Authorization", format!("Bearer {branded}")), ("Authorization", "Digest theirs")),
        (("X-API-Key", key.value.clone()), ("Authorization", "Basic YWRtaW46aGFja21l")),
    ] {
        let response = keyward.get("/public/x?api_key=theirs", &[(ours.0, &ours.1), theirs]);
        assert_eq!(response.status, 200, "{ours:?}");
        let head = upstream.only().head;
        assert_eq!(head.target(), "/public/x?api_key=theirs");
        assert_eq!(head.values(&theirs.0.to_lowercase()), [theirs.1], "{ours:?}");
        assert_eq!(find(head.raw(), ours.1.as_bytes()), None);
        assert_eq!(head.value("x-keyward-key-id"), None, "a key on a public route identifies nobody");
    }
}

#[test]
fn the_upstreams_own_password_passes_beside_a_key() {
    let (upstream, keyward, key) = serve("");
    for password in ["Basic YWRtaW46aGFja21l", "Digest username=\"a\", response=\"b\"", "Negotiate YII", "AWS4 x=y"] {
        let response = keyward.get("/x", &[("Authorization", password), ("X-API-Key", &key.value)]);
        assert_eq!(response.status, 200, "{password}");
        let head = upstream.only().head;
        assert_eq!((head.value("authorization").as_deref(), head.value("x-api-key")), (Some(password), None));
        assert_eq!(keyward.get("/x", &[("Authorization", password)]).status, 401, "it is no key");
        upstream.expect_nothing();
    }
}

#[test]
fn a_credential_stays_where_a_route_says_so() {
    let (upstream, keyward, key) = serve("");
    let bearer = key.bearer();
    assert_eq!(keyward.get("/kept/x", &[("Authorization", &bearer)]).status, 200);
    let head = upstream.only().head;
    assert_eq!(head.value("authorization"), Some(bearer));
    assert_eq!(head.value("x-keyward-key-id"), Some(key.id.clone()));
    let target = format!("/kept/x?a=1&api_key={}&", key.value);
    assert_eq!(keyward.get(&target, &[]).status, 200);
    assert_eq!(upstream.only().head.target(), target);
}

#[test]
fn what_is_of_one_hop_is_not_passed_back_either() {
    let answer = "HTTP/1.1 200 OK\r\nConnection: X-One, keep-alive\r\nX-One: 1\r\nX-Two: 2\r\nKeep-Alive: timeout=5\r\n\
        Proxy-Connection: keep-alive\r\nUpgrade: h2c\r\nProxy-Authenticate: Basic\r\nTrailer: X-Late\r\n\
        Content-Length: 2\r\n\r\nok";
    let upstream = Upstream::scripted(move |turn| turn.answer(answer.as_bytes()));
    let keyward = Site::new(upstream.address(), CONFIG).serve();
    let response = keyward.get("/public/x", &[]);
    let mut names: Vec<String> = response.head.fields().into_iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(names, ["content-length", "date", "x-two"]);
    assert_eq!(response.text(), "ok");
}

#[test]
fn an_answer_that_says_it_is_the_last_ends_only_the_upstreams_connection() {
    let upstream = Upstream::scripted(|turn| {
        turn.answer(&[&ok("x")[..17], b"Connection: close\r\n", &ok("x")[17..]].concat())?;
        Ok(After::Close)
    });
    let keyward = Site::new(upstream.address(), CONFIG).serve();
    let mut client = keyward.connect();
    for _ in 0..3 {
        let response = client.exchange(&request("GET", "/public/x", &[], b""));
        assert_eq!((response.status, response.value("connection")), (200, None));
    }
    assert_eq!(upstream.connections(), 3);
}
