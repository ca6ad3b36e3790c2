//! What the table of operations says of who may is what happens; what it should say is in `operations.rs`.

use keyward::admin::operation::{OPERATIONS, Operation};
use keyward::auth::authority::Permissions;
use serde_json::Value;

use super::refusal;
use crate::support::{Client, Keyward, Response, Site, Upstream, request};

/// Asks for an operation, with what it would need sent along, but nothing that makes sense.
#[track_caller]
fn ask(keyward: &Keyward, operation: &Operation, authorization: Option<&str>) -> Response {
    let target = operation.path.replace("{id}", "nothing");
    let body: &[u8] = if operation.input.is_some() { b"{\"nothing\":1}" } else { b"" };
    let mut fields = vec![("Content-Type", "application/json")];
    fields.extend(authorization.map(|value| ("Authorization", value)));
    Client::connect(keyward.admin()).exchange(&request(operation.method.as_str(), &target, &fields, body))
}

/// Every operation by every kind of identity: who may not is told so before anything else, and who may gets to what is wrong
/// with the request itself.
#[test]
fn c2_c16_to_c24_every_operation_is_for_those_who_may_and_for_nobody_else() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "");
    let all = |operation: &Operation| Permissions::ALL.has(operation.permission);
    let looks = |operation: &Operation| Permissions::ALL.looking().has(operation.permission);
    let observes = |operation: &Operation| looks(operation) && operation.permission.label() != "audit:read";
    let below = |operation: &Operation| {
        let area = operation.permission.label().split(':').next().unwrap();
        ["keys", "scopes", "usage", "leaks"].contains(&area)
    };
    let nothing = |_: &Operation| false;
    let acme = "organization:acme";
    let project = "organization:acme/project:p1";
    type May<'m> = &'m dyn Fn(&Operation) -> bool;
    let identities: [(&str, &[&str], May<'_>); 6] = [
        ("no role", &[], &nothing),
        ("admin", &["--role", "admin"], &all),
        ("read-only admin", &["--role", "admin", "--read-only"], &looks),
        ("observer", &["--role", "observer"], &observes),
        ("admin of an organization", &["--role", "admin", "--scope", acme], &all),
        ("admin of a project", &["--role", "admin", "--scope", project], &below),
    ];
    let keys = identities.map(|(_, options, _)| site.create_key(options));
    let keyward = site.serve();
    for operation in &OPERATIONS {
        if operation.id == "signIn" {
            continue; // is how somebody comes to be known
        }
        assert_eq!(refusal(&ask(&keyward, operation, None)), (401, vec!["missing_credential".to_owned()]));
        if operation.permission.label() == "self" {
            continue; // everybody's own account, of which keys have none
        }
        for ((who, _, may), key) in identities.iter().zip(&keys) {
            let response = ask(&keyward, operation, Some(&key.bearer()));
            let (status, codes) = (response.status, response.json()["errors"].clone());
            if may(operation) {
                assert!(![401, 403].contains(&status), "{who} may {}: {status} {codes}", operation.id);
            } else {
                assert_eq!(status, 403, "{who} may not {}: {codes}", operation.id);
            }
        }
    }
    let list = keyward.manage(&keys[4], "GET", "/v2/keys", "").json();
    let scopes: Vec<&Value> = list["result"].as_array().unwrap().iter().map(|key| &key["scope"]).collect();
    assert_eq!(scopes, [acme, project], "C18, C20: an organization, and all below it");
}

/// What is above is out of reach, and what is not seen is not there.
#[test]
fn c24_an_admin_of_a_project_reaches_nothing_of_the_organization() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "");
    let project = site.create_key(&["--role", "admin", "--scope", "organization:acme/project:p1"]);
    let above = site.create_key(&["--role", "admin", "--scope", "organization:acme"]);
    let keyward = site.serve();
    for (method, path, body) in [("POST", "/secrets", "{}"), ("PATCH", "", r#"{"name":"x"}"#), ("DELETE", "", "")] {
        let target = format!("/v2/keys/{}{path}", above.id);
        assert_eq!(keyward.manage(&project, method, &target, body).status, 404, "{method}");
    }
    let new = r#"{"type":"api","name":"n","permissions":[],"scope":"organization:acme"}"#;
    assert_eq!(refusal(&keyward.manage(&project, "POST", "/v2/keys", new)).0, 403);
}
