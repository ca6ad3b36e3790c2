//! What stands behind a key: the user who owns it, and the keys above it. They are looked up at each request, so that one
//! change of a user or a parent counts for all keys below at once. A key with neither is not looked up at all.

use std::net::IpAddr;

use super::decision::Denial;
use super::grant::{Access, Grant, Keys, Lineage, ScopeIndex, Standing, State, Timestamp, UserIndex};
use super::limit::Exhausted;
use super::scope::Scope;

/// How many keys may stand above one another. Management makes no more; what is deeper, or goes in circles, works for nobody.
pub const DEEPEST: usize = 8;

/// A key as it may be used now: live itself, with all that stands behind it, and narrowed to what all of that may.
///
/// # Errors
/// When it may not be used at all, whatever for.
pub(super) fn stand(grant: Grant, keys: &impl Keys, now: Timestamp) -> Result<Grant, Denial> {
    is_live(&grant, keys, now)?;
    if grant.lineage == Lineage::NONE {
        return Ok(grant);
    }
    may_own(grant.lineage.owner, keys)?;
    let mut narrowed = grant;
    for parent in ancestors(&grant, keys) {
        let parent = parent.filter(|parent| is_live(parent, keys, now).is_ok()).ok_or(Denial::DeadParent)?;
        may_own(parent.lineage.owner, keys)?;
        narrow(&mut narrowed, &parent, keys)?;
    }
    Ok(narrowed)
}

/// Whether it may be used from an address, and so may all above it.
pub(super) fn allows(grant: &Grant, keys: &impl Keys, client: Option<IpAddr>) -> bool {
    let all = |parent: Option<Grant>| parent.is_some_and(|parent| keys.allows(parent.restrictions, client));
    keys.allows(grant.restrictions, client) && ancestors(grant, keys).all(all)
}

/// Takes a request from its limit and from those of all above it: children share what their parent may.
pub(super) fn take(grant: &Grant, keys: &impl Keys) -> Result<(), Exhausted> {
    if grant.is_limited {
        keys.take(grant)?;
    }
    ancestors(grant, keys).flatten().filter(|parent| parent.is_limited).try_for_each(|parent| keys.take(&parent))
}

/// The keys above one, from the next upwards; ends with `None` where one is missing or there are too many.
fn ancestors(grant: &Grant, keys: &impl Keys) -> impl Iterator<Item = Option<Grant>> {
    let mut next = grant.lineage.parent;
    let mut depth = 0;
    std::iter::from_fn(move || {
        let index = next.take()?;
        depth += 1;
        let parent = keys.parent(index).filter(|_| depth <= DEEPEST);
        next = parent.and_then(|parent| parent.lineage.parent);
        Some(parent)
    })
}

fn is_live(grant: &Grant, keys: &impl Keys, now: Timestamp) -> Result<(), Denial> {
    match grant.state {
        State::Revoked => Err(Denial::RevokedCredential),
        State::Disabled => Err(Denial::DisabledCredential),
        State::Active if grant.expires_at.min(grant.not_after) <= now => Err(Denial::ExpiredCredential),
        State::Active if !keys.is_active(grant.scope) => Err(Denial::SuspendedScope),
        State::Active => Ok(()),
    }
}

fn may_own(owner: Option<UserIndex>, keys: &impl Keys) -> Result<(), Denial> {
    match owner.map(|owner| keys.standing(owner)) {
        None | Some(Standing::Good) => Ok(()),
        Some(Standing::NoApiAccess) => Err(Denial::NoApiAccess),
        Some(Standing::Suspended) => Err(Denial::SuspendedUser),
    }
}

/// Leaves of a key what one above it may as well.
fn narrow(grant: &mut Grant, parent: &Grant, keys: &impl Keys) -> Result<(), Denial> {
    if parent.access == Access::ReadOnly {
        grant.access = Access::ReadOnly;
    }
    if parent.environment != grant.environment {
        return Err(Denial::WrongEnvironment);
    }
    grant.expires_at = grant.expires_at.min(parent.expires_at);
    if parent.scope != ScopeIndex::EVERYWHERE && parent.scope != grant.scope {
        grant.scope = match (keys.scope(grant.scope), keys.scope(parent.scope)) {
            (Some(own), Some(above)) if above.covers(own) => grant.scope,
            (own, Some(above)) if own.is_none_or(|own: &Scope| own.covers(above)) => parent.scope,
            _ => return Err(Denial::OutsideScope),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::num::NonZero;

    use super::*;
    use crate::auth::digest::Digest;
    use crate::auth::good_until;
    use crate::auth::grant::{Environment, KeyIndex, ParentIndex, RestrictionsIndex, TallyIndex, Unavailable};
    use crate::auth::limit::Limit;
    use crate::auth::scope::Step;

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    /// Keys above one another, from the one in question upwards, and the users who own them.
    struct Family {
        keys: Vec<Grant>,
        users: Vec<Standing>,
        scopes: Vec<Scope>,
        taken: Cell<u32>,
    }

    impl Family {
        /// That many keys, one above the other, each of which may do everything.
        fn of(count: u32) -> Self {
            let key = |number| Grant {
                key: KeyIndex(number),
                scope: ScopeIndex::EVERYWHERE,
                restrictions: RestrictionsIndex::NONE,
                lineage: Lineage {
                    owner: None,
                    parent: NonZero::new(number + 1).filter(|above| above.get() < count).map(ParentIndex),
                },
                tally: TallyIndex::NONE,
                expires_at: Timestamp::NEVER,
                not_after: Timestamp::NEVER,
                access: Access::ReadWrite,
                environment: Environment::Live,
                state: State::Active,
                is_limited: false,
            };
            let scopes = ["organization:a", "organization:a/project:p", "organization:b"];
            let scopes = scopes.map(|scope| Scope::parse(scope).unwrap()).to_vec();
            let users = vec![Standing::Good, Standing::NoApiAccess, Standing::Suspended];
            Self { keys: (0..count).map(key).collect(), users, scopes, taken: Cell::new(0) }
        }

        fn with(count: u32, change: impl FnOnce(&mut [Grant])) -> Self {
            let mut family = Self::of(count);
            change(&mut family.keys);
            family
        }

        fn stand(&self) -> Result<Grant, Denial> {
            stand(self.keys[0], self, NOW)
        }
    }

    impl Keys for Family {
        fn has_turned(&self) -> bool {
            false
        }

        fn grant(&self, _digest: &Digest) -> Result<Option<Grant>, Unavailable> {
            Ok(Some(self.keys[0]))
        }

        fn scope(&self, index: ScopeIndex) -> Option<&Scope> {
            self.scopes.get(index.0 as usize)
        }

        fn scope_of_step(&self, _step: &Step) -> Option<&Scope> {
            None
        }

        fn is_active(&self, index: ScopeIndex) -> bool {
            index == ScopeIndex::EVERYWHERE || self.scope(index).is_some()
        }

        fn standing(&self, user: UserIndex) -> Standing {
            self.users.get(user.0.get() as usize - 1).copied().unwrap_or(Standing::Suspended)
        }

        fn parent(&self, index: ParentIndex) -> Option<Grant> {
            self.keys.get(index.0.get() as usize).copied()
        }

        fn allows(&self, restrictions: RestrictionsIndex, _address: Option<IpAddr>) -> bool {
            restrictions == RestrictionsIndex::NONE
        }

        fn take(&self, grant: &Grant) -> Result<(), Exhausted> {
            self.taken.set(self.taken.get() + 1);
            let exhausted = Exhausted { limit: Limit::new(1, 60).unwrap(), retry_after: 60 };
            if grant.restrictions == RestrictionsIndex::NONE { Ok(()) } else { Err(exhausted) }
        }
    }

    fn user(number: u32) -> Option<UserIndex> {
        NonZero::new(number).map(UserIndex)
    }

    /// Failure 20, and B7: whatever happens to those who stand behind a key happens to the key.
    #[test]
    fn failure_20_a_key_lives_no_longer_than_what_stands_behind_it() {
        let digest = Digest::from_record_id(&"5a".repeat(16)).unwrap();
        for (family, expected) in [
            (Family::of(3), Ok(())),
            (Family::with(1, |keys| keys[0].lineage.owner = user(1)), Ok(())),
            (Family::with(1, |keys| keys[0].lineage.owner = user(2)), Err(Denial::NoApiAccess)),
            (Family::with(1, |keys| keys[0].lineage.owner = user(3)), Err(Denial::SuspendedUser)),
            (Family::with(1, |keys| keys[0].lineage.owner = user(4)), Err(Denial::SuspendedUser)),
            (Family::with(3, |keys| keys[2].lineage.owner = user(2)), Err(Denial::NoApiAccess)),
            (Family::with(3, |keys| keys[1].state = State::Revoked), Err(Denial::DeadParent)),
            (Family::with(3, |keys| keys[2].state = State::Disabled), Err(Denial::DeadParent)),
            (Family::with(3, |keys| keys[2].expires_at = NOW), Err(Denial::DeadParent)),
            (Family::with(3, |keys| keys[2].scope = ScopeIndex(7)), Err(Denial::DeadParent)),
            (
                Family::with(3, |keys| keys[2].lineage.parent = NonZero::new(9).map(ParentIndex)),
                Err(Denial::DeadParent),
            ),
            (
                Family::with(3, |keys| keys[2].lineage.parent = NonZero::new(1).map(ParentIndex)),
                Err(Denial::DeadParent),
            ),
            (Family::of(u32::try_from(DEEPEST).unwrap() + 1), Ok(())),
            (Family::of(u32::try_from(DEEPEST).unwrap() + 2), Err(Denial::DeadParent)),
            (Family::with(3, |keys| keys[2].environment = Environment::Test), Err(Denial::WrongEnvironment)),
            // Its own state is what is said of a key that is dead itself.
            (
                Family::with(2, |keys| (keys[0].state, keys[1].state) = (State::Revoked, State::Disabled)),
                Err(Denial::RevokedCredential),
            ),
        ] {
            assert_eq!(family.stand().map(|_| ()), expected, "{:?}", family.keys);
            // What has begun ends with it.
            assert_eq!(good_until(&family, &digest, None, NOW).map(|_| ()), expected);
        }
    }

    #[test]
    fn a_key_may_no_more_than_those_above_it() {
        let [all, a, project, b] = [ScopeIndex::EVERYWHERE, ScopeIndex(0), ScopeIndex(1), ScopeIndex(2)];
        for (own, above, expected) in [
            (all, all, Ok(all)),
            (all, a, Ok(a)),
            (a, all, Ok(a)),
            (a, a, Ok(a)),
            (project, a, Ok(project)),
            (a, project, Ok(project)),
            (a, b, Err(Denial::OutsideScope)),
        ] {
            let family = Family::with(3, |keys| (keys[0].scope, keys[2].scope) = (own, above));
            assert_eq!(family.stand().map(|grant| grant.scope), expected, "{own:?} below {above:?}");
        }
        let family = Family::with(3, |keys| {
            (keys[0].expires_at, keys[2].expires_at) = (Timestamp::from_millis(9_000), Timestamp::from_millis(5_000));
            keys[1].access = Access::ReadOnly;
        });
        let grant = family.stand().unwrap();
        assert_eq!((grant.access, grant.expires_at), (Access::ReadOnly, Timestamp::from_millis(5_000)));
    }

    #[test]
    fn addresses_and_limits_are_those_of_all_above() {
        let nowhere = RestrictionsIndex(0);
        let family = Family::with(3, |keys| keys[2].restrictions = nowhere);
        assert!(!allows(&family.keys[0], &family, None));
        let family = Family::of(3);
        assert!(allows(&family.keys[0], &family, None) && take(&family.keys[0], &family).is_ok());
        assert_eq!(family.taken.get(), 0, "nobody is asked who has no limit");
        let family = Family::with(3, |keys| keys.iter_mut().for_each(|key| key.is_limited = true));
        assert!(take(&family.keys[0], &family).is_ok());
        assert_eq!(family.taken.get(), 3);
        let family = Family::with(3, |keys| (keys[1].is_limited, keys[1].restrictions) = (true, nowhere));
        assert!(take(&family.keys[0], &family).is_err());
    }
}
