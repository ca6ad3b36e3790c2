//! B29: a key must not turn up where it is not looked for. One key is presented in every way, rightly and wrongly, and then
//! everything that Keyward has written is searched for it.

use super::support::wire::find;
use super::support::{After, Key, Keyward, Site, Upstream, request};

const CONFIG: &str = r#"
log: { level: trace, access: all }
credentials: { bare: true }
routes:
  - { path: "/public/{*rest}", auth: none }
  - { path: "/orgs/{organization}/{*rest}" }
"#;

/// Fields that present a key, `@`, in all forms, well and badly.
const FIELDS: &[(&str, &str)] = &[
    ("Authorization", "Bearer @"),
    ("Authorization", "bearer   @"),
    ("Authorization", "Bearer @@"),
    ("Authorization", "APIKEY:ORGANIZATION @"),
    ("Authorization", "APIKEY:ORGANIZATION@"),
    ("Authorization", "APIKEY:@ @"),
    ("Authorization", "@"),
    ("Authorization", "Basic %"),
    ("Authorization", "Digest username=\"@\""),
    ("Authorization", "@ @"),
    ("X-API-Key", "@"),
    ("X-API-Key", "@ "),
    ("X-API-Key", "x@"),
    ("Cookie", "key=@"),
    ("Referer", "http://media.example/xml?api_key=@"),
    ("X-Request-Id", "@"),
    ("traceparent", "@"),
    ("X-Forwarded-For", "@"),
    ("Host", "@"),
    ("Connection", "@"),
    ("@", "x"),
];

const TARGETS: &[&str] = &[
    "/xml",
    "/public/x",
    "/orgs/acme/x",
    "/xml?api_key=@",
    "/public/x?api_key=@",
    "/xml?api_key=@&api_key=@",
    "/xml?a=@",
    "/@",
    "/public/@/x",
    "/xml/key=@;a/%6bw_live_@",
    "/a//@",
    "/xml//x?api_key=@",
    "/xml?api_key=@%zz",
    "http://user:@@media.example/xml?api_key=@",
];

/// The key and what could be made of it: its upper case, its base64 as in Basic.
fn canaries(key: &Key) -> Vec<String> {
    let secret = key.value.rsplit('_').next().unwrap().to_owned();
    vec![secret.to_ascii_uppercase(), secret.to_ascii_lowercase(), secret, base64(&format!("{}:", key.value))]
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Presents the key in every way.
fn present(keyward: &Keyward, key: &Key) {
    let basic = base64(&format!("{}:", key.value));
    let fill = |text: &str| text.replace('@', &key.value).replace('%', &basic);
    for target in TARGETS {
        let target = target.replace('@', &key.value);
        for method in ["GET", "POST", "TRACE"] {
            keyward.connect().exchange(&request(method, &target, &[], b""));
        }
        for (name, value) in FIELDS {
            let host = if *name == "Host" { "" } else { "Host: media.example\r\n" };
            let head = format!("GET {target} HTTP/1.1\r\n{host}{}: {}\r\n\r\n", fill(name), fill(value));
            // Some of these are no HTTP, and need no answer.
            let mut client = keyward.connect();
            client.send(head.as_bytes());
            let _ = client.try_response();
        }
    }
}

#[test]
fn b29_the_key_is_nowhere_but_where_it_was_sent() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), CONFIG);
    let known = site.create_key(&["--scope", "organization:acme"]);
    let revoked = site.create_key(&["--read-only", "--ip", "1.2.3.4"]);
    site.json(&["key", "revoke", &revoked.id]);
    let stranger = Key { id: String::new(), value: known.value.replace("_live_", "_test_") };
    let keyward = site.serve();
    for key in [&known, &revoked, &stranger] {
        present(&keyward, key);
    }
    let mut pages = Vec::new();
    for target in ["/metrics", "/readyz?verbose", "/livez", &format!("/metrics?api_key={}", known.value)] {
        pages.extend(keyward.ops_page(target).body);
    }
    for target in ["/status", "/", &format!("/?api_key={}", known.value)] {
        pages.extend(keyward.admin_page(target).body);
    }
    for file in ["cmdline", "environ"] {
        pages.extend(std::fs::read(format!("/proc/{}/{file}", keyward.id())).unwrap());
    }
    keyward.terminate();
    let (mut keyward, wait) = (keyward, "stopped");
    keyward.wait_for_line(wait);
    keyward.wait_for_exit();
    let output = keyward.output();
    assert!(find(&output, b"\"http.request.method\"").is_some(), "there is an access log");
    for canary in [&known, &revoked, &stranger].into_iter().flat_map(canaries) {
        assert!(find(&pages, canary.as_bytes()).is_none(), "a page or the process's surroundings tell {canary}");
        let at = find(&output, canary.as_bytes());
        let around = at.map(|at| String::from_utf8_lossy(&output[at.saturating_sub(300)..at + 40]).into_owned());
        assert_eq!(around, None, "the log tells {canary}");
    }
    let stored = std::fs::read(keyward.site.path().join("keyward.db")).unwrap();
    assert!(canaries(&known).iter().all(|canary| find(&stored, canary.as_bytes()).is_none()), "the database tells it");
}

#[test]
fn b29_our_answers_do_not_repeat_the_key() {
    let upstream = Upstream::scripted(|_| Ok(After::Close));
    let site = Site::new(upstream.address(), "");
    let key = site.create_key(&[]);
    let keyward = site.serve();
    for target in ["/xml?api_key=@", "/xml?api_key=@&api_key=@", "/xml//x?api_key=@", "/xml?api_key=@x", "/@/?a=@"] {
        for accept in ["text/xml", "application/json", "application/problem+json", "text/plain"] {
            let response = keyward.get(&target.replace('@', &key.value), &[("Accept", accept)]);
            assert!((400..=502).contains(&response.status));
            let whole = [response.head.raw(), &response.body].concat();
            assert!(find(&whole, key.value.as_bytes()).is_none(), "{target}");
            assert_eq!(response.value("cache-control").as_deref(), Some("no-store"));
        }
    }
}

/// A browser tells each server the address that a link was found at. If that had the key in its query, then the key stands in
/// `Referer`, and servers write that into their logs.
#[test]
fn b29_the_key_is_cut_out_of_referer() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), CONFIG);
    let key = site.create_key(&[]);
    let keyward = site.serve();
    for (sent, expected) in [
        ("http://media.example/xml?api_key=@", "http://media.example/xml"),
        ("http://media.example/xml?a=1&api_key=@&b=2", "http://media.example/xml?a=1&b=2"),
        ("/xml?api%5fkey=@", "/xml"),
        ("http://media.example/xml?a=1&x=%zz", "http://media.example/xml?a=1&x=%zz"),
        ("http://media.example/?", "http://media.example/?"),
    ] {
        for target in ["/xml", "/public/x"] {
            let referer = sent.replace('@', &key.value);
            let response = keyward.get(target, &[("X-API-Key", &key.value), ("Referer", &referer)]);
            assert_eq!(response.status, 200);
            assert_eq!(upstream.only().head.value("referer").as_deref(), Some(expected), "{target}");
        }
    }
}
