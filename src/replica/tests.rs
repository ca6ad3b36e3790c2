//! What the replica must do, whatever order news comes in.

use std::collections::HashMap;

use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

use super::*;
use crate::auth::address::Networks;
use crate::auth::grant::{Access, Environment, State, Timestamp};

fn digest(n: u8) -> Digest {
    Digest::from_record_id(&format!("{n:02x}").repeat(16)).unwrap()
}

fn facts(name: &str) -> KeyFacts {
    KeyFacts {
        name: name.to_owned(),
        user: None,
        owner: None,
        parent: None,
        scope: None,
        environment: Environment::Live,
        access: Access::ReadWrite,
        networks: Networks::default(),
        limit: None,
        expires_at: Timestamp::NEVER,
        state: State::Active,
    }
}

fn key(id: &str, facts: KeyFacts) -> Change {
    Change::Key(id.into(), facts)
}

fn secret(n: u8, key: &str) -> Change {
    Change::Secret { digest: digest(n), key: key.into(), not_after: Timestamp::NEVER }
}

fn loaded(changes: impl IntoIterator<Item = Change>) -> (Arc<Replica>, Writer) {
    let (replica, mut writer) = Replica::new(Duration::from_secs(60));
    writer.apply(changes);
    writer.prove(Instant::now());
    (replica, writer)
}

fn name_of(replica: &Replica, n: u8) -> Option<String> {
    let view = replica.view(Instant::now());
    let grant = view.grant(&digest(n)).unwrap()?;
    Some(view.names(grant.key).name.to_owned())
}

#[test]
fn a_secret_opens_its_key_in_whatever_order_they_come() {
    let (replica, mut writer) = loaded([secret(1, "a"), key("a", facts("A")), secret(2, "a"), secret(3, "b")]);
    assert_eq!([1, 2, 3].map(|n| name_of(&replica, n)), [Some("A".into()), Some("A".into()), None]);

    writer.apply([key("a", facts("A2")), key("b", facts("B"))]);
    assert_eq!([1, 2, 3].map(|n| name_of(&replica, n)), [Some("A2".into()), Some("A2".into()), Some("B".into())]);

    writer.apply([Change::KeyGone("a".into()), Change::SecretGone(digest(3))]);
    assert_eq!([1, 2, 3].map(|n| name_of(&replica, n)), [None, None, None]);
    assert_eq!(writer.counts(), Counts { scopes: 0, users: 0, keys: 1, secrets: 0 });

    writer.apply([key("a", facts("A3")), secret(3, "b")]);
    assert_eq!([1, 2, 3].map(|n| name_of(&replica, n)), [Some("A3".into()), Some("A3".into()), Some("B".into())]);
}

#[test]
fn a_change_of_a_key_reaches_all_its_secrets_and_keeps_their_end() {
    let ends = Change::Secret { digest: digest(2), key: "a".into(), not_after: Timestamp::from_millis(5) };
    let (replica, mut writer) = loaded([key("a", facts("A")), secret(1, "a"), ends]);
    writer.apply([key("a", KeyFacts { state: State::Revoked, user: Some("u".into()), ..facts("A") })]);
    let view = replica.view(Instant::now());
    let grants = [1, 2].map(|n| view.grant(&digest(n)).unwrap().unwrap());
    assert!(grants.iter().all(|g| g.state == State::Revoked && view.names(g.key).user == Some("u")));
    assert_eq!(grants.map(|g| g.not_after), [Timestamp::NEVER, Timestamp::from_millis(5)]);
}

#[test]
fn a_live_key_is_never_unknown_while_its_secret_is_written_again() {
    let (replica, mut writer) = loaded([key("a", facts("A")), secret(1, "a"), secret(2, "a")]);
    let (reader, done) = (replica.clone(), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let stop = done.clone();
    let looking = std::thread::spawn(move || {
        let mut unknown = 0;
        while !stop.load(Relaxed) {
            unknown += usize::from(reader.view(Instant::now()).grant(&digest(1)) == Ok(None));
        }
        unknown
    });
    for n in 0..50_000 {
        let not_after = Timestamp::from_millis(u64::MAX - n);
        writer.apply([Change::Secret { digest: digest(1), key: "a".into(), not_after }]);
    }
    done.store(true, Relaxed);
    assert_eq!(looking.join().unwrap(), 0);
}

#[test]
fn a_scope_works_only_with_all_above_it() {
    let scope = |text| Scope::parse(text).unwrap();
    let project = scope("organization:acme/project:p1");
    let (replica, mut writer) =
        loaded([key("a", KeyFacts { scope: Some(project.clone()), ..facts("A") }), secret(1, "a")]);
    let is_active = || {
        let view = replica.view(Instant::now());
        view.is_active(view.grant(&digest(1)).unwrap().unwrap().scope)
    };
    assert!(!is_active(), "a dangling scope grants nothing");
    writer.apply([Change::Scope { scope: project.clone(), active: true }]);
    assert!(!is_active(), "nor does one whose parent is missing");
    writer.apply([Change::Scope { scope: scope("organization:acme"), active: true }]);
    assert!(is_active());
    writer.apply([Change::Scope { scope: scope("organization:acme"), active: false }]);
    assert!(!is_active(), "one change above is enough");
    writer.apply([Change::Scope { scope: scope("organization:acme"), active: true }, Change::ScopeGone(project)]);
    assert!(!is_active());
}

#[test]
fn a_step_names_a_scope_only_if_there_is_one_such() {
    let scope = |text| Change::Scope { scope: Scope::parse(text).unwrap(), active: true };
    let step = Scope::parse("project:p1").unwrap().step().clone();
    let (replica, mut writer) =
        loaded([scope("organization:a"), scope("organization:b"), scope("organization:a/project:p1")]);
    let found = || replica.view(Instant::now()).scope_of_step(&step).map(ToString::to_string);
    assert_eq!(found().as_deref(), Some("organization:a/project:p1"));
    writer.apply([scope("organization:b/project:p1")]);
    assert_eq!(found(), None);
}

#[test]
fn an_unknown_address_is_only_on_the_list_of_any() {
    let networks = Networks::parse(["10.0.0.0/8"]).unwrap();
    let (replica, _writer) =
        loaded([key("a", KeyFacts { networks, ..facts("A") }), secret(1, "a"), key("b", facts("B")), secret(2, "b")]);
    let view = replica.view(Instant::now());
    let allows = |n, address: Option<&str>| {
        view.allows(view.grant(&digest(n)).unwrap().unwrap().restrictions, address.map(|a| a.parse().unwrap()))
    };
    assert_eq!(
        [allows(1, Some("10.1.1.1")), allows(1, Some("11.1.1.1")), allows(1, None), allows(2, None)],
        [true, false, false, true]
    );
}

#[test]
fn what_was_taken_of_a_limit_is_forgotten_only_with_the_limit() {
    let limited = |name: &str| KeyFacts { limit: "2/1h".parse().ok(), ..facts(name) };
    let (replica, mut writer) = loaded([key("a", limited("A")), secret(1, "a"), secret(2, "a"), key("b", facts("B"))]);
    let began = Instant::now();
    let take = |n, seconds| {
        let view = replica.view(began + Duration::from_secs(seconds));
        view.take(&view.grant(&digest(n)).unwrap().unwrap()).map_err(|exhausted| exhausted.retry_after)
    };
    assert_eq!([take(1, 0), take(2, 0), take(1, 0), take(2, 1)], [Ok(()), Ok(()), Err(1800), Err(1799)]);

    // Neither by a change of something else, nor by another name, nor by a full pull.
    writer.apply([key("a", KeyFacts { access: Access::ReadOnly, ..limited("A") })]);
    writer.apply([key("a", limited("A2")), secret(3, "b")]);
    assert_eq!(take(1, 1), Err(1799));
    let mut draft = writer.draft();
    [key("a", limited("A3")), secret(1, "a"), key("b", facts("B")), secret(3, "b")]
        .into_iter()
        .for_each(|change| draft.apply(change));
    writer.replace(draft);
    assert_eq!([take(1, 1), take(3, 1), take(3, 1), take(3, 1)], [Err(1799), Ok(()), Ok(()), Ok(())]);
    assert_eq!(writer.draft.meters().len(), 1, "a key without a limit has no meter");

    // A higher limit holds at once, and what was taken counts.
    writer.apply([key("a", KeyFacts { limit: "3/1h".parse().ok(), ..facts("A3") })]);
    assert_eq!([take(1, 1), take(1, 1)], [Ok(()), Err(1200)]);

    writer.apply([key("a", facts("A3"))]);
    for gone in [
        key("a", facts("A3")),
        key("a", KeyFacts { state: State::Revoked, ..limited("A3") }),
        Change::KeyGone("a".into()),
    ] {
        writer.apply([key("a", limited("A3")), secret(1, "a")]);
        assert_eq!([take(1, 1), take(1, 1), take(1, 1)], [Ok(()), Ok(()), Err(1800)]);
        writer.apply([gone]);
        assert_eq!(writer.draft.meters().len(), 0);
    }
    writer.apply([key("a", limited("A3")), secret(1, "a")]);
    assert_eq!(take(1, 1), Ok(()));
    let draft = writer.draft();
    writer.replace(draft);
    assert_eq!(writer.draft.meters().len(), 0, "nor does a full pull without the key leave one");
}

#[test]
fn c_503_nothing_is_known_before_the_first_pull_or_after_the_last_has_aged() {
    let (replica, mut writer) = Replica::new(Duration::from_secs(60));
    let now = Instant::now();
    let grant = |at| replica.view(at).grant(&digest(1));
    assert_eq!(grant(now), Err(Unavailable::NotLoaded));
    writer.prove(now);
    assert_eq!(grant(now), Ok(None));
    assert_eq!(grant(now + Duration::from_secs(59)), Ok(None));
    assert_eq!(grant(now + Duration::from_secs(61)), Err(Unavailable::Expired));
    assert!(matches!(replica.status(now + Duration::from_secs(61)), Status::Expired(_)));
}

/// Random news about two keys and three secrets.
fn change() -> impl Strategy<Value = Change> {
    let id = prop_oneof![Just("a"), Just("b")];
    let keys = (id.clone(), 0_u8..3).prop_map(|(id, n)| key(id, facts(&format!("{id}{n}"))));
    let secrets = (0_u8..3, id.clone()).prop_map(|(n, id)| secret(n, id));
    let gone = prop_oneof![
        id.prop_map(|id| Change::KeyGone(id.into())),
        (0_u8..3).prop_map(|n| Change::SecretGone(digest(n)))
    ];
    prop_oneof![keys, secrets, gone]
}

proptest! {
    #[test]
    fn deltas_come_to_what_a_full_pull_would(changes in proptest::collection::vec(change(), 0..24), order in any::<bool>()) {
        let (mut names, mut owners) = (HashMap::new(), HashMap::new());
        for change in &changes {
            match change.clone() {
                Change::Key(id, facts) => { names.insert(id, facts.name); }
                Change::KeyGone(id) => { names.remove(&id); }
                Change::Secret { digest, key, .. } => { owners.insert(digest, key); }
                Change::SecretGone(digest) => { owners.remove(&digest); }
                Change::Scope { .. } | Change::ScopeGone(_) | Change::User { .. } | Change::UserGone(_) => {}
            }
        }
        let expected = [0, 1, 2].map(|n| owners.get(&digest(n)).and_then(|key| names.get(key)).cloned());
        let (replica, mut writer) = loaded([]);
        changes.into_iter().for_each(|change| writer.apply([change]));
        prop_assert_eq!([0, 1, 2].map(|n| name_of(&replica, n)), expected.clone());

        let mut full: Vec<Change> = names.into_iter().map(|(id, name)| Change::Key(id, facts(&name))).collect();
        full.extend(owners.into_iter().map(|(digest, key)| Change::Secret { digest, key, not_after: Timestamp::NEVER }));
        if order { full.reverse(); }
        let mut draft = writer.draft();
        full.into_iter().for_each(|change| draft.apply(change));
        let before = writer.counts();
        writer.replace(draft);
        prop_assert_eq!([0, 1, 2].map(|n| name_of(&replica, n)), expected);
        prop_assert_eq!(before, writer.counts());
    }
}

/// Failure 20: one change of a user, or of a key, counts for all keys that lean on it, in whatever order they came.
#[test]
fn failure_20_owners_and_parents_are_looked_up_and_not_copied() {
    let owned = |owner: &str| KeyFacts { owner: Some(owner.into()), ..facts("owned") };
    let below = |parent: &str| KeyFacts { parent: Some(parent.into()), ..facts("below") };
    let user = |standing| Change::User { id: "ann".into(), standing };
    let (replica, mut writer) = loaded([
        key("k1", owned("ann")),
        secret(1, "k1"),
        key("k2", below("k3")),
        secret(2, "k2"),
        key("k3", owned("ann")),
        key("k4", below("k2")),
        secret(4, "k4"),
    ]);
    let standing = |n: u8| {
        let view = replica.view(Instant::now());
        let mut grant = view.grant(&digest(n)).unwrap().unwrap();
        while let Some(parent) = grant.lineage.parent {
            grant = view.parent(parent)?;
        }
        Some(view.standing(grant.lineage.owner.unwrap()))
    };
    let all = || [1, 2, 4].map(standing);
    assert_eq!(all(), [Some(Standing::Suspended); 3], "nobody has heard of the user");
    for state in [Standing::Good, Standing::NoApiAccess, Standing::Good, Standing::Suspended, Standing::Good] {
        writer.apply([user(state)]);
        assert_eq!(all(), [Some(state); 3]);
    }
    assert_eq!(writer.counts().users, 1);
    writer.apply([Change::UserGone("ann".into())]);
    assert_eq!((all(), writer.counts().users), ([Some(Standing::Suspended); 3], 0));

    // The key above gets a secret, another name and another state, and goes.
    let parent_of = |n: u8| {
        let view = replica.view(Instant::now());
        view.parent(view.grant(&digest(n)).unwrap().unwrap().lineage.parent.unwrap())
    };
    writer.apply([Change::Secret { digest: digest(3), key: "k3".into(), not_after: Timestamp::from_millis(1) }]);
    assert_eq!(parent_of(2).unwrap().not_after, Timestamp::NEVER, "a secret's end is not its key's");
    writer.apply([key("k3", KeyFacts { state: State::Revoked, name: "renamed".to_owned(), ..owned("ann") })]);
    assert_eq!(parent_of(2).unwrap().state, State::Revoked);
    assert_eq!(replica.view(Instant::now()).names(parent_of(2).unwrap().key).name, "renamed");
    writer.apply([Change::KeyGone("k3".into())]);
    assert_eq!((parent_of(2), parent_of(4).is_some()), (None, true));
    writer.apply([key("k3", facts("back"))]);
    assert_eq!(parent_of(2).unwrap().state, State::Active);
}

/// Failure 8: everything is read anew, and nothing of it is new. A design that begins with an empty table would forget what was
/// taken of limits and how often keys were used, and know nobody for a moment.
#[test]
fn failure_8_a_full_pull_of_what_is_there_already_changes_nothing_that_is_kept() {
    let limited = KeyFacts { limit: crate::auth::limit::Limit::new(2, 3_600).ok(), ..facts("limited") };
    let all = || [key("k1", limited.clone()), secret(1, "k1"), key("k2", facts("two")), secret(2, "k2")];
    let (replica, mut writer) = loaded(all());
    let mut collector = usage::Collector::default();
    let minute = Timestamp::from_millis(1_800_000_000_000);
    let take = || {
        let view = replica.view(Instant::now());
        let grant = view.grant(&digest(1)).unwrap().unwrap();
        let taken = view.take(&grant).is_ok();
        view.used(&grant, digest(1), None, minute);
        taken
    };
    assert!(take());
    let done = std::sync::atomic::AtomicBool::new(false);
    let unknown = std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut unknown = 0;
            while !done.load(Relaxed) {
                unknown += usize::from(name_of(&replica, 2).is_none());
            }
            unknown
        });
        for _ in 0..200 {
            let mut draft = writer.draft();
            all().into_iter().for_each(|change| draft.apply(change));
            writer.replace(draft);
        }
        done.store(true, Relaxed);
        looking.join().unwrap()
    });
    assert_eq!(unknown, 0, "a key was unknown for a moment");
    assert!(take() && !take(), "what was taken of the limit stays taken");
    let counted: u64 = collector.collect(&replica.tallies(), minute).iter().map(|used| used.count).sum();
    assert_eq!(counted, 3, "and no use is lost");
    let tallies = replica.view(Instant::now()).grant(&digest(2)).unwrap().unwrap().tally;
    assert_eq!(tallies.0, 1, "nor is another place taken for the same secret");
}

/// A snapshot is as old as what it says, also where that is older than this process.
#[test]
fn failure_18_the_age_of_a_snapshot_counts() {
    let (replica, mut writer) = Replica::new(Duration::from_secs(60));
    for (age, usable) in [(0, true), (59, true), (61, false), (100_000_000_000, false)] {
        writer.prove_aged(Duration::from_secs(age));
        assert_eq!(matches!(replica.status(Instant::now()), Status::Usable(_)), usable, "{age}");
    }
    writer.prove(Instant::now());
    assert!(matches!(replica.status(Instant::now()), Status::Usable(_)));
}

mod designs;
mod directory;
mod steps;
