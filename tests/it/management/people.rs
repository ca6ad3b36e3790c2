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
    // Each is revoked and stays, so that its value cannot be brought in again.
    let revoked = stage.result("GET", "/v2/keys?state=revoked", "").to_string();
    assert!(revoked.contains(&parent.id) && revoked.contains(&child.id), "{revoked}");
    let body = json!({ "type": "api", "name": "n", "permissions": [], "parent": "nothing" }).to_string();
    assert_eq!(refusal(&stage.ask("POST", "/v2/keys", &body)).0, 400);
}

#[test]
fn b9_a_value_that_is_kept_is_looked_up_by_those_who_may_and_each_time_is_in_the_audit() {
    let stage = Stage::new();
    let (kept, plain) = (stage.create("kept", json!({ "recoverable": true })), stage.create("plain", json!({})));
    let value = |key: &Key| format!("/v2/keys/{}/value", key.id);
    assert_eq!(stage.result("POST", &value(&kept), ""), json!({ "id": kept.id, "value": kept.value }));
    assert_eq!(refusal(&stage.ask("POST", &value(&plain), "")), (409, vec!["not_recoverable".to_owned()]), "C4");
    assert_eq!(stage.keyward.manage(&stage.read_only, "POST", &value(&kept), "").status, 403);
    let target = format!("/v2/keys/{}", kept.id);
    let rotated = stage.result("POST", &format!("{target}/secrets"), "{}");
    assert_eq!(stage.result("POST", &value(&kept), "")["value"], rotated["value"], "the newest");
    let shown = stage.keyward.site.json(&["key", "reveal", &kept.id]);
    assert_eq!(shown["value"], rotated["value"]);
    let looked = stage.result("GET", "/v2/audit?action=key.look_up", "");
    assert_eq!(looked.as_array().unwrap().len(), 3, "{looked}");
    assert!(!looked.to_string().contains(&kept.value));
    assert_eq!(stage.result("GET", &target, "")["recoverable"], json!(true));
    assert!(stage.result("PATCH", &target, r#"{"recoverable":false}"#).get("recoverable").is_none());
    assert_eq!(stage.ask("POST", &value(&kept), "").status, 409, "it is forgotten");
}

#[test]
fn b7_b10_b11_keys_of_a_user_stand_beside_the_name_and_go_with_the_access() {
    let stage = Stage::new();
    let acme = stage.keyward.site.create_key(&["--role", "admin", "--scope", "organization:acme"]);
    let made = stage.result("POST", "/v2/users", r#"{"email":"ann@example.com","api_access":true}"#);
    let ann = made["id"].as_str().unwrap();
    let key = stage.create("laptop", json!({ "owner": ann }));
    assert_eq!(stage.opens(&key), 200);
    let listed = &stage.result("GET", "/v2/users", "")[0];
    let ids: Vec<&str> = listed["keys"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 2, "{listed}");
    assert!(ids.contains(&ann) && ids.contains(&&*key.id), "B10: {listed}");
    assert!(listed.to_string().contains(&key.value[8..16]) && !listed.to_string().contains(&key.value[8..17]));
    for (target, body) in [
        (format!("/v2/keys/{ann}"), json!({ "owner": null })),
        (format!("/v2/keys/{}", key.id), json!({ "owner": "nobody" })),
    ] {
        assert_eq!(refusal(&stage.ask("PATCH", &target, &body.to_string())).0, 400, "B11: {body}");
    }
    // Whoever may not change a user does not act for them.
    let new = json!({ "type": "api", "name": "n", "permissions": [], "owner": ann }).to_string();
    assert_eq!(refusal(&stage.keyward.manage(&acme, "POST", "/v2/keys", &new)).0, 400);
    stage.result("PATCH", &format!("/v2/users/{ann}"), r#"{"api_access":false}"#);
    assert_eq!(stage.opens(&key), 403, "B7");
    // To be nobody's is to be free of that, and the audit marks it.
    stage.result("PATCH", &format!("/v2/keys/{}", key.id), r#"{"owner":null}"#);
    assert_eq!(stage.opens(&key), 200);
    let audit = stage.result("GET", &format!("/v2/audit?target={}&action=key.update", key.id), "");
    assert_eq!(audit[0]["detail"]["escalation"], json!(true));
    assert_eq!(stage.result("GET", "/v2/users", "")[0]["keys"].as_array().unwrap().len(), 1);
}

#[test]
fn c20_the_end_of_keys_is_in_the_audit_of_their_organization() {
    let stage = Stage::new();
    let acme = stage.keyward.site.create_key(&["--role", "admin", "--scope", "organization:acme"]);
    let parent = stage.create("parent", json!({ "scope": "organization:acme" }));
    stage.create("child", json!({ "scope": "organization:acme", "parent": parent.id }));
    stage.keyward.site.json(&["key", "delete", &parent.id, "--cascade"]);
    let seen = stage.keyward.manage(&acme, "GET", "/v2/audit?action=key.delete", "").json();
    assert_eq!(seen["result"][0]["detail"]["target"]["id"], json!(parent.id), "{seen}");
    assert_eq!(stage.keyward.site.json(&["key", "show", &parent.id])["state"], "revoked");
}

/// All who have a role may more at once when it permits more, and the audit marks that.
#[test]
fn a_role_that_is_widened_is_marked_and_one_that_is_narrowed_is_not() {
    let stage = Stage::new();
    stage.result("POST", "/v2/roles", r#"{"id":"clerk","permissions":["keys:read","keys:write"]}"#);
    for (patch, widens) in [
        (json!({ "permissions": ["keys:read", "keys:write", "users:read"] }), true),
        (json!({ "permissions": ["keys:read", "keys:write"] }), false),
        (json!({ "permissions": ["keys:read", "users:read"] }), true),
        (json!({ "permissions": ["users:read"] }), false),
        (json!({ "permissions": ["keys:write"] }), true),
        (json!({ "observer": true }), false),
        (json!({ "permissions": ["keys:write", "users:write"] }), false),
        (json!({ "observer": false }), true),
        (json!({ "observer": false }), false),
    ] {
        stage.result("PATCH", "/v2/roles/clerk", &patch.to_string());
        let audit = stage.result("GET", "/v2/audit?limit=1&action=role.update", "");
        assert_eq!(audit[0]["detail"]["escalation"] == json!(true), widens, "{patch}: {audit}");
    }
}
