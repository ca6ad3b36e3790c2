//! Cognitive3D's keys: `APIKEY:ORGANIZATION`, and a tree of organizations, projects and scenes in which they act.

use super::support::{After, Framing, Key, Keyward, Site, Upstream, request, upload_in_halves};

const CONFIG: &str = r#"
keys: { shapes: [{ name: cognitive3d, length: 16, alphabet: hex }] }
deny: { format: json }
routes:
  - { path: "/v0/datasets/{*rest}", methods: [POST], class: read }
  - { path: "/v0/organizations/{organization}/projects/{project}/{*rest}" }
  - { path: "/v0/organizations/{organization}/{*rest}" }
  - { path: "/v0/projects/{project}/{*rest}" }
  - { path: "/v0/scenes/{scene}/{*rest}", credentials: { query: "" } }
"#;

/// The key that the documentation shows.
const EXAMPLE: &str = "abcdef1234567890";

fn site(upstream: &Upstream) -> Site {
    let site = Site::new(upstream.address(), CONFIG);
    for scope in ["organization:acme/project:p1/scene:s1", "organization:other/project:p2/scene:s2"] {
        site.json(&["scope", "create", scope]);
    }
    site
}

/// Sends a request with this `Authorization`, and says whether it was let through; whatever is refused is refused in JSON
/// and does not get far.
#[track_caller]
fn status(keyward: &Keyward, upstream: &Upstream, authorization: &str, method: &str, path: &str) -> u16 {
    let response = keyward.send(&request(method, path, &[("Authorization", authorization)], b""));
    if response.status == 200 {
        let received = upstream.only();
        assert_eq!(received.head.target(), path);
        assert_eq!(received.head.value("authorization"), None, "the upstream sees no credential");
    } else {
        assert_eq!(response.json()["success"], false, "{}", response.text());
        upstream.expect_nothing();
    }
    response.status
}

fn organization(key: &Key) -> String {
    format!("APIKEY:ORGANIZATION {}", key.value)
}

#[test]
fn c06_the_header_is_authorization_with_apikey_organization() {
    let upstream = Upstream::start();
    let site = site(&upstream);
    let key = site.create_key(&["--scope", "organization:acme"]);
    let keyward = site.serve();
    for (authorization, expected) in [
        ("APIKEY:ORGANIZATION @", 200),
        ("apikey:organization @", 401),
        ("Apikey:Organization @", 401),
        ("APIKEY:organization @", 401),
        ("APIKEY ORGANIZATION @", 401),
        ("APIKEY: ORGANIZATION @", 401),
        ("APIKEY:@", 401),
        ("APIKEY @", 401),
        ("@", 401),
    ] {
        let authorization = authorization.replace('@', &key.value);
        assert_eq!(status(&keyward, &upstream, &authorization, "GET", "/v0/anything"), expected, "{authorization}");
    }
    // The scheme as the name of a field is some field of the upstream's.
    assert_eq!(keyward.get("/v0/anything", &[("APIKEY:ORGANIZATION", &key.value)]).status, 401);
    upstream.expect_nothing();
}

#[test]
fn c07_there_is_one_space_before_the_key() {
    let upstream = Upstream::start();
    let site = site(&upstream);
    let key = site.create_key(&["--scope", "organization:acme"]);
    let keyward = site.serve();
    for (authorization, expected) in [
        ("APIKEY:ORGANIZATION @", 200),
        ("APIKEY:ORGANIZATION@", 401),
        ("APIKEY:ORGANIZATION  @", 401),
        ("APIKEY:ORGANIZATION\t@", 401),
        ("APIKEY:ORGANIZATION,@", 401),
        ("APIKEY:ORGANIZATION:@", 401),
        ("APIKEY:ORGANIZATION", 401),
        ("APIKEY:ORGANIZATION @ x", 401),
        ("APIKEY:ORGANIZATION \"@\"", 401),
        ("APIKEY:ORGANIZATION {@}", 401),
    ] {
        let authorization = authorization.replace('@', &key.value);
        assert_eq!(status(&keyward, &upstream, &authorization, "GET", "/v0/anything"), expected, "{authorization}");
    }
}

#[test]
fn c08_keys_of_16_hex_digits_can_be_used() {
    let upstream = Upstream::start();
    let site = site(&upstream);
    site.import_keys(&[&format!("legacy,Legacy,{EXAMPLE},rw,,organization:acme")]);
    let keyward = site.serve();
    for (key, expected) in
        [(EXAMPLE, 200), ("abcdef1234567891", 401), ("abcdef123456789", 401), ("ABCDEF1234567890", 401)]
    {
        let authorization = format!("APIKEY:ORGANIZATION {key}");
        assert_eq!(status(&keyward, &upstream, &authorization, "GET", "/v0/anything"), expected, "{key}");
    }
}

#[test]
fn c09_a_key_opens_its_organization_and_all_below_it() {
    let upstream = Upstream::start();
    let site = site(&upstream);
    let key = site.create_key(&["--scope", "organization:acme"]);
    let keyward = site.serve();
    for path in [
        "/v0/organizations/acme/",
        "/v0/organizations/acme/members",
        "/v0/organizations/acme/audit",
        "/v0/organizations/ac%6De/members",
        "/v0/organizations/acme/projects/p1/objectives",
        "/v0/organizations/acme/projects/new/scenes/new/sessions/7",
        "/v0/projects/p1/media",
        "/v0/scenes/s1/sessions/7",
    ] {
        assert_eq!(status(&keyward, &upstream, &organization(&key), "GET", path), 200, "{path}");
        assert_eq!(status(&keyward, &upstream, &organization(&key), "DELETE", path), 200, "{path}");
    }
    keyward.send(&request("GET", "/v0/projects/p1/media", &[("Authorization", &organization(&key))], b""));
    let head = upstream.only().head;
    assert_eq!(head.value("x-keyward-organization").as_deref(), Some("acme"));
    assert_eq!(head.value("x-keyward-scope").as_deref(), Some("organization:acme"));
}

#[test]
fn c10_a_key_is_refused_for_another_organization() {
    let upstream = Upstream::start();
    let site = site(&upstream);
    let acme = site.create_key(&["--scope", "organization:acme"]);
    let project = site.create_key(&["--scope", "organization:acme/project:p1"]);
    let keyward = site.serve();
    for path in [
        "/v0/organizations/other/members",
        "/v0/organizations/ACME/members",
        "/v0/organizations/acme2/members",
        "/v0/organizations/other/projects/p1/objectives",
        "/v0/projects/p2/media",
        "/v0/projects/nobody-knows/media",
        "/v0/scenes/s2/sessions/7",
    ] {
        assert_eq!(status(&keyward, &upstream, &organization(&acme), "GET", path), 403, "{path}");
    }
    // Narrower keys than Cognitive3D has yet (C11): a project's key does nothing to its organization.
    for (path, expected) in [
        ("/v0/projects/p1/media", 200),
        ("/v0/organizations/acme/projects/p1/objectives", 200),
        ("/v0/scenes/s1/sessions/7", 200),
        ("/v0/organizations/acme/audit", 403),
        ("/v0/organizations/acme/projects/p3/objectives", 403),
        ("/v0/projects/p2/media", 403),
        ("/v0/scenes/s2/sessions/7", 403),
    ] {
        assert_eq!(status(&keyward, &upstream, &project.bearer(), "GET", path), expected, "{path}");
    }
}

#[test]
fn c12_json_or_no_body_arrives_as_it_was_sent() {
    let upstream = Upstream::start();
    let site = site(&upstream);
    let key = site.create_key(&["--scope", "organization:acme"]);
    let keyward = site.serve();
    let authorization = organization(&key);
    let json = b"{\"name\": \"\xc3\xa9\", \"b\":1,\n\t\"a\" : [ ] }";
    let fields = [("Authorization", &*authorization), ("Content-Type", "application/json; charset=UTF-8")];
    assert_eq!(keyward.send(&request("POST", "/v0/projects/p1/objectives", &fields, json)).status, 200);
    let received = upstream.only();
    assert_eq!(received.body.bytes, json);
    assert_eq!(received.head.value("content-type").as_deref(), Some("application/json; charset=UTF-8"));
    assert_eq!(received.head.framing(), Framing::Length(json.len() as u64));

    for method in ["GET", "DELETE"] {
        assert_eq!(keyward.send(&request(method, "/v0/projects/p1/objectives", &fields[..1], b"")).status, 200);
        assert_eq!(upstream.only().head.framing(), Framing::None, "{method} without a body stays without");
    }
}

#[test]
fn c13_raw_uploads_pass_unchanged_while_they_are_being_sent() {
    let (upstream, arrived) = Upstream::watching();
    let site = site(&upstream);
    let key = site.create_key(&["--scope", "organization:acme"]);
    let keyward = site.serve();
    for framing in [Framing::Length(6000), Framing::Chunked] {
        let head = format!(
            "PUT /v0/scenes/s1/files/model.gltf HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n\
             Content-Type: model/gltf-binary\r\n",
            organization(&key)
        );
        upload_in_halves(&keyward, &arrived, &head, framing);
        let head = upstream.only().head;
        assert_eq!(head.value("content-type").as_deref(), Some("model/gltf-binary"));
        assert_eq!(head.framing(), framing);
    }
}

#[test]
fn c14_files_are_served_with_the_headers_they_have() {
    let head = "HTTP/1.1 203 Fairly Good\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nServer: files/2.0 (old; \"x\")\r\n\
        Content-Type: video/mp4; codecs=\"avc1.4d002a\"\r\nContent-Disposition: attachment; filename=\"a b.mp4\"\r\n\
        ETag: W/\"x\"\r\nLast-Modified: Mon, 29 Jun 1998 02:28:12 GMT\r\nCache-Control: private, max-age=60\r\n\
        Accept-Ranges: bytes\r\nContent-Range: bytes 0-255/512\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\n\
        X-Request-Id: theirs\r\nX-Empty:\r\nX-Odd_Name: \u{a0}\u{e9}\r\nContent-Length: 256\r\n";
    let body: Vec<u8> = (0..=255).collect();
    let sent: Vec<u8> = [head.as_bytes(), b"Connection: keep-alive\r\n\r\n", &body].concat();
    let upstream = Upstream::scripted(move |turn| turn.answer(&sent));
    let site = site(&upstream);
    let key = site.create_key(&["--scope", "organization:acme"]);
    let keyward = site.serve();
    let fields = [("Authorization", &*organization(&key)), ("Range", "bytes=0-255"), ("If-None-Match", "\"y\"")];
    let response = keyward.send(&request("GET", "/v0/scenes/s1/files/a.mp4", &fields, b""));
    assert_eq!(response.head.start(), "HTTP/1.1 203 Fairly Good");
    assert_eq!(response.body, body);
    let mut expected: Vec<(String, Vec<u8>)> = head
        .lines()
        .skip(1)
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim_matches(' ').as_bytes().to_vec()))
        .collect();
    let mut got = response.head.fields();
    expected.sort();
    got.sort();
    assert_eq!(got, expected);
    let received = upstream.only().head;
    assert_eq!(received.value("range").as_deref(), Some("bytes=0-255"));
    assert_eq!(received.value("if-none-match").as_deref(), Some("\"y\""));
}

#[test]
fn c15_refusals_are_json() {
    let upstream = Upstream::scripted(|_| Ok(After::Close));
    let site = site(&upstream);
    let key = site.create_key(&["--scope", "organization:acme", "--read-only"]);
    let keyward = site.serve();
    let (unknown, good) = ("APIKEY:ORGANIZATION abcdef1234567890".to_owned(), organization(&key));
    for (authorization, method, path, status) in [
        (None, "GET", "/v0/projects/p1/media", 401),
        (Some(&unknown), "GET", "/v0/projects/p1/media", 401),
        (Some(&good), "POST", "/v0/projects/p1/media", 403),
        (Some(&good), "GET", "/v0/projects/p2/media", 403),
        (Some(&good), "GET", "/v0/projects//p1", 400),
    ] {
        let mut fields = vec![("Accept", "text/html, application/xml;q=0.9")];
        fields.extend(authorization.map(|value| ("Authorization", value.as_str())));
        let response = keyward.send(&request(method, path, &fields, b""));
        assert_eq!(response.status, status, "{path}");
        assert_eq!(response.value("content-type").as_deref(), Some("application/json"));
        let json = response.json();
        assert_eq!((&json["success"], &json["result"]), (&false.into(), &serde_json::Value::Null));
        assert!(json["errors"][0]["message"].is_string(), "{json}");
        upstream.expect_nothing();
    }
    let broken = keyward.send(&request("GET", "/v0/projects/p1/media", &[("Authorization", &good)], b""));
    assert_eq!((broken.status, &broken.json()["success"]), (502, &false.into()));
}

#[test]
fn c25_the_word_names_a_level_and_must_fit_the_key() {
    let upstream = Upstream::start();
    let site = site(&upstream);
    let unbound = site.create_key(&[]);
    let organization = site.create_key(&["--scope", "organization:acme"]);
    let project = site.create_key(&["--scope", "organization:acme/project:p1"]);
    let keyward = site.serve();
    for (word, key, expected) in [
        ("ORGANIZATION", &organization, 200),
        ("PROJECT", &organization, 403),
        ("SCENE", &organization, 403),
        ("DOMAIN", &organization, 403),
        ("PROJECT", &project, 200),
        ("ORGANIZATION", &project, 403),
        ("ORGANIZATION", &unbound, 200),
        ("PROJECT", &unbound, 200),
        ("TEAM", &organization, 401),
        ("ORGANISATION", &organization, 401),
        ("ORGANIZATIONS", &organization, 401),
        ("", &organization, 401),
    ] {
        let authorization = format!("APIKEY:{word} {}", key.value);
        let got = status(&keyward, &upstream, &authorization, "GET", "/v0/projects/p1/media");
        assert_eq!(got, expected, "{word} {}", key.id);
    }
}

#[test]
fn c26_the_query_form_can_be_switched_off_for_a_route() {
    let upstream = Upstream::start();
    let site = site(&upstream);
    let key = site.create_key(&["--scope", "organization:acme"]);
    let keyward = site.serve();
    let (on, off) = ("/v0/projects/p1/media", "/v0/scenes/s1/media");
    let query = format!("?api_key={}", key.value);
    assert_eq!(keyward.get(&format!("{on}{query}"), &[]).status, 200);
    assert_eq!(upstream.only().head.target(), on);
    assert_eq!(keyward.get(&format!("{off}{query}"), &[]).status, 401);
    upstream.expect_nothing();
    // What is no credential there is the upstream's business, and is no second credential either.
    let target = format!("{off}?api_key=theirs&x");
    assert_eq!(keyward.get(&target, &[("Authorization", &organization(&key))]).status, 200);
    assert_eq!(upstream.only().head.target(), target);
}

#[test]
fn c27_a_read_only_key_may_read_by_post_where_the_route_says_so() {
    let upstream = Upstream::start();
    let site = site(&upstream);
    let key = site.create_key(&["--scope", "organization:acme", "--read-only"]);
    let keyward = site.serve();
    for (method, path, expected) in [
        ("POST", "/v0/datasets/sessions/paginatedListQueries", 200),
        ("PUT", "/v0/datasets/sessions/paginatedListQueries", 403),
        ("DELETE", "/v0/datasets/sessions/paginatedListQueries", 403),
        ("POST", "/v0/projects/p1/objectives", 403),
        ("GET", "/v0/projects/p1/objectives", 200),
    ] {
        assert_eq!(status(&keyward, &upstream, &organization(&key), method, path), expected, "{method} {path}");
    }
}

/// The routes of a text that shows a config.
fn routes_of(text: &str) -> String {
    let (_, after) = text.split_once("\nroutes:\n").unwrap();
    format!("routes:\n{}", after.split_once("\nops:").unwrap().0)
}

#[test]
fn what_is_below_a_path_holds_for_the_path_itself() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), &routes_of(include_str!("../../deploy/examples/cognitive3d.yaml")));
    for scope in ["organization:acme/project:p1/scene:s1", "organization:other/project:p2/scene:s2"] {
        site.json(&["scope", "create", scope]);
    }
    let key = site.create_key(&["--scope", "organization:acme"]);
    let reader = site.create_key(&["--scope", "organization:acme", "--read-only"]);
    let keyward = site.serve();
    for (key, method, path, expected) in [
        (&key, "DELETE", "/v0/organizations/acme", 200),
        (&key, "DELETE", "/v0/organizations/other", 403),
        (&key, "DELETE", "/v0/organizations/other?x=/", 403),
        (&key, "DELETE", "/v0/organizations/other/", 403),
        (&key, "DELETE", "/v0/organizations/other/x", 403),
        (&key, "DELETE", "/v0/projects/p1", 200),
        (&key, "DELETE", "/v0/projects/p2", 403),
        (&key, "DELETE", "/v0/scenes/s1", 200),
        (&key, "DELETE", "/v0/scenes/s2", 403),
        (&reader, "GET", "/v0/organizations/acme", 200),
        (&reader, "POST", "/v0/datasets/objects", 200),
        (&reader, "POST", "/v0/datasets", 403),
    ] {
        let response = keyward.send(&request(method, path, &[("Authorization", &organization(key))], b""));
        assert_eq!(response.status, expected, "{method} {path}");
    }
}

#[test]
fn a_read_only_key_writes_by_no_spelling_of_a_path_that_writes() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), &routes_of(include_str!("../../README.md")));
    let key = site.create_key(&["--read-only"]);
    let keyward = site.serve();
    let authorization = format!("Bearer {}", key.value);
    for (path, with_key, without) in [
        ("/content_api", 403, 401),
        ("/content_api?x=1", 403, 401),
        ("/content_api/", 403, 401),
        ("/content_api/x", 403, 401),
        ("/content_apis", 200, 401),
        ("/public/x", 200, 200),
        ("/public/", 200, 200),
        ("/public", 200, 401),
    ] {
        assert_eq!(keyward.get(path, &[("Authorization", &authorization)]).status, with_key, "{path}");
        assert_eq!(keyward.get(path, &[]).status, without, "{path}");
    }
}
