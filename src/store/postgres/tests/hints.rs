//! Hints: they come at once, and when they do not, nothing is lost.

use tokio::sync::watch;

use super::super::listen::Listener;
use super::*;

const LISTENERS: &str = "from pg_stat_activity where datname = current_database() and query like 'listen%'";

/// The revision that a store is at, with its ear open.
async fn listening(store: &PostgresStore) -> Revision {
    let since = store.pull(None).await.unwrap().revision;
    // It begins to listen, and asks to look once more.
    soon(store.changed(Some(since))).await;
    store.pull(Some(since)).await.unwrap().revision
}

#[tokio::test]
async fn a_commit_of_another_process_wakes_those_who_wait() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    let store = place.open();
    let since = listening(&store).await;
    assert!(timeout(Duration::from_millis(50), store.changed(Some(since))).await.is_err());
    let committed = place.other.commit(commit_of(&[key("k1", "CI")])).await.unwrap();
    soon(store.changed(Some(since))).await;
    assert!(timeout(Duration::from_millis(50), store.changed(Some(committed))).await.is_err());
}

/// Failure 2.
#[tokio::test]
async fn failure_2_a_listener_that_was_killed_listens_again_and_has_one_look() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    let store = place.open();
    let since = listening(&store).await;
    place.database.sql(&format!("select pg_terminate_backend(pid) {LISTENERS}"));
    // What is told now is heard by nobody; but whoever listens again looks.
    place.other.commit(commit_of(&[key("k1", "CI")])).await.unwrap();
    soon(store.changed(Some(since))).await;
    let pull = store.pull(Some(since)).await.unwrap();
    assert_eq!((pull.full, pull.revision.number), (false, 1));
    until("it listens again", &place.database, &format!("select count(*) > 0 {LISTENERS}")).await;
    drop(store);
    until("the connection is closed", &place.database, &format!("select count(*) = 0 {LISTENERS}")).await;
}

#[tokio::test]
async fn who_shall_not_listen_does_not() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    let store = place.named("&listen=off");
    let since = store.pull(None).await.unwrap().revision;
    place.other.commit(commit_of(&[key("k1", "CI")])).await.unwrap();
    assert!(timeout(Duration::from_millis(200), store.changed(Some(since))).await.is_err());
    assert_eq!(place.database.sql(&format!("select count(*) {LISTENERS}")), "0");
    // But what it has done itself it knows.
    store.commit(commit_of(&[key("k2", "CI")])).await.unwrap();
    soon(store.changed(Some(since))).await;
}

/// Failure 3 as it shows behind a pooler: the connection listens, without any error, and hears nothing. Here that is so
/// because what is told is told in another database.
#[tokio::test]
async fn failure_3_notifications_that_never_arrive_are_noticed() {
    if server::is_lacking() {
        return;
    }
    let (place, elsewhere) = (Place::new(), Database::new());
    let pool = Arc::new(Pool::new(address(&place.database.url("kw", "")).main));
    for (database, hears) in [(&place.database, true), (&elsewhere, false)] {
        let way = address(&database.url("kw", "")).main;
        let listener = Listener::start(&way, &watch::Sender::default()).await.unwrap();
        assert_eq!(listener.hears(&pool, "postgres").await, hears);
    }
}

/// Failure 6.
#[tokio::test]
async fn failure_6_a_restored_backup_is_read_in_full_even_at_the_same_number() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    let (store, mut replica) = (place.open(), Model::new());
    place.other.commit(commit_of(&[key("k1", "one"), key("k2", "two"), secret(1, "k1")])).await.unwrap();
    back_up(&place.database);
    place.other.commit(commit_of(&[(RecordId::key("k1"), None)])).await.unwrap();
    listening(&store).await;
    let since = follow(&store, &mut replica, None).await.unwrap();
    assert_eq!((since.number, names(&replica)), (2, vec!["k2", secret(1, "").0.id.as_ref()]));
    restore(&place.database);
    // Behind, at the same number, and beyond it.
    let full = pull(&store, Some(since), true).await.unwrap();
    assert_eq!(full.revision.number, 1);
    assert_eq!(records(full).await.unwrap().len(), 3);
    for (number, name) in [(2, "k3"), (3, "k4")] {
        place.other.commit(commit_of(&[key(name, "later")])).await.unwrap();
        let full = pull(&store, Some(since), true).await.unwrap();
        assert_eq!(full.revision.number, number);
        assert!(
            names(&into_model(records(full).await.unwrap())).contains(&"k1"),
            "what was revoked is back, and known"
        );
    }
    // Hints about the history that is gone do not keep it awake.
    let since = follow(&store, &mut replica, Some(since)).await.unwrap();
    assert!(timeout(Duration::from_millis(100), store.changed(Some(since))).await.is_err());
}

/// Failure 7.
#[tokio::test]
async fn failure_7_who_has_been_away_for_too_long_gets_everything() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    let store = place.open();
    let since = place.other.commit(commit_of(&[key("k1", "one"), key("k2", "two")])).await.unwrap();
    place.other.commit(commit_of(&[(RecordId::key("k1"), None)])).await.unwrap();
    pull(&store, Some(since), false).await.unwrap();
    place.database.sql(
        "set session_replication_role = replica; update keyward.meta set floor = 2;
         delete from keyward.record where body is null",
    );
    let full = pull(&store, Some(since), true).await.unwrap();
    assert_eq!(names(&into_model(records(full).await.unwrap())), ["k2"]);
}
