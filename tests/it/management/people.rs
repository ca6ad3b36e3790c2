//! Users, roles and bindings by the API: who gets what, and that nobody gives what they do not have.

use serde_json::json;

use super::{Stage, refusal};
use crate::support::Key;

#[test]
fn b4_to_b7_api_access_is_given_and_taken_by_an_admin() {
    let stage = Stage::new();
    let made = stage.result("POST", "/v2/users", r#"{"email":"Ann@Example.com","name":"Ann"}"#);
    let id = made["id"].as_str().unwrap().to_owned();
    assert_eq!((&made["email"], &made["api_access"]), (&json!("ann@example.com"), &json!(false)), "B5");
    assert!(made.get("value").is_none() && id.len() == 21);
    assert_eq!(refusal(&stage.ask("POST", "/v2/users", r#"{"email":"ann@example.com"}"#)).0, 409);
    assert_eq!(refusal(&stage.ask("POST", "/v2/users", r#"{"email":"ann","admin":true}"#)).1.len(), 2);
    let target = format!("/v2/users/{id}");
    let given = stage.result("PATCH", &target, r#"{"api_access":true}"#);
    let key = Key { id: id.clone(), value: given["value"].as_str().unwrap().to_owned() };
    assert_eq!(stage.opens(&key), 200, "B6");
    for (patch, status) in [
        (r#"{"api_access":false}"#, 403),
        (r#"{"api_access":true}"#, 200),
        (r#"{"state":"suspended"}"#, 401),
        (r#"{"state":"active"}"#, 200),
    ] {
        stage.result("PATCH", &target, patch);
        assert_eq!(stage.opens(&key), status, "B7: {patch}");
    }
    assert_eq!(stage.result("GET", "/v2/users", "")[0]["id"], json!(id));
    assert_eq!(stage.result("DELETE", &target, ""), json!({ "keys": [id] }));
    assert_eq!((stage.opens(&key), stage.ask("GET", &target, "").status), (401, 404));
}

#[test]
fn c16_c17_roles_are_made_given_and_taken() {
    let stage = Stage::new();
    let key = stage.create("Support", json!({ "scope": "organization:acme" }));
    let lists = |path: &str| stage.keyward.manage(&key, "GET", path, "").status;
    assert_eq!(lists("/v2/keys"), 403);
    let role = stage.result("POST", "/v2/roles", r#"{"id":"support","permissions":["keys:read","keys:write"]}"#);
    assert_eq!((&role["id"], &role["built_in"]), (&json!("support"), &json!(false)));
    for (body, status) in [
        (r#"{"id":"support","permissions":[]}"#, 409),
        (r#"{"id":"admin","permissions":[]}"#, 400),
        (r#"{"id":"x","permissions":["keys:*"]}"#, 400),
    ] {
        assert_eq!(refusal(&stage.ask("POST", "/v2/roles", body)).0, status, "{body}");
    }
    let new = json!({ "subject": format!("key:{}", key.id), "role": "support", "scope": "organization:acme" });
    let binding = stage.result("POST", "/v2/bindings", &new.to_string());
    assert_eq!((lists("/v2/keys"), lists("/v2/users")), (200, 403));
    let rename = |status: u16| {
        let target = format!("/v2/keys/{}", key.id);
        let renamed = stage.keyward.manage(&key, "PATCH", &target, r#"{"name":"me"}"#);
        assert_eq!(renamed.status, status, "{}", renamed.text());
    };
    rename(200);
    stage.result("PATCH", "/v2/roles/support", r#"{"observer":true}"#);
    rename(403);
    let listed = stage.result("GET", &format!("/v2/bindings?subject=key:{}", key.id), "");
    assert_eq!(listed[0]["id"], binding["id"]);
    stage.result("DELETE", &format!("/v2/bindings/{}", binding["id"].as_str().unwrap()), "");
    assert_eq!(lists("/v2/keys"), 403);
    let names: Vec<String> = stage
        .result("GET", "/v2/roles", "")
        .as_array()
        .unwrap()
        .iter()
        .map(|role| role["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["admin", "observer", "member", "support"]);
    stage.result("DELETE", "/v2/roles/support", "");
    assert_eq!(stage.ask("GET", "/v2/roles/support", "").status, 404);
}

#[test]
fn nobody_gives_what_they_do_not_have_or_becomes_who_may_do_more() {
    let stage = Stage::new();
    let scope = json!({ "scope": "organization:acme" });
    let (acme, clerk, victim) =
        (stage.create("acme", scope.clone()), stage.create("clerk", scope.clone()), stage.create("victim", scope));
    stage.result("POST", "/v2/roles", r#"{"id":"clerk","permissions":["keys:read","keys:write","bindings:write"]}"#);
    for (key, role) in [(&acme, "admin"), (&clerk, "clerk"), (&victim, "admin")] {
        let body = json!({ "subject": format!("key:{}", key.id), "role": role, "scope": "organization:acme" });
        stage.result("POST", "/v2/bindings", &body.to_string());
    }
    let bind = |by: &Key, to: &Key, role: &str, scope: serde_json::Value| {
        let body = json!({ "subject": format!("key:{}", to.id), "role": role, "scope": scope });
        stage.keyward.manage(by, "POST", "/v2/bindings", &body.to_string()).status
    };
    assert_eq!(bind(&acme, &clerk, "admin", json!(null)), 403, "everywhere is more than acme");
    assert_eq!(bind(&clerk, &clerk, "admin", json!("organization:acme")), 403);
    assert_eq!(bind(&acme, &clerk, "observer", json!("organization:acme")), 200);
    let secrets = format!("/v2/keys/{}/secrets", victim.id);
    assert_eq!(stage.keyward.manage(&clerk, "POST", &secrets, "{}").status, 403, "its value would be an admin's");
    assert_eq!(stage.keyward.manage(&acme, "POST", &secrets, "{}").status, 200);
    assert_eq!(stage.keyward.manage(&acme, "POST", "/v2/roles", r#"{"id":"x","permissions":[]}"#).status, 403);
}

#[test]
fn nobody_takes_from_a_role_what_they_do_not_have() {
    let stage = Stage::new();
    stage.result("POST", "/v2/roles", r#"{"id":"namer","permissions":["roles:read","roles:write","keys:read"]}"#);
    stage.result("POST", "/v2/roles", r#"{"id":"guard","permissions":["keys:read","leaks:write"]}"#);
    let namer = stage.create("namer", json!({}));
    let body = json!({ "subject": format!("key:{}", namer.id), "role": "namer" });
    stage.result("POST", "/v2/bindings", &body.to_string());
    for (method, patch) in
        [("PATCH", r#"{"permissions":["keys:read"]}"#), ("PATCH", r#"{"observer":true}"#), ("DELETE", "")]
    {
        let answer = stage.keyward.manage(&namer, method, "/v2/roles/guard", patch);
        assert_eq!(refusal(&answer), (403, vec!["forbidden".to_owned()]), "{method} {patch}");
    }
    assert_eq!(stage.result("GET", "/v2/roles/guard", "")["permissions"], json!(["keys:read", "leaks:write"]));
    stage.result("PATCH", "/v2/roles/guard", r#"{"permissions":["keys:read"]}"#);
    assert_eq!(stage.keyward.manage(&namer, "PATCH", "/v2/roles/guard", r#"{"observer":true}"#).status, 200);
}

#[test]
fn keys_that_were_found_are_revoked_and_the_audit_says_where() {
    let stage = Stage::new();
    let key = stage.create("Example", json!({ "permissions": ["fetch"] }));
    stage.result("PATCH", &format!("/v2/keys/{}", key.id), r#"{"permissions":[]}"#);
    let leaks = json!({ "leaks": [{ "token": key.value, "type": "keyward", "url": "https://example.com/a" },
        { "token": "kw_live_nothing" }] });
    let told = stage.result("POST", "/v2/leaks", &leaks.to_string());
    let label = |id: serde_json::Value, label: &str| json!({ "id": id, "label": label });
    assert_eq!(told, json!([label(json!(key.id), "true_positive"), label(json!(null), "false_positive")]));
    assert_eq!(stage.opens(&key), 401);
    let plain = stage.create("plain", json!({}));
    assert_eq!(stage.keyward.manage(&plain, "POST", "/v2/leaks", &leaks.to_string()).status, 403);
    // A8: who, where, and whether somebody may do more than before.
    let audit = stage.keyward.site.json(&["audit", "list"]).to_string();
    for said in ["leaked: https://example.com/a", "\"escalation\":true", &format!("key:{}", stage.admin.id)] {
        assert!(audit.contains(said), "{said}: {audit}");
    }
    assert!(!audit.contains(&key.value) && stage.keyward.site.run(&["audit", "verify"]).status.success());
}

#[test]
fn keys_below_a_key_go_with_it_if_that_is_meant() {
    let stage = Stage::new();
    let parent = stage.create("parent", json!({}));
    let child = stage.create("child", json!({ "parent": parent.id, "tags": ["radio"] }));
    assert_eq!(stage.result("GET", &format!("/v2/keys/{}", child.id), "")["tags"], json!(["radio"]));
    assert_eq!(stage.opens(&child), 200);
    let target = format!("/v2/keys/{}", parent.id);
    assert_eq!(refusal(&stage.ask("DELETE", &target, "")), (409, vec!["has_keys_below".to_owned()]));
    assert_eq!(stage.opens(&child), 200);
    stage.result("DELETE", &format!("{target}?cascade=true"), "");
    assert_eq!((stage.opens(&parent), stage.opens(&child)), (401, 401));
    let body = json!({ "type": "api", "name": "n", "permissions": [], "parent": "nothing" }).to_string();
    assert_eq!(refusal(&stage.ask("POST", "/v2/keys", &body)).0, 400);
}
