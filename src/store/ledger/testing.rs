//! What every store's audit must do, whatever is done to it behind our back.

use std::time::Duration;

use super::audit::{self, Entry, Filter, Order};
use super::nodes::Report;
use super::usage::{Usage, Uses};
use super::verify::{Break, verify};
use super::{Ledger, LedgerError};
use crate::auth::digest::Digest;
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

fn uses(secret: u8, count: u64, minute: u32, client: Option<&str>) -> Uses {
    let secret = Digest::from_record_id(&format!("{secret:032x}")).unwrap();
    Uses { key: "k1".into(), secret, count, minute, client: client.map(|client| client.parse().unwrap()) }
}

/// Uses of several nodes add up, and nothing of it is a revision.
pub(in crate::store) async fn assert_usage_adds_up(store: &(impl Store + Ledger), other: &impl Ledger) {
    let head = fill(store).await;
    assert!(store.usage(None).await.unwrap().is_empty());
    store.add_usage("a", vec![uses(2, 5, 100, Some("10.0.0.1")), uses(1, 1, 100, None)]).await.unwrap();
    other.add_usage("b", vec![uses(1, 3, 103, Some("::1"))]).await.unwrap();
    // Late: it counts, and tells nothing of who was last.
    store.add_usage("a", vec![uses(1, 2, 102, Some("10.0.0.2"))]).await.unwrap();
    let of_other = Uses { key: "k2".into(), ..uses(3, 7, 1, None) };
    store.add_usage("a", vec![of_other]).await.unwrap();
    let seen =
        |usage: &Usage| (usage.count, usage.last_used.millis() / 60_000, usage.node.clone(), usage.client.clone());
    let usage: Vec<_> = store.usage(Some("k1")).await.unwrap().iter().map(seen).collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(usage, [(6, 103, "b".to_owned(), some("::1")), (5, 100, "a".to_owned(), some("10.0.0.1"))]);
    let keys: Vec<_> = other.usage(None).await.unwrap().into_iter().map(|usage| usage.key).collect();
    assert_eq!(keys, ["k1".into(), "k1".into(), "k2".into()]);
    assert!(store.usage(Some("nobody")).await.unwrap().is_empty());
    assert!(store.pull(None).await.unwrap().revision == head, "usage is no part of the history");
}

/// A node is what it said last, and goes when it is forgotten.
pub(in crate::store) async fn assert_nodes_are_known(store: &(impl Store + Ledger), other: &impl Ledger) {
    let head = fill(store).await;
    let report = |id: &str, revision| Report {
        id: id.to_owned(),
        revision,
        version: "1.2.3",
        max_staleness: Duration::from_secs(3600),
    };
    assert!(store.nodes().await.unwrap().is_empty());
    store.report(report("a", 0)).await.unwrap();
    other.report(report("b", 6)).await.unwrap();
    store.report(report("a", 5)).await.unwrap();
    let nodes = other.nodes().await.unwrap();
    let seen: Vec<_> = nodes.iter().map(|node| (&*node.id, node.revision, node.max_staleness_ms)).collect();
    assert_eq!(seen, [("a", 5, 3_600_000), ("b", 6, 3_600_000)]);
    assert!(nodes.iter().all(|node| node.seen_ms_ago < 5000 && node.version == "1.2.3" && node.may_serve()));
    other.forget("a").await.unwrap();
    other.forget("nobody").await.unwrap();
    assert_eq!(store.nodes().await.unwrap().len(), 1);
    // How old a revision is, by the store's own clock.
    assert!(store.age(6).await.unwrap().unwrap() < Duration::from_secs(5));
    assert!(store.age(1).await.unwrap() >= store.age(6).await.unwrap());
    assert_eq!(store.age(7).await.unwrap(), None);
    assert!(store.pull(None).await.unwrap().revision == head, "nodes are no part of the history");
}
