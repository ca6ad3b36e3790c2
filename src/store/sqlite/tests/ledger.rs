//! The audit, and what is done to it behind our back.

use std::cell::RefCell;

use super::*;
use crate::store::ledger::testing::{assert_is_read, assert_touched_lines_are_found};

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
