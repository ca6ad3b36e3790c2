//! What the admin of one organization cannot do to another, and nobody can do who has a part of an admin's permissions.

use serde_json::{Value, json};

use super::{Stage, refusal};
use crate::support::Key;

impl Stage {
    /// Gives a key a role.
    #[track_caller]
    fn bind(&self, key: &Key, role: &str, scope: Value) {
        let body = json!({ "subject": format!("key:{}", key.id), "role": role, "scope": scope });
        self.result("POST", "/v2/bindings", &body.to_string());
    }

    /// A key that is the admin of an organization.
    #[track_caller]
    fn admin_of(&self, organization: &str) -> Key {
        let scope = json!(format!("organization:{organization}"));
        let key = self.create(organization, json!({ "scope": scope }));
        self.bind(&key, "admin", scope);
        key
    }

    /// A key with a role of its own, everywhere.
    #[track_caller]
    fn with_permissions(&self, name: &str, permissions: &[&str]) -> Key {
        self.result("POST", "/v2/roles", &json!({ "id": name, "permissions": permissions }).to_string());
        let key = self.create(name, json!({}));
        self.bind(&key, name, json!(null));
        key
    }
}

fn id(value: &Value) -> String {
    value["id"].as_str().unwrap().to_owned()
}

#[test]
fn nobody_shields_who_belongs_to_somebody_else() {
    let stage = Stage::new();
    let (acme, other) = (stage.admin_of("acme"), stage.admin_of("other"));
    let ask = |who: &Key, method: &str, target: &str, body: Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        stage.keyward.manage(who, method, target, &body)
    };
    let bob = ask(&other, "POST", "/v2/users", json!({ "email": "bob@other.example" })).json()["result"].take();
    let bob = id(&bob);
    // What the admin of another organization may not see is not there: no role for it, and no word on whether it exists.
    let missing = (404, vec!["not_found".to_owned()]);
    for subject in [format!("user:{bob}"), "user:nobody".to_owned(), format!("key:{}", other.id)] {
        let body = json!({ "subject": subject, "role": "member", "scope": "organization:acme" });
        assert_eq!(refusal(&ask(&acme, "POST", "/v2/bindings", body)), missing, "{subject}");
    }
    // And if somebody who may has given a role elsewhere, those who look after the account can still take all away.
    let body = json!({ "subject": format!("user:{bob}"), "role": "member", "scope": "organization:acme" });
    stage.result("POST", "/v2/bindings", &body.to_string());
    let target = format!("/v2/users/{bob}");
    for (patch, status) in [
        (json!({ "email": "eve@other.example" }), 403),
        (json!({ "state": "suspended" }), 200),
        (json!({ "api_access": false }), 200),
        (json!({ "state": "active" }), 403),
        (json!({ "state": "suspended", "name": "Bob" }), 403),
    ] {
        assert_eq!(ask(&other, "PATCH", &target, patch.clone()).status, status, "{patch}");
    }
}

#[test]
fn who_looks_after_accounts_alone_takes_nothing_from_who_may_do_more_there() {
    let stage = Stage::new();
    let clerk = stage.with_permissions("clerk", &["users:read", "users:write"]);
    let person = |email: &str, role: Value| {
        id(&stage.result("POST", "/v2/users", &json!({ "email": email, "role": role }).to_string()))
    };
    let (root, bob) = (person("root@example.com", json!("admin")), person("bob@example.com", json!(null)));
    for patch in [json!({ "state": "suspended" }), json!({ "api_access": false })] {
        for (user, status) in [(&root, 403), (&bob, 200)] {
            let answer = stage.keyward.manage(&clerk, "PATCH", &format!("/v2/users/{user}"), &patch.to_string());
            assert_eq!(answer.status, status, "{patch}: {}", answer.text());
        }
    }
    let detail = stage.result("GET", &format!("/v2/audit?target={bob}&action=user.update"), "")[0]["detail"].take();
    assert_eq!(
        (&detail["before"], &detail["after"]),
        (&json!({ "state": "active" }), &json!({ "state": "suspended" }))
    );
}

/// What the API could not be asked for is not made, and roles that are built in are not there to be changed.
#[test]
fn words_of_the_api_are_no_ids() {
    let stage = Stage::new();
    for id in ["import", "identify", ".", ".."] {
        let body = json!({ "type": "api", "name": "n", "permissions": [], "id": id }).to_string();
        assert_eq!(refusal(&stage.ask("POST", "/v2/keys", &body)).0, 400, "{id}");
        assert_eq!(
            stage.keyward.site.run(&["key", "create", "--name", "n", "--id", id]).status.code(),
            Some(2),
            "{id}"
        );
    }
    for (method, body) in [("PATCH", r#"{"observer":true}"#), ("DELETE", "")] {
        let answer = stage.ask(method, "/v2/roles/admin", body);
        assert!(answer.status == 400 && answer.text().contains("built in"), "{method}: {}", answer.text());
    }
}

#[test]
fn a_key_is_not_moved_to_where_it_would_manage_more_than_whoever_moves_it() {
    let stage = Stage::new();
    let (scope, other) = (json!("organization:acme"), json!("organization:other"));
    // Its role is bound everywhere, and counts where it acts.
    let wide = stage.create("wide", json!({ "scope": scope }));
    stage.bind(&wide, "admin", json!(null));
    stage.result("POST", "/v2/roles", r#"{"id":"keeper","permissions":["keys:read","keys:write"]}"#);
    let mover = stage.admin_of("acme");
    stage.create("there", json!({ "scope": other }));
    let clerk = stage.create("clerk", json!({}));
    stage.bind(&clerk, "admin", scope.clone());
    stage.bind(&clerk, "keeper", other.clone());
    let target = format!("/v2/keys/{}", wide.id);
    let patch = |who: &Key, scope: &Value| {
        let body = json!({ "scope": scope }).to_string();
        stage.keyward.manage(who, "PATCH", &target, &body).status
    };
    // The clerk manages it, and could have its value; in the other organization it would be more than the clerk.
    assert_eq!(stage.keyward.manage(&clerk, "POST", &format!("{target}/secrets"), "{}").status, 200);
    assert_eq!(patch(&clerk, &other), 403);
    assert_eq!(patch(&mover, &json!("organization:acme/project:p")), 200);
    assert_eq!(patch(&stage.admin, &other), 200);
}

#[test]
fn a_role_is_given_where_its_holder_acts_if_nothing_is_said() {
    let stage = Stage::new();
    let key = stage.create("in acme", json!({ "scope": "organization:acme" }));
    let body = json!({ "subject": format!("key:{}", key.id), "role": "admin" }).to_string();
    assert_eq!(stage.result("POST", "/v2/bindings", &body)["scope"], "organization:acme");
}

#[test]
fn who_manages_people_alone_makes_no_keys_by_giving_them_access() {
    let stage = Stage::new();
    let clerk = stage.with_permissions("clerk", &["users:read", "users:write"]);
    let ask = |method: &str, target: &str, body: Value| stage.keyward.manage(&clerk, method, target, &body.to_string());
    let ann = json!({ "email": "ann@example.com", "api_access": true });
    assert_eq!(refusal(&ask("POST", "/v2/users", ann)).0, 403);
    let ann = ask("POST", "/v2/users", json!({ "email": "ann@example.com" })).json()["result"].take();
    let target = format!("/v2/users/{}", id(&ann));
    assert_eq!(refusal(&ask("PATCH", &target, json!({ "api_access": true }))).0, 403);
    assert_eq!(ask("PATCH", &target, json!({ "name": "Ann" })).status, 200);
    // What an admin has given, whoever manages people may take.
    stage.result("PATCH", &target, r#"{"api_access":true}"#);
    assert_eq!(ask("PATCH", &target, json!({ "api_access": false })).status, 200);
}

#[test]
fn a_key_of_the_sandbox_changes_nothing_in_production() {
    let stage = Stage::new();
    let sandbox = stage.create("sandbox", json!({ "env": "test" }));
    stage.bind(&sandbox, "admin", json!(null));
    let (live, test) = (stage.create("live", json!({})), stage.create("test", json!({ "env": "test" })));
    let ask = |method: &str, target: &str, body: Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        stage.keyward.manage(&sandbox, method, target, &body)
    };
    let new = |more: Value| {
        let mut body = json!({ "type": "api", "name": "n", "permissions": [] });
        body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        body
    };
    let (on_live, on_test) = (format!("/v2/keys/{}", live.id), format!("/v2/keys/{}", test.id));
    for (method, target, body, status) in [
        ("GET", "/v2/keys", json!(null), 200),
        ("GET", &on_live, json!(null), 200),
        ("PATCH", &on_live, json!({ "name": "x" }), 403),
        ("POST", &format!("{on_live}/secrets"), json!({}), 403),
        ("DELETE", &on_live, json!(null), 403),
        ("PATCH", &on_test, json!({ "name": "x" }), 200),
        ("PATCH", &on_test, json!({ "env": "live" }), 403),
        ("POST", &format!("{on_test}/secrets"), json!({}), 200),
        ("POST", "/v2/keys", new(json!({ "env": "live" })), 403),
        ("POST", "/v2/users", json!({ "email": "ann@example.com" }), 403),
        ("POST", "/v2/scopes", json!({ "id": "organization:acme" }), 403),
        ("POST", "/v2/roles", json!({ "id": "r", "permissions": [] }), 403),
        ("POST", "/v2/bindings", json!({ "subject": format!("key:{}", test.id), "role": "member" }), 403),
    ] {
        let response = ask(method, target, body.clone());
        assert_eq!(response.status, status, "{method} {target} {body}: {}", response.text());
    }
    assert_eq!(ask("POST", "/v2/keys", new(json!({}))).json()["result"]["env"], "test");
    let leaks = json!({ "leaks": [{ "token": live.value }, { "token": test.value }] });
    let labels = ask("POST", "/v2/leaks", leaks).json()["result"].take();
    assert_eq!((&labels[0]["label"], &labels[1]["label"]), (&json!("false_positive"), &json!("true_positive")));
    assert_eq!((stage.opens(&live), stage.opens(&test)), (200, 401));
}

#[test]
fn who_makes_keys_or_users_alone_makes_no_scopes_with_them() {
    let stage = Stage::new();
    let clerk = stage.with_permissions("clerk", &["keys:read", "keys:write", "users:read", "users:write"]);
    stage.result("POST", "/v2/scopes", r#"{"id":"organization:acme"}"#);
    let ask = |method: &str, target: &str, mut body: Value, scope: &str| {
        body["scope"] = json!(scope);
        stage.keyward.manage(&clerk, method, target, &body.to_string())
    };
    let key = json!({ "type": "api", "name": "n", "permissions": [] });
    let made = ask("POST", "/v2/keys", key.clone(), "organization:acme").json()["result"].take();
    let ann =
        ask("POST", "/v2/users", json!({ "email": "ann@example.com" }), "organization:acme").json()["result"].take();
    let (key_target, user_target) = (format!("/v2/keys/{}", id(&made)), format!("/v2/users/{}", id(&ann)));
    for scope in ["organization:new", "organization:acme/project:new"] {
        for (method, target, body) in [
            ("POST", "/v2/keys", key.clone()),
            ("POST", "/v2/users", json!({ "email": "bob@example.com" })),
            ("PATCH", key_target.as_str(), json!({})),
            ("PATCH", user_target.as_str(), json!({})),
        ] {
            assert_eq!(refusal(&ask(method, target, body, scope)).0, 403, "{method} {target} {scope}");
        }
    }
    assert_eq!(stage.result("GET", "/v2/scopes", "").as_array().map(Vec::len), Some(1));
}

#[test]
fn links_go_on_from_a_cursor_however_it_was_written() {
    let stage = Stage::new();
    (0..4).for_each(|n| drop(stage.create(&n.to_string(), json!({}))));
    let page = stage.ask("GET", "/v2/keys?limit=2&%63ursor=0", "").json();
    let next = page["links"]["next"].as_str().unwrap();
    let target = next.strip_prefix("http://media.example").unwrap();
    let again = stage.ask("GET", target, "");
    assert_eq!((again.status, again.json()["result"].as_array().map(Vec::len)), (200, Some(2)), "{next}");
}

/// What somebody may do nothing to they cannot have revoked by calling it leaked, nor learn whose it is.
#[test]
fn values_of_others_are_nobodys_to_report_or_to_identify() {
    let stage = Stage::new();
    let (acme, other) = (stage.admin_of("acme"), stage.admin_of("other"));
    let (ours, theirs) = (
        stage.create("ours", json!({ "scope": "organization:acme/project:p" })),
        stage.create("theirs", json!({ "scope": "organization:other" })),
    );
    let nowhere = stage.create("everywhere", json!({}));
    for (key, is_seen) in [(&ours, true), (&theirs, false), (&nowhere, false), (&other, false)] {
        let found =
            stage.keyward.manage(&acme, "POST", "/v2/keys/identify", &json!({ "value": key.value }).to_string());
        assert_eq!(found.status, if is_seen { 200 } else { 404 }, "{}", found.text());
        assert!(is_seen || !found.text().contains(&key.id));
    }
    let all = [&theirs, &nowhere, &other, &ours];
    let leaks: Vec<Value> = all.iter().map(|key| json!({ "token": key.value, "url": "https://example.com" })).collect();
    let told = stage.keyward.manage(&acme, "POST", "/v2/leaks", &json!({ "leaks": leaks }).to_string());
    let none = json!({ "id": null, "label": "false_positive" });
    let one = json!({ "id": ours.id, "label": "true_positive" });
    assert_eq!(told.json()["result"], json!([none, none, none, one]));
    assert_eq!(all.map(|key| stage.opens(key)), [200, 200, 200, 401]);
    let audit = stage.result("GET", "/v2/audit?action=key.revoke", "");
    assert_eq!(audit.as_array().map(Vec::len), Some(1), "{audit}");
}
