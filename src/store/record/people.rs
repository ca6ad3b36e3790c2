//! What is in the records of people, of what they may do, and of what only those who manage them may read.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::is_key_id;
use crate::auth::authority::Permission;
use crate::auth::grant::Timestamp;
use crate::auth::scope::Scope;

/// A person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserBody {
    /// Where mail reaches them, in lower case; no two users have the same.
    pub email: String,
    /// What people call them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where the account is kept: who manages users there, or above, manages it; at the domain level if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// Whether they may sign in, and their keys may work.
    pub state: UserState,
    /// Whether keys of theirs work; only an admin says so (B4, B5).
    pub api_access: bool,
    /// When a password was set or they were suspended last: who signed in before is signed out, and links from before are void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_time: Option<Timestamp>,
    /// Who made it, if known.
    pub created_by: Option<String>,
    /// When it was made.
    pub created_time: Timestamp,
    /// Who changed it last, if known.
    pub updated_by: Option<String>,
    /// When it was changed last.
    pub updated_time: Timestamp,
}

impl UserBody {
    /// Whether they may come in by what they were given at a time.
    pub fn takes_in(&self, since: Option<Timestamp>) -> bool {
        let void = since.zip(self.password_time).is_some_and(|(since, void)| since < void);
        self.state == UserState::Active && !void
    }
}

/// The state of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserState {
    /// Works.
    Active,
    /// May not sign in, and all keys of theirs are refused.
    Suspended,
}

/// A set of permissions under a name, which is its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleBody {
    /// What it permits. One that this version does not know makes the role permit nothing.
    pub permissions: Vec<Permission>,
    /// Whether only what looks, and does not touch, counts of them (C17).
    pub observer: bool,
    /// Who made it, if known.
    pub created_by: Option<String>,
    /// When it was made.
    pub created_time: Timestamp,
    /// Who changed it last, if known.
    pub updated_by: Option<String>,
    /// When it was changed last.
    pub updated_time: Timestamp,
}

/// A role that somebody has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindingBody {
    /// Who.
    pub subject: Subject,
    /// Which: the name of one that is built in, or of a record.
    pub role: Box<str>,
    /// Where, and in all below; everywhere if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// Who made it, if known.
    pub created_by: Option<String>,
    /// When it was made.
    pub created_time: Timestamp,
}

/// Who has a role: `user:ID` or `key:ID`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A user, by id.
    User(Box<str>),
    /// A key, by id.
    Key(Box<str>),
}

impl Subject {
    /// Reads `user:ID` or `key:ID`.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, id) = text.split_once(':').filter(|(_, id)| is_key_id(id))?;
        match kind {
            "user" => Some(Self::User(id.into())),
            "key" => Some(Self::Key(id.into())),
            _ => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "user:{id}"),
            Self::Key(id) => write!(f, "key:{id}"),
        }
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("a subject is user:ID or key:ID"))
    }
}

/// What a user signs in with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasswordBody {
    /// The password, hashed slowly.
    pub hash: PasswordHash,
    /// When it was set.
    pub created_time: Timestamp,
}

/// A key's value, for those who may look it up again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedBody {
    /// The value, encrypted under a key that is not in the store.
    pub value: SealedValue,
    /// When it was sealed.
    pub created_time: Timestamp,
}

/// A name that is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UniqueBody {
    /// Who has it.
    pub holder: Subject,
    /// When it is free again; never if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it was made, of what is void once its holder changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_time: Option<Timestamp>,
}

/// A password's Argon2 hash in PHC form. It is never printed: whoever reads it can guess at the password in peace.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordHash(pub String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash")
    }
}

/// A ciphertext as base64. It is never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SealedValue(pub String);

impl fmt::Debug for SealedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedValue")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_read_as_it_is_written() {
        for (text, fits) in [
            ("user:u1", true),
            ("key:k-1", true),
            ("team:t1", false),
            ("user:", false),
            ("user:a b", false),
            ("u1", false),
        ] {
            let read = Subject::parse(text);
            assert_eq!(read.as_ref().map(ToString::to_string), fits.then(|| text.to_owned()));
        }
    }

    #[test]
    fn hashes_and_ciphertexts_are_not_printed() {
        let now = Timestamp::from_millis(1);
        let password = PasswordBody { hash: PasswordHash("$argon2id$needle".to_owned()), created_time: now };
        let sealed = SealedBody { value: SealedValue("needle".to_owned()), created_time: now };
        assert!(!format!("{password:?} {sealed:?}").contains("needle"));
    }
}
