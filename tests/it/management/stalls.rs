//! What those who manage cannot hold up: probes, revocations and each other.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::{Stage, json, request};
use crate::support::{Client, PATIENCE, Site, Upstream, until};

/// As many at once as one tenant may well ask for.
const LISTS: usize = 20;

/// A tenant who sees nothing has all keys of others looked through, again and again. Meanwhile probes are answered, and a key
/// that is revoked is refused.
#[test]
fn large_lists_hold_up_neither_probes_nor_revocations() {
    let upstream = Upstream::start();
    let shapes = "keys: { shapes: [{ name: cablecast, length: 20, alphabet: hex }] }";
    let site = Site::new(upstream.address(), shapes);
    let tenant = site.create_key(&["--role", "admin", "--scope", "organization:acme"]);
    let key = site.create_key(&[]);
    let rows: Vec<String> = (0..10_000).map(|n| format!("k{n},,{n:020x},rw,,")).collect();
    site.import_keys(&rows.iter().map(String::as_str).collect::<Vec<_>>());
    let keyward = site.serve();
    assert_eq!(keyward.manage(&tenant, "GET", "/v2/keys", "").status, 200, "also the first one after the start");
    assert_eq!(keyward.status_with(&key), 200);
    let enough = AtomicBool::new(false);
    thread::scope(|threads| {
        let list = || {
            let mut statuses = Vec::new();
            while !enough.load(Relaxed) {
                statuses.push(keyward.manage(&tenant, "GET", "/v2/keys?limit=1000", "").status);
            }
            statuses
        };
        let lists: Vec<_> = (0..LISTS).map(|_| threads.spawn(list)).collect();
        keyward.site.json(&["key", "revoke", &key.id]);
        let (began, mut probes, mut refused) = (Instant::now(), Vec::new(), false);
        while !(probes.len() > 20 && refused) && began.elapsed() < PATIENCE {
            let asked = Instant::now();
            assert_eq!(keyward.ops_page("/livez").status, 200);
            refused = keyward.status_with(&key) == 401;
            probes.push(asked.elapsed());
            thread::sleep(Duration::from_millis(20));
        }
        enough.store(true, Relaxed);
        let ended: Vec<_> = lists.into_iter().flat_map(|list| list.join().unwrap()).collect();
        assert!(ended.len() > LISTS && ended.iter().all(|status| *status == 200), "{ended:?}");
        assert!(refused && probes.iter().all(|took| *took < Duration::from_secs(1)), "{refused}: {probes:?}");
    });
}

/// Whoever sends half of something to every place of the admin listener gives way to those who send all of it.
#[test]
fn half_a_body_takes_nobodys_place() {
    let stage = Stage::new();
    let bearer = stage.admin.bearer();
    let head = format!("POST /v2/keys HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\nContent-Length: 90\r\n");
    // All places are taken, and each of these is told to go on: who they are has been judged.
    let mut halves: Vec<Client> = (0..64)
        .map(|_| {
            let mut client = Client::connect(stage.keyward.admin());
            client.send(format!("{head}Expect: 100-continue\r\n\r\n").as_bytes());
            assert_eq!(client.response_head().unwrap().0, 100);
            client.send(b"{");
            client
        })
        .collect();
    let began = Instant::now();
    assert_eq!(stage.ask("GET", "/v2/keys", "").status, 200);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // Those who are in the middle of a question, and take their time, are the ones that go.
    assert!(halves[0].is_closed(), "whoever came first had to give way");
    drop(halves);
    // And what does not come is not waited for.
    let mut client = Client::connect(stage.keyward.admin());
    client.send(format!("{head}\r\n{{").as_bytes());
    assert_eq!(client.response().status, 408);
}

/// A client that loses its connection at any moment and asks again has one key.
#[test]
fn an_answer_that_is_lost_is_given_again() {
    let stage = Stage::new();
    let bearer = stage.admin.bearer();
    for n in 0..20_u64 {
        let body = json!({ "type": "api", "name": format!("lost {n}"), "permissions": [], "ips": [] }).to_string();
        let idempotency = format!("lost-{n}");
        let json = ("Content-Type", "application/json");
        let fields = [("Authorization", bearer.as_str()), json, ("Idempotency-Key", &idempotency)];
        for _ in 0..3 {
            let mut client = Client::connect(stage.keyward.admin());
            client.send(&request("POST", "/v2/keys", &fields, body.as_bytes()));
            thread::sleep(Duration::from_millis(n));
            drop(client);
        }
        until("the answer is there", || stage.send("POST", "/v2/keys", &fields, body.as_bytes()).status == 200);
    }
    let keys = stage.result("GET", "/v2/keys?limit=1000", "");
    let named = |n| keys.as_array().unwrap().iter().filter(|key| key["name"] == format!("lost {n}")).count();
    assert_eq!((0..20).map(named).collect::<Vec<_>>(), [1; 20]);
}
