//! Servers that are away, stopped, frozen, full, or busy with somebody else, and writers that die.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Stdio};

use tokio_postgres::error::SqlState;

use super::super::trouble::{Refusal, Trouble};
use super::super::write;
use super::server::{Breaking, Server};
use super::*;

fn is_unavailable<T: fmt::Debug>(answer: Result<T, CommitError>) -> String {
    match answer {
        Err(CommitError::Store(error @ StoreError::Unavailable { .. })) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Another program with a transaction of its own, which ends when this is dropped.
pub(super) struct Session(Child, BufReader<ChildStdout>);

impl Session {
    /// Runs SQL, and waits until it is done.
    pub(super) fn doing(database: &Database, sql: &str) -> Self {
        let mut child = database.psql("kw").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut session = Self(child, out);
        session.then(sql);
        session
    }

    /// Runs more, and waits until it is done.
    pub(super) fn then(&mut self, sql: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{sql};\n\\echo done").unwrap();
        let mut line = String::new();
        while line.trim() != "done" {
            line.clear();
            assert_ne!(self.1.read_line(&mut line).unwrap(), 0, "{sql}");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_named_without_its_password_and_used_when_it_is_back() {
    if server::is_lacking() {
        return;
    }
    let mut server = Server::start(&[]);
    let place = Place::on(server.database());
    let store = place.named("&password=hunter2");
    let since = store.commit(commit_of(&[key("k1", "CI")])).await.unwrap();
    server.stop();
    for _ in 0..2 {
        let error = store.pull(Some(since)).await.unwrap_err().to_string();
        assert!(error.contains(&place.database.name) && !error.contains("hunter2") && !error.contains("kw"), "{error}");
        let error = is_unavailable(store.commit(commit_of(&[key("k2", "CI")])).await);
        assert!(!error.contains("hunter2") && !format!("{store:?}").contains("hunter2"), "{error}");
    }
    server.start_again();
    assert_eq!(store.commit(commit_of(&[key("k2", "CI")])).await.unwrap().number, 2);
    let pull = pull(&store, Some(since), false).await.unwrap();
    assert_eq!(records(pull).await.unwrap().len(), 1);
}

/// Failure 17.
#[tokio::test]
async fn failure_17_a_frozen_server_is_given_up_on_and_used_when_it_goes_on() {
    if server::is_lacking() {
        return;
    }
    let server = Server::start(&[]);
    let place = Place::on(server.database());
    let store = place.open();
    let since = store.commit(commit_of(&[key("k1", "CI")])).await.unwrap();
    store.pull(None).await.unwrap();
    server.signal("STOP");
    let began = Instant::now();
    // Once on a connection that is open, once on a new one.
    for _ in 0..2 {
        let error = store.pull(Some(since)).await.unwrap_err().to_string();
        assert!(error.contains("did not answer in time"), "{error}");
    }
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(8) && waited < Duration::from_secs(15), "{waited:?}");
    server.signal("CONT");
    assert_eq!(soon(store.commit(commit_of(&[key("k2", "CI")]))).await.unwrap().number, 2);
    assert_eq!(soon(everything(&store)).await.len(), 2);
}

/// After a large import the first row of a delta is a long time coming: all of it is sorted before.
#[tokio::test]
async fn a_delta_may_take_longer_than_a_server_may_be_silent_and_a_poll_without_news_reads_no_records() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    let store = place.open();
    let since = store.commit(commit_of(&[key("k1", "CI")])).await.unwrap();
    let head = store.commit(commit_of(&[key("k2", "CI")])).await.unwrap();
    let busy = Session::doing(&place.database, "begin; lock table keyward.record in access exclusive mode");
    assert!(records(soon(pull(&store, Some(head), false)).await.unwrap()).await.unwrap().is_empty());
    let (pulled, ()) = tokio::join!(pull(&store, Some(since), false), async {
        tokio::time::sleep(link::PATIENCE + Duration::from_secs(1)).await;
        drop(busy);
    });
    assert_eq!(records(pulled.unwrap()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_server_stops_what_was_given_up_for_its_slowness() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    let pool = Arc::new(Pool::new(address(&place.database.url("kw", "")).main));
    let lease = pool.lease().await.unwrap();
    let endless = "select pg_sleep(1000)";
    let begun = link::within(Duration::from_millis(100), "sleeping", lease.client().batch_execute(endless)).await;
    let active = format!(
        "select count(*) = 0 from pg_stat_activity where datname = current_database() and query = '{endless}' and state = 'active'"
    );
    assert_eq!(place.database.sql(&active), "f");
    lease.give_up(&begun.unwrap_err());
    drop(lease);
    until("the server stops", &place.database, &active).await;
}

/// Failure 4: a writer that stops in the middle of its transaction. And 5: a transaction of somebody else.
#[tokio::test]
async fn failures_4_and_5_a_writer_that_stops_holds_up_writers_for_five_seconds_and_readers_not_at_all() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    let store = place.open();
    let since = store.commit(commit_of(&[key("k1", "CI")])).await.unwrap();
    let unrelated = Session::doing(&place.database, "begin; select pg_current_xact_id()");
    store.commit(commit_of(&[key("k2", "CI")])).await.unwrap();
    assert_eq!(store.pull(Some(since)).await.unwrap().revision.number, 2);
    drop(unrelated);

    let holder = Session::doing(&place.database, "begin; update keyward.meta set rev = rev + 1");
    let began = Instant::now();
    let error = is_unavailable(store.commit(commit_of(&[key("k3", "CI")])).await);
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(4) && waited < Duration::from_secs(8), "{waited:?}");
    assert!(error.contains("another program has held its write lock") && error.contains("pg_stat_activity"), "{error}");
    assert_eq!(soon(store.pull(Some(since))).await.unwrap().revision.number, 2);
    drop(holder);
    assert_eq!(soon(store.commit(commit_of(&[key("k3", "CI")]))).await.unwrap().number, 3);
}

/// One of ours that freezes in the middle is thrown out by the server.
#[tokio::test]
async fn failure_4_a_writer_of_ours_that_freezes_is_thrown_out() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    let pool = Arc::new(Pool::new(address(&place.database.url("kw", "")).main));
    let frozen = pool.lease().await.unwrap();
    write::write(frozen.client(), &commit_of(&[key("k1", "half")]), check(1)).await.map_err(|_| ()).unwrap();
    let idle = "select count(*) = 0 from pg_stat_activity where datname = current_database() and state = 'idle in transaction'";
    assert_eq!(place.database.sql(idle), "f");
    until("the server throws it out", &place.database, idle).await;
    assert_eq!(place.other.commit(commit_of(&[key("k2", "whole")])).await.unwrap().number, 1);
    assert_eq!(names(&everything(&place.other).await), ["k2"]);
    assert!(frozen.client().batch_execute("commit").await.is_err());
}

/// A connection that breaks at each step of a commit: it is made, or it is not, and we know which.
#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_looked_for() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    let pool = Arc::new(Pool::new(address(&place.database.url("kw", "")).main));
    let lost = || Trouble::Slow("committing");
    // It was made, and the answer got lost.
    let made = place.other.commit(commit_of(&[key("k1", "CI")])).await.unwrap();
    assert!(write::settle(&pool, made, lost()).await.is_ok());
    // It was not: the server has ended the session before.
    let lease = pool.lease().await.unwrap();
    let planned = write::write(lease.client(), &commit_of(&[key("k2", "CI")]), check(1)).await.map_err(|_| ()).unwrap();
    place.database.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and state = 'idle in transaction'",
    );
    let ended = Trouble::Sql(lease.client().batch_execute("commit").await.unwrap_err());
    assert!(ended.is(&[SqlState::ADMIN_SHUTDOWN]) || matches!(&ended, Trouble::Sql(error) if error.is_closed()));
    drop(lease);
    assert!(matches!(write::settle(&pool, planned, ended).await, Err(Refusal::Trouble(Trouble::Sql(_)))));
    // It is still under way: whoever looks waits for its end.
    let slow = Session::doing(&place.database, "begin; update keyward.meta set rev = rev");
    let look = write::settle(&pool, planned, lost());
    assert!(timeout(Duration::from_millis(300), look).await.is_err());
    drop(slow);
    assert!(matches!(write::settle(&pool, planned, lost()).await, Err(Refusal::Trouble(Trouble::Slow(_)))));
    assert_eq!(place.other.commit(commit_of(&[key("k3", "CI")])).await.unwrap().number, 2);
}

/// The pepper of tables that were made must not be thrown away as if they had not been.
#[tokio::test]
async fn tables_whose_commit_was_not_answered_are_looked_for() {
    if server::is_lacking() {
        return;
    }
    for (gets_it, heals) in [(true, true), (false, true), (true, false), (false, false)] {
        let database = Database::new();
        let way = Breaking::start(&database, gets_it, heals);
        match store(&way.url(&database), 1).prepare().await {
            Ok(made) => assert!(made && gets_it && heals),
            Err(StoreError::Unavailable { .. }) => assert!(!gets_it && heals),
            Err(StoreError::Unsettled { why, .. }) => assert!(!heals && why.contains("is not known"), "{why}"),
            Err(error @ StoreError::WrongPepper { .. }) => panic!("{error}"),
        }
        assert_eq!(store(&database.url("kw", ""), 1).prepare().await.unwrap(), !gets_it, "{heals}");
    }
}

/// Whoever is killed while a pull is under way must not make half of the records look like all.
#[tokio::test]
async fn a_pull_that_breaks_off_is_an_error_and_not_an_end() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    let store = place.open();
    for part in 0..4 {
        let many: Vec<Put> = (0..10_000).map(|n| key(&format!("n{part}-{n:05}"), "many")).collect();
        store.commit(commit_of(&many)).await.unwrap();
    }
    let mut pull = store.pull(None).await.unwrap();
    assert!(pull.records.next().await.unwrap().is_some());
    place.database.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid()",
    );
    let rest = pull.records.collect().await;
    assert!(matches!(rest, Err(StoreError::Unavailable { .. })), "{:?}", rest.map(|records| records.len()));
    assert_eq!(everything(&store).await.len(), 40_000);
}

/// A caller that gives up in the middle of a commit leaves nothing behind.
#[tokio::test]
async fn a_commit_that_is_given_up_is_not_made() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    let store = place.open();
    let holder = Session::doing(&place.database, "begin; update keyward.meta set rev = rev");
    let puts = [key("k1", "CI")];
    assert!(timeout(Duration::from_millis(200), store.commit(commit_of(&puts))).await.is_err());
    drop(holder);
    assert_eq!(soon(store.commit(commit_of(&[key("k2", "CI")]))).await.unwrap().number, 1);
    assert_eq!(names(&everything(&store).await), ["k2"]);
}

/// A commit that waits for a standby can be told to wait no longer: the server then says that it has committed, with a warning
/// that the standby may not have it. That is no success, unless the standby confirms a later one in time.
#[tokio::test]
async fn a_commit_whose_standby_has_not_confirmed_it_is_not_acknowledged() {
    if server::is_lacking() {
        return;
    }
    let server = Server::start(&[]);
    let place = Place::on(server.database());
    let store = place.open();
    store.commit(commit_of(&[key("k1", "CI")])).await.unwrap();
    let waiting = "select count(*) > 0 from pg_stat_activity where wait_event = 'SyncRep'";
    let cancel = "select count(pg_cancel_backend(pid)) from pg_stat_activity where wait_event = 'SyncRep'";
    let standby = |names: &str| {
        place.database.sql(&format!("alter system set synchronous_standby_names = '{names}'"));
        place.database.sql("select pg_reload_conf()");
    };
    for comes_back in [true, false] {
        // Nobody of that name is there.
        standby("nobody");
        until(
            "the server knows its standby",
            &place.database,
            "select current_setting('synchronous_standby_names') = 'nobody'",
        )
        .await;
        let (committing, ()) = tokio::join!(store.commit(commit_of(&[key("k2", "CI")])), async {
            until("the commit waits", &place.database, waiting).await;
            if comes_back {
                standby("");
                // Those who wait are let go by a reload, too: as if the standby had confirmed.
            } else {
                place.database.sql(cancel);
                // It asks once more, by a commit that waits as well, and that is cancelled too.
                until("it looks again", &place.database, waiting).await;
                place.database.sql(cancel);
            }
        });
        match committing {
            Ok(revision) => assert!(comes_back && revision.number == 2),
            Err(CommitError::Store(StoreError::Unsettled { why, .. })) => {
                assert!(!comes_back && why.contains("standby"), "{why}");
            }
            Err(error) => panic!("{error}"),
        }
    }
    standby("");
}

/// What moves a connection on is where the store was made. Whoever asks over one first, and then has something else to do, does
/// not hold up who asks over it next, and does not take it along when they end.
#[test]
fn connections_stay_with_the_store_whoever_asks_over_them() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    let home = runtime();
    let (at_home, store) = (home.handle().clone(), home.block_on(async { place.open() }));
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let home = thread::spawn(move || home.block_on(async { drop(ended.await) }));
    let looks = async || store.get(&RecordId::key("none")).await.unwrap().0.number;
    let connections = || {
        place.database.sql(
            "select string_agg(pid::text, ' ') from pg_stat_activity
             where datname = current_database() and pid <> pg_backend_pid()",
        )
    };
    let guest = runtime();
    guest.block_on(looks());
    let first = connections();
    // The guest stands still.
    at_home.block_on(async { timeout(Duration::from_secs(2), looks()).await }).expect("nobody waits for the guest");
    drop(guest);
    at_home.block_on(looks());
    assert_eq!(connections(), first, "it is the same connection all the time");
    end.send(()).unwrap();
    home.join().unwrap();
}
