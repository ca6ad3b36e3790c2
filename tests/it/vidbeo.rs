//! Vidbeo's keys: `permissions` and `ips`, and what follows from them for a request.

use std::net::IpAddr;

use super::support::{Client, Key, Keyward, Site, Upstream, request};

const JSON: &str = "deny: { format: json }";

fn site(upstream: &Upstream, config: &str) -> Site {
    Site::new(upstream.address(), &format!("{JSON}\n{config}"))
}

#[track_caller]
fn check(keyward: &Keyward, upstream: &Upstream, key: &Key, method: &str, status: u16) {
    let response = keyward.with_key(key, method, "/v2/videos/abcde12345abcde12345a");
    assert_eq!(response.status, status, "{method}: {}", response.text());
    if status == 200 {
        assert_eq!(upstream.only().head.start(), format!("{method} /v2/videos/abcde12345abcde12345a HTTP/1.1"));
    } else {
        assert_eq!(response.json()["success"], false);
        upstream.expect_nothing();
    }
}

#[test]
fn v15_a_key_is_read_write_or_read_only() {
    let upstream = Upstream::start();
    let site = site(&upstream, "");
    let (read_write, read_only) = (site.create_key(&[]), site.create_key(&["--read-only"]));
    let keyward = site.serve();
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        check(&keyward, &upstream, &read_write, method, 200);
        check(&keyward, &upstream, &read_only, method, if method == "GET" { 200 } else { 403 });
    }
    for (key, access) in [(&read_write, "read-write"), (&read_only, "read-only")] {
        keyward.with_key(key, "GET", "/v2/videos");
        assert_eq!(upstream.only().head.value("x-keyward-access").as_deref(), Some(access));
    }
}

#[test]
fn v16_no_addresses_means_any_address() {
    let upstream = Upstream::start();
    let site = site(&upstream, "");
    let (any, one) = (site.create_key(&[]), site.create_key(&["--ip", "127.0.0.7"]));
    let keyward = site.serve();
    for (key, source, status) in
        [(&any, "127.0.0.1", 200), (&any, "127.0.0.7", 200), (&one, "127.0.0.1", 403), (&one, "127.0.0.7", 200)]
    {
        let source: IpAddr = source.parse().unwrap();
        let get = request("GET", "/v2/videos", &[("Authorization", &key.bearer())], b"");
        let response = Client::connect_from(source, keyward.proxy).exchange(&get);
        assert_eq!(response.status, status, "{source}: {}", response.text());
        assert_eq!(upstream.take().len(), usize::from(status == 200), "{source}");
    }
}

#[test]
fn v29_what_is_no_address_makes_no_key() {
    let upstream = Upstream::start();
    let site = site(&upstream, "");
    for ip in ["", "1.2.3", "1.2.3.4.5", "256.1.1.1", "example.com", "1.2.3.4/33", "1.2.3.4-1.2.3.9", "::1/129"] {
        let output = site.run(&["key", "create", "--name", "Example", "--ip", ip]);
        assert_eq!(output.status.code(), Some(2), "{ip:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.stdout, b"", "{ip:?}");
    }
    for ip in ["1.2.3.4", "1.2.3.0/24", "2001:db8::7", "2001:db8::/32"] {
        let key = site.create_key(&["--ip", ip]);
        let shown = site.json(&["key", "show", &key.id]);
        assert_eq!(shown["ips"], serde_json::json!([ip]));
    }
    upstream.expect_nothing();
}

#[test]
fn v30_a_right_key_from_a_wrong_address_is_refused() {
    let upstream = Upstream::start();
    let site = site(&upstream, "");
    let key = site.create_key(&["--ip", "1.2.3.4", "--ip", "2001:db8::/32"]);
    let keyward = site.serve();
    // Whatever the client says of itself, it comes from 127.0.0.1.
    for claim in [
        ("Accept", "*/*"),
        ("X-Forwarded-For", "1.2.3.4"),
        ("X-Forwarded-For", "127.0.0.1, 1.2.3.4"),
        ("X_Forwarded_For", "1.2.3.4"),
        ("X-Real-IP", "1.2.3.4"),
        ("X-Client-IP", "1.2.3.4"),
        ("True-Client-IP", "1.2.3.4"),
        ("CF-Connecting-IP", "1.2.3.4"),
        ("Forwarded", "for=1.2.3.4"),
        ("Forwarded", "for=\"[2001:db8::1]\""),
    ] {
        let response = keyward.get("/v2/videos", &[("Authorization", &key.bearer()), claim]);
        assert_eq!(response.status, 403, "{claim:?}");
        assert_eq!(response.json()["errors"][0]["code"], "address_not_allowed");
        upstream.expect_nothing();
    }
}

#[test]
fn v30_behind_a_trusted_proxy_the_client_is_who_counts() {
    let upstream = Upstream::start();
    let site = site(&upstream, "proxy: { trusted_proxies: [127.0.0.1] }");
    let key = site.create_key(&["--ip", "1.2.3.4", "--ip", "2001:db8::/32"]);
    let keyward = site.serve();
    for (name, value, status) in [
        ("X-Forwarded-For", "1.2.3.4", 200),
        ("X-Forwarded-For", "9.9.9.9, 1.2.3.4", 200),
        ("X-Forwarded-For", "1.2.3.4, 127.0.0.1", 200),
        ("X-Forwarded-For", "::ffff:1.2.3.4", 200),
        ("X-Forwarded-For", "2001:db8::5", 200),
        ("Forwarded", "for=\"[2001:db8::5]:4711\"", 200),
        ("X-Forwarded-For", "1.2.3.4, 9.9.9.9", 403),
        ("X-Forwarded-For", "9.9.9.9", 403),
        ("X-Forwarded-For", "unknown", 403),
        ("X-Real-IP", "1.2.3.4", 403),
        ("Accept", "*/*", 403),
    ] {
        let response = keyward.get("/v2/videos", &[("Authorization", &key.bearer()), (name, value)]);
        assert_eq!(response.status, status, "{name}: {value}: {}", response.text());
        assert_eq!(upstream.take().len(), usize::from(status == 200), "{name}: {value}");
    }
}
