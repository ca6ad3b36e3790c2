//! What a user or a key may manage, from what the records say of them now.

use crate::auth::authority::{Authority, BuiltIn, Permissions};
use crate::auth::grant::{Access, State, Timestamp};
use crate::auth::lineage::DEEPEST;
use crate::auth::scope::Scope;
use crate::store::record::{BindingBody, RoleBody, Subject, UserBody, UserState};

/// What the authority of a key depends on.
pub struct Held {
    /// Where it acts; everywhere if absent.
    pub scope: Option<Scope>,
    /// What it may do.
    pub access: Access,
    /// Its state.
    pub state: State,
    /// When it ends.
    pub expires_at: Timestamp,
    /// The user whose account it is bound to.
    pub owner: Option<Box<str>>,
    /// The key above it.
    pub parent: Option<Box<str>>,
}

/// The records that authority is read from, as the index of a management node has them.
pub trait View {
    /// A user.
    fn user(&self, id: &str) -> Option<UserBody>;
    /// A key.
    fn key(&self, id: &str) -> Option<Held>;
    /// A role that is not built in.
    fn role(&self, name: &str) -> Option<RoleBody>;
    /// All that bind a subject to a role.
    fn bindings(&self, subject: &Subject) -> Vec<BindingBody>;
    /// Whether a scope and all above it are there and active.
    fn is_active(&self, scope: &Scope) -> bool;
}

/// What a role permits; nothing where there is no such role.
pub fn permissions_of(role: &str, view: &impl View) -> Permissions {
    match BuiltIn::parse(role) {
        Some(role) => role.permissions(),
        None => view.role(role).as_ref().map(of_record).unwrap_or_default(),
    }
}

/// What the record of a role permits.
pub fn of_record(role: &RoleBody) -> Permissions {
    let permissions = Permissions::of(&role.permissions);
    if role.observer { permissions.looking() } else { permissions }
}

/// What somebody may manage now. Who is suspended, revoked, ended or unknown may nothing.
///
/// A key has the roles that are bound to it, and no others: one that was made for requests to the upstream manages nothing.
/// Of these there is left what its scope, its access, its owner and the keys above it allow.
pub fn authority_of(subject: &Subject, view: &impl View, now: Timestamp) -> Authority {
    match subject {
        Subject::User(id) => match view.user(id) {
            Some(user) if user.state == UserState::Active => bound(subject, view),
            Some(_) | None => Authority::NONE,
        },
        Subject::Key(id) => of_key(id, view, now, 0),
    }
}

fn of_key(id: &str, view: &impl View, now: Timestamp, depth: usize) -> Authority {
    let Some(key) = view.key(id).filter(|key| depth <= DEEPEST && is_live(key, view, now)) else {
        return Authority::NONE;
    };
    let mut authority = bound(&Subject::Key(id.into()), view).within(key.scope.as_ref());
    if key.access == Access::ReadOnly {
        authority = authority.looking();
    }
    if let Some(owner) = &key.owner {
        authority = authority.and(&authority_of(&Subject::User(owner.clone()), view, now));
    }
    match &key.parent {
        Some(parent) => authority.and(&of_key(parent, view, now, depth + 1)),
        None => authority,
    }
}

fn is_live(key: &Held, view: &impl View, now: Timestamp) -> bool {
    let owner = |id: &str| view.user(id).is_some_and(|user| user.state == UserState::Active && user.api_access);
    key.state == State::Active
        && key.expires_at > now
        && key.scope.as_ref().is_none_or(|scope| view.is_active(scope))
        && key.owner.as_deref().is_none_or(owner)
}

fn bound(subject: &Subject, view: &impl View) -> Authority {
    let held = view.bindings(subject).into_iter().map(|binding| {
        let active = binding.scope.as_ref().is_none_or(|scope| view.is_active(scope));
        let permissions = if active { permissions_of(&binding.role, view) } else { Permissions::default() };
        Authority::new(permissions, binding.scope)
    });
    held.fold(Authority::NONE, Authority::or)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::auth::authority::Permission;
    use crate::manage::testing::{key_body, noon, user_body};
    use crate::store::record::KeyBody;

    /// Records by their ids.
    #[derive(Default)]
    struct Records {
        users: HashMap<&'static str, UserBody>,
        keys: HashMap<&'static str, KeyBody>,
        roles: HashMap<&'static str, RoleBody>,
        bindings: Vec<BindingBody>,
    }

    impl View for Records {
        fn user(&self, id: &str) -> Option<UserBody> {
            self.users.get(id).cloned()
        }
        fn key(&self, id: &str) -> Option<Held> {
            self.keys.get(id).cloned().map(|KeyBody { scope, access, state, expires_at, owner, parent, .. }| {
                let expires_at = expires_at.unwrap_or(Timestamp::NEVER);
                Held { scope, access, state, expires_at, owner, parent }
            })
        }
        fn role(&self, name: &str) -> Option<RoleBody> {
            self.roles.get(name).cloned()
        }
        fn bindings(&self, subject: &Subject) -> Vec<BindingBody> {
            self.bindings.iter().filter(|binding| binding.subject == *subject).cloned().collect()
        }
        fn is_active(&self, scope: &Scope) -> bool {
            scope.id_at(crate::auth::scope::Level::Organization) != Some("frozen")
        }
    }

    impl Records {
        fn with(changes: impl FnOnce(&mut Self)) -> Self {
            let mut records = Self::default();
            records.users.insert("ann", UserBody { api_access: true, ..user_body("ann@example.com") });
            records.keys.insert("k", key_body("k"));
            changes(&mut records);
            records
        }

        fn bind(&mut self, subject: &str, role: &str, at: &str) {
            let (created_by, created_time) = (None, noon());
            let subject = Subject::parse(subject).unwrap();
            self.bindings.push(BindingBody { subject, role: role.into(), scope: scope(at), created_by, created_time });
        }

        fn key(&mut self) -> &mut KeyBody {
            self.keys.get_mut("k").unwrap()
        }

        fn may(&self, subject: &str, permission: Permission, at: &str) -> bool {
            let subject = Subject::parse(subject).unwrap();
            authority_of(&subject, self, noon()).may(permission, scope(at).as_ref())
        }
    }

    fn scope(text: &str) -> Option<Scope> {
        (!text.is_empty()).then(|| Scope::parse(text).unwrap())
    }

    const ACME: &str = "organization:acme";

    #[test]
    fn a_key_has_the_roles_bound_to_it_as_far_as_it_reaches_itself() {
        type Change = fn(&mut Records);
        let rows: [(&str, Change, bool, bool); 7] = [
            ("no role, no authority", |_| (), false, false),
            ("its own role", |r| r.bind("key:k", "admin", ""), true, true),
            ("not that of somebody else", |r| r.bind("user:k", "admin", ""), false, false),
            ("elsewhere", |r| r.bind("key:k", "admin", "organization:other"), false, false),
            ("an unknown role", |r| r.bind("key:k", "chief", ""), false, false),
            ("a role in a scope that is suspended", |r| r.bind("key:k", "admin", "organization:frozen"), false, false),
            ("the owner's role is not its own", |r| r.bind("user:ann", "admin", ""), false, false),
        ];
        for (what, change, reads, writes) in rows {
            let records = Records::with(change);
            assert_eq!(records.may("key:k", Permission::KeysRead, ACME), reads, "{what}");
            assert_eq!(records.may("key:k", Permission::KeysWrite, ACME), writes, "{what}");
        }
        let frozen = Records::with(|r| r.bind("user:ann", "admin", "organization:frozen"));
        assert!(!frozen.may("user:ann", Permission::KeysRead, "organization:frozen"));
    }

    #[test]
    fn a_key_has_no_more_than_it_its_owner_and_its_state_allow() {
        type Change = fn(&mut KeyBody);
        let rows: [(&str, Change, bool, bool); 5] = [
            ("V5: a read-only key looks", |key| key.access = Access::ReadOnly, true, false),
            ("its scope", |key| key.scope = scope("organization:acme/project:p"), false, false),
            ("revoked", |key| key.state = State::Revoked, false, false),
            ("ended", |key| key.expires_at = Some(noon()), false, false),
            ("an owner who may look", |key| key.owner = Some("ann".into()), true, false),
        ];
        for (what, change, reads, writes) in rows {
            let records = Records::with(|r| {
                r.bind("key:k", "admin", "");
                r.bind("user:ann", "observer", ACME);
                change(r.key());
            });
            assert_eq!(records.may("key:k", Permission::KeysRead, ACME), reads, "{what}");
            assert_eq!(records.may("key:k", Permission::KeysWrite, ACME), writes, "{what}");
        }
    }

    #[test]
    fn a_key_below_another_has_what_both_have() {
        let family = |above: fn(&mut KeyBody)| {
            Records::with(|r| {
                r.keys.insert("child", KeyBody { parent: Some("k".into()), ..key_body("child") });
                r.bind("key:child", "admin", "");
                r.bind("key:k", "admin", ACME);
                above(r.key());
            })
        };
        let may = |records: &Records, at| records.may("key:child", Permission::KeysWrite, at);
        let good = family(|_| ());
        assert!(may(&good, ACME) && !may(&good, "") && !may(&good, "organization:other"));
        for above in [
            (|key| key.state = State::Disabled) as fn(&mut KeyBody),
            |key| key.access = Access::ReadOnly,
            |key| key.parent = Some("child".into()),
            |key| key.owner = Some("nobody".into()),
        ] {
            assert!(!may(&family(above), ACME));
        }
    }

    #[test]
    fn c17_a_role_of_observers_touches_nothing_whatever_it_says() {
        let role = |observer| RoleBody {
            permissions: vec![Permission::KeysRead, Permission::KeysWrite],
            observer,
            created_by: None,
            created_time: noon(),
            updated_by: None,
            updated_time: noon(),
        };
        for observer in [true, false] {
            let records = Records::with(|r| {
                r.roles.insert("keepers", role(observer));
                r.bind("user:ann", "keepers", ACME);
            });
            assert!(records.may("user:ann", Permission::KeysRead, ACME));
            assert_eq!(records.may("user:ann", Permission::KeysWrite, ACME), !observer);
        }
    }

    #[test]
    fn who_is_suspended_may_nothing_but_is_still_themselves() {
        let records = Records::with(|r| {
            r.bind("user:ann", "admin", "");
            r.users.get_mut("ann").unwrap().state = UserState::Suspended;
        });
        assert!(!records.may("user:ann", Permission::KeysRead, ACME));
        assert!(!records.may("user:nobody", Permission::KeysRead, ACME));
    }
}
