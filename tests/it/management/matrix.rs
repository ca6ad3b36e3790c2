//! Who may do what to what is really there: every operation, asked for as it is meant, about something of the own organization
//! and of another, by everybody whose authority is made of more than one role.

use keyward::admin::operation::{OPERATIONS, Operation};
use serde_json::{Value, json};

use super::Stage;
use crate::support::{Response, until};

/// Somebody who asks: with these fields.
struct Identity {
    who: &'static str,
    fields: Vec<(&'static str, String)>,
    /// What they may do in their own organization.
    may: fn(&str) -> bool,
}

impl Stage {
    /// What is of an organization, made for one question.
    fn thing(&self, operation: &Operation, scope: &str, count: usize) -> Value {
        let name = format!("n{count}");
        match operation.path.split('/').nth(2).unwrap() {
            "users" => self.result(
                "POST",
                "/v2/users",
                &json!({ "email": format!("{name}@example.com"), "scope": scope }).to_string(),
            ),
            "scopes" => {
                self.result("POST", "/v2/scopes", &json!({ "id": format!("{scope}/project:{name}") }).to_string())
            }
            "roles" => {
                self.result("POST", "/v2/roles", &json!({ "id": name, "permissions": ["keys:read"] }).to_string())
            }
            place => {
                let key = self.create(&name, json!({ "scope": scope }));
                if place != "bindings" || operation.id == "createBinding" {
                    return json!({ "id": key.id, "value": key.value });
                }
                let body = json!({ "subject": format!("key:{}", key.id), "role": "member", "scope": scope });
                self.result("POST", "/v2/bindings", &body.to_string())
            }
        }
    }

    #[track_caller]
    fn asks(&self, identity: &Identity, operation: &Operation, target: &str, body: &str) -> Response {
        let mut fields: Vec<(&str, &str)> =
            identity.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if !body.is_empty() {
            fields.push(("Content-Type", "application/json"));
        }
        self.send(operation.method.as_str(), target, &fields, body.as_bytes())
    }

    /// A user of the organization with an own key, which has the role of an admin there; the user has that role.
    fn person(&self, email: &str, role: &str) -> (String, Value) {
        let scope = "organization:acme";
        let body = json!({ "email": email, "scope": scope, "role": role, "api_access": true });
        let made = self.result("POST", "/v2/users", &body.to_string());
        let id = made["id"].as_str().unwrap();
        let bound = json!({ "subject": format!("key:{id}"), "role": "admin", "scope": scope });
        self.result("POST", "/v2/bindings", &bound.to_string());
        (id.to_owned(), made["value"].clone())
    }

    /// Somebody who has signed in by a link.
    fn signed_in(&self, id: &str) -> String {
        let link = self.keyward.site.run(&["user", "link", id]);
        let ticket = String::from_utf8(link.stdout).unwrap().trim().to_owned();
        let body = json!({ "ticket": ticket }).to_string();
        let answer = self.send("POST", "/v2/session", &[("Content-Type", "application/json")], body.as_bytes());
        let cookie = answer.value("set-cookie").unwrap_or_else(|| panic!("{}", answer.text()));
        cookie.split(';').next().unwrap().to_owned()
    }
}

/// What is sent along, about a thing and for a scope.
fn body(operation: &Operation, thing: &Value, scope: &str, count: usize) -> String {
    let body = match operation.id {
        "createKey" => json!({ "type": "api", "name": "n", "permissions": [], "scope": scope }),
        "createUser" => json!({ "email": format!("new{count}@example.com"), "scope": scope }),
        "createScope" => json!({ "id": format!("{scope}/project:new{count}") }),
        "createRole" => json!({ "id": format!("new{count}"), "permissions": ["keys:read"] }),
        "createBinding" => {
            json!({ "subject": format!("key:{}", thing["id"].as_str().unwrap()), "role": "member", "scope": scope })
        }
        "createSecret" | "createLink" => json!({}),
        "identifyKey" => json!({ "value": thing["value"] }),
        "reportLeaks" => json!({ "leaks": [{ "token": thing["value"] }] }),
        "updateKey" | "updateUser" => json!({ "name": "other" }),
        "updateScope" => json!({ "state": "suspended" }),
        "updateRole" => json!({ "observer": true }),
        // Its rows are no JSON, which is told to those who may bring in any.
        "importKeys" => json!({}),
        _ => return String::new(),
    };
    body.to_string()
}

fn identities(stage: &Stage) -> Vec<Identity> {
    let scope = json!({ "scope": "organization:acme" });
    let bearer = |value: &str| vec![("Authorization", format!("Bearer {value}"))];
    let bound = |name: &str, more: Value| {
        let mut attributes = scope.clone();
        attributes.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        let key = stage.create(name, attributes);
        let body = json!({ "subject": format!("key:{}", key.id), "role": "admin" });
        stage.result("POST", "/v2/bindings", &body.to_string());
        key
    };
    let all = |_: &str| true;
    let looks = |permission: &str| permission.ends_with(":read");
    let observes = |permission: &str| permission.ends_with(":read") && permission != "audit:read";
    let parent = bound("parent", json!({}));
    let looker = bound("looker", json!({ "permissions": ["fetch"] }));
    let child = bound("child", json!({ "parent": parent.id }));
    let cut = bound("cut", json!({ "parent": looker.id }));
    let (ann, _) = stage.person("ann@example.com", "admin");
    let (_, observer) = stage.person("obs@example.com", "observer");
    let cookie = vec![("Cookie", stage.signed_in(&ann)), ("Sec-Fetch-Site", "same-origin".to_owned())];
    let plain = stage.create("plain", scope.clone());
    vec![
        Identity { who: "an admin who has signed in", fields: cookie, may: all },
        Identity { who: "a key below an admin's", fields: bearer(&child.value), may: all },
        Identity { who: "a key below one that looks", fields: bearer(&cut.value), may: looks },
        Identity { who: "the own key of an observer", fields: bearer(observer.as_str().unwrap()), may: observes },
        Identity { who: "no role", fields: bearer(&plain.value), may: |_| false },
    ]
}

/// The status of what is asked for about the own organization, and about another.
fn expected(operation: &Operation, may: bool) -> [u16; 2] {
    match operation.id {
        _ if !may => [403, 403],
        // Roles are those of the whole domain: everybody who may look sees them, and an organization's admin changes none.
        "createRole" | "updateRole" | "deleteRole" => [403, 403],
        // There is no such process.
        "forgetNode" => [404, 404],
        "getRole" => [200, 200],
        "importKeys" => [415, 415],
        // Nothing of it is kept.
        "lookUpKey" => [409, 404],
        // A subject or a value that may not be seen is not there.
        "identifyKey" | "createBinding" => [200, 404],
        "reportLeaks" => [200, 200],
        _ if operation.path.contains("{id}") => [200, 404],
        _ if operation.id.starts_with("create") => [200, 403],
        _ => [200, 200],
    }
}

#[test]
fn c16_to_c24_everybody_does_what_they_may_to_what_is_theirs() {
    let stage = Stage::new();
    for organization in ["acme", "other"] {
        stage.result("POST", "/v2/scopes", &json!({ "id": format!("organization:{organization}") }).to_string());
    }
    let mut count = 0;
    for identity in &identities(&stage) {
        for operation in OPERATIONS.iter().filter(|operation| operation.permission.label() != "self") {
            let may = (identity.may)(operation.permission.label());
            for (organization, status) in ["acme", "other"].into_iter().zip(expected(operation, may)) {
                count += 1;
                let scope = format!("organization:{organization}");
                let needs = operation.path.contains("{id}")
                    || ["identifyKey", "createBinding", "reportLeaks"].contains(&operation.id);
                let thing = if needs { stage.thing(operation, &scope, count) } else { Value::Null };
                let id = thing["id"].as_str().unwrap_or_default().replace('/', "%2F");
                let target = operation.path.replace("{id}", &id);
                let sent = body(operation, &thing, &scope, count);
                let response = stage.asks(identity, operation, &target, &sent);
                let what = format!("{} {} in {organization}", identity.who, operation.id);
                assert_eq!(response.status, status, "{what}: {target} {sent}: {}", response.text());
                if operation.id == "reportLeaks" && may {
                    let label = if organization == "acme" { "true_positive" } else { "false_positive" };
                    assert_eq!(response.json()["result"][0]["label"], label, "{what}");
                }
            }
        }
    }
}

#[test]
fn who_is_suspended_is_nobody_by_key_and_by_cookie() {
    let stage = Stage::new();
    stage.result("POST", "/v2/scopes", r#"{"id":"organization:acme"}"#);
    let (id, value) = stage.person("ann@example.com", "admin");
    let cookie = vec![("Cookie", stage.signed_in(&id)), ("Sec-Fetch-Site", "same-origin".to_owned())];
    let key = vec![("Authorization", format!("Bearer {}", value.as_str().unwrap()))];
    let identities =
        [("her cookie", cookie), ("her key", key)].map(|(who, fields)| Identity { who, fields, may: |_| false });
    let operation = |id: &str| OPERATIONS.iter().find(|operation| operation.id == id).unwrap();
    for identity in &identities {
        until("she may", || stage.asks(identity, operation("listKeys"), "/v2/keys", "").status == 200);
    }
    stage.result("PATCH", &format!("/v2/users/{id}"), r#"{"state":"suspended"}"#);
    for operation in OPERATIONS.iter().filter(|operation| operation.id != "signIn") {
        for identity in &identities {
            let target = operation.path.replace("{id}", &id);
            let sent = body(operation, &json!({ "id": id, "value": "x" }), "organization:acme", 0);
            let status = stage.asks(identity, operation, &target, &sent).status;
            // Whoever tries on is slowed down.
            assert!([401, 429].contains(&status), "{} {}: {status}", identity.who, operation.id);
        }
    }
}
