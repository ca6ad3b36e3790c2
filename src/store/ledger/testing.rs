//! What every store's audit must do, whatever is done to it behind our back.

use super::audit::{self, Entry, Filter, Order};
use super::verify::{Break, verify};
use super::{Ledger, LedgerError};
use crate::store::conformance::{commit_of, key, secret};
use crate::store::{Revision, Store};

/// Six commits, and the head after them.
pub(crate) async fn fill(store: &impl Store) -> Revision {
    let mut head = None;
    for name in ["one", "two", "three", "four", "five", "six"] {
        head = Some(store.commit(commit_of(&[key("k1", name), secret(1, "k1")])).await.unwrap());
    }
    head.unwrap()
}

pub(in crate::store) async fn entries(
    ledger: &impl Ledger,
    order: Order,
    after: Option<u64>,
    most: usize,
) -> Vec<Entry> {
    let mut entries = Vec::new();
    let take = |entry, _: &_| {
        entries.push(entry);
        Ok::<_, LedgerError>(entries.len() < most)
    };
    audit::read(ledger, order, after, &Filter::default(), take).await.unwrap();
    entries
}

/// Reads from both ends and in between.
pub(in crate::store) async fn assert_is_read(store: &(impl Store + Ledger)) {
    fill(store).await;
    let revisions = |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.revision).collect::<Vec<_>>();
    for (order, after, most, expected) in [
        (Order::OldestFirst, None, 9, &[0, 1, 2, 3, 4, 5, 6][..]),
        (Order::NewestFirst, None, 3, &[6, 5, 4]),
        (Order::NewestFirst, Some(3), 9, &[2, 1, 0]),
        (Order::OldestFirst, Some(4), 9, &[5, 6]),
        (Order::OldestFirst, Some(6), 9, &[]),
        (Order::NewestFirst, Some(0), 9, &[]),
    ] {
        assert_eq!(revisions(entries(store, order, after, most).await), expected, "{order:?} {after:?}");
    }
    // More than is read at a time.
    for _ in 0..600 {
        store.commit(commit_of(&[key("k1", "more")])).await.unwrap();
    }
    assert_eq!(revisions(entries(store, Order::OldestFirst, None, 9999).await), (0..=606).collect::<Vec<_>>());
    assert_eq!(revisions(entries(store, Order::NewestFirst, None, 9999).await).last(), Some(&0));
}

/// Each way to touch the audit in the database itself is found, and undone finds nothing. `{audit}` and `{meta}` are the tables.
pub(in crate::store) async fn assert_touched_lines_are_found<S: Store + Ledger>(
    new: impl Fn() -> S,
    edit: impl Fn(&str),
    number: impl Fn(&str) -> String,
) {
    for (sql, expected) in [
        ("update {audit} set entry = '{}' where rev = 3", &[Break::Altered(3)][..]),
        ("update {audit} set at = '2026-01-01T00:00:00.000Z' where rev = 0", &[Break::Altered(0)]),
        (
            "update {audit} set content = (select content from {audit} where rev = 0) where rev = 4",
            &[Break::Altered(4)],
        ),
        ("delete from {audit} where rev = 2", &[Break::Missing(2, 2)]),
        ("delete from {audit} where rev >= 5", &[Break::Missing(5, 6)]),
        ("delete from {audit}", &[Break::Missing(0, 6)]),
        // Swapped: what the one says is where the other was.
        (
            "update {audit} set rev = -1 where rev = 2; update {audit} set rev = 2 where rev = 4;
             update {audit} set rev = 4 where rev = -1",
            &[Break::Altered(2), Break::Altered(3), Break::Altered(4), Break::Altered(5)],
        ),
        // Removed, and the later ones moved up.
        (
            "delete from {audit} where rev = 3; update {audit} set rev = 3 where rev = 4;
             update {audit} set rev = 4 where rev = 5; update {audit} set rev = 5 where rev = 6",
            &[Break::Altered(3), Break::Altered(4), Break::Altered(5), Break::Missing(6, 6)],
        ),
        ("update {meta} set chain = (select chain from {audit} where rev = 5)", &[Break::OtherHead(6)]),
    ] {
        let store = new();
        let head = fill(&store).await;
        assert_eq!(verify(&store, Some(head)).await.unwrap().breaks, []);
        edit(&number(sql));
        assert_eq!(verify(&store, None).await.unwrap().breaks, expected, "{sql}");
    }
    // A cut that moves the head back too is found by who remembers.
    let store = new();
    let head = fill(&store).await;
    edit(&number(
        "delete from {audit} where rev = 6; update {meta} set rev = 5, chain = (select chain from {audit} where rev = 5)",
    ));
    assert_eq!(verify(&store, None).await.unwrap().breaks, []);
    assert_eq!(verify(&store, Some(head)).await.unwrap().breaks, [Break::Forgotten(6)]);
}
