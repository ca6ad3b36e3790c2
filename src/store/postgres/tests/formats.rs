//! Programs of two versions on one database: who is refused, and who goes on.

use super::*;

/// The tables as the version before made them.
async fn of_the_format_before() -> Place {
    let place = Place::new();
    place.other.commit(commit_of(&[key("k1", "CI"), secret(1, "k1")])).await.unwrap();
    place.database.sql(
        "drop table keyward.private, keyward.usage, keyward.node; alter table keyward.audit drop column records;
         update keyward.meta set format = 1",
    );
    place
}

/// Sidecars are replaced first and the tables brought up afterwards: in between, the new ones read the old tables.
#[tokio::test]
async fn tables_of_the_format_before_are_read_but_not_written_until_they_are_brought_up() {
    if server::is_lacking() {
        return;
    }
    let place = of_the_format_before().await;
    let store = place.open();
    assert_eq!(everything(&store).await.len(), 2);
    assert!(store.get(&RecordId::key("k1")).await.unwrap().1.is_some());
    let since = store.pull(None).await.unwrap().revision;
    let error = store.commit(commit_of(&[key("k2", "CI")])).await.unwrap_err().to_string();
    assert!(error.contains("format 1") && error.contains("brings it up"), "{error}");
    assert_eq!(place.database.sql("select rev, format from keyward.meta"), "1|1");

    assert!(!store.prepare().await.unwrap());
    store
        .commit(commit_of(&[key("k2", "CI"), (RecordId::new(Kind::Password, "u1"), Some("{}".into()))]))
        .await
        .unwrap();
    // Whoever had followed the history follows on.
    assert_eq!(records(pull(&store, Some(since), false).await.unwrap()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn tables_and_kinds_of_a_later_version_are_refused_and_passed_over() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    let store = place.open();
    store.commit(commit_of(&[key("k1", "CI")])).await.unwrap();
    place.database.sql(
        "begin; update keyward.meta set rev = rev;
         insert into keyward.record (kind, id, rev, body) values ('later', 'x', 1, '{}'); commit",
    );
    assert_eq!(names(&everything(&store).await), ["k1"]);
    place.database.sql("update keyward.meta set format = 99");
    let error = store.pull(None).await.unwrap_err().to_string();
    assert!(error.contains("format 99") && error.contains("use the version that wrote it"), "{error}");
}
