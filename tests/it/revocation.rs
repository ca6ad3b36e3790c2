//! What is changed in the store by one process holds for requests to another, half a second later at most.

mod everywhere; // by three processes, under load
mod people; // those whom keys lean on
mod streams; // what has begun ends too

use std::time::{Duration, Instant, SystemTime};

use super::support::{Client, Key, Keyward, Site, Upstream, request};

/// The promise.
const SOON: Duration = Duration::from_millis(500);
/// What a machine that has too much else to do may add to it.
const LATEST: Duration = Duration::from_secs(3);

fn status(client: &mut Client, value: &str) -> u16 {
    client.exchange(&request("GET", "/orgs/acme/x", &[("X-API-Key", value)], b"")).status
}

/// The same, but for what was under way when its key was taken back: that is not answered at all.
fn status_if_any(client: &mut Client, value: &str) -> Option<u16> {
    client.send(&request("GET", "/orgs/acme/x", &[("X-API-Key", value)], b""));
    client.try_response().ok().map(|response| response.status)
}

/// Asks until the status is this one, and gives how long that took. Whoever asks had the other one all the time.
#[track_caller]
fn time_until(keyward: &Keyward, value: &str, before: u16, after: u16) -> Duration {
    let began = Instant::now();
    let mut client = keyward.connect();
    loop {
        match status_if_any(&mut client, value) {
            Some(status) if status == after => return began.elapsed(),
            Some(status) => assert_eq!(status, before),
            None => client = keyward.connect(),
        }
        assert!(began.elapsed() < LATEST, "still {before} after {:?}", began.elapsed());
    }
}

/// One of ten may be late because the machine is.
#[track_caller]
fn expect_soon(mut times: Vec<Duration>) {
    times.sort();
    assert!(times[times.len() - 2] < SOON, "{times:?}");
}

fn serve(config: &str) -> (Upstream, Keyward) {
    let upstream = Upstream::start();
    let routes = "routes: [{ path: \"/orgs/{organization}/{*rest}\" }]\nlog: { access: none }";
    let site = Site::new(upstream.address(), &format!("{routes}\n{config}"));
    site.json(&["scope", "create", "organization:acme/project:p1"]);
    (upstream, site.serve())
}

/// Makes a key and waits until it works.
#[track_caller]
fn working_key(keyward: &Keyward, options: &[&str]) -> Key {
    let key = keyward.site.create_key(options);
    time_until(keyward, &key.value, 401, 200);
    key
}

#[test]
fn a_revoked_key_is_refused_within_half_a_second() {
    let (upstream, keyward) = serve("");
    let keys: Vec<Key> = (0..10).map(|_| keyward.site.create_key(&[])).collect();
    for key in &keys {
        time_until(&keyward, &key.value, 401, 200);
    }
    let mut times = Vec::new();
    for key in &keys {
        keyward.site.json(&["key", "revoke", &key.id]);
        times.push(time_until(&keyward, &key.value, 200, 401));
        upstream.take();
        assert_eq!(keyward.with_key(key, "GET", "/x").status, 401);
        upstream.expect_nothing();
    }
    expect_soon(times);
}

#[test]
fn a_new_key_works_within_half_a_second() {
    let (_upstream, keyward) = serve("");
    let scopes = [&[][..], &["--scope", "organization:acme"], &["--scope", "organization:acme/project:new"]];
    let times = scopes.into_iter().cycle().take(10).map(|options| {
        let key = keyward.site.create_key(options);
        // A project's key does nothing to its organization; that it is known can be seen from the refusal.
        time_until(&keyward, &key.value, 401, if options.concat().contains("new") { 403 } else { 200 })
    });
    expect_soon(times.collect());
}

#[test]
fn a_disabled_key_works_again_when_it_is_enabled() {
    let (_upstream, keyward) = serve("");
    let key = working_key(&keyward, &[]);
    for _ in 0..3 {
        keyward.site.json(&["key", "disable", &key.id]);
        time_until(&keyward, &key.value, 200, 401);
        keyward.site.json(&["key", "enable", &key.id]);
        time_until(&keyward, &key.value, 401, 200);
    }
}

#[test]
fn what_a_key_may_is_narrowed_and_widened() {
    let (_upstream, keyward) = serve("");
    let key = working_key(&keyward, &["--scope", "organization:acme"]);
    for (narrow, wide) in [
        (&["--ip", "1.2.3.4"][..], &["--any-ip"][..]),
        (&["--scope", "organization:acme/project:p1"], &["--scope", "organization:acme"]),
    ] {
        keyward.site.json(&[&["key", "update", &key.id], narrow].concat());
        time_until(&keyward, &key.value, 200, 403);
        keyward.site.json(&[&["key", "update", &key.id], wide].concat());
        time_until(&keyward, &key.value, 403, 200);
    }
}

#[test]
fn a_suspended_scope_stops_all_keys_in_it_and_below() {
    let (_upstream, keyward) = serve("");
    let inside = working_key(&keyward, &["--scope", "organization:acme"]);
    let outside = working_key(&keyward, &[]);
    let below = keyward.site.create_key(&["--scope", "organization:acme/project:p1"]);
    time_until(&keyward, &below.value, 401, 403);
    for _ in 0..2 {
        keyward.site.json(&["scope", "suspend", "organization:acme"]);
        time_until(&keyward, &inside.value, 200, 401);
        assert_eq!(keyward.with_key(&below, "GET", "/x").status, 401);
        assert_eq!(keyward.with_key(&outside, "GET", "/orgs/acme/x").status, 200);
        keyward.site.json(&["scope", "resume", "organization:acme"]);
        time_until(&keyward, &inside.value, 401, 200);
        assert_eq!(keyward.with_key(&below, "GET", "/x").status, 200);
    }
}

#[test]
fn a_rotated_key_has_two_values_for_a_while() {
    let (upstream, keyward) = serve("");
    let old = working_key(&keyward, &[]);
    let rotate = |options: &[&str]| {
        let rotated = keyward.site.json(&[&["key", "rotate", &old.id], options].concat());
        rotated["value"].as_str().unwrap().to_owned()
    };
    let began = Instant::now();
    let new = rotate(&["--retire-others-after", "2s"]);
    time_until(&keyward, &new, 401, 200);
    upstream.take();
    for value in [&old.value, &new] {
        assert_eq!(status(&mut keyward.connect(), value), 200);
        assert_eq!(upstream.only().head.value("x-keyward-key-id"), Some(old.id.clone()), "one key, two values");
    }
    let mut client = keyward.connect();
    while status_if_any(&mut client, &old.value) == Some(200) {
        assert!(began.elapsed() < Duration::from_secs(3), "the old value works too long");
    }
    assert!(began.elapsed() >= Duration::from_millis(1900), "the old value ended after {:?}", began.elapsed());
    client = keyward.connect();
    assert_eq!(status(&mut client, &new), 200);

    let newest = rotate(&["--retire-others-after", "now"]);
    time_until(&keyward, &new, 200, 401);
    assert_eq!(status(&mut client, &newest), 200);
    keyward.site.json(&["key", "revoke", &old.id]);
    time_until(&keyward, &newest, 200, 401);
}

#[test]
fn a_start_after_a_kill_knows_what_was_changed_meanwhile() {
    let (upstream, keyward) = serve("");
    let (kept, revoked) = (working_key(&keyward, &[]), working_key(&keyward, &[]));
    let site = keyward.kill();
    site.json(&["key", "revoke", &revoked.id]);
    let made = site.create_key(&[]);
    let keyward = site.serve();
    upstream.take();
    assert_eq!(keyward.with_key(&revoked, "GET", "/x").status, 401);
    upstream.expect_nothing();
    for key in [&kept, &made] {
        assert_eq!(keyward.with_key(key, "GET", "/x").status, 200);
        assert_eq!(upstream.only().head.value("x-keyward-key-id"), Some(key.id.clone()));
    }
}

#[test]
fn a_key_expires_at_its_second() {
    let (_upstream, keyward) = serve("");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs() + 3);
    let key = working_key(&keyward, &["--expires", &humantime::format_rfc3339_seconds(end).to_string()]);
    let margin = Duration::from_millis(20);
    let mut client = keyward.connect();
    let mut refused = 0;
    while refused < 50 {
        let before = SystemTime::now();
        let status = status(&mut client, &key.value);
        let after = SystemTime::now();
        if after < end - margin {
            assert_eq!(status, 200, "{:?} too early", end.duration_since(after));
        } else if before > end + margin {
            assert_eq!(status, 401, "{:?} too late", before.duration_since(end));
            refused += 1;
        }
    }
}
