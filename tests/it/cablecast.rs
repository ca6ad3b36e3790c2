//! Cablecast's keys: `?api_key=` on some APIs of an old XML server, and `Access Denied` in its own words.

use super::support::{Framing, Key, Keyward, Response, Site, Upstream, look, request};

const CONFIG: &str = r#"
keys: { shapes: [{ name: cablecast, length: 20, alphabet: hex }] }
deny: { format: xml-cablecast }
routes:
  - { path: "/xml/schedule", auth: none }
  - { path: "/content_api/{*rest}", class: write, inject: { query: { username: key-name } } }
  - path: "/odd/{*rest}"
    deny: { format: xml, status: 200, body: "< ?xml version=\"1.0\" encoding=\"utf-8\" ?>\nAccess Denied" }
  - { path: "/wellformed/{*rest}", deny: xml }
"#;

/// The key that the documentation shows.
const EXAMPLE: &str = "7e14204fcce1e00152b4";

/// The answer that it shows, without the space that slipped in before its `?xml`.
const DENIED: &str = "<?xml version=\"1.0\" encoding=\"utf-8\" ?>\nAccess Denied";

/// An upstream, and Keyward before it that knows the example key as one named `newsroom`.
fn serve() -> (Upstream, Keyward) {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), CONFIG);
    site.import_keys(&[&format!("example,newsroom,{EXAMPLE},rw,,")]);
    (upstream, site.serve())
}

/// Sends a GET, `@` being the example key; gives the target that the upstream got.
#[track_caller]
fn forwarded(keyward: &Keyward, upstream: &Upstream, target: &str) -> String {
    let response = keyward.get(&target.replace('@', EXAMPLE), &[]);
    assert_eq!(response.status, 200, "{target}: {}", response.text());
    let head = upstream.only().head;
    assert!(!String::from_utf8_lossy(head.raw()).contains(EXAMPLE), "{target}: the upstream sees the key");
    head.target()
}

#[track_caller]
fn refused(keyward: &Keyward, upstream: &Upstream, target: &str, status: u16) -> Response {
    let response = keyward.get(&target.replace('@', EXAMPLE), &[]);
    assert_eq!(response.status, status, "{target}: {}", response.text());
    upstream.expect_nothing();
    response
}

#[test]
fn b01_protection_is_per_api() {
    let (upstream, keyward) = serve();
    assert_eq!(forwarded(&keyward, &upstream, "/xml/schedule"), "/xml/schedule");
    for target in ["/xml/software_version", "/content_api/new", "/", "/xml/schedule/", "/xml", "/XML/schedule"] {
        refused(&keyward, &upstream, target, 401);
    }
}

#[test]
fn b02_reads_are_protected_too() {
    let (upstream, keyward) = serve();
    for method in ["GET", "HEAD", "OPTIONS", "POST"] {
        let response = keyward.connect().exchange(&request(method, "/xml/software_version", &[], b""));
        assert_eq!(response.status, 401, "{method}");
        upstream.expect_nothing();
    }
    assert_eq!(forwarded(&keyward, &upstream, "/xml/software_version?api_key=@"), "/xml/software_version");
}

#[test]
fn b03_each_request_needs_the_key() {
    let (upstream, keyward) = serve();
    let mut client = keyward.connect();
    let with_key = request("GET", &format!("/xml/software_version?api_key={EXAMPLE}"), &[], b"");
    let without = request("GET", "/xml/software_version", &[("Cookie", "a=b")], b"");
    for _ in 0..3 {
        let response = client.exchange(&with_key);
        assert_eq!((response.status, response.value("set-cookie")), (200, None));
        upstream.only();
        assert_eq!(client.exchange(&without).status, 401);
        upstream.expect_nothing();
    }
}

#[test]
fn b16_the_key_travels_at_the_end_of_the_url() {
    let (upstream, keyward) = serve();
    for (sent, expected) in [
        ("/xml/software_version?api_key=@", "/xml/software_version"),
        ("/xml/shows?channel=1&api_key=@", "/xml/shows?channel=1"),
        ("/xml/shows?api_key=@&channel=1", "/xml/shows?channel=1"),
        ("/xml/shows?a=1&api_key=@&b=2", "/xml/shows?a=1&b=2"),
    ] {
        assert_eq!(forwarded(&keyward, &upstream, sent), expected, "{sent}");
    }
    refused(&keyward, &upstream, "/xml/software_version/@", 401);
    refused(&keyward, &upstream, "/xml/software_version?@", 401);
    refused(&keyward, &upstream, "/xml/software_version?key=@", 401);
}

#[test]
fn b17_the_key_may_travel_elsewhere() {
    let (upstream, keyward) = serve();
    let basic = "Basic N2UxNDIwNGZjY2UxZTAwMTUyYjQ6"; // the example key and a colon
    for field in [
        ("X-API-Key", EXAMPLE),
        ("x-api-key", EXAMPLE),
        ("Authorization", &format!("Bearer {EXAMPLE}")),
        ("Authorization", basic),
    ] {
        assert_eq!(keyward.get("/xml/software_version", &[field]).status, 200, "{field:?}");
        let head = upstream.only().head;
        assert_eq!((head.value("x-api-key"), head.value("authorization")), (None, None));
        assert_eq!(head.value("x-keyward-key-id").as_deref(), Some("example"));
    }
    // A body is never looked into.
    let body = format!("api_key={EXAMPLE}");
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(keyward.send(&request("POST", "/xml/shows", &form, body.as_bytes())).status, 401);
    upstream.expect_nothing();
}

#[test]
fn b18_nothing_is_left_of_the_only_parameter() {
    let (upstream, keyward) = serve();
    for (sent, expected) in [
        ("/xml/software_version?api_key=@", "/xml/software_version"),
        ("/xml/software_version?api_key=@&", "/xml/software_version"),
        ("/xml/software_version?&api_key=@", "/xml/software_version"),
        ("/xml/software_version?&api_key=@&&", "/xml/software_version?&&"),
        ("/?api_key=@", "/"),
    ] {
        assert_eq!(forwarded(&keyward, &upstream, sent), expected, "{sent}");
    }
    let with_header = keyward.get("/xml/software_version?", &[("X-API-Key", EXAMPLE)]);
    assert_eq!((with_header.status, &*upstream.only().head.target()), (200, "/xml/software_version?"));
}

#[test]
fn b19_a_get_that_creates_content_is_a_write() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), CONFIG);
    let (read_write, read_only) = (site.create_key(&["--name", "rw"]), site.create_key(&["--read-only"]));
    let keyward = site.serve();
    let get = |key: &Key, path: &str| keyward.get(&format!("{path}?api_key={}", key.value), &[]).status;
    assert_eq!(get(&read_only, "/xml/software_version"), 200);
    assert_eq!(upstream.only().head.target(), "/xml/software_version");
    assert_eq!(get(&read_only, "/content_api/new"), 403);
    upstream.expect_nothing();
    assert_eq!(get(&read_write, "/content_api/new"), 200);
    assert_eq!(upstream.only().head.target(), "/content_api/new?username=rw");
}

#[test]
fn b20_all_other_parameters_arrive_unchanged_and_in_order() {
    let (upstream, keyward) = serve();
    let documented = "program_code=01&program=a1test&episode_code=009&episode=e1&description=mydescription\
        &expected_duration=30&expected_filename=AAx&location=here&contributor=mycontrib&import_datetime=2011-04-20\
        &delete_datetime=2012-04-20";
    let target = format!("/content_api/new?{documented}&api_key=@");
    assert_eq!(
        forwarded(&keyward, &upstream, &target),
        format!("/content_api/new?{documented}&username=newsroom"),
        "what old versions want to know comes last"
    );
    let odd = "b=2&a=1&b=2&&=&x=%zz&y=%e9+%20&[0]=~!*'()&q=a=b=c&u=http://x/?y";
    assert_eq!(forwarded(&keyward, &upstream, &format!("/xml/shows?{odd}&api_key=@")), format!("/xml/shows?{odd}"));
}

#[test]
fn b21_the_upstream_is_told_a_user_and_nobody_can_forge_one() {
    let (upstream, keyward) = serve();
    for forged in [
        "username=admin",
        "user%6eame=admin",
        "%75%73%65%72%6e%61%6d%65=admin",
        "username=admin&username=root",
        "username=admin&%75sername=root",
        "username",
        "username=",
        "USERNAME=admin",
        "UserName=admin",
        "u%53ername=admin",
    ] {
        for (sent, expected) in [
            (format!("{forged}&a=1&api_key=@"), "a=1&username=newsroom"),
            (format!("a=1&{forged}&b=2&api_key=@&{forged}"), "a=1&b=2&username=newsroom"),
            (format!("api_key=@&{forged}"), "username=newsroom"),
        ] {
            let target = forwarded(&keyward, &upstream, &format!("/content_api/new?{sent}"));
            assert_eq!(target, format!("/content_api/new?{expected}"), "{sent}");
        }
    }
    // Elsewhere it is a parameter like any other.
    assert_eq!(forwarded(&keyward, &upstream, "/xml/users?username=admin&api_key=@"), "/xml/users?username=admin");
}

#[test]
fn b22_no_key_and_a_wrong_key_are_answered_alike() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), CONFIG);
    let revoked = site.create_key(&["--id", "gone"]);
    let disabled = site.create_key(&["--id", "paused"]);
    site.json(&["key", "revoke", "gone"]);
    site.json(&["key", "disable", "paused"]);
    let keyward = site.serve();
    for path in ["/xml/software_version", "/content_api/new", "/odd/x"] {
        let without = look(&refused(&keyward, &upstream, path, if path == "/odd/x" { 200 } else { 401 }));
        for value in
            [EXAMPLE, "7e14204fcce1e00152b", "x", "%00", "", &revoked.value, &disabled.value, "kw_live_", "kw_live_abc"]
        {
            let response = keyward.get(&format!("{path}?api_key={value}"), &[]);
            assert_eq!(look(&response), without, "{path} {value}");
            upstream.expect_nothing();
        }
    }
}

#[test]
fn b23_the_answer_is_a_declaration_and_access_denied() {
    let (upstream, keyward) = serve();
    for target in ["/xml/software_version", "/xml/software_version?api_key=wrong"] {
        for accept in ["*/*", "application/json", "text/html"] {
            let response = keyward.get(target, &[("Accept", accept)]);
            assert_eq!((response.status, &*response.text()), (401, DENIED));
            assert_eq!(response.value("content-type").as_deref(), Some("text/xml; charset=utf-8"));
        }
    }
    upstream.expect_nothing();
}

#[test]
fn b24_a_route_may_answer_in_exact_words_or_in_wellformed_xml() {
    let (upstream, keyward) = serve();
    for target in ["/odd/x", "/odd/x?api_key=wrong"] {
        let response = refused(&keyward, &upstream, target, 200);
        assert_eq!(response.text(), "< ?xml version=\"1.0\" encoding=\"utf-8\" ?>\nAccess Denied");
        assert_eq!(response.value("content-type").as_deref(), Some("text/xml; charset=utf-8"));
    }
    // Only refusals are worded so: what cannot be judged keeps its own status.
    let ambiguous = refused(&keyward, &upstream, "/odd/x?api_key=@&api_key=@", 400);
    assert!(!ambiguous.text().contains("< ?xml"));

    let text = refused(&keyward, &upstream, "/wellformed/x", 401).text();
    let body = text.strip_prefix("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n").unwrap();
    assert!(body.starts_with("<error>") && body.trim_end().ends_with("</error>"), "{body}");
    assert!(body.contains("Access Denied"));
    let (opened, closed) = (body.matches('<').count() - body.matches("</").count(), body.matches("</").count());
    assert_eq!(opened, closed, "every element is closed");
}

#[test]
fn b25_keys_of_20_hex_digits_can_be_used() {
    let (upstream, keyward) = serve();
    assert_eq!(forwarded(&keyward, &upstream, "/xml/software_version?api_key=@"), "/xml/software_version");
    for value in [
        "7E14204FCCE1E00152B4",
        "7e14204fcce1e00152b5",
        "7e14204fcce1e00152b",
        "7e14204fcce1e00152b40",
        "7e14204fcce1e00152bg",
        "@%20",
        "%20@",
        "@%00",
        "@,",
        "%22@%22",
    ] {
        refused(&keyward, &upstream, &format!("/xml/software_version?api_key={value}"), 401);
    }
}

#[test]
fn b26_plain_http_as_the_documentation_shows_it() {
    let (upstream, keyward) = serve();
    let documented = format!("/xml/software_version?api_key={EXAMPLE}");
    for request in [
        format!("GET {documented} HTTP/1.1\r\nHost: yourserver\r\nUser-Agent: curl/7.21\r\nAccept: */*\r\n\r\n"),
        format!("GET http://yourserver{documented} HTTP/1.1\r\nHost: yourserver\r\n\r\n"),
        format!("GET {documented} HTTP/1.0\r\nHost: yourserver\r\n\r\n"),
        format!("GET {documented} HTTP/1.0\r\n\r\n"),
    ] {
        assert_eq!(keyward.send(request.as_bytes()).status, 200, "{request}");
        let head = upstream.only().head;
        assert_eq!((&*head.start(), head.framing()), ("GET /xml/software_version HTTP/1.1", Framing::None));
        assert_eq!(head.value("x-forwarded-proto").as_deref(), Some("http"));
    }
}

#[test]
fn b27_open_apis_work_without_a_key_and_with_a_bad_one() {
    let (upstream, keyward) = serve();
    for query in
        ["", "?", "?api_key=", "?api_key=wrong", "?api_key=wrong&api_key=worse", "?api_key=7e14204fcce1e00152b5"]
    {
        let target = format!("/xml/schedule{query}");
        assert_eq!(forwarded(&keyward, &upstream, &target), target, "what is no key of ours passes untouched");
    }
    for fields in [
        [("X-API-Key", "wrong"), ("Authorization", "Bearer wrong")],
        [("X-API-Key", ""), ("Authorization", "Basic YWRtaW46aGFja21l")],
        [("X-API-Key", "7e14204fcce1e00152b5"), ("Authorization", "APIKEY:TEAM x")],
    ] {
        assert_eq!(keyward.get("/xml/schedule", &fields).status, 200, "{fields:?}");
        let head = upstream.only().head;
        for (name, value) in fields {
            assert_eq!(head.value(&name.to_ascii_lowercase()).as_deref(), Some(value));
        }
    }
    // What opens a key is nothing for the upstream, wherever it turns up.
    assert_eq!(forwarded(&keyward, &upstream, "/xml/schedule?a=1&api_key=@&b=2"), "/xml/schedule?a=1&b=2");
}

#[test]
fn b28_duplicate_empty_and_encoded_parameters() {
    let (upstream, keyward) = serve();
    for query in ["api_key=@&api_key=@", "api_key=@&x=1&api%5Fkey=@", "api_key=@&api_key=wrong", "api_key=x&api_key=@"]
    {
        let response = refused(&keyward, &upstream, &format!("/xml/shows?{query}"), 400);
        assert!(response.text().ends_with("Bad Request"), "{}", response.text());
    }
    for query in [
        "api_key=",
        "api_key",
        "api_key=&api_key=",
        "API_KEY=@",
        "api_key[]=@",
        "+api_key=@",
        "api_key+=@",
        "a=1;api_key=@",
        "api_key=@;a=1",
        "api_key==@",
        "api%255Fkey=@",
        "api_key=@%00",
    ] {
        let target = format!("/xml/shows?{query}").replace('@', EXAMPLE);
        let status = keyward.get(&target, &[]).status;
        assert!(matches!(status, 400 | 401), "{query}: {status}");
        upstream.expect_nothing();
    }
    for (query, left) in [
        ("api%5Fkey=@&a=1", "?a=1"),
        ("%61%70%69%5f%6b%65%79=@", ""),
        ("api_key=%37e14204fcce1e00152b4", ""),
        ("api_key=%37%65%31%34%32%30%34%66%63%63%65%31%65%30%30%31%35%32%62%34&a", "?a"),
        ("api_key=&a=1&api_key=@", "?a=1"),
        ("api_key=@&a=1&api_key", "?a=1"),
    ] {
        let target = forwarded(&keyward, &upstream, &format!("/xml/shows?{query}"));
        assert_eq!(target, format!("/xml/shows{left}"), "{query}");
    }
}
