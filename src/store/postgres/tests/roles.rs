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
    let owner = database.url(&format!("{name}_owner"), "");
    assert!(blocking(async || store(&owner, 1).prepare().await).unwrap());
    // After an upgrade it is run again.
    database.run(&file);
    let other = store(&owner, 1);
    Place { database, other }
}

fn user(place: &Place, role: &str) -> PostgresStore {
    store(&place.database.url(&format!("{}_{role}", place.database.name), ""), 1)
}

fn as_role(place: &Place, role: &str, sql: &str) -> String {
    let output = psql(place, role, sql);
    assert!(output.status.success(), "{role}: {sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn psql(place: &Place, role: &str, sql: &str) -> std::process::Output {
    place.database.psql(&format!("{}_{role}", place.database.name)).args(["-c", sql]).output().unwrap()
}

fn refused(place: &Place, role: &str, sql: &str) {
    let said = String::from_utf8_lossy(&psql(place, role, sql).stderr).into_owned();
    let is_refused = ["permission denied", "must be owner", "row-level security", "not by hand"]
        .iter()
        .any(|why| said.contains(why));
    assert!(is_refused, "{role}: {sql}: {said}");
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
        ("reader", "delete from keyward.usage"),
        ("reader", "insert into keyward.record values ('key', 'k9', 9, '{}')"),
        ("reader", "insert into keyward.audit values (9, '', '{}', '', '')"),
        ("reader", "insert into keyward.private values ('password', 'u1', 9, '{}')"),
        ("reader", "alter table keyward.node disable row level security"),
        ("reader", "drop policy reader on keyward.node"),
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

/// A sidecar says how often keys were used, and of nodes what it is itself.
#[tokio::test]
async fn a_sidecar_writes_its_own_node_and_usage_and_nothing_else() {
    if server::is_lacking() {
        return;
    }
    let place = with_roles();
    place.database.sql(&format!("create role {}_second login in role keyward_reader", place.database.name));
    let node = |id: &str, rev: u64| {
        format!(
            "insert into keyward.node (id, rev, version, max_staleness, seen_at) values ('{id}', {rev}, '1', 1, now())
             on conflict (id) do update set rev = excluded.rev"
        )
    };
    as_role(&place, "reader", &node("a", 1));
    as_role(&place, "second", &node("b", 1));
    as_role(&place, "reader", &node("a", 2));
    // What belongs to another is neither seen nor changed, and nobody says that it is another's.
    assert_eq!(as_role(&place, "reader", "select string_agg(id || rev, ' ') from keyward.node"), "a2");
    refused(&place, "second", &node("a", 3));
    as_role(&place, "second", "update keyward.node set rev = 9 where id = 'a'");
    as_role(&place, "second", "delete from keyward.node where id = 'a'");
    refused(&place, "second", "update keyward.node set owner = 'somebody'");
    assert_eq!(as_role(&place, "writer", "select string_agg(id || rev, ' ' order by id) from keyward.node"), "a2 b1");
    let used = "insert into keyward.usage values ('k1', '0', 1, 1, 'a', null)
         on conflict (key_id, secret_id) do update set count = usage.count + excluded.count";
    as_role(&place, "reader", used);
    as_role(&place, "second", used);
    assert_eq!(as_role(&place, "writer", "select count from keyward.usage"), "2");
    assert_eq!(place.database.sql("select rev from keyward.meta"), "0");
}
