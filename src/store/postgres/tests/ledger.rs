//! What is kept beside the records, and the tables of older versions.

use std::cell::RefCell;
use std::path::Path;

use super::*;
use crate::store::ledger::audit::Order;
use crate::store::ledger::testing::{
    assert_is_read, assert_leftovers_go, assert_many_records_are_compared, assert_nodes_are_known,
    assert_touched_lines_are_found, assert_touched_records_are_found, assert_usage_adds_up, entries,
};
use crate::store::ledger::verify::verify;

#[tokio::test]
async fn the_audit_is_read_from_both_ends() {
    if !server::is_lacking() {
        assert_is_read(&Place::new().open()).await;
    }
}

#[tokio::test]
async fn a_line_that_was_touched_behind_our_back_is_found() {
    if server::is_lacking() {
        return;
    }
    let place = RefCell::new(None);
    let new = || {
        let new = Place::new();
        let store = new.open();
        place.replace(Some(new));
        store
    };
    let edit = |sql: &str| drop(place.borrow().as_ref().unwrap().database.sql(sql));
    assert_touched_lines_are_found(new, edit, tables).await;
    assert_touched_records_are_found(new, edit, tables).await;
}

/// As somebody writes it to whom the tables belong, and whom no trigger holds up.
fn tables(sql: &str) -> String {
    let named = ["audit", "meta", "record", "private"]
        .iter()
        .fold(sql.to_owned(), |sql, table| sql.replace(&format!("{{{table}}}"), &format!("keyward.{table}")));
    format!("update keyward.meta set rev = rev; {named}")
}

#[tokio::test]
async fn records_are_compared_however_many_there_are() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    assert_many_records_are_compared(&place.open(), |sql| drop(place.database.sql(&tables(sql)))).await;
}

/// A database that the first version has made and filled.
fn of_the_first_version() -> Database {
    let database = Database::new();
    database.run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/postgres/tests/format-1.sql"));
    database
}

#[tokio::test]
async fn tables_of_an_older_version_are_followed_and_brought_up_by_who_owns_them() {
    if server::is_lacking() {
        return;
    }
    let place = Place { database: of_the_first_version(), other: store("postgres://localhost/none", 1) };
    let store = place.open();
    // Sidecars come first: this one follows what it finds, and changes nothing.
    let before = everything(&store).await;
    assert_eq!(before.len(), 5);
    let since = store.pull(None).await.unwrap().revision;
    let verdict = verify(&store, Some(since)).await.unwrap();
    assert_eq!((verdict.breaks, verdict.records, verdict.unvouched), (vec![], 5, 5));
    let refused = store.commit(commit_of(&[key("k3", "CI")])).await.unwrap_err().to_string();
    assert!(refused.contains("format 1") && refused.contains("brings it up"), "{refused}");
    assert_eq!(
        place.database.sql("select format, rev, to_regclass('keyward.node') is null from keyward.meta"),
        "1|4|t"
    );

    assert!(!store.prepare().await.unwrap(), "they were there");
    assert_eq!(place.database.sql("select format, rev from keyward.meta"), "3|4");
    assert_eq!(
        place.database.sql("select (select count(*) from keyward.usage), (select count(*) from keyward.node)"),
        "0|0"
    );
    // The history goes on as it was: no sidecar reads everything anew.
    assert!(records(pull(&store, Some(since), false).await.unwrap()).await.unwrap().is_empty());
    assert!(everything(&store).await == before);
    assert_eq!(store.commit(commit_of(&[key("k3", "CI")])).await.unwrap().number, 5);
    assert_eq!(records(pull(&store, Some(since), false).await.unwrap()).await.unwrap().len(), 1);
    let verdict = verify(&store, Some(since)).await.unwrap();
    assert_eq!((verdict.breaks, verdict.records, verdict.unvouched), (vec![], 6, 5));
    let actions: Vec<_> = entries(&store, Order::NewestFirst, None, 9).await.into_iter().map(|e| e.action).collect();
    assert_eq!(actions, ["test.commit", "key.revoke", "key.update", "key.create", "key.create", "store.create"]);
}

#[tokio::test]
async fn of_many_who_bring_the_tables_up_at_once_one_does() {
    if server::is_lacking() {
        return;
    }
    let database = of_the_first_version();
    let stores: Vec<_> = (0..6).map(|_| store(&database.url("kw", ""), 1)).collect();
    let brought: Vec<_> = stores.into_iter().map(|store| tokio::spawn(async move { store.prepare().await })).collect();
    for brought in brought {
        assert!(!brought.await.unwrap().unwrap());
    }
    assert_eq!(database.sql("select format, rev from keyward.meta"), "3|4");
}

#[tokio::test]
async fn usage_of_several_nodes_adds_up_and_makes_no_revision() {
    if !server::is_lacking() {
        let place = Place::new();
        assert_usage_adds_up(&place.open(), &place.other).await;
    }
}

#[tokio::test]
async fn nodes_are_known_until_they_are_forgotten() {
    if !server::is_lacking() {
        let place = Place::new();
        assert_nodes_are_known(&place.open(), &place.other).await;
    }
}

#[tokio::test]
async fn what_is_not_needed_any_more_goes_without_a_trace() {
    if !server::is_lacking() {
        let place = Place::new();
        let rows = || place.database.sql("select count(*) from keyward.private");
        assert_leftovers_go(&place.open(), rows).await;
    }
}
