//! What is kept beside the records: who changed what, how often keys were used, and which processes have heard of a change.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::support::{Key, Keyward, Site, Upstream, request, until};
use super::tools;
use super::tools::postgres::{self, Database};

/// A command that may fail: its exit code, what it wrote to stdout as JSON, and what to stderr.
fn ran(site: &Site, words: &[&str]) -> (i32, Value, String) {
    let output = site.command(words).args(["--output", "json"]).output().unwrap();
    let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().unwrap_or(-1), json, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn who_changed_what_is_listed_exported_and_verified() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "");
    let key = site.create_key(&["--read-only"]);
    site.json(&["key", "update", &key.id, "--read-write"]);
    site.json(&["key", "revoke", &key.id, "--reason", "leaked"]);
    let listed = site.json(&["audit", "list", "--target", &key.id]);
    let actions: Vec<&str> = listed.as_array().unwrap().iter().filter_map(|entry| entry["action"].as_str()).collect();
    assert_eq!(actions, ["key.revoke", "key.update", "key.create"]);
    let table = String::from_utf8(site.run(&["audit", "list"]).stdout).unwrap();
    assert!(table.contains("access read-only -> read-write, (escalation)"), "{table}");
    assert!(table.contains("because: leaked"), "{table}");
    let exported = String::from_utf8(site.run(&["audit", "export"]).stdout).unwrap();
    assert_eq!(exported.lines().count(), 4);
    assert!(!exported.contains(&key.value[8..]));
    let (code, verdict, _) = ran(&site, &["audit", "verify"]);
    assert_eq!((code, &verdict["lines"]), (0, &4.into()), "{verdict}");
    let head = verdict["head"].as_str().unwrap();
    site.create_key(&[]);
    assert_eq!(ran(&site, &["audit", "verify", "--head", head]).0, 0);
    let database = rusqlite::Connection::open(site.path().join("keyward.db")).unwrap();
    database.execute_batch("update audit set entry = replace(entry, 'leaked', 'tidied up') where rev = 3").unwrap();
    database.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(())).unwrap();
    drop(database);
    let (code, verdict, said) = ran(&site, &["audit", "verify"]);
    assert_eq!((code, &verdict["intact"]), (1, &false.into()), "{said}");
    assert!(said.contains("line 3 "), "{said}");
}

#[test]
fn a_file_store_has_no_audit_and_says_so() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "store: file:records.json");
    site.write("records.json", r#"{"records": []}"#);
    for words in [&["audit", "list"][..], &["audit", "verify"], &["usage"], &["node", "list"]] {
        let (code, _, said) = ran(&site, words);
        assert!(code == 1 && said.contains("written by something else"), "{words:?}: {said}");
    }
    // And it serves all the same.
    site.serve();
}

#[test]
fn uses_are_counted_by_value_and_written_at_the_end() {
    let upstream = Upstream::start();
    let mut keyward = {
        let site = Site::new(upstream.address(), "sync: { node: gateway-1 }");
        site.create_key(&[]);
        site.serve()
    };
    let key = keyward.site.create_key(&["--read-only"]);
    until("the key is known", || keyward.status_with(&key) == 200);
    let before = keyward.site.json(&["audit", "verify"])["head"].clone();
    for _ in 0..4 {
        assert_eq!(keyward.status_with(&key), 200);
    }
    // What is denied is no use.
    assert_eq!(keyward.send(&request("POST", "/x", &[("X-API-Key", &key.value)], b"")).status, 403);
    let rotated = keyward.site.json(&["key", "rotate", &key.id]);
    let second = Key { id: key.id.clone(), value: rotated["value"].as_str().unwrap().to_owned() };
    until("the new value is known", || keyward.status_with(&second) == 200);
    let nodes = keyward.site.json(&["node", "list"]);
    assert!(nodes[0]["id"].as_str().unwrap().starts_with("gateway-1-"), "{nodes}");
    keyward.terminate();
    assert!(keyward.wait_for_exit().success());
    let usage = keyward.site.json(&["usage", &key.id]);
    let counts: Vec<&Value> = usage["secrets"].as_array().unwrap().iter().map(|secret| &secret["count"]).collect();
    assert_eq!((counts.as_slice(), &usage["count"]), (&[&5.into(), &1.into()][..], &6.into()), "{usage}");
    let first = &usage["secrets"][0];
    assert_eq!((&first["node"], &first["client"]), (&"gateway-1".into(), &"127.0.0.1".into()), "{usage}");
    assert_eq!(keyward.site.json(&["usage"]).as_array().unwrap().len(), 1, "one key was used");
    assert_eq!(keyward.site.json(&["node", "list"]).as_array().unwrap().len(), 0, "it has taken its leave");
    // Only the rotation made a revision.
    let after = keyward.site.json(&["audit", "verify"])["head"].clone();
    let number = |head: &Value| head.as_str().unwrap().split_once('-').unwrap().0.parse::<u64>().unwrap();
    assert_eq!(number(&after), number(&before) + 1);
}

#[test]
fn a_revocation_in_the_embedded_store_is_waited_for() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "sync: { poll: 400ms }");
    let key = site.create_key(&[]);
    let keyward = site.serve();
    assert_eq!(keyward.status_with(&key), 200);
    let (code, answer, said) = ran(&keyward.site, &["key", "revoke", &key.id, "--wait", "--timeout", "5s"]);
    assert_eq!((code, &answer["wait"]["applied"], &answer["wait"]["live"]), (0, &1.into(), &1.into()), "{said}");
    assert_eq!(keyward.status_with(&key), 401);
    until("the lag is counted", || keyward.metric("keyward_revocation_lag_seconds_count") == 1.0);
    assert!(keyward.metric("keyward_revocation_lag_seconds_sum") < 2.0);
}

/// A database with tables and roles, and the site of somebody who may write to it.
fn writer(database: &Database, upstream: &Upstream) -> Site {
    let roles = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/postgres/roles.sql");
    database.run(&roles);
    for role in ["owner", "writer", "reader"] {
        database.sql(&format!("create role {}_{role} login in role keyward_{role}", database.name));
    }
    let owner = site(database, upstream, "owner", "");
    owner.init();
    owner.json(&["scope", "create", "organization:acme"]);
    database.run(&roles);
    site(database, upstream, "writer", "")
}

fn site(database: &Database, upstream: &Upstream, role: &str, node: &str) -> Site {
    let url = database.url(&format!("{}_{role}", database.name), "");
    let node = if node.is_empty() { String::new() } else { format!("sync: {{ node: {node}, max_staleness: 1m }}") };
    Site::new(upstream.address(), &format!("store: {url:?}\nlog: {{ level: debug, access: none }}\n{node}"))
}

/// `wait=all` answers when all have heard of it and never before; who has not is named, and who has ended is not waited for.
#[test]
fn three_processes_on_one_server_are_waited_for_and_the_frozen_one_is_named() {
    if postgres::is_lacking() || tools::lacks(&["pgrep"]) {
        return;
    }
    let (database, upstream) = (Database::new(), Upstream::start());
    let writer = writer(&database, &upstream);
    let mut all: Vec<Keyward> =
        ["one", "two", "three"].iter().map(|node| site(&database, &upstream, "reader", node).serve()).collect();
    let revoke = |key: &Key, timeout: &str| ran(&writer, &["key", "revoke", &key.id, "--wait", "--timeout", timeout]);
    for _ in 0..10 {
        let key = writer.create_key(&[]);
        for keyward in &all {
            until("the key is known", || keyward.status_with(&key) == 200);
        }
        let (code, answer, said) = revoke(&key, "5s");
        // The very next request is refused, by each of them.
        let after: Vec<u16> = all.iter().map(|keyward| keyward.status_with(&key)).collect();
        assert_eq!((code, after.as_slice()), (0, &[401, 401, 401][..]), "{said}");
        assert_eq!((&answer["wait"]["applied"], &answer["wait"]["live"]), (&3.into(), &3.into()), "{answer}");
    }
    until("the lag is counted", || all[0].metric("keyward_revocation_lag_seconds_count") == 10.0);
    assert!(all[0].metric("keyward_revocation_lag_seconds_sum") < 10.0);

    let key = writer.create_key(&[]);
    until("the key is known", || all.iter().all(|keyward| keyward.status_with(&key) == 200));
    all[2].signal("STOP");
    let (code, answer, said) = revoke(&key, "700ms");
    let third = answer["wait"]["laggards"][0]["id"].as_str().unwrap();
    assert!(code == 1 && third.starts_with("three-"), "{said}");
    assert_eq!((&answer["wait"]["applied"], &answer["wait"]["live"]), (&2.into(), &3.into()), "{answer}");
    assert!(said.contains(&format!("not yet: {third}")), "{said}");
    // It is not only slow to answer: it would have let the key pass.
    all[2].signal("CONT");
    assert_eq!(revoke(&key, "5s").0, 0);
    assert_eq!(all[2].status_with(&key), 401);

    // Who ends is not waited for; who is killed is, until somebody knows better.
    all[1].terminate();
    assert!(all[1].wait_for_exit().success());
    let key = writer.create_key(&[]);
    assert_eq!(revoke(&key, "5s").1["wait"]["live"], 2);
    all.pop().unwrap().kill();
    let key = writer.create_key(&[]);
    let (code, _, said) = revoke(&key, "300ms");
    assert!(code == 1 && said.contains(&format!("not yet: {third}")), "{said}");
    let (code, _, said) = ran(&writer, &["node", "forget", third]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(ran(&writer, &["node", "forget", third]).0, 4);
    assert_eq!(revoke(&key, "5s").0, 0);
    let reports =
        database.sql("select count(*) from keyward.audit where entry->>'action' not like 'key.%' and rev > 1");
    assert_eq!(reports, "0", "reports make no revisions");
}

/// Sidecars whose roles were not renewed let in whom they let in before, but are not ready: nobody would wait for them.
#[test]
fn a_sidecar_that_may_not_say_how_far_it_is_is_not_ready() {
    if postgres::is_lacking() {
        return;
    }
    let (database, upstream) = (Database::new(), Upstream::start());
    let writer = writer(&database, &upstream);
    database.sql("revoke all on keyward.node, keyward.usage from keyward_reader; revoke select (at) on keyward.audit from keyward_reader");
    let key = writer.create_key(&[]);
    let mut keyward = site(&database, &upstream, "reader", "one").start();
    let line = keyward.wait_for_line("cannot say how far this node is; nobody can wait for it");
    assert!(line["error"].as_str().unwrap().contains("roles.sql"), "{line}");
    until("the key is known", || keyward.status_with(&key) == 200);
    let ready = keyward.ops_page("/readyz?verbose");
    assert!(ready.status == 503 && ready.text().contains("[-]node the store does not take down"), "{}", ready.text());
    let (code, _, said) = ran(&writer, &["key", "revoke", &key.id, "--wait", "--timeout", "300ms"]);
    assert!(code == 1 && said.contains("not known to hold anywhere"), "{said}");
    until("the key is refused", || keyward.status_with(&key) == 401);
    database.run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/postgres/roles.sql"));
    until("it is ready once it may say so", || keyward.ops_page("/readyz").status == 200);
    keyward.terminate();
    let began = std::time::Instant::now();
    assert!(keyward.wait_for_exit().success());
    assert!(began.elapsed() < Duration::from_secs(10));
}

/// One that has said how far it is, and may not any more, lets in whom it let in; but once whoever waits takes it for one that
/// has ended, nobody shall send requests to it.
#[test]
fn a_sidecar_that_may_no_longer_say_how_far_it_is_is_not_ready_once_nobody_waits_for_it() {
    if postgres::is_lacking() {
        return;
    }
    let (database, upstream) = (Database::new(), Upstream::start());
    let writer = writer(&database, &upstream);
    let key = writer.create_key(&[]);
    let url = database.url(&format!("{}_reader", database.name), "");
    let config = format!("store: {url:?}\nsync: {{ node: one, poll: 200ms, max_staleness: 4s }}");
    let keyward = Site::new(upstream.address(), &config).serve();
    until("the key is known", || keyward.status_with(&key) == 200);
    let ready = || keyward.ops_page("/readyz?verbose");
    for _ in 0..2 {
        assert_eq!(ready().status, 200);
        database.sql("revoke all on keyward.node from keyward_reader");
        until("it is not ready any more", || ready().status == 503);
        assert!(ready().text().contains("[-]node the store does not take down"), "{}", ready().text());
        // It has not gone: it follows, and what is revoked is refused.
        let other = writer.create_key(&[]);
        until("the other key is known", || keyward.status_with(&other) == 200);
        assert_eq!(keyward.status_with(&key), 200);
        let (code, answer, said) = ran(&writer, &["key", "revoke", &other.id, "--wait", "--timeout", "100ms"]);
        assert!(code == 1 && answer["wait"]["applied"] == 0, "{answer} {said}");
        until("it is refused", || keyward.status_with(&other) == 401);
        database.run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/postgres/roles.sql"));
        until("it is ready once it may say so again", || ready().status == 200);
    }
    keyward.wait_for_line("cannot say how far this node is; nobody can wait for it");
}

/// The library that makes clocks wrong, where it is installed.
fn faketime() -> Option<String> {
    let places = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];
    let mut files = places.iter().map(|place| format!("{place}/faketime/libfaketime.so.1"));
    files.find(|file| Path::new(file).exists())
}

/// Failure 22: the clock of a sidecar, or of whoever revokes, is five minutes off. What takes the difference of two clocks
/// would be off by as much; here both times are the server's.
#[test]
fn failure_22_the_lag_is_sane_whatever_the_clocks_of_others_say() {
    if postgres::is_lacking() || tools::lacks(&["faketime"]) {
        return;
    }
    let library = faketime().expect("the library comes with the program");
    let (database, upstream) = (Database::new(), Upstream::start());
    let right = writer(&database, &upstream);
    let skewed = |site: Site, skew: &str| {
        let site = site.with_environment("LD_PRELOAD", library.clone()).with_environment("FAKETIME", skew.to_owned());
        // Only the time of day is wrong.
        site.with_environment("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned())
    };
    for (sidecar, revoker) in [("+300s", None), ("-300s", None), ("+0s", Some("+300s")), ("+0s", Some("-300s"))] {
        let writer = revoker.map(|skew| skewed(site(&database, &upstream, "writer", ""), skew));
        let keyward = skewed(site(&database, &upstream, "reader", "one"), sidecar).serve();
        let key = right.create_key(&[]);
        until("the key is known", || keyward.status_with(&key) == 200);
        let words = ["key", "revoke", &key.id, "--wait", "--timeout", "5s"];
        let (code, _, said) = ran(writer.as_ref().unwrap_or(&right), &words);
        assert_eq!(code, 0, "{said}");
        assert_eq!(keyward.status_with(&key), 401);
        until("the lag is counted", || keyward.metric("keyward_revocation_lag_seconds_count") == 1.0);
        let lag = keyward.metric("keyward_revocation_lag_seconds_sum");
        assert!((0.0..3.0).contains(&lag), "{sidecar} {revoker:?}: {lag}");
        // The clock is wrong indeed: the difference of the two would be five minutes.
        let at = database
            .sql("select extract(epoch from at::timestamptz)::bigint from keyward.audit order by rev desc limit 1");
        let here = keyward.metric("keyward_store_last_pull_timestamp_seconds");
        let apart = here - at.parse::<f64>().unwrap();
        let expected = sidecar.trim_end_matches('s').parse::<f64>().unwrap();
        assert!((apart - expected).abs() < 30.0, "{sidecar}: {apart}");
        keyward.kill();
        database.sql("delete from keyward.node");
    }
}
