//! Lists of keys, cut down to what is looked for.

use serde_json::{Value, json};

use super::Stage;
use crate::support::{Key, until};

/// The names on all pages from one on.
#[track_caller]
fn names(stage: &Stage, key: &Key, target: &str) -> Vec<String> {
    let (mut names, mut next) = (Vec::new(), Some(target.to_owned()));
    while let Some(target) = next {
        let answer = stage.keyward.manage(key, "GET", &target, "");
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        let answer = answer.json();
        names.extend(answer["result"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap().to_owned()));
        let following = answer["links"]["next"].as_str();
        next = following.map(|url| format!("/v2/keys?{}", url.split_once('?').unwrap().1));
    }
    names
}

#[test]
fn keys_are_found_by_a_part_of_their_names_and_by_where_they_act() {
    let stage = Stage::new();
    let scoped = |name: &str, scope: &str| stage.create(name, json!({ "scope": scope }));
    let (acme, other) = ("organization:acme", "organization:acme2");
    let boss = stage.create("boss", json!({ "scope": acme, "role": "admin" }));
    for (name, scope) in [
        ("Radio One", acme),
        ("radio two", "organization:acme/project:p1"),
        ("RADIO 3", other),
        ("Säge", acme),
        ("video", "organization:acme/project:p1/scene:s"),
    ] {
        scoped(name, scope);
    }
    let gone = scoped("radio gone", acme);
    stage.result("DELETE", &format!("/v2/keys/{}", gone.id), "");
    for (query, expected) in [
        ("name=radio", &["Radio One", "radio two", "RADIO 3"][..]),
        ("name=RADIO&limit=1", &["Radio One", "radio two", "RADIO 3"]),
        ("name=radio&state=all", &["Radio One", "radio two", "RADIO 3", "radio gone"]),
        ("name=radio&state=revoked", &["radio gone"]),
        ("name=o%20t", &["radio two"]),
        ("name=S%C3%A4", &["Säge"]),
        ("name=nobody", &[]),
        ("name=radio%20one%20and%20more", &[]),
        ("scope=organization:acme", &["boss", "Radio One", "radio two", "Säge", "video"]),
        ("scope=organization:acme/project:p1&limit=1", &["radio two", "video"]),
        ("scope=organization:acme&name=radio", &["Radio One", "radio two"]),
        ("scope=organization:none", &[]),
        ("name=", &["admin", "looks", "boss", "Radio One", "radio two", "RADIO 3", "Säge", "video"]),
    ] {
        assert_eq!(names(&stage, &stage.admin, &format!("/v2/keys?{query}")), expected, "{query}");
    }
    // Whoever looks for more than they may see finds what they may see.
    for (query, expected) in
        [("name=radio", &["Radio One", "radio two"][..]), ("scope=organization:acme2", &[]), ("name=looks", &[])]
    {
        assert_eq!(names(&stage, &boss, &format!("/v2/keys?{query}")), expected, "{query}");
    }
    let refused = stage.ask("GET", "/v2/keys?scope=acme", "");
    assert_eq!((refused.status, &refused.json()["errors"][0]["field"]), (400, &json!("scope")), "{}", refused.text());
}

/// Many, of which few are wanted: what is at the end is found as what is at the beginning, and each page goes on where the one
/// before ended, whatever comes and goes between.
#[test]
fn few_of_many_are_found_page_by_page_while_keys_come_and_go() {
    let stage = Stage::with("keys: { shapes: [{ name: cablecast, length: 20, alphabet: hex }] }");
    let rows: Vec<String> = (0..9_000)
        .map(|n| {
            let name = if n % 1_500 == 1_499 { "rare" } else { "common" };
            format!("i{n:04},{name} {n},{n:020x},rw,,")
        })
        .collect();
    stage.keyward.site.import_keys(&rows.iter().map(String::as_str).collect::<Vec<_>>());
    until("the import is seen", || names(&stage, &stage.admin, "/v2/keys?name=common%208998").len() == 1);
    let all = ["rare 1499", "rare 2999", "rare 4499", "rare 5999", "rare 7499", "rare 8999"];
    assert_eq!(names(&stage, &stage.admin, "/v2/keys?name=rare"), all);
    let page = stage.ask("GET", "/v2/keys?name=rare&limit=2", "").json();
    let ids: Vec<&Value> = page["result"].as_array().unwrap().iter().map(|key| &key["id"]).collect();
    assert_eq!(ids, ["i1499", "i2999"]);
    stage.create("rare too", json!({ "id": "i0000a" }));
    stage.create("rare as well", json!({ "id": "i3000a" }));
    stage.result("DELETE", "/v2/keys/i2999", "");
    stage.result("DELETE", "/v2/keys/i5999", "");
    let next = page["links"]["next"].as_str().unwrap().split_once("/v2").unwrap().1;
    let rest = ["rare as well", "rare 4499", "rare 7499", "rare 8999"];
    assert_eq!(names(&stage, &stage.admin, &format!("/v2{next}")), rest);
}
