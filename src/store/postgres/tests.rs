//! The PostgreSQL store against the laws, and against other writers.

mod designs;
mod formats;
mod hints;
mod ledger;
mod outages;
mod roles;

#[path = "../../../tests/it/tools/postgres.rs"]
#[allow(dead_code, reason = "shared with the tests from outside")]
mod server;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
use tokio::time::timeout;

use self::server::Database;
use super::*;
use crate::auth::digest::Pepper;
use crate::store::conformance::{
    Fault, Faulty, Fixture, Law, Model, Put, assert_expectations_hold, assert_lawful, commit_of, everything, follow,
    into_model, key, pull, records, secret, update, visible,
};
use crate::store::record::Kind;

/// A new database with the tables in it, and a second handle as another process would have it.
struct Place {
    database: Database,
    other: PostgresStore,
}

impl Place {
    fn new() -> Self {
        Self::on(Database::new())
    }

    fn on(database: Database) -> Self {
        // A store of its own: its connections belong to a runtime that is gone.
        assert!(blocking(async || store(&database.url("kw", ""), 1).prepare().await).unwrap());
        Self { other: store(&database.url("kw", ""), 1), database }
    }

    fn named(&self, more: &str) -> PostgresStore {
        store(&self.database.url("kw", more), 1)
    }
}

impl Fixture for Place {
    type Store = PostgresStore;

    fn open(&self) -> PostgresStore {
        self.named("")
    }

    async fn apply(&mut self, puts: &[Put]) {
        self.other.commit(commit_of(puts)).await.unwrap();
    }
}

fn address(url: &str) -> Address {
    Address::parse(url, Path::new("")).unwrap()
}

fn store(url: &str, pepper: u8) -> PostgresStore {
    PostgresStore::new(&address(url), check(pepper))
}

fn check(pepper: u8) -> PepperCheck {
    Pepper::from_hex(&format!("{pepper:02x}").repeat(32)).unwrap().check()
}

/// For places that are not async, and may be in a runtime or not: that one stands still meanwhile, so that a store which was made
/// in it gets no connection.
fn blocking<T: Send>(work: impl AsyncFnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(|| runtime().block_on(async { work().await })).join().unwrap())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn names(model: &Model) -> Vec<&str> {
    model.keys().map(|id| &*id.id).collect()
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(5), future).await.expect("this should take no time")
}

/// Waits for what only the server can see.
async fn until(what: &str, database: &Database, sql: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while database.sql(sql) != "t" {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Keeps what is in the tables beside them.
fn back_up(database: &Database) {
    database.sql(
        "create table backup_meta as table keyward.meta; create table backup_record as table keyward.record;
         create table backup_audit as table keyward.audit",
    );
}

/// Puts back what was kept, as somebody does who restores a backup.
fn restore(database: &Database) {
    database.sql(
        "set session_replication_role = replica;
         delete from keyward.meta; insert into keyward.meta table backup_meta;
         delete from keyward.record; insert into keyward.record table backup_record;
         delete from keyward.audit; insert into keyward.audit table backup_audit",
    );
}

#[tokio::test]
async fn it_obeys_the_laws() {
    if !server::is_lacking() {
        assert_lawful(Place::new).await;
    }
}

#[tokio::test]
async fn each_law_is_failed_by_the_store_that_breaks_it() {
    if server::is_lacking() {
        return;
    }
    for (fault, law) in [
        (Fault::MissesLastCommit, Law::FullPulls),
        (Fault::LosesTombstones, Law::Deltas),
        (Fault::ComparesNumbersOnly, Law::UnknownRevisions),
        (Fault::CommitsPieceByPiece, Law::Commits),
        (Fault::AnswersTooEarly, Law::Commits),
        (Fault::WaitsForHints, Law::NewsWithoutHints),
        (Fault::OverstatesGets, Law::Gets),
        (Fault::GivesPrivateKinds, Law::PrivateKinds),
        (Fault::LosesTheLast, Law::Many),
    ] {
        let broken = law.check(Faulty::new(Place::new(), fault)).await.expect_err(&format!("{fault:?}"));
        assert!(broken.starts_with(&format!("law {} ", law as u8)), "{broken}");
    }
}

fn puts() -> impl Strategy<Value = Vec<Put>> {
    let kind = prop_oneof![Just(Kind::Scope), Just(Kind::Key), Just(Kind::Secret), Just(Kind::Password)];
    let id = (kind, 0..5_u8);
    let put = (id, any::<Option<u8>>()).prop_map(|((kind, id), body)| {
        (RecordId { kind, id: id.to_string().into() }, body.map(|body| body.to_string().into()))
    });
    prop::collection::vec(put, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn a_replica_that_follows_deltas_has_what_a_full_pull_has(steps in prop::collection::vec((puts(), any::<bool>()), 1..12)) {
        if server::is_lacking() {
            return Ok(());
        }
        let (replica, full, model) = runtime().block_on(async {
            let mut place = Place::new();
            let (store, mut model, mut replica, mut since) = (place.open(), Model::new(), Model::new(), None);
            for (puts, looks) in steps {
                place.apply(&puts).await;
                update(&mut model, &puts);
                if looks {
                    since = Some(follow(&store, &mut replica, since).await.unwrap());
                }
            }
            follow(&store, &mut replica, since).await.unwrap();
            (replica, everything(&store).await, model)
        });
        prop_assert_eq!(&replica, &visible(&model));
        prop_assert_eq!(&full, &visible(&model));
    }
}

#[tokio::test]
async fn expectations_that_do_not_hold_name_the_record_and_change_nothing() {
    if server::is_lacking() {
        return;
    }
    assert_expectations_hold(&Place::new().open()).await;
}

/// Failure 1: with a sequence instead of the row that counts, a commit that takes its number early and ends late is never
/// delivered. Here nobody gets a number before those with lower ones can be seen.
#[tokio::test]
async fn failure_1_numbers_are_in_the_order_of_commits_and_have_no_gaps() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    let write = |store: PostgresStore, name: usize| async move {
        for round in 0..20 {
            store.commit(commit_of(&[key(&format!("w{name}-{round}"), "x")])).await.unwrap();
        }
    };
    let writers: Vec<_> = (0..4).map(|name| tokio::spawn(write(place.open(), name))).collect();
    let (reader, mut replica, mut since) = (place.open(), Model::new(), None);
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        let revision = follow(&reader, &mut replica, since).await.unwrap();
        assert_eq!(replica.len() as u64, revision.number, "a delta lacks what has a lower number");
        since = Some(revision);
    }
    let last = follow(&reader, &mut replica, since).await.unwrap();
    assert_eq!((last.number, replica.len()), (80, 80));
    assert!(replica == everything(&reader).await);
    assert_eq!(place.database.sql("select count(*), min(rev), max(rev) from keyward.audit"), "81|0|80");
    // Every head follows from the one before.
    assert_eq!(place.database.sql("select count(distinct chain) from keyward.audit"), "81");
}

#[tokio::test]
async fn the_audit_attests_the_history() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    let head = place.other.commit(commit_of(&[key("k1", "one"), secret(3, "k1")])).await.unwrap();
    let row = place.database.sql("select a.entry, a.chain = m.chain, encode(a.chain, 'hex') from keyward.audit a, keyward.meta m where a.rev = 1");
    let hex: String = head.chain.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(row, format!(r#"{{"action":"test.commit","actor":"tests","detail":null,"records":2}}|t|{hex}"#));
}

#[tokio::test]
async fn a_large_commit_is_one_and_a_pull_that_nobody_reads_holds_up_nobody() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    let store = place.open();
    let many: Vec<Put> = (0..10_000).map(|n| key(&format!("n{n:05}"), "many")).collect();
    assert_eq!(store.commit(commit_of(&many)).await.unwrap().number, 1);
    let mut slow = store.pull(None).await.unwrap();
    let first = slow.records.next().await.unwrap().unwrap().len();
    soon(store.commit(commit_of(&[key("n00000", "changed"), key("n99999", "new")]))).await.unwrap();
    assert_eq!(soon(everything(&store)).await.len(), 10_001);
    soon(store.get(&RecordId::key("n99999"))).await.unwrap().1.unwrap();
    // It still is what it was when it began.
    assert_eq!(records(slow).await.unwrap().len(), 10_000 - first);
    drop(store.pull(None).await.unwrap());
    assert_eq!(soon(everything(&store)).await.len(), 10_001);
}

#[tokio::test]
async fn of_many_who_make_the_tables_at_once_one_does() {
    if server::is_lacking() {
        return;
    }
    let database = Database::new();
    let stores: Vec<_> = (0..6).map(|_| store(&database.url("kw", ""), 1)).collect();
    let made: Vec<_> = stores.into_iter().map(|store| tokio::spawn(async move { store.prepare().await })).collect();
    let mut count = 0;
    for made in made {
        count += usize::from(made.await.unwrap().unwrap());
    }
    assert_eq!(count, 1);
    assert_eq!(database.sql("select rev, format, (select count(*) from keyward.audit) from keyward.meta"), "0|3|1");
}

#[tokio::test]
async fn failure_19_what_is_not_ours_or_not_yet_there_is_named() {
    if server::is_lacking() {
        return;
    }
    let database = Database::new();
    let none = store(&database.url("kw", ""), 1).pull(None).await.unwrap_err().to_string();
    assert!(none.contains("no tables of Keyward yet") && none.contains("keyward init"), "{none}");
    let place = Place::on(database);
    let other_pepper = store(&place.database.url("kw", ""), 2);
    // Failure 19.
    assert!(matches!(other_pepper.pull(None).await, Err(StoreError::WrongPepper { .. })));
    assert!(matches!(other_pepper.get(&RecordId::key("k")).await, Err(StoreError::WrongPepper { .. })));
    assert!(matches!(other_pepper.prepare().await, Err(StoreError::WrongPepper { .. })));
    let refused = other_pepper.commit(commit_of(&[key("k1", "x")])).await;
    assert!(matches!(refused, Err(CommitError::Store(StoreError::WrongPepper { .. }))));
    place.database.sql("update keyward.meta set format = 99");
    let newer = place.open().pull(None).await.unwrap_err().to_string();
    assert!(newer.contains("format 99") && newer.contains("or a later one"), "{newer}");
    assert!(place.open().prepare().await.is_err());
    let missing = store(&place.database.url("kw", "").replace(&place.database.name, "nowhere"), 1);
    let missing = missing.pull(None).await.unwrap_err().to_string();
    assert!(missing.contains("no such database"), "{missing}");
    // Nothing was changed by any of them.
    assert_eq!(place.database.sql("select rev from keyward.meta"), "0");
}

#[tokio::test]
async fn records_are_not_changed_by_hand() {
    if server::is_lacking() {
        return;
    }
    let place = Place::new();
    place.other.commit(commit_of(&[key("k1", "one")])).await.unwrap();
    let refused = place.database.psql("kw").args(["-c", "update keyward.record set body = null"]).output().unwrap();
    assert!(!refused.status.success());
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("not by hand"), "{why}");
}
