//! Who may manage what: the permissions that there are.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_is_read_as_it_is_written() {
        for (at, permission) in Permission::ALL.into_iter().enumerate() {
            assert_eq!((permission as usize, Permission::parse(permission.label())), (at, Some(permission)));
        }
        assert_eq!(Permission::parse("keys:*"), None);
    }
}
