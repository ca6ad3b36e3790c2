//! What a change of a key touches and what it leaves alone, and how a deletion is answered: by line of Vidbeo's documents, with
//! what comes of it where the key is used.

use serde_json::{Value, json};

use super::Stage;
use crate::support::Key;

impl Stage {
    /// The status of a request to the upstream that changes something.
    fn writes(&self, key: &Key) -> u16 {
        let status = self.keyward.with_key(key, "POST", "/videos").status;
        self.upstream.take();
        status
    }
}

/// A key that says something of everything.
fn full(stage: &Stage) -> Key {
    stage.create(
        "Full",
        json!({
            "permissions": ["fetch"], "ips": ["127.0.0.1", "10.0.0.0/8"], "scope": "organization:acme",
            "expires_at": "2099-01-31", "rate_limit": "50/1m", "user": "ann", "tags": ["radio", "tv"],
            "recoverable": true,
        }),
    )
}

/// What is there but for when it was changed, and by whom.
fn rest_of(key: &Value) -> Value {
    let mut rest = key.clone();
    for name in ["updated_time", "updated_by"] {
        assert!(rest.as_object_mut().unwrap().remove(name).is_some());
    }
    rest
}

#[test]
fn v18_one_attribute_changes_and_all_others_stay() {
    let stage = Stage::new();
    let key = full(&stage);
    let target = format!("/v2/keys/{}", key.id);
    assert_eq!((stage.opens(&key), stage.writes(&key)), (200, 403));
    for (patch, shown, value) in [
        (json!({ "name": "Other" }), "name", json!("Other")),
        (json!({ "ips": ["127.0.0.0/8"] }), "ips", json!(["127.0.0.0/8"])),
        (json!({ "expires_at": "2098-01-31" }), "expires_at", json!("2098-01-31T00:00:00.000Z")),
        (json!({ "rate_limit": "40/1m" }), "rate_limit", json!("40/1m")),
        (json!({ "user": "bob" }), "user", json!("bob")),
        (json!({ "scope": "organization:acme/project:p" }), "scope", json!("organization:acme/project:p")),
        (json!({ "env": "test" }), "env", json!("test")),
        (json!({ "env": "live" }), "env", Value::Null),
        (json!({ "enabled": false }), "state", json!("disabled")),
        (json!({ "enabled": true }), "state", Value::Null),
        (json!({ "user": null }), "user", Value::Null),
        (json!({ "rate_limit": null }), "rate_limit", Value::Null),
        (json!({ "expires_at": null }), "expires_at", Value::Null),
        (json!({ "scope": null }), "scope", Value::Null),
        (json!({ "recoverable": false }), "recoverable", Value::Null),
    ] {
        let before = stage.result("GET", &target, "");
        let answered = stage.result("PATCH", &target, &patch.to_string());
        let after = stage.result("GET", &target, "");
        assert_eq!(answered, after, "{patch}: it is answered as it is");
        let mut expected = rest_of(&before);
        match value {
            Value::Null => drop(expected.as_object_mut().unwrap().remove(shown)),
            value => expected[shown] = value,
        }
        assert_eq!(rest_of(&after), expected, "{patch}");
        assert_ne!(before[shown], after[shown], "{patch} changes something");
        // Nobody may write by it at any time, and what may be read is read as long as it is on and for this upstream.
        let opens = if after["state"] == "disabled" { 401 } else { 200 };
        assert_eq!((stage.opens(&key), stage.writes(&key) == 200), (opens, false), "{patch}");
    }
    // Several at once are several; and who may read only may not become one who writes by anything else than being told so.
    let both = stage.result("PATCH", &target, r#"{"name":"Both","permissions":[]}"#);
    assert_eq!(
        (&both["name"], &both["permissions"], &both["ips"]),
        (&json!("Both"), &json!([]), &json!(["127.0.0.0/8"]))
    );
    assert_eq!((stage.opens(&key), stage.writes(&key)), (200, 200));
}

#[test]
fn v19_what_is_changed_is_replaced_whole_and_what_is_below_is_not_lost() {
    let stage = Stage::new();
    let parent = stage.create("parent", json!({ "ips": ["127.0.0.1", "10.0.0.0/8"] }));
    let child = stage.create("child", json!({ "parent": parent.id, "ips": ["127.0.0.1"], "tags": ["radio"] }));
    let [target, below] = [&parent, &child].map(|key| format!("/v2/keys/{}", key.id));
    let was = stage.result("GET", &below, "");
    for (patch, ips, status) in [
        // None of those that were there stays: not the one by which it worked either.
        (json!({ "ips": ["10.1.2.3"] }), json!(["10.1.2.3"]), 403),
        (json!({ "ips": ["127.0.0.0/8", "::1"] }), json!(["127.0.0.0/8", "::1"]), 200),
        (json!({ "ips": ["192.0.2.1"] }), json!(["192.0.2.1"]), 403),
        (json!({ "ips": [] }), json!([]), 200),
        (json!({ "name": "other" }), json!([]), 200),
    ] {
        assert_eq!(stage.result("PATCH", &target, &patch.to_string())["ips"], ips, "{patch}");
        // What is below has what both have, and is itself as it was.
        assert_eq!((stage.opens(&parent), stage.opens(&child)), (status, status), "{patch}");
        assert_eq!(stage.result("GET", &below, ""), was, "{patch}");
    }
    for (patch, reads_only) in [(json!({ "permissions": ["fetch"] }), true), (json!({ "permissions": [] }), false)] {
        assert_eq!(stage.result("PATCH", &target, &patch.to_string())["permissions"], patch["permissions"]);
        assert_eq!([&parent, &child].map(|key| stage.writes(key) == 403), [reads_only; 2], "{patch}");
    }
    // A list is a list of its kind: an object, or one of its elements, does not stand for it.
    for patch in [r#"{"ips":{"0":"10.1.2.3"}}"#, r#"{"ips":"10.1.2.3"}"#, r#"{"permissions":{}}"#, r#"{"ips":null}"#] {
        assert_eq!(stage.ask("PATCH", &target, patch).status, 400, "{patch}");
    }
    assert_eq!(stage.result("GET", &target, "")["ips"], json!([]));
}

#[test]
fn v22_a_change_tells_who_made_it_and_when_and_no_value() {
    let stage = Stage::new();
    let second = stage.keyward.site.create_key(&["--role", "admin"]);
    let key = stage.create("Example", json!({}));
    let target = format!("/v2/keys/{}", key.id);
    let before = stage.result("GET", &target, "");
    crate::support::until("the other admin is known", || {
        stage.keyward.manage(&second, "GET", "/v2/keys", "").status == 200
    });
    let changed = stage.keyward.manage(&second, "PATCH", &target, r#"{"name":"n"}"#).json()["result"].take();
    assert_eq!((&changed["created_by"], &changed["updated_by"]), (&json!(stage.admin.id), &json!(second.id)));
    assert_eq!(changed["created_time"], before["created_time"]);
    assert!(changed["updated_time"].as_str() > before["updated_time"].as_str(), "{changed}");
    assert!(changed.get("value").is_none() && !changed.to_string().contains(&key.value[8..]));
}

#[test]
fn v23_a_deletion_is_answered_with_a_body_that_says_that_there_is_nothing() {
    let stage = Stage::with("admin: { mount: /v2 }");
    let bearer = stage.admin.bearer();
    let delete = |here: bool, target: &str| {
        let bytes = super::request("DELETE", target, &[("Authorization", &bearer)], b"");
        let address = if here { stage.keyward.admin() } else { stage.keyward.proxy };
        super::Client::connect(address).exchange(&bytes)
    };
    for here in [true, false] {
        let parent = stage.create("parent", json!({}));
        let child = stage.create("child", json!({ "parent": parent.id }));
        let alone = stage.create("alone", json!({}));
        for target in [format!("/v2/keys/{}", alone.id), format!("/v2/keys/{}?cascade=true", parent.id)] {
            let answer = delete(here, &target);
            assert_eq!((answer.status, answer.value("content-type").as_deref()), (200, Some("application/json")));
            assert_eq!(answer.text(), r#"{"success":true,"result":{},"links":null,"errors":[]}"#, "{target}");
            assert_eq!(delete(here, &target).status, 404, "{target}: it is done once");
        }
        assert_eq!([&parent, &child, &alone].map(|key| stage.opens(key)), [401; 3]);
    }
    stage.upstream.expect_nothing();
}
