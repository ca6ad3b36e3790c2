//! Who goes along, who stays, and that it is one commit or none.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::auth::grant::Access;
use crate::auth::scope::Scope;
use crate::manage::key::NewKey;
use crate::manage::testing::{MemoryStore, locksmith, noon};
use crate::manage::user::{NewUser, Password};

type Place = Session<MemoryStore>;

fn place() -> Place {
    Session { store: MemoryStore::default(), locksmith: Arc::new(locksmith()), actor: "tests".to_owned(), now: noon() }
}

async fn user(place: &Place, name: &str) -> Box<str> {
    let email = format!("{name}@example.com").parse().unwrap();
    let password = Some(Password::typed("correct horse battery"));
    let new = NewUser { email, name: None, scope: None, password, api_access: true, role: Some("observer".into()) };
    place.create_user(new).await.unwrap().user.id
}

async fn key(place: &Place, id: &str, parent: Option<&str>, owner: Option<&str>, scope: &str) {
    let new = NewKey {
        id: Some(id.parse().unwrap()),
        parent: parent.map(Box::from),
        owner: owner.map(Box::from),
        scope: Scope::parse(scope).ok(),
        recoverable: true,
        ..NewKey::named(id.parse().unwrap(), Access::ReadWrite)
    };
    place.create_key(new).await.unwrap();
}

async fn revoke(place: &Place, id: &str) {
    place.set_key_state(id, State::Revoked, None, None).await.map(drop).unwrap();
}

/// The ids of records of a kind that live.
fn living(place: &Place, kind: Kind) -> BTreeSet<String> {
    let records = place.store.records().into_iter().filter(|record| record.id.kind == kind && record.body.is_some());
    records.map(|record| record.id.id.to_string()).collect()
}

/// The ids of keys that work.
async fn working(place: &Place) -> BTreeSet<String> {
    let mut working = BTreeSet::new();
    for id in living(place, Kind::Key) {
        if place.key(&id).await.unwrap().body.state == State::Active {
            working.insert(id);
        }
    }
    working
}

fn set<'a>(ids: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    ids.into_iter().map(str::to_owned).collect()
}

/// A user with a tree of keys below the own one, some of them of others, one of them revoked, and keys that have nothing to do
/// with it.
async fn family(place: &Place) -> (Box<str>, Box<str>) {
    let (ann, bob) = (user(place, "ann").await, user(place, "bob").await);
    key(place, "child", Some(&ann), None, "").await;
    key(place, "grandchild", Some("child"), Some(&bob), "").await;
    key(place, "dead", Some(&ann), None, "").await;
    key(place, "below-dead", Some("dead"), None, "").await;
    revoke(place, "dead").await;
    key(place, "second", None, Some(&ann), "organization:acme").await;
    key(place, "stranger", None, None, "").await;
    key(place, "strangers-child", Some("stranger"), None, "").await;
    (ann, bob)
}

#[tokio::test]
async fn who_goes_takes_along_all_that_stands_below_and_nobody_else() {
    let place = place();
    let (ann, bob) = family(&place).await;
    let (before, dead) = (place.store.commits().len(), place.key("dead").await.unwrap());
    let gone: BTreeSet<String> = place.delete_user(&ann, None).await.unwrap().into_iter().map(String::from).collect();
    assert_eq!(gone, set([&*ann, "child", "grandchild", "below-dead", "second"]), "also below what is gone already");
    assert_eq!(working(&place).await, set([&*bob, "stranger", "strangers-child"]));
    assert!(place.key("dead").await.unwrap() == dead, "what is revoked stays as it was");
    assert_eq!(
        living(&place, Kind::Sealed),
        set([&*bob, "stranger", "strangers-child"]),
        "nothing is kept to be looked up"
    );
    assert_eq!((living(&place, Kind::User), living(&place, Kind::Password)), (set([&*bob]), set([&*bob])));
    assert_eq!(living(&place, Kind::Binding).len(), 1);
    // All in one commit, by one who is named.
    let commits = place.store.commits();
    assert_eq!(commits.len(), before + 1);
    let entry = &commits[before];
    assert_eq!((entry.action, entry.actor.as_str()), ("user.delete", "tests"));
    assert_eq!(entry.detail["keys"].as_array().map(Vec::len), Some(5));
    assert!(!entry.changes.iter().any(|change| change.id.kind == Kind::Key && change.expect == Expect::Any));
    // The address is free.
    user(&place, "ann").await;
}

#[tokio::test]
async fn keys_below_are_asked_for_and_the_entry_concerns_where_each_of_them_acts() {
    let place = place();
    key(&place, "top", None, None, "organization:acme").await;
    key(&place, "middle", Some("top"), None, "organization:acme/project:p").await;
    key(&place, "bottom", Some("middle"), None, "organization:acme/project:p/scene:s").await;
    let before = place.store.commits().len();
    assert!(matches!(place.delete_key("top", (false, None), None).await, Err(Failure::HasKeysBelow(_, 2))));
    let seen = place.key("top").await.unwrap().revision;
    assert!(matches!(place.delete_key("top", (true, None), Some(seen + 1)).await, Err(Failure::Outrun(_))));
    // Somebody makes one below at the same moment: nothing of it is done.
    place.store.fail_commits(1);
    assert!(matches!(place.delete_key("top", (true, None), Some(seen)).await, Err(Failure::Outrun(_))));
    assert_eq!((place.store.commits().len(), working(&place).await.len()), (before, 3));
    let gone = place.delete_key("top", (true, Some("leaked")), Some(seen)).await.unwrap();
    assert_eq!(gone.iter().map(|id| &**id).collect::<Vec<_>>(), ["bottom", "middle", "top"]);
    let entry = place.store.commits().pop().unwrap();
    let scopes = json!(["organization:acme", "organization:acme/project:p", "organization:acme/project:p/scene:s"]);
    assert_eq!((&entry.detail["scopes"], &entry.detail["reason"]), (&scopes, &json!("leaked")));
    assert_eq!(entry.detail["target"], json!({ "kind": "key", "id": "top" }));
    assert!(matches!(place.delete_key("top", (true, None), None).await, Err(Failure::NotFound(_))), "once");
    assert_eq!(working(&place).await, set([]));
}

#[tokio::test]
async fn what_stands_below_itself_is_deleted_and_that_has_an_end() {
    let place = place();
    for (id, parent) in [("one", "two"), ("two", "one")] {
        let body = KeyBody { parent: Some(parent.into()), ..crate::manage::testing::key_body(id) };
        let changes = vec![Change { id: RecordId::key(id), expect: Expect::Absent, body: Some(to_json(&body)) }];
        place.store.commit(place.entry("test", [&None], json!({}), changes)).await.unwrap();
    }
    assert_eq!(place.delete_key("one", (true, None), None).await.unwrap().len(), 2);
}
