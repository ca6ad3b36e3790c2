//! Who may manage what: permissions, the roles that are built in, and what somebody's roles come to. Nobody may anything that
//! is not here: whoever has no role has no authority but over the own account.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::scope::{Level, Scope};

/// One thing that somebody may do to what Keyward manages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// See keys.
    KeysRead,
    /// Make, change and delete keys.
    KeysWrite,
    /// See users.
    UsersRead,
    /// Make, change and delete users.
    UsersWrite,
    /// See roles.
    RolesRead,
    /// Make, change and delete roles.
    RolesWrite,
    /// See who has which role.
    BindingsRead,
    /// Give and take roles.
    BindingsWrite,
    /// See scopes.
    ScopesRead,
    /// Make, change and delete scopes.
    ScopesWrite,
    /// See who did what.
    AuditRead,
    /// See when and how often keys were used.
    UsageRead,
    /// Report keys that were found where they do not belong.
    LeaksWrite,
    /// See and change the own account (C23).
    Own,
}

impl Permission {
    /// All of them, in order of declaration.
    pub const ALL: [Self; 14] = [
        Self::KeysRead,
        Self::KeysWrite,
        Self::UsersRead,
        Self::UsersWrite,
        Self::RolesRead,
        Self::RolesWrite,
        Self::BindingsRead,
        Self::BindingsWrite,
        Self::ScopesRead,
        Self::ScopesWrite,
        Self::AuditRead,
        Self::UsageRead,
        Self::LeaksWrite,
        Self::Own,
    ];

    /// As in records, the API and its document.
    pub const fn label(self) -> &'static str {
        match self {
            Self::KeysRead => "keys:read",
            Self::KeysWrite => "keys:write",
            Self::UsersRead => "users:read",
            Self::UsersWrite => "users:write",
            Self::RolesRead => "roles:read",
            Self::RolesWrite => "roles:write",
            Self::BindingsRead => "bindings:read",
            Self::BindingsWrite => "bindings:write",
            Self::ScopesRead => "scopes:read",
            Self::ScopesWrite => "scopes:write",
            Self::AuditRead => "audit:read",
            Self::UsageRead => "usage:read",
            Self::LeaksWrite => "leaks:write",
            Self::Own => "self",
        }
    }

    /// Reads [`Permission::label`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|permission| permission.label() == text)
    }
}

impl Serialize for Permission {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.label())
    }
}

impl<'de> Deserialize<'de> for Permission {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a permission"))
    }
}

/// A set of permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions(u16);

impl Permissions {
    /// All there are.
    pub const ALL: Self = Self((1 << Permission::ALL.len()) - 1);

    /// These.
    pub const fn of(list: &[Permission]) -> Self {
        let (mut set, mut at) = (0, 0);
        while at < list.len() {
            set |= 1 << list[at] as u16;
            at += 1;
        }
        Self(set)
    }

    /// Whether one is among them.
    pub const fn has(self, permission: Permission) -> bool {
        self.0 & 1 << permission as u16 != 0
    }

    /// Those that are in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that look and do not touch (C17, V5).
    #[must_use]
    pub const fn looking(self) -> Self {
        self.and(LOOKING)
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.into_iter().filter(move |permission| self.has(*permission))
    }
}

const LOOKING: Permissions = Permissions::of(&[
    Permission::KeysRead,
    Permission::UsersRead,
    Permission::RolesRead,
    Permission::BindingsRead,
    Permission::ScopesRead,
    Permission::AuditRead,
    Permission::UsageRead,
]);

/// What is done at a project or a scene: people, what they may do and what they did are an organization's (C20, C24).
const BELOW_ORGANIZATIONS: Permissions = Permissions::of(&[
    Permission::KeysRead,
    Permission::KeysWrite,
    Permission::ScopesRead,
    Permission::ScopesWrite,
    Permission::UsageRead,
    Permission::LeaksWrite,
]);

/// The roles that are there without a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltIn {
    /// May everything.
    Admin,
    /// Sees all but the audit, which is for admins (C20).
    Observer,
    /// Sees what there is to work with, and reports what has leaked.
    Member,
}

impl BuiltIn {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Observer, Self::Member];

    /// The role with a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Observer => "observer",
            Self::Member => "member",
        }
    }

    /// What it permits.
    pub const fn permissions(self) -> Permissions {
        const SEEN: Permissions = Permissions(LOOKING.0 & !(1 << Permission::AuditRead as u16));
        const WORKED_WITH: Permissions = Permissions::of(&[
            Permission::KeysRead,
            Permission::ScopesRead,
            Permission::UsageRead,
            Permission::LeaksWrite,
        ]);
        match self {
            Self::Admin => Permissions::ALL,
            Self::Observer => SEEN,
            Self::Member => WORKED_WITH,
        }
    }
}

/// Permissions within a scope; everywhere, which is the domain level, without one (C19).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holding {
    permissions: Permissions,
    scope: Option<Scope>,
}

/// What somebody may do: the union of what the roles give, each within its scope (C16, C18).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authority(Vec<Holding>);

impl Authority {
    /// Nothing but one's own account.
    pub const NONE: Self = Self(Vec::new());

    /// What one role gives within a scope.
    pub fn new(permissions: Permissions, scope: Option<Scope>) -> Self {
        let below = scope.as_ref().is_some_and(|scope| scope.step().level > Level::Organization);
        let permissions = if below { permissions.and(BELOW_ORGANIZATIONS) } else { permissions };
        if permissions == Permissions::default() { Self::NONE } else { Self(vec![Holding { permissions, scope }]) }
    }

    /// What both give together.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// What both give each by itself.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let pairs = self.0.iter().flat_map(|a| other.0.iter().map(move |b| (a, b)));
        let both = pairs.filter_map(|(a, b)| Some((a.permissions.and(b.permissions), common(&a.scope, &b.scope)?)));
        both.map(|(permissions, scope)| Self::new(permissions, scope)).fold(Self::NONE, Self::or)
    }

    /// What is left within a scope.
    #[must_use]
    pub fn within(&self, scope: Option<&Scope>) -> Self {
        self.and(&Self(vec![Holding { permissions: Permissions::ALL, scope: scope.cloned() }]))
    }

    /// What is left for somebody who may only look.
    #[must_use]
    pub fn looking(&self) -> Self {
        self.and(&Self(vec![Holding { permissions: LOOKING, scope: None }]))
    }

    /// Whether something may be done at a scope; at the domain level without one. Their own account is everybody's (C23).
    pub fn may(&self, permission: Permission, at: Option<&Scope>) -> bool {
        permission == Permission::Own || self.0.iter().any(|held| held.permissions.has(permission) && held.reaches(at))
    }

    /// Whether something may be done anywhere: where is seen when it is known what it is done to.
    pub fn may_somewhere(&self, permission: Permission) -> bool {
        permission == Permission::Own || self.0.iter().any(|held| held.permissions.has(permission))
    }

    /// Whether it includes all of another: nobody hands on what they do not have.
    pub fn includes(&self, other: &Self) -> bool {
        other.0.iter().all(|held| held.permissions.iter().all(|permission| self.may(permission, held.scope.as_ref())))
    }
}

impl Holding {
    fn reaches(&self, at: Option<&Scope>) -> bool {
        self.scope.as_ref().is_none_or(|scope| at.is_some_and(|at| scope.covers(at)))
    }
}

/// The part of the tree that two scopes have in common; `None` if there is none.
#[allow(clippy::option_option, reason = "the inner one is the whole tree")]
fn common(a: &Option<Scope>, b: &Option<Scope>) -> Option<Option<Scope>> {
    match (a, b) {
        (None, other) | (other, None) => Some(other.clone()),
        (Some(a), Some(b)) if a.covers(b) => Some(Some(b.clone())),
        (Some(a), Some(b)) if b.covers(a) => Some(Some(a.clone())),
        (Some(_), Some(_)) => None,
    }
}

#[cfg(test)]
#[path = "authority/tests.rs"]
mod tests;
