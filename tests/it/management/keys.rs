//! What the documents of Vidbeo and Cognitive3D imply of keys and their management, by line.

use serde_json::{Value, json};

use super::{Stage, refusal};
use crate::support::{Key, Site, Upstream};

const NEW: &str = r#"{"type":"api","name":"Example","permissions":[],"ips":[]}"#;

#[test]
fn v4_c2_keys_that_may_manage_do_and_no_others() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "");
    let (admin, plain) = (site.create_key(&["--role", "admin"]), site.create_key(&[]));
    let observer = site.create_key(&["--role", "observer"]);
    let acme = site.create_key(&["--role", "admin", "--scope", "organization:acme"]);
    let project = site.create_key(&["--scope", "organization:acme/project:p1"]);
    let other = site.create_key(&["--scope", "organization:other"]);
    let keyward = site.serve();
    // C1: the key opens the upstream all the same.
    assert_eq!(keyward.with_key(&plain, "GET", "/").status, 200);
    for (key, list, create) in
        [(&admin, 200, 200), (&plain, 403, 403), (&observer, 200, 403), (&acme, 200, 200), (&project, 403, 403)]
    {
        assert_eq!(keyward.manage(key, "GET", "/v2/keys", "").status, list, "{key:?}");
        assert_eq!(keyward.manage(key, "POST", "/v2/keys", NEW).status, create, "{key:?}");
    }
    // An organization's admin sees and makes what is in the organization; where nothing is said, it is made there (C11).
    let seen = keyward.manage(&acme, "GET", "/v2/keys", "").json();
    let seen: Vec<&Value> = seen["result"].as_array().unwrap().iter().map(|key| &key["scope"]).collect();
    assert_eq!(
        seen,
        [&json!("organization:acme"), &json!("organization:acme/project:p1"), &json!("organization:acme")]
    );
    for (scope, status) in [
        (json!("organization:acme/project:p2"), 200),
        (json!("organization:other"), 403),
        (json!("organization:acmes"), 403),
        (json!(null), 403),
    ] {
        let body = json!({ "type": "api", "name": "n", "permissions": [], "scope": scope }).to_string();
        assert_eq!(keyward.manage(&acme, "POST", "/v2/keys", &body).status, status, "{scope}");
        let body = json!({ "scope": scope }).to_string();
        let moved = keyward.manage(&acme, "PATCH", &format!("/v2/keys/{}", project.id), &body);
        assert_eq!(moved.status, status, "{scope}: {}", moved.text());
    }
    for method in ["GET", "PATCH", "DELETE"] {
        let body = if method == "PATCH" { r#"{"name":"mine"}"# } else { "" };
        let response = keyward.manage(&acme, method, &format!("/v2/keys/{}", other.id), body);
        assert_eq!(refusal(&response), (404, vec!["not_found".to_owned()]), "what may not be seen is not there");
    }
}

#[test]
fn v5_a_read_only_key_looks_and_changes_nothing() {
    let stage = Stage::new();
    let id = &stage.admin.id;
    for (method, target, body, status) in [
        ("GET", "/v2/keys".to_owned(), "", 200),
        ("GET", format!("/v2/keys/{id}"), "", 200),
        ("POST", "/v2/keys".to_owned(), NEW, 403),
        ("PATCH", format!("/v2/keys/{id}"), r#"{"name":"x"}"#, 403),
        ("DELETE", format!("/v2/keys/{id}"), "", 403),
        ("POST", format!("/v2/keys/{id}/secrets"), "", 403),
        ("POST", "/v2/scopes".to_owned(), r#"{"id":"organization:a"}"#, 403),
    ] {
        let response = stage.keyward.manage(&stage.read_only, method, &target, body);
        assert_eq!(response.status, status, "{method} {target}: {}", response.text());
    }
}

#[test]
fn v7_v12_to_v14_lists_come_in_pages() {
    let stage = Stage::new();
    let names: Vec<String> = (0..30).map(|n| format!("key {n:02}")).collect();
    names.iter().for_each(|name| drop(stage.create(name, json!({}))));
    let page = stage.ask("GET", "/v2/keys", "").json();
    assert_eq!(page["result"].as_array().map(Vec::len), Some(25), "25 if nothing is said");
    let (mut target, mut found) = ("/v2/keys?limit=7&cursor=".to_owned(), Vec::new());
    let root = "http://media.example";
    loop {
        let page = stage.ask("GET", &target, "").json();
        found.extend(page["result"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["links"]["next"].as_str() else {
            assert_eq!(page["links"], json!({}));
            break;
        };
        assert_eq!(page["result"].as_array().map(Vec::len), Some(7));
        target = next.strip_prefix(root).unwrap_or_else(|| panic!("{next} is no full URL")).to_owned();
    }
    assert_eq!(found[2..], names, "each once, in the order in which they were made");
    for bad in ["limit=0", "limit=1001", "limit=x", "limit=-1", "limit=1&limit=1", "page=2"] {
        assert_eq!(refusal(&stage.ask("GET", &format!("/v2/keys?{bad}"), "")).0, 400, "{bad}");
    }
    assert_eq!(stage.ask("GET", "/v2/keys?cursor=zzzz", "").json()["result"], json!([]));
}

#[test]
fn v17_to_v22_v31_a_change_leaves_the_rest_alone() {
    let stage = Stage::new();
    let key = stage.create("Example", json!({ "ips": ["1.2.3.4", "5.6.7.8"], "permissions": ["fetch"] }));
    let target = format!("/v2/keys/{}", key.id);
    let changed = stage.result("PATCH", &target, r#"{"ips":["9.9.9.9"]}"#);
    assert_eq!((&changed["ips"], &changed["permissions"]), (&json!(["9.9.9.9"]), &json!(["fetch"])), "replaced whole");
    assert!(changed.get("value").is_none());
    // V20, V21, and what is not understood.
    for (content_type, body, expected) in [
        ("application/json", "{}", (400, vec!["nothing_to_change"])),
        ("application/json", "[]", (400, vec!["invalid_json"])),
        ("application/json", "{\"name\"", (400, vec!["invalid_json"])),
        ("application/json", r#"{"quota":1,"type":"web"}"#, (400, vec!["invalid_attribute"; 2])),
        ("application/json", r#"{"id":"x"}"#, (400, vec!["invalid_attribute"])),
        ("application/x-www-form-urlencoded", "name=x", (415, vec!["unsupported_media_type"])),
    ] {
        let (bearer, length) = (stage.admin.bearer(), expected.1.len());
        let fields = [("Authorization", bearer.as_str()), ("Content-Type", content_type)];
        let response = stage.send("PATCH", &target, &fields, body.as_bytes());
        let (status, codes) = refusal(&response);
        assert_eq!((status, codes.len()), (expected.0, length), "{body}: {codes:?}");
        assert_eq!(codes, expected.1, "{body}");
    }
    // V31: who would shut the door behind oneself is asked whether that is meant.
    let own = format!("/v2/keys/{}", stage.admin.id);
    let refused = stage.ask("PATCH", &own, r#"{"ips":["9.9.9.9"]}"#);
    assert_eq!(refusal(&refused), (409, vec!["would_lock_out".to_owned()]));
    stage.result("PATCH", &own, r#"{"ips":["127.0.0.0/8"]}"#);
    stage.result("PATCH", &format!("{own}?force=true"), r#"{"ips":["9.9.9.9"]}"#);
    assert_eq!(refusal(&stage.ask("GET", "/v2/keys", "")), (403, vec!["address_not_allowed".to_owned()]));
    // And the command line always gets in.
    let site = &stage.keyward.site;
    assert!(site.run(&["key", "update", &stage.admin.id, "--any-ip"]).status.success());
    crate::support::until("the way in is open again", || stage.ask("GET", "/v2/keys", "").status == 200);
}

#[test]
fn v25_to_v28_what_a_new_key_needs() {
    let stage = Stage::new();
    let made = stage.result("POST", "/v2/keys", r#"{"type":"api","name":"é","permissions":["fetch"]}"#);
    assert_eq!((&made["ips"], &made["permissions"]), (&json!([]), &json!(["fetch"])));
    let long = json!({ "type": "api", "name": "x".repeat(51), "permissions": [] }).to_string();
    for (body, mistakes) in [
        ("{}", 3),
        (r#"{"type":"web","name":"","permissions":["write"],"ips":["1.2.3"],"colour":1}"#, 5),
        (r#"{"type":"api","name":"n","permissions":["fetch","fetch"]}"#, 1),
        (r#"{"type":"api","name":"n","permissions":"fetch"}"#, 1),
        (r#"{"type":"api","name":"n","permissions":[],"ips":null}"#, 1),
        (r#"{"type":"api","name":"n","permissions":[],"expires_at":"2020-01-01"}"#, 1),
        (&long, 1),
    ] {
        let (status, codes) = refusal(&stage.ask("POST", "/v2/keys", body));
        assert_eq!((status, codes), (400, vec!["invalid_attribute".to_owned(); mistakes]), "{body}");
    }
    let big = format!(r#"{{"name":"{}"}}"#, "x".repeat(70_000));
    assert_eq!(refusal(&stage.ask("POST", "/v2/keys", &big)).0, 413);
    // What is ours comes beside what is documented, and only where it says something.
    let more = json!({ "scope": "organization:acme", "env": "test", "expires_at": "2099-01-31", "rate_limit": "5/60s",
        "user": "ann" });
    let key = stage.create("More", more);
    let got = stage.result("GET", &format!("/v2/keys/{}", key.id), "");
    assert!(key.value.starts_with("kw_test_"));
    let ours = ["scope", "env", "expires_at", "rate_limit", "user"].map(|name| got[name].clone());
    assert_eq!(json!(ours), json!(["organization:acme", "test", "2099-01-31T00:00:00.000Z", "5/1m", "ann"]));
}

#[test]
fn v32_v33_v34_c4_a_deleted_key_is_gone_at_once() {
    let stage = Stage::new();
    let key = stage.create("Example", json!({}));
    assert_eq!(stage.opens(&key), 200, "what was answered is in force");
    let target = format!("/v2/keys/{}", key.id);
    assert_eq!(stage.result("DELETE", &target, ""), json!({}));
    assert_eq!(stage.opens(&key), 401);
    for method in ["GET", "DELETE", "PATCH"] {
        let body = if method == "PATCH" { r#"{"name":"x"}"# } else { "" };
        for target in [&target, "/v2/keys/abcde12345abcde12345a", "/v2/keys/%2e"] {
            assert_eq!(refusal(&stage.ask(method, target, body)), (404, vec!["not_found".to_owned()]), "{method}");
        }
    }
    let listed = |state: &str| stage.result("GET", &format!("/v2/keys?state={state}"), "").as_array().map(Vec::len);
    assert_eq!([listed("live"), listed("revoked"), listed("all")], [Some(2), Some(1), Some(3)]);
    // The key in use, and the last that may manage: the command line makes another.
    assert_eq!(stage.result("DELETE", &format!("/v2/keys/{}", stage.read_only.id), ""), json!({}));
    assert_eq!(stage.result("DELETE", &format!("/v2/keys/{}", stage.admin.id), ""), json!({}));
    assert_eq!(refusal(&stage.ask("GET", "/v2/keys", "")), (401, vec!["invalid_credential".to_owned()]));
    let admin = stage.keyward.site.create_key(&["--role", "admin"]);
    crate::support::until("the new one works", || stage.keyward.manage(&admin, "GET", "/v2/keys", "").status == 200);
}

#[test]
fn c4_a_new_value_is_shown_once_and_the_old_ones_end_when_told() {
    let stage = Stage::new();
    let key = stage.create("Example", json!({}));
    let target = format!("/v2/keys/{}/secrets", key.id);
    let rotated = stage.result("POST", &target, r#"{"retire_others_after":"1h"}"#);
    let new = Key { id: key.id.clone(), value: rotated["value"].as_str().unwrap().to_owned() };
    assert_eq!((stage.opens(&key), stage.opens(&new)), (200, 200));
    let secrets = stage.result("GET", &target, "");
    assert_eq!(secrets.as_array().map(Vec::len), Some(2));
    assert!(secrets[0]["not_after"].is_string() && secrets[1]["not_after"].is_null(), "{secrets}");
    assert_eq!(secrets[1]["hint"], new.value[8..16]);
    let newest = stage.result("POST", &target, r#"{"retire_others_after":"now"}"#);
    let newest = Key { id: key.id.clone(), value: newest["value"].as_str().unwrap().to_owned() };
    assert_eq!((stage.opens(&key), stage.opens(&new), stage.opens(&newest)), (401, 401, 200));
    let found = stage.result("POST", "/v2/keys/identify", &json!({ "value": newest.value }).to_string());
    assert_eq!(found["id"], key.id);
    for value in ["kw_live_unknown", ""] {
        let body = json!({ "value": value }).to_string();
        assert_eq!(stage.ask("POST", "/v2/keys/identify", &body).status, 404, "{value}");
    }
}

#[test]
fn who_has_seen_an_older_state_changes_nothing() {
    let stage = Stage::new();
    let key = stage.create("Example", json!({}));
    let (target, bearer) = (format!("/v2/keys/{}", key.id), stage.admin.bearer());
    let seen = stage.ask("GET", &target, "").value("etag").unwrap();
    let patch = |tag: &str| {
        let fields = [("Authorization", bearer.as_str()), ("Content-Type", "application/json"), ("If-Match", tag)];
        stage.send("PATCH", &target, &fields, format!(r#"{{"name":"as of {}"}}"#, tag.trim_matches('"')).as_bytes())
    };
    let changed = patch(&seen);
    assert_eq!(changed.status, 200, "{}", changed.text());
    let now = changed.value("etag").unwrap();
    assert_eq!(changed.value("keyward-revision").map(|number| format!("\"{number}\"")), Some(now.clone()));
    assert_eq!(refusal(&patch(&seen)), (412, vec!["precondition_failed".to_owned()]));
    assert_eq!((patch(&now).status, patch("7").status), (200, 400));
    let fields = [("Authorization", bearer.as_str()), ("If-Match", seen.as_str())];
    assert_eq!(refusal(&stage.send("DELETE", &target, &fields, b"")).0, 412);
    // A new value is a change too: of a key that is not what its caller has seen there is none, and no old one ends.
    let rotate = |tag: &str| {
        let fields = [("Authorization", bearer.as_str()), ("Content-Type", "application/json"), ("If-Match", tag)];
        stage.send("POST", &format!("{target}/secrets"), &fields, br#"{"retire_others_after":"now"}"#)
    };
    let values = || stage.result("GET", &format!("{target}/secrets"), "").as_array().map(Vec::len);
    assert_eq!(refusal(&rotate(&seen)), (412, vec!["precondition_failed".to_owned()]));
    assert_eq!((stage.opens(&key), values()), (200, Some(1)));
    let now = stage.ask("GET", &target, "").value("etag").unwrap();
    assert_eq!((rotate(&now).status, stage.opens(&key), values()), (200, 401, Some(2)));
    assert_eq!(refusal(&rotate(&now)).0, 412);
    // It ends with those below it, or not at all.
    let child = stage.create("below", json!({ "parent": key.id }));
    let fields = [("Authorization", bearer.as_str()), ("If-Match", now.as_str())];
    assert_eq!(refusal(&stage.send("DELETE", &format!("{target}?cascade=true"), &fields, b"")).0, 412);
    assert_eq!(stage.opens(&child), 200);
}

#[test]
fn what_is_asked_twice_by_mistake_is_done_once() {
    let stage = Stage::new();
    let bearer = stage.admin.bearer();
    let ask = |body: &str| {
        let json = ("Content-Type", "application/json");
        let fields = [("Authorization", bearer.as_str()), json, ("Idempotency-Key", "a1")];
        stage.send("POST", "/v2/keys", &fields, body.as_bytes())
    };
    let (first, second) = (ask(NEW), ask(NEW));
    assert_eq!((first.status, &first.body), (200, &second.body));
    assert_eq!(stage.result("GET", "/v2/keys", "").as_array().map(Vec::len), Some(3));
    let other = refusal(&ask(&NEW.replace("Example", "Other")));
    assert_eq!(other, (422, vec!["idempotency_key_reused".to_owned()]));
    for name in ["etag", "keyward-revision"] {
        assert!(first.value(name).is_some() && first.value(name) == second.value(name), "{name}");
    }
    // The same words about another key do not give away the value of the first, nor do they to somebody else.
    let (key, beside) = (stage.create("one", json!({})), stage.create("two", json!({})));
    let rotate = |bearer: &str, key: &Key| {
        let fields = [("Authorization", bearer), ("Idempotency-Key", "a2")];
        stage.send("POST", &format!("/v2/keys/{}/secrets", key.id), &fields, b"")
    };
    let rotated = rotate(&bearer, &key);
    assert_eq!((rotated.status, &rotate(&bearer, &key).body), (200, &rotated.body));
    assert_eq!(refusal(&rotate(&bearer, &beside)).0, 422);
    let second = stage.keyward.site.create_key(&["--role", "admin"]);
    crate::support::until("it is known", || stage.keyward.manage(&second, "GET", "/v2/keys", "").status == 200);
    let theirs = rotate(&second.bearer(), &key);
    assert_eq!(theirs.status, 200);
    assert_ne!(theirs.body, rotated.body);
    // What was not done may be asked for again, also in other words.
    let create = |body: &str| {
        let fields =
            [("Authorization", bearer.as_str()), ("Content-Type", "application/json"), ("Idempotency-Key", "a3")];
        stage.send("POST", "/v2/keys", &fields, body.as_bytes()).status
    };
    assert_eq!((create(r#"{"type":"api"}"#), create(NEW)), (400, 200));
}

#[test]
fn what_is_no_operation_is_told_what_there_is() {
    let stage = Stage::new();
    for (method, target, status, allow) in [
        ("PUT", "/v2/keys", 405, Some("GET, HEAD, POST")),
        ("OPTIONS", "/v2/keys/x", 405, Some("DELETE, GET, HEAD, PATCH")),
        ("GET", "/v2/keys/identify", 405, Some("POST")),
        ("GET", "/v2/nothing", 404, None),
        ("GET", "/v2/", 404, None),
    ] {
        let response = stage.ask(method, target, "");
        assert_eq!((response.status, response.value("allow").as_deref()), (status, allow), "{method} {target}");
        assert_eq!(refusal(&response).0, status);
    }
    let page = stage.ask("GET", "/v2/keys", "");
    assert_eq!(page.value("cache-control").as_deref(), Some("no-store"));
    let head = stage.send("HEAD", "/v2/keys", &[("Authorization", &stage.admin.bearer())], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn a_key_comes_in_any_header_and_not_in_the_query() {
    let stage = Stage::new();
    let value = &stage.admin.value;
    for (name, field, status) in [
        ("Authorization", format!("bearer {value}"), 200),
        ("Authorization", format!("APIKEY:ORGANIZATION {value}"), 200),
        ("Authorization", value.clone(), 200),
        ("X-API-Key", value.clone(), 200),
        ("Authorization", "Bearer wrong".to_owned(), 401),
        ("X-Other", String::new(), 401),
    ] {
        let response = stage.send("GET", "/v2/keys", &[(name, &field)], b"");
        assert_eq!(response.status, status, "{name}: {}", response.text());
        assert_eq!(response.value("www-authenticate").is_some(), status == 401);
    }
    let response = stage.send("GET", &format!("/v2/keys?api_key={value}"), &[], b"");
    assert!(response.status == 401 && !response.text().contains(value));
    let two = [("Authorization", format!("Bearer {value}")), ("X-API-Key", value.clone())];
    let two: Vec<(&str, &str)> = two.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(refusal(&stage.send("GET", "/v2/keys", &two, b"")), (400, vec!["ambiguous_credential".to_owned()]));
    // Whoever tries on is slowed down; whoever has a key is not.
    let tries = (0..30).map(|_| stage.send("GET", "/v2/keys", &[("X-API-Key", "wrong")], b"").status);
    assert!(tries.collect::<Vec<_>>().ends_with(&[429]));
    assert_eq!(stage.ask("GET", "/v2/keys", "").status, 200);
    assert!(stage.keyward.metric("keyward_admin_denied_total{reason=\"malformed_credential\"}") >= 30.0);
}

#[test]
fn scopes_are_made_and_suspended() {
    let stage = Stage::new();
    let made = stage.result("POST", "/v2/scopes", r#"{"id":"organization:acme/project:p1"}"#);
    assert_eq!((&made["id"], &made["state"]), (&json!("organization:acme/project:p1"), &json!("active")));
    assert_eq!(refusal(&stage.ask("POST", "/v2/scopes", r#"{"id":"organization:acme"}"#)).0, 409);
    assert_eq!(refusal(&stage.ask("POST", "/v2/scopes", r#"{"id":"acme"}"#)).0, 400);
    let key = stage.create("Example", json!({ "scope": "organization:acme/project:p1" }));
    let list = stage.result("GET", "/v2/scopes?limit=1", "");
    assert_eq!(list[0]["id"], "organization:acme");
    for (state, status) in [("suspended", 401), ("active", 200)] {
        let body = json!({ "state": state }).to_string();
        assert_eq!(stage.result("PATCH", "/v2/scopes/organization:acme", &body)["state"], state);
        assert_eq!(stage.opens(&key), status);
        assert_eq!(stage.result("GET", "/v2/scopes/organization:acme%2Fproject:p1", "")["state"], "active");
    }
}

/// A list of permissions that is empty is the most that there is (V15), so nobody comes by it by leaving it out.
#[test]
fn c5_v15_failure_23_a_key_reads_only_or_not_and_to_widen_it_is_marked() {
    let stage = Stage::new();
    let unsaid = r#"{"type":"api","name":"Example","ips":[]}"#;
    assert_eq!(refusal(&stage.ask("POST", "/v2/keys", unsaid)).0, 400, "C5: it must be said");
    let key = stage.create("reads", json!({ "permissions": ["fetch"] }));
    let writes = |key: &Key| stage.keyward.with_key(key, "POST", "/videos").status;
    assert_eq!((stage.opens(&key), writes(&key)), (200, 403));
    let target = format!("/v2/keys/{}", key.id);
    stage.result("PATCH", &target, r#"{"permissions":[]}"#);
    assert_eq!(writes(&key), 200);
    stage.result("PATCH", &target, r#"{"permissions":["fetch"],"ips":["127.0.0.1"]}"#);
    stage.result("PATCH", &target, r#"{"ips":[]}"#);
    let audit = stage.result("GET", &format!("/v2/audit?target={}&action=key.update", key.id), "");
    let marked: Vec<&Value> = audit.as_array().unwrap().iter().map(|entry| &entry["detail"]["escalation"]).collect();
    assert_eq!(marked, [&json!(true), &json!(null), &json!(true)], "{audit}");
    assert_eq!(audit[2]["detail"]["after"]["access"], json!("read-write"), "{audit}");
}

#[test]
fn v3_a_key_outlives_the_one_that_made_it() {
    let stage = Stage::new();
    let maker = stage.create("maker", json!({}));
    let binding = json!({ "subject": format!("key:{}", maker.id), "role": "admin" });
    stage.result("POST", "/v2/bindings", &binding.to_string());
    let made = stage.keyward.manage(&maker, "POST", "/v2/keys", NEW).json();
    let [id, value] = ["id", "value"].map(|name| made["result"][name].as_str().unwrap().to_owned());
    stage.result("DELETE", &format!("/v2/keys/{}", maker.id), "");
    assert_eq!(stage.opens(&Key { id: id.clone(), value }), 200);
    assert_eq!(stage.result("GET", &format!("/v2/keys/{id}"), "")["created_by"], json!(maker.id));
}
