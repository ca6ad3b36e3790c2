//! `/metrics`: the form that scrapers insist on, every series before its first event, and counts that are right.

use std::collections::BTreeMap;
use std::io;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::support::upstream::Turn;
use crate::support::{After, Keyward, Site, Upstream, ok, request, until};
use crate::tools;

/// Every way in which a request ends, as the labels `decision` and `reason`.
const ENDS: &[(&str, &str)] = &[
    ("permit", "ok"),
    ("public", "ok"),
    ("managed", "ok"),
    ("denial", "missing_credential"),
    ("denial", "malformed_credential"),
    ("denial", "unknown_credential"),
    ("denial", "revoked_credential"),
    ("denial", "disabled_credential"),
    ("denial", "expired_credential"),
    ("denial", "suspended_scope"),
    ("denial", "suspended_user"),
    ("denial", "dead_parent"),
    ("denial", "ambiguous_credential"),
    ("denial", "ambiguous_path"),
    ("denial", "address_not_allowed"),
    ("denial", "read_only_key"),
    ("denial", "outside_scope"),
    ("denial", "wrong_environment"),
    ("denial", "no_api_access"),
    ("denial", "rate_limited"),
    ("denial", "replica_not_loaded"),
    ("denial", "replica_expired"),
    ("error", "bad_request"),
    ("error", "head_too_large"),
    ("error", "method_refused"),
    ("error", "upstream_unreachable"),
    ("error", "upstream_broken"),
    ("error", "upstream_timeout"),
    ("error", "client_timeout"),
    ("error", "request_timeout"),
    ("error", "overloaded"),
    ("error", "stopping"),
];

/// Every sample of an exposition, by its name and labels.
fn samples(keyward: &Keyward) -> BTreeMap<String, f64> {
    let page = keyward.ops_page("/metrics").text();
    let samples = page.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap());
    samples.map(|(series, value)| (series.to_owned(), value.parse().unwrap())).collect()
}

fn requests(decision: &str, reason: &str, code: &str) -> String {
    format!("keyward_requests_total{{code=\"{code}\",decision=\"{decision}\",reason=\"{reason}\"}}")
}

/// The number of requests that ended so far, by how they did.
fn ended(keyward: &Keyward) -> BTreeMap<String, f64> {
    samples(keyward).into_iter().filter(|(name, _)| name.starts_with("keyward_requests_total{")).collect()
}

#[test]
fn the_exposition_is_one_that_every_scraper_takes() {
    if tools::lacks(&["promtool"]) {
        return;
    }
    let upstream = Upstream::start();
    let keyward = Site::new(upstream.address(), "").serve();
    keyward.get("/", &[]);
    let page = keyward.ops_page("/metrics");
    assert_eq!(page.status, 200);
    assert_eq!(page.value("content-type").as_deref(), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(page.value("cache-control").as_deref(), Some("no-store"));

    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(&page.body).unwrap();
    let judged = promtool.wait_with_output().unwrap();
    let said = [judged.stdout, judged.stderr].concat();
    assert!(judged.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn every_series_is_there_before_its_first_event() {
    let upstream = Upstream::start();
    let keyward = Site::new(upstream.address(), "").serve();
    let samples = samples(&keyward);
    let mut expected: Vec<String> = Vec::new();
    for (decision, reason) in ENDS {
        expected.extend(["1xx", "2xx", "3xx", "4xx", "5xx"].map(|code| requests(decision, reason, code)));
    }
    let known = samples.keys().filter(|name| name.starts_with("keyward_requests_total")).count();
    assert_eq!(known, expected.len(), "no others");
    for name in ["keyward_request_duration_seconds", "keyward_auth_duration_seconds"] {
        for decision in ["permit", "public", "managed", "denial", "error"] {
            expected.push(format!("{name}_count{{decision=\"{decision}\"}}"));
            expected.push(format!("{name}_bucket{{decision=\"{decision}\",le=\"+Inf\"}}"));
        }
    }
    expected.push("keyward_upstream_request_duration_seconds_count".to_owned());
    for kind in ["upstream_unreachable", "upstream_broken", "upstream_timeout"] {
        expected.push(format!("keyward_upstream_errors_total{{kind=\"{kind}\"}}"));
    }
    for name in ["hints_total", "resyncs_total", "records_unreadable_total", "pepper_mismatch", "panics_total"] {
        expected.push(format!("keyward_{name}"));
    }
    for name in ["connections_total", "connections_open", "requests_in_flight", "log_dropped_total"] {
        expected.push(format!("keyward_{name}"));
    }
    expected.push("keyward_pulls_total{result=\"delta\"}".to_owned());
    expected.push("keyward_pulls_total{result=\"failed\"}".to_owned());
    for name in expected {
        assert_eq!(samples.get(&name), Some(&0.0), "{name}");
    }
    assert_eq!(samples[&format!("keyward_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))] as u64, 1);
    assert_eq!(samples["keyward_store_up"] as u64, 1);
    assert!(samples["process_resident_memory_bytes"] > 1e6);
}

const CONFIG: &str = r#"
proxy: { timeouts: { response: 300ms }, max_headers: 50 }
routes:
  - { path: "/public/{*rest}", auth: none }
  - { path: /test, env: test }
  - { path: "/organizations/{organization}" }
"#;

/// Answers as the path says.
fn by_path(turn: &mut Turn<'_>) -> io::Result<After> {
    let answer = |line: &str| format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").into_bytes();
    match turn.head.target().rsplit('/').next().unwrap() {
        "moved" => turn.answer(&answer("302 Found")),
        "missing" => turn.answer(&answer("404 Not Found")),
        "broken" => turn.answer(&answer("500 Internal Server Error")),
        "cut" => Ok(After::Close),
        // Until the other end has had enough.
        "silent" => turn.wire.some().map(|_| After::Close),
        _ => turn.answer(&ok("<ok/>")),
    }
}

#[test]
fn each_request_counts_once_as_what_it_was() {
    let upstream = Upstream::scripted(by_path);
    let site = Site::new(upstream.address(), CONFIG);
    let create = |options: &[&str]| ("X-API-Key", site.create_key(options).value);
    let (good, read_only) = (create(&[]), create(&["--read-only"]));
    let (foreign, short) = (create(&["--ip", "10.0.0.0/8"]), create(&["--expires", "1ms"]));
    let (acme, frozen) = (create(&["--scope", "organization:acme"]), create(&["--scope", "organization:frozen"]));
    let once = create(&["--rate-limit", "1/1h"]);
    let (revoked, disabled) = (create(&["--id", "revoked"]), create(&["--id", "disabled"]));
    site.json(&["key", "revoke", "revoked"]);
    site.json(&["key", "disable", "disabled"]);
    site.json(&["scope", "suspend", "organization:frozen"]);
    let unknown = Site::new(upstream.address(), "").create_key(&[]).value;
    let keyward = site.serve();

    let (unknown, malformed, wide) = (("X-API-Key", unknown), ("X-API-Key", "x".to_owned()), ("A", "b".to_owned()));
    let second_host = ("Host", "other.example".to_owned());
    let twice = ("Authorization", format!("Bearer {}", good.1));
    let mut wide = vec![wide; 51];
    wide.push(good.clone());
    let rows = [
        ("GET", "/a", vec![good.clone()], ["permit", "ok", "2xx"]),
        ("POST", "/a", vec![good.clone()], ["permit", "ok", "2xx"]),
        ("GET", "/moved", vec![good.clone()], ["permit", "ok", "3xx"]),
        ("GET", "/missing", vec![good.clone()], ["permit", "ok", "4xx"]),
        ("GET", "/broken", vec![read_only.clone()], ["permit", "ok", "5xx"]),
        ("GET", "/organizations/acme", vec![acme.clone()], ["permit", "ok", "2xx"]),
        ("GET", "/public/a", vec![], ["public", "ok", "2xx"]),
        ("GET", "/public/missing", vec![], ["public", "ok", "4xx"]),
        ("GET", "/a", vec![], ["denial", "missing_credential", "4xx"]),
        ("GET", "/a", vec![malformed], ["denial", "malformed_credential", "4xx"]),
        ("GET", "/a", vec![unknown], ["denial", "unknown_credential", "4xx"]),
        ("GET", "/a", vec![revoked], ["denial", "revoked_credential", "4xx"]),
        ("GET", "/a", vec![disabled], ["denial", "disabled_credential", "4xx"]),
        ("GET", "/a", vec![short], ["denial", "expired_credential", "4xx"]),
        ("GET", "/a", vec![frozen], ["denial", "suspended_scope", "4xx"]),
        ("GET", "/a", vec![good.clone(), twice], ["denial", "ambiguous_credential", "4xx"]),
        ("GET", "/a//b", vec![good.clone()], ["denial", "ambiguous_path", "4xx"]),
        ("GET", "/a", vec![foreign], ["denial", "address_not_allowed", "4xx"]),
        ("POST", "/a", vec![read_only], ["denial", "read_only_key", "4xx"]),
        ("GET", "/organizations/other", vec![acme], ["denial", "outside_scope", "4xx"]),
        ("GET", "/test", vec![good.clone()], ["denial", "wrong_environment", "4xx"]),
        ("GET", "/a", vec![once.clone()], ["permit", "ok", "2xx"]),
        ("GET", "/a", vec![once], ["denial", "rate_limited", "4xx"]),
        ("GET", "/a", vec![good.clone(), second_host], ["error", "bad_request", "4xx"]),
        ("GET", "/a", wide, ["error", "head_too_large", "4xx"]),
        ("TRACE", "/a", vec![good.clone()], ["error", "method_refused", "5xx"]),
        ("GET", "/cut", vec![good.clone()], ["error", "upstream_broken", "5xx"]),
        ("GET", "/silent", vec![good], ["error", "upstream_timeout", "5xx"]),
    ];
    let mut expected = ended(&keyward);
    for (method, target, fields, [decision, reason, code]) in &rows {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let response = keyward.send(&request(method, target, &fields, b""));
        let series = requests(decision, reason, code);
        assert_eq!(format!("{}xx", response.status / 100), **code, "{series}: {}", response.text());
        *expected.get_mut(&series).unwrap() += 1.0;
        // A request has ended, and counts, a moment after its answer.
        until(&series, || ended(&keyward) == expected);
    }
    check_the_rest(&keyward, rows.iter().map(|(.., end)| *end));
}

/// What else has moved with these requests.
#[track_caller]
fn check_the_rest<'e>(keyward: &Keyward, ends: impl Iterator<Item = [&'e str; 3]> + Clone) {
    let samples = samples(keyward);
    let count = |wanted: &str| ends.clone().filter(|end| end.contains(&wanted)).count() as f64;
    for decision in ["permit", "public", "managed", "denial", "error"] {
        let requests = samples[&format!("keyward_request_duration_seconds_count{{decision=\"{decision}\"}}")];
        assert_eq!(requests, count(decision), "{decision}");
    }
    // Those which the upstream failed had been permitted.
    let failed = count("upstream_broken") + count("upstream_timeout");
    assert_eq!(samples["keyward_auth_duration_seconds_count{decision=\"permit\"}"], count("permit") + failed);
    assert_eq!(samples["keyward_upstream_request_duration_seconds_count"], count("permit") + count("public"));
    for kind in ["upstream_broken", "upstream_timeout"] {
        assert_eq!(samples[&format!("keyward_upstream_errors_total{{kind=\"{kind}\"}}")], 1.0);
    }
    assert_eq!(samples["keyward_connections_total"], ends.clone().count() as f64);
    assert_eq!(samples["keyward_requests_in_flight"], 0.0);
    until("all connections are closed", || keyward.metric("keyward_connections_open") == 0.0);
}

#[test]
fn an_upstream_that_is_not_there_counts_as_such() {
    let nobody = crate::support::port::unused();
    let site = Site::new(nobody, "");
    let key = site.create_key(&[]);
    let keyward = site.serve();
    assert_eq!(keyward.with_key(&key, "GET", "/").status, 502);
    let series = requests("error", "upstream_unreachable", "5xx");
    until(&series, || keyward.metric(&series) == 1.0);
    assert_eq!(keyward.metric("keyward_upstream_errors_total{kind=\"upstream_unreachable\"}"), 1.0);
}

#[test]
fn gauges_follow_what_is_under_way() {
    let upstream = Upstream::scripted(by_path);
    let site = Site::new(upstream.address(), "proxy: { timeouts: { response: 60s } }");
    let key = site.create_key(&[]);
    let keyward = site.serve();
    let mut client = keyward.connect();
    client.send(&request("GET", "/silent", &[("X-API-Key", &key.value)], b""));
    upstream.wait_for(1);
    assert_eq!(keyward.metric("keyward_requests_in_flight"), 1.0);
    assert_eq!(keyward.metric("keyward_connections_open"), 1.0);
    drop(client);
    until("the request has ended with its client", || keyward.metric("keyward_requests_in_flight") == 0.0);
    until("so has its connection", || keyward.metric("keyward_connections_open") == 0.0);

    let revision = keyward.metric("keyward_replica_revision");
    keyward.site.create_key(&["--scope", "organization:acme"]);
    until("the change has arrived", || keyward.metric("keyward_replica_revision") == revision + 1.0);
    for (kind, count) in [("key", 2.0), ("secret", 2.0), ("scope", 1.0)] {
        assert_eq!(keyward.metric(&format!("keyward_replica_records{{kind=\"{kind}\"}}")), count);
    }
    assert_eq!(keyward.metric("keyward_pulls_total{result=\"delta\"}"), 1.0);
    assert_eq!(keyward.metric("keyward_pulls_total{result=\"full\"}"), 1.0);
}
