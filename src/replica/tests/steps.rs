//! What a request may see while a delta is applied.

use proptest::prelude::prop_assert;

use super::*;
use crate::auth::grant::Standing;

/// Two keys, each with two secrets, one user and one scope, as one state of the store has them.
#[derive(Clone, Debug)]
struct Site {
    /// Of the user: whether there is one, and good.
    user: Option<bool>,
    /// Of the scope: whether there is one, and active.
    scope: Option<bool>,
    keys: [Option<KeyFacts>; 2],
    /// When each secret ends.
    secrets: [Option<u64>; 4],
}

fn scope() -> Scope {
    Scope::parse("organization:acme").unwrap()
}

fn a_key() -> impl Strategy<Value = KeyFacts> {
    let state = prop_oneof![4 => Just(State::Active), 1 => Just(State::Disabled), 1 => Just(State::Revoked)];
    (state, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(state, looks, owned, placed)| KeyFacts {
        state,
        access: if looks { Access::ReadOnly } else { Access::ReadWrite },
        owner: owned.then(|| "ann".into()),
        scope: placed.then(scope),
        ..facts("A")
    })
}

fn site() -> impl Strategy<Value = Site> {
    let key = || proptest::option::weighted(0.8, a_key());
    let secret = || proptest::option::weighted(0.8, prop_oneof![Just(10), Just(20), Just(u64::MAX)]);
    let some = || proptest::option::weighted(0.8, any::<bool>());
    (some(), some(), [key(), key()], [secret(), secret(), secret(), secret()])
        .prop_map(|(user, scope, keys, secrets)| Site { user, scope, keys, secrets })
}

impl Site {
    /// All of it, as news: what is not there, too.
    fn news(&self) -> Vec<Change> {
        let id = |n: usize| -> Box<str> { ["a", "b"][n].into() };
        let standing = |good| if good { Standing::Good } else { Standing::NoApiAccess };
        let user = self
            .user
            .map_or(Change::UserGone("ann".into()), |good| Change::User { id: "ann".into(), standing: standing(good) });
        let scope = self.scope.map_or(Change::ScopeGone(scope()), |active| Change::Scope { scope: scope(), active });
        let keys = self.keys.iter().enumerate();
        let keys = keys.map(|(n, key)| key.clone().map_or(Change::KeyGone(id(n)), |facts| Change::Key(id(n), facts)));
        let secrets = (0_u8..).zip(&self.secrets).map(|(n, ends)| match ends {
            None => Change::SecretGone(digest(n)),
            Some(ends) => {
                let not_after = if *ends == u64::MAX { Timestamp::NEVER } else { Timestamp::from_millis(*ends) };
                Change::Secret { digest: digest(n), key: id(usize::from(n) / 2), not_after }
            }
        });
        [user, scope].into_iter().chain(keys).chain(secrets).collect()
    }
}

/// What a secret is good for at a time: nothing, looking, or everything.
fn good_for(replica: &Replica, n: u8, now: u64) -> Option<Access> {
    let view = replica.view(Instant::now());
    let grant = view.grant(&digest(n)).unwrap()?;
    let is_live = grant.state == State::Active && grant.not_after > Timestamp::from_millis(now);
    let owner = grant.lineage.owner.is_none_or(|owner| view.standing(owner) == Standing::Good);
    (is_live && owner && view.is_active(grant.scope)).then_some(grant.access)
}

fn all(replica: &Replica) -> Vec<Option<Access>> {
    [0, 15, 25].into_iter().flat_map(|now| (0..4).map(move |n| good_for(replica, n, now))).collect()
}

proptest! {
    /// Between any two steps nothing is open that was not before and will not be. Sorted by kind, a key that is enabled again
    /// while its old secret ends would be open to that secret in between.
    #[test]
    fn nothing_is_open_while_a_delta_is_applied_that_was_not_and_will_not_be(was in site(), is in site()) {
        let (replica, mut writer) = loaded(was.news());
        let before = all(&replica);
        let mut seen = Vec::new();
        for (_, change) in writer.draft.in_steps(is.news()) {
            writer.draft.apply(change);
            seen.push(all(&replica));
        }
        let (other, _writer) = loaded(is.news());
        let after = all(&other);
        prop_assert_eq!(seen.last().unwrap(), &after);
        for between in seen {
            for (place, open) in between.iter().enumerate() {
                prop_assert!(open.is_none() || *open == before[place] || *open == after[place], "{place}: {open:?}");
            }
        }
    }
}

#[test]
fn who_has_looked_before_and_after_is_told_to_look_again() {
    let (replica, mut writer) = loaded([key("a", facts("A")), secret(1, "a"), secret(2, "a")]);
    let view = replica.view(Instant::now());
    assert!(!view.has_turned());
    writer.apply([secret(3, "a"), secret(4, "a")]);
    writer.apply([Change::SecretGone(digest(1)), Change::SecretGone(digest(2))]);
    assert!(!view.has_turned(), "neither of them does both");
    writer.apply([key("a", KeyFacts { state: State::Disabled, ..facts("A") }), Change::SecretGone(digest(3))]);
    assert!(!view.has_turned());
    writer.apply([key("a", facts("A")), Change::SecretGone(digest(4))]);
    assert!(view.has_turned());
    assert!(!view.has_turned(), "once");
    assert!(!replica.view(Instant::now()).has_turned(), "what is made now sees only what is");
}

#[test]
fn a_pull_that_breaks_off_leaves_no_places_behind() {
    let (_replica, mut writer) = loaded([key("a", facts("A")), secret(0, "a")]);
    let tally = |writer: &Writer, n| writer.draft.table().grant(&digest(n)).unwrap().tally;
    for _ in 0..3 {
        let mut draft = writer.draft();
        [key("a", facts("A")), secret(0, "a"), secret(1, "a"), secret(2, "a")]
            .into_iter()
            .for_each(|change| draft.apply(change));
    }
    writer.apply([secret(3, "a")]);
    let mut draft = writer.draft();
    [key("a", facts("A")), secret(0, "a"), secret(3, "a"), secret(4, "a")]
        .into_iter()
        .for_each(|change| draft.apply(change));
    writer.replace(draft);
    writer.apply([secret(5, "a")]);
    assert_eq!([0, 3, 4, 5].map(|n| tally(&writer, n).0), [0, 1, 2, 3], "each has its own, and none is lost");
}
