//! The designs that were not taken, in the schedules that they fail: what guards from a failure must be able to see it.

use super::*;

fn raw(place: &Place) -> Connection {
    let raw = Connection::open(place.path()).unwrap();
    raw.busy_timeout(Duration::from_secs(5)).unwrap();
    raw
}

/// Failure 4. A transaction that reads first, and wants to write then, is thrown back at once if another was quicker, however
/// long it would wait; it has waited for nothing. One that begins as a writer waits for its turn.
#[tokio::test]
async fn failure_4_who_begins_by_reading_loses_what_was_to_be_written() {
    let place = Place::new();
    let late = raw(&place);
    late.execute_batch("begin; select rev from meta").unwrap();
    place.other.commit(commit_of(&[key("k1", "CI")])).await.unwrap();
    let began = Instant::now();
    let refused = late.execute_batch("update meta set rev = rev + 1").unwrap_err().to_string();
    assert!(refused.contains("locked") && began.elapsed() < Duration::from_secs(1), "{refused}");
    late.execute_batch("rollback").unwrap();
    // The same, as it is: it waits, and is made.
    let store = place.open();
    late.execute_batch("begin immediate").unwrap();
    let waiting = tokio::spawn(async move { store.commit(commit_of(&[key("k2", "CI")])).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    late.execute_batch("rollback").unwrap();
    assert_eq!(soon(waiting).await.unwrap().unwrap().number, 2);
}

/// Failure 6. Two histories are one if their numbers are: after a restore, and another commit in place of the one that is lost,
/// there is no news. Who was deleted is let in, and who was let in again is not.
#[tokio::test]
async fn failure_6_who_compares_numbers_alone_follows_a_history_that_is_gone() {
    let place = Place::new();
    let (store, wrong) = (place.open(), Faulty::new(place.open(), Fault::ComparesNumbersOnly));
    let (mut replica, mut misled) = (Model::new(), Model::new());
    place.other.commit(commit_of(&[key("k1", "one"), key("k2", "two")])).await.unwrap();
    let backup = place.folder.path().join("backup.db");
    fs::copy(place.path(), &backup).unwrap();
    place.other.commit(commit_of(&[(RecordId::key("k1"), None)])).await.unwrap();
    let since = follow(&store, &mut replica, None).await.unwrap();
    follow(&wrong, &mut misled, None).await.unwrap();
    fs::rename(&backup, place.path()).unwrap();
    place.other.commit(commit_of(&[(RecordId::key("k2"), None)])).await.unwrap();
    follow(&wrong, &mut misled, Some(since)).await.unwrap();
    assert_eq!(names(&misled), ["k2"], "the store says that it is gone, and that the other is there");
    // The same, as it is.
    follow(&store, &mut replica, Some(since)).await.unwrap();
    assert_eq!(names(&replica), ["k1"]);
}

/// Failure 7. Tombstones are swept away, and nobody says from where on: who was away keeps a key that is gone.
#[tokio::test]
async fn failure_7_without_a_floor_a_key_that_was_deleted_stays() {
    let place = Place::new();
    let (store, mut replica) = (place.open(), Model::new());
    place.other.commit(commit_of(&[key("k1", "one"), key("k2", "two")])).await.unwrap();
    let since = follow(&store, &mut replica, None).await.unwrap();
    let mut leaky = replica.clone();
    place.other.commit(commit_of(&[(RecordId::key("k1"), None)])).await.unwrap();
    raw(&place).execute_batch("delete from record where body is null").unwrap();
    follow(&store, &mut leaky, Some(since)).await.unwrap();
    assert_eq!(names(&leaky), ["k1", "k2"], "the delta has no word of it");
    // The same, as it is.
    raw(&place).execute_batch("update meta set floor = 2").unwrap();
    follow(&store, &mut replica, Some(since)).await.unwrap();
    assert_eq!(names(&replica), ["k2"]);
}

/// Failure 12. A connection that stays open reads on in the file that it has opened, whatever is at its path now, and nothing
/// is wrong with it.
#[tokio::test]
async fn failure_12_who_does_not_look_at_the_path_reads_on_in_a_file_that_is_gone() {
    let place = Place::new();
    let store = place.open();
    let since = store.commit(commit_of(&[key("k1", "old")])).await.unwrap();
    let believed = raw(&place);
    let keys = |connection: &Connection| -> String {
        let sql = "select group_concat(id) from record where kind = 'key' and body is not null";
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(keys(&believed), "k1");
    fs::rename(place.another("restored.db", 1).await, place.path()).unwrap();
    for _ in 0..3 {
        assert_eq!(keys(&believed), "k1", "what it reads is not there any more");
    }
    // The same, as it is.
    let news = pull(&store, Some(since), true).await.unwrap();
    assert_eq!(names(&into_model(records(news).await.unwrap())), ["k9"]);
}

/// Failure 17. A process that has the file for itself and is frozen: whoever waits for it without an end knows nothing, and does
/// not know that. Here there is an error, from which the age of what is known counts on.
#[tokio::test]
async fn failure_17_who_waits_without_an_end_for_a_frozen_process_never_knows() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("keys.db");
    let store = SqliteStore::open_or_create(&path, check(1)).unwrap();
    store.commit(commit_of(&[key("k1", "CI")])).await.unwrap();
    drop(store);
    let frozen = Connection::open(&path).unwrap();
    let alone = "pragma locking_mode = exclusive; begin immediate; update meta set rev = rev; commit; begin";
    frozen.execute_batch(alone).unwrap();
    let believed = Connection::open(&path).unwrap();
    believed.busy_timeout(Duration::from_secs(60)).unwrap();
    let reads = move || believed.query_row("select rev from meta", [], |row| row.get::<_, i64>(0));
    let mut waiting = spawn_blocking(reads);
    let store = Database::new(&path, check(1), Duration::from_millis(300));
    let pulled = match SqliteStore::over(store) {
        Ok(store) => store.pull(None).await.map(drop),
        Err(error) => Err(error),
    };
    assert!(matches!(pulled, Err(StoreError::Unavailable { .. })), "{pulled:?}");
    assert!(timeout(Duration::from_secs(1), &mut waiting).await.is_err(), "and that one waits still");
    drop(frozen);
    assert_eq!(soon(waiting).await.unwrap().unwrap(), 1);
    let store = SqliteStore::open(&path, check(1)).unwrap();
    assert_eq!(names(&everything(&store).await), ["k1"]);
}
