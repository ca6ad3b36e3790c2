//! Who may do what: the roles of `deploy/postgres/roles.sql`, standbys, and databases that may only be read.

use std::path::Path;

use super::*;

/// A place whose tables belong to an owner, and users with one role each.
fn with_roles() -> Place {
    let database = Database::new();
    let name = &database.name;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/postgres/roles.sql");
    database.run(&file);
    for role in ["owner", "writer", "reader"] {
        database.sql(&format!("create role {name}_{role} login in role keyward_{role}"));
    }
    let owner = store(&database.url(&format!("{name}_owner"), ""), 1);
    assert!(blocking(owner.prepare()).unwrap());
    // After an upgrade it is run again.
    database.run(&file);
    let other = store(&database.url(&format!("{name}_owner"), ""), 1);
    Place { database, other }
}

fn user(place: &Place, role: &str) -> PostgresStore {
    store(&place.database.url(&format!("{}_{role}", place.database.name), ""), 1)
}

fn refused(place: &Place, role: &str, sql: &str) {
    let user = format!("{}_{role}", place.database.name);
    let output = place.database.psql(&user).args(["-c", sql]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("permission denied"), "{role}: {sql}: {said}");
}

#[tokio::test]
async fn each_role_may_do_what_it_is_for_and_no_more() {
    if server::is_lacking() {
        return;
    }
    let place = with_roles();
    let (writer, reader) = (user(&place, "writer"), user(&place, "reader"));
    let first = writer.commit(commit_of(&[key("k1", "CI"), secret(1, "k1")])).await.unwrap();
    writer.commit(commit_of(&[(RecordId::key("k1"), None)])).await.unwrap();
    // A sidecar reads everything, changes, and single records, and hears of commits.
    assert_eq!(records(pull(&reader, Some(first), false).await.unwrap()).await.unwrap().len(), 1);
    assert_eq!(everything(&reader).await.len(), 1);
    assert!(reader.get(&RecordId::key("k1")).await.unwrap().1.is_none());
    let since = reader.pull(None).await.unwrap().revision;
    soon(reader.changed(Some(since))).await;
    // It is not told what only those who manage may read: not in pulls, and not when it asks.
    let hidden = RecordId::new(Kind::Password, "u1");
    writer.commit(commit_of(&[(hidden.clone(), Some("{}".into()))])).await.unwrap();
    assert!(records(pull(&reader, Some(since), false).await.unwrap()).await.unwrap().is_empty());
    let error = reader.get(&hidden).await.unwrap_err().to_string();
    assert!(error.contains("keyward_reader"), "{error}");
    assert!(writer.get(&hidden).await.unwrap().1.is_some());
    // But it changes nothing, and says why.
    let error = reader.commit(commit_of(&[key("k2", "CI")])).await.unwrap_err();
    assert!(matches!(&error, CommitError::ReadOnly(why) if why.contains("keyward_writer")), "{error}");
    assert!(!reader.prepare().await.unwrap());
    for (role, sql) in [
        ("reader", "select entry from keyward.audit"),
        ("reader", "select kind from keyward.private"),
        ("reader", "update keyward.meta set rev = 0"),
        ("reader", "delete from keyward.record"),
        ("reader", "create table keyward.mine ()"),
        ("writer", "delete from keyward.record"),
        ("writer", "delete from keyward.private"),
        ("writer", "delete from keyward.audit"),
        ("writer", "update keyward.audit set at = ''"),
        ("writer", "update keyward.meta set floor = 9"),
        ("writer", "truncate keyward.record"),
    ] {
        refused(&place, role, sql);
    }
    assert_eq!(place.database.sql("select rev from keyward.meta"), "3");
}

#[tokio::test]
async fn who_may_not_make_the_tables_says_so() {
    if server::is_lacking() {
        return;
    }
    let database = Database::new();
    database.sql(&format!("create role {}_nobody login", database.name));
    let store = store(&database.url(&format!("{}_nobody", database.name), ""), 1);
    let error = store.prepare().await.unwrap_err().to_string();
    assert!(error.contains("roles.sql"), "{error}");
    let place = Place::on(database);
    let error = store.pull(None).await.unwrap_err().to_string();
    assert!(error.contains("keyward_reader"), "{error}");
    drop(place);
}

#[tokio::test]
async fn what_may_only_be_read_is_read_and_refuses_commits() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    place.other.commit(commit_of(&[key("k1", "CI")])).await.unwrap();
    place.database.sql(&format!("alter database {} set default_transaction_read_only = on", place.database.name));
    let store = place.open();
    assert_eq!(everything(&store).await.len(), 1);
    let error = store.commit(commit_of(&[key("k2", "CI")])).await.unwrap_err();
    assert!(matches!(&error, CommitError::ReadOnly(why) if why.contains("standby")), "{error}");
    assert_eq!(place.database.sql("select rev from keyward.meta"), "1");
}
