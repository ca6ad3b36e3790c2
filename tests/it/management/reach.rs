//! How far the admin of an organization reaches among people and their roles, and that of two who change the same thing, each
//! of whom has seen what was there, one does.

use std::thread;

use serde_json::{Value, json};

use super::{Stage, refusal};
use crate::support::{Client, Key, request};

/// A user of an organization.
fn user(stage: &Stage, name: &str, scope: Value) -> String {
    let body = json!({ "email": format!("{name}@example.com"), "name": name, "scope": scope });
    stage.result("POST", "/v2/users", &body.to_string())["id"].as_str().unwrap().to_owned()
}

/// Gives a role, and says what the binding is called.
fn bind(stage: &Stage, subject: &str, role: &str, scope: Value) -> String {
    let body = json!({ "subject": subject, "role": role, "scope": scope }).to_string();
    stage.result("POST", "/v2/bindings", &body)["id"].as_str().unwrap().to_owned()
}

fn key_with(stage: &Stage, role: &str) -> Key {
    let key = stage.create(role, json!({ "scope": "organization:acme" }));
    bind(stage, &format!("key:{}", key.id), role, json!("organization:acme"));
    key
}

#[test]
fn c20_c24_an_admin_of_an_organization_reaches_nobody_elses_people_or_roles() {
    let stage = Stage::new();
    let (acme, other) = (json!("organization:acme"), json!("organization:other"));
    stage.result("POST", "/v2/scopes", r#"{"id":"organization:other"}"#);
    let admin = key_with(&stage, "admin");
    let (ours, theirs) = (user(&stage, "ours", acme.clone()), user(&stage, "theirs", other.clone()));
    let chief = user(&stage, "chief", acme.clone());
    bind(&stage, &format!("user:{chief}"), "admin", Value::Null);
    let (our_role, their_role) = (
        bind(&stage, &format!("user:{ours}"), "observer", acme.clone()),
        bind(&stage, &format!("user:{theirs}"), "observer", other.clone()),
    );
    let ask = |method: &str, target: &str, body: Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        stage.keyward.manage(&admin, method, target, &body).status
    };
    for (id, get, patch) in [(&ours, 200, 200), (&theirs, 404, 404), (&chief, 200, 403)] {
        let target = format!("/v2/users/{id}");
        assert_eq!(ask("GET", &target, Value::Null), get, "{id}");
        assert_eq!(ask("PATCH", &target, json!({ "name": "Renamed" })), patch, "{id}");
    }
    assert_eq!(ask("PATCH", &format!("/v2/users/{ours}"), json!({ "scope": other })), 403, "nobody is moved away");
    for (scope, status) in [(&acme, 200), (&other, 403), (&Value::Null, 403)] {
        let new = json!({ "email": format!("new{status}{}@example.com", scope.is_null()), "scope": scope });
        assert_eq!(ask("POST", "/v2/users", new), status, "{scope}");
        let binding = json!({ "subject": format!("user:{ours}"), "role": "member", "scope": scope });
        assert_eq!(ask("POST", "/v2/bindings", binding), status, "{scope}");
    }
    for (path, field, unseen) in [("/v2/users", "id", &theirs), ("/v2/bindings", "id", &their_role)] {
        let listed = stage.keyward.manage(&admin, "GET", path, "").json();
        let mut ids = listed["result"].as_array().unwrap().iter().map(|one| one[field].as_str().unwrap());
        assert!(ids.all(|id| id != unseen), "{path}: {listed}");
    }
    for (id, get, delete) in [(&their_role, 404, 404), (&our_role, 200, 200)] {
        let target = format!("/v2/bindings/{id}");
        assert_eq!((ask("GET", &target, Value::Null), ask("DELETE", &target, Value::Null)), (get, delete), "{id}");
    }
}

#[test]
fn who_sees_more_than_they_may_change_changes_no_more_than_that() {
    let stage = Stage::new();
    let key = key_with(&stage, "admin");
    bind(&stage, &format!("key:{}", key.id), "observer", json!("organization:acme"));
    stage.result("POST", "/v2/scopes", r#"{"id":"organization:other"}"#);
    let looker = stage.create("looker", json!({}));
    let subject = format!("key:{}", looker.id);
    bind(&stage, &subject, "observer", Value::Null);
    bind(&stage, &subject, "admin", json!("organization:acme"));
    let theirs = user(&stage, "theirs", json!("organization:other"));
    let role = bind(&stage, &format!("user:{theirs}"), "observer", json!("organization:other"));
    for (method, target, body) in [
        ("PATCH", format!("/v2/users/{theirs}"), r#"{"name":"mine"}"#),
        ("DELETE", format!("/v2/users/{theirs}"), ""),
        ("DELETE", format!("/v2/bindings/{role}"), ""),
        ("PATCH", "/v2/scopes/organization:other".to_owned(), r#"{"state":"suspended"}"#),
    ] {
        assert_eq!(stage.keyward.manage(&looker, "GET", &target, "").status, 200, "{target} is seen");
        let answer = stage.keyward.manage(&looker, method, &target, body);
        assert_eq!(refusal(&answer), (403, vec!["forbidden".to_owned()]), "{method} {target}");
    }
    // What everybody may see is not for everybody to make.
    let body = json!({ "subject": format!("user:{theirs}"), "role": "observer", "scope": "organization:other" });
    assert_eq!(stage.keyward.manage(&looker, "POST", "/v2/bindings", &body.to_string()).status, 403);
}

#[test]
fn of_two_who_have_seen_the_same_and_change_it_at_once_one_does() {
    let stage = Stage::new();
    stage.result("POST", "/v2/roles", r#"{"id":"support","permissions":["keys:read"]}"#);
    stage.result("POST", "/v2/scopes", r#"{"id":"organization:acme"}"#);
    let ann = user(&stage, "ann", Value::Null);
    for round in 0..8 {
        for (target, one, two) in [
            (
                format!("/v2/users/{ann}"),
                json!({ "name": format!("a{round}") }),
                json!({ "name": format!("b{round}") }),
            ),
            (
                "/v2/roles/support".to_owned(),
                json!({ "permissions": ["keys:read"], "observer": round % 2 == 0 }),
                json!({ "permissions": ["users:read"] }),
            ),
        ] {
            let etag = stage.ask("GET", &target, "").value("etag").unwrap();
            let patch = |body: &Value| {
                let bearer = stage.admin.bearer();
                let fields =
                    [("Authorization", bearer.as_str()), ("Content-Type", "application/json"), ("If-Match", &etag)];
                let bytes = request("PATCH", &target, &fields, body.to_string().as_bytes());
                Client::connect(stage.keyward.admin()).exchange(&bytes).status
            };
            let mut both = thread::scope(|scope| {
                let other = scope.spawn(|| patch(&two));
                [patch(&one), other.join().unwrap()]
            });
            both.sort_unstable();
            assert_eq!(both, [200, 412], "{target}, round {round}");
        }
        let state = if round % 2 == 0 { "suspended" } else { "active" };
        let target = "/v2/scopes/organization:acme";
        let etag = stage.ask("GET", target, "").value("etag").unwrap();
        stage.result("PATCH", target, &json!({ "state": state }).to_string());
        let bearer = stage.admin.bearer();
        let fields = [("Authorization", bearer.as_str()), ("Content-Type", "application/json"), ("If-Match", &etag)];
        let late = stage.send("PATCH", target, &fields, br#"{"state":"active"}"#);
        assert_eq!(refusal(&late), (412, vec!["precondition_failed".to_owned()]));
    }
    let target = format!("/v2/users/{ann}");
    let bearer = stage.admin.bearer();
    let late = stage.send("DELETE", &target, &[("Authorization", &bearer), ("If-Match", "\"1\"")], b"");
    assert_eq!(refusal(&late).0, 412);
    assert_eq!(stage.ask("GET", &target, "").status, 200);
}

/// A change keeps of a role what it does not name as it is in the store, not as this process has read it before.
#[test]
fn what_was_just_taken_from_a_role_does_not_come_back() {
    let stage = Stage::new();
    for round in 0..5 {
        let name = format!("clerk{round}");
        let new = json!({ "id": name, "permissions": ["keys:read", "keys:write"] });
        stage.result("POST", "/v2/roles", &new.to_string());
        let narrowed = stage.keyward.site.run(&["role", "update", &name, "--permission", "keys:read"]);
        assert!(narrowed.status.success());
        let status = stage.ask("PATCH", &format!("/v2/roles/{name}"), r#"{"observer":false}"#).status;
        assert!([200, 409].contains(&status), "{status}");
        let listed = stage.keyward.site.run(&["role", "list", "--output", "json"]);
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        let role = listed.as_array().unwrap().iter().find(|role| role["id"] == *name || role["name"] == *name).unwrap();
        assert_eq!(role["permissions"], json!(["keys:read"]));
    }
}
