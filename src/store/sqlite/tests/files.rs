//! What happens to files: made, replaced, restored, deleted, and never ours.

use std::os::unix::fs::PermissionsExt;

use rusqlite::Connection;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

#[tokio::test]
async fn a_file_that_was_replaced_is_noticed_by_every_call() {
    let place = Place::new();
    let store = place.open();
    let old = store.commit(commit_of(&[key("k1", "old")])).await.unwrap();
    for round in 0..3 {
        let backup = place.another(&format!("backup-{round}.db"), 1).await;
        fs::rename(&backup, place.path()).unwrap();
        match round {
            0 => {
                let pull = pull(&store, Some(old), true).await.unwrap();
                assert_eq!((pull.revision.number, pull.revision.chain == old.chain), (1, false));
                assert_eq!(names(&into_model(records(pull).await.unwrap())), ["k9"]);
            }
            1 => assert!(store.get(&RecordId::key("k9")).await.unwrap().1.is_some()),
            _ => assert_eq!(store.commit(commit_of(&[key("k2", "new")])).await.unwrap().number, 2),
        }
    }
    assert_eq!(names(&everything(&store).await), ["k2", "k9"]);
}

#[tokio::test]
async fn a_file_that_was_deleted_is_an_error_and_not_a_store_without_keys() {
    let place = Place::new();
    let store = place.open();
    store.commit(commit_of(&[key("k1", "kept")])).await.unwrap();
    let aside = place.folder.path().join("aside.db");
    fs::rename(place.path(), &aside).unwrap();
    let expected = format!("sqlite:{}: there is no such file", place.path().display());
    let failures = [
        store.pull(None).await.unwrap_err().to_string(),
        store.get(&RecordId::key("k1")).await.unwrap_err().to_string(),
        store.commit(commit_of(&[key("k2", "lost")])).await.unwrap_err().to_string(),
        SqliteStore::open(&place.path(), check(1)).unwrap_err().to_string(),
    ];
    assert!(failures.iter().all(|failure| failure.starts_with(&expected)), "{failures:?}");
    assert!(!place.path().exists());
    fs::rename(aside, place.path()).unwrap();
    assert_eq!(names(&everything(&store).await), ["k1"]);
}

#[tokio::test]
async fn failure_6_a_restore_that_comes_to_the_same_number_is_told_by_its_chain() {
    let place = Place::new();
    let store = place.open();
    store.commit(commit_of(&[key("k1", "before")])).await.unwrap();
    let backup = place.folder.path().join("backup.db");
    // The file alone is the whole backup: the log is empty after every commit.
    fs::copy(place.path(), &backup).unwrap();
    let lost = store.commit(commit_of(&[key("k2", "lost")])).await.unwrap();
    fs::rename(&backup, place.path()).unwrap();
    let kept = place.open().commit(commit_of(&[key("k3", "kept")])).await.unwrap();
    assert_eq!(kept.number, lost.number);
    let pull = pull(&store, Some(lost), true).await.unwrap();
    assert_eq!(pull.revision, kept);
    assert_eq!(names(&into_model(records(pull).await.unwrap())), ["k1", "k3"]);
}

#[tokio::test]
async fn a_hint_about_a_history_that_is_gone_ends() {
    let place = Place::new();
    let store = place.open();
    let backup = place.another("backup.db", 1).await;
    for name in ["a", "b", "c"] {
        store.commit(commit_of(&[key("k1", name)])).await.unwrap();
    }
    fs::rename(&backup, place.path()).unwrap();
    let revision = store.pull(None).await.unwrap().revision;
    assert!(timeout(Duration::from_millis(100), store.changed(Some(revision))).await.is_err());
    store.commit(commit_of(&[key("k1", "d")])).await.unwrap();
    soon(store.changed(Some(revision))).await;
}

#[tokio::test]
async fn after_a_commit_the_log_is_empty() {
    let place = Place::new();
    let store = place.open();
    store.commit(commit_of(&[key("k1", "CI")])).await.unwrap();
    assert_eq!(fs::metadata(place.log()).unwrap().len(), 0);
}

#[tokio::test]
async fn failure_19_another_pepper_is_refused_when_opened_and_when_pulled() {
    let place = Place::new();
    let wrong = [SqliteStore::open(&place.path(), check(2)), SqliteStore::open_or_create(&place.path(), check(2))];
    assert!(wrong.iter().all(|wrong| matches!(wrong, Err(StoreError::WrongPepper { .. }))));
    let store = place.open();
    let foreign = place.another("foreign.db", 2).await;
    fs::rename(&foreign, place.path()).unwrap();
    assert!(matches!(store.pull(None).await, Err(StoreError::WrongPepper { .. })));
    assert!(matches!(store.get(&RecordId::key("k9")).await, Err(StoreError::WrongPepper { .. })));
    let refused = store.commit(commit_of(&[key("k1", "CI")])).await;
    assert!(matches!(refused, Err(CommitError::Store(StoreError::WrongPepper { .. }))));
}

#[tokio::test]
async fn what_is_no_store_of_ours_is_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("keys.db");
    let foreign = folder.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("create table theirs (a)").unwrap();
    let newer = folder.path().join("newer.db");
    SqliteStore::open_or_create(&newer, check(1)).unwrap();
    Connection::open(&newer).unwrap().execute_batch("update meta set format = 2").unwrap();
    for (content, expected) in [
        (
            b"not a database, but longer than a header of one would be, which has a hundred bytes. So here are more.\n"
                .to_vec(),
            "not an SQLite database",
        ),
        (fs::read(&foreign).unwrap(), "of another program"),
        (fs::read(&newer).unwrap(), "format 2"),
    ] {
        fs::write(&path, &content).unwrap();
        for opened in [SqliteStore::open(&path, check(1)), SqliteStore::open_or_create(&path, check(1))] {
            let error = opened.unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("keys.db"), "{error}");
        }
        assert!(fs::read(&path).unwrap() == content, "{expected}");
    }
    fs::write(&path, "").unwrap();
    for opened in [SqliteStore::open(&path, check(1)), SqliteStore::open_or_create(&path, check(1))] {
        let error = opened.unwrap_err().to_string();
        assert!(error.contains("the file is empty"), "{error}");
    }
    let error = SqliteStore::open_or_create(&folder.path().join("no/keys.db"), check(1)).unwrap_err().to_string();
    assert!(error.contains("cannot be made"), "{error}");
}

#[tokio::test]
async fn a_new_file_is_readable_by_its_owner_alone() {
    let place = Place::new();
    let store = place.open();
    store.commit(commit_of(&[key("k1", "CI")])).await.unwrap();
    for name in ["keys.db", "keys.db-wal"] {
        let mode = fs::metadata(place.folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn many_may_make_the_same_store_at_once() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("keys.db");
    let makers: Vec<_> = (0..4)
        .map(|_| {
            let path = path.clone();
            spawn_blocking(move || SqliteStore::open_or_create(&path, check(1)))
        })
        .collect();
    for maker in makers {
        let pull = maker.await.unwrap().unwrap().pull(None).await.unwrap();
        assert_eq!(pull.revision.number, 0);
    }
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.contains(".new-")).count(), 0);
}

#[tokio::test]
async fn a_backup_beside_the_log_of_another_file_is_refused_and_left_alone() {
    let place = Place::new();
    let store = place.open();
    let many: Vec<Put> = (0..10_000).map(|n| key(&format!("n{n:05}"), "many")).collect();
    let since = store.commit(commit_of(&many)).await.unwrap();
    let backup = place.another("backup.db", 1).await;
    let content = fs::read(&backup).unwrap();
    // While somebody reads, the log cannot be folded into the file. The pull may notice what happens to it at any time.
    let reader = Snapshot::open(&store.database).unwrap();
    let mut slow = store.pull(None).await.unwrap();
    slow.records.next().await.unwrap();
    store.commit(commit_of(&[key("n00000", "changed")])).await.unwrap();
    let log = place.log();
    assert_ne!(fs::metadata(&log).unwrap().len(), 0);
    fs::rename(&backup, place.path()).unwrap();

    let error = store.pull(Some(since)).await.unwrap_err().to_string();
    assert!(error.contains("still being read"), "{error}");
    let error = loop {
        if let Err(error) = slow.records.next().await {
            break error.to_string();
        }
    };
    assert!(error.contains("was replaced meanwhile"), "{error}");
    drop(reader);
    for _ in 0..2 {
        let error = store.pull(Some(since)).await.unwrap_err().to_string();
        assert!(error.contains("keys.db-wal is the log of the file that was there before"), "{error}");
        assert!(store.commit(commit_of(&many)).await.is_err());
        assert!(SqliteStore::open_or_create(&place.path(), check(1)).is_err());
    }
    assert!(fs::read(place.path()).unwrap() == content);
    drop(place.other);
    fs::remove_file(log).unwrap();
    fs::remove_file(place.folder.path().join("keys.db-shm")).unwrap();
    assert_eq!(names(&everything(&store).await), ["k9"]);
}

#[tokio::test]
async fn a_backup_that_is_copied_over_the_file_is_noticed() {
    let place = Place::new();
    let store = place.open();
    let many: Vec<Put> = (0..5_000).map(|n| key(&format!("n{n:05}"), "many")).collect();
    let since = store.commit(commit_of(&many)).await.unwrap();
    assert_eq!(everything(&store).await.len(), 5_000);
    assert_eq!(fs::metadata(place.log()).unwrap().len(), 0);
    let backup = place.another("backup.db", 1).await;
    fs::write(place.path(), fs::read(backup).unwrap()).unwrap();
    let pull = pull(&store, Some(since), true).await.unwrap();
    assert_eq!(names(&into_model(records(pull).await.unwrap())), ["k9"]);
    assert_eq!(store.commit(commit_of(&[key("k1", "CI")])).await.unwrap().number, 2);
}

#[tokio::test]
async fn what_a_crash_left_in_the_log_is_there() {
    let place = Place::new();
    let store = place.open();
    store.commit(commit_of(&[key("k1", "CI")])).await.unwrap();
    let mut slow = store.pull(None).await.unwrap();
    let lease = store.database.lease().unwrap();
    lease.connection().execute_batch("begin; select count(*) from record").unwrap();
    for name in ["k2", "k3"] {
        store.commit(commit_of(&[key(name, "CI")])).await.unwrap();
    }
    // What a killed process leaves: the file and its log, without the index of the log.
    let path = place.folder.path().join("crashed.db");
    fs::copy(place.path(), &path).unwrap();
    fs::copy(place.log(), place.folder.path().join("crashed.db-wal")).unwrap();
    let crashed = SqliteStore::open(&path, check(1)).unwrap();
    assert_eq!(names(&everything(&crashed).await), ["k1", "k2", "k3"]);
    assert!(slow.records.next().await.is_ok());
}

#[tokio::test]
async fn the_log_of_a_later_state_is_refused_beside_a_backup_of_an_earlier_one() {
    let place = Place::new();
    let store = place.open();
    let many: Vec<Put> = (0..1_000).map(|n| key(&format!("n{n:05}"), "many")).collect();
    store.commit(commit_of(&many)).await.unwrap();
    let backup = place.folder.path().join("backup.db");
    fs::copy(place.path(), &backup).unwrap();
    // What is folded into the file is lost with it.
    store.commit(commit_of(&[(RecordId::key("n00000"), None)])).await.unwrap();
    let held = Snapshot::open(&store.database).unwrap();
    store.commit(commit_of(&[key("n00999", "changed")])).await.unwrap();
    fs::copy(place.log(), place.folder.path().join("backup.db-wal")).unwrap();
    drop(held);
    let error = SqliteStore::open(&backup, check(1)).unwrap_err().to_string();
    assert!(error.contains("backup.db-wal is the log of the file that was there before"), "{error}");
}
