//! What there is and who may, written down by hand a second time: the document, the router and the check of permissions are
//! held against this list, and not against the table that all of them are made from.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Stage, refusal};
use crate::support::{Key, Response};

/// What a result is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    /// A page of a list, which has links.
    Page,
}
use Shape::{One, Page};

/// Every operation: what it is called, method and path, what its caller must be permitted, and what comes of it.
pub(super) const LIST: [(&str, &str, &str, &str, Shape); 41] = [
    ("listKeys", "GET", "/v2/keys", "keys:read", Page),
    ("createKey", "POST", "/v2/keys", "keys:write", One),
    ("importKeys", "POST", "/v2/keys/import", "keys:write", One),
    ("identifyKey", "POST", "/v2/keys/identify", "keys:read", One),
    ("getKey", "GET", "/v2/keys/{id}", "keys:read", One),
    ("updateKey", "PATCH", "/v2/keys/{id}", "keys:write", One),
    ("deleteKey", "DELETE", "/v2/keys/{id}", "keys:write", One),
    ("listSecrets", "GET", "/v2/keys/{id}/secrets", "keys:read", Page),
    ("createSecret", "POST", "/v2/keys/{id}/secrets", "keys:write", One),
    ("lookUpKey", "POST", "/v2/keys/{id}/value", "keys:write", One),
    ("getUsage", "GET", "/v2/keys/{id}/usage", "usage:read", One),
    ("listUsage", "GET", "/v2/usage", "usage:read", Page),
    ("listAudit", "GET", "/v2/audit", "audit:read", Page),
    ("listScopes", "GET", "/v2/scopes", "scopes:read", Page),
    ("createScope", "POST", "/v2/scopes", "scopes:write", One),
    ("getScope", "GET", "/v2/scopes/{id}", "scopes:read", One),
    ("updateScope", "PATCH", "/v2/scopes/{id}", "scopes:write", One),
    ("listUsers", "GET", "/v2/users", "users:read", Page),
    ("createUser", "POST", "/v2/users", "users:write", One),
    ("getUser", "GET", "/v2/users/{id}", "users:read", One),
    ("updateUser", "PATCH", "/v2/users/{id}", "users:write", One),
    ("deleteUser", "DELETE", "/v2/users/{id}", "users:write", One),
    ("createLink", "POST", "/v2/users/{id}/links", "users:write", One),
    ("listNodes", "GET", "/v2/nodes", "keys:read", Page),
    ("forgetNode", "DELETE", "/v2/nodes/{id}", "keys:write", One),
    ("listRoles", "GET", "/v2/roles", "roles:read", Page),
    ("createRole", "POST", "/v2/roles", "roles:write", One),
    ("getRole", "GET", "/v2/roles/{id}", "roles:read", One),
    ("updateRole", "PATCH", "/v2/roles/{id}", "roles:write", One),
    ("deleteRole", "DELETE", "/v2/roles/{id}", "roles:write", One),
    ("listBindings", "GET", "/v2/bindings", "bindings:read", Page),
    ("createBinding", "POST", "/v2/bindings", "bindings:write", One),
    ("getBinding", "GET", "/v2/bindings/{id}", "bindings:read", One),
    ("deleteBinding", "DELETE", "/v2/bindings/{id}", "bindings:write", One),
    ("reportLeaks", "POST", "/v2/leaks", "leaks:write", One),
    ("signIn", "POST", "/v2/session", "self", One),
    ("signOut", "DELETE", "/v2/session", "self", One),
    ("getMe", "GET", "/v2/me", "self", One),
    ("updateMe", "PATCH", "/v2/me", "self", One),
    ("lookUpOwnKey", "POST", "/v2/me/key/value", "self", One),
    ("regenerateOwnKey", "POST", "/v2/me/key", "self", One),
];

/// All that a role can permit.
const PERMISSIONS: [&str; 13] = [
    "keys:read",
    "keys:write",
    "users:read",
    "users:write",
    "roles:read",
    "roles:write",
    "bindings:read",
    "bindings:write",
    "scopes:read",
    "scopes:write",
    "audit:read",
    "usage:read",
    "leaks:write",
];

#[test]
fn the_document_has_what_is_listed_and_nothing_else() {
    let stage = Stage::new();
    let response = stage.send("GET", "/v2/openapi.json", &[], b"");
    assert_eq!((response.status, response.value("content-type").as_deref()), (200, Some("application/json")));
    let (document, mut described) = (response.json(), BTreeSet::new());
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(method, _)| *method != "parameters") {
            let field = |name: &str| operation[name].as_str().unwrap().to_owned();
            let result = &operation["responses"]["200"]["content"]["application/json"]["schema"];
            assert!(result.is_object(), "{method} {path} has an answer");
            described.insert([field("operationId"), method.to_uppercase(), path.clone(), field("x-permission")]);
        }
        let named = item["parameters"].as_array().map_or(0, Vec::len);
        assert_eq!(named, usize::from(path.contains("{id}")), "{path}");
    }
    let listed = LIST.map(|(id, method, path, permission, _)| [id, method, path, permission].map(str::to_owned));
    assert_eq!(described, listed.into_iter().collect());
}

/// Every method on every path: it is there if it is listed, and else the answer says what is.
#[test]
fn the_router_knows_what_is_listed_and_nothing_else() {
    let stage = Stage::new();
    let bearer = stage.admin.bearer();
    let ask = |method: &str, target: &str| stage.send(method, target, &[("Authorization", &bearer)], b"");
    let paths: BTreeSet<&str> = LIST.iter().map(|(_, _, path, ..)| *path).collect();
    for path in paths {
        let mut methods: BTreeSet<&str> =
            LIST.iter().filter(|(_, _, other, ..)| *other == path).map(|(_, method, ..)| *method).collect();
        if methods.contains("GET") {
            methods.insert("HEAD");
        }
        let allow = methods.iter().copied().collect::<Vec<_>>().join(", ");
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"] {
            let response = ask(method, &path.replace("{id}", "nothing"));
            let is_there = response.status != 405 && !response.text().contains("no such path");
            assert_eq!(is_there, methods.contains(method), "{method} {path}: {} {}", response.status, response.text());
            let told = response.value("allow");
            assert_eq!(told, (!is_there).then(|| allow.clone()), "{method} {path}");
        }
    }
    for path in ["/v2", "/v2/", "/v2/secrets", "/v2/keys/", "/v2/keys/a/b", "/v2/leaks/a", "/v2/me/keys", "/v1/keys"] {
        let response = ask("GET", path);
        assert_eq!((response.status, response.value("allow")), (404, None), "{path}: {}", response.text());
    }
}

impl Stage {
    /// A key, everywhere, with a role that permits these.
    fn permitted(&self, name: &str, permissions: &[&str]) -> Key {
        self.result("POST", "/v2/roles", &json!({ "id": name, "permissions": permissions }).to_string());
        let key = self.create(name, json!({}));
        let binding = json!({ "subject": format!("key:{}", key.id), "role": name });
        self.result("POST", "/v2/bindings", &binding.to_string());
        key
    }
}

/// Each operation is for those who have the one permission that is listed, whatever else they lack, and not for those who have
/// all others.
#[test]
fn each_operation_needs_the_permission_that_is_listed() {
    let stage = Stage::new();
    let holders = PERMISSIONS.map(|permission| {
        let name = permission.replace(':', "-");
        let others: Vec<&str> = PERMISSIONS.into_iter().filter(|other| *other != permission).collect();
        let (only, but) =
            (stage.permitted(&format!("only-{name}"), &[permission]), stage.permitted(&format!("but-{name}"), &others));
        (permission, only, but)
    });
    let nobody = stage.create("nobody", json!({}));
    let ask = |who: &Key, method: &str, path: &str| -> (u16, String) {
        let body = if ["POST", "PATCH"].contains(&method) { r#"{"nothing":1}"# } else { "" };
        let response = stage.keyward.manage(who, method, &path.replace("{id}", "nothing"), body);
        (response.status, response.json()["errors"][0]["message"].as_str().unwrap_or_default().to_owned())
    };
    for (id, method, path, needed, _) in LIST {
        let Some((_, only, but)) = holders.iter().find(|(permission, ..)| *permission == needed) else {
            let (status, why) = ask(&nobody, method, path);
            assert!(!why.contains("role"), "{id} is for everybody: {status} {why}");
            continue;
        };
        let (status, why) = ask(only, method, path);
        assert!(![401, 403].contains(&status), "{id} needs {needed} alone: {status} {why}");
        for who in [but, &nobody] {
            assert_eq!(ask(who, method, path), (403, format!("this needs a role with {needed}")), "{id}");
        }
    }
}

/// The frame of an answer, byte for byte (V6): `links` is an object where there may be more (V7), and `null` elsewhere (V8).
#[track_caller]
pub(super) fn assert_granted(what: &str, response: &Response, shape: Shape) -> Value {
    let text = response.text();
    assert_eq!(response.status, 200, "{what}: {text}");
    assert_eq!(response.value("content-type").as_deref(), Some("application/json"), "{what}");
    let mut body = response.json();
    let names: BTreeSet<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["errors", "links", "result", "success"]), "{what}: {text}");
    assert!(text.starts_with(r#"{"success":true,"result":"#) && text.ends_with(r#","errors":[]}"#), "{what}: {text}");
    match shape {
        One => assert!(body["links"].is_null(), "V8: {what}: {text}"),
        Page => {
            assert!(body["result"].is_array(), "V7: {what}: {text}");
            let links = body["links"].as_object().unwrap_or_else(|| panic!("V7: {what}: {text}"));
            assert!(links.keys().all(|name| name == "next"), "V7: {what}: {text}");
        }
    }
    body["result"].take()
}

/// Whatever is wrong, it comes in the same frame.
#[test]
fn v6_every_refusal_has_the_four_parts() {
    let stage = Stage::new();
    let plain = stage.create("plain", json!({}));
    let bearers = [&stage.admin, &stage.read_only, &plain].map(Key::bearer);
    let [admin, looks, plain] = bearers.each_ref().map(|bearer| ("Authorization", bearer.as_str()));
    let json_body = ("Content-Type", "application/json");
    let own = format!("/v2/keys/{}", stage.admin.id);
    let long = vec![b' '; 70_000];
    for (method, target, fields, body, status, code) in [
        ("GET", "/v2/keys?limit=0", &[admin][..], &b""[..], 400, "invalid_attribute"),
        ("POST", "/v2/keys", &[admin, json_body], b"{", 400, "invalid_json"),
        ("POST", "/v2/keys", &[admin, json_body], b"{}", 400, "invalid_attribute"),
        ("PATCH", own.as_str(), &[admin, json_body], b"{}", 400, "nothing_to_change"),
        ("GET", "/v2/keys", &[], b"", 401, "missing_credential"),
        ("GET", "/v2/keys", &[("X-API-Key", "kw_live_wrong")], b"", 401, "invalid_credential"),
        ("GET", "/v2/keys", &[plain], b"", 403, "forbidden"),
        ("POST", "/v2/keys", &[looks, json_body], b"{}", 403, "read_only_key"),
        ("GET", "/v2/keys/nothing", &[admin], b"", 404, "not_found"),
        ("GET", "/v2/nothing", &[admin], b"", 404, "not_found"),
        ("PUT", "/v2/keys", &[admin], b"", 405, "method_not_allowed"),
        ("PATCH", &own, &[admin, json_body], br#"{"ips":["9.9.9.9"]}"#, 409, "would_lock_out"),
        ("DELETE", &own, &[admin, ("If-Match", "\"99\"")], b"", 412, "precondition_failed"),
        ("POST", "/v2/keys", &[admin, json_body], &long, 413, "too_large"),
        ("POST", "/v2/keys", &[admin], b"{}", 415, "unsupported_media_type"),
    ] {
        let response = stage.send(method, target, fields, body);
        let (told, codes) = refusal(&response);
        assert_eq!((told, codes.first().map(String::as_str)), (status, Some(code)), "{method} {target}");
        assert_frame(&response);
    }
    // Nothing is known of what is there, and that is said in the same way.
    std::fs::rename(stage.keyward.site.path().join("keyward.db"), stage.keyward.site.path().join("away.db")).unwrap();
    let new = br#"{"type":"api","name":"n","permissions":[]}"#;
    let response = stage.send("POST", "/v2/keys", &[admin, json_body], new);
    assert_eq!(refusal(&response).0, 503);
    assert_frame(&response);
}

#[track_caller]
fn assert_frame(response: &Response) {
    let text = response.text();
    assert!(text.starts_with(r#"{"success":false,"result":null,"links":null,"errors":[{"#), "{text}");
    assert!(text.ends_with("}]}") && response.value("content-type").as_deref() == Some("application/json"), "{text}");
    for error in response.json()["errors"].as_array().unwrap() {
        assert!(error["code"].is_string() && error["message"].is_string(), "{text}");
    }
}
