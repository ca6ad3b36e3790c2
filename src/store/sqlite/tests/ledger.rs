//! The audit, and what is done to it behind our back.

use std::cell::RefCell;

use super::*;
use crate::store::ledger::Ledger;
use crate::store::ledger::testing::{
    assert_is_read, assert_nodes_are_known, assert_touched_lines_are_found, assert_usage_adds_up,
};

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
    let number = |sql: &str| sql.replace("{audit}", "audit").replace("{meta}", "meta");
    assert_touched_lines_are_found(new, edit, number).await;
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
