//! The laws of `store.rs`, each as a function that any store can be held against, and that a store which breaks it fails.

mod faulty;

use std::collections::BTreeMap;

use super::record::{
    KeyBody, KeyType, Kind, PasswordBody, PasswordHash, Record, RecordId, ScopeBody, ScopeState, SecretBody, Subject,
    UniqueBody, to_json,
};
use super::{Change, Commit, CommitError, Expect, Pull, Revision, Store};
use crate::auth::grant::{Access, Environment, State, Timestamp};
use crate::auth::scope::Scope;

pub(super) use self::faulty::{Fault, Faulty};

/// A record's new body; `None` deletes it.
pub(super) type Put = (RecordId, Option<Box<str>>);

/// What lives.
pub(super) type Model = BTreeMap<RecordId, Box<str>>;

/// A place with a store in it that starts without records.
pub(super) trait Fixture {
    /// The kind of store under test.
    type Store: Store;

    /// Opens it, as a program that starts would.
    fn open(&self) -> Self::Store;

    /// Changes records all at once and not through the store under test, as another process would.
    async fn apply(&mut self, puts: &[Put]);
}

/// The laws, by their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Law {
    FullPulls = 1,
    Deltas = 2,
    UnknownRevisions = 3,
    Commits = 4,
    NewsWithoutHints = 5,
    Gets = 6,
    PrivateKinds = 7,
    Many = 8,
}

impl Law {
    pub(super) const ALL: [Self; 8] = [
        Self::FullPulls,
        Self::Deltas,
        Self::UnknownRevisions,
        Self::Commits,
        Self::NewsWithoutHints,
        Self::Gets,
        Self::PrivateKinds,
        Self::Many,
    ];

    /// Holds a new store against the law; the error says how it was broken.
    pub(super) async fn check(self, mut fixture: impl Fixture) -> Result<(), String> {
        let outcome = match self {
            Self::FullPulls => full_pulls_hold_what_commits_left(&mut fixture).await,
            Self::Deltas => deltas_lead_to_the_full_state(&mut fixture).await,
            Self::UnknownRevisions => unknown_revisions_are_answered_in_full(&mut fixture).await,
            Self::Commits => commits_are_atomic_and_seen_at_once(&mut fixture).await,
            Self::NewsWithoutHints => news_comes_without_hints(&mut fixture).await,
            Self::Gets => gets_do_not_overstate(&mut fixture).await,
            Self::PrivateKinds => private_kinds_are_had_one_by_one(&mut fixture).await,
            Self::Many => many_are_what_each_is(&mut fixture).await,
        };
        outcome.map_err(|how| format!("law {} ({self:?}): {how}", self as u8))
    }
}

/// Holds a kind of store against all laws.
pub(super) async fn assert_lawful<F: Fixture>(new: impl Fn() -> F) {
    for law in Law::ALL {
        if let Err(broken) = law.check(new()).await {
            panic!("{broken}");
        }
    }
}

async fn full_pulls_hold_what_commits_left(fixture: &mut impl Fixture) -> Result<(), String> {
    let (store, mut model) = (fixture.open(), Model::new());
    for puts in history() {
        fixture.apply(&puts).await;
        update(&mut model, &puts);
        let records = records(pull(&store, None, true).await?).await?;
        if records.iter().any(|record| record.body.is_none()) {
            return Err("a full pull has tombstones".to_owned());
        }
        if !records.is_sorted_by_key(|record| record.id.kind) {
            return Err("secrets came before their keys".to_owned());
        }
        same(&into_model(records), &model)?;
    }
    Ok(())
}

async fn deltas_lead_to_the_full_state(fixture: &mut impl Fixture) -> Result<(), String> {
    for stride in 1..4 {
        let (store, mut replica, mut since) = (fixture.open(), Model::new(), None);
        for (step, puts) in history().iter().enumerate() {
            fixture.apply(puts).await;
            if step % stride != 0 {
                continue;
            }
            since = Some(follow(&store, &mut replica, since).await?);
            let full = pull(&store, None, true).await?;
            if Some(full.revision) != since {
                return Err(format!("a delta ends at {since:?} and a full pull at {}", full.revision));
            }
            same(&replica, &into_model(records(full).await?))?;
        }
        since = Some(follow(&store, &mut replica, since).await?);
        let idle = pull(&store, since, false).await?;
        if !records(idle).await?.is_empty() {
            return Err("there is news where nothing happened".to_owned());
        }
    }
    Ok(())
}

async fn unknown_revisions_are_answered_in_full(fixture: &mut impl Fixture) -> Result<(), String> {
    let (store, mut model) = (fixture.open(), Model::new());
    for puts in history() {
        fixture.apply(&puts).await;
        update(&mut model, &puts);
        let Revision { number, chain } = pull(&store, None, true).await?.revision;
        let foreign = chain.map(|byte| !byte);
        for number in [0, number.saturating_sub(1), number, number + 1, u64::MAX] {
            let full = pull(&store, Some(Revision { number, chain: foreign }), true).await?;
            same(&into_model(records(full).await?), &model)?;
        }
    }
    Ok(())
}

async fn commits_are_atomic_and_seen_at_once(fixture: &mut impl Fixture) -> Result<(), String> {
    let store = fixture.open();
    fixture.apply(&[key("k1", "here before"), secret(1, "k1")]).await;
    let before = pull(&store, None, true).await?;
    let (revision, model) = (before.revision, into_model(records(before).await?));
    // The first change could be made; the second expects what is not so.
    let half = [change(key("k0", "half a commit"), Expect::Any), change(key("k1", "changed"), Expect::Absent)];
    match store.commit(commit(half)).await {
        Err(CommitError::Conflict(id)) if id == RecordId::key("k1") => {}
        Err(CommitError::ReadOnly(_)) => {}
        other => return Err(format!("a commit that must fail: {other:?}")),
    }
    let after = pull(&store, None, true).await?;
    if after.revision != revision {
        return Err(format!("a failed commit led from {revision} to {}", after.revision));
    }
    same(&into_model(records(after).await?), &model)?;

    let whole = [change(key("k0", "new"), Expect::Absent), change(key("k1", "new"), Expect::Any)];
    match store.commit(commit(whole)).await {
        Ok(revision) => {
            let after = pull(&store, None, true).await?;
            if after.revision.number < revision.number || !records(after).await?.iter().any(|r| r.id.id == "k0".into())
            {
                return Err("a commit that returned is not in the next pull".to_owned());
            }
        }
        Err(CommitError::ReadOnly(_)) => {}
        Err(other) => return Err(other.to_string()),
    }
    whole_commits_are_seen(fixture, &store).await
}

/// Two keys that are always changed together are never seen apart.
async fn whole_commits_are_seen(fixture: &mut impl Fixture, store: &impl Store) -> Result<(), String> {
    for round in 0..20 {
        let name = format!("round {round}");
        let pair = [key("pair-a", &name), key("pair-b", &name)];
        let seen = async { Ok(into_model(records(pull(store, None, true).await?).await?)) };
        let ((), seen): ((), Result<Model, String>) = tokio::join!(fixture.apply(&pair), seen);
        let seen = seen?;
        if seen.get(&pair[0].0) != seen.get(&pair[1].0) {
            return Err("half a commit was seen".to_owned());
        }
    }
    Ok(())
}

async fn news_comes_without_hints(fixture: &mut impl Fixture) -> Result<(), String> {
    let (store, mut model, mut replica, mut since) = (fixture.open(), Model::new(), Model::new(), None);
    for puts in history() {
        fixture.apply(&puts).await;
        update(&mut model, &puts);
        since = Some(follow(&store, &mut replica, since).await?);
        same(&replica, &model)?;
    }
    Ok(())
}

async fn gets_do_not_overstate(fixture: &mut impl Fixture) -> Result<(), String> {
    let store = fixture.open();
    for puts in history() {
        fixture.apply(&puts).await;
        for (id, _) in puts.iter().filter(|(id, _)| id.kind.replicated()) {
            let (revision, got) = store.get(id).await.map_err(|error| error.to_string())?;
            let full = pull(&store, None, true).await?;
            let (head, model) = (full.revision, into_model(records(full).await?));
            let got = got.and_then(|record| record.body);
            if revision.number >= head.number && got.as_ref() != model.get(id) {
                return Err(format!("{id} was said to be as of {revision}, and it is older"));
            }
            if revision.number < head.number {
                return Err(format!("nothing happened since {head}, and a get read {revision}"));
            }
        }
    }
    Ok(())
}

async fn private_kinds_are_had_one_by_one(fixture: &mut impl Fixture) -> Result<(), String> {
    let (store, mut since) = (fixture.open(), None);
    for puts in history() {
        fixture.apply(&puts).await;
        for known in [None, since] {
            let pull = store.pull(known).await.map_err(|error| error.to_string())?;
            since = Some(pull.revision);
            if let Some(leaked) = records(pull).await?.iter().find(|record| !record.id.kind.replicated()) {
                return Err(format!("{} is for those who manage, and was given to everybody", leaked.id));
            }
        }
        for (id, body) in puts.iter().filter(|(id, _)| !id.kind.replicated()) {
            let (_, got) = store.get(id).await.map_err(|error| error.to_string())?;
            if got.and_then(|record| record.body) != *body {
                return Err(format!("{id} is not what was written"));
            }
        }
    }
    Ok(())
}

async fn many_are_what_each_is(fixture: &mut impl Fixture) -> Result<(), String> {
    let (store, mut model) = (fixture.open(), Model::new());
    let ids: Vec<RecordId> = history().into_iter().flatten().map(|(id, _)| id).collect();
    let ids: Vec<RecordId> = ids.into_iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
    for puts in history() {
        fixture.apply(&puts).await;
        update(&mut model, &puts);
        let found = store.get_all(&ids).await.map_err(|error| error.to_string())?;
        if found.len() != model.len() || into_model(found) != model {
            return Err("many records are not what was written".to_owned());
        }
        if !store.get_all(&[]).await.map_err(|error| error.to_string())?.is_empty() {
            return Err("there is something where nothing was asked for".to_owned());
        }
        for kinds in [&[Kind::Key][..], &[Kind::Secret, Kind::Scope], &[]] {
            let (revision, found) = store.of_kinds(kinds).await.map_err(|error| error.to_string())?;
            let expected = model.iter().filter(|(id, _)| kinds.contains(&id.kind));
            let expected: Model = expected.map(|(id, body)| (id.clone(), body.clone())).collect();
            if found.len() != expected.len() || into_model(found) != expected {
                return Err(format!("what there is of {kinds:?} is not what was written"));
            }
            let head = pull(&store, None, true).await?.revision;
            if revision != head {
                return Err(format!("all of some kinds was said to be as of {revision}, and the head is {head}"));
            }
        }
    }
    Ok(())
}

/// One pull and its application, as a replica does it.
pub(super) async fn follow(
    store: &impl Store,
    replica: &mut Model,
    since: Option<Revision>,
) -> Result<Revision, String> {
    let pull = store.pull(since).await.map_err(|error| error.to_string())?;
    let (revision, full) = (pull.revision, pull.full);
    if full {
        replica.clear();
    }
    let puts: Vec<Put> = records(pull).await?.into_iter().map(|record| (record.id, record.body)).collect();
    update(replica, &puts);
    Ok(revision)
}

/// A pull that must be full, or must not.
pub(super) async fn pull(store: &impl Store, since: Option<Revision>, full: bool) -> Result<Pull, String> {
    let pull = store.pull(since).await.map_err(|error| error.to_string())?;
    match pull.full == full {
        true => Ok(pull),
        false => Err(format!("the pull since {since:?} at {} should be full: {full}", pull.revision)),
    }
}

pub(super) async fn records(pull: Pull) -> Result<Vec<Record>, String> {
    pull.records.collect().await.map_err(|error| error.to_string())
}

/// Every expectation is looked at, names the record that breaks it, and undoes the commit if it does. For stores that commit.
pub(super) async fn assert_expectations_hold(store: &impl Store) {
    let deleted = (RecordId::key("k3"), None);
    store.commit(commit_of(&[key("k1", "one"), key("k3", "three")])).await.unwrap();
    let head = store.commit(commit_of(&[key("k1", "again"), deleted.clone(), secret(7, "k1")])).await.unwrap();
    let before = everything(store).await;
    for (refused, named) in [
        (change(key("k1", "x"), Expect::Absent), "key k1"),
        (change(key("k1", "x"), Expect::At(1)), "key k1"),
        (change(key("k1", "x"), Expect::At(3)), "key k1"),
        (change(key("k2", "x"), Expect::At(1)), "key k2"),
        (change(key("k3", "x"), Expect::At(2)), "key k3"),
        (change(secret(7, "x"), Expect::Absent), "a secret"),
    ] {
        let error = store.commit(commit([change(key("k0", "x"), Expect::Any), refused])).await.unwrap_err();
        assert_eq!(error.to_string(), format!("{named} was created or changed meanwhile"));
        assert_eq!(store.pull(None).await.unwrap().revision, head);
    }
    assert_eq!(everything(store).await, before);
    let good = [
        change(key("k1", "x"), Expect::At(2)),
        change(key("k2", "x"), Expect::Absent),
        change(key("k3", "x"), Expect::Absent),
        change(key("k3", "y"), Expect::At(3)),
    ];
    assert_eq!(store.commit(commit(good)).await.unwrap().number, 3);
    assert_eq!(store.get(&RecordId::key("k3")).await.unwrap().1.unwrap().body, key("", "y").1);
}

/// All that a store holds.
pub(super) async fn everything(store: &impl Store) -> Model {
    into_model(records(pull(store, None, true).await.unwrap()).await.unwrap())
}

pub(super) fn into_model(records: Vec<Record>) -> Model {
    records.into_iter().filter_map(|record| Some((record.id, record.body?))).collect()
}

pub(super) fn update(model: &mut Model, puts: &[Put]) {
    for (id, body) in puts {
        match body {
            Some(body) => model.insert(id.clone(), body.clone()),
            None => model.remove(id),
        };
    }
}

/// Of what lives, that which pulls give.
pub(super) fn visible(model: &Model) -> Model {
    model.iter().filter(|(id, _)| id.kind.replicated()).map(|(id, body)| (id.clone(), body.clone())).collect()
}

fn same(found: &Model, expected: &Model) -> Result<(), String> {
    match *found == visible(expected) {
        true => Ok(()),
        false => Err(format!("found {:?}, expected {:?}", found.keys(), expected.keys())),
    }
}

/// Commits as they happen in the life of a store: made, changed, deleted, made again.
fn history() -> Vec<Vec<Put>> {
    vec![
        vec![scope("organization:acme"), key("k1", "CI"), secret(1, "k1")],
        vec![unique("email:ann@example.com", "u1"), password("u1", "first"), key("k0", "beside what nobody sees")],
        vec![password("u1", "second")],
        vec![key("k2", "CI"), secret(2, "k2"), secret(3, "k2")],
        vec![key("k1", "renamed"), (password("u1", "").0, None)],
        vec![(RecordId::key("k2"), None), (secret(2, "").0, None), (secret(3, "").0, None)],
        vec![key("k3", "short-lived"), secret(4, "k3")],
        vec![(RecordId::key("k3"), None), (secret(4, "").0, None), key("k4", "its heir"), secret(5, "k4")],
        vec![key("k2", "again"), secret(2, "k2")],
        vec![(secret(1, "").0, None), secret(6, "k1"), scope("organization:acme/project:p1")],
    ]
}

pub(super) fn key(id: &str, name: &str) -> Put {
    let time = Timestamp::from_millis(1_800_000_000_000);
    let body = KeyBody {
        name: name.to_owned(),
        key_type: KeyType::Api,
        owner: None,
        parent: None,
        tags: vec![],
        recoverable: false,
        user: None,
        scope: Scope::parse("organization:acme").ok(),
        env: Environment::Live,
        access: Access::ReadOnly,
        ips: vec!["10.0.0.0/8".to_owned()],
        rate_limit: None,
        expires_at: None,
        state: State::Active,
        created_by: None,
        created_time: time,
        updated_by: None,
        updated_time: time,
    };
    (RecordId::key(id), Some(to_json(&body)))
}

pub(super) fn secret(digest: u64, key: &str) -> Put {
    let time = Timestamp::from_millis(1_800_000_000_000);
    let body = SecretBody { key: key.to_owned(), hint: None, shape: None, not_after: None, created_time: time };
    (RecordId { kind: Kind::Secret, id: format!("{digest:032x}").into() }, Some(to_json(&body)))
}

fn password(user: &str, hash: &str) -> Put {
    let hash = PasswordHash(hash.to_owned());
    let body = PasswordBody { hash, created_time: Timestamp::from_millis(1_800_000_000_000) };
    (RecordId::new(Kind::Password, user), Some(to_json(&body)))
}

fn unique(name: &str, user: &str) -> Put {
    let body = UniqueBody { holder: Subject::User(user.into()), expires_at: None, created_time: None };
    (RecordId::new(Kind::Unique, name), Some(to_json(&body)))
}

pub(super) fn scope(path: &str) -> Put {
    let body = ScopeBody { state: ScopeState::Active, created_time: Timestamp::from_millis(1_800_000_000_000) };
    (RecordId { kind: Kind::Scope, id: path.into() }, Some(to_json(&body)))
}

pub(super) fn change((id, body): Put, expect: Expect) -> Change {
    Change { id, expect, body }
}

pub(super) fn commit(changes: impl IntoIterator<Item = Change>) -> Commit {
    Commit {
        actor: "tests".to_owned(),
        action: "test.commit",
        detail: serde_json::Value::Null,
        changes: changes.into_iter().collect(),
    }
}

/// A commit that expects nothing.
pub(super) fn commit_of(puts: &[Put]) -> Commit {
    commit(puts.iter().map(|put| change(put.clone(), Expect::Any)))
}
