//! The designs that were not taken, in the schedules that they fail: what guards from a failure must be able to see it.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use super::outages::Session;
use super::server::Server;
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

/// A listener as it is without us, and how many notifications have come to it.
async fn ear(database: &Database, heard: &Arc<AtomicUsize>) -> link::Link {
    let heard = heard.clone();
    let hear = move |_| {
        heard.fetch_add(1, Relaxed);
    };
    let link = link::Link::connect(&address(&database.url("kw", "")).main, hear).await.map_err(|_| ()).unwrap();
    link.client.batch_execute("listen keyward").await.unwrap();
    link
}

/// Failure 2. Who listens again when the connection has died, and does not look, never hears of what was told in between.
#[tokio::test]
async fn failure_2_who_only_listens_again_has_missed_a_revocation() {
    if server::is_lacking() {
        return;
    }
    let (place, heard) = (Place::new(), Arc::<AtomicUsize>::default());
    let mut first = ear(&place.database, &heard).await;
    place.other.commit(commit_of(&[key("k1", "CI")])).await.unwrap();
    soon(async {
        while heard.load(Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    place.database.sql("select pg_terminate_backend(pid) from pg_stat_activity where query = 'listen keyward' and datname = current_database()");
    soon(first.ended()).await;
    place.other.commit(commit_of(&[(RecordId::key("k1"), None)])).await.unwrap();
    let _second = ear(&place.database, &heard).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(heard.load(Relaxed), 1, "it was told, and nobody was there");
    place.other.commit(commit_of(&[key("k2", "CI")])).await.unwrap();
    soon(async {
        while heard.load(Relaxed) == 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // The same, as it is, is in `failure_2_a_listener_that_was_killed…`: whoever listens again has one look.
}

/// Failure 3. Who takes it for listening that the server has agreed to LISTEN, and polls no more, waits for ever where nothing
/// arrives: behind a pooler, or, as here, because what is told is told elsewhere.
#[tokio::test]
async fn failure_3_that_a_server_agrees_to_listen_says_nothing() {
    if server::is_lacking() {
        return;
    }
    let (place, elsewhere, heard) = (Place::new(), Database::new(), Arc::<AtomicUsize>::default());
    let believed = ear(&elsewhere, &heard).await;
    place.other.commit(commit_of(&[key("k1", "revoked")])).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(heard.load(Relaxed) == 0 && !believed.client.is_closed(), "nothing is wrong, and nothing comes");
    // The same, as it is: what a pull finds needs nobody to tell of it.
    assert_eq!(names(&everything(&place.open()).await), ["k1"]);
}

/// Failure 6. Two histories are one if their numbers are: after a restore, and another commit in place of the one that is lost,
/// there is no news. Who was deleted is let in, and who was let in again is not.
#[tokio::test]
async fn failure_6_who_compares_numbers_alone_follows_a_history_that_is_gone() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    let (store, wrong) = (place.open(), Faulty::new(place.open(), Fault::ComparesNumbersOnly));
    let (mut replica, mut misled) = (Model::new(), Model::new());
    place.other.commit(commit_of(&[key("k1", "one"), key("k2", "two")])).await.unwrap();
    back_up(&place.database);
    place.other.commit(commit_of(&[(RecordId::key("k1"), None)])).await.unwrap();
    let since = follow(&store, &mut replica, None).await.unwrap();
    follow(&wrong, &mut misled, None).await.unwrap();
    restore(&place.database);
    place.other.commit(commit_of(&[(RecordId::key("k2"), None)])).await.unwrap();
    follow(&wrong, &mut misled, Some(since)).await.unwrap();
    assert_eq!(names(&misled), ["k2"], "the store says that it is gone, and that the other is there");
    // The same, as it is.
    follow(&store, &mut replica, Some(since)).await.unwrap();
    assert_eq!(names(&replica), ["k1"]);
}

/// Failure 17. A connection that is open is taken for a server that is there. A frozen one keeps it open, and answers nothing for
/// as long as anybody waits.
#[tokio::test]
async fn failure_17_an_open_connection_is_no_sign_of_life() {
    if server::is_lacking() {
        return;
    }
    let server = Server::start(&[]);
    let place = Place::on(server.database());
    let way = address(&place.database.url("kw", "")).main;
    let believed = link::Link::connect(&way, |_| {}).await.map_err(|_| ()).unwrap();
    let since = place.other.pull(None).await.unwrap().revision;
    server.signal("STOP");
    let patience = link::PATIENCE + Duration::from_secs(1);
    // The same, as it is, beside it: an error by then, from which the age of what is known counts on.
    let (asked, pulled) =
        tokio::join!(timeout(patience, believed.client.batch_execute("select 1")), place.other.pull(Some(since)));
    assert!(asked.is_err() && !believed.client.is_closed(), "there is no answer, and nothing is wrong");
    assert!(matches!(pulled, Err(StoreError::Unavailable { .. })));
    server.signal("CONT");
    soon(believed.client.batch_execute("select 1")).await.unwrap();
}
