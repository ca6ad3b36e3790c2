//! What kubelet, Prometheus and those who run it see: probes, status, metrics and the access log.

mod access_log;
mod metrics;
mod probes;
mod prometheus;

use std::fs;
use std::net::SocketAddr;

use super::support::{Client, Keyward, Response, Site, Upstream, request, until};

/// Where one of the listeners is, `ops` or `admin`.
#[track_caller]
fn listener(keyward: &Keyward, name: &str) -> SocketAddr {
    let line = keyward.wait_for_line("serving");
    line[name].as_str().unwrap().parse().unwrap()
}

#[track_caller]
fn assert_page(response: &Response, status: u16, body: &str) {
    assert_eq!((response.status, response.text().as_str()), (status, body));
    assert_eq!(response.value("content-type").as_deref(), Some("text/plain; charset=utf-8"));
    assert_eq!(response.value("cache-control").as_deref(), Some("no-store"));
}

#[test]
fn probes_say_in_a_word_whether_it_lives_and_is_ready() {
    let upstream = Upstream::start();
    let keyward = Site::new(upstream.address(), "").serve();
    for (target, status, body) in [
        ("/livez", 200, "ok\n"),
        ("/healthz", 200, "ok\n"),
        ("/livez?verbose", 200, "ok\n"),
        ("/readyz", 200, "ok\n"),
        ("/readyz?verbose", 200, "[+]lifecycle ok\n[+]replica ok\nok\n"),
        ("/readyz?x&verbose=1", 200, "[+]lifecycle ok\n[+]replica ok\nok\n"),
        ("/", 404, "not found; there are /livez, /readyz and /metrics\n"),
        ("/readyz/", 404, "not found; there are /livez, /readyz and /metrics\n"),
    ] {
        assert_page(&keyward.ops_page(target), status, body);
    }
    let mut client = Client::connect(listener(&keyward, "ops"));
    let head = client.exchange(&request("HEAD", "/readyz", &[], b""));
    assert_eq!((head.status, head.value("content-length").as_deref()), (200, Some("3")));
    let post = client.exchange(&request("POST", "/readyz", &[], b""));
    assert_page(&post, 405, "only GET and HEAD\n");
    assert_eq!(post.value("allow").as_deref(), Some("GET, HEAD"));
    upstream.expect_nothing();
}

#[test]
fn the_proxy_itself_reserves_no_path() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "");
    let key = site.create_key(&[]);
    let keyward = site.serve();
    for path in ["/livez", "/readyz", "/metrics", "/status"] {
        assert_eq!(keyward.get(path, &[]).status, 401, "{path}");
        assert_eq!(keyward.with_key(&key, "GET", path).status, 200, "{path}");
        assert_eq!(upstream.only().head.target(), path);
    }
}

#[test]
fn a_store_that_was_never_read_makes_it_not_ready() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "{ store: 'file:keys.json', sync: { poll: 100ms } }");
    let keyward = site.start();
    until("the store was looked for", || keyward.ops_page("/readyz").text().contains("[!]store"));
    let page = keyward.ops_page("/readyz").text();
    assert!(page.starts_with("[+]lifecycle ok\n[-]replica not loaded yet\n[!]store file:"), "{page}");
    assert!(page.contains("keys.json") && page.ends_with("\nnot ready\n"), "{page}");
    assert_eq!(keyward.ops_page("/livez").status, 200);
    assert_eq!(keyward.metric("keyward_store_up") as u64, 0);

    // A store of another pepper is there and of no use.
    let other = Site::new(upstream.address(), "");
    let refused = keyward.with_key(&other.create_key(&[]), "GET", "/a.xml");
    assert_eq!((refused.status, refused.value("retry-after").as_deref()), (503, Some("5")));
    assert_eq!(refused.value("www-authenticate"), None, "an outage is no reason to throw a key away");
    upstream.expect_nothing();
    other.write("keyward.pepper", &"ab".repeat(32));
    keyward.site.write("keys.json", &records(&other).0);
    until("the pepper does not fit", || keyward.ops_page("/readyz").text().contains("another pepper"));
    assert_eq!(keyward.ops_page("/readyz").status, 503);
    assert_eq!(keyward.metric("keyward_pepper_mismatch") as u64, 1);

    let (records, value) = records(&keyward.site);
    keyward.site.write("keys.json", &records);
    until("it is ready", || keyward.ops_page("/readyz").status == 200);
    assert_eq!(keyward.metric("keyward_pepper_mismatch") as u64, 0);
    assert_eq!(keyward.get("/a.xml", &[("X-API-Key", &value)]).status, 200);
}

/// The records of a new key, as a file for a store to read, and the key's value.
#[track_caller]
fn records(site: &Site) -> (String, String) {
    let made = site.json(&["key", "create", "--name", "a", "--record"]);
    let file = serde_json::json!({ "pepper_check": made["pepper_check"], "records": made["records"] });
    (file.to_string(), made["value"].as_str().unwrap().to_owned())
}

#[test]
fn as_many_headers_are_taken_as_the_config_says() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "proxy: { max_headers: 300 }");
    let key = site.create_key(&[]);
    let keyward = site.serve();
    // `Host` and the key are two of them.
    for (others, status) in [(98, 200), (99, 200), (298, 200), (299, 431)] {
        let fields = [vec![("X-API-Key", key.value.as_str())], vec![("A", "b"); others]].concat();
        assert_eq!(keyward.get("/", &fields).status, status, "{others}");
    }
}

#[test]
fn a_store_that_is_gone_is_a_trouble_and_only_much_later_an_outage() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "sync: { poll: 50ms, max_staleness: 2500ms }");
    let key = site.create_key(&[]);
    let keyward = site.serve();
    let (database, aside) = (keyward.site.path().join("keyward.db"), keyward.site.path().join("aside"));
    fs::rename(&database, &aside).unwrap();
    until("the trouble is told", || keyward.ops_page("/readyz?verbose").text().contains("[!]store sqlite:"));
    let page = keyward.ops_page("/readyz?verbose");
    assert!(page.status == 200 && page.text().starts_with("[+]lifecycle ok\n[+]replica ok\n"), "{}", page.text());
    assert_eq!(keyward.with_key(&key, "GET", "/").status, 200);
    let status = keyward.admin_page("/status").json();
    assert_eq!(status["result"]["replica"]["state"], "usable");
    assert_eq!(status["result"]["troubles"][0]["part"], "store");

    until("what is known has become too old", || keyward.ops_page("/readyz").status == 503);
    let page = keyward.ops_page("/readyz").text();
    assert!(page.starts_with("[+]lifecycle ok\n[-]replica expired: the store was last read "), "{page}");
    let refused = keyward.with_key(&key, "GET", "/");
    assert_eq!((refused.status, refused.value("retry-after").as_deref()), (503, Some("5")));
    assert_eq!(keyward.admin_page("/status").json()["result"]["replica"]["state"], "expired");
    assert_eq!(keyward.ops_page("/livez").status, 200);

    fs::rename(&aside, &database).unwrap();
    until("it is ready again", || keyward.ops_page("/readyz").status == 200);
    assert_eq!(keyward.with_key(&key, "GET", "/").status, 200);
    assert_page(&keyward.ops_page("/readyz?verbose"), 200, "[+]lifecycle ok\n[+]replica ok\nok\n");
}

#[test]
fn one_that_is_about_to_stop_is_not_ready_and_still_serves() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "proxy: { timeouts: { drain_delay: 500ms } }");
    let key = site.create_key(&[]);
    let mut keyward = site.serve();
    keyward.terminate();
    until("it is not ready", || keyward.ops_page("/readyz").status == 503);
    assert_page(&keyward.ops_page("/readyz"), 503, "[-]lifecycle shutting down\n[+]replica ok\nnot ready\n");
    assert_eq!(keyward.with_key(&key, "GET", "/").status, 200);
    assert_eq!(keyward.ops_page("/livez").status, 200);
    assert_eq!(keyward.wait_for_exit().code(), Some(0));
}

#[test]
fn the_status_says_what_is_in_use() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "");
    site.create_key(&["--scope", "organization:acme/project:p1"]);
    site.create_key(&[]);
    let keyward = site.serve();
    let page = keyward.admin_page("/status");
    assert_eq!((page.status, page.value("content-type").as_deref()), (200, Some("application/json")));
    assert_eq!(page.value("cache-control").as_deref(), Some("no-store"));
    let status = page.json();
    assert_eq!((&status["success"], &status["errors"]), (&true.into(), &serde_json::json!([])));
    let result = &status["result"];
    assert_eq!((&result["version"], &result["troubles"]), (&env!("CARGO_PKG_VERSION").into(), &serde_json::json!([])));
    let replica = &result["replica"];
    for (name, value) in [("revision", 2), ("scopes", 2), ("keys", 2), ("secrets", 2)] {
        assert_eq!(replica[name], value, "{name}: {replica}");
    }
    assert_eq!(replica["state"], "usable");
    assert!(replica["staleness_seconds"].as_f64().unwrap() < 5.0, "{replica}");

    let missing = keyward.admin_page("/statuses");
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json()["errors"][0]["code"], "not_found");
    let post = Client::connect(listener(&keyward, "admin")).exchange(&request("POST", "/status", &[], b""));
    assert_eq!(post.status, 405);
}
