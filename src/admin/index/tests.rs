//! What the index knows after each change of the store.

use super::*;
use crate::manage::testing::{locksmith, noon};
use crate::store::record::to_json;
use crate::store::sqlite::SqliteStore;
use crate::store::{Change, Commit, Expect};

fn binding(id: &str, subject: &str, role: &str) -> Change {
    let subject = Subject::parse(subject).unwrap();
    let body = BindingBody { subject, role: role.into(), scope: None, created_by: None, created_time: noon() };
    Change { id: RecordId::new(Kind::Binding, id), expect: Expect::Any, body: Some(to_json(&body)) }
}

fn gone(id: &str) -> Change {
    Change { id: RecordId::new(Kind::Binding, id), expect: Expect::Any, body: None }
}

/// Whoever has lost a role has lost it, also where a binding has come to somebody else, and whether the index hears of what
/// changed or of everything.
#[tokio::test]
async fn roles_are_those_that_the_bindings_give_now() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open_or_create(&folder.path().join("k.db"), locksmith().pepper.check()).unwrap();
    let replica = Replica::new(Duration::from_secs(60)).0;
    let following = Index::new(replica.clone());
    for (changes, expected) in [
        (vec![binding("b1", "user:ann", "admin"), binding("b2", "key:ann", "member")], ["admin", "member", ""]),
        (vec![binding("b3", "user:ann", "observer")], ["admin observer", "member", ""]),
        (vec![binding("b1", "user:bob", "admin")], ["observer", "member", "admin"]),
        (vec![gone("b3"), gone("b2"), gone("nothing")], ["", "", "admin"]),
        (vec![binding("b0", "user:bob", "member"), binding("b2", "key:ann", "owner")], ["", "owner", "member admin"]),
        (vec![Change { body: Some("{}".into()), ..gone("b1") }], ["", "owner", "member"]),
    ] {
        let detail = serde_json::Value::Null;
        store.commit(Commit { actor: "tests".to_owned(), action: "test", detail, changes }).await.unwrap();
        let anew = Index::new(replica.clone());
        for index in [&following, &anew] {
            index.pull(&store).await.unwrap();
            let roles = |subject: &str| {
                let bindings = index.bindings(&Subject::parse(subject).unwrap());
                bindings.into_iter().map(|binding| binding.role).collect::<Vec<_>>().join(" ")
            };
            assert_eq!(["user:ann", "key:ann", "user:bob"].map(roles), expected);
        }
    }
}
