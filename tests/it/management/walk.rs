//! Every operation once, in an order that makes sense: each answer has the frame of the documents, and the audit says of each
//! change who made it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Stage;
use super::operations::{LIST, assert_granted};
use crate::support::Response;

/// What a key is called by the documents, and nothing else (V9).
const KEY: [&str; 9] =
    ["created_by", "created_time", "id", "ips", "name", "permissions", "type", "updated_by", "updated_time"];

/// Somebody who does one thing after another.
struct Walk<'s> {
    stage: &'s Stage,
    done: BTreeSet<&'static str>,
    /// What the audit should say, the oldest first: who, and what.
    told: Vec<(String, &'static str)>,
}

impl Walk<'_> {
    #[track_caller]
    fn send(&mut self, id: &'static str, target: &str, fields: &[(&str, &str)], body: &str) -> (Response, Value) {
        let (_, method, path, _, shape) = LIST.into_iter().find(|(other, ..)| *other == id).unwrap();
        let fits = |(wanted, segment): (&str, &str)| wanted == segment || wanted == "{id}";
        let asked = target.split('?').next().unwrap();
        assert!(path.split('/').zip(asked.split('/')).all(fits), "{target} is not {path}");
        self.done.insert(id);
        let mut all = fields.to_vec();
        if !body.is_empty() && !fields.iter().any(|(name, _)| *name == "Content-Type") {
            all.push(("Content-Type", "application/json"));
        }
        let response = self.stage.send(method, target, &all, body.as_bytes());
        let result = assert_granted(&format!("{id} {target} {body}"), &response, shape);
        (response, result)
    }

    /// Asks as the admin; `told` is what the audit calls it, if it changes anything.
    #[track_caller]
    fn ask(&mut self, id: &'static str, target: &str, body: &Value, told: Option<&'static str>) -> Value {
        let bearer = self.stage.admin.bearer();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let result = self.send(id, target, &[("Authorization", &bearer)], &body).1;
        self.told.extend(told.map(|action| (format!("key:{}", self.stage.admin.id), action)));
        result
    }
}

fn id(value: &Value) -> String {
    value["id"].as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

fn names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn v6_to_v9_v17_every_operation_is_answered_in_the_frame_and_taken_down_with_its_maker() {
    let stage = Stage::new();
    let head = stage.result("GET", "/v2/audit?limit=1", "")[0]["revision"].as_u64().unwrap();
    let mut walk = Walk { stage: &stage, done: BTreeSet::new(), told: Vec::new() };
    keys(&mut walk);
    roles_and_scopes(&mut walk);
    people(&mut walk);
    rest(&mut walk);
    let all: BTreeSet<&str> = LIST.iter().map(|(id, ..)| *id).collect();
    assert_eq!(walk.done, all, "each of them is asked for");
    let mut audit = stage.result("GET", "/v2/audit?limit=1000", "");
    let audit = audit.as_array_mut().unwrap();
    audit.retain(|entry| entry["revision"].as_u64() > Some(head));
    audit.reverse();
    let said = |entry: &Value| [&entry["actor"], &entry["action"]].map(|text| text.as_str().unwrap().to_owned());
    let said: Vec<[String; 2]> = audit.iter().map(said).collect();
    let told: Vec<[String; 2]> = walk.told.iter().map(|(who, what)| [who.clone(), (*what).to_owned()]).collect();
    assert_eq!(said, told);
    for entry in audit {
        assert!(entry["detail"]["scopes"].is_array(), "whom it concerns: {entry}");
    }
}

fn keys(walk: &mut Walk<'_>) {
    let maker = walk.stage.admin.id.clone();
    let new = json!({ "type": "api", "name": "Example", "permissions": [], "ips": [] });
    let made = walk.ask("createKey", "/v2/keys", &new, Some("key.create"));
    let mut with_value: Vec<&str> = KEY.to_vec();
    with_value.push("value");
    assert_eq!(names(&made), with_value, "V9, V24");
    let key = format!("/v2/keys/{}", id(&made));
    let got = walk.ask("getKey", &key, &Value::Null, None);
    assert_eq!(names(&got), KEY, "V9");
    let by = |key: &Value| [&key["created_by"], &key["updated_by"]].map(|by| by.as_str().map(str::to_owned));
    assert_eq!(by(&got), [(); 2].map(|()| Some(maker.clone())), "V17");
    for listed in walk.ask("listKeys", "/v2/keys", &Value::Null, None).as_array().unwrap() {
        assert_eq!(names(listed), KEY, "V9");
    }
    let patched = walk.ask("updateKey", &key, &json!({ "name": "Other" }), Some("key.update"));
    assert_eq!(names(&patched), KEY, "V9");
    walk.ask("createSecret", &format!("{key}/secrets"), &json!({}), Some("key.rotate"));
    walk.ask("listSecrets", &format!("{key}/secrets"), &Value::Null, None);
    walk.ask("getUsage", &format!("{key}/usage"), &Value::Null, None);
    walk.ask("listUsage", "/v2/usage", &Value::Null, None);
    let kept = json!({ "type": "api", "name": "Kept", "permissions": [], "recoverable": true });
    let kept = walk.ask("createKey", "/v2/keys", &kept, Some("key.create"));
    let value = format!("/v2/keys/{}/value", id(&kept));
    let looked = walk.ask("lookUpKey", &value, &Value::Null, Some("key.look_up"));
    assert_eq!(looked["value"], kept["value"]);
    let found = walk.ask("identifyKey", "/v2/keys/identify", &json!({ "value": kept["value"] }), None);
    let mut beside: Vec<&str> = KEY.to_vec();
    beside.push("recoverable");
    beside.sort_unstable();
    assert_eq!(names(&found), beside, "ours comes beside what is documented, and no value");
    let leaked = json!({ "leaks": [{ "token": kept["value"] }] });
    walk.ask("reportLeaks", "/v2/leaks", &leaked, Some("key.revoke"));
    assert_eq!(walk.ask("deleteKey", &key, &Value::Null, Some("key.revoke")), json!({}));
    let bearer = walk.stage.admin.bearer();
    let fields = [("Authorization", bearer.as_str()), ("Content-Type", "text/csv")];
    let rows = format!("id,sha256\nimported,{:064x}\n", 7);
    assert_eq!(walk.send("importKeys", "/v2/keys/import", &fields, &rows).1["imported"], json!(1));
    walk.told.push((format!("key:{maker}"), "key.import"));
}

fn roles_and_scopes(walk: &mut Walk<'_>) {
    let scope = "/v2/scopes/organization:acme";
    walk.ask("createScope", "/v2/scopes", &json!({ "id": "organization:acme" }), Some("scope.create"));
    walk.ask("listScopes", "/v2/scopes", &Value::Null, None);
    walk.ask("getScope", scope, &Value::Null, None);
    walk.ask("updateScope", scope, &json!({ "state": "suspended" }), Some("scope.suspend"));
    walk.ask("updateScope", scope, &json!({ "state": "active" }), Some("scope.resume"));
    let role = json!({ "id": "support", "permissions": ["keys:read"] });
    walk.ask("createRole", "/v2/roles", &role, Some("role.create"));
    walk.ask("listRoles", "/v2/roles", &Value::Null, None);
    walk.ask("getRole", "/v2/roles/support", &Value::Null, None);
    walk.ask("updateRole", "/v2/roles/support", &json!({ "observer": true }), Some("role.update"));
    let binding = json!({ "subject": "key:imported", "role": "support", "scope": "organization:acme" });
    let binding = walk.ask("createBinding", "/v2/bindings", &binding, Some("binding.create"));
    walk.ask("listBindings", "/v2/bindings", &Value::Null, None);
    let path = format!("/v2/bindings/{}", id(&binding));
    walk.ask("getBinding", &path, &Value::Null, None);
    walk.ask("deleteBinding", &path, &Value::Null, Some("binding.delete"));
    walk.ask("deleteRole", "/v2/roles/support", &Value::Null, Some("role.delete"));
}

/// What people do is done by them, and signing in is by the one who signs in.
fn people(walk: &mut Walk<'_>) {
    let new = json!({ "email": "ann@example.com", "api_access": true });
    let ann = id(&walk.ask("createUser", "/v2/users", &new, Some("user.create")));
    let path = format!("/v2/users/{ann}");
    walk.ask("listUsers", "/v2/users", &Value::Null, None);
    walk.ask("getUser", &path, &Value::Null, None);
    walk.ask("updateUser", &path, &json!({ "name": "Ann" }), Some("user.update"));
    let link = walk.ask("createLink", &format!("{path}/links"), &json!({}), Some("user.link"));
    let ticket = json!({ "ticket": link["ticket"] }).to_string();
    let signed_in = walk.send("signIn", "/v2/session", &[], &ticket).0;
    let cookie = signed_in.value("set-cookie").unwrap();
    let cookie = cookie.split(';').next().unwrap();
    let herself = format!("user:{ann}");
    walk.told.push((herself.clone(), "user.link_used"));
    let fields = [("Cookie", cookie), ("Sec-Fetch-Site", "same-origin")];
    assert_eq!(id(&walk.send("getMe", "/v2/me", &fields, "").1), ann);
    walk.send("updateMe", "/v2/me", &fields, r#"{"name":"Anna"}"#);
    walk.told.push((herself.clone(), "user.update"));
    walk.send("lookUpOwnKey", "/v2/me/key/value", &fields, "");
    walk.told.push((herself.clone(), "key.look_up"));
    let proposed = walk.send("regenerateOwnKey", "/v2/me/key", &fields, "{}").1;
    let confirmed = json!({ "value": proposed["value"], "confirmation": proposed["confirmation"] }).to_string();
    walk.send("regenerateOwnKey", "/v2/me/key", &fields, &confirmed);
    walk.told.push((herself, "key.regenerate"));
    walk.send("signOut", "/v2/session", &fields, "");
    walk.ask("deleteUser", &path, &Value::Null, Some("user.delete"));
}

fn rest(walk: &mut Walk<'_>) {
    let nodes = walk.ask("listNodes", "/v2/nodes", &Value::Null, None);
    let node = format!("/v2/nodes/{}", id(&nodes[0]).replace(':', "%3A"));
    walk.ask("forgetNode", &node, &Value::Null, None);
    walk.ask("listAudit", "/v2/audit?limit=1", &Value::Null, None);
}
