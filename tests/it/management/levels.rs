//! The levels of the tree: what a domain, a project and a scene cover, where requests go to the upstream and where keys are
//! managed. The paths are Cognitive3D's.

use serde_json::{Value, json};

use super::Stage;
use crate::support::Key;

const ROUTES: &str = r#"
routes:
  - { path: "/v0/domains/{domain}/{*rest}" }
  - { path: "/v0/organizations/{organization}/projects/{project}/{*rest}" }
  - { path: "/v0/organizations/{organization}/{*rest}" }
  - { path: "/v0/projects/{project}/{*rest}" }
  - { path: "/v0/scenes/{scene}/{*rest}" }
"#;

const P1: &str = "organization:acme/project:p1";
const S1: &str = "organization:acme/project:p1/scene:s1";

impl Stage {
    /// One with a tree of two organizations, three projects and three scenes, and one label's domain.
    fn tree() -> Self {
        let stage = Self::with(ROUTES);
        for scope in [
            S1,
            "organization:acme/project:p1/scene:s2",
            "organization:acme/project:p3/scene:s3",
            "organization:other/project:p2",
            "domain:label/organization:theirs/project:p4",
            "domain:rival/organization:rivals",
        ] {
            stage.result("POST", "/v2/scopes", &json!({ "id": scope }).to_string());
        }
        stage
    }

    /// A key that acts within a scope, and has a role there.
    fn holder(&self, role: &str, scope: &str) -> Key {
        let key = self.create(role, json!({ "scope": scope }));
        let body = json!({ "subject": format!("key:{}", key.id), "role": role, "scope": scope });
        self.result("POST", "/v2/bindings", &body.to_string());
        key
    }

    /// What requests to the upstream come to: to look, and to change something.
    #[track_caller]
    fn assert_opens(&self, key: &Key, open: &[&str], shut: &[&str]) {
        for (paths, status) in [(open, 200), (shut, 403)] {
            for path in paths {
                for method in ["GET", "PUT"] {
                    assert_eq!(self.keyward.with_key(key, method, path).status, status, "{method} {path}");
                    assert_eq!(self.upstream.take().len(), usize::from(status == 200), "{method} {path}");
                }
            }
        }
    }

    /// What questions to the management API come to.
    #[track_caller]
    fn assert_manages(&self, key: &Key, rows: &[(&str, &str, Value, u16)]) {
        for (method, target, body, status) in rows {
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let response = self.keyward.manage(key, method, target, &body);
            assert_eq!(response.status, *status, "{method} {target} {body}: {}", response.text());
        }
    }

    /// The ids that somebody sees in a list.
    fn listed(&self, key: &Key, path: &str, field: &str) -> Vec<String> {
        let listed = self.keyward.manage(key, "GET", path, "").json();
        let listed = listed["result"].as_array().unwrap_or_else(|| panic!("{listed}"));
        listed.iter().map(|one| one[field].as_str().unwrap_or_default().to_owned()).collect()
    }
}

fn new(scope: &str) -> Value {
    json!({ "type": "api", "name": "n", "permissions": [], "scope": scope })
}

fn made(scope: &str) -> Value {
    json!({ "id": scope })
}

/// C19: the domain is the highest level. Whose roles are not within any scope has what belongs to no organization: roles, the
/// processes, what acts everywhere, new organizations, and the audit of all that; and everything below.
#[test]
fn c19_the_domain_is_above_all_organizations_and_has_what_is_of_none() {
    let stage = Stage::tree();
    let acme = stage.holder("admin", "organization:acme");
    let everywhere = json!({ "type": "api", "name": "n", "permissions": [], "scope": null });
    let binding = |id: &str| json!({ "subject": format!("key:{id}"), "role": "observer", "scope": null });
    let nowhere = stage.create("nowhere", json!({}));
    let functions = |organization: &str, status: u16| {
        let user = json!({ "email": format!("{organization}@example.com"), "scope": null });
        let role = json!({ "id": format!("r-{organization}"), "permissions": ["keys:read"] });
        vec![
            ("POST", "/v2/keys", everywhere.clone(), status),
            ("POST", "/v2/users", user, status),
            ("POST", "/v2/roles", role, status),
            ("PATCH", "/v2/roles/r-domain", json!({ "observer": true }), status),
            ("POST", "/v2/bindings", binding(&acme.id), status),
            ("POST", "/v2/scopes", made(&format!("organization:new-{organization}")), status),
            ("POST", "/v2/scopes", made(&format!("domain:new-{organization}")), status),
            ("DELETE", "/v2/roles/r-domain", Value::Null, status),
        ]
    };
    stage.assert_manages(&stage.admin, &functions("domain", 200)[..7]);
    stage.assert_manages(&acme, &functions("acme", 403));
    stage.assert_manages(&stage.admin, &functions("domain", 200)[7..]);
    stage.assert_manages(&acme, &[("GET", &format!("/v2/keys/{}", nowhere.id), Value::Null, 404)]);
    // Its audit is for those of the domain.
    let roles = |key: &Key| stage.listed(key, "/v2/audit?action=role&limit=1000", "action").len();
    assert_eq!((roles(&stage.admin), roles(&acme)), (3, 0));
    // And it has all that is below.
    for scope in ["organization:acme", P1, S1, "organization:other", "domain:label/organization:theirs"] {
        let key = stage.create("below", json!({ "scope": scope }));
        stage.assert_manages(
            &stage.admin,
            &[
                ("PATCH", &format!("/v2/keys/{}", key.id), json!({ "name": "x" }), 200),
                ("PATCH", &format!("/v2/scopes/{}", scope.replace('/', "%2F")), json!({ "state": "active" }), 200),
                ("DELETE", &format!("/v2/keys/{}", key.id), Value::Null, 200),
            ],
        );
    }
}

/// C19: a private label has a domain of its own, which is above its organizations and beside all others.
#[test]
fn c19_a_labels_domain_covers_its_organizations_and_no_others() {
    let stage = Stage::tree();
    let label = stage.holder("admin", "domain:label");
    stage.assert_opens(
        &label,
        &["/v0/domains/label/settings", "/v0/organizations/theirs/members", "/v0/projects/p4/media"],
        &["/v0/domains/rival/settings", "/v0/organizations/rivals/members", "/v0/organizations/acme/members"],
    );
    let within = stage.create("within", json!({ "scope": "domain:label/organization:theirs" }));
    stage.assert_opens(
        &within,
        &["/v0/organizations/theirs/members"],
        &["/v0/domains/label/settings", "/v0/organizations/rivals/members"],
    );
    let user = json!({ "email": "ann@example.com", "scope": "domain:label/organization:theirs" });
    stage.assert_manages(
        &label,
        &[
            ("POST", "/v2/keys", new("domain:label"), 200),
            ("POST", "/v2/keys", new("domain:label/organization:theirs/project:p4"), 200),
            ("POST", "/v2/scopes", made("domain:label/organization:more"), 200),
            ("POST", "/v2/users", user, 200),
            ("PATCH", "/v2/scopes/domain:label", json!({ "state": "active" }), 200),
            ("POST", "/v2/keys", new("domain:rival/organization:rivals"), 403),
            ("POST", "/v2/keys", new("organization:theirs"), 403),
            ("POST", "/v2/scopes", made("domain:rival/organization:more"), 403),
            ("GET", "/v2/scopes/domain:rival", Value::Null, 404),
            ("GET", "/v2/audit", Value::Null, 200),
        ],
    );
    let mut seen = stage.listed(&label, "/v2/scopes", "id");
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            "domain:label",
            "domain:label/organization:more",
            "domain:label/organization:theirs",
            "domain:label/organization:theirs/project:p4"
        ]
    );
}

#[test]
fn c21_a_project_covers_its_settings_and_all_its_scenes() {
    let stage = Stage::tree();
    let (project, scene) = (stage.holder("admin", P1), stage.create("scene's", json!({ "scope": S1 })));
    let (above, beside) = (
        stage.create("a", json!({ "scope": "organization:acme" })),
        stage.create("b", json!({ "scope": "organization:acme/project:p3" })),
    );
    stage.assert_opens(
        &project,
        &[
            "/v0/projects/p1/settings",
            "/v0/projects/p1/objectives",
            "/v0/projects/p1/exitpolls",
            "/v0/projects/p1/media",
            "/v0/organizations/acme/projects/p1/objectives",
            "/v0/scenes/s1/sessions/7",
            "/v0/scenes/s2/dynamics",
        ],
        &[
            "/v0/organizations/acme/members",
            "/v0/organizations/acme/audit",
            "/v0/organizations/acme/projects/p3/objectives",
            "/v0/organizations/other/projects/p1/objectives",
            "/v0/projects/p3/media",
            "/v0/projects/p2/media",
            "/v0/scenes/s3/sessions/7",
        ],
    );
    let key = |key: &Key| format!("/v2/keys/{}", key.id);
    stage.assert_manages(
        &project,
        &[
            ("GET", "/v2/scopes/organization:acme%2Fproject:p1", Value::Null, 200),
            ("PATCH", "/v2/scopes/organization:acme%2Fproject:p1%2Fscene:s2", json!({ "state": "suspended" }), 200),
            ("PATCH", "/v2/scopes/organization:acme%2Fproject:p1%2Fscene:s2", json!({ "state": "active" }), 200),
            ("POST", "/v2/scopes", made("organization:acme/project:p1/scene:s9"), 200),
            ("POST", "/v2/scopes", made("organization:acme/project:p9"), 403),
            ("POST", "/v2/scopes", made("organization:acme/project:p3/scene:s9"), 403),
            ("GET", "/v2/scopes/organization:acme", Value::Null, 404),
            ("PATCH", "/v2/scopes/organization:acme%2Fproject:p3", json!({ "state": "suspended" }), 404),
            ("POST", "/v2/keys", new(P1), 200),
            ("POST", "/v2/keys", new(S1), 200),
            ("POST", "/v2/keys", new("organization:acme"), 403),
            ("POST", "/v2/keys", new("organization:acme/project:p3"), 403),
            ("PATCH", &key(&scene), json!({ "name": "x" }), 200),
            ("PATCH", &key(&above), json!({ "name": "x" }), 404),
            ("PATCH", &key(&beside), json!({ "name": "x" }), 404),
            ("GET", &format!("{}/usage", key(&scene)), Value::Null, 200),
            ("GET", &format!("{}/usage", key(&beside)), Value::Null, 404),
        ],
    );
    let scopes = stage.listed(&project, "/v2/scopes", "id");
    assert!(scopes.iter().all(|scope| scope.starts_with(P1)) && scopes.len() == 4, "{scopes:?}");
    let keys = stage.listed(&project, "/v2/keys", "scope");
    assert!(keys.iter().all(|scope| scope.starts_with(P1)) && keys.len() == 4, "{keys:?}");
}

#[test]
fn c22_a_scene_covers_what_is_in_it_and_nothing_else() {
    let stage = Stage::tree();
    let scene = stage.holder("admin", S1);
    stage.assert_opens(
        &scene,
        &[
            "/v0/scenes/s1/contents",
            "/v0/scenes/s1/dynamics",
            "/v0/scenes/s1/sessions/7",
            "/v0/scenes/s1/aggregate",
            "/v0/scenes/s1/media",
        ],
        &[
            "/v0/scenes/s2/sessions/7",
            "/v0/scenes/s3/sessions/7",
            "/v0/projects/p1/media",
            "/v0/organizations/acme/projects/p1/objectives",
            "/v0/organizations/acme/members",
        ],
    );
    let (beside, above) = (
        stage.create("b", json!({ "scope": "organization:acme/project:p1/scene:s2" })),
        stage.create("a", json!({ "scope": P1 })),
    );
    stage.assert_manages(
        &scene,
        &[
            ("GET", "/v2/scopes/organization:acme%2Fproject:p1%2Fscene:s1", Value::Null, 200),
            ("GET", "/v2/scopes/organization:acme%2Fproject:p1", Value::Null, 404),
            ("POST", "/v2/scopes", made("organization:acme/project:p1/scene:s9"), 403),
            ("POST", "/v2/keys", new(S1), 200),
            ("POST", "/v2/keys", new(P1), 403),
            ("POST", "/v2/keys", new("organization:acme/project:p1/scene:s2"), 403),
            ("GET", &format!("/v2/keys/{}", beside.id), Value::Null, 404),
            ("DELETE", &format!("/v2/keys/{}", above.id), Value::Null, 404),
            ("GET", "/v2/users", Value::Null, 403),
            ("GET", "/v2/audit", Value::Null, 403),
        ],
    );
    assert_eq!(stage.listed(&scene, "/v2/scopes", "id"), [S1]);
    assert_eq!(stage.listed(&scene, "/v2/keys", "scope"), [S1, S1]);
}
