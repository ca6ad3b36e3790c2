//! The designs that were not taken, in the schedules that they fail: what guards from a failure must be able to see it.

use super::outages::Session;
use super::*;

/// Failure 1. A commit takes its number from a sequence, and is late: whoever has read a higher number never looks for it. The
/// row that counts makes the second one wait.
#[tokio::test]
async fn failure_1_a_sequence_loses_a_revocation_that_is_late() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    place.database.sql("create table journal (rev bigserial primary key, what text)");
    let mut late = Session::doing(&place.database, "begin; insert into journal (what) values ('revoke k1')");
    place.database.sql("insert into journal (what) values ('rename k2')");
    let cursor = place.database.sql("select max(rev) from journal");
    late.then("commit");
    let news = place.database.sql(&format!("select count(*) from journal where rev > {cursor}"));
    assert_eq!(
        (cursor.as_str(), news.as_str()),
        ("2", "0"),
        "the revocation was committed, and nobody will hear of it"
    );

    // The same, as it is.
    let reader = place.open();
    let mut late = Session::doing(&place.database, "begin; update keyward.meta set rev = rev + 1");
    let other = place.open();
    let second = tokio::spawn(async move { other.commit(commit_of(&[key("k2", "renamed")])).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(reader.pull(None).await.unwrap().revision.number, 0, "nobody has a higher number before");
    late.then("rollback");
    assert_eq!(second.await.unwrap().unwrap().number, 1);
}

/// Failure 4. Nobody says how long a lock may be waited for, or how long one may sit on it: writers wait for as long as one of
/// them stands still.
#[tokio::test]
async fn failure_4_without_limits_all_wait_for_the_one_that_stands_still() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    let _frozen = Session::doing(&place.database, "begin; update keyward.meta set rev = rev");
    let waiting = place.database.psql("kw").args(["-c", "update keyward.meta set rev = rev"]).spawn();
    let mut waiting = waiting.unwrap();
    // As it is: an answer, five seconds later.
    let error = place.other.commit(commit_of(&[key("k1", "one")])).await.unwrap_err();
    assert!(matches!(error, CommitError::Store(StoreError::Unavailable { .. })), "{error}");
    assert!(waiting.try_wait().unwrap().is_none(), "that one waits still");
    waiting.kill().unwrap();
    waiting.wait().unwrap();
}

/// Failure 5. What is read are transactions below the oldest that is open: one that has nothing to do with it holds up a
/// revocation for as long as it is open.
#[tokio::test]
async fn failure_5_transaction_ids_are_held_up_by_somebody_elses_transaction() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    place.database.sql("create table journal (xid xid8 not null default pg_current_xact_id(), what text)");
    let unrelated = Session::doing(&place.database, "begin; select pg_current_xact_id()");
    place.database.sql("insert into journal (what) values ('revoke k1')");
    let news = "select count(*) from journal where xid < pg_snapshot_xmin(pg_current_snapshot())";
    assert_eq!(place.database.sql(news), "0", "it was committed, and may not be read yet");
    // The same, as it is.
    let revision = place.other.commit(commit_of(&[key("k1", "revoked")])).await.unwrap();
    assert!(place.open().pull(None).await.unwrap().revision == revision);
    drop(unrelated);
}

/// Failure 7. Tombstones are swept away, and nobody says from where on: who was away keeps a key that is gone.
#[tokio::test]
async fn failure_7_without_a_floor_a_key_that_was_deleted_stays() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    let (store, mut replica) = (place.open(), Model::new());
    place.other.commit(commit_of(&[key("k1", "one"), key("k2", "two")])).await.unwrap();
    let since = follow(&store, &mut replica, None).await.unwrap();
    let mut leaky = replica.clone();
    place.other.commit(commit_of(&[(RecordId::key("k1"), None)])).await.unwrap();
    let sweep = "set session_replication_role = replica; delete from keyward.record where body is null";
    place.database.sql(sweep);
    follow(&store, &mut leaky, Some(since)).await.unwrap();
    assert_eq!(names(&leaky), ["k1", "k2"], "the delta has no word of it");
    // The same, as it is.
    place.database.sql("update keyward.meta set floor = 2");
    follow(&store, &mut replica, Some(since)).await.unwrap();
    assert_eq!(names(&replica), ["k2"]);
}
