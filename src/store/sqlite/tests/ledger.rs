//! The audit, and what is done to it behind our back.

use std::cell::RefCell;

use super::*;
use crate::store::chain::{self, Link};
use crate::store::ledger::Ledger;
use crate::store::ledger::testing::{
    assert_is_read, assert_leftovers_go, assert_many_records_are_compared, assert_nodes_are_known,
    assert_touched_lines_are_found, assert_touched_records_are_found, assert_usage_adds_up,
};
use crate::store::ledger::verify::verify;

#[tokio::test]
async fn the_audit_is_read_from_both_ends() {
    assert_is_read(&Place::new().open()).await;
}

#[tokio::test]
async fn a_line_that_was_touched_behind_our_back_is_found() {
    let place = RefCell::new(None);
    let new = || {
        let new = Place::new();
        let store = new.open();
        place.replace(Some(new));
        store
    };
    let edit = |sql: &str| {
        let raw = Connection::open(place.borrow().as_ref().unwrap().path()).unwrap();
        raw.execute_batch(sql).unwrap();
        // A log that does not continue the history would be refused as that of another file.
        raw.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(())).unwrap();
    };
    assert_touched_lines_are_found(new, edit, tables).await;
    assert_touched_records_are_found(new, edit, tables).await;
}

fn tables(sql: &str) -> String {
    ["audit", "meta", "record"]
        .iter()
        .fold(sql.replace("{private}", "record"), |sql, table| sql.replace(&format!("{{{table}}}"), table))
}

#[tokio::test]
async fn records_are_compared_however_many_there_are() {
    let place = Place::new();
    let edit = |sql: &str| Connection::open(place.path()).unwrap().execute_batch(&tables(sql)).unwrap();
    assert_many_records_are_compared(&place.open(), edit).await;
}

/// A program of before kept no lists. What it has left is not vouched for, until it is touched again.
#[tokio::test]
async fn lines_of_older_versions_say_nothing_of_records() {
    let place = Place::new();
    let raw = Connection::open(place.path()).unwrap();
    let (entry, content, body) = ("{\"action\":\"x\"}", chain::content([]), "{\"name\":\"x\"}");
    let mut previous = [0; 32];
    raw.execute_batch("alter table audit drop column records; delete from audit").unwrap();
    for number in 0..3_i64 {
        previous = Link { previous, number: number.unsigned_abs(), at: "now", entry, content }.head();
        let sql = "insert into audit (rev, at, entry, content, chain) values (?1, 'now', ?2, ?3, ?4)";
        raw.execute(sql, rusqlite::params![number, entry, content, previous]).unwrap();
        let sql = "insert into record (kind, id, rev, body) values ('key', 'k' || ?1, ?1, ?2)";
        raw.execute(sql, rusqlite::params![number, body]).unwrap();
    }
    raw.execute("update meta set rev = 2, chain = ?1", [previous]).unwrap();
    raw.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(())).unwrap();
    let store = place.open();
    let seen = async || {
        let verdict = verify(&store, None).await.unwrap();
        (verdict.breaks, verdict.records, verdict.unvouched)
    };
    assert_eq!(seen().await, (vec![], 3, 3));
    store.commit(commit_of(&[key("k1", "anew")])).await.unwrap();
    assert_eq!(seen().await, (vec![], 3, 2));
}

#[tokio::test]
async fn usage_of_several_nodes_adds_up_and_makes_no_revision() {
    let place = Place::new();
    assert_usage_adds_up(&place.open(), &place.other).await;
}

#[tokio::test]
async fn nodes_are_known_until_they_are_forgotten() {
    let place = Place::new();
    assert_nodes_are_known(&place.open(), &place.other).await;
}

/// What is beside the database may be deleted, and does not hold the database up when it is broken.
#[tokio::test]
async fn the_file_beside_the_database_is_made_when_it_is_needed() {
    use std::os::unix::fs::PermissionsExt as _;

    let place = Place::new();
    let store = place.open();
    let beside = place.folder.path().join("keys.db-usage");
    assert!(store.nodes().await.unwrap().is_empty() && store.usage(None).await.unwrap().is_empty());
    assert!(!beside.exists(), "whoever only looks makes nothing");
    assert_usage_adds_up(&store, &place.other).await;
    assert_eq!(fs::metadata(&beside).unwrap().permissions().mode() & 0o777, 0o600);
    // A copy of the database alone is the whole backup.
    fs::remove_file(&beside).unwrap();
    let _ = fs::remove_file(place.folder.path().join("keys.db-usage-wal"));
    let _ = fs::remove_file(place.folder.path().join("keys.db-usage-shm"));
    assert!(store.usage(None).await.unwrap().is_empty());
    fs::write(
        &beside,
        "no database, but longer than a header of one would be, which has a hundred bytes. So, here are more.",
    )
    .unwrap();
    let error = store.usage(None).await.err().unwrap().to_string();
    assert!(error.contains("keys.db-usage") && error.contains("may be deleted"), "{error}");
    store.commit(commit_of(&[key("k9", "goes on")])).await.unwrap();
}

#[tokio::test]
async fn what_is_not_needed_any_more_goes_without_a_trace() {
    let place = Place::new();
    let rows = || {
        let sql = "select count(*) from record where kind = 'sealed'";
        let count: i64 = Connection::open(place.path()).unwrap().query_row(sql, [], |row| row.get(0)).unwrap();
        count.to_string()
    };
    assert_leftovers_go(&place.open(), rows).await;
}
