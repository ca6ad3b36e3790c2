//! The management API under a prefix on the proxy listener: the same answers, and nothing of it for the upstream.

use std::sync::{Mutex, mpsc};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::support::http2::{self, Http2};
use super::*;
use crate::support::certificates::Authority;
use crate::support::{PATIENCE, door, ok, until};

const MOUNTED: &str = "admin: { mount: /v2 }";

impl Stage {
    /// Exact bytes to the proxy listener.
    #[track_caller]
    fn via_proxy(&self, method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> Response {
        self.keyward.send(&request(method, target, fields, body))
    }
}

#[test]
fn both_listeners_give_the_same_answers_and_the_upstream_hears_nothing() {
    let stage = Stage::with(MOUNTED);
    let (bearer, looks) = (stage.admin.bearer(), stage.read_only.bearer());
    let json = ("Content-Type", "application/json");
    let key = ("Authorization", bearer.as_str());
    let new = br#"{"type":"api","name":"n","permissions":[],"ips":[]}"#;
    for (method, target, fields, body, status) in [
        ("GET", "/v2/keys", &[key][..], &b""[..], 200),
        ("GET", "/v2/keys?limit=x", &[key], b"", 400),
        ("GET", "/v2/keys", &[], b"", 401),
        ("GET", "/v2/keys", &[("X-API-Key", "kw_live_wrong")], b"", 401),
        ("POST", "/v2/keys", &[("Authorization", &looks), json], new, 403),
        ("GET", "/v2", &[key], b"", 404),
        ("GET", "/v2/nothing", &[key], b"", 404),
        ("PUT", "/v2/keys", &[key], b"", 405),
        ("TRACE", "/v2/keys", &[key], b"", 405),
        ("POST", "/v2/keys", &[key], new, 415),
        ("POST", "/v2/keys", &[key, json], b"{", 400),
        ("POST", "/v2/keys", &[key, json], &[b' '; 65 << 10], 413),
        ("GET", "/v2/openapi.json", &[], b"", 200),
        // What is beside the API on the other port is not here.
        ("GET", "/v2/../status", &[key], b"", 404),
    ] {
        let here = stage.via_proxy(method, target, fields, body);
        assert_eq!(here.status, status, "{method} {target}: {}", here.text());
        let there = stage.send(method, target, fields, body);
        let same = |response: &Response| (response.status, response.value("allow"), response.value("cache-control"));
        assert_eq!(same(&here), same(&there), "{method} {target}");
        if status != 200 && target != "/v2" && target != "/v2/../status" {
            assert_eq!(here.text(), there.text(), "{method} {target}");
        }
        assert!(here.value("x-request-id").is_some());
    }
    // Who nobody trusts does not say by what name others came.
    let claims = stage.via_proxy("GET", "/v2/keys?limit=1", &[key, ("X-Forwarded-Proto", "https")], b"").json();
    assert!(claims["links"]["next"].as_str().unwrap().starts_with("http://media.example/v2/keys?"), "{claims}");
    // A list of keys is longer than anything else; not here, where it would be read before anybody knows whose it is.
    let rows = format!("sha256\n{}", format!("{:064x}\n", 7).repeat(1_100));
    let list = [key, ("Content-Type", "text/csv")];
    let too_large = stage.via_proxy("POST", "/v2/keys/import", &list, rows.as_bytes());
    assert_eq!(refusal(&too_large), (413, vec!["too_large".to_owned()]));
    assert!(too_large.text().contains("send 65536 bytes at most"), "{}", too_large.text());
    assert_eq!(stage.send("POST", "/v2/keys/import", &list, rows.as_bytes()).status, 200);
    assert_eq!(stage.via_proxy("GET", "/status", &[], b"").status, 401, "a path of the upstream's, which needs a key");
    stage.upstream.expect_nothing();
    let managed = |code| {
        stage.keyward.metric(&format!(r#"keyward_requests_total{{code="{code}",decision="managed",reason="ok"}}"#))
    };
    until("they are counted", || managed("2xx") + managed("4xx") == 16.0);
}

#[test]
fn a_key_that_is_made_there_opens_the_upstream_at_once() {
    let stage = Stage::with(MOUNTED);
    let (bearer, json) = (stage.admin.bearer(), ("Content-Type", "application/json"));
    let body = br#"{"type":"api","name":"n","permissions":[],"ips":[]}"#;
    let mut client = stage.keyward.connect();
    for _ in 0..3 {
        let made = client.exchange(&request("POST", "/v2/keys", &[("Authorization", &bearer), json], body)).json();
        let value = made["result"]["value"].as_str().unwrap().to_owned();
        // The same connection goes to the one and to the other.
        let opened = client.exchange(&request("GET", "/videos", &[("X-API-Key", &value)], b""));
        assert_eq!(opened.status, 200);
        let gone = format!("/v2/keys/{}", made["result"]["id"].as_str().unwrap());
        assert_eq!(client.exchange(&request("DELETE", &gone, &[("Authorization", &bearer)], b"")).status, 200);
        assert_eq!(client.exchange(&request("GET", "/videos", &[("X-API-Key", &value)], b"")).status, 401);
    }
    assert_eq!(stage.upstream.take().len(), 3);
}

#[test]
fn r33_another_spelling_of_the_prefix_is_a_path_like_any_other() {
    let config = "admin: { mount: /v2 }\nroutes: [{ path: '/{*rest}', auth: none }]";
    let stage = Stage::with(config);
    let bearer = stage.admin.bearer();
    for target in ["//v2/keys", "/./v2/keys", "/a/../v2/keys", "/v2%2fkeys", "/;/v2/keys", "/%2e/v2/keys"] {
        // Such paths are refused, and the API is not where they lead.
        assert_eq!(stage.via_proxy("GET", target, &[], b"").status, 400, "{target}");
        let with_key = stage.via_proxy("GET", target, &[("Authorization", &bearer)], b"");
        assert!(!with_key.text().contains("\"success\":true"), "{target}: {}", with_key.text());
    }
    stage.upstream.take();
    // These are read alike by all, and are other paths: the upstream's.
    for target in ["/V2/keys", "/%762/keys", "/v20", "/v"] {
        assert_eq!(stage.via_proxy("GET", target, &[], b"").status, 200, "{target}");
        assert_eq!(stage.upstream.only().head.target(), target);
        stage.upstream.take();
    }
    // Those below it are the API's, whatever follows.
    for target in ["/v2/../secret", "/v2/%2e%2e/secret", "/v2//keys", "/v2/keys/..", "/v2;x/keys", "/v2/keys;x"] {
        let answer = stage.via_proxy("GET", target, &[("Authorization", &bearer)], b"");
        let is_below = target.starts_with("/v2/");
        assert!(!is_below || answer.status == 404, "{target}: {} {}", answer.status, answer.text());
        assert!(answer.status != 200 || !answer.text().contains("success"), "{target}");
        assert_eq!(stage.upstream.take().is_empty(), is_below || answer.status != 200, "{target}");
    }
    // Nor does an absolute target lead elsewhere.
    let absolute = stage.via_proxy("GET", "http://other.example/v2/keys", &[("Authorization", &bearer)], b"");
    assert_eq!(absolute.status, 200);
    // What could be two requests is refused before anybody looks at its path.
    let doubtful =
        b"POST /v2/keys HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(stage.keyward.send(doubtful).status, 400);
    stage.upstream.expect_nothing();
}

#[test]
fn the_client_is_who_the_proxys_rules_say_it_is() {
    let config =
        "admin: { mount: /manage/v2, url: 'https://admin.example' }\nproxy: { trusted_proxies: [127.0.0.0/8] }";
    let stage = Stage::with(config);
    let narrow = stage.create("narrow", json!({ "ips": ["192.0.2.7"] }));
    stage.result(
        "POST",
        "/v2/bindings",
        &json!({ "subject": format!("key:{}", narrow.id), "role": "admin" }).to_string(),
    );
    let bearer = narrow.bearer();
    let from = |client: &str| {
        let fields = [("Authorization", bearer.as_str()), ("X-Forwarded-For", client), ("X-Forwarded-Proto", "https")];
        stage.via_proxy("GET", "/manage/v2/keys?limit=1", &fields, b"")
    };
    assert_eq!((from("192.0.2.7").status, from("192.0.2.8").status), (200, 403));
    // Where one header says this and another that, nobody knows who it is.
    let fields = [("Authorization", bearer.as_str()), ("X-Forwarded-For", "192.0.2.7"), ("Forwarded", "for=192.0.2.9")];
    assert_eq!(stage.via_proxy("GET", "/manage/v2/keys", &fields, b"").status, 403);
    // Links lead back to where the question was asked, by the name that it was asked by.
    let next = from("192.0.2.7").json()["links"]["next"].as_str().unwrap().to_owned();
    assert!(next.starts_with("https://") && next.contains("/manage/v2/keys?limit=1&cursor="), "{next}");
    assert!(!next.contains("admin.example"), "{next}");
    // Whoever tries keys is kept down by who they are, and nobody else is.
    let wrong = |client: &str| {
        stage
            .via_proxy("GET", "/manage/v2/keys", &[("X-API-Key", "kw_live_x"), ("X-Forwarded-For", client)], b"")
            .status
    };
    assert!((0..30).any(|_| wrong("192.0.2.66") == 429));
    assert_eq!(wrong("192.0.2.67"), 401);
    assert_eq!(stage.via_proxy("GET", "/v2/keys", &[], b"").status, 401, "a path of the upstream's");
    stage.upstream.expect_nothing();
}

/// A page of the upstream's is of the same origin as the mount: what browsers send along by themselves is worth nothing there.
#[test]
fn what_browsers_send_by_themselves_is_for_the_admin_port_alone() {
    let stage = Stage::with(MOUNTED);
    let ann = stage.result("POST", "/v2/users", r#"{"email":"ann@example.com"}"#);
    let links = format!("/v2/users/{}/links", ann["id"].as_str().unwrap());
    let ticket = json!({ "ticket": stage.result("POST", &links, "{}")["ticket"] }).to_string();
    let json = ("Content-Type", "application/json");
    let here = stage.via_proxy("POST", "/v2/session", &[json], ticket.as_bytes());
    assert_eq!(refusal(&here), (403, vec!["forbidden".to_owned()]));
    let signed_in = stage.send("POST", "/v2/session", &[json], ticket.as_bytes());
    assert_eq!(signed_in.status, 200, "{}", signed_in.text());
    let cookie = signed_in.value("set-cookie").unwrap();
    let token = cookie.split_once("; ").unwrap().0.split_once('=').unwrap().1;
    for name in ["keyward", "__Host-keyward", "__Secure-keyward"] {
        let cookie = format!("{name}={token}");
        let fields = [("Cookie", cookie.as_str()), ("Sec-Fetch-Site", "same-origin")];
        assert_eq!(stage.via_proxy("GET", "/v2/me", &fields, b"").status, 401, "{name}");
        assert_eq!(stage.send("GET", "/v2/me", &fields, b"").status, if name == "keyward" { 200 } else { 401 });
    }
    stage.upstream.expect_nothing();
}

#[test]
fn by_http2_an_answer_to_head_is_a_head() {
    let stage = Stage::with(MOUNTED);
    let bearer = stage.admin.bearer();
    let mut client = Http2::connect(stage.keyward.proxy);
    for (path, fields, status) in [
        ("/v2/keys", &[][..], 401),
        ("/v2/keys", &[("authorization", bearer.as_str())], 200),
        ("/v2/openapi.json", &[], 200),
        ("/videos", &[], 401),
        ("/a/../b", &[("authorization", &bearer)], 400),
    ] {
        let mut asked = |method: &str| client.exchange(http2::request(method, path, fields)).unwrap();
        let (head, whole) = (asked("HEAD"), asked("GET"));
        assert_eq!((head.status, head.body.len()), (status, 0), "{path}");
        assert_eq!(head.headers["content-length"], whole.body.len().to_string(), "{path}");
    }
    stage.upstream.expect_nothing();
}

/// What is refused there has a line as what is refused elsewhere, and both say who it was.
#[test]
fn refusals_have_a_line_that_says_whose_they_are() {
    let config = "admin: { mount: /v2 }\nproxy: { trusted_proxies: [127.0.0.0/8] }\nlog: { access: denied }";
    let stage = Stage::with(config);
    let (bearer, looks) = (stage.admin.bearer(), stage.read_only.bearer());
    let asked = |method: &str, path: &str, fields: &[(&str, &str)]| {
        let fields = [&[("X-Forwarded-For", "192.0.2.7")], fields].concat();
        stage.via_proxy(method, path, &fields, b"").status
    };
    assert_eq!(asked("GET", "/v2/keys", &[("Authorization", &bearer)]), 200);
    assert_eq!(asked("GET", "/v2/keys/nothing", &[("Authorization", &bearer)]), 404);
    assert_eq!(asked("GET", "/v2/users", &[("X-API-Key", "kw_live_wrong")]), 401);
    assert_eq!(asked("DELETE", "/v2/keys/some", &[("Authorization", &looks)]), 403);
    for (path, status, reason, key) in [
        ("/v2/users", 401, "unauthenticated", None),
        ("/v2/keys/some", 403, "forbidden", Some(stage.read_only.id.as_str())),
    ] {
        let line = stage.keyward.wait_for_line_with("url.path", &json!(path));
        assert_eq!(line["http.response.status_code"], status, "{line}");
        assert_eq!((&line["decision"], &line["reason"]), (&json!("managed"), &json!(reason)), "{line}");
        assert_eq!((&line["client.address"], line["key.id"].as_str()), (&json!("192.0.2.7"), key), "{line}");
    }
    let output = String::from_utf8(stage.keyward.output()).unwrap();
    assert!(!output.contains("/v2/keys\"") && !output.contains("/v2/keys/nothing"), "{output}");
}

/// Browsers send Basic along by themselves, from other sites' pages too.
#[test]
fn basic_is_no_way_to_manage() {
    let stage = Stage::with(MOUNTED);
    let basic = STANDARD.encode(format!("{}:", stage.admin.value));
    let fields = [("Authorization", format!("Basic {basic}"))];
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(stage.via_proxy("GET", "/v2/keys", &fields, b"").status, 401);
    assert_eq!(stage.send("GET", "/v2/keys", &fields, b"").status, 401);
    assert_eq!(stage.via_proxy("GET", "/videos", &fields, b"").status, 200);
}

#[test]
fn it_is_there_by_http2_and_tls_and_goes_with_the_config() {
    let ca = Authority::new("root");
    let upstream = Upstream::start();
    let config = |mount: &str| {
        format!("proxy: {{ tls: {{ certificate: tls.crt, key: tls.key }} }}\nadmin: {{ mount: '{mount}' }}")
    };
    let site = Site::new(upstream.address(), &config("/v2"));
    let certified = ca.sign("localhost", 2020..2100);
    site.write("tls.key", &certified.key);
    site.write("tls.crt", &certified.certificate);
    let admin = site.create_key(&["--role", "admin"]);
    let keyward = site.serve();
    let bearer = admin.bearer();
    let fields = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let mut client = Http2::connect(door::open(keyward.proxy, &ca, "h2"));
    let body = br#"{"type":"api","name":"n","permissions":[],"ips":[]}"#;
    let made = client.upload(http2::request("POST", "/v2/keys", &fields), body).unwrap();
    assert_eq!(made.status, 200);
    let listed = client.exchange(http2::request("GET", "/v2/keys?limit=1", &fields[..1])).unwrap();
    let listed: Value = serde_json::from_slice(&listed.body).unwrap();
    let next = listed["links"]["next"].as_str().unwrap();
    assert!(next.starts_with("https://media.example/v2/keys?"), "{next}");
    assert_eq!(client.exchange(http2::request("GET", "/v2/keys", &[])).unwrap().status, 401);
    upstream.expect_nothing();
    // Without the option it is the upstream's, on connections that are open too.
    keyward.site.configure(upstream.address(), &config(""));
    assert_eq!(keyward.reload().status, 200);
    assert_eq!(client.exchange(http2::request("GET", "/v2/keys", &fields[..1])).unwrap().status, 200);
    assert_eq!(upstream.only().head.target(), "/v2/keys");
}

/// Where there is no room for one more request there is none for those who manage either, who have a port of their own.
#[test]
fn it_waits_for_nobody_and_takes_nobodys_place() {
    let (go, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let upstream = Upstream::scripted(move |turn| {
        let _ = told.lock().unwrap().recv_timeout(PATIENCE);
        turn.answer(&ok("slow"))
    });
    let site = Site::new(upstream.address(), "admin: { mount: /v2 }\nproxy: { max_requests: 1 }");
    let admin = site.create_key(&["--role", "admin"]);
    let keyward = site.serve();
    let mut first = keyward.connect();
    first.send(&request("GET", "/slow", &[("X-API-Key", &admin.value)], b""));
    upstream.wait_for(1);
    let refused = keyward.with_key(&admin, "GET", "/v2/keys");
    assert_eq!((refusal(&refused).0, refused.value("retry-after").is_some()), (503, true));
    assert_eq!(keyward.manage(&admin, "GET", "/v2/keys", "").status, 200);
    drop(go);
    assert_eq!(first.response().status, 200);
    until("there is room again", || keyward.with_key(&admin, "GET", "/v2/keys").status == 200);
    assert_eq!(upstream.received().len(), 1);
}
