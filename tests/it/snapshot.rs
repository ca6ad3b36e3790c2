//! Failure 18: a process starts while the store is away, with a snapshot that is good, old, damaged or somebody else's.

use std::fs;
use std::thread;
use std::time::Duration;

use super::support::{Key, Keyward, Site, Upstream, request, until};
use super::tools::postgres::{self, Server};

/// A server, what stands before an upstream, and a key; the snapshot has been written.
struct Scene {
    server: Server,
    writer: Site,
    key: Key,
    _upstream: Upstream,
}

fn scene(max_staleness: &str) -> (Scene, Keyward) {
    let (server, upstream) = (Server::start(&[]), Upstream::start());
    let url = server.database().url("kw", "");
    let site = |more: &str| Site::new(upstream.address(), &format!("store: {url:?}\nsync: {{ poll: 300ms{more} }}"));
    let writer = site("");
    writer.init();
    let key = writer.create_key(&[]);
    let keyward = site(&format!(", snapshot: ./state, max_staleness: {max_staleness}")).serve();
    until("the snapshot is written", || keyward.site.path().join("state").exists());
    until("it is counted", || keyward.metric("keyward_snapshots_total{result=\"ok\"}") == 1.0);
    (Scene { server, writer, key, _upstream: upstream }, keyward)
}

fn status(keyward: &Keyward, value: &str) -> u16 {
    keyward.connect().exchange(&request("GET", "/x", &[("X-API-Key", value)], b"")).status
}

#[test]
fn failure_18_with_a_good_snapshot_a_cold_start_serves_and_then_follows_the_store() {
    if postgres::is_lacking() {
        return;
    }
    let (mut scene, keyward) = scene("1h");
    let site = keyward.kill();
    scene.server.stop();
    let keyward = site.start();
    let line = keyward.wait_for_line("the store is away: serving what the snapshot has");
    assert_eq!(line["level"], "WARN");
    until("it is ready", || keyward.ops_page("/readyz").status == 200);
    assert_eq!(status(&keyward, &scene.key.value), 200);
    assert_eq!(status(&keyward, "kw_live_nobody"), 401);
    assert!(keyward.ops_page("/readyz?verbose").text().contains("store"), "it says that the store is away");
    scene.server.start_again();
    scene.writer.json(&["key", "revoke", &scene.key.id]);
    until("the store is followed again", || status(&keyward, &scene.key.value) == 401);
    assert_eq!(keyward.metric("keyward_resyncs_total"), 0.0, "what came since is a delta");
}

#[test]
fn failure_18_a_snapshot_in_which_a_bit_is_flipped_opens_nothing() {
    if postgres::is_lacking() {
        return;
    }
    let (mut scene, keyward) = scene("1h");
    let site = keyward.kill();
    scene.server.stop();
    let state = site.path().join("state");
    let mut bytes = fs::read(&state).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&state, bytes).unwrap();
    let keyward = site.start();
    let line = keyward.wait_for_line("the store is away, and the snapshot is of no use");
    assert!(line["useless"].as_str().unwrap().contains("damaged"), "{line}");
    assert_eq!(keyward.ops_page("/readyz").status, 503);
    // Not 401: the client would throw its key away.
    assert_eq!(status(&keyward, &scene.key.value), 503);
    scene.server.start_again();
    until("the store is read", || status(&keyward, &scene.key.value) == 200);
}

#[test]
fn failure_18_an_old_snapshot_is_not_ready_and_opens_nothing() {
    if postgres::is_lacking() {
        return;
    }
    let (mut scene, keyward) = scene("1500ms");
    let site = keyward.kill();
    scene.server.stop();
    // Time itself is under test here.
    thread::sleep(Duration::from_millis(1600));
    let keyward = site.start();
    keyward.wait_for_line("the store is away: serving what the snapshot has");
    assert_eq!(keyward.ops_page("/readyz").status, 503);
    assert_eq!(status(&keyward, &scene.key.value), 503);
    scene.server.start_again();
    until("the store is read", || status(&keyward, &scene.key.value) == 200);
}

/// A design that begins with the snapshot and then looks would let a key pass that was taken back while the process was down.
#[test]
fn failure_18_while_the_store_is_there_no_snapshot_is_believed_for_a_moment() {
    if postgres::is_lacking() {
        return;
    }
    let (scene, keyward) = scene("1h");
    let site = keyward.kill();
    scene.writer.json(&["key", "revoke", &scene.key.id]);
    let keyward = site.start();
    let mut seen = Vec::new();
    until("the key is refused", || {
        seen.push(status(&keyward, &scene.key.value));
        seen.last() == Some(&401)
    });
    assert!(!seen.contains(&200), "{seen:?}");
}

/// One that may start again by what it knew is not crossed off the list when it ends.
#[test]
fn a_process_with_a_snapshot_does_not_take_its_leave() {
    if postgres::is_lacking() {
        return;
    }
    let (scene, mut keyward) = scene("1h");
    assert_eq!(scene.writer.json(&["node", "list"]).as_array().unwrap().len(), 1);
    keyward.terminate();
    assert!(keyward.wait_for_exit().success());
    assert_eq!(scene.writer.json(&["node", "list"]).as_array().unwrap().len(), 1);
    let revoked = scene.writer.run(&["key", "revoke", &scene.key.id, "--wait", "--timeout", "100ms"]);
    assert_eq!(revoked.status.code(), Some(1), "{revoked:?}");
}
