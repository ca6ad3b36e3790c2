//! Who changed what, how often keys are used, and deletions that hold everywhere.

use serde_json::{Value, json};

use super::{Key, Stage, add_lines, refusal};
use crate::support::{Site, until};

/// A page of the audit as somebody sees it: what was done to which key.
#[track_caller]
fn audit(stage: &Stage, who: &Key, query: &str) -> (Vec<(String, String)>, Value) {
    let response = stage.keyward.manage(who, "GET", &format!("/v2/audit?{query}"), "");
    assert_eq!(response.status, 200, "{}", response.text());
    let mut body = response.json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entries = body["result"].as_array().unwrap().iter();
    let told = entries.map(|entry| (text(&entry["action"]), text(&entry["detail"]["target"]["id"]))).collect();
    (told, body["links"].take())
}

/// C20, C24: the audit of an organization is for its admins, and of no other; those who only observe read none, and neither do
/// those of a project.
#[test]
fn c20_c24_the_audit_of_an_organization_is_seen_by_its_admins_only() {
    let stage = Stage::new();
    let make = |options: &[&str]| stage.keyward.site.create_key(options);
    let acme = make(&["--role", "admin", "--scope", "organization:acme"]);
    let project = make(&["--role", "admin", "--scope", "organization:acme/project:p1"]);
    let other = make(&["--role", "admin", "--scope", "organization:other"]);
    let observer = make(&["--role", "observer", "--scope", "organization:acme"]);
    let bare = make(&[]);
    until("the last of them is known", || stage.keyward.manage(&observer, "GET", "/v2/keys", "").status == 200);
    let in_acme = stage.create("in acme", json!({ "scope": "organization:acme" }));
    let in_project = stage.create("in the project", json!({ "scope": "organization:acme/project:p1" }));
    let in_other = stage.create("in other", json!({ "scope": "organization:other" }));
    let nowhere = stage.create("everywhere", json!({}));
    let sees = |who: &Key, key: &Key| {
        let seen = audit(&stage, who, &format!("limit=1000&target={}", key.id)).0;
        assert!(seen.iter().all(|(_, target)| *target == key.id));
        !seen.is_empty()
    };
    for (who, expected) in [
        (&stage.admin, [true, true, true, true]),
        (&stage.read_only, [true, true, true, true]),
        (&acme, [true, true, false, false]),
        (&other, [false, false, true, false]),
    ] {
        assert_eq!([&in_acme, &in_project, &in_other, &nowhere].map(|key| sees(who, key)), expected);
    }
    // What moves from one organization to another is for those who may see both.
    stage.result("PATCH", &format!("/v2/keys/{}", in_other.id), r#"{"scope":"organization:acme"}"#);
    let ann = stage.result("POST", "/v2/users", r#"{"email":"ann@example.com","scope":"organization:other"}"#);
    let ann = ann["id"].as_str().unwrap();
    stage.result("PATCH", &format!("/v2/users/{ann}"), r#"{"scope":"organization:acme"}"#);
    for (action, id) in [("key.update", in_other.id.as_str()), ("user.update", ann)] {
        let sees = |who: &Key| audit(&stage, who, &format!("action={action}&target={id}")).0.len();
        assert_eq!([&acme, &other, &stage.admin].map(sees), [0, 0, 1], "{action}");
    }
    for who in [&project, &observer, &bare] {
        let refused = stage.keyward.manage(who, "GET", "/v2/audit", "");
        assert_eq!(refusal(&refused), (403, vec!["forbidden".to_owned()]));
    }
}

/// What happened is for whom it concerned when it happened: also when what it happened to is gone, or elsewhere.
#[test]
fn c20_the_audit_of_an_organization_has_all_that_happens_to_its_people_and_keys() {
    let stage = Stage::new();
    let acme = stage.keyward.site.create_key(&["--role", "admin", "--scope", "organization:acme"]);
    until("it is known", || stage.keyward.manage(&acme, "GET", "/v2/keys", "").status == 200);
    let actions = |target: &str| -> Vec<String> {
        let seen = audit(&stage, &acme, &format!("limit=1000&target={target}")).0;
        seen.into_iter().map(|(action, _)| action).collect()
    };
    let ann = stage.result("POST", "/v2/users", r#"{"email":"ann@example.com","scope":"organization:acme"}"#);
    let ann = ann["id"].as_str().unwrap();
    stage.result("PATCH", &format!("/v2/users/{ann}"), r#"{"name":"Ann"}"#);
    assert!(stage.keyward.site.run(&["user", "link", "ann@example.com"]).status.success());
    stage.result("DELETE", &format!("/v2/users/{ann}"), "");
    assert_eq!(actions(ann), ["user.delete", "user.link", "user.update", "user.create"]);
    let parent = stage.create("parent", json!({ "scope": "organization:acme" }));
    stage.create("child", json!({ "scope": "organization:acme", "parent": parent.id }));
    stage.result("DELETE", &format!("/v2/keys/{}?cascade=true", parent.id), "");
    assert_eq!(actions(&parent.id), ["key.delete", "key.create"]);
    let moved = stage.create("moved", json!({ "scope": "organization:other" }));
    stage.result("PATCH", &format!("/v2/keys/{}", moved.id), r#"{"scope":"organization:acme"}"#);
    stage.result("PATCH", &format!("/v2/keys/{}", moved.id), r#"{"name":"here"}"#);
    assert_eq!(actions(&moved.id), ["key.update"], "what it was elsewhere is not ours");
}

#[test]
fn the_audit_pages_and_filters_like_every_list() {
    let stage = Stage::new();
    let keys: Vec<Key> = (0..5).map(|n| stage.create(&format!("key {n}"), json!({}))).collect();
    let (first, links) = audit(&stage, &stage.admin, "limit=2&action=key");
    assert_eq!(first.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>(), [&keys[4].id, &keys[3].id]);
    let next = links["next"].as_str().unwrap();
    assert!(next.starts_with("http://") && next.contains("action=key") && next.contains("limit=2"), "{next}");
    let query = next.split_once('?').unwrap().1;
    let (second, _) = audit(&stage, &stage.admin, query);
    assert_eq!(second.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>(), [&keys[2].id, &keys[1].id]);
    let (all, links) = audit(&stage, &stage.admin, "limit=1000");
    assert_eq!((all.last().unwrap().0.as_str(), &links), ("store.create", &json!({})));
    for query in ["limit=0", "since=yesterday", "cursor=x", "page=2", "action=a&action=b"] {
        assert_eq!(stage.ask("GET", &format!("/v2/audit?{query}"), "").status, 400, "{query}");
    }
    let text = stage.ask("GET", "/v2/audit?limit=1000", "").text();
    assert!(keys.iter().all(|key| !text.contains(&key.value[8..])), "no value is in it");
}

#[test]
fn usage_is_told_by_key_and_by_value() {
    let stage = Stage::new();
    let key = stage.create("used", json!({ "scope": "organization:acme" }));
    for _ in 0..3 {
        assert_eq!(stage.opens(&key), 200);
    }
    let path = format!("/v2/keys/{}/usage", key.id);
    until("it is written down", || stage.result("GET", &path, "")["count"] == 3);
    let usage = stage.result("GET", &path, "");
    assert_eq!((&usage["secrets"][0]["count"], &usage["secrets"][0]["client"]), (&json!(3), &json!("127.0.0.1")));
    let path = format!("/v2/keys/{}/secrets", key.id);
    let told = stage.result("GET", &path, "");
    assert_eq!((&told[0]["client"], &told[0]["still_used"]), (&json!("127.0.0.1"), &json!(false)), "{told}");
    assert!(told[0]["last_used"].is_string());
    let listed = stage.result("GET", "/v2/usage", "");
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["key"]), (1, &json!(key.id)), "{listed}");
    assert_eq!(stage.ask("GET", "/v2/keys/nobody/usage", "").status, 404);
}

#[test]
fn a_deletion_says_when_it_holds_everywhere() {
    let stage = Stage::new();
    let key = stage.create("to be deleted", json!({}));
    let path = format!("/v2/keys/{}", key.id);
    for query in ["wait=some", "wait=all&timeout=soon", "wait=all&timeout=1h"] {
        assert_eq!(stage.ask("DELETE", &format!("{path}?{query}"), "").status, 400, "{query}");
    }
    assert_eq!(stage.opens(&key), 200);
    let waited = stage.result("DELETE", &format!("{path}?wait=all&timeout=5s"), "");
    assert_eq!((&waited["applied"], &waited["live"], waited["ms"].is_u64()), (&json!(1), &json!(1), true), "{waited}");
    assert_eq!(stage.opens(&key), 401);
}

/// Two that are called the same are two: the one that has heard of a deletion does not answer for the one that is frozen.
#[test]
fn a_deletion_waits_for_both_of_two_processes_with_one_name() {
    let stage = Stage::with("sync: { node: gateway }");
    let store = format!("store: sqlite:{}/keyward.db", stage.keyward.site.path().display());
    let twin = Site::new(stage.upstream.address(), &format!("{store}\nsync: {{ node: gateway }}")).serve();
    let delete = |key: &Key, timeout: &str| {
        let deleted = stage.ask("DELETE", &format!("/v2/keys/{}?wait=all&timeout={timeout}", key.id), "");
        (deleted.status, deleted.json()["result"].take())
    };
    let (status, waited) = delete(&stage.create("first", json!({})), "5s");
    assert_eq!((status, &waited["applied"], &waited["live"]), (200, &json!(2), &json!(2)), "{waited}");
    twin.signal("STOP");
    let (status, waited) = delete(&stage.create("second", json!({})), "300ms");
    assert_eq!((status, &waited["applied"], &waited["live"]), (202, &json!(1), &json!(2)), "{waited}");
    let frozen = waited["laggards"][0]["id"].as_str().unwrap();
    assert!(frozen.starts_with("gateway-"), "{waited}");
    // Killed, it is still not known to be gone.
    twin.kill();
    let third = stage.create("third", json!({}));
    assert_eq!(delete(&third, "300ms").0, 202);
    stage.keyward.site.run(&["node", "forget", frozen]);
    // It is gone, but whoever wants to know whether everywhere may ask again.
    assert_eq!(stage.ask("DELETE", &format!("/v2/keys/{}", third.id), "").status, 404);
    assert_eq!(delete(&third, "5s").0, 200);
    assert_eq!(delete(&stage.create("fourth", json!({})), "5s").0, 200);
}

/// One that was killed and runs again is the same one: nobody waits for what it was.
#[test]
fn a_process_that_was_killed_and_runs_again_is_not_waited_for_twice() {
    // Whoever is not called anything is called by its port, which is another one each time here.
    let Stage { keyward, admin, upstream: _upstream, .. } = Stage::with("sync: { node: gateway }");
    let keyward = keyward.kill().serve();
    let key = keyward.site.create_key(&[]);
    until("the key is known", || keyward.status_with(&key) == 200);
    let deleted = keyward.manage(&admin, "DELETE", &format!("/v2/keys/{}?wait=all&timeout=5s", key.id), "");
    assert_eq!((deleted.status, &deleted.json()["result"]["live"]), (200, &json!(1)), "{}", deleted.text());
}

/// C20, C24: how often keys of another organization are used, and from where, is for those of that organization.
#[test]
fn c20_c24_usage_is_seen_by_those_who_may_see_the_key() {
    let stage = Stage::new();
    let make = |scope: &str| stage.create("used", json!({ "scope": scope }));
    let (ours, theirs, below) =
        (make("organization:acme"), make("organization:other"), make("organization:acme/project:p1"));
    let nowhere = stage.create("everywhere", json!({}));
    let admin = |scope: &str| stage.keyward.site.create_key(&["--role", "admin", "--scope", scope]);
    let (acme, project) = (admin("organization:acme"), admin("organization:acme/project:p1"));
    let all = [&ours, &theirs, &below, &nowhere];
    until("all are used", || all.iter().all(|key| stage.opens(key) == 200));
    let path = |key: &Key| format!("/v2/keys/{}/usage", key.id);
    until("it is written down", || {
        all.iter().all(|key| stage.result("GET", &path(key), "")["count"].as_u64() > Some(0))
    });
    until("the admins are known", || stage.keyward.manage(&project, "GET", "/v2/usage", "").status == 200);
    let ids = |keys: &[&Key]| {
        let mut ids: Vec<String> = keys.iter().map(|key| key.id.clone()).collect();
        ids.sort_unstable();
        ids
    };
    for (who, seen) in
        [(&stage.admin, &[&ours, &theirs, &below, &nowhere][..]), (&acme, &[&ours, &below]), (&project, &[&below])]
    {
        let mut listed = Vec::new();
        let mut target = "/v2/usage?limit=1".to_owned();
        loop {
            let page = stage.keyward.manage(who, "GET", &target, "").json();
            listed.extend(page["result"].as_array().unwrap().iter().map(|one| one["key"].as_str().unwrap().to_owned()));
            let Some(next) = page["links"]["next"].as_str() else { break };
            target = next.strip_prefix("http://media.example").unwrap().to_owned();
        }
        assert_eq!(listed, ids(seen));
        for key in all {
            let status = if seen.iter().any(|other| other.id == key.id) { 200 } else { 404 };
            for more in ["", "?record=true"] {
                assert_eq!(stage.keyward.manage(who, "GET", &format!("{}{more}", path(key)), "").status, status);
            }
        }
    }
}

/// Where most that was used is not the caller's to see, a request looks at a part of it, and the next one goes on.
#[test]
fn usage_is_found_behind_much_that_is_not_the_callers() {
    let stage = Stage::new();
    let key = stage.create("used", json!({}));
    assert_eq!(stage.opens(&key), 200);
    until("it is written down", || stage.result("GET", "/v2/usage", "").as_array().is_some_and(|all| all.len() == 1));
    let beside = rusqlite::Connection::open(stage.keyward.site.path().join("keyward.db-usage")).unwrap();
    // Before the id of any key that was made here, and after.
    let gone = "with recursive n(n) as (select 1 union all select n + 1 from n where n < 12500)
                insert into usage (key_id, secret_id, last_used, count, node, client)
                select printf('%s-%05d', case when n > 300 then '00' else 'zz' end, n), printf('%032x', n), 1, 1, 'n', null from n";
    beside.execute_batch(gone).unwrap();
    for limit in [1, 1_000] {
        let (mut pages, mut listed) = (0, Vec::new());
        let mut target = format!("/v2/usage?limit={limit}");
        loop {
            let page = stage.ask("GET", &target, "").json();
            pages += 1;
            listed.extend(page["result"].as_array().unwrap().iter().map(|one| one["key"].clone()));
            let Some(next) = page["links"]["next"].as_str() else { break };
            target = next.strip_prefix("http://media.example").unwrap().to_owned();
        }
        assert_eq!((pages, listed), (2, vec![json!(key.id)]), "{limit}");
    }
}

/// A deletion that was made is told as made, and as not known to hold everywhere where nobody can say who is there.
#[test]
fn a_deletion_whose_nodes_cannot_be_read_is_made_and_not_said_to_hold_everywhere() {
    let stage = Stage::new();
    let (key, other) = (stage.create("first", json!({})), stage.create("second", json!({})));
    let beside = || rusqlite::Connection::open(stage.keyward.site.path().join("keyward.db-usage")).unwrap();
    // In one step: a process that comes in between would make the table anew.
    let aside =
        "begin immediate; alter table node rename to elsewhere; create view node as select id from elsewhere; commit";
    beside().execute_batch(aside).unwrap();
    let deleted = stage.ask("DELETE", &format!("/v2/keys/{}?wait=all&timeout=1s", key.id), "");
    assert_eq!((deleted.status, &deleted.json()["result"]), (202, &json!({})), "{}", deleted.text());
    assert_eq!((deleted.value("keyward-revision").is_some(), stage.opens(&key)), (true, 401));
    // Who does not ask for that hears nothing of it.
    assert_eq!(stage.ask("DELETE", &format!("/v2/keys/{}", other.id), "").status, 200);
    beside().execute_batch("begin immediate; drop view node; alter table elsewhere rename to node; commit").unwrap();
    let again = stage.ask("DELETE", &format!("/v2/keys/{}?wait=all&timeout=20s", key.id), "");
    assert_eq!((again.status, &again.json()["result"]["applied"]), (200, &json!(1)), "{}", again.text());
}

/// Nobody has the whole history searched by one request: it goes on where the last one ended, also where that found nothing.
#[test]
fn the_audit_is_searched_ten_thousand_lines_at_a_time() {
    let theirs = json!({ "action": "key.update", "actor": "x", "detail": { "scopes": ["organization:other"] } });
    let (stage, (acme, ours)) = Stage::prepared("", |site| {
        let acme = site.create_key(&["--role", "admin", "--scope", "organization:acme"]);
        let ours = site.create_key(&["--scope", "organization:acme"]);
        add_lines(site, 20_500, &theirs);
        (acme, ours)
    });
    let (mut target, mut pages) = ("limit=1000".to_owned(), Vec::new());
    let found = loop {
        let (seen, links) = audit(&stage, &acme, &target);
        pages.push(seen.len());
        let Some(next) = links["next"].as_str() else { break seen };
        assert!(pages.len() < 10, "it has an end");
        target = next.split_once('?').unwrap().1.to_owned();
    };
    assert_eq!((pages.len(), &pages[..2]), (3, &[0, 0][..]), "{pages:?}");
    assert!(found.contains(&("key.create".to_owned(), ours.id)), "{found:?}");
    // Whoever sees all of it has full pages.
    assert_eq!(audit(&stage, &stage.admin, "limit=1000").0.len(), 1000);
}
