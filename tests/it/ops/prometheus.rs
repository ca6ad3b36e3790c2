//! A real Prometheus that scrapes a running Keyward.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::listener;
use crate::support::{Client, Site, Upstream, request, until};
use crate::tools::{self, Program};

/// What a query gives: the value of its only sample.
fn query(prometheus: SocketAddr, expression: &str) -> Option<String> {
    let encoded: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let target = format!("/api/v1/query?query={encoded}");
    let answer = Client::connect(prometheus).exchange(&request("GET", &target, &[], b"")).json();
    assert_eq!(answer["status"], "success", "{answer}");
    match answer["data"]["result"].as_array().unwrap().as_slice() {
        [sample] => sample["value"][1].as_str().map(str::to_owned),
        _ => None,
    }
}

#[test]
fn a_real_prometheus_scrapes_it() {
    if tools::lacks(&["prometheus"]) {
        return;
    }
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "routes: [{ path: /public, auth: none }]");
    let key = site.create_key(&[]);
    let keyward = site.serve();
    for _ in 0..3 {
        assert_eq!(keyward.with_key(&key, "GET", "/").status, 200);
    }
    assert_eq!(keyward.get("/", &[]).status, 401);
    assert_eq!(keyward.get("/public", &[]).status, 200);

    let folder = tempfile::tempdir().unwrap();
    let ops = listener(&keyward, "ops");
    let config = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\n\
         scrape_configs: [{{ job_name: keyward, static_configs: [{{ targets: ['{ops}'] }}] }}]\n"
    );
    fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let mut command = Command::new("prometheus");
    command.args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address=127.0.0.1:0"]);
    let mut prometheus = Program::start(command.args(["--log.level=warn"]).current_dir(&folder).stdin(Stdio::null()));
    let mut port = None;
    until("Prometheus listens", || {
        assert!(!prometheus.has_ended(), "Prometheus has ended: {}", prometheus.err());
        port = tools::listening_port(prometheus.id());
        port.is_some()
    });
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.unwrap()));
    until("Prometheus answers", || {
        Client::connect(address).exchange(&request("GET", "/-/ready", &[], b"")).status == 200
    });

    let permits = "sum(keyward_requests_total{decision=\"permit\"})";
    // The first sample comes five seconds after the start, whatever the interval.
    let scraped = tools::wait(tools::PATIENCE, || query(address, permits).as_deref() == Some("3"));
    assert!(scraped, "{:?}\n{}", query(address, permits), targets(address));
    for (expression, value) in [
        ("up{job=\"keyward\"}", "1"),
        ("sum(keyward_requests_total{decision=\"denial\",reason=\"missing_credential\",code=\"4xx\"})", "1"),
        ("sum(keyward_requests_total{decision=\"public\"})", "1"),
        ("sum(keyward_requests_total{decision=\"error\"})", "0"),
        ("sum(keyward_request_duration_seconds_count)", "5"),
        ("count(keyward_build_info)", "1"),
        ("count(histogram_quantile(0.99, sum by (le) (keyward_auth_duration_seconds_bucket)))", "1"),
        ("keyward_store_up", "1"),
    ] {
        assert_eq!(query(address, expression).as_deref(), Some(value), "{expression}");
    }
    assert_eq!(targets(address)["data"]["activeTargets"][0]["lastError"], "");
}

/// What Prometheus thinks of what it scrapes.
fn targets(prometheus: SocketAddr) -> Value {
    Client::connect(prometheus).exchange(&request("GET", "/api/v1/targets", &[], b"")).json()
}
