//! How often a key may be used: 429 and when to come again, in the format of the client, and nobody else pays for it.

use serde_json::json;

use super::support::{Key, Keyward, Response, Site, Upstream, request, until};

const CONFIG: &str = "routes: [{ path: \"/organizations/{organization}\" }]\nlog: { access: all }";

fn serve(upstream: &Upstream) -> Keyward {
    Site::new(upstream.address(), CONFIG).serve()
}

/// Makes a key and waits until the program has it, without using it.
#[track_caller]
fn known_key(keyward: &Keyward, options: &[&str]) -> Key {
    changed(keyward, || keyward.site.create_key(options))
}

/// Changes the store, and waits until the program has applied it.
#[track_caller]
fn changed<T>(keyward: &Keyward, change: impl FnOnce() -> T) -> T {
    let revision = keyward.metric("keyward_replica_revision");
    let changed = change();
    until("the change has arrived", || keyward.metric("keyward_replica_revision") > revision);
    changed
}

#[track_caller]
fn get(keyward: &Keyward, key: &Key, accept: &str) -> Response {
    keyward.get("/a", &[("X-API-Key", &key.value), ("Accept", accept)])
}

#[track_caller]
fn update(keyward: &Keyward, key: &Key, options: &[&str]) {
    changed(keyward, || keyward.site.json(&[&["key", "update", &key.id], options].concat()));
}

#[test]
fn a_key_is_refused_until_its_limit_lets_one_more_pass() {
    let upstream = Upstream::start();
    let keyward = serve(&upstream);
    let (key, other) = (known_key(&keyward, &["--rate-limit", "3/1h"]), known_key(&keyward, &[]));
    for _ in 0..3 {
        let passed = get(&keyward, &key, "application/xml");
        assert_eq!((passed.status, passed.value("ratelimit"), passed.value("retry-after")), (200, None, None));
    }
    upstream.take();
    for (accept, media, body) in [
        (
            "application/xml",
            "text/xml; charset=utf-8",
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<error><code>rate_limited</code><message>Too Many Requests</message>\
             <detail>The API key has been used too often; try again later.</detail></error>\n",
        ),
        (
            "application/json",
            "application/json",
            "{\"errors\":[{\"code\":\"rate_limited\",\"detail\":\"The API key has been used too often; try again later.\",\
             \"message\":\"Too Many Requests\"}],\"links\":null,\"result\":null,\"success\":false}",
        ),
    ] {
        let refused = get(&keyward, &key, accept);
        assert_eq!((refused.status, refused.text().as_str()), (429, body));
        assert_eq!(refused.value("content-type").as_deref(), Some(media));
        assert_eq!(refused.value("ratelimit-policy").as_deref(), Some("\"key\";q=3;w=3600"));
        let seconds = refused.value("retry-after").unwrap();
        assert_eq!(refused.value("ratelimit"), Some(format!("\"key\";r=0;t={seconds}")));
        assert!((1150..=1200).contains(&seconds.parse::<u32>().unwrap()), "{seconds}");
        assert_eq!(refused.value("www-authenticate"), None);
    }
    upstream.expect_nothing();
    for _ in 0..10 {
        assert_eq!(get(&keyward, &other, "*/*").status, 200, "another key is unharmed");
    }
    let line = keyward.wait_for_line_with("reason", &json!("rate_limited"));
    assert_eq!((&line["key.id"], &line["http.response.status_code"]), (&json!(key.id), &json!(429)));
}

#[test]
fn a_limit_is_raised_and_taken_away_and_not_reset_by_anything_else() {
    let upstream = Upstream::start();
    let keyward = serve(&upstream);
    let key = known_key(&keyward, &["--rate-limit", "3/1h"]);
    let status = || get(&keyward, &key, "*/*").status;
    assert_eq!([status(), status(), status(), status()], [200, 200, 200, 429]);
    update(&keyward, &key, &["--name", "Renamed"]);
    assert_eq!(status(), 429, "another name is no reason");
    update(&keyward, &key, &["--expires", "90d", "--user", "ann"]);
    assert_eq!(status(), 429, "nor is anything else");
    let rotated = changed(&keyward, || keyward.site.json(&["key", "rotate", &key.id]));
    let second = Key { id: key.id.clone(), value: rotated["value"].as_str().unwrap().to_owned() };
    assert_eq!(get(&keyward, &second, "*/*").status, 429, "all values of a key share its limit");

    update(&keyward, &key, &["--rate-limit", "5/1h"]);
    assert_eq!([status(), status(), status()], [200, 200, 429], "what was used stays used");
    let config = format!("{CONFIG}\nidentity_headers: {{ prefix: X-Who- }}");
    keyward.site.configure(upstream.address(), &config);
    assert_eq!(keyward.reload().status, 200);
    assert_eq!(status(), 429, "another config is no reason either");
    update(&keyward, &key, &["--rate-limit", "none"]);
    assert_eq!(std::array::from_fn::<u16, 8, _>(|_| status()), [200; 8]);
    update(&keyward, &key, &["--rate-limit", "1/1s"]);
    let began = std::time::Instant::now();
    assert_eq!([status(), status()], [200, 429]);
    until("a second has passed", || status() == 200);
    assert!(began.elapsed().as_millis() >= 1000, "{:?}", began.elapsed());
}

#[test]
fn r14_what_is_refused_anyway_takes_nothing_and_wrong_keys_lock_nobody_out() {
    let upstream = Upstream::start();
    let keyward = serve(&upstream);
    let limited = |options: &[&str]| known_key(&keyward, &[options, &["--rate-limit", "2/1h"]].concat());
    let reader = limited(&["--read-only"]);
    let acme = limited(&["--scope", "organization:acme"]);
    for _ in 0..5 {
        assert_eq!(keyward.with_key(&reader, "POST", "/a").status, 403);
        assert_eq!(keyward.with_key(&acme, "GET", "/organizations/other").status, 403);
        assert_eq!(keyward.get("/a", &[("X-API-Key", "kw_live_0")]).status, 401);
    }
    for (key, path) in [(&reader, "/a"), (&acme, "/organizations/acme")] {
        // Whoever claims to be somebody else is the same key all the same.
        let get = |n: u32| {
            let (bearer, claim) = (key.bearer(), format!("192.0.2.{n}"));
            let fields = [("Authorization", bearer.as_str()), ("X-Forwarded-For", &claim)];
            keyward.send(&request("GET", path, &fields, b"")).status
        };
        assert_eq!([get(1), get(2), get(3), get(4)], [200, 200, 429, 429]);
    }
}

#[test]
fn limits_are_shown_and_bad_ones_are_explained() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "");
    let key = site.create_key(&["--rate-limit", "90/90s"]);
    assert_eq!(site.json(&["key", "show", &key.id])["rate_limit"], "90/90s");
    let table = site.run(&["key", "list"]).stdout;
    assert!(String::from_utf8_lossy(&table).contains("  90/90s  "));
    for (bad, why) in [
        ("0/1m", "from 1 to 1000000 requests"),
        ("100/60", "a time with its unit, such as 100/1m"),
        ("100", "a time with its unit, such as 100/1m"),
        ("100/1y", "a time of whole seconds, from 1s to 31d"),
        ("9999999/1s", "from 1 to 1000000 requests"),
    ] {
        let output = site.run(&["key", "update", &key.id, "--rate-limit", bad]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(why), "{bad}: {said}");
    }
}
