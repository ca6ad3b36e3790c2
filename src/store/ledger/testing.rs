//! What every store's audit must do, whatever is done to it behind our back.

use std::time::Duration;

use super::audit::{self, Entry, Filter, Order};
use super::nodes::Report;
use super::usage::{Usage, Uses};
use super::verify::{Break, Verdict, verify};
use super::{Ledger, LedgerError};
use crate::auth::digest::Digest;
use crate::store::conformance::{commit_of, key, secret};
use crate::store::record::{Kind, RecordId};
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
    store.commit(commit_of(&[])).await.unwrap();
    edit(&number(
        "delete from {audit} where rev = 7; update {meta} set rev = 6, chain = (select chain from {audit} where rev = 6)",
    ));
    assert_eq!(verify(&store, None).await.unwrap().breaks, []);
    let forgotten = Revision { number: 7, ..head };
    assert_eq!(verify(&store, Some(forgotten)).await.unwrap().breaks, [Break::Forgotten(7)]);
    // One that had left something is found without.
    edit(&number(
        "delete from {audit} where rev = 6; update {meta} set rev = 5, chain = (select chain from {audit} where rev = 5)",
    ));
    let breaks = told(&store).await;
    assert_eq!(breaks, ["key k1 is not as line 5 left it", "a secret of key k1 is not as line 5 left it"]);
}

async fn told(ledger: &impl Ledger) -> Vec<String> {
    verify(ledger, None).await.unwrap().breaks.iter().map(ToString::to_string).collect()
}

/// Each way to touch records in the database itself is found, also those that no sidecar has. `{record}` and `{private}` are the
/// tables.
pub(in crate::store) async fn assert_touched_records_are_found<S: Store + Ledger>(
    new: impl Fn() -> S,
    edit: impl Fn(&str),
    number: impl Fn(&str) -> String,
) {
    let body = r#"{"name":"x"}"#;
    let put = format!("insert into {{record}} (kind, id, rev, body) values ('key', 'k9', REV, '{body}')");
    for (sql, expected) in [
        ("update {record} set body = '{}' where id = 'k1'", &["key k1 is not as line 6 left it"][..]),
        ("update {record} set body = null where id = 'k1'", &["key k1 is not as line 6 left it"]),
        ("update {record} set rev = 5 where id = 'k1'", &["key k1 is not as line 6 left it"]),
        ("update {record} set rev = 99 where id = 'k1'", &["key k1 is not as line 6 left it"]),
        ("update {private} set body = '{}' where kind = 'password'", &["password u1 is not as line 7 left it"]),
        ("update {record} set body = '{}' where id = 'gone'", &["key gone is not as line 8 left it"]),
        ("update {record} set body = '{}' where kind = 'secret'", &["a secret is not as line 6 left it"]),
        (
            "update {record} set id = 'k2' where id = 'k1'",
            &["key k2 is there, and no line tells of it", "key k1, which line 6 left, is missing"],
        ),
        ("delete from {record} where id = 'k1'", &["key k1, which line 6 left, is missing"]),
        ("delete from {record} where kind = 'secret'", &["a secret, which line 6 left, is missing"]),
        ("delete from {private} where kind = 'password'", &["password u1, which line 7 left, is missing"]),
        (&put.replace("REV", "3"), &["key k9 is there, and no line tells of it"]),
        (&put.replace("REV", "0"), &["key k9 is there, and no line tells of it"]),
        (&put.replace("REV", "99"), &["key k9 is there, and no line tells of it"]),
        ("delete from {record} where id = 'gone'", &[]),
        // Without its line nothing is known of it, and so neither that it is as it was nor that it is not.
        ("delete from {audit} where rev = 7; update {private} set body = '{}' where id = 'u1'", &["line 7 is missing"]),
        (
            "update {audit} set records = null where rev = 6",
            &["line 6 is not as it was written, or does not follow from the one before it"],
        ),
        (
            "update {audit} set records = '[]' where rev = 6",
            &["line 6 is not as it was written, or does not follow from the one before it"],
        ),
    ] {
        let store = new();
        fill(&store).await;
        let [gone, password] = [RecordId::key("gone"), RecordId::new(Kind::Password, "u1")];
        store.commit(commit_of(&[(gone.clone(), Some(body.into())), (password, Some(body.into()))])).await.unwrap();
        store.commit(commit_of(&[(gone, None)])).await.unwrap();
        let before = verify(&store, None).await.unwrap();
        assert_eq!((before.breaks, before.records, before.unvouched), (vec![], 3, 0));
        edit(&number(sql));
        assert_eq!(told(&store).await, expected, "{sql}");
        let silent = u64::from(sql.contains("{audit}"));
        assert_eq!(verify(&store, None).await.unwrap().unvouched, silent * if sql.contains("rev = 6") { 2 } else { 1 });
    }
}

/// More is read and told of than fits in one go.
pub(in crate::store) async fn assert_many_records_are_compared(store: &(impl Store + Ledger), edit: impl Fn(&str)) {
    let all: Vec<_> = (0..30_000).map(|n| key(&format!("k{n:05}"), "one")).collect();
    for part in all.chunks(10_000) {
        // Their lists alone are more than a page may have.
        for _ in 0..4 {
            store.commit(commit_of(part)).await.unwrap();
        }
    }
    let whole = verify(store, None).await.unwrap();
    assert_eq!((whole.breaks, whole.lines, whole.records, whole.unvouched), (vec![], 13, 30_000, 0));
    edit("delete from {record} where id >= 'k29900'; update {record} set body = '{}' where id < 'k00005'");
    let Verdict { breaks, more, .. } = verify(store, None).await.unwrap();
    assert_eq!((breaks.len() as u64 + more, breaks.len()), (105, 20));
    let told: Vec<String> = breaks.iter().map(ToString::to_string).collect();
    assert_eq!(told[4], "key k00004 is not as line 4 left it");
    assert!(told[5].starts_with("key k299") && told[5].ends_with(", which line 12 left, is missing"), "{told:?}");
}

/// The last entry.
pub(crate) async fn newest(ledger: &impl Ledger) -> Entry {
    entries(ledger, Order::NewestFirst, None, 1).await.remove(0)
}

/// What is not needed any more is found, a page at a time, and goes without a trace and without a revision.
pub(in crate::store) async fn assert_leftovers_go(store: &(impl Store + Ledger), rows: impl Fn() -> String) {
    let private = |id: &str| RecordId::new(Kind::Sealed, id);
    let ids = async |after: &str, limit| {
        let kept = store.kept(Kind::Sealed, after, limit).await.unwrap();
        kept.iter().map(|record| record.id.id.to_string()).collect::<Vec<_>>()
    };
    let body = Some(Box::from("{}"));
    store.commit(commit_of(&["a", "b", "c", "d"].map(|id| (private(id), body.clone())))).await.unwrap();
    assert_eq!((ids("", 3).await, ids("c", 3).await), (vec!["a".into(), "b".into(), "c".into()], vec!["d".into()]));
    store.commit(commit_of(&[(private("b"), None), (private("none"), None), (private("d"), None)])).await.unwrap();
    // It may come again, and go again, in one commit too.
    store.commit(commit_of(&[(private("d"), body.clone()), (private("d"), None)])).await.unwrap();
    assert_eq!((ids("", 9).await, rows()), (vec!["a".to_owned(), "c".to_owned()], "2".to_owned()));
    assert_eq!(verify(store, None).await.unwrap().breaks, []);

    let head = store.head().await.unwrap();
    let [one, two, three] = [1, 2, 3].map(|n| (Box::<str>::from("k1"), uses(n, 1, 0, None).secret));
    store.add_usage("a", vec![uses(1, 1, 10, None), uses(2, 1, 20, None), uses(3, 1, 30, None)]).await.unwrap();
    let idle = async |before, after, limit| store.idle_usage(before, after, limit).await.unwrap();
    assert!(idle(30, None, 9).await == [one.clone(), two.clone()]);
    assert!(idle(99, Some(one.clone()), 1).await == [two.clone()]);
    store.drop_usage(vec![one.clone(), three.clone(), (Box::from("k2"), two.1)], 30).await.unwrap();
    assert!(idle(99, None, 9).await == [two, three], "what was used since stays");
    assert!(store.head().await.unwrap() == head);
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
    // Page by page: a key comes with all of its values.
    for (after, most, expected) in [
        ("", 9, &["k1", "k1", "k2"][..]),
        ("", 1, &["k1", "k1"]),
        ("k1", 1, &["k2"]),
        ("k0zz", 2, &["k1", "k1", "k2"]),
        ("k2", 5, &[]),
        ("", 0, &[]),
    ] {
        let page = store.usage_after(after, most).await.unwrap();
        assert!(page.iter().map(|usage| &*usage.key).eq(expected.iter().copied()), "{most} after {after:?}");
    }
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
